"""The product: NumPy's rules, operands of every kind, and the way to the engine.

Everything a user hands over is checked here, once; the engine and the kernels below trust it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine import multiply
from fastq.engine.memory import empty
from fastq.engine.plan import this_machine
from fastq.engine.prepack import longest_segment
from fastq.engine.ready import Ready
from fastq.engine.run import Parameters
from fastq.errors import NotFiniteError
from fastq.messages import with_type
from fastq.products.foreign import as_array, has_own_products, is_dask
from fastq.products.operands import Codes, Floats, Operand, Reduced
from fastq.products.task import INTEGERS, Task, all_at_once, rows_at_once
from fastq.products.ufunc import UfuncOptions, call, wrapped
from fastq.quant.affine import Given, Quantized
from fastq.quant.affine import quantize as quantize_array
from fastq.rules import EIGHT_BIT, check_bits, check_dtype, data_type, deliverable, in_place, output_type, result_shape
from fastq.scheme import SCHEMES, code_range

if TYPE_CHECKING:
    from typing_extensions import Unpack

Array = npt.NDArray[Any]

_WRITTEN_AS_IT_IS = {("float32", "float16"), ("int32", "int64")}  # product and `out`


KINDS_READY = 64  # of products that one operand remembers


def _repeated(a: Any, b: Any, out: Any, bias: Any, kind: tuple[Any, Any]) -> Array | None:
    """The product, if one of its kind has been computed before and nothing is wrong with its arguments.

    `kind` is the epilogue and the type asked for. Whatever is not as usual is left to the long way.
    """
    if not isinstance(b, Operand) or not b.ready:
        return None
    if type(a) is np.ndarray:
        x, scale = a, None
    elif isinstance(a, Operand) and (pair := a.rows()) is not None:
        x, scale = pair
    else:
        return None
    try:
        ready = b.ready.get((a.shape, a.dtype, scale is None, *kind))
    except TypeError:  # an epilogue that cannot be hashed
        return None
    if ready is None or ready.machine != this_machine():
        return None
    return ready(x, scale, bias, out)


def _remember(task: Task, kind: tuple[Any, Any]) -> None:
    """Let the next product of this kind find what this one has worked out."""
    (a, b), left = task.inputs, task.left
    if getattr(b, "ready", None) is None or len(b.shape) != 2 or 0 in (task.m, task.k, task.n):
        return
    try:
        hash(kind)
    except TypeError:  # an epilogue or a description of a type that cannot be hashed
        return
    floats = not isinstance(a, Operand)
    x = a
    if not floats:
        if (pair := a.rows()) is None:
            return
        x = pair[0]
    elif not isinstance(left, Floats) or left.dtype != a.dtype or not a.dtype.isnative:
        return
    # Of codes the logical type, which that of the product follows from: the codes themselves are int8 in any case.
    key = a.shape, a.dtype, floats, *kind
    if (known := b.ready.get(key)) is not None and known.machine == this_machine():
        return
    _, cuts, packed, columns, plan = task.pieces((), ())
    if plan.unit is None or columns.offset is not None or rows_at_once(task.m, cuts, plan) < task.m:
        return
    if len(b.ready) >= KINDS_READY:
        b.ready.clear()
    balance = left.balance if isinstance(left, Floats) else None
    b.ready[key] = Ready(x.shape, x.dtype, balance, packed, columns, cuts, plan, this_machine())


def arrays(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands as arrays, unless they are quantized arrays."""
    return _array("a", a), _array("b", b)


def _array(name: str, x: Any) -> Any:
    if type(x) is np.ndarray or isinstance(x, Operand):
        return x
    if is_dask(x):
        raise TypeError(f"{name} must be an array in memory here, got one of Dask; compute() it first")
    return as_array(x, name)


def natural_type(a: Any, b: Any) -> np.dtype[Any] | None:
    """The type of the product of such operands; None where NumPy computes it."""
    return output_type(a.dtype, b.dtype, (isinstance(a, Operand), isinstance(b, Operand)))


def of_floats(a: Any, b: Any, bits: Any, bias: Any, epilogue: Any) -> Task:
    """A product of floats, whatever the operands are."""
    a, b = arrays(a, b)
    natural = natural_type(a, b)
    if natural is None:
        raise TypeError(
            f"dtype must be left out for a product that NumPy computes, as that of {a.dtype} and {b.dtype} is"
        )
    return Task.of(a, b, bits, bias, epilogue, np.result_type(natural if natural.kind == "f" else np.float32))


def matmul(
    a: Any,
    b: Any,
    out: Any = None,
    *,
    bits: int = 8,
    bias: Any = None,
    epilogue: Any = None,
    dtype: Any = None,
    **options: Unpack[UfuncOptions],
) -> Any:
    """Matrix product with quantized operands; see :func:`fastq.matmul`."""
    kind = epilogue, dtype
    if type(bits) is not int:
        bits = check_bits(bits)
    if bits == 8 and not options and (result := _repeated(a, b, out, bias, kind)) is not None:
        return result
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    ours = Ours(bits, bias, epilogue)
    if (result := _of_others(a, b, out, ours, dtype, options)) is not NotImplemented:
        return result
    left, right = arrays(a, b)
    natural = natural_type(left, right)
    quantized = isinstance(left, Operand) or isinstance(right, Operand)
    if natural is None or not (dtype is None or quantized or data_type(dtype).name in deliverable(natural)):
        return _of_numpy((a, b), (left, right), out, ours, dtype, options)
    wanted = natural if dtype is None else check_dtype(dtype, natural)
    asked = call(left, right, out, natural, wanted, options)
    target = asked.target
    if target is not None and (wanted.name, target.dtype.name) in _WRITTEN_AS_IT_IS:
        wanted = target.dtype.newbyteorder("=")
    task = Task.of(asked.a, asked.b, bits, bias, epilogue, wanted)
    direct = target is not None and target.shape == asked.shape and _in_place(target, wanted, task)
    result = target.reshape(task.matrices) if direct and target is not None else empty(task.matrices, wanted)
    task.fill(result)
    if bits == 8 and not options and (out is None or dtype is not None or wanted == natural):
        _remember(task, kind)
    if not direct:
        result = result.reshape(asked.shape)
        if target is not None:
            np.copyto(target, result, casting=asked.casting)
    return wrapped(asked.turned_back(result if target is None else target), (a, b), out, options.get("subok", True))


def _in_place(target: Array, wanted: np.dtype[Any], task: Task) -> bool:
    """Whether the product can be written where it goes, rather than copied there."""
    if task.matrices[0] != 1 or not in_place(target, task.matrices[1:], wanted):
        return False
    left = task.inputs[0]
    # Where it is multiplied in bands, rows are read when others have been written.
    return all_at_once(task.m, task.k) or isinstance(left, Operand) or not np.may_share_memory(target, left)


class Ours(NamedTuple):
    """Arguments of a product that np.matmul does not have."""

    bits: Any
    bias: Any
    epilogue: Any

    @property
    def given(self) -> bool:
        """Whether there are some."""
        return self.bits != 8 or self.bias is not None or self.epilogue is not None


def _of_others(a: Any, b: Any, out: Any, ours: Ours, dtype: Any, options: UfuncOptions) -> Any:
    """The product by another library, if an operand belongs to one that has its own; otherwise NotImplemented."""
    if {type(a), type(b), type(out)} <= {np.ndarray, type(None)}:
        return NotImplemented
    if is_dask(a) or is_dask(b):
        refused = {"out": out, "epilogue": ours.epilogue, **options}
        if names := [name for name, value in refused.items() if value is not None]:
            raise TypeError(f"{names[0]} must be left out for Dask arrays, whose product is lazy; got {names[0]}")
        lazy = importlib.import_module("fastq.interop.dask")
        return lazy.matmul(a, b, bits=ours.bits, bias=ours.bias, dtype=dtype)
    arguments = a, b, out
    if ours.given or any(isinstance(x, Operand) for x in arguments) or not any(map(has_own_products, arguments)):
        return NotImplemented
    kind = {} if dtype is None else {"dtype": dtype}
    return numpys.matmul(a, b, out=out, **kind, **options)


def _of_numpy(
    given: tuple[Any, Any], arrays: tuple[Any, Any], out: Any, ours: Ours, dtype: Any, options: UfuncOptions
) -> Any:
    """The product as NumPy computes it, of what was given, unless that is readable as arrays only."""
    if isinstance(out, Operand):  # which NumPy would leave the product to
        raise TypeError("out must be an array, got a QArray, which is immutable")
    if ours.epilogue is not None:
        types = f"{arrays[0].dtype} and {arrays[1].dtype}"
        raise TypeError(f"epilogue needs a product of floats; got {types}, which NumPy multiplies")
    a, b = (x if hasattr(type(x), "__array_wrap__") else array for x, array in zip(given, arrays))
    if ours.bias is None:
        return numpys.matmul(a, b, out=out, dtype=dtype, **options)
    if "axes" in options:
        raise TypeError("bias must be added to what fq.matmul returns, if NumPy multiplies along axes; got both")
    product = numpys.matmul(a, b, dtype=dtype, **options)
    try:
        result = np.add(product, ours.bias)
    except TypeError as error:
        raise TypeError(f"bias must be what a product can be added to, got {with_type(ours.bias)}: {error}") from error
    if out is None:
        return result
    np.copyto(out, result, casting=options.get("casting", "same_kind"))
    return out


def sums(a: Any, b: Any, dtype: npt.DTypeLike | None = None) -> Array:
    """The integers that a product scales: ``sum_k (qa_ik - za_i) * (qb_kj - zb_j)``, exact.

    Parameters
    ----------
    a, b : array of int8 or uint8, or QArray
        Of shapes as for :func:`matmul`. Float scales that are constant along K, offsets apart, and what an array is
        balanced by are left out; integer scales of groups are multiplied with the codes.
    dtype : int32 or int64, optional
        By default int64 if the longest sum of such operands may not fit int32, whatever the codes are.

    Raises
    ------
    TypeError, ValueError
        For other operands: of other types, affine, or with a float scale that varies along K.
    OverflowError
        If int32 is asked for and a sum does not fit.
    """
    operands = [_reduced(*named) for named in (("a", a), ("b", b))]
    left, right = operands[0].promoted("left"), operands[1].promoted("right")
    batch, m, k, n, shape = result_shape(operands[0].shape, operands[1].shape)
    wide = k > longest_segment(left.reach, right.reach)
    wanted = np.dtype((np.int64 if wide else np.int32) if dtype is None else dtype)
    task = Task((a, b), left, right, batch, m, k, n, shape, None, INTEGERS)
    result = empty(task.matrices, wanted)
    task.fill(result)
    return result.reshape(shape)


def _reduced(name: str, x: Any) -> Reduced:
    if not isinstance(x, Operand):
        x = as_array(x, name)
        if x.dtype not in EIGHT_BIT:
            raise TypeError(f"{name} must be of int8 or uint8, or a QArray, got dtype {x.dtype}")
        x = Codes(x)
    return Reduced(x, name)


def requantized(task: Task, scheme: str, given: Given | None) -> Quantized:
    """The product as codes of 8 bits, with the given parameters (one, or one per row) or those of its rows.

    It never exists as floats, but for a band of rows at a time.
    """
    axis = None if given is not None and given.scale.size == 1 else len(task.shape) - 1
    columns = len(task.inputs[1].shape) > 1  # else the last axis is that of rows, which share no scale
    if not columns or len(task.shape) < 2 or 0 in (*task.shape, task.k):
        floats = empty(task.matrices, np.dtype(task.output.type))
        task.fill(floats)
        floats = floats.reshape(task.shape)
        return quantize_array(floats, 8, axis if task.shape else None, None, scheme, given, "a @ b")
    limits = code_range(8, scheme)
    codes = np.empty(task.matrices, np.int8 if limits.signed else np.uint8)
    found = _parameters(task, given)
    status = 0
    with task.named_errors():
        for number, left_at, right_at in task.each():
            mine = found if axis is None else Parameters(*(p[number] for p in found))
            status |= task.one(codes[number], left_at, right_at, multiply.Grid(mine, limits, SCHEMES.index(scheme)))
    if status:
        raise NotFiniteError("a @ b must be finite, because NaN and infinity have no code; it overflows its float type")
    shape = (1,) * len(task.shape) if axis is None else (*task.shape[:-1], 1)
    zero = found.zero.astype(np.int32).reshape(shape) if scheme == "asymmetric" else None
    return Quantized(codes.reshape(task.shape), found.scale.reshape(shape), zero, None)


def _parameters(task: Task, given: Given | None) -> Parameters:
    """Room for the parameters of a requantized product, by matrix and row; 0 where they are to be chosen."""
    dtype = np.dtype(task.output.type)
    if given is not None and given.scale.size == 1:
        scale, zero = (np.full(1, 0 if p is None else p, dtype) for p in given[:2])
        return Parameters(scale, zero, np.zeros(1, dtype), np.empty(1, dtype), np.empty(1, dtype))
    rows = task.matrices[:2]
    parts = (None, None) if given is None else given[:2]
    shape = (*task.shape[:-1], 1)
    scale, zero = (np.broadcast_to(0 if p is None else p, shape).astype(dtype).reshape(rows) for p in parts)
    return Parameters(scale, zero, *(np.zeros(rows, dtype) for _ in range(3)))
