"""Operands in the form that kernels take, and their parameters as rows and columns of a product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import GroupScales, by_column, groups_of
from fastq.engine.memory import aligned_copy
from fastq.engine.pointers import flat
from fastq.kernels import reference
from fastq.layout.tiles import BLOCK, DEPTH, Segments, TileFormat, ceil_div, right_bytes, segments, unpack_codes
from fastq.scheme import CodeRange

Array = npt.NDArray[Any]
AxisIndex = slice | npt.NDArray[np.intp]  # what is chosen along one axis
BatchIndex = tuple[int, ...]  # which matrix of a stack
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class LineParams:
    """The parameters of a matrix of codes by line: by row on the left of a product, by column on the right.

    A value is ``scale * (code - zero)``, or ``scale * code + offset``. Parameters are arrays ``[lines][groups]`` on the
    left and ``[groups][lines]`` on the right; either length may be 1. A group is a run of `group` k.
    """

    limits: CodeRange  # what the codes may be; the right side packs them relative to `limits.low`
    bits: int
    scale: Array | None = None  # None: 1
    zero: Array | None = None  # None: 0
    offset: Array | None = None
    group: int | None = None  # k per group

    @property
    def reach(self) -> int:
        """The largest |code - zero|."""
        if self.zero is None or self.zero.size == 0:
            return self.limits.reach
        return max(self.limits.high - int(self.zero.min()), int(self.zero.max()) - self.limits.low, 1)

    def rows(self, part: slice) -> LineParams:
        """The parameters of some rows of a left operand."""
        scale, zero, offset = (
            values if values is None or len(values) == 1 else values[part]
            for values in (self.scale, self.zero, self.offset)
        )
        return replace(self, scale=scale, zero=zero, offset=offset)

    def row_groups(self, k_segments: Segments) -> int:
        """Sets of parameters per row of a left operand: one per segment of K if any parameter varies by group."""
        varies = any(p is not None and p.shape[1] > 1 for p in (self.scale, self.zero, self.offset))
        return k_segments.segments if varies else 1

    def by_segment(self, values: Array | None, k_segments: Segments, axis: int) -> Array | None:
        """Values by group along an axis, repeated so that there is one for each segment of K."""
        if values is None or self.group is None or values.shape[axis] in (1, k_segments.segments):
            return values
        return np.take(values, np.arange(k_segments.segments) * k_segments.size // self.group, axis=axis)


class ChannelTransform(NamedTuple):
    """What rows go through before they are quantized: a factor per channel, then a rotation of blocks of channels."""

    factors: Array  # [K]
    block: int  # channels, a power of two; 1: no rotation

    def apply(self, x: Array) -> Array:
        """The transformed rows (..., K), in their type."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return reference.rotated(x * self.factors.astype(x.dtype, copy=False), self.block)


def longest_segment(left_reach: int, right_reach: int) -> int:
    """The largest K (a multiple of a tile's depth) whose sums fit int32 whatever the codes are."""
    return INT32_MAX // max(1, left_reach * right_reach) // DEPTH * DEPTH


class RowParams(NamedTuple):
    """Row parameters of left codes, ``[m][groups]``, C-contiguous, in the product's float type."""

    scale: Array
    zero: npt.NDArray[np.int32] | None
    offset: Array | None


def row_parameters(a: LineParams, m: int, k_segments: Segments, dtype: npt.DTypeLike) -> RowParams:
    """Row parameters for a product with `k_segments`."""
    shape = m, a.row_groups(k_segments)

    def by_row(values: Array | None, kind: npt.DTypeLike) -> Array | None:
        values = a.by_segment(values, k_segments, 1)
        return None if values is None else np.ascontiguousarray(np.broadcast_to(values, shape), kind)

    scale = by_row(a.scale, dtype)
    return RowParams(
        np.ones(shape, dtype) if scale is None else scale, by_row(a.zero, np.int32), by_row(a.offset, dtype)
    )


@dataclass
class Right:
    """A packed right operand. Its codes are relative to the lowest code, so they are unsigned."""

    tiles: npt.NDArray[np.uint8]
    k_segments: Segments
    n: int
    form: TileFormat
    col_sum: npt.NDArray[np.int32] | None  # [segments][columns], of the codes as multiplied
    groups: npt.NDArray[np.uint8] | None = None  # factors and shifts, where the form is grouped
    group_size: int = 0

    @property
    def width(self) -> int:
        """Columns, rounded up to whole blocks."""
        return ceil_div(self.n, BLOCK) * BLOCK

    @property
    def nbytes(self) -> int:
        """Bytes of codes, group scales and sums."""
        return sum(a.nbytes for a in (self.tiles, self.groups, self.col_sum) if a is not None)

    def part(self, tiles: slice, blocks: slice) -> Right:
        """Some tiles along K of some blocks of columns; K as a whole, or of a gapless packing.

        All tiles along K share the memory; otherwise they are copied, as they are. Groups must begin with the first
        tile.
        """
        k_segments, group, count = self.k_segments, self.group_size, self.width // BLOCK
        if (tiles.start, tiles.stop, blocks.start, blocks.stop) == (0, k_segments.tiles, 0, count):
            return self
        n = min(blocks.stop * BLOCK, self.n) - blocks.start * BLOCK
        packed = self.tiles[: right_bytes(k_segments, self.n, self.form.bits)].reshape(count, k_segments.tiles, -1)
        chosen = aligned_copy(packed[blocks, tiles]).reshape(-1)
        groups = None if self.groups is None else self.groups[blocks]
        sums = None if self.col_sum is None else self.col_sum.reshape(k_segments.segments, -1, BLOCK)[:, blocks]
        if (tiles.start, tiles.stop) != (0, k_segments.tiles):
            k_segments, sums = segments(min(tiles.stop * DEPTH, k_segments.k) - tiles.start * DEPTH), None
            if groups is not None:
                first = tiles.start * DEPTH // group
                groups = groups[:, first : first + ceil_div(k_segments.tiles * DEPTH, group)]
        groups = None if groups is None else np.ascontiguousarray(groups)
        sums = None if sums is None else np.ascontiguousarray(sums.reshape(k_segments.segments, -1))
        return Right(chosen, k_segments, n, self.form, sums, groups, group)

    def stored(self) -> npt.NDArray[np.uint8]:
        """The codes as packed, K x N."""
        return unpack_codes(self.tiles, self.k_segments, self.n, self.form.bits)

    def group_scales(self, limits: CodeRange, columns: npt.NDArray[np.intp] | None = None) -> GroupScales | None:
        """Integer scales of the groups, if there are some; of all columns, or of those given."""
        if self.groups is None:
            return None
        count, n = ceil_div(self.k_segments.k, self.group_size), self.n if columns is None else len(columns)
        return GroupScales.unpacked(by_column(self.groups, columns)[:, :count, :n], self.group_size, limits)

    def codes(self) -> npt.NDArray[np.uint8]:
        """The codes as multiplied, K x N."""
        codes = self.stored()
        if self.groups is None:
            return codes
        by_group = by_column(self.groups)[..., : self.n]
        factor, shift = (np.repeat(part, self.group_size, axis=0)[: self.k_segments.k] for part in by_group)
        codes *= factor
        codes += shift
        return codes

    def sums(self, k_segments: Segments) -> npt.NDArray[np.int32]:
        """Sums of the codes as multiplied down each segment of K, ``[segments][width]``."""
        if self.col_sum is not None and self.k_segments == k_segments:
            return self.col_sum
        return column_sums(self.codes(), k_segments, self.width)

    def fits(self, k_segments: Segments) -> bool:
        """Whether the tiles can be read with other segments of the same K, which takes two gapless packings."""
        alike = k_segments.size == self.k_segments.size or (k_segments.gapless and self.k_segments.gapless)
        return alike and k_segments.k == self.k_segments.k

    @cached_property
    def address(self) -> int:
        """Where the tiles lie."""
        return flat(self.tiles, np.uint8, right_bytes(self.k_segments, self.n, self.form.bits))

    @cached_property
    def groups_address(self) -> int:
        """Where factors and shifts lie; 0 without."""
        if self.groups is None:
            return 0
        return flat(self.groups, np.uint8, 2 * self.width * groups_of(self.k_segments, self.group_size))


@dataclass(frozen=True)
class ColumnParams:
    """Column parameters of a right operand in the product's float type, ``[blocks][groups][16]``.

    A kernel passes through the groups of a block as they lie in memory. (As ``[groups][columns]`` each group of 4096
    columns took another page, and all of them the same set of the cache.)
    """

    scale: Array
    zero: npt.NDArray[np.int32]  # relative to the codes as packed
    offset: Array | None
    term: Array | None  # by segment: scale * sum(code - zero) + k * offset, the scale being 1 where it is `outside`
    uniform: bool  # whether all zero points are the same
    outside: bool  # whether the scale multiplies the sum of several segments rather than each of them

    @cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Where scale, zero, offset and term lie; 0 for what is not there."""
        dtype = self.scale.dtype
        scale, zero = flat(self.scale, dtype, self.scale.size), flat(self.zero, np.int32, self.zero.size)
        if self.offset is None or self.term is None:
            return scale, zero, 0, 0
        return scale, zero, flat(self.offset, dtype, self.offset.size), flat(self.term, dtype, self.term.size)

    @property
    def groups(self) -> int:
        """Sets of scales and offsets per column."""
        return int(self.scale.shape[1])

    @property
    def zero_groups(self) -> int:
        """Zero points per column."""
        return int(self.zero.shape[1])

    def fit(self, right: Right, k_segments: Segments, dtype: npt.DTypeLike) -> bool:
        """Whether these parameters fit a packed operand and the segments of K, in a product computed in `dtype`."""
        blocks, segments = right.width // BLOCK, k_segments.segments
        alike = all(p.shape in ((blocks, 1, BLOCK), (blocks, segments, BLOCK)) for p in (self.scale, self.zero))
        if self.offset is not None and self.term is not None:
            alike = alike and self.offset.shape == self.scale.shape and self.term.shape == (blocks, segments, BLOCK)
        return alike and self.scale.dtype == dtype

    @property
    def nbytes(self) -> int:
        """Bytes beyond those that belong to the quantized array itself."""
        arrays = (self.scale, self.zero, self.offset, self.term)
        return sum(a.nbytes for a in arrays if a is not None and a.base is None)


def padded(values: Array | None, groups: int, n: int, width: int, dtype: Any, fill: Any) -> Array:
    """``[blocks][groups][16]`` from what broadcasts to ``[groups][n]``; None stands for `fill` everywhere."""
    if values is not None and values.shape == (1, width) and values.dtype == dtype and values.flags.c_contiguous:
        return values.reshape(-1, 1, BLOCK)
    result = np.full((groups, width), fill, dtype)
    if values is not None:
        result[:, :n] = values
    return by_block(result)


def by_block(values: Array) -> Array:
    """``[blocks][groups][16]`` from ``[groups][width]``."""
    return np.ascontiguousarray(values.reshape(len(values), -1, BLOCK).transpose(1, 0, 2))


def of_columns(values: Array) -> Array:
    """``[groups][width]`` from ``[blocks][groups][16]``."""
    return values.transpose(1, 0, 2).reshape(values.shape[1], -1)


def column_sums(codes: Array, k_segments: Segments, width: int) -> npt.NDArray[np.int32]:
    """Sums of codes down each segment of K, ``[segments][width]``."""
    sums = np.zeros((k_segments.segments, width), np.int32)
    for g in range(k_segments.segments):
        sums[g, : codes.shape[1]] = codes[g * k_segments.size : (g + 1) * k_segments.size].sum(axis=0, dtype=np.int32)
    return sums


def column_parameters(
    b: LineParams, right: Right, k_segments: Segments, dtype: npt.DTypeLike, affine: bool
) -> ColumnParams:
    """Column parameters for a product with `k_segments`; it has offsets and sums only if an operand is `affine`."""
    n, width, dtype = right.n, right.width, np.dtype(dtype)
    scale_in, zero_in, offset_in = (b.by_segment(p, k_segments, 0) for p in (b.scale, b.zero, b.offset))
    groups, zero_groups = (1 if p is None else len(p) for p in (scale_in, zero_in))
    scale = padded(scale_in, groups, n, width, dtype, 1)
    shifted = None if zero_in is None else zero_in.astype(np.int32) - b.limits.low
    zero = padded(shifted, zero_groups, n, width, np.dtype(np.int32), -b.limits.low)
    uniform = zero_in is None
    outside = k_segments.segments > 1 and offset_in is None and groups == zero_groups == 1
    if not affine:
        return ColumnParams(scale, zero, None, None, uniform, outside)
    offset = padded(offset_in, groups, n, width, dtype, 0)
    counts = np.full((k_segments.segments, 1), k_segments.size, np.int64)
    counts[-1] = k_segments.last_k
    reduced = (by_block(right.sums(k_segments)) - counts * zero).astype(np.int32).astype(dtype)
    term = (reduced if outside else scale * reduced) + counts.astype(dtype) * offset
    return ColumnParams(scale, zero, offset, np.ascontiguousarray(term), uniform, outside)
