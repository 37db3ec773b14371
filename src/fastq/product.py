"""The product: NumPy's shape rules, operands of every kind, and the way to the engine.

Everything a user hands over is checked here, once; the engine and the kernels below trust it.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.memory import empty, workspace
from fastq.engine.plan import plan_matmul, this_machine
from fastq.engine.prepack import Columns, Lines, Right, column_parameters, longest_segment
from fastq.errors import NotFiniteError
from fastq.kernels.table import OUTPUTS
from fastq.layout.tiles import Segments, segments
from fastq.quant.affine import Quantized, check_finite
from fastq.quant.affine import quantize as quantize_array
from fastq.rules import EIGHT_BIT, check_bias, check_bits, check_out, in_place, output_type, result_shape
from fastq.scheme import CodeRange, code_range

Array = npt.NDArray[Any]
Index = tuple[int, ...]

NAMES = {np.dtype(name): name for name in OUTPUTS}


class Operand:
    """A quantized array as an operand; :class:`fastq.QArray` is one."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def promoted(self, side: str) -> Operand:
        """The operand with two dimensions or more: a vector becomes a row on the left, a column on the right."""
        raise NotImplementedError

    def lines(self, index: Index, side: str) -> Lines:
        """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
        raise NotImplementedError

    def matrix(self, index: Index) -> Array:
        """Codes of one matrix."""
        raise NotImplementedError

    def right(self, index: Index, cuts: Segments) -> Right:
        """One matrix, packed."""
        raise NotImplementedError

    def columns(self, index: Index, packed: Right, cuts: Segments, dtype: np.dtype[Any], affine: bool) -> Columns:
        """Column parameters of one packed matrix."""
        return column_parameters(self.lines(index, "right"), packed, cuts, dtype, affine)


class _Array(Operand):
    """A plain array as an operand."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def on(self, array: Array) -> _Array:
        """The same operand over another array."""
        return type(self)(array)

    def promoted(self, side: str) -> _Array:
        if self.array.ndim != 1:
            return self
        return self.on(self.array[None, :] if side == "left" else self.array[:, None])

    def matrix(self, index: Index) -> Array:
        matrix: Array = self.array[index]
        return matrix


class _Raw(_Array):
    """An array of int8 or uint8: codes of scale 1."""

    def lines(self, index: Index, side: str) -> Lines:
        return Lines(EIGHT_BIT[self.dtype], 8)

    def right(self, index: Index, cuts: Segments) -> Right:
        return run.pack_right(self.array[index], EIGHT_BIT[self.dtype].low, 8, cuts)


class _Floats(_Array):
    """An array of floats, quantized on the fly: symmetric, by row on the left and by column on the right.

    On the left, floats go into tiles as they are quantized, so :meth:`matrix` gives them rather than codes.
    """

    def __init__(self, array: Array, bits: int) -> None:
        super().__init__(array)
        self.bits = bits
        self._quantized: tuple[Index, Quantized] | None = None

    def on(self, array: Array) -> _Floats:
        return _Floats(array, self.bits)

    def lines(self, index: Index, side: str) -> Lines:
        if side == "left":
            return _left_lines(self.bits)
        return Lines(code_range(self.bits, "symmetric"), self.bits, self._quantize(index).scale)

    def right(self, index: Index, cuts: Segments) -> Right:
        low = code_range(self.bits, "symmetric").low
        return run.pack_right(self._quantize(index).codes, low, self.bits, cuts)

    def _quantize(self, index: Index) -> Quantized:
        if self._quantized is None or self._quantized[0] != index:
            found = quantize_array(self.array[index], self.bits, 0, None, "symmetric", name="b")
            self._quantized = index, found
        return self._quantized[1]


@lru_cache
def _left_lines(bits: int) -> Lines:
    """Of floats on the left: the scale is max|x| / high, so the lowest code is not used."""
    high = code_range(bits, "symmetric").high
    return Lines(CodeRange(-high, high), bits)


def matmul(a: Any, b: Any, out: Any = None, *, bits: int = 8, bias: Any = None) -> Any:
    """Matrix product with quantized operands; see :func:`fastq.matmul`."""
    if type(bits) is not int or bits != 8:
        bits = check_bits(bits)
    a_in = a if isinstance(a, Operand) else np.asarray(a)
    b_in = b if isinstance(b, Operand) else np.asarray(b)
    dtype = output_type(a_in.dtype, b_in.dtype, (isinstance(a_in, Operand), isinstance(b_in, Operand)))
    if dtype is None:
        return _plain(a_in, b_in, out, bias)
    batch, m, k, n, shape = result_shape(a_in.shape, b_in.shape)
    extra = None if bias is None else check_bias(bias, n, dtype)
    target = None if out is None else check_out(out, shape, dtype)
    if target is not None and target.dtype == np.int64:
        dtype = target.dtype

    left = _operand(a_in, bits, dtype).promoted("left")
    right = _operand(b_in, bits, dtype).promoted("right")
    flat = len(right.shape) == 2 and len(left.shape) > 2 and isinstance(left, _Array)
    if (
        isinstance(left, _Array) and flat
    ):  # every row of every matrix meets the same right operand: one product with many rows
        m, batch = m * prod(batch), ()
        left = left.on(left.array.reshape(m, k))
    matrices = (prod(batch), m, n)
    direct = target is not None and matrices[0] == 1 and in_place(target, (m, n), dtype)
    result = target.reshape(matrices) if direct and target is not None else empty(matrices, dtype)
    if result.size and k == 0:
        result[...] = 0 if extra is None else extra
    elif result.size:
        try:
            for number, index in enumerate(np.ndindex(batch) if batch else ((),)):
                places = _within(left.shape, index), _within(right.shape, index)
                _one(result[number], left, places[0], right, places[1], k, extra)
        except NotFiniteError:  # name it, with the index in what came in
            for name, operand in (("a", a_in), ("b", b_in)):
                if isinstance(operand, np.ndarray):
                    check_finite(operand, name)
            raise
    if direct:
        return target
    result = result.reshape(shape)
    if target is None:
        return result if shape else result[()]
    np.copyto(target, result, casting="same_kind")
    return target


def _plain(a: Any, b: Any, out: Any, bias: Any) -> Any:
    """The product as NumPy computes it."""
    if isinstance(out, tuple) and len(out) == 1:
        out = out[0]
    if bias is None:
        return np.matmul(a, b) if out is None else np.matmul(a, b, out=out)
    result = np.add(np.matmul(a, b), bias)
    if out is None:
        return result
    np.copyto(out, result, casting="same_kind")
    return out


def _operand(x: Any, bits: int, dtype: np.dtype[Any]) -> Operand:
    if isinstance(x, Operand):
        return x
    if x.dtype in EIGHT_BIT:
        return _Raw(x)
    return _Floats(x.astype(dtype) if x.dtype != dtype else x, bits)


def _within(shape: tuple[int, ...], index: Index) -> Index:
    """The index of a broadcast batch in an operand's own batch dimensions."""
    own = shape[:-2]
    return tuple(0 if size == 1 else i for size, i in zip(own, index[len(index) - len(own) :]))


def _one(
    out: Array, left: Operand, left_at: Index, right: Operand, right_at: Index, k: int, bias: Array | None
) -> None:
    """``out = left @ right + bias`` of two matrices."""
    a, b = left.lines(left_at, "left"), right.lines(right_at, "right")
    longest = longest_segment(a.reach, b.reach)
    if out.dtype.kind == "i" and (k > longest or out.dtype == np.int64):
        _one_wide(out, left.matrix(left_at), right.matrix(right_at), longest, bias)
        return
    cuts = _cuts(k, a, b, longest)
    packed = right.right(right_at, cuts)
    columns = right.columns(right_at, packed, cuts, out.dtype, a.offset is not None or b.offset is not None)
    plan = plan_matmul(len(out), packed.n, cuts, packed.bits, NAMES[out.dtype], this_machine())
    with workspace() as work:
        if isinstance(left, _Floats):
            rows = run.left_from_floats(work, _readable(left.matrix(left_at)), left.bits, cuts, plan)
            if rows is None:
                raise NotFiniteError("the left operand holds NaN or infinity")
        else:
            rows = run.left_from_codes(work, left.matrix(left_at), a, cuts, plan, out.dtype)
        run.matmul(work, rows, packed, columns, cuts, out, bias, plan)


def _one_wide(out: Array, a: Array, b: Array, longest: int, bias: Array | None) -> None:
    """An integer product whose sums may leave int32: parts of K that cannot, added up in int64."""
    total = np.zeros(out.shape, np.int64)
    if bias is not None:
        total += bias
    part = np.empty(out.shape, np.int32)
    for start in range(0, a.shape[1], longest):
        stop = min(start + longest, a.shape[1])
        _one(part, _Raw(a[:, start:stop]), (), _Raw(b[start:stop]), (), stop - start, None)
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


def _readable(x: Array) -> Array:
    """A matrix that kernels can read: unit stride along K, aligned, whole elements from row to row."""
    step = x.strides[1] == x.itemsize or x.shape[1] <= 1
    if step and x.flags.aligned and x.strides[0] % x.itemsize == 0 and x.dtype.isnative:
        return x
    return np.array(x, x.dtype.newbyteorder("="), order="C")
