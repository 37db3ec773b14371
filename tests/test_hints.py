"""Hints that messages give are obeyed here, and must work; every message of the package that gives one is met."""

from __future__ import annotations

import ast
import re
import tempfile
import traceback
from pathlib import Path

import numba
import numpy as np
import pytest

import fastq as fq
from fastq.machine import pool
from fastq.quant.moment import SecondMoment

from .test_messages import in_use

PACKAGE = Path(fq.__file__).parent
VERBS = ("quantize|multiply|use|call|cut|pass|give|leave|unset|convert|decorate|contract|sum|reshape|join|index|keep|"
         "compute|save|write|add|rechunk|install")  # fmt: skip
HINT = re.compile(rf"(?:[:;] |, or |\) or )(?:{VERBS})\b")

RNG = np.random.default_rng(5)
W = RNG.standard_normal((64, 48)).astype(np.float32)
X = RNG.standard_normal((5, 64)).astype(np.float32)
Y = RNG.standard_normal((5, 48)).astype(np.float32)
STACK = RNG.standard_normal((3, 64, 48)).astype(np.float32)
LONG = np.full((1, 33_026), 255, np.uint8)


def q(w=W, bits=8, **form):
    return fq.quantize(w, bits, **form)


def narrow(kind):
    return fq.from_parts([[0], [1]], kind([[2]] * 2), bits=2, offset=kind([[1]] * 2), dtype=np.float16)


def reordered():
    return fq.from_parts(**q(axis=0, group_size=16).parts(), order=np.roll(np.arange(64), 5))


def halved(y):
    return y / 2


def lazy():
    return pytest.importorskip("dask.array").from_array(W, chunks=16)


def with_threads(text):
    """What a variable in the environment does, at the first call."""
    with pytest.MonkeyPatch.context() as patch, fq.set_num_threads(None):
        pool._default.cache_clear()
        patch.delenv("FASTQ_NUM_THREADS", raising=False)
        if text:
            patch.setenv("FASTQ_NUM_THREADS", text)
        try:
            return pool.num_threads()
        finally:
            pool._default.cache_clear()


def assigned():
    held = q()
    held[0] = 1


def fitted():
    calibrator = fq.Calibrator()
    calibrator.update(W)
    return calibrator.quantize(W)


def saved_beside_one_that_is_open():
    with tempfile.TemporaryDirectory() as folder:
        q().save(f"{folder}/one")
        opened = fq.load(f"{folder}/one", mmap=False)
        opened.save(f"{folder}/one", overwrite=True)
        opened.save(f"{folder}/other")
        return opened


# Words of the hint, the call that it is given for, and calls that obey it.
HINTS = {
    "columns on the right": (
        "quantize it with axis=-2 or axis=None, or multiply q.dequantize()",
        lambda: X @ q(axis=1),
        lambda: X @ q(axis=-2), lambda: X @ q(axis=None), lambda: X @ q(axis=1).dequantize(),
    ),
    "rows of a square array on the right": (
        "multiply q.dequantize(); if a row of it is an output (N x K, as torch has weights), multiply q.T",
        lambda: np.ones((2, 8)) @ fq.quantize(np.eye(8), axis=1),
        lambda: np.ones((2, 8)) @ fq.quantize(np.eye(8), axis=1).T,
    ),
    "a file that Windows has mapped": (
        "delete that first (or load the folder with mmap=False), or save elsewhere",
        in_use,
        lambda: saved_beside_one_that_is_open(),
    ),
    "search along the other axis": (
        "quantize with axis=-1, or pass axis=-2 if items lie along the other one",
        lambda: fq.top_k(Y, q(axis=0)),
        lambda: fq.top_k(Y, q(axis=-1)), lambda: fq.top_k(X, q(axis=0), axis=-2),
    ),
    "scores of codes": (
        "pass the array before it was quantized",
        lambda: fq.top_k(Y, q(axis=-1), rescore=q(axis=-1)),
        lambda: fq.top_k(Y, q(axis=-1), rescore=W),
    ),
    "rows on the left": (
        "quantize it with axis=-1 or axis=None",
        lambda: q(axis=0) @ Y.T,
        lambda: q(axis=-1) @ Y.T, lambda: q(axis=None) @ Y.T,
    ),
    "a transpose on the right": (
        "it is a transpose; quantize the original with axis=-1, one scale per row, or axis=None",
        lambda: Y @ q(axis=0).T,
        lambda: Y @ q(axis=-1).T, lambda: Y @ q(axis=None).T, lambda: Y @ q(axis=0).T.dequantize(),
    ),
    "a square transpose": (  # where what the right operand needs is what it has
        "quantize the original with axis=-1",
        lambda: np.eye(64, dtype="f4") @ q(np.eye(64), axis=0).T,
        lambda: np.eye(64, dtype="f4") @ q(np.eye(64), axis=-1).T,
    ),
    "a transpose on the left": (
        "it is a transpose; quantize the original with axis=-2, one scale per column, or axis=None",
        lambda: q(axis=1).T @ np.ones((64, 3)),
        lambda: q(axis=-2).T @ np.ones((64, 3)), lambda: q(axis=None).T @ np.ones((64, 3)),
    ),
    "transposed matrices of a stack": (
        "quantize the original with axis=-1",
        lambda: Y @ q(STACK, axis=-2).mT,
        lambda: Y @ q(STACK, axis=-1).mT,
    ),
    "einsum": (
        "quantize it with axis=-1 or axis=None",
        lambda: np.einsum("ij,kj->ki", Y, q(axis=0)),
        lambda: np.einsum("ij,kj->ki", Y, q(axis=-1)), lambda: np.einsum("ij,kj->ki", Y, q(axis=None)),
    ),
    "einsum of a stack": (
        "quantize it with axis=-2 or axis=None",
        lambda: np.einsum("bij,ki->bkj", q(STACK, axis=0), X),
        lambda: np.einsum("bij,ki->bkj", q(STACK, axis=-2), X),
    ),
    "tensordot over one axis": (
        "quantize it with axis=-1",
        lambda: np.tensordot(Y, q(axis=0), axes=(1, 1)),
        lambda: np.tensordot(Y, q(axis=-1), axes=(1, 1)),
    ),
    "tensordot over two": (
        "quantize it with axis=None, or multiply q.dequantize()",
        lambda: np.tensordot(STACK, q(STACK, axis=0), axes=([0, 2], [0, 2])),
        lambda: np.tensordot(STACK, q(STACK, axis=None), axes=([0, 2], [0, 2])),
        lambda: np.tensordot(STACK, q(STACK, axis=0).dequantize(), axes=([0, 2], [0, 2])),
    ),
    "inner": ("axis=-1", lambda: np.inner(Y, q(axis=0)), lambda: np.inner(Y, q(axis=-1))),
    "vecdot": ("axis=-1", lambda: np.vecdot(q(axis=0), W), lambda: np.vecdot(q(axis=-1), W)),
    "quantized twice": ("quantize x.dequantize()", lambda: fq.quantize(q()), lambda: fq.quantize(q().dequantize(), 4)),
    "a calibrator without data": ("call update(batch) first", lambda: fq.Calibrator().quantize(W), fitted),
    "threads": ("unset it to use all cores", lambda: with_threads("many"), lambda: with_threads("")),
    "groups in two orders": (
        "multiply the dequantize() of one",
        lambda: q(X, axis=-1, group_size=16) @ reordered(),
        lambda: q(X, axis=-1, group_size=16).dequantize() @ reordered(),
        lambda: q(X, axis=-1, group_size=16) @ reordered().dequantize(),
    ),
    "a cut of an array with an order": (
        "cut q.dequantize()",
        lambda: reordered()[5:50],
        lambda: reordered().dequantize()[5:50],
    ),
    "arrays with orders, joined": (
        "join what q.dequantize() gives",
        lambda: np.concatenate([reordered(), reordered()]),
        lambda: np.concatenate([reordered().dequantize(), reordered().dequantize()]),
    ),
    "arrays with scales of two types, joined": (
        "join what q.dequantize() gives",
        lambda: np.concatenate([narrow(np.float16), narrow(np.float32)]),
        lambda: np.concatenate([narrow(np.float16).dequantize(), narrow(np.float32).dequantize()]),
    ),
    "symmetric codes without a sign": (
        "pass zero_point=8 if they count from 0, or codes.astype(np.int8) if they are from -8 to 7",
        lambda: fq.from_parts(np.ones((2, 3), np.uint8), 0.5, bits=4),
        lambda: fq.from_parts(np.ones((2, 3), np.uint8), 0.5, bits=4, zero_point=8),
        lambda: fq.from_parts(np.ones((2, 3), np.uint8).astype(np.int8), 0.5, bits=4),
    ),
    "two quantized operands, one balanced": (
        "multiply its dequantize(), or leave out balance",
        lambda: q(X, axis=-1) @ q(axis=0, balance=np.ones(64)),
        lambda: q(X, axis=-1).dequantize() @ q(axis=0, balance=np.ones(64)), lambda: q(X, axis=-1) @ q(axis=0),
    ),
    "bytes whose product is long": (
        "pass out=np.empty(shape, np.int64) for the exact result",
        lambda: fq.matmul(LONG, LONG.T),
        lambda: fq.matmul(LONG, LONG.T, out=np.empty((1, 1), np.int64)),
    ),
    "converted to an ndarray": ("call q.dequantize()", lambda: np.asarray(q()), lambda: np.asarray(q().dequantize())),
    "rotated along the other axis": (
        "as the right operand: multiply q.dequantize()",
        lambda: X[:, :1] @ q(W[:1], axis=1, rotate=True),
        lambda: X[:, :1] @ q(W[:1], axis=1, rotate=True).dequantize(),
    ),
    "einsum of a diagonal": (
        "sum or take diagonals of the other operand first, or use q.dequantize()",
        lambda: np.einsum("iij,jk->ik", np.ones((5, 5, 64)), q(axis=0)),
        lambda: np.einsum("ij,jk->ik", np.einsum("iij->ij", np.ones((5, 5, 64))), q(axis=0)),
        lambda: np.einsum("iij,jk->ik", np.ones((5, 5, 64)), q(axis=0).dequantize()),
    ),
    "einsum of three": (
        "contract two at a time, or use q.dequantize()",
        lambda: np.einsum("ij,jk,kl->il", X, q(axis=0), Y.T),
        lambda: np.einsum("ik,kl->il", np.einsum("ij,jk->ik", X, q(axis=0)), Y.T),
        lambda: np.einsum("ij,jk,kl->il", X, q(axis=0).dequantize(), Y.T),
    ),
    "a keyword of NumPy's": (
        "call it on q.dequantize()",
        lambda: np.vecdot(q(axis=-1), W, axis=-1),
        lambda: np.vecdot(q(axis=-1).dequantize(), W, axis=-1),
    ),
    "several index arrays": (
        "index in steps, or index q.dequantize()",
        lambda: q(STACK, axis=1)[[0, 1], :, [2, 3]],
        lambda: q(STACK, axis=1)[[0, 1]][:, :, [2, 3]], lambda: q(STACK, axis=1).dequantize()[[0, 1], :, [2, 3]],
    ),
    "a mask over two axes": (
        "got a mask of shape (64, 48): index q.dequantize()",
        lambda: q()[W > 0],
        lambda: q().dequantize()[W > 0],
    ),
    "an assignment": ("quantize anew from q.dequantize()", assigned, lambda: fq.quantize(q().dequantize())),
    "factors of a larger shape": (
        "multiply q.dequantize()",
        lambda: q() * np.ones((2, 1, 1)),
        lambda: q().dequantize() * np.ones((2, 1, 1)),
    ),
    "factors along the axis": (
        "multiply q.dequantize()",
        lambda: q(axis=0) * np.linspace(1, 2, 64)[:, None],
        lambda: q(axis=0).dequantize() * np.linspace(1, 2, 64)[:, None],
    ),
    "a shape that breaks runs": (
        "keep that axis, or reshape q.dequantize()",
        lambda: q(axis=0).reshape(48, 64),
        lambda: q(axis=0).reshape(64, 6, 8), lambda: q(axis=0).dequantize().reshape(48, 64),
    ),
    "a cut through groups": (
        "cut at multiples of 16, or cut q.dequantize()",
        lambda: q(axis=0, group_size=16)[5:50],
        lambda: q(axis=0, group_size=16)[32:64], lambda: q(axis=0, group_size=16).dequantize()[5:50],
    ),
    "a cut through rotated blocks": (
        "cut at multiples of that, or cut q.dequantize()",
        lambda: q(np.ones((96, 8)), axis=0, rotate=True)[5:50],
        lambda: q(np.ones((96, 8)), axis=0, rotate=True)[32:64],
        lambda: q(np.ones((96, 8)), axis=0, rotate=True).dequantize()[5:50],
    ),
    "the balanced axis of a vector": (
        "use q.dequantize()",
        lambda: np.squeeze(q(W[:1, 0], axis=0, balance=[2.0])),
        lambda: np.squeeze(q(W[:1, 0], axis=0, balance=[2.0]).dequantize()),
    ),
    "groups that do not add up": (
        "quantize them as one, or join what q.dequantize() gives",
        lambda: np.concatenate([q(W[:50], axis=0, group_size=32), q(axis=0, group_size=32)]),
        lambda: q(np.concatenate([W[:50], W]), axis=0, group_size=32),
        lambda: np.concatenate([q(W[:50], axis=0, group_size=32).dequantize(), q(axis=0, group_size=32).dequantize()]),
    ),
    "calibration of complex numbers": (
        "convert it first",
        lambda: SecondMoment.of(X.astype(complex)),
        lambda: SecondMoment.of(X.astype(complex).real),
    ),
    "a moment without width": (
        "give k, or update it with rows",
        lambda: SecondMoment().matrix,
        lambda: SecondMoment(3).matrix, lambda: SecondMoment.of(X).matrix,
    ),
    "types without a code": ("convert it first", lambda: q(W > 0), lambda: q((W > 0).astype(np.int8))),
    "an epilogue of integers": (
        "pass dtype=np.float32",
        lambda: fq.matmul(LONG, LONG.T, epilogue="relu"),
        lambda: fq.matmul(LONG, LONG.T, epilogue="relu", dtype=np.float32),
    ),
    "an epilogue that is not compiled": (
        "decorate it with @numba.njit",
        lambda: fq.matmul(X, q(axis=0), epilogue=halved),
        lambda: fq.matmul(X, q(axis=0), epilogue=numba.njit(halved)),
    ),
    "complex times a quantized array": (
        "call dequantize() for a product in that type",
        lambda: X.astype(complex) @ q(axis=0),
        lambda: X.astype(complex) @ q(axis=0).dequantize(),
    ),
    "zero points of symmetric arrays": (
        "use 'asymmetric' for others",
        lambda: q(scale=1.0, zero_point=3),
        lambda: q(scale=1.0, zero_point=3, scheme="asymmetric"),
    ),
    "activations without floats": (
        "leave it out",
        lambda: fq.matmul(q(X, axis=1), q(axis=0), activations="group"),
        lambda: fq.matmul(q(X, axis=1), q(axis=0)),
    ),
    "a bias by column where the transpose is computed": (
        "add it to the product",
        lambda: fq.matmul(q(axis=-1), Y.T, activations="group", bias=np.ones(5)),
        lambda: fq.matmul(q(axis=-1), Y.T, activations="group") + np.ones(5),
    ),
    "activations of columns in a product of codes": (
        "quantize what the product without dtype gives",
        lambda: fq.matmul(q(axis=-1), Y.T, activations="group", dtype=np.int8),
        lambda: q(fq.matmul(q(axis=-1), Y.T, activations="group"), axis=-1),
    ),
    "Dask where arrays must be in memory": (
        "compute() it first",
        lambda: fq.matmul(lazy(), W.T, dtype=np.int8),
        lambda: fq.matmul(lazy().compute(), W.T, dtype=np.int8),
    ),
}  # fmt: skip
if hasattr(np, "matvec"):  # from NumPy 2.2 on
    HINTS["matvec"] = "axis=-1", lambda: np.matvec(q(axis=0), Y[:1]), lambda: np.matvec(q(axis=-1), Y[:1])
    HINTS["vecmat"] = ("axis=-2", lambda: np.vecmat(STACK[:, :, 0], q(STACK, axis=2)),
                       lambda: np.vecmat(STACK[:, :, 0], q(STACK, axis=-2)))  # fmt: skip


def met(name):
    """The error that a hint is given in."""
    words, fails, *_ = HINTS[name]
    with pytest.raises((TypeError, ValueError, OverflowError, IndexError, PermissionError)) as caught:
        fails()
    assert words in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", HINTS)
def test_who_obeys_succeeds(name):
    met(name)
    for obeyed in HINTS[name][2:]:
        assert obeyed() is not None


ELSEWHERE = ("cli", "formats", "interop", "kernels")  # which have tests of their own


def sites():
    """Where messages with hints are raised: file, first and last line."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                parts = [n for n in ast.walk(node.exc) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                if HINT.search("".join(str(n.value) for n in parts)):
                    yield path.as_posix(), node.lineno, node.end_lineno


def test_every_message_with_a_hint_is_met():
    pytest.importorskip("dask.array")
    places = set()
    for name in HINTS:
        frames = traceback.extract_tb(met(name).__traceback__)
        last = [f for f in frames if Path(f.filename).is_relative_to(PACKAGE)][-1]
        places.add((Path(last.filename).as_posix(), last.lineno))
    missed = [
        (file, first)
        for file, first, last in sites()
        if not any(file == at and first <= line <= last for at, line in places)
    ]
    assert not missed
    assert sum(1 for _ in sites()) > 20
