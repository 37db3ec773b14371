"""Codes with their parameters, as an operand of products: what a quantized array is to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import GroupScales
from fastq.engine.operands import AxisIndex, ChannelTransform, ColumnParams, LineParams, Right
from fastq.engine.store import Store
from fastq.layout.tiles import Segments
from fastq.products.operands import Operand
from fastq.qarray import structure
from fastq.qarray.structure import ArrayParts
from fastq.scheme import code_range

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]
Scheme = Literal["symmetric", "asymmetric", "affine"]


class QArrayBase(Operand):
    """Everything that :class:`fastq.QArray` holds, and how it takes part in products; immutable."""

    __slots__ = ("_balance", "_cache", "_offset", "_scale", "_store", "_transposed", "_zero", "axis", "bits", "dtype",
                 "group_size", "ready", "rotation", "scheme", "shape")  # fmt: skip

    axis: int | None
    bits: int
    group_size: int | None
    rotation: int
    scheme: Scheme
    _store: Store
    _transposed: bool
    _cache: dict[Any, Any]
    _scale: Array
    _zero: Array | None
    _offset: Array | None
    _balance: Array | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a QArray is made by fastq.quantize(x, bits=...)")

    @classmethod
    def _make(
        cls,
        store: Store,
        transposed: bool,
        scheme: str,
        axis: int | None,
        group_size: int | None,
        parameters: tuple[Array, Array | None, Array | None],
        dtype: npt.DTypeLike,
        balance: Array | None = None,
        rotation: int = 1,
    ) -> Self:
        self = object.__new__(cls)
        shape = _swapped_shape(store.shape) if transposed else store.shape
        frozen = [None if p is None else _frozen(np.asarray(p)) for p in (*parameters, balance)]
        values = {
            "_store": store, "_transposed": transposed, "_cache": {}, "_scale": frozen[0], "_zero": frozen[1],
            "_offset": frozen[2], "_balance": frozen[3], "shape": shape, "dtype": np.dtype(dtype), "bits": store.bits,
            "scheme": scheme, "axis": axis, "group_size": group_size, "ready": {}, "rotation": rotation,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)
        return self

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot delete {name!r}")

    # What it is

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def scale(self) -> Array:
        """The scale, read-only; with integer group scales, their products with :attr:`axis_scale`, which are exact."""
        return self._scale if (integers := self.group_scale) is None else _frozen(self._scale * integers)

    @property
    def axis_scale(self) -> Array | None:
        """With integer group scales, the float scale that all groups share, read-only; None without."""
        return None if self._store.groups_shape is None else self._scale

    @property
    def group_scale(self) -> Array | None:
        """Integer scales of groups (int8), read-only; None where groups have float scales, or there are none."""
        return None if (scales := self._scales()) is None else _frozen(scales.scale)

    @property
    def zero_point(self) -> Array | None:
        """The zero point of an asymmetric array, read-only."""
        if (scales := self._scales()) is None or scales.zero is None:
            return self._zero
        return _frozen(scales.zero.astype(np.int32))

    def _scales(self) -> GroupScales | None:
        scales = self._store.scales()
        return scales.arranged(lambda values: values.mT) if self._transposed and scales is not None else scales

    @property
    def offset(self) -> Array | None:
        """The offset of an affine array, read-only."""
        return self._offset

    @property
    def balance(self) -> Array | None:
        """The factors of a balanced array, read-only."""
        return self._balance

    @property
    def codes(self) -> Array:
        """The codes, read-only; int8 for symmetric arrays, uint8 for others.

        Examples
        --------
        >>> import fastq as fq
        >>> fq.quantize([-1.0, 1.0, 2.0], bits=4, scheme="asymmetric").codes
        array([ 0, 10, 15], dtype=uint8)
        """
        codes = self._store.codes()
        return _frozen(codes.mT if self._transposed else codes)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, as they are stored now, and parameters.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.ones((1024, 64), np.float32))
        >>> q.nbytes  # a byte each until they are packed, and one scale
        65540
        """
        cached = sum(c.nbytes for c in self._cache.values() if isinstance(c, ColumnParams))
        return int(self._store.nbytes + cached + sum(p.nbytes for p in self._parameters if p is not None))

    @property
    def _parameters(self) -> tuple[Array | None, ...]:
        return self._scale, self._zero, self._offset, self._balance

    # Parts, and the array in other forms

    def _pieces(self, codes: Array | None = None) -> ArrayParts:
        """What the array is made of; in place of its codes, others of its shape may be given."""
        scales = self._scales()
        group_scale, group_zero = (None, None) if scales is None else scales[1:]
        arrays = (self._scale, self._zero, self._offset, group_scale, group_zero, self._balance)
        return ArrayParts(self.codes if codes is None else codes, *arrays, self.axis, self.group_size, self.rotation)

    def _form_only(self) -> ArrayParts:
        """The same with codes that take no memory, for what is done to parameters alone."""
        return self._pieces(np.broadcast_to(np.int8(0), self.shape))

    def _of(self, p: ArrayParts, dtype: npt.DTypeLike | None = None) -> Self:
        """An array of this width and scheme, of other pieces."""
        return self._placed(p, Store(p.codes, self._store.limits, self.bits, _scales_of(p)), False, dtype)

    def _placed(self, p: ArrayParts, store: Store, transposed: bool, dtype: npt.DTypeLike | None = None) -> Self:
        """Likewise, but with codes and integer scales as a store has them."""
        parameters = (p.scale, p.zero, p.offset)
        dtype = self.dtype if dtype is None else dtype
        return type(self)._make(
            store, transposed, self.scheme, p.axis, p.group, parameters, dtype, p.balance, p.rotation
        )

    def _swapped_matrices(self) -> Self:
        """Each matrix transposed; codes are shared. It is kept, with what products come to know of it."""
        transposed: Self | None = self._cache.get("swapped")
        if transposed is None:
            order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
            transposed = self._placed(structure.permuted(self._form_only(), order), self._store, not self._transposed)
            self._cache["swapped"] = transposed
        return transposed

    def _part(self, key: tuple[AxisIndex, ...]) -> Self:
        """Some of the elements along each axis; codes are shared where they can be."""
        p = self._form_only()
        for axis, index in enumerate(key):
            if not (isinstance(index, slice) and index == slice(None)):
                p = structure.cut(p, axis, index)
        if self._transposed:
            key = (*key[:-2], key[-1], key[-2])
        scales = _scales_of(p)
        if self._transposed and scales is not None:
            scales = scales.arranged(lambda values: values.mT)
        return self._placed(p, self._store.part(key, scales), self._transposed)

    def _packed_way(self) -> bool | None:
        """Whether the codes are packed as those of the transposed matrices; None where they are not packed."""
        return self._store.transposed != self._transposed if self._store.packed else None

    def _unpacked(self) -> Self:
        """The array with codes as an array, so that they are not unpacked at each access."""
        return self._of(self._pieces()) if self._store.packed else self

    def _without_batch_axis(self, axis: int) -> Self:
        """Without a leading axis of length 1; codes are shared."""
        return self._placed(structure.dropped(self._form_only(), axis), self._store.dropped(axis), self._transposed)

    def promoted(self, side: str) -> Self:
        """A vector as a row (side "left") or a column ("right")."""
        return self if self.ndim != 1 else self._of(structure.expanded(self._pieces(), 0 if side == "left" else 1))

    def balance_along(self, side: str) -> ChannelTransform | None:
        """See :class:`fastq.products.operands.Operand`."""
        summed = self.ndim - 1 if side == "left" else self.ndim - 2
        here = self.balance is not None and self.axis == summed
        return ChannelTransform(self.balance.reshape(-1), self.rotation) if here else None  # type: ignore[union-attr]

    def lines(self, index: tuple[int, ...], side: str) -> LineParams:
        """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
        key = (index, side)
        lines: LineParams | None = self._cache.get(key)
        if lines is None:
            lines = self._cache[key] = self._lines(index, side)
        return lines

    def _lines(self, index: tuple[int, ...], side: str) -> LineParams:
        contracted, kept = (self.ndim - 1, self.ndim - 2) if side == "left" else (self.ndim - 2, self.ndim - 1)
        grouped = self.group_size if self.axis == contracted and self.group_size is not None else None
        check_summed(self, (contracted,), side)

        def of_matrix(p: Array | None) -> Array | None:
            if p is None:
                return None
            if self.axis == kept and self.group_size is not None:
                p = np.take(p, np.arange(self.shape[kept]) // self.group_size, axis=kept)
            matrix: Array = p[tuple(0 if n == 1 else i for n, i in zip(p.shape, at))]
            return matrix

        at = index
        if self.axis is not None and self.axis < contracted and self.axis < kept and self.group_size is not None:
            at = (*index[: self.axis], index[self.axis] // self.group_size, *index[self.axis + 1 :])
        if self._scaled_along(contracted):
            return LineParams(code_range(8, "symmetric"), self.bits, of_matrix(self._scale))
        scale, zero, offset = of_matrix(self.scale), of_matrix(self.zero_point), of_matrix(self.offset)
        if self.balance is not None and self.axis != contracted:  # it is the scale's then, by line or by matrix
            if self.rotation > 1:
                raise ValueError(
                    f"a rotated array must be summed over the axis along which it is; got shape {self.shape}, rotated "
                    f"along axis {self.axis}, as the {side} operand: multiply q.dequantize()"
                )
            # In float64, where products of two float32 are exact: a product in float64 must not see them rounded.
            factor = self.balance[tuple(0 if n == 1 else i for n, i in zip(self.balance.shape, index))].astype(float)
            scale, offset = (None if p is None else p * factor for p in (scale, offset))
        return LineParams(code_range(self.bits, self.scheme), self.bits, scale, zero, offset, grouped)

    def matrix(self, index: tuple[int, ...]) -> Array:
        """Codes of one matrix as a left operand: times the integer scales of groups along its rows."""
        matrix: Array = self.codes[index]
        if self._scaled_along(self.ndim - 1) and (scales := self._scales()) is not None:
            transposed = scales.arranged(lambda values: values.mT)
            matrix = transposed.of_matrix(index).multiplied(matrix.T).T
        return matrix

    def rows_of(self, index: tuple[int, ...], rows: slice) -> Array:
        """Some rows of one matrix, without more of its codes being unpacked than they need."""
        if rows == slice(0, self.shape[-2]):
            return self.matrix(index)
        part = self._part((*(slice(i, i + 1) for i in index), rows, slice(None)))
        return part.matrix((0,) * len(index))

    def _scaled_along(self, axis: int) -> bool:
        """Whether groups along an axis have integer scales."""
        return self.axis == axis and self._store.groups_shape is not None

    def rows(self) -> tuple[Array, Array] | None:
        """Codes and scales, if it is a matrix of int8 with one scale per row, no zero points, and not packed."""
        usual = self.scheme == "symmetric" and self.bits == 8 and self.axis == 1 and self.group_size is None
        if not usual or self._transposed or len(self.shape) != 2 or self._store.packed or self.balance is not None:
            return None
        return self._store.codes(), self._scale

    def right(self, index: tuple[int, ...], k_segments: Segments) -> Right:
        """One matrix, packed."""
        return self._store.right(index, self._transposed, k_segments, self._scaled_along(self.ndim - 2))

    def columns(
        self, index: tuple[int, ...], packed: Right, k_segments: Segments, dtype: np.dtype[Any], affine: bool
    ) -> ColumnParams:
        """Column parameters of one packed matrix, kept for the next product."""
        key = (index, k_segments, dtype, affine)
        kept: ColumnParams | None = self._cache.get(key)
        if kept is None:
            kept = self._cache[key] = super().columns(index, packed, k_segments, dtype, affine)
        return kept


def check_summed(q: QArrayBase, axes: Sequence[int], side: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise ValueError if scales vary along axes that a product sums over, other than in groups.

    `side` is that of the operand; `shape` is that of all of it, if this is a part.
    """
    shape = q.shape if shape is None else shape
    long = [axis % len(shape) for axis in axes if shape[axis] > 1]
    if q.axis is None or all(axis == q.axis for axis in long):
        return
    sharing = f"axis={q.axis}" + (f" and group_size={q.group_size}" if q.group_size is not None else "")
    raise ValueError(
        f"the scale of the {side} operand must be constant along the axis that is summed over, or in groups along "
        f"it; got shape {shape} with {sharing}, whose scale varies there: {_hint(long, len(shape), q._transposed)}, or "
        "multiply q.dequantize()"
    )


def _hint(summed: list[int], ndim: int, transpose: bool) -> str:
    """How to quantize an array that is to be summed over these axes, in the words of who has made it."""
    if len(summed) > 1:
        return "quantize it with axis=None"
    fix = summed[0] - ndim
    if not transpose or fix < -2:
        return f"quantize it with axis={fix} or axis=None"
    original, one_per = (-1, "row") if fix == -2 else (-2, "column")
    return f"it is a transpose; quantize the original with axis={original}, one scale per {one_per}, or axis=None"


def _swapped_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _scales_of(p: ArrayParts) -> GroupScales | None:
    """Integer scales of groups as a store holds them."""
    return None if p.group_scale is None or p.group is None else GroupScales(p.group, p.group_scale, p.group_zero)


def _frozen(array: Array) -> Array:
    """A read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view
