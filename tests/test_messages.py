"""Errors say the rule, what came in and what follows; this table holds every one that a user can meet."""

from __future__ import annotations

import ast
import sys
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numba
import numpy as np
import pytest

import fastq as fq
from fastq.machine import pool
from fastq.models import difference
from fastq.products import sums
from fastq.qarray.parts import put_together
from fastq.quant.gptq import Gptq, quantize_columns
from fastq.quant.moment import SecondMoment
from fastq.quant.spec import QuantSpec
from fastq.storage import out_of_core
from fastq.storage.folder import replacing

from .cases import instruction_set
from .qarray.test_from_parts import WRONG as OF_PARTS
from .qarray.test_from_parts import from_wrong

PACKAGE = Path(fq.__file__).parent
# Rooms whose errors are for those who work on fastq, or have tests of their own; all but a few of their files.
# Rooms of no public arguments, and those whose messages have tests of their own.
PRIVATE = ("__main__", "bench", "cli", "engine", "formats", "interop", "kernels", "layout", "machine")
EXCEPT = ("engine/reference", "kernels/epilogue/custom", "machine/cpu", "machine/pool")
NAMES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
PUBLIC = [name for name in NAMES if name in EXCEPT or name.split("/")[0] not in PRIVATE]

X = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
BAD = np.where(X == 0, np.nan, X)
CODES = X.astype(np.int8)
TOP = np.finfo(np.float32).max
FAR = np.repeat([-TOP, TOP], 64)[:, None]
LONG = np.full((1, 33_026), 255, np.uint8)
READ_ONLY = np.broadcast_to(np.float32(0), (2, 2))


def in_use():
    """What Windows says of a file that is mapped."""
    error = PermissionError(13, "Access is denied")
    error.winerror = 32  # type: ignore[attr-defined]
    with replacing(Path("items")):
        raise error


def items():
    return fq.quantize(X, axis=-1)


def class_raised(call):
    """NumPy's own class of an exception, which it has no public name for."""
    try:
        call()
    except TypeError as error:
        return type(error)
    raise AssertionError


DEEP = []
for _ in range(3000):
    DEEP = [DEEP]


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no words")


CASTING_IN = class_raised(lambda: np.matmul(X, X.T, dtype=np.int32))
CASTING_OUT = class_raised(lambda: np.matmul(X, X.T, np.empty((2, 2), int)))


@numba.njit
def raising(y):
    if y == y:
        raise ValueError("never")
    return y


def q(**form):
    return fq.quantize(X, **form)


def ordered():
    return fq.from_parts(**q(axis=0).parts(), order=[1, 0])


def narrow(kind):
    return fq.from_parts([[0], [1]], kind([[2]] * 2), bits=2, offset=kind([[1]] * 2), dtype=np.float16)


def asymmetric(**form):
    return fq.quantize(X, scheme="asymmetric", **form)


def lazily(call):
    """A call with an array of Dask, as far as matmul looks at it."""
    before = sys.modules.get("dask.array")
    sys.modules["dask.array"] = SimpleNamespace(Array=list)
    try:
        return call([])
    finally:
        del sys.modules["dask.array"]
        if before is not None:
            sys.modules["dask.array"] = before


class Changing(dict):
    """A model whose array is longer each time it is asked for."""

    def __init__(self):
        super().__init__(w=0)
        self.asked = 0

    def items(self):
        return [("w", self["w"])]

    def __getitem__(self, name):
        self.asked += 1
        return np.ones(self.asked, np.float32)


class Remote:
    """A tensor on another device."""

    def __dlpack__(self, **options):
        raise BufferError("it is far away")

    def __dlpack_device__(self):
        return 2, 0


def gptq(bits=3, scheme="symmetric", k=2, matrix=None, **options):
    moment = SecondMoment.of(np.eye(k))
    if matrix is not None:
        moment._mean, moment._shrinkage = np.array(matrix, float), 0.0
    return quantize_columns(X, QuantSpec(bits, 0, None, scheme), moment, **options)


def in_files(call, document=None, missing=None, text=b"["):
    """What a function makes of a folder that an array was saved to, with a file that is changed."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "q"
        q(axis=0).save(path)
        if document is not None:
            (path / "qarray.json").write_bytes(document)
        if missing is not None:
            (path / missing).unlink()
            (path / missing).write_bytes(text) if text else None
        return call(path)


def in_blocks(call):
    """What a function raises where arrays are quantized block by block."""
    limit, out_of_core.IN_ONE_GO = out_of_core.IN_ONE_GO, 1
    blocks, out_of_core.BLOCK = out_of_core.BLOCK, 1
    try:
        with tempfile.TemporaryDirectory() as place:
            return call(f"{place}/q")
    finally:
        out_of_core.IN_ONE_GO, out_of_core.BLOCK = limit, blocks


def on(isa, call=q):
    with instruction_set(isa):
        return call()


CASES = {
    "a file that Windows has mapped": (in_use, PermissionError,
        r"items must not be in use while it is replaced; Windows says .*denied.*, or save elsewhere$"),
    "a function that has no answer": (lambda: fq.quantize_all({"w": X}, include=int), ValueError,
        r"include must be a function that has an answer for each name; for 'w' it raised ValueError: invalid literal"),
    "a name that is none": (lambda: fq.matmull, AttributeError, r"module 'fastq' has no attribute 'matmull'"),
    # calibration
    "calibration of text": (lambda: SecondMoment.of("rows"), TypeError,
        r"calibration must be of real numbers, got dtype <U4; convert it first"),
    "calibration of a number": (lambda: SecondMoment.of(3.0), ValueError,
        r"calibration must be rows of input, of shape \(\.\.\., K\); got the number 3\.0"),
    "calibration of two widths": (lambda: SecondMoment.of([X, X.T]), ValueError,
        r"calibration must have rows of 3 elements, one per channel; got shape \(3, 2\)"),
    "calibration without rows": (lambda: SecondMoment.of(X[:0]), ValueError,
        r"calibration must hold at least one row of input, because rounding follows it; got none"),
    "calibration with NaN": (lambda: SecondMoment.of([X, BAD]), fq.NotFiniteError,
        r"calibration must be finite.*; 1 of 6 values is not, the first at index \(1, 0\)"),
    "moment of unknown width": (lambda: SecondMoment().matrix, ValueError,
        r"SecondMoment must know its width before it has a matrix: give k, or update it with rows"),
    "calibration of another width": (lambda: gptq(k=3), ValueError,
        r"calibration must have rows of 2 elements, one per row of the weights; got 3"),
    "calibration without need": (lambda: q(axis=0, calibration=X), ValueError,
        r"calibration is for method 'mse' or 'gptq', which look at errors; got method='minmax'"),
    "gptq without calibration": (lambda: q(axis=0, method="gptq"), ValueError,
        r"method='gptq' needs calibration, rows of real input to the product; got none"),
    "calibration without an axis": (lambda: q(method="mse", calibration=X), ValueError,
        r"calibration is about a product along .*, so it needs an axis; got shape \(2, 3\) with axis=None"),
    "calibration of a vector": (lambda: fq.quantize(X[0], axis=0, method="gptq", calibration=X), ValueError,
        r"calibration is about .*, so it needs two dimensions; got shape \(3,\)"),
    "calibration that does not fit": (lambda: q(axis=0, method="gptq", calibration=X), ValueError,
        r"calibration must have rows of 2 elements, one per element of axis 0; got rows of 3"),
    "moment that is none": (lambda: gptq(matrix=[[1, 9], [9, 1]]), ValueError,
        r"calibration must have a second moment without negative directions; .* even with damping=1"),
    "damping of text": (lambda: Gptq(damping="much"), TypeError,
        r"damping must be a number from 0 to 1, got 'much' of type str"),
    "damping too large": (lambda: Gptq(damping=2), ValueError,
        r"damping must be from 0 to 1, as a share of the mean diagonal; got 2"),
    "sweeps of truth": (lambda: Gptq(sweeps=True), TypeError, r"sweeps must be an integer, 0 or more, got True"),
    "sweeps too few": (lambda: Gptq(sweeps=-1), ValueError, r"sweeps must be 0 or more, got -1"),
    "out for Dask": (lambda: lazily(lambda x: fq.quantize(x, out="nowhere")), TypeError,
        r"out and progress must be left out for Dask arrays, which are quantized lazily; got one of them"),
    # quantize: the array
    "x of text": (lambda: fq.quantize("abc"), TypeError,
        r"x must be of real numbers \(float16, .* or integers\), got dtype <U3; convert it first"),
    "x of nothing": (lambda: fq.quantize(None), TypeError, r"x must be of real numbers .* got dtype object"),
    "x of truth": (lambda: fq.quantize(X > 0), TypeError, r"x must be of real numbers .* got dtype bool"),
    "x complex": (lambda: fq.quantize(X + 0j), TypeError, r"x must be of real numbers .* got dtype complex64"),
    "x too wide": (lambda: fq.quantize(X.astype(np.longdouble)), TypeError,
        rf"x must be of real numbers .* got dtype {np.dtype(np.longdouble)}"),
    "x quantized": (lambda: fq.quantize(q()), TypeError,
        r"x is quantized already; quantize x\.dequantize\(\) to change its form"),
    "x with NaN": (lambda: fq.quantize(BAD), fq.NotFiniteError,
        r"x must be finite, because NaN and infinity have no code; 1 of 6 .* first at index \(1, 0\) \(nan\)"),
    "x with infinities": (lambda: fq.quantize([np.inf, 1, -np.inf]), fq.NotFiniteError,
        r"x must be finite.*; 2 of 3 values are not, the first at index \(0,\) \(inf\)"),
    "affine span": (lambda: fq.quantize(np.array([-TOP, TOP]), scheme="affine"), ValueError,
        r"max - min of affine data must be finite in its float type; it overflows.*scale the data down, convert .*"
        r"float64, or use scheme='symmetric'"),
    "affine span, searched": (lambda: fq.quantize(np.array([-TOP, TOP]), scheme="affine", method="mse"), ValueError,
        r"max - min of affine data must be finite in its float type; it overflows"),
    # quantize: the form
    "bits too few": (lambda: q(bits=1), ValueError, r"bits must be from 2 to 8, got 1; codes are stored in that many"),
    "bits too many": (lambda: q(bits=9), ValueError, r"bits must be from 2 to 8, got 9"),
    "bits of text": (lambda: q(bits="3"), TypeError, r"bits must be an integer from 2 to 8, got '3' of type str: "
        r"write bits=3$"),
    "bits by a type's name": (lambda: q(bits="int8"), TypeError, r"got 'int8' of type str: write bits=8$"),
    "bits by a type": (lambda: q(bits=np.int8), TypeError, r"got <class 'numpy.int8'> of type type: write bits=8$"),
    "bits by a dtype": (lambda: q(bits=np.dtype(np.uint8)), TypeError,
        r"got dtype\('uint8'\) of type \w+: write bits=8, with scheme='asymmetric' if codes are to be unsigned$"),
    "bits by a wide type": (lambda: q(bits=np.int16), TypeError, r"got <class 'numpy.int16'> of type type$"),
    "bits of nothing": (lambda: q(bits=None), TypeError, r"got None of type NoneType$"),
    "bits of a float": (lambda: q(bits=3.0), TypeError, r"bits must be an integer from 2 to 8, got 3\.0 of type float: "
        r"write bits=3$"),
    "bits of truth": (lambda: q(bits=True), TypeError, r"bits must be an integer from 2 to 8, got True of type bool"),
    "scheme": (lambda: q(scheme="symetric"), ValueError,
        r"scheme must be one of 'symmetric', 'asymmetric', 'affine'; got 'symetric'"),
    "method": (lambda: q(method="max"), ValueError,
        r"method must be one of 'minmax', .*'gptq', or a fastq\.Percentile or fastq\.Gptq; got 'max'"),
    "share of zero": (lambda: fq.Percentile(0), ValueError,
        r"share must be above 0 and up to 100, as the percent of elements inside the range; got 0"),
    "share too large": (lambda: fq.Percentile(100.5), ValueError, r"share must be .*up to 100.*; got 100\.5"),
    "share of text": (lambda: fq.Percentile("99"), TypeError,
        r"share must be a number of percent, got '99' of type str"),
    "axis too large": (lambda: q(axis=2), ValueError,
        r"axis must be from -2 to 1 for an array of 2 dimensions, got 2"),
    "axis too small": (lambda: q(axis=-3), ValueError, r"axis must be from -2 to 1 .* got -3"),
    "axis of a tuple": (lambda: q(axis=(0, 1)), TypeError,
        r"axis must be an integer or None, got \(0, 1\) of type tuple"),
    "axis of truth": (lambda: q(axis=True), TypeError, r"axis must be an integer or None, got True of type bool"),
    "group of a float": (lambda: q(axis=0, group_size=2.0), TypeError,
        r"group_size must be a positive integer or None, got 2\.0 of type float"),
    "group of nothing": (lambda: q(axis=0, group_size=0), ValueError,
        r"group_size must be a positive integer or None, got 0"),
    "group scale of a kind": (lambda: q(axis=0, group_size=16, group_scale="int"), ValueError,
        r"group_scale must be 'integer', 'float' or None, got 'int'"),
    "integer scales of small groups": (lambda: q(bits=3, axis=0, group_size=8, group_scale="integer"), ValueError,
        r"group_scale='integer' needs a group_size that is a multiple of 16, .*; got group_size=8, bits=3, "
        r"scheme='symmetric'$"),
    "integer scales of 8 bits": (lambda: q(axis=0, group_size=16, group_scale="integer"), ValueError,
        r"group_scale='integer' needs .* 2 to 7 bits, .*; got group_size=16, bits=8"),
    "integer scales of one's own": (lambda: q(bits=3, axis=0, group_size=16, group_scale="integer", scale=1.0),
        ValueError, r"no scale of your own; got .* and a scale"),
    "group without an axis": (lambda: q(group_size=2), ValueError,
        r"group_size needs an axis along which to cut groups; got group_size=2 with axis=None"),
    # quantize: parameters of one's own
    "zero point alone": (lambda: asymmetric(zero_point=3), ValueError,
        r"zero_point must come with a scale; got zero_point alone"),
    "scale alone": (lambda: asymmetric(scale=0.1), ValueError,
        r"scheme='asymmetric' with a scale of your own needs its zero_point too; got scale alone"),
    "scale of text": (lambda: q(scale="a"), TypeError, r"scale must be of real numbers, got dtype <U1"),
    "scale of zero": (lambda: q(axis=1, scale=[[1], [0]]), ValueError,
        r"scale must be finite and not 0 in float32, because x is divided by it; got 0\.0"),
    "scale too small for the type": (lambda: q(scale=1e-60), ValueError, r"scale must be .* not 0 in float32.* got 0"),
    "scale too large for the type": (lambda: q(scale=1e60), ValueError, r"scale must be finite .* float32.* got inf"),
    "scale not a number": (lambda: q(scale=np.nan), ValueError, r"scale must be finite .*got nan"),
    "scale negative": (lambda: asymmetric(scale=-0.5, zero_point=3), ValueError,
        r"scale must be positive for scheme='asymmetric', got -0\.5"),
    "scale of another shape": (lambda: q(axis=0, scale=[[1], [2]]), ValueError,
        r"scale must broadcast to shape \(1, 3\), one entry per run of elements that share it; got shape \(2, 1\)"),
    "scale for affine": (lambda: q(scheme="affine", scale=1), ValueError,
        r"scheme='affine' takes scale and offset from the data; for a scale of your own use 'asymmetric'"),
    "scale given and searched": (lambda: q(method="mse", scale=1), ValueError,
        r"method='mse' chooses the scale, so scale must be left out; got both"),
    "zero point for symmetric": (lambda: q(scale=1, zero_point=2), ValueError,
        r"zero_point must be left out \(or 0\) for scheme='symmetric'; use 'asymmetric' for others"),
    "zero point of a float": (lambda: asymmetric(scale=1, zero_point=3.0), TypeError,
        r"zero_point must be of integers, got dtype float64"),
    "zero point too large": (lambda: asymmetric(bits=3, scale=1, zero_point=8), ValueError,
        r"zero_point must be a code, from 0 to 7 for 3 bits, so that 0 has one; got 8"),
    "zero point negative": (lambda: asymmetric(scale=1, zero_point=-1), ValueError,
        r"zero_point must be a code, from 0 to 255 for 8 bits, so that 0 has one; got -1"),
    "zero point of another shape": (lambda: asymmetric(scale=1, zero_point=[1, 2]), ValueError,
        r"zero_point must broadcast to shape \(1, 1\), .*; got shape \(2,\)"),
    # QArray
    "made by hand": (lambda: fq.QArray(X), TypeError, r"a QArray is made by fastq\.quantize\(x, bits=\.\.\.\)"),
    "set": (lambda: setattr(q(), "bits", 4), AttributeError, r"a QArray is immutable; cannot set 'bits'"),
    "delete": (lambda: delattr(q(), "bits"), AttributeError, r"a QArray is immutable; cannot (set|delete) 'bits'"),
    "length": (lambda: len(fq.quantize(1.0)), TypeError, r"len\(\) of unsized object"),
    "converted": (lambda: np.asarray(q()), TypeError,
        r"a QArray is not converted to an ndarray silently, because .* memory; call q\.dequantize\(\)"),
    "dequantize something else": (lambda: fq.dequantize(X), TypeError,
        r"q must be a QArray, as fastq\.quantize makes it; got ndarray"),
    "dequantize to integers": (lambda: q().dequantize(np.int32), TypeError,
        r"dtype must be a float type that NumPy computes in, got int32; codes are in q\.codes"),
    "dequantize into another type": (lambda: q().dequantize(np.float32, out=np.empty((2, 3))), TypeError,
        r"out must be an array of float32, got float64"),
    "dequantize into integers": (lambda: q().dequantize(out=np.empty((2, 3), int)), TypeError,
        r"must be .*float.*got int64"),
    "dequantize into a list": (lambda: q().dequantize(out=[1, 2]), TypeError, r"out must be an array.* got list"),
    "dequantize into another shape": (lambda: q().dequantize(out=np.empty((3, 2), np.float32)), ValueError,
        r"out must be writeable and of shape \(2, 3\), got shape \(3, 2\)$"),
    "dequantize into read-only": (lambda: fq.quantize(X[:, :2]).dequantize(out=READ_ONLY), ValueError,
        r"out must be writeable and of shape \(2, 2\), got shape \(2, 2\) \(read-only\)"),
    # top_k
    "top_k of a number": (lambda: fq.top_k(1.0, items()), ValueError,
        r"x must be a vector or rows of them.*shape \(\)$"),
    "top_k of another width": (lambda: fq.top_k(X[:, :2], items()), ValueError,
        r"x must have as many elements along its last axis as q has along axis -1, 3; got shape \(2, 2\)$"),
    "top_k in a vector": (lambda: fq.top_k(X, X[0]), ValueError, r"q must have two dimensions.*shape \(3,\)$"),
    "top_k of columns": (lambda: fq.top_k(X, fq.quantize(X, axis=0)), ValueError,
        r"q must be quantized along the axis that is summed over, -1, .*quantize with axis=-1, or pass axis=-2"),
    "top_k along no axis": (lambda: fq.top_k(X, items(), axis=2), np.exceptions.AxisError, r"axis 2 is out"),
    "top_k of complex numbers": (lambda: fq.top_k(X + 1j, X, 2), TypeError,
        r"x and q must be of floats or 8-bit integers, or quantized; got complex64 and float32"),
    "top_k of NaN": (lambda: fq.top_k(BAD, items(), 2), fq.NotFiniteError, r"x must be finite.* at index \(1, 0\)"),
    "top_k, none": (lambda: fq.top_k(X, items(), 0), ValueError, r"k must be an integer of at least 1, got 0$"),
    "top_k, one and a half": (lambda: fq.top_k(X, items(), 1.5), TypeError,
        r"k must be an integer of at least 1, got "),
    "top_k, too many": (lambda: fq.top_k(X, items(), 3), ValueError,
        r"k must be at most the number of items, 2; got 3$"),
    "top_k, too many of some": (lambda: fq.top_k(X, items(), 2, where=[True, False]), ValueError,
        r"k must be at most the number of items that where lets pass, 1; got 2$"),
    "top_k where": (lambda: fq.top_k(X, items(), 2, where=[1, 0]), ValueError,
        r"where must be an array of bool with an element for each of the 2 items, got int64 of shape \(2,\)"),
    "top_k, largest of many": (lambda: fq.top_k(X, items(), 2, largest=X), TypeError, r"largest must be True or False"),
    "top_k into an array": (lambda: fq.top_k(X, items(), 2, out=X), TypeError,
        r"out must be a tuple of two arrays, values and indices; got "),
    "top_k into floats": (lambda: fq.top_k(X, items(), 2, out=(np.ones((2, 2)),) * 2), ValueError,
        r"out must have writeable int64 indices of shape \(2, 2\); got float64 of shape \(2, 2\)$"),
    "top_k into read-only": (lambda: fq.top_k(X, items(), 2, out=(READ_ONLY, READ_ONLY)), ValueError,
        r"out must have writeable values of shape \(2, 2\); got float32 of shape \(2, 2\), read-only$"),
    "rescore by codes": (lambda: fq.top_k(X, items(), 2, rescore=items()), TypeError,
        r"rescore must be the float rows that q was quantized from; got .*: pass the array before it was quantized$"),
    "rescore by a list": (lambda: fq.top_k(X, items(), 2, rescore=[1]), TypeError,
        r"rescore must have a shape and be indexed by rows, as an array is; got \[1\]"),
    "rescore by others": (lambda: fq.top_k(X, items(), 2, rescore=X.T), ValueError,
        r"rescore must have a row for each item, shape \(2, 3\); got \(3, 2\)"),
    "rescore by complex numbers": (lambda: fq.top_k(X, items(), 2, rescore=X * 1j), TypeError,
        r"rescore must hold real numbers, got complex64"),
    "oversample": (lambda: fq.top_k(X, items(), 2, rescore=X, oversample=0), ValueError,
        r"oversample must be an integer of at least 1, got 0$"),
    "merge nothing": (lambda: fq.merge_top_k([]), TypeError,
        r"parts must hold pairs of values and indices, numbers and integers; got \[\]$"),
    "merge other queries": (lambda: fq.merge_top_k([(X, CODES), (X[0], CODES[0])], 2), ValueError,
        r"parts must hold pairs of values and indices of one shape, .*\(2, 3\) and \(2, 3\), \(3,\) and \(3,\)$"),
    # matmul: what becomes of it
    "epilogue": (lambda: fq.matmul(X, X.T, epilogue="tanh"), ValueError,
        r"epilogue must be one of 'relu', 'gelu', 'silu', or a function compiled by numba\.njit; got 'tanh'"),
    "epilogue in Python": (lambda: fq.matmul(X, X.T, epilogue=abs), TypeError,
        r"epilogue must be one of .*numba\.njit; got <built-in function abs>: decorate it with @numba\.njit"),
    "epilogue of a number": (lambda: fq.matmul(X, X.T, epilogue=3), TypeError, r"epilogue must be one of .*; got 3$"),
    "epilogue of two arguments": (lambda: fq.matmul(X, X.T, epilogue=numba.njit(lambda x, y: x)), TypeError,
        r"epilogue must be a function of one float32 that Numba can compile: "),
    "epilogue of text": (lambda: fq.matmul(X, X.T, epilogue=numba.njit(lambda x: "a")), TypeError,
        r"epilogue must return a number, got .* for a float32"),
    "epilogue of integers": (lambda: fq.matmul(CODES, CODES.T, epilogue="relu"), TypeError,
        r"epilogue needs a product of floats, but that of two arrays of 8-bit integers is int32; pass "
        r"dtype=np\.float32"),
    "epilogue for NumPy": (lambda: fq.matmul(X > 0, (X > 0).T, epilogue="relu"), TypeError,
        r"epilogue needs a product of floats; got bool and bool, which NumPy multiplies"),
    "epilogue that raises": (lambda: fq.matmul(X, X.T, epilogue=raising), RuntimeError,
        r"the function given as epilogue must not raise an exception, but for some element it did; .* undefined"),
    "epilogue that raises, in the reference": (lambda: on("reference", lambda: fq.matmul(X, X.T, epilogue=raising)),
        RuntimeError, r"the function given as epilogue must not raise an exception, but for some element it did"),
    "dtype": (lambda: fq.matmul(q(axis=1), X.T, dtype=np.int32), TypeError,
        r"dtype must be one of float16, float32, float64 for a product of type float32, or int8 or uint8 for a "
        r"quantized one; got int32"),
    "dtype of floats": (lambda: fq.matmul(X, X.T, dtype=np.int32), CASTING_IN,
        r"^Cannot cast ufunc 'matmul' input 0 from dtype\('float32'\) to dtype\('int32'\) with casting rule "),
    "dtype of integers": (lambda: fq.matmul(CODES, CODES.T, dtype=np.uint16), CASTING_IN,
        r"Cannot cast ufunc 'matmul' input 0 from dtype\('int8'\) to dtype\('uint16'\)"),
    "codes of what NumPy multiplies": (lambda: fq.matmul(X > 0, (X > 0).T, dtype=np.int8), TypeError,
        r"dtype must be left out for a product that NumPy computes, as that of bool and bool is"),
    "codes into out": (lambda: fq.matmul(X, X.T, np.empty((2, 2), np.int8), dtype=np.int8), TypeError,
        r"out must be left out with dtype=int8, whose result is a QArray; got out"),
    "codes of infinity": (lambda: fq.matmul(TOP / 4 * X, TOP / 4 * X.T, dtype=np.int8), fq.NotFiniteError,
        r"a @ b must be finite, because NaN and infinity have no code; it overflows its float type"),
    "scale of floats": (lambda: fq.matmul(X, X.T, scale=0.5), ValueError,
        r"scale and zero_point are those of a quantized product, so they need dtype=np\.int8 or np\.uint8; got "
        r"dtype=None"),
    "scale of a product, of another shape": (lambda: fq.matmul(X, X.T, dtype=np.int8, scale=[1, 2, 3]), ValueError,
        r"scale must broadcast to shape \(2, 1\), one entry per run of elements that share it; got shape \(3,\)"),
    # matmul: shapes, in NumPy's words
    "no dimensions": (lambda: fq.matmul(np.float32(1), X), ValueError,
        r"matmul: Input operand 0 does not have enough dimensions \(has 0, gufunc core with signature .* requires 1\)"),
    "no dimensions on the right": (lambda: q() @ np.float32(1), ValueError,
        r"matmul: Input operand 1 does not have enough dimensions"),
    "summed axes differ": (lambda: fq.matmul(X, X), ValueError,
        r"matmul: Input operand 1 has a mismatch in its core dimension 0, .* \(size 2 is different from 3\)"),
    "batches differ": (lambda: fq.matmul(np.ones((4, 2, 3)), np.ones((5, 3, 2))), ValueError,
        r"operands could not be broadcast together with remapped shapes \[original->remapped\]: \(4,2,3\)->\(4,newaxis,"
        r"newaxis\) \(5,3,2\)->\(5,newaxis,newaxis\)"),
    "other types, summed axes differ": (lambda: fq.matmul(X > 0, X > 0), ValueError,
        r"matmul: Input operand 1 has a mismatch in its core dimension 0"),
    # matmul: operands
    "complex meets quantized": (lambda: q(axis=1) @ np.ones((3, 2), complex), TypeError,
        r"a quantized array multiplies arrays of real numbers up to 64 bits, got dtype complex128; call dequantize"),
    "text meets quantized": (lambda: np.array(["a", "b"]) @ q(axis=0), TypeError, r"real numbers .* got dtype <U1"),
    "a with NaN": (lambda: fq.matmul(BAD, X.T), fq.NotFiniteError,
        r"a must be finite, because .*; 1 of 6 .* first at index \(1, 0\) \(nan\)"),
    "b with NaN": (lambda: fq.matmul(X, np.ascontiguousarray(BAD.T)), fq.NotFiniteError,
        r"b must be finite, because .*; 1 of 6 .* first at index \(0, 1\) \(nan\)"),
    "scale along K on the right": (lambda: X.T @ q(axis=1), ValueError,
        r"scale of the right operand must be constant along the axis that is summed over, .*; got shape \(2, 3\) with "
        r"axis=1, whose scale varies there: quantize it with axis=-2 or axis=None, or multiply q\.dequantize\(\)"),
    "scale along K on the left": (lambda: q(axis=0, group_size=1) @ X.T, ValueError,
        r"scale of the left operand must be constant .*; got shape \(2, 3\) with axis=0 and group_size=1, .*: "
        r"quantize it with axis=-1 or axis=None"),
    "scale along K of a transpose": (lambda: X @ q(axis=0).T, ValueError,
        r"got shape \(3, 2\) with axis=1, whose .*: it is a transpose; quantize the original with axis=-1, "
        r"one scale per row, or"),
    "scale along K of a transpose on the left": (lambda: q(axis=1).T @ X, ValueError,
        r"got shape \(3, 2\) with axis=0, whose .*: it is a transpose; quantize the original with axis=-2, "
        r"one scale per column, or"),
    "packed, scale along K": (lambda: fq.quantize(np.ones((2, 3, 4)), axis=0).prepack(), ValueError,
        r"scale of the right operand must be constant"),
    "matmul bits": (lambda: fq.matmul(X, X.T, bits=16), ValueError, r"bits must be from 2 to 8, got 16"),
    "sum too large": (lambda: fq.matmul(LONG, LONG.T), OverflowError,
        r"the product of 8-bit integers must fit int32, but with K = 33026 it reaches 2147515650; "
        r"pass out=np\.empty\(shape, np\.int64\) for the exact result"),
    # matmul: bias and out
    "bias of another shape": (lambda: fq.matmul(X, X.T, bias=[1, 2, 3]), ValueError,
        r"bias must be a number or have one entry per column, shape \(2,\); got shape \(3,\)"),
    "bias of two dimensions": (lambda: fq.matmul(X, X.T, bias=[[1, 2]]), ValueError, r"bias must .*shape \(1, 2\)"),
    "bias complex": (lambda: fq.matmul(X, X.T, bias=1j), TypeError,
        r"bias must be of real numbers, got dtype complex128"),
    "bias of floats for integers": (lambda: fq.matmul(CODES, CODES.T, bias=0.5), TypeError,
        r"bias of an integer product must be of integers, got dtype float64; it would be cut off"),
    "bias of bfloat16 for integers": (
        lambda: fq.matmul(CODES, CODES.T, bias=ml_dtypes.bfloat16(0.5)), TypeError,
        r"bias of an integer product must be of integers, got dtype bfloat16; it would be cut off"),
    "bias too large for integers": (lambda: fq.matmul(CODES, CODES.T, bias=2**31), ValueError,
        r"bias of an integer product must fit int32, got .*2147483648"),
    "bias too small for integers": (lambda: fq.matmul(CODES, CODES.T, bias=[-(2**31) - 1, 5]), ValueError,
        r"bias of an integer product must fit int32, got .*-2147483649"),
    "out of a list": (lambda: fq.matmul(X, X.T, out=[[0, 0], [0, 0]]), TypeError,
        r"^return arrays must be of ArrayType$"),
    "out of two arrays": (lambda: fq.matmul(X, X.T, out=(np.empty((2, 2)),) * 2), ValueError,
        r"^The 'out' tuple must have exactly one entry per ufunc output$"),
    "out of a QArray": (lambda: np.matmul(X, X.T, out=q()), TypeError, r"^return arrays must be of ArrayType$"),
    "out of another shape": (lambda: fq.matmul(X, X.T, out=np.empty((2, 3), np.float32)), ValueError,
        r"^matmul: Output operand 0 has a mismatch in its core dimension 1, .* \(size 3 is different from 2\)$"),
    "out of fewer matrices": (lambda: fq.matmul(np.ones((5, 2, 3)), X.T, out=np.empty((1, 2, 2))), ValueError,
        r"^non-broadcastable output operand with shape \(1,2,2\) .*doesn't match the broadcast shape \(5,2,2\)$"),
    "out of one matrix": (lambda: fq.matmul(np.ones((5, 2, 3)), X.T, out=np.empty((2, 2))), ValueError,
        r"^output operand requires a reduction along dimension -1, but the reduction is not enabled"),
    "out read-only": (lambda: fq.matmul(X, X.T, out=READ_ONLY), ValueError, r"^output array is read-only$"),
    "out of integers": (lambda: fq.matmul(X, X.T, out=np.empty((2, 2), int)), CASTING_OUT,
        r"^Cannot cast ufunc 'matmul' output from dtype\('float32'\) to dtype\('int64'\) with casting rule 'sam"),
    "out too narrow": (lambda: fq.matmul(CODES, CODES.T, out=np.empty((2, 2), np.uint8)), CASTING_OUT,
        r"^Cannot cast ufunc 'matmul' output from dtype\('int32'\) to dtype\('uint8'\) with casting rule 'sam"),
    # matmul: what ufuncs have, in NumPy's words
    "a keyword that is none": (lambda: fq.matmul(X, X.T, transpose_b=True), TypeError,
        r"^matmul\(\) got an unexpected keyword argument 'transpose_b'$"),
    "keepdims": (lambda: fq.matmul(X, X.T, keepdims=True), TypeError, r"^matmul does not support keepdims: "),
    "axis": (lambda: fq.matmul(X, X.T, axis=0), TypeError, r"^matmul: axis can only be used with a single shared core"),
    "signature": (lambda: fq.matmul(X, X.T, signature="ff->f"), TypeError,
        r"^matmul\(\) got an unexpected keyword argument 'signature'$"),
    "casting": (lambda: fq.matmul(X, X.T, casting="bogus"), ValueError,
        r"^casting must be one of 'no', 'equiv', 'safe', 'same_kind', .*'unsafe' \(got 'bogus'\)$"),
    "casting to dtype": (lambda: fq.matmul(X, X.T, dtype=np.float16, casting="safe"), CASTING_IN,
        r"^Cannot cast ufunc 'matmul' input 0 from dtype\('float32'\) to dtype\('float16'\) with casting rule 'safe'$"),
    "casting to out": (lambda: fq.matmul(X, X.T, np.empty((2, 2)), casting="no"), CASTING_OUT,
        r"^Cannot cast ufunc 'matmul' output from dtype\('float32'\) to dtype\('float64'\) with casting rule 'no'$"),
    "order": (lambda: fq.matmul(X, X.T, order="X"), ValueError,
        r"^order must be one of 'C', 'F', 'A', or 'K' \(got 'X'\)$"),
    "subok": (lambda: fq.matmul(X, X.T, subok=1), TypeError, r"^'subok' must be a boolean$"),
    "axes of a number": (lambda: fq.matmul(X, X.T, axes=3), TypeError, r"^axes should be a list\.$"),
    "axes of two": (lambda: fq.matmul(X, X.T, axes=[(0, 1), (0, 1)]), ValueError,
        r"^axes should be a list with an entry for all 3 inputs and outputs"),
    "axes of one number": (lambda: fq.matmul(X, X.T, axes=[0, (0, 1), (0, 1)]), np.exceptions.AxisError,
        r"^matmul: operand 0 has 2 core dimensions, but the axes item is a single integer\.$"),
    "axes beyond": (lambda: fq.matmul(X, X.T, axes=[(0, 1), (0, 1), (0, 5)]), np.exceptions.AxisError,
        r"^axis 5 is out of bounds for array of dimension 2$"),
    "axes twice": (lambda: fq.matmul(X, X.T, axes=[(0, 0), (0, 1), (0, 1)]), ValueError,
        r"^axes item 0 has value 0 repeated$"),
    "bias with axes, for NumPy": (
        lambda: fq.matmul(X > 0, X > 0, bias=1, axes=[(0, 1), (1, 0), (0, 1)]), TypeError,
        r"bias must be added to what fq\.matmul returns, if NumPy multiplies along axes; got both"),
    "activations of codes": (lambda: fq.matmul(CODES, CODES.T, activations="group"), ValueError,
        r"activations says how .* on the fly, but both operands have codes already; got 'group': leave it out"),
    "activations of columns, with a bias": (
        lambda: fq.matmul(q(axis=1), X.T, bias=[1, 2], activations="group"), ValueError,
        r'bias must be left out where floats on the right are quantized with activations other than "row"; got '
        r"'group': add it to the product"),
    "activations of columns, into codes": (
        lambda: fq.matmul(q(axis=1), X.T, dtype=np.int8, activations="group"), ValueError,
        r'activations must be "row" where floats on the right become part of a quantized product; got '
        r"'group': quantize what the product without dtype gives"),
    "codes along axes": (lambda: fq.matmul(X, X.T, dtype=np.int8, axes=[(0, 1), (0, 1), (0, 1)]), TypeError,
        r"axes must be left out with dtype=int8, whose result is a QArray; got axes"),
    # matmul: other libraries
    "Dask, and out": (lambda: lazily(lambda x: fq.matmul(x, X, out=np.empty((2, 2)))), TypeError,
        r"out must be left out for Dask arrays, whose product is lazy; got out"),
    "Dask, and axes": (lambda: lazily(lambda x: fq.matmul(X, x, axes=[])), TypeError,
        r"axes must be left out for Dask"),
    "Dask, to codes": (lambda: lazily(lambda x: fq.matmul(X, x, dtype=np.int8)), TypeError,
        r"b must be an array in memory here, got one of Dask; compute\(\) it first"),
    "DLPack from elsewhere": (lambda: fq.matmul(X, Remote()), TypeError,
        r"b must lie in the CPU's memory, in a type that NumPy has; DLPack of Remote says: it is far away"),
    "a bound of text": (lambda: fq.matmul_error_bound(X.astype("U1"), X.T.astype("U1")), TypeError,
        r"a and b must be of numbers, so that their product has a bound; got <U1 and <U1"),
    # sums
    "sums of floats": (lambda: sums.sums(X, CODES.T), TypeError,
        r"a must be of int8 or uint8, or a QArray, got dtype float32"),
    "sums of affine codes": (lambda: sums.sums(CODES, fq.quantize(X.T, axis=0, scheme="affine")), ValueError,
        r"b must be of integers times scales that are constant along the axis that is summed over; got QArray\(.*\), "
        r"with an offset"),
    "sums of groups": (lambda: sums.sums(q(axis=1, group_size=2), CODES.T), ValueError,
        r"a must be of integers times .*, with float scales that differ from group to group"),
    "ufunc": (lambda: np.add(X, q()), TypeError,
        r"numpy\.add has no form for quantized arrays, because it needs the numbers; call it on q\.dequantize\(\)"),
    "a function": (lambda: np.sum(q()), TypeError,
        r"numpy\.sum has no form for quantized arrays, .* q\.dequantize\(\)"),
    "linalg": (lambda: np.linalg.norm(q()), TypeError, r"numpy\.linalg\.norm has no form for quantized arrays"),
    "keywords of a ufunc": (lambda: np.vecdot(q(), X, axis=0), TypeError,
        r"numpy\.vecdot of quantized arrays takes no axis; call it on q\.dequantize\(\)"),
    "out of a ufunc": (lambda: np.multiply(q(), 2, out=X.copy()), TypeError,
        r"out of numpy\.multiply must be left out, because a quantized array is immutable; got out"),
    "a quantized out of a ufunc of numbers": (lambda: np.dot(2.0, True, out=q()), TypeError,
        r"out of numpy\.multiply must be left out, because a quantized array is immutable; got out"),
    "joined with an array": (lambda: np.concatenate([q(), X]), TypeError,
        r"numpy\.concatenate takes quantized arrays together with quantized arrays only; got ndarray"),
    "joined of two widths": (lambda: np.concatenate([q(), q(bits=3)]), TypeError,
        r"quantized arrays that are joined must have one width and scheme; got 3 bits symmetric, 8 bits symmetric"),
    "squeezed": (lambda: np.squeeze(q(), 0), ValueError,
        r"cannot select an axis to squeeze out which has size not equal"),
    "stacked of two shapes": (lambda: np.stack([q(), q().T]), ValueError, r"all input arrays must have the same shape"),
    # parts, shapes, factors
    "assignment": (lambda: q().__setitem__(0, 1), TypeError,
        r"a quantized array is immutable, because new values would need other scales; got an assignment:"
        r" quantize anew"),
    "deletion": (lambda: q().__delitem__(0), ValueError, r"cannot delete array elements"),
    "matrix transpose": (lambda: fq.quantize(X[0]).mT, ValueError, r"matrix transpose with ndim < 2 is undefined"),
    "iteration": (lambda: iter(fq.quantize(1.0)), TypeError, r"iteration over a 0-d array"),
    "item": (lambda: q().item(), ValueError, r"can only convert an array of size 1 to a Python scalar"),
    "float": (lambda: float(q()), TypeError, r"only 0-dimensional arrays can be converted to Python scalars"),
    "index arrays": (lambda: q()[[0, 1], [1, 2]], IndexError,
        r"a quantized array takes one index array, along one axis, .*; got index arrays along several"),
    "index array and new axis": (lambda: fq.quantize(np.ones((2, 2, 2)))[[0], None, :, 1], IndexError,
        r"a quantized array takes new axes and an index array apart from integers in steps; got"),
    "cut through groups": (lambda: fq.quantize(np.ones(50), axis=0, group_size=10)[3:33], ValueError,
        r"a cut along axis 0 must leave groups of one size, .* groups of 10 would be cut unevenly: cut at"
        r" multiples of 10"),
    "cut through a rotation": (lambda: fq.quantize(np.ones(48), axis=0, rotate=True)[8:], ValueError,
        r"a cut along the axis of a rotated array must be a slice of whole blocks of 16, because their elements"
        r" are mixed"),
    "axis of a balance": (lambda: np.squeeze(fq.quantize(np.ones(1), axis=0, balance=[2.0])), ValueError,
        r"the axis along which an array is balanced or rotated must stay; use q\.dequantize\(\)"),
    "shape that tears": (lambda: fq.quantize(np.ones((4, 6)), axis=1).reshape(3, 8), ValueError,
        r"a new shape must keep runs that share a scale in one of its axes; got \(3, 8\) for an array of shape"
        r" \(4, 6\) that"),
    "axes that do not match": (lambda: q().transpose(0), ValueError, r"axes don't match array"),
    "type of an array": (lambda: q().astype(int), TypeError,
        r"dtype must be a float type that NumPy computes in, got int64"),
    "factors complex": (lambda: q() * 1j, TypeError,
        r"factors of a quantized array must be real numbers up to 64 bits"),
    "factors of another shape": (lambda: q() * np.ones((2, 1, 1)), ValueError,
        r"factors of a quantized array must broadcast to its shape \(2, 3\), .*; got shape \(2, 1, 1\)"),
    "factors along the axis": (lambda: q(axis=0) * np.array([[1], [2]]), ValueError,
        r"factors of a quantized array must not vary along the axis that shares a scale, .*; got shape \(2, 1\)"),
    "factors too large": (lambda: q() * 1e39, ValueError, r"factors must leave scale finite in float32; got inf"),
    "divided by 0": (lambda: q() / 0, ZeroDivisionError, r"a quantized array must not be divided by 0, .* got 0"),
    "joined of different groups": (lambda: np.concatenate([q(axis=0, group_size=1), q(axis=0)], axis=1), ValueError,
        r"arrays that are joined must have groups of one size; got groups of 1, None"),
    "joined of two balances": (lambda: np.concatenate([q(axis=0, balance=[1, 2]), q(axis=0)], axis=1), ValueError,
        r"arrays that are joined beside their balance must have the same one; got different ones"),
    "joined of two types": (lambda: np.concatenate([narrow(np.float16), narrow(np.float32)]), ValueError,
        r"arrays that are joined must all have scales of one.* got float16, float32: join what q\.dequantize\(\)"),
    "joined of two orders": (lambda: np.concatenate([ordered(), q(axis=0)], axis=1),
        ValueError, r"arrays that are joined beside their order must have the same one; got different ones"),
    "joined along an order": (lambda: np.concatenate([ordered(), ordered()]), ValueError,
        r"arrays that are joined along the axis .* codes in the order of their elements; got one with an order: join"),
    "cut of an order": (lambda: ordered()[:1], ValueError,
        r"a cut along axis 0 must leave all elements or none, because the codes of an array with an order do not lie in"
        r" that of its elements: cut q\.dequantize\(\)"),
    "order along groups": (lambda: q(axis=1, group_size=2) @ fq.from_parts(**fq.quantize(X.T, axis=0,
        group_size=2).parts(), order=[2, 0, 1]), ValueError,
        r"operands whose codes lie in different orders along the axis that is summed over must have no groups or "
        r"rotation there, .*; got QArrays of shapes \(2, 3\) and \(3, 2\): multiply the dequantize\(\) of one"),
    "joined of two rotations": (lambda: np.concatenate([fq.quantize(np.ones(16), axis=0, rotate=r) for r in (0 > 1,
        1 > 0)]),
        ValueError, r"arrays that are joined must be rotated in blocks of one size; got blocks of 1, 16"),
    "joined of two axes": (lambda: np.concatenate([q(axis=0), q(axis=1)]), ValueError,
        r"arrays that are joined must share scales along one axis; got axes 0, 1"),
    "joined half balanced": (lambda: np.concatenate([q(axis=0, balance=[1, 2]), q(axis=0)]), ValueError,
        r"arrays that are joined must all be balanced, or none; got both"),
    "joined unevenly": (lambda: np.concatenate([fq.quantize(np.full(n, n), axis=0) for n in (3, 5, 4)]), ValueError,
        r"arrays that are joined along the axis .* must add up to groups of one size, .* got lengths 3, 5, 4"
        r" with groups of"),
    # products of any number of axes
    "einsum of a sum": (lambda: np.einsum("ij,jk->k", X, q().T), TypeError,
        r"a product with a quantized array sums over axes that both operands have, each once; got ij,jk->k"),
    "einsum of three": (lambda: np.einsum("ij,jk,kl->il", X, q().T, X), TypeError,
        r"numpy\.einsum takes one quantized array to permute its axes, or two operands; got ij,jk,kl->il"),
    "einsum with too few operands": (lambda: np.einsum("ij,jk->ik", q()), ValueError,
        r"fewer operands provided to einstein"),
    "einsum of other dimensions": (lambda: np.einsum("ijk,kl->l", q(), X), ValueError,
        r"subscripts string 'ijk' does not fit"),
    "tensordot of other lengths": (lambda: np.tensordot(X, q(), 1), ValueError, r"shape-mismatch for sum"),
    "tensordot over too many axes": (lambda: np.tensordot(X, q(), 3), ValueError, r"shape-mismatch for sum"),
    # balance
    "balance of text": (lambda: fq.balance("ab", X), TypeError, r"x_stats must be of real numbers, got dtype <U2"),
    "balance for complex": (lambda: fq.balance([1, 2], X + 0j), TypeError,
        r"w must be of real numbers, got dtype complex64"),
    "balance of NaN": (lambda: fq.balance([1, np.nan], X), fq.NotFiniteError,
        r"x_stats must be finite, .*; 1 of 2 .* first at index \(1,\) \(nan\)"),
    "balance of a number": (lambda: fq.balance(1.0, X), ValueError,
        r"x_stats must have one entry per channel in its last axis, .*; got shapes \(\) and \(2, 3\)"),
    "balance of other channels": (lambda: fq.balance(X, X), ValueError,
        r"x_stats and w must have as many channels, .*; got shapes \(2, 3\) and \(2, 3\), which have 3 and 2"),
    "balance too strong": (lambda: fq.balance(X, X.T, 1.5), ValueError, r"strength must be from 0 .* to 1 .* got 1\.5"),
    "balance without an axis": (lambda: q(balance=[1, 1]), ValueError,
        r"balance needs the axis along which its factors lie; got balance with axis=None"),
    "balance by text": (lambda: q(axis=0, balance=["1", "2"]), TypeError,
        r"balance must be of real numbers, got dtype <U1"),
    "balance of another length": (lambda: q(axis=0, balance=[1, 1, 1]), ValueError,
        r"balance must have one factor per element of axis 0, shape \(2,\); got shape \(3,\)"),
    "balance of 0": (lambda: q(axis=0, balance=[1, 0]), ValueError,
        r"balance must be positive and finite in float32, got 0\.0"),
    "balance too large": (lambda: q(axis=0, balance=[1, 1e39]), ValueError, r"balance must be positive .* got inf"),
    "balance overflows": (lambda: fq.quantize(X * (TOP / 4), axis=0, balance=[0.5, 0.25]), fq.NotFiniteError,
        r"x / balance must be finite, .*"),
    "balanced times quantized": (lambda: q(axis=1) @ fq.quantize(X.T, axis=0, balance=[1, 1, 1]), ValueError,
        r"left operand must be an array that is not quantized yet, because the right one is balanced .*; got a QArray "
        r"of shape \(2, 3\): multiply its dequantize\(\), or leave out balance"),
    "quantized times balanced": (lambda: q(axis=1, balance=[1, 1, 1]) @ fq.quantize(X.T, axis=0), ValueError,
        r"right operand must be an array that is not quantized yet, because the left one is balanced"),
    "balanced, b overflows": (lambda: q(axis=1, balance=[4, 4, 4]) @ (X.T * (TOP / 4)), fq.NotFiniteError,
        r"b, balanced as a is, must be finite, .* 3 of 6 values are not"),
    "balanced, a vector b overflows": (lambda: q(axis=1, balance=[4, 4, 4]) @ (X[1] * (TOP / 4)), fq.NotFiniteError,
        r"b, balanced as a is, must be finite, .* 1 of 3 values is not, the first at index \(2,\)"),
    "balanced, a overflows, in the reference": (lambda: on("reference", lambda: (X * (TOP / 4)) @ fq.quantize(
        X.T, axis=0, balance=[4, 4, 4])), fq.NotFiniteError, r"balanced as b is, must be finite"),
    "balanced, a overflows": (lambda: (X * (TOP / 4)) @ fq.quantize(X.T, axis=0, balance=[4, 4, 4]), fq.NotFiniteError,
        r"a, balanced as b is, must be finite; it overflows its float type"),
    "rotated by a number": (lambda: q(axis=0, rotate=16), TypeError, r"rotate must be True or False, got 16"),
    "rotated without an axis": (lambda: q(rotate=True), ValueError,
        r"rotate needs the axis along which elements are mixed; got rotate=True with axis=None"),
    "rotated, too few": (lambda: q(axis=0, rotate=True), ValueError,
        r"rotate needs a multiple of 16 elements, .*; got shape \(2, 3\) with axis=0"),
    "rotated, not summed": (lambda: fq.quantize(np.ones((16, 1)), axis=0, rotate=True) @ X[:1], ValueError,
        r"a rotated array must be summed over the axis along which it is; got shape \(16, 1\), rotated along "
        r"axis 0, as the left operand: multiply q\.dequantize\(\)"),
    # error
    "error of text": (lambda: fq.error("a", "b"), TypeError, r"x must be of real numbers, got dtype <U1"),
    "error of complex": (lambda: fq.error(X, X + 0j), TypeError, r"y must be of real numbers, got dtype complex64"),
    "error of two shapes": (lambda: fq.error(X, q().T), ValueError,
        r"x and y must have the same shape, got \(2, 3\) and \(3, 2\)"),
    "error along a float": (lambda: fq.error(X, q(), axis=0.0), TypeError,
        r"axis must be an integer, a tuple of them or None, got 0\.0"),
    "error along no axis": (lambda: fq.error(X, q(), axis=2), ValueError,
        r"axis must be from -2 to 1 for arrays of 2 dimensions, got 2"),
    "error along one axis twice": (lambda: fq.error(X, q(), axis=(0, -2)), ValueError,
        r"axis must name each axis once, got \(0, -2\)"),
    "error by group, along no axis": (lambda: fq.error(X, q(), group_size=2), ValueError,
        r"group_size needs one axis along which to cut groups; got axis=None"),
    "error by group, along two": (lambda: fq.error(X, q(), axis=(0, 1), group_size=2), ValueError,
        r"group_size needs one axis along which to cut groups; got axis=\(0, 1\)"),
    "error by groups of nothing": (lambda: fq.error(X, q(), axis=0, group_size=0), ValueError,
        r"group_size must be a positive integer or None, got 0"),
    # error_matmul
    "error of a product, of no QArray": (lambda: fq.error_matmul(X, X.T, X.T), TypeError,
        r"q must be a QArray, the quantized weights; got ndarray"),
    "error of a product, of another w": (lambda: fq.error_matmul(X, X, q(axis=1).T), ValueError,
        r"w and q must be matrices of the same shape, got \(2, 3\) and \(3, 2\)"),
    "error of a product, of another x": (lambda: fq.error_matmul(X.T, X.T, q(axis=1).T), ValueError,
        r"x must have K = 3 columns, as w has rows; got shape \(3, 2\)"),
    "error of a product, of quantized vectors": (lambda: fq.error_matmul(fq.quantize(X[0]), X.T, q(axis=1).T),
        ValueError, r"x must be a matrix if it is quantized, got shape \(3,\)"),
    "error of a product, of text": (lambda: fq.error_matmul(["a", "b", "c"], X.T, q(axis=1).T), TypeError,
        r"x must be of real numbers, got dtype <U1"),
    "error of a product, with NaN": (lambda: fq.error_matmul(BAD, X.T, q(axis=1).T), fq.NotFiniteError,
        r"x must be finite.*first at index \(1, 0\)"),
    # Calibrator
    "calibrated by row": (lambda: fq.Calibrator(axis=-1), ValueError,
        r"axis must be None \(one scale\) or 0 .*, got -1; a scale per row cannot be known before the rows are"),
    "calibrated scheme": (lambda: fq.Calibrator(scheme="affine"), ValueError,
        r"scheme of a static scale must be 'symmetric' or 'asymmetric', got 'affine'"),
    "calibrated method": (lambda: fq.Calibrator(method="max"), ValueError,
        r"method must be one of 'minmax', 'mse', 'percentile', or a fastq\.Percentile; got 'max'"),
    "calibrated by channel": (lambda: fq.Calibrator(axis=0, method="mse"), ValueError,
        r"axis=0 needs method='minmax', since a histogram is kept of all channels; got 'mse'"),
    "calibrated bits": (lambda: fq.Calibrator(9), ValueError, r"bits must be from 2 to 8, got 9"),
    "calibrated on nothing": (lambda: fq.Calibrator().parameters(), ValueError,
        r"a calibrator must have seen data before it knows a scale; call update\(batch\) first"),
    "calibrated on another width": (lambda: fq.Calibrator().update(X).update(X.T), ValueError,
        r"batch must have 3 channels along its last axis, as those before; got shape \(3, 2\)"),
    "calibrated on a number": (lambda: fq.Calibrator().update(3.0), ValueError,
        r"batch must have one axis or more, the last of which holds the channels; got one number"),
    "calibrated on text": (lambda: fq.Calibrator().update(["a"]), TypeError,
        r"batch must be of real numbers .*, got dtype <U1"),
    "calibrated on NaN": (lambda: fq.Calibrator().update(BAD), fq.NotFiniteError,
        r"batch must be finite.*; 1 of 6 .* first at index \(1, 0\) \(nan\)"),
    "calibrated on codes": (lambda: fq.Calibrator().update(q()), TypeError, r"a QArray is not converted"),
    "quantized by channel": (lambda: fq.Calibrator(axis=0).update(X).quantize(X[None]), ValueError,
        r"x must be a matrix for axis=0, because a QArray shares scales along one axis; got shape \(1, 2, 3\)"),
    # choose_bits
    "chosen for nothing": (lambda: fq.choose_bits(X), ValueError,
        r"choose_bits takes either sqnr \(a quality in dB\) or budget \(bits per weight\); got neither"),
    "chosen for two things": (lambda: fq.choose_bits(X, sqnr=10, budget=4), ValueError, r"either sqnr .*; got both"),
    "chosen for text": (lambda: fq.choose_bits(X, sqnr="10"), ValueError, r"sqnr must be a finite number, got '10'"),
    "chosen for no number": (lambda: fq.choose_bits(X, budget=np.nan), ValueError,
        r"budget must be a finite number, got nan"),
    "chosen from a number": (lambda: fq.choose_bits(X, sqnr=10, bits=4), TypeError,
        r"bits must be several values to choose from, such as \[3, 4\]; got 4"),
    "chosen from no sizes": (lambda: fq.choose_bits(X, sqnr=10, group_sizes=[]), ValueError,
        r"group_sizes must hold one value or more to choose from, got none"),
    "chosen from too few bits": (lambda: fq.choose_bits(X, sqnr=10, bits=[1]), ValueError, r"bits must be from 2 to 8"),
    "chosen for no weights": (lambda: fq.choose_bits({}, sqnr=10), ValueError,
        r"w must hold one matrix or more, got an empty mapping"),
    "chosen for a vector": (lambda: fq.choose_bits({"up": X[0]}, sqnr=10), ValueError,
        r"up must be a matrix that is not empty, got shape \(3,\)"),
    "chosen for NaN": (lambda: fq.choose_bits({"up": BAD}, sqnr=10), fq.NotFiniteError,
        r"up must be finite.*first at index \(1, 0\)"),
    "chosen beyond reach": (lambda: fq.choose_bits(np.sqrt(X.T + 3), sqnr=200, bits=[2, 3]), ValueError,
        r"sqnr must be within reach of what may be chosen, but for w the best is [\d.]+ dB, with 3 bits, "
        r"no groups; got sqnr=200"),
    "chosen below the smallest": (lambda: fq.choose_bits(np.ones((64, 2)), budget=2), ValueError,
        r"budget must allow the smallest forms that may be chosen, which take 2\.500 bits per weight with their "
        r"scales; got budget=2"),
    "chosen with another calibration": (lambda: fq.choose_bits(X, sqnr=10, calibration=X), ValueError,
        r"calibration of w must have K = 2 columns, as w has rows; got \(2, 3\)"),
    "chosen with the calibration of the other axis": (lambda: fq.choose_bits(X, axis=1, sqnr=10, calibration=X.T),
        ValueError, r"calibration of w must have K = 3 columns, as w has columns; got \(3, 2\) with axis=1$"),
    "chosen along no axis": (lambda: fq.choose_bits(X, axis=None, sqnr=10), ValueError,
        r"axis must be 0 \(one scale per column, for x @ q\) or 1 \(one per row, for x @ q\.T\) .*; got None$"),
    "chosen along a wrong axis": (lambda: fq.choose_bits(X, axis=2, sqnr=10), ValueError,
        r"axis must be from -2 to 1 for an array of 2 dimensions, got 2"),
    "chosen with a calibration missing": (lambda: fq.choose_bits({"up": X}, sqnr=10, calibration={"down": X}),
        ValueError, r"calibration of several weights must be a mapping with the same names; got nothing for 'up'"),
    "chosen with one calibration for all": (lambda: fq.choose_bits({"up": X}, sqnr=10, calibration=X),
        ValueError, r"calibration of several weights must be a mapping with the same names; got ndarray"),
    # files
    "file that is there": (lambda: in_files(q().save), FileExistsError,
        r"path must not exist yet, or be overwritten with overwrite=True; got .*q$"),
    "folder of someone else's": (lambda: in_files(lambda path: q().save(path.parent, overwrite=True)), FileExistsError,
        r"path must be free, or a folder that fastq has saved, which alone is overwritten; got "),
    "folder that is not there": (lambda: fq.load("/nowhere/q"), FileNotFoundError,
        r"path must be a folder that fastq has saved, with a qarray\.json; got /nowhere/q, which does not exist$"),
    "array that is not there": (lambda: fq.load("/nowhere/x.npy"), FileNotFoundError,
        r"got /nowhere/x\.npy, which does not exist: an array in such a file is quantized by "
        r"fastq\.quantize\(np\.load\('/nowhere/x\.npy'\), bits=8, axis=0\)$"),
    "file of an array": (lambda: fq.load(__file__), NotADirectoryError,
        r"path must be a folder that fastq has saved, with a qarray\.json; got .*test_messages\.py, a file$"),
    "document that is none": (lambda: in_files(fq.load, b"{"), ValueError, r"qarray\.json must be JSON; Expecting"),
    "document of another kind": (lambda: in_files(fq.load, b"[]"), ValueError,
        r"qarray\.json must hold a JSON object, got list"),
    "document without arrays": (lambda: in_files(fq.load, b"{}"), ValueError,
        r"qarray\.json must list its arrays, of tiles, .*; got None"),
    "document without attributes": (lambda: in_files(fq.load, b'{"arrays": []}'), ValueError,
        r"q holds no quantized array that is whole: attributes must be a mapping with fastq, shape, .*; got $"),
    "array that is missing": (lambda: in_files(fq.load, missing="tiles.npy", text=b""), FileNotFoundError,
        r"tiles\.npy must be there, because qarray\.json lists it; it is missing"),
    "array that is cut": (lambda: in_files(fq.load, missing="tiles.npy"), ValueError,
        r"tiles\.npy must be a complete \.npy file of numbers; "),
    "parts of something else": (lambda: put_together({}, {}), ValueError,
        r"attributes must be a mapping with fastq, shape, dtype, .*; got $"),
    "NaN in blocks": (lambda: in_blocks(lambda out: fq.quantize(BAD, out=out)), fq.NotFiniteError,
        r"x must be finite.*; 1 of 6 values is not, the first at index \(1, 0\) \(nan\)"),
    "affine span in blocks": (lambda: in_blocks(lambda out: fq.quantize(FAR, out=out, scheme="affine")), ValueError,
        r"max - min of affine data must be finite in its float type; it overflows"),
    # values that hardly anybody means
    "lists in themselves": (lambda: q(bits=DEEP), TypeError,
        r"bits must be an integer .*, got \[.*\.\.\..*\] of type list"),
    "a repr that fails": (lambda: q(scheme=Unshowable()), ValueError, r"scheme must be one of .*; got .*Unshowable"),
    "a number without digits": (lambda: q(bits=10**5000), ValueError,
        r"bits must be from 2 to 8, got an object of type"),
    "an array for a word": (lambda: q(scheme=np.array(["affine"] * 2)), ValueError,
        r"scheme must be one of .*got array"),
    "no scheme to choose for": (lambda: fq.choose_bits(X, sqnr=10, scheme=None), ValueError,
        r"scheme must be one of 'symmetric', 'asymmetric', 'affine'; got None"),
    "group beyond lengths": (lambda: q(axis=0, group_size=2**63), ValueError,
        r"group_size must be at most \d+, as any length is; got 9223372036854775808"),
    "progress of an array": (lambda: q(progress=np.ones(2)), TypeError,
        r"progress must be True or False, got array\(\[1\., 1\.\]\) of type ndarray"),
    "a type of recursive fields": (lambda: q().astype(DEEP), TypeError,
        r"dtype must be a data type, got \[.*NumPy says"),
    "a type of half a field": (lambda: q().astype({"w": 1}), TypeError, r"dtype must be a data type, got \{'w': 1\}"),
    "out of a QArray for text": (lambda: fq.matmul("x", X, out=q()), TypeError,
        r"out must be an array, got a QArray, which is immutable"),
    "batches of a number": (lambda: fq.Calibrator().run(3), TypeError,
        r"batches must be several arrays, got 3 of type int"),
    "batches beyond count": (lambda: fq.Calibrator().run([X], total=10**5000), ValueError,
        r"total must be from 0 to \d+, got an object of type int"),
    "file of truth": (lambda: fq.show_config(True), TypeError,
        r"file must be a text file, with a method write; got True of type bool"),
    "path of a number": (lambda: q().save(3), TypeError, r"path must be a string or a path, got 3 of type int"),
    "path with a zero": (lambda: fq.load("a\0b"), ValueError,
        r"path must be one that the file system can hold, got 'a\\x00b'"),
    "path of half a character": (lambda: fq.load("\ud800"), ValueError,
        r"path must be one that the file system can hold"),
    "moment of negative width": (lambda: SecondMoment(-1), ValueError, r"k must be 0 or more, got -1"),
    "moment of a width in text": (lambda: SecondMoment("3"), TypeError,
        r"k must be an integer, 0 or more, or None, got '3'"),
    "moment beyond memory": (lambda: SecondMoment(2**62), ValueError,
        r"k must be a width whose matrix, K x K, fits into memory; got 4611686018427387904"),
    "moment told to nobody": (lambda: SecondMoment.of(X, progress=True), TypeError,
        r"progress must be a function, or None; got True of type bool"),
    "balance by half": (lambda: fq.balance(X, X.T, strength="half"), TypeError,
        r"strength must be a number from 0 to 1, got 'half' of type str"),
    "balance by far": (lambda: fq.balance(X, X.T, strength=10**400), ValueError,
        r"strength must be from 0 .* got 1000"),
    "axis beyond an int": (lambda: np.squeeze(q(), 2**31), np.exceptions.AxisError,
        r"axis 2147483648 is out of bounds for array of dimension 2"),
    "axis that is nothing": (lambda: np.squeeze(q(), 1.5), TypeError, r"axis must be an integer or several, got 1\.5"),
    "split into none": (lambda: np.split(q(), False), ValueError,
        r"numpy\.split takes arguments within bounds, got False: integer .*modulo by zero"),
    "shape of nothing": (lambda: q().reshape(None), TypeError, r"shape must be integers, got None of type NoneType"),
    "vecdot of a number": (lambda: np.vecdot(q(), 2), ValueError,
        r"vecdot: Input operand 1 does not have enough dimensions \(has 0, requires 1\)"),
    "index beyond an int": (lambda: q()[[10**30]], IndexError, r"."),
    "mask of a matrix": (lambda: q()[X > 0], TypeError,
        r"a quantized array takes a mask along one axis, .*; got a mask of shape \(2, 3\): index q\.dequantize\(\)"),
    "slice beyond digits": (lambda: q()[10**5000], IndexError, r"."),
    "factor beyond floats": (lambda: q() * 10**400, ValueError, r"factors must leave scale finite in float32; got inf"),
    "bias of a type": (lambda: fq.matmul(X.astype(object), X.T, bias=int), TypeError,
        r"bias must be what a product can be added to, got <class 'int'> of type type: unsupported operand"),
    "rot90 in one axis": (lambda: np.rot90(q(), axes=(0,)), ValueError, r"len\(axes\) must be 2"),
    "rot90 half": (lambda: np.rot90(q(), 0.5), TypeError, r"k must be an integer, got 0\.5 of type float"),
    "taken by halves": (lambda: np.take(q(), [0.5]), TypeError,
        r"numpy\.take of quantized arrays takes indices that are integers, got dtype float64"),
    "condition of a matrix": (lambda: np.compress(X > 0, q()), ValueError,
        r"condition must be a 1-d array, got shape \(2, 3\)"),
    "tensordot over too many": (lambda: np.tensordot(X, q(), 10**30), ValueError, r"shape-mismatch for sum"),
    "tensordot over one and two": (lambda: np.tensordot(X, q(), ([0], [0, 1])), ValueError, r"shape-mismatch for sum"),
    "tensordot over nothing": (lambda: np.tensordot(X, q(), None), TypeError,
        r"axes of a tensordot must be an integer or two sequences of them, got None of type NoneType"),
    "einsum of digits": (lambda: np.einsum("i1,jk", X, q()), ValueError,
        r"einstein sum subscripts must be letters, and '\.\.\.' once for each operand; got 'i1,jk'"),
    "einsum of what is in no input": (lambda: np.einsum("ij,kj->iz", X, q()), ValueError,
        r"einstein sum subscripts must have each output subscript once, and in an input too; got 'ij,kj->iz'"),
    "einsum of far subscripts": (lambda: np.einsum(X, [0, 99], q(), [1, 99]), ValueError,
        r"einstein sum subscripts must be within the valid range \[0, 52\), got \[0, 99\]"),
    "einsum of nothing": (lambda: np.einsum(None, X, q()), TypeError,
        r"einstein sum subscripts must be a string, or lists of integers after each operand; got "),
    # whole models
    "model that is no mapping": (lambda: fq.quantize_all([X]), TypeError,
        r"mapping must be a mapping of names to arrays, such as a dict; got \[array"),
    "misspelt name": (lambda: fq.quantize_all({"up.weight": X}, bits={"up.wright": 4}), ValueError,
        r"bits must fit names of arrays; 'up\.wright' fits none of 1; close to it: up\.weight$"),
    "pattern of a number": (lambda: fq.quantize_all({"w": X}, bits={3: 4}), TypeError,
        r"bits must have strings for patterns of names, got 3 of type int"),
    "included by a number": (lambda: fq.quantize_all({"w": X}, include=3), TypeError,
        r"include must be a pattern, several, or a function of a name; got 3 of type int"),
    "calibration of no name": (lambda: fq.quantize_all({"w": X}, calibration=SecondMoment.of(X)), TypeError,
        r"calibration must be a mapping of names to second moments, or a function of a name; got SecondMoment\(K=3"),
    "calibration of a model of another width": (lambda: fq.quantize_all({"w": X}, include="w", method="mse",
        calibration={"w": np.ones((4, 5))}), ValueError,
        r"array 'w': calibration must have rows of 3 elements, one per element of axis 1; got rows of 5"),
    "array that changes": (lambda: fq.quantize_all(Changing()), ValueError,
        r"array 'w' must stay as it is while it is quantized; it was float32 \(1,\), is float32 \(2,\)"),
    "NaN in a model": (lambda: fq.quantize_all({"w": BAD}, include="w"), fq.NotFiniteError,
        r"array 'w' must be finite, because NaN and infinity have no code; 1 of 6 values is not, .* \(1, 0\)"),
    "difference of complex numbers": (lambda: difference.compare(X, X * 1j), TypeError,
        r"arrays must be of real numbers to be compared; got complex64"),
    "difference of NaN": (lambda: difference.compare(X, BAD), ValueError,
        r"numbers must be finite to be compared, and their squares, too"),
    # settings
    "no threads": (lambda: fq.set_num_threads(0), ValueError, r"threads must be a positive integer or None, got 0"),
    "threads of a float": (lambda: fq.set_num_threads(2.0), ValueError, r"threads must be a positive .* got 2\.0"),
    "threads of text": (lambda: fq.set_num_threads("2"), ValueError, r"threads must be a positive .* got '2'"),
    "threads of truth": (lambda: fq.set_num_threads(True), ValueError, r"threads must be a positive .* got True"),
    "unknown instruction set": (lambda: on("sse9"), fq.IsaError,
        r"must be an instruction set that this CPU has, one of .*portable, reference; got 'sse9', which is not one "
        r"that fastq knows"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_messages(name):
    call, kind, words = CASES[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert type(caught.value) is kind


@pytest.fixture
def variable(monkeypatch):
    """Set FASTQ_NUM_THREADS, which is read once, to be read anew."""

    def put(text):
        monkeypatch.setenv("FASTQ_NUM_THREADS", text)
        pool._default.cache_clear()

    return put


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", " "])
def test_the_variable_for_threads(variable, text):
    variable(text)
    with pytest.raises(ValueError, match=f"FASTQ_NUM_THREADS must be a positive integer, got {text!r}; unset it"):
        q()


def test_own_exceptions_are_standard_ones_as_well():
    assert issubclass(fq.NotFiniteError, ValueError)
    assert issubclass(fq.IsaError, RuntimeError)


def raised(call):
    """The lines of code on the way to an exception, and to those that it took the place of."""
    lines = set()
    try:
        call()
    except Exception as caught:
        error = caught
        while error is not None:
            lines |= {(Path(f.filename).resolve(), f.lineno) for f in traceback.extract_tb(error.__traceback__)}
            error = error.__context__
    return lines


def test_the_table_is_complete(variable):
    """Every ``raise Something(message)`` of the public layer is met by a case."""
    met = set().union(*(raised(call) for call, _, _ in CASES.values()))
    met |= set().union(*(raised(lambda given=given: from_wrong(given)) for given, _, _ in OF_PARTS.values()))
    variable("two")
    met |= raised(q)
    unmet = []
    for name in PUBLIC:
        path = (PACKAGE / f"{name}.py").resolve()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                lines = {(path, line) for line in range(node.lineno, node.end_lineno + 1)}
                unmet += [] if lines & met else [f"{name}.py:{node.lineno}"]
    assert not unmet
