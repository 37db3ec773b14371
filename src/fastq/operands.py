"""Operands of a product: quantized arrays, arrays of 8-bit integers, and floats that are quantized on the fly."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.prepack import Balance, Columns, Lines, Right, column_parameters
from fastq.engine.ready import Ready
from fastq.layout.tiles import Segments
from fastq.quant.affine import Quantized, check_finite
from fastq.quant.affine import quantize as quantize_array
from fastq.rules import EIGHT_BIT
from fastq.scheme import CodeRange, code_range

Array = npt.NDArray[Any]
Index = tuple[int, ...]


class Operand:
    """A quantized array as an operand; :class:`fastq.QArray` is one."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ready: dict[Any, Ready] | None = None  # products with this operand on the right that can be repeated

    def promoted(self, side: str) -> Operand:
        """The operand with two dimensions or more: a vector becomes a row on the left, a column on the right."""
        raise NotImplementedError

    def lines(self, index: Index, side: str) -> Lines:
        """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
        raise NotImplementedError

    def matrix(self, index: Index) -> Array:
        """Codes of one matrix."""
        raise NotImplementedError

    def balance_along(self, side: str) -> Balance | None:
        """What the other operand is to be put through along the summed axis, if it is balanced there."""
        return None

    def rows(self) -> tuple[Array, Array] | None:
        """Codes and scales, if it is a matrix of int8 with one scale per row, no zero points, and not packed."""
        return None

    def right(self, index: Index, cuts: Segments) -> Right:
        """One matrix, packed."""
        raise NotImplementedError

    def columns(self, index: Index, packed: Right, cuts: Segments, dtype: np.dtype[Any], affine: bool) -> Columns:
        """Column parameters of one packed matrix."""
        return column_parameters(self.lines(index, "right"), packed, cuts, dtype, affine)


class PlainArray(Operand):
    """A plain array as an operand."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def on(self, array: Array) -> PlainArray:
        """The same operand over another array."""
        return type(self)(array)

    def promoted(self, side: str) -> PlainArray:
        """See :class:`Operand`."""
        if self.array.ndim != 1:
            return self
        return self.on(self.array[None, :] if side == "left" else self.array[:, None])

    def matrix(self, index: Index) -> Array:
        """See :class:`Operand`."""
        matrix: Array = self.array[index]
        return matrix


class Codes(PlainArray):
    """An array of int8 or uint8: codes of scale 1."""

    def lines(self, index: Index, side: str) -> Lines:
        """See :class:`Operand`."""
        return Lines(EIGHT_BIT[self.dtype], 8)

    def right(self, index: Index, cuts: Segments) -> Right:
        """See :class:`Operand`."""
        return run.pack_right(self.array[index], EIGHT_BIT[self.dtype].low, 8, cuts)


class Floats(PlainArray):
    """An array of floats, quantized on the fly: symmetric, by row on the left and by column on the right.

    On the left, floats go into tiles as they are quantized, so :meth:`matrix` gives them rather than codes; that is
    where they are balanced.
    """

    def __init__(self, array: Array, bits: int, balance: Balance | None = None) -> None:
        super().__init__(array)
        self.bits, self.balance = bits, balance
        self._quantized: tuple[Index, Quantized] | None = None

    def on(self, array: Array) -> Floats:
        """The same operand over another array."""
        return Floats(array, self.bits, self.balance)

    def lines(self, index: Index, side: str) -> Lines:
        """See :class:`Operand`."""
        if side == "left":
            return _left_lines(self.bits)
        return Lines(code_range(self.bits, "symmetric"), self.bits, self._quantize(index).scale)

    def right(self, index: Index, cuts: Segments) -> Right:
        """See :class:`Operand`."""
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


def operand(x: Any, bits: int, dtype: np.dtype[Any], side: str) -> Operand:
    """What came in as an operand; `dtype` is the type that the product is computed in."""
    if isinstance(x, Operand):
        return x
    if x.dtype in EIGHT_BIT:
        return Codes(x)
    narrow = side == "left" and x.dtype.itemsize == 2 and dtype == np.float32 and run.left_kind(x.dtype) is not None
    return Floats(x if narrow or x.dtype == dtype else x.astype(dtype), bits)


def balanced(left: Operand, right: Operand, bits: int, dtype: np.dtype[Any]) -> tuple[Operand, Operand]:
    """Operands of a product (promoted), each put through the balance of the other along the summed axis.

    `dtype` is the type that the product is computed in. Only floats can be balanced, before they are quantized.
    """
    ours, theirs = left.balance_along("left"), right.balance_along("right")
    if theirs is not None:
        array = _array_of(left, "left", "right")
        same = isinstance(left, Floats)
        left = Floats(
            array if same else array.astype(dtype),
            bits,
            theirs._replace(factors=theirs.factors.astype(dtype, copy=False)),
        )
    if ours is not None:
        values = np.swapaxes(_array_of(right, "right", "left").astype(dtype, copy=False), -1, -2)
        values = np.swapaxes(ours.on(values), -1, -2)
        check_finite(values, "b, balanced as a is,")
        right = Floats(values, bits)
    return left, right


def _array_of(x: Operand, side: str, other: str) -> Array:
    if isinstance(x, PlainArray):
        return x.array
    raise ValueError(
        f"the {side} operand must be an array that is not quantized yet, because the {other} one is balanced along the "
        f"axis that is summed over, by factors that the {side} one takes before it is quantized; got a QArray of "
        f"shape {x.shape}: multiply its dequantize(), or leave out balance"
    )


def readable(x: Array) -> Array:
    """A matrix that kernels can read: unit stride along K, aligned, whole elements from row to row."""
    step = x.strides[1] == x.itemsize or x.shape[1] <= 1
    if step and x.flags.aligned and x.strides[0] % x.itemsize == 0 and x.dtype.isnative:
        return x
    return np.array(x, x.dtype.newbyteorder("="), order="C")
