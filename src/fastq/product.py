"""The product: NumPy's shape rules, operands of every kind, and the way to the engine.

Everything a user hands over is checked here, once; the engine and the kernels below trust it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import multiply, plain, run
from fastq.engine.memory import empty, workspace
from fastq.engine.plan import Plan, plan_matmul, this_machine
from fastq.engine.prepack import Columns, Lines, Right, longest_segment
from fastq.engine.ready import Ready
from fastq.engine.run import Parameters
from fastq.errors import NotFiniteError
from fastq.kernels.outputs import ACTIVATIONS, Output, with_function
from fastq.layout.tiles import Segments, segments
from fastq.operands import Codes, Floats, Operand, PlainArray, balanced, operand, readable
from fastq.quant.affine import Given, Quantized, check_finite
from fastq.quant.affine import quantize as quantize_array
from fastq.rules import (
    check_bias,
    check_bits,
    check_dtype,
    check_epilogue,
    check_out,
    in_place,
    output_type,
    result_shape,
)
from fastq.scheme import SCHEMES, code_range

Array = npt.NDArray[Any]
Index = tuple[int, ...]

INTEGERS = Output("int32")
_WRITTEN_AS_IT_IS = {("float32", "float16"), ("int32", "int64")}  # product and `out`


KINDS_READY = 64  # of products that one operand remembers


def _repeated(a: Any, b: Any, out: Any, bias: Any, kind: tuple[Any, Any]) -> Array | None:
    """The product, if one of its kind has been computed before and nothing is wrong with its arguments.

    `kind` is the epilogue and the type asked for. Whatever is not as usual is left to the long way.
    """
    if not isinstance(b, Operand) or not b.ready:
        return None
    scale = None
    if isinstance(a, Operand):
        if (pair := a.rows()) is None:
            return None
        a, scale = pair
    elif type(a) is not np.ndarray:
        return None
    try:
        ready = b.ready.get((a.shape, a.dtype, scale is None, *kind))
    except TypeError:  # an epilogue that cannot be hashed
        return None
    if ready is None or ready.machine != this_machine() or not _as_usual(a, a.shape, a.dtype):
        return None
    if scale is not None and not _as_usual(scale, (a.shape[0], 1), ready.computed):
        return None
    if bias is not None and not _as_usual(bias, ready.shape[-1:], ready.computed):
        return None
    if out is not None and not (_as_usual(out, ready.shape, ready.dtype) and out.flags.writeable):
        return None
    return ready(a, scale, bias, out)


def _as_usual(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether it is an array of this shape and type whose elements follow each other in memory."""
    if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
        return False
    flags = array.flags
    return flags.c_contiguous and flags.aligned


def _remember(task: Task, kind: tuple[Any, Any]) -> None:
    """Let the next product of this kind find what this one has worked out."""
    (a, b), left = task.inputs, task.left
    if getattr(b, "ready", None) is None or len(b.shape) != 2 or 0 in (task.m, task.k, task.n):
        return
    floats = not isinstance(a, Operand)
    if not floats:
        if (pair := a.rows()) is None:
            return
        a = pair[0]
    elif not isinstance(left, Floats) or left.dtype != a.dtype or not a.dtype.isnative:
        return
    key = a.shape, a.dtype, floats, *kind
    if (known := b.ready.get(key)) is not None and known.machine == this_machine():
        return
    _, cuts, packed, columns, plan = _pieces(task, (), ())
    if plan.unit is None or columns.offset is not None:
        return
    if len(b.ready) >= KINDS_READY:
        b.ready.clear()
    balance = left.balance if isinstance(left, Floats) else None
    b.ready[key] = Ready(a.shape, a.dtype, balance, packed, columns, cuts, plan, this_machine())


class Task(NamedTuple):
    """A product whose arguments have been checked."""

    inputs: tuple[Any, Any]  # as they came in, but as arrays
    left: Operand
    right: Operand
    batch: tuple[int, ...]
    m: int
    k: int
    n: int
    shape: tuple[int, ...]  # of the result
    bias: Array | None
    output: Output

    @classmethod
    def of(cls, a: Any, b: Any, bits: int, bias: Any, epilogue: Any) -> Task:
        """A product of floats, whatever the operands are."""
        a, b = _arrays(a, b)
        natural = _natural_type(a, b)
        if natural is None:
            raise TypeError(
                f"dtype must be left out for a product that NumPy computes, as that of {a.dtype} and {b.dtype} is"
            )
        return _task(a, b, bits, bias, epilogue, np.result_type(natural if natural.kind == "f" else np.float32))

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The result as a stack of matrices."""
        return prod(self.batch), self.m, self.n

    def each(self) -> Iterator[tuple[int, Index, Index]]:
        """Number of a matrix, and its index in the left and the right operand."""
        for number, index in enumerate(np.ndindex(self.batch) if self.batch else ((),)):
            yield number, _within(self.left.shape, index), _within(self.right.shape, index)


def _arrays(a: Any, b: Any) -> tuple[Any, Any]:
    return a if isinstance(a, Operand) else np.asarray(a), b if isinstance(b, Operand) else np.asarray(b)


def _natural_type(a: Any, b: Any) -> np.dtype[Any] | None:
    return output_type(a.dtype, b.dtype, (isinstance(a, Operand), isinstance(b, Operand)))


def matmul(
    a: Any, b: Any, out: Any = None, *, bits: int = 8, bias: Any = None, epilogue: Any = None, dtype: Any = None
) -> Any:
    """Matrix product with quantized operands; see :func:`fastq.matmul`."""
    kind = epilogue, dtype
    if bits == 8 and (result := _repeated(a, b, out, bias, kind)) is not None:
        return result
    a_in, b_in = _arrays(a, b)
    natural = _natural_type(a_in, b_in)
    if natural is None:
        return _plain(a_in, b_in, out, bias, epilogue, dtype)
    wanted = natural if dtype is None else check_dtype(dtype, natural)
    shape = result_shape(a_in.shape, b_in.shape)[-1]
    target = None if out is None else check_out(out, shape, wanted)
    if target is not None and (wanted.name, target.dtype.name) in _WRITTEN_AS_IT_IS:
        wanted = target.dtype
    task = _task(a_in, b_in, bits, bias, epilogue, wanted)
    direct = target is not None and task.matrices[0] == 1 and in_place(target, task.matrices[1:], wanted)
    result = target.reshape(task.matrices) if direct and target is not None else empty(task.matrices, wanted)
    _fill(result, task)
    if bits == 8 and (out is None or dtype is not None or wanted == natural):
        _remember(task, kind)
    if direct:
        return target
    result = result.reshape(shape)
    if target is None:
        return result if shape else result[()]
    np.copyto(target, result, casting="same_kind")
    return target


def requantized(task: Task, scheme: str, given: Given | None) -> Quantized:
    """The product as codes of 8 bits, with the given parameters (one, or one per row) or those of its rows.

    It never exists as floats, but for a band of rows at a time.
    """
    axis = None if given is not None and given.scale.size == 1 else len(task.shape) - 1
    if len(task.shape) < 2 or 0 in (*task.shape, task.k):
        floats = empty(task.matrices, np.dtype(task.output.type))
        _fill(floats, task)
        floats = floats.reshape(task.shape)
        return quantize_array(floats, 8, axis if task.shape else None, None, scheme, given, "a @ b")
    limits = code_range(8, scheme)
    codes = np.empty(task.matrices, np.int8 if limits.signed else np.uint8)
    found = _parameters(task, given)
    status = 0
    with _named_errors(task):
        for number, left_at, right_at in task.each():
            mine = found if axis is None else Parameters(*(p[number] for p in found))
            status |= _one(codes[number], task, left_at, right_at, multiply.Grid(mine, limits, SCHEMES.index(scheme)))
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


def _task(a_in: Any, b_in: Any, bits: Any, bias: Any, epilogue: Any, wanted: np.dtype[Any]) -> Task:
    """Operands and output of a product, checked."""
    if type(bits) is not int or bits != 8:
        bits = check_bits(bits)
    batch, m, k, n, shape = result_shape(a_in.shape, b_in.shape)
    output = _output(check_epilogue(epilogue, wanted, ACTIVATIONS), wanted)
    computed = np.dtype(output.computed)
    extra = None if bias is None else check_bias(bias, n, computed)
    left = operand(a_in, bits, computed, "left").promoted("left")
    right = operand(b_in, bits, computed, "right").promoted("right")
    left, right = balanced(left, right, bits, computed)
    if isinstance(left, PlainArray) and len(right.shape) == 2 and len(left.shape) > 2:
        # Every row of every matrix meets the same right operand: one product with many rows.
        m, batch = m * prod(batch), ()
        left = left.on(left.array.reshape(m, k))
    return Task((a_in, b_in), left, right, batch, m, k, n, shape, extra, output)


def _output(epilogue: Any, wanted: np.dtype[Any]) -> Output:
    name = "int32" if wanted.kind == "i" else str(wanted)
    if epilogue is None or isinstance(epilogue, str):
        return Output(name, epilogue or "")
    return with_function(name, epilogue)


def _fill(result: Array, task: Task) -> None:
    """Write a stack of products."""
    if result.size and task.k == 0:
        sums = np.zeros(task.n, np.result_type(task.output.computed)) if task.bias is None else task.bias
        result[...] = plain.activated(np.asarray(sums), task.output)
    elif result.size:
        with _named_errors(task):
            for number, left_at, right_at in task.each():
                _one(result[number], task, left_at, right_at)


@contextmanager
def _named_errors(task: Task) -> Iterator[None]:
    """Tell where an operand is not finite, with the index in what came in."""
    try:
        yield
    except NotFiniteError:
        for name, operand in zip("ab", task.inputs):
            if isinstance(operand, np.ndarray):
                check_finite(operand, name)
        raise


def _plain(a: Any, b: Any, out: Any, bias: Any, epilogue: Any, dtype: Any) -> Any:
    """The product as NumPy computes it."""
    if epilogue is not None:
        raise TypeError(f"epilogue needs a product of floats; got {a.dtype} and {b.dtype}, which NumPy multiplies")
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    if bias is None:
        return np.matmul(a, b, dtype=dtype) if out is None else np.matmul(a, b, out=out, dtype=dtype)
    result = np.add(np.matmul(a, b, dtype=dtype), bias)
    if out is None:
        return result
    np.copyto(out, result, casting="same_kind")
    return out


def _within(shape: tuple[int, ...], index: Index) -> Index:
    """The index of a broadcast batch in an operand's own batch dimensions."""
    own = shape[:-2]
    return tuple(0 if size == 1 else i for size, i in zip(own, index[len(index) - len(own) :]))


def _one(
    out: Array,
    task: Task,
    left_at: Index,
    right_at: Index,
    grid: multiply.Grid | None = None,
) -> int:
    """One matrix of a product; into codes on a grid, if one is given."""
    left, bias = task.left, task.bias
    if task.output.computed == "int32":
        longest = longest_segment(left.lines(left_at, "left").reach, task.right.lines(right_at, "right").reach)
        if task.k > longest or out.dtype == np.int64:
            _one_wide(out, left.matrix(left_at), task.right.matrix(right_at), longest, bias)
            return 0
    a, cuts, packed, columns, plan = _pieces(task, left_at, right_at)
    with workspace() as work:
        if isinstance(left, Floats):
            rows = run.left_from_floats(work, readable(left.matrix(left_at)), left.bits, left.balance, cuts, plan)
            if rows is None:
                raise NotFiniteError("a, balanced as b is, must be finite; it overflows its float type")
        else:
            rows = run.left_from_codes(work, left.matrix(left_at), a, cuts, plan, columns.scale.dtype)
        if grid is not None:
            return multiply.matmul_requantized(work, rows, packed, columns, cuts, out, grid, bias, plan)
        multiply.matmul(work, rows, packed, columns, cuts, out, bias, plan)
    return 0


def _pieces(task: Task, left_at: Index, right_at: Index) -> tuple[Lines, Segments, Right, Columns, Plan]:
    """What the product of two matrices is made of, but for the left operand's data."""
    a, b = task.left.lines(left_at, "left"), task.right.lines(right_at, "right")
    cuts = _cuts(task.k, a, b, longest_segment(a.reach, b.reach))
    packed = task.right.right(right_at, cuts)
    computed = np.dtype(task.output.computed)
    columns = task.right.columns(right_at, packed, cuts, computed, a.offset is not None or b.offset is not None)
    return a, cuts, packed, columns, plan_matmul(task.m, packed.n, cuts, packed.form, task.output, this_machine())


def _one_wide(out: Array, a: Array, b: Array, longest: int, bias: Array | None) -> None:
    """An integer product whose sums may leave int32: parts of K that cannot, added up in int64."""
    total = np.zeros(out.shape, np.int64)
    if bias is not None:
        total += bias
    part = np.empty(out.shape, np.int32)
    for start in range(0, a.shape[1], longest):
        stop = min(start + longest, a.shape[1])
        operands = Codes(a[:, start:stop]), Codes(b[start:stop])
        m, n = out.shape
        _one(part, Task(operands, *operands, (), m, stop - start, n, out.shape, None, INTEGERS), (), ())
        total += part
    limits = np.iinfo(out.dtype)
    if total.min() < limits.min or total.max() > limits.max:
        worst = total.flat[np.abs(total).argmax()]
        raise OverflowError(
            f"the product of 8-bit integers must fit {out.dtype}, but with K = {a.shape[1]} it reaches {worst}; "
            "pass out=np.empty(shape, np.int64) for the exact result"
        )
    out[...] = total


def _cuts(k: int, a: Lines, b: Lines, longest: int) -> Segments:
    """Segments of K within which all parameters are constant and no sum overflows."""
    groups = [lines.group for lines in (a, b) if lines.group is not None and lines.group < k]
    size = gcd(*groups) if groups else k
    if size > longest:
        size = gcd(size, longest) if groups else longest
    return segments(k, size)
