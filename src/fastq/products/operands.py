"""Operands of a product: quantized arrays, arrays of 8-bit integers, and floats that are quantized on the fly."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import pack_right, quantize_right
from fastq.engine.native import float_kind
from fastq.engine.operands import BatchIndex, ChannelTransform, ColumnParams, LineParams, Right, column_parameters
from fastq.engine.prepared import NativeProduct
from fastq.errors import NotFiniteError
from fastq.layout.tiles import Segments, segments
from fastq.promotion import EIGHT_BIT
from fastq.quant.affine import check_finite
from fastq.scheme import ACTIVATION_GROUP, GROUP, ROW, TWO_PLANE, TWO_PLANE_HIGH, CodeRange, code_range

Array = npt.NDArray[Any]


class Operand:
    """A quantized array as an operand; :class:`fastq.QArray` is one."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    activations = ROW  # how floats that it meets are quantized
    ready: dict[Any, NativeProduct] | None = None  # products with this operand on the right that can be repeated

    def promoted(self, side: str) -> Operand:
        """The operand with two dimensions or more: a vector becomes a row on the left, a column on the right."""
        raise NotImplementedError

    def lines(self, index: BatchIndex, side: str) -> LineParams:
        """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
        raise NotImplementedError

    def matrix(self, index: BatchIndex) -> Array:
        """Codes of one matrix."""
        raise NotImplementedError

    def rows_of(self, index: BatchIndex, rows: slice) -> Array:
        """Some rows of one matrix, in a form that kernels can read."""
        return self.matrix(index)[rows]

    def codes_of(self, index: BatchIndex, side: str) -> CodeOperand:
        """One matrix of integers as plain codes with zero points."""
        raise NotImplementedError

    def balance_along(self, side: str) -> ChannelTransform | None:
        """The transform that the other operand needs along the summed axis, if this one is balanced there."""
        return None

    def order_along(self, side: str) -> npt.NDArray[np.int64] | None:
        """The order in which its codes lie along the summed axis, if it is another than that of its elements."""
        return None

    def in_codes_order(self) -> Operand:
        """The operand with its elements where the codes lie."""
        return self

    def taken(self, side: str, places: npt.NDArray[np.int64]) -> Operand:
        """The operand with its codes along the summed axis in this order of theirs; ValueError, if it cannot be."""
        raise NotImplementedError

    def group_along(self, side: str) -> int | None:
        """The size of its groups along the summed axis, if there are some."""
        return None

    def rows(self) -> tuple[Array, Array] | None:
        """Codes and scales, if it is a matrix of int8 with one scale per row, no zero points, and not packed."""
        return None

    def right(self, index: BatchIndex, k_segments: Segments) -> Right:
        """One matrix, packed."""
        raise NotImplementedError

    def columns(
        self, index: BatchIndex, packed: Right, k_segments: Segments, dtype: np.dtype[Any], affine: bool
    ) -> ColumnParams:
        """Column parameters of one packed matrix."""
        return column_parameters(self.lines(index, "right"), packed, k_segments, dtype, affine)


class ArrayOperand(Operand):
    """A plain array as an operand."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def on(self, array: Array) -> ArrayOperand:
        """The same operand over another array."""
        return type(self)(array)

    def promoted(self, side: str) -> ArrayOperand:
        """See :class:`Operand`."""
        if self.array.ndim != 1:
            return self
        return self.on(self.array[None, :] if side == "left" else self.array[:, None])

    def taken(self, side: str, places: npt.NDArray[np.int64]) -> ArrayOperand:
        """See :class:`Operand`."""
        # Places are within bounds: "raise" looks at them first, and takes half as long again.
        return self.on(np.take(self.array, places, axis=-1 if side == "left" else -2, mode="clip"))

    def matrix(self, index: BatchIndex) -> Array:
        """See :class:`Operand`."""
        matrix: Array = self.array[index]
        return matrix


class CodeOperand(ArrayOperand):
    """An array of int8 or uint8: codes of scale 1. A matrix may have zero points by line, as a column or a row."""

    def __init__(self, array: Array, zero: Array | None = None) -> None:
        super().__init__(array)
        self.zero = zero

    def lines(self, index: BatchIndex, side: str) -> LineParams:
        """See :class:`Operand`."""
        return LineParams(EIGHT_BIT[self.dtype], 8, zero=self.zero)

    def codes_of(self, index: BatchIndex, side: str) -> CodeOperand:
        """See :class:`Operand`."""
        return CodeOperand(self.array[index], self.zero)

    def right(self, index: BatchIndex, k_segments: Segments) -> Right:
        """See :class:`Operand`."""
        return pack_right(self.array[index], EIGHT_BIT[self.dtype].low, 8, k_segments)


class FloatForm(NamedTuple):
    """How floats are quantized on the fly: symmetric, by row on the left and by column on the right."""

    bits: int
    balance: ChannelTransform | None = None  # on the left: before that
    group: int | None = None  # on the left: elements of a row that share a scale; None: all
    planes: int = 1  # on the left: 2 for 16 bits in two bytes

    @property
    def high(self) -> int:
        """Codes go from -high to high: the scale is max|x| / high, so the lowest one is not used."""
        return TWO_PLANE_HIGH if self.planes > 1 else code_range(self.bits, "symmetric").high

    def like(self, activations: str, group: int | None) -> FloatForm:
        """The form that such activations have, where the array that they meet has groups of this size."""
        if activations == GROUP:
            return self._replace(group=group or ACTIVATION_GROUP)
        return self._replace(planes=2) if activations == TWO_PLANE else self


class FloatOperand(ArrayOperand):
    """An array of floats, quantized on the fly.

    On the left, a kernel balances and quantizes floats as it writes tiles, so :meth:`matrix` gives floats, not codes.
    Arrays of another type are converted to `dtype` a few rows at a time.
    """

    def __init__(self, array: Array, form: FloatForm, dtype: np.dtype[Any]) -> None:
        super().__init__(array)
        self.form, self.dtype = form, dtype
        self._packed: tuple[BatchIndex, Segments, Right, Array] | None = None  # the last matrix, and its scales

    def on(self, array: Array) -> FloatOperand:
        """The same operand over another array."""
        return FloatOperand(array, self.form, self.dtype)

    def formed(self, form: FloatForm) -> FloatOperand:
        """The same array in another form."""
        return FloatOperand(self.array, form, self.dtype)

    @property
    def bits(self) -> int:
        """Bits per code; each of two planes has 8."""
        return self.form.bits

    def lines(self, index: BatchIndex, side: str) -> LineParams:
        """See :class:`Operand`."""
        return _left_lines(self.form._replace(balance=None)) if side == "left" else _right_lines(self.bits)

    def rows_of(self, index: BatchIndex, rows: slice) -> Array:
        """See :class:`Operand`."""
        return _readable(self.array[index][rows], self.dtype)

    def right(self, index: BatchIndex, k_segments: Segments) -> Right:
        """See :class:`Operand`."""
        return self._quantized(index, k_segments)[0]

    def columns(
        self, index: BatchIndex, packed: Right, k_segments: Segments, dtype: np.dtype[Any], affine: bool
    ) -> ColumnParams:
        """See :class:`Operand`."""
        lines = replace(self.lines(index, "right"), scale=self._quantized(index, k_segments)[1][None])
        return column_parameters(lines, packed, k_segments, dtype, affine)

    def _quantized(self, index: BatchIndex, k_segments: Segments) -> tuple[Right, Array]:
        """One matrix, packed, and its scales; raises NotFiniteError. The last one is kept."""
        if self._packed is None or self._packed[:2] != (index, k_segments):
            values = self.array[index].astype(self.dtype, copy=False)
            if not (values.flags.forc and values.flags.aligned):
                values = np.array(values, order="C")
            try:
                self._packed = index, k_segments, *quantize_right(values, self.bits, k_segments)
            except NotFiniteError:
                check_finite(values, "b")  # the same error, with the index
                raise
        return self._packed[2:]


@lru_cache
def _left_lines(form: FloatForm) -> LineParams:
    """Line parameters of floats on the left but for the scales; of two planes, those of one."""
    high = min(form.high, 128)
    return LineParams(CodeRange(-high, high), form.bits, group=form.group)


@lru_cache
def _right_lines(bits: int) -> LineParams:
    """Those of floats on the right, whose codes are packed relative to the lowest of the range."""
    return LineParams(code_range(bits, "symmetric"), bits)


class IntegerView(Operand):
    """An operand without its float scale: codes minus zero points, times the integer scales of groups.

    The balance of the array is left out as well.
    """

    def __init__(self, of: Operand, name: str) -> None:
        self.of, self.name, self.shape, self.dtype = of, name, of.shape, of.dtype

    @property
    def reach(self) -> int:
        """The largest magnitude that arrays of this form can hold."""
        of: Any = self.of
        if isinstance(of, CodeOperand):
            limits = EIGHT_BIT[of.dtype]
        else:
            grouped = of.axis_scale is not None  # by integers, with which codes fit int8
            limits = code_range(8, "symmetric") if grouped else code_range(of.bits, of.scheme)
        return limits.reach

    def promoted(self, side: str) -> IntegerView:
        """See :class:`Operand`."""
        return IntegerView(self.of.promoted(side), self.name)

    def lines(self, index: BatchIndex, side: str) -> LineParams:
        """See :class:`Operand`."""
        lines = self.of.lines(index, side)
        if lines.offset is not None or (lines.scale is not None and lines.scale.shape[side == "left"] > 1):
            what = "an offset" if lines.offset is not None else "float scales that differ from group to group"
            raise ValueError(
                f"{self.name} must be of integers times scales that are constant along the axis that is summed over; "
                f"got {self.of!r}, with {what}"
            )
        return replace(lines, scale=None, group=None)

    def matrix(self, index: BatchIndex) -> Array:
        """See :class:`Operand`."""
        return self.of.matrix(index)

    def rows_of(self, index: BatchIndex, rows: slice) -> Array:
        """See :class:`Operand`."""
        return self.of.rows_of(index, rows)

    def right(self, index: BatchIndex, k_segments: Segments) -> Right:
        """See :class:`Operand`."""
        return self.of.right(index, k_segments)

    def codes_of(self, index: BatchIndex, side: str) -> CodeOperand:
        """See :class:`Operand`."""
        lines = self.lines(index, side)
        if side == "left":
            return CodeOperand(self.matrix(index), lines.zero)
        codes = self.right(index, segments(self.shape[-2])).codes()  # relative to the lowest
        zero = np.zeros((1, 1), np.int32) if lines.zero is None else lines.zero
        return CodeOperand(codes, zero - lines.limits.low)


def operand(x: Any, bits: int, dtype: np.dtype[Any], side: str) -> Operand:
    """An argument of a product as an operand; `dtype` is the type that the product is computed in."""
    if isinstance(x, Operand):
        return x
    if x.dtype in EIGHT_BIT:
        return CodeOperand(x)
    narrow = side == "left" and x.dtype.itemsize == 2 and dtype == np.float32 and float_kind(x.dtype) is not None
    return FloatOperand(x, FloatForm(bits), x.dtype.newbyteorder("=") if narrow else dtype)


def aligned(left: Operand, right: Operand) -> tuple[Operand, Operand]:
    """Operands of a product (promoted), codes of both in one order along the summed axis.

    An array takes the order of the quantized one. Of two quantized ones, the left one takes that of the right one, or,
    where its groups would be torn, the other way around; the right one is then packed anew for each product.
    """
    ours, theirs = left.order_along("left"), right.order_along("right")
    if (ours is None and theirs is None) or (ours is not None and theirs is not None and np.array_equal(ours, theirs)):
        return left, right
    if isinstance(left, ArrayOperand) and theirs is not None:
        return left.taken("left", theirs), right
    if isinstance(right, ArrayOperand) and ours is not None:
        return left, right.taken("right", ours)
    try:
        return left.taken("left", _between(ours, theirs)), right
    except ValueError:
        try:
            return left, right.taken("right", _between(theirs, ours))
        except ValueError:
            raise ValueError(
                "operands whose codes lie in different orders along the axis that is summed over must have no groups "
                "or rotation there, at least one of them; got QArrays of shapes "
                f"{left.shape} and {right.shape}: multiply the dequantize() of one"
            ) from None


def _between(old: Array | None, new: Array | None) -> npt.NDArray[np.int64]:
    """Where the codes of the new order lie in the old one; None is the order of elements."""
    if old is None:
        assert new is not None
        return new
    places: npt.NDArray[np.int64] = np.argsort(old)
    return places if new is None else places[new]


def balanced(left: Operand, right: Operand, bits: int, dtype: np.dtype[Any]) -> tuple[Operand, Operand]:
    """Operands of a product (promoted), each put through the balance of the other along the summed axis.

    `dtype` is the type that the product is computed in. Only floats can be balanced, before they are quantized.
    """
    ours, theirs = left.balance_along("left"), right.balance_along("right")
    if theirs is not None:
        array, kind = _array_of(left, "left", "right"), left.dtype if isinstance(left, FloatOperand) else dtype
        # The factors of an array that was cut or transposed are a view, which may not be contiguous.
        factors = np.ascontiguousarray(theirs.factors, dtype)
        form = left.form if isinstance(left, FloatOperand) else FloatForm(bits)
        left = FloatOperand(array, form._replace(balance=theirs._replace(factors=factors)), kind)
    if ours is not None:
        values = np.swapaxes(_array_of(right, "right", "left").astype(dtype, copy=False), -1, -2)
        values = np.swapaxes(ours.apply(values), -1, -2)
        check_finite(values, "b, balanced as a is,")
        right = FloatOperand(values, FloatForm(bits), dtype)
    return left, right


def _array_of(x: Operand, side: str, other: str) -> Array:
    if isinstance(x, ArrayOperand):
        return x.array
    raise ValueError(
        f"the {side} operand must be an array that is not quantized yet, because the {other} one is balanced along the "
        f"axis that is summed over, by factors that the {side} one takes before it is quantized; got a QArray of "
        f"shape {x.shape}: multiply its dequantize(), or leave out balance"
    )


def _readable(x: Array, dtype: np.dtype[Any]) -> Array:
    """A matrix that kernels can read: of this type, unit stride along K, aligned, whole elements from row to row."""
    step = x.strides[1] == x.itemsize or x.shape[1] <= 1
    if step and x.flags.aligned and x.strides[0] % x.itemsize == 0 and x.dtype == dtype:
        return x
    return np.array(x, dtype, order="C")
