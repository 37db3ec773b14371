"""Operands in the form that kernels take, and their parameters as rows and columns of a product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import Factors, groups_of
from fastq.engine.memory import aligned_copy
from fastq.engine.pointers import flat
from fastq.kernels import reference
from fastq.layout.tiles import BLOCK, DEPTH, Form, Segments, ceil_div, right_bytes, segments, unpack_codes
from fastq.scheme import CodeRange

INT32_MAX = 2**31 - 1
Index = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class Lines:
    """The parameters of a matrix of codes along the lines of a product: rows on the left, columns on the right.

    A value is ``scale * (code - zero)``, or ``scale * code + offset``. Parameters are arrays ``[lines][groups]`` on the
    left and ``[groups][lines]`` on the right, where either length may be 1; groups cut K into runs of `group`.
    """

    limits: CodeRange  # what the codes may be; the right side packs them relative to `limits.low`
    bits: int
    scale: npt.NDArray[Any] | None = None  # None: 1
    zero: npt.NDArray[Any] | None = None  # None: 0
    offset: npt.NDArray[Any] | None = None
    group: int | None = None  # k per group

    @property
    def reach(self) -> int:
        """The largest |code - zero|."""
        if self.zero is None or self.zero.size == 0:
            return max(-self.limits.low, self.limits.high)
        low, high = int(self.zero.min()), int(self.zero.max())
        return max(self.limits.high - low, high - self.limits.low, 1)


class Balance(NamedTuple):
    """What rows are put through before they are quantized: factors by channel, then a rotation of blocks of them."""

    factors: npt.NDArray[Any]  # [K]
    block: int  # channels, a power of two; 1: no rotation

    def on(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The rows (..., K) after it, in their type."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return reference.rotated(x * self.factors.astype(x.dtype, copy=False), self.block)


def longest_segment(left_reach: int, right_reach: int) -> int:
    """The largest K (a multiple of a tile's depth) whose sums fit int32 whatever the codes are."""
    return INT32_MAX // max(1, left_reach * right_reach) // 64 * 64


def _left_of(index: Index, count: int, size: int, length: int) -> int:
    """The length of some of the pieces that a length is cut into, of which the last one may be shorter."""
    chosen = np.arange(count)[index]
    ragged = chosen.size and chosen[-1] == count - 1
    return chosen.size * size - (count * size - length if ragged else 0)


@dataclass
class Right:
    """A packed right operand. Its codes are relative to the lowest code, so they are unsigned."""

    tiles: npt.NDArray[np.uint8]
    cuts: Segments
    n: int
    form: Form
    col_sum: npt.NDArray[np.int32] | None  # [segments][columns], of the codes as multiplied
    groups: npt.NDArray[np.uint8] | None = None  # factors and shifts, where the form is grouped
    group_size: int = 0

    @property
    def width(self) -> int:
        """Columns, rounded up to whole blocks."""
        return ceil_div(self.n, BLOCK) * BLOCK

    @property
    def nbytes(self) -> int:
        """Bytes of codes, factors and sums."""
        return sum(a.nbytes for a in (self.tiles, self.groups, self.col_sum) if a is not None)

    def part(self, tiles: Index, blocks: Index) -> Right:
        """Some tiles along K of some blocks of columns; K as a whole, or of a gapless packing.

        All tiles along K of neighbouring blocks share the memory; otherwise tiles are copied, as they are. Groups must
        begin with the first tile.
        """
        cuts, group = self.cuts, self.group_size
        n, k = _left_of(blocks, self.width // BLOCK, BLOCK, self.n), _left_of(tiles, cuts.tiles, DEPTH, cuts.k)
        packed = self.tiles[: right_bytes(cuts, self.n, self.form.bits)].reshape(self.width // BLOCK, cuts.tiles, -1)
        whole = isinstance(tiles, slice) and (tiles.start, tiles.stop) == (0, cuts.tiles)
        chosen = aligned_copy(packed[blocks] if whole else packed[blocks][:, tiles]).reshape(-1)
        groups = None if self.groups is None else self.groups[blocks]
        sums = None if self.col_sum is None else self.col_sum.reshape(cuts.segments, -1, BLOCK)[:, blocks]
        if not whole:
            cuts, sums = segments(k), None
            if groups is not None:
                first = tiles.start * DEPTH // group if isinstance(tiles, slice) else 0
                groups = groups[:, first : first + ceil_div(cuts.tiles * DEPTH, group)]
        groups = None if groups is None else np.ascontiguousarray(groups)
        sums = None if sums is None else np.ascontiguousarray(sums.reshape(cuts.segments, -1))
        return Right(chosen, cuts, n, self.form, sums, groups, group)

    def stored(self) -> npt.NDArray[np.uint8]:
        """The codes as packed, K x N."""
        return unpack_codes(self.tiles, self.cuts, self.n, self.form.bits)

    def factors(self, limits: CodeRange) -> Factors | None:
        """Integer scales of the groups, if there are some."""
        if self.groups is None:
            return None
        return Factors.unpacked(self.groups, self.group_size, ceil_div(self.cuts.k, self.group_size), self.n, limits)

    def codes(self) -> npt.NDArray[np.uint8]:
        """The codes as multiplied, K x N."""
        codes = self.stored()
        if self.groups is None:
            return codes
        flat = self.groups.transpose(2, 1, 0, 3).reshape(2, self.groups.shape[1], -1)[..., : self.n]
        factor, shift = (np.repeat(part, self.group_size, axis=0)[: self.cuts.k] for part in flat)
        codes *= factor
        codes += shift
        return codes

    def fits(self, cuts: Segments) -> bool:
        """Whether the tiles can be read with other segments of the same K: no gaps on either side."""
        alike = cuts.size == self.cuts.size or (cuts.gapless and self.cuts.gapless)
        return alike and cuts.k == self.cuts.k

    @cached_property
    def address(self) -> int:
        """Where the tiles lie."""
        return flat(self.tiles, np.uint8, right_bytes(self.cuts, self.n, self.form.bits))

    @cached_property
    def groups_address(self) -> int:
        """Where factors and shifts lie; 0 without."""
        if self.groups is None:
            return 0
        return flat(self.groups, np.uint8, 2 * self.width * groups_of(self.cuts, self.group_size))


@dataclass(frozen=True)
class Columns:
    """Column parameters of a right operand in the product's float type, padded to whole blocks, ``[groups][width]``."""

    scale: npt.NDArray[Any]
    zero: npt.NDArray[np.int32]  # relative to the codes as packed
    offset: npt.NDArray[Any] | None
    term: npt.NDArray[Any] | None  # [segments][width]: scale * sum(code - zero) + k * offset
    uniform: bool  # whether all zero points are the same

    @cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Where scale, zero, offset and term lie; 0 for what is not there."""
        (groups, width), dtype = self.scale.shape, self.scale.dtype
        scale, zero = flat(self.scale, dtype, groups * width), flat(self.zero, np.int32, len(self.zero) * width)
        if self.offset is None or self.term is None:
            return scale, zero, 0, 0
        offset, term = flat(self.offset, dtype, groups * width), flat(self.term, dtype, len(self.term) * width)
        return scale, zero, offset, term

    def fit(self, right: Right, cuts: Segments, dtype: npt.DTypeLike) -> bool:
        """Whether they are those of a packed operand, K being cut into `cuts`, in a product of this type."""
        lengths = (len(self.scale), len(self.zero), cuts.segments if self.term is None else len(self.term))
        usual = self.scale.shape[1] == right.width and self.scale.dtype == dtype
        return usual and lengths[2] == cuts.segments and all(n in (1, cuts.segments) for n in lengths)

    @property
    def nbytes(self) -> int:
        """Bytes beyond those that belong to the quantized array itself."""
        arrays = (self.scale, self.zero, self.offset, self.term)
        return sum(a.nbytes for a in arrays if a is not None and a.base is None)


def padded(values: npt.NDArray[Any] | None, groups: int, n: int, width: int, dtype: Any, fill: Any) -> npt.NDArray[Any]:
    """``[groups][width]`` from what broadcasts to ``[groups][n]``; None stands for `fill` everywhere."""
    if values is not None and values.shape == (groups, width) and values.dtype == dtype and values.flags.c_contiguous:
        return values
    result = np.full((groups, width), fill, dtype)
    if values is not None:
        result[:, :n] = values
    return result


def column_sums(codes: npt.NDArray[Any], cuts: Segments, width: int) -> npt.NDArray[np.int32]:
    """Sums of codes down each segment of K, ``[segments][width]``."""
    sums = np.zeros((cuts.segments, width), np.int32)
    for g in range(cuts.segments):
        sums[g, : codes.shape[1]] = codes[g * cuts.size : (g + 1) * cuts.size].sum(axis=0, dtype=np.int32)
    return sums


def column_parameters(b: Lines, right: Right, cuts: Segments, dtype: npt.DTypeLike, affine: bool) -> Columns:
    """Column parameters for a product cut into `cuts`; offsets and sums only if something in it is affine."""
    n, width = right.n, right.width
    dtype = np.dtype(dtype)

    def by_segment(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        if values is None or values.shape[0] == 1 or b.group is None:
            return values
        starts = np.arange(cuts.segments) * cuts.size // b.group
        return values[starts] if cuts.segments != values.shape[0] else values

    scale_in, zero_in, offset_in = by_segment(b.scale), by_segment(b.zero), by_segment(b.offset)
    groups = 1 if scale_in is None else scale_in.shape[0]
    zero_groups = 1 if zero_in is None else zero_in.shape[0]
    scale = padded(scale_in, groups, n, width, dtype, 1)
    shifted = None if zero_in is None else zero_in.astype(np.int32) - b.limits.low
    zero = padded(shifted, zero_groups, n, width, np.dtype(np.int32), -b.limits.low)
    uniform = zero_in is None
    if not affine:
        return Columns(scale, zero, None, None, uniform)
    offset = padded(offset_in, groups, n, width, dtype, 0)
    sums = right.col_sum if right.cuts == cuts else None
    if sums is None:
        sums = column_sums(right.codes(), cuts, width)
    counts = np.full((cuts.segments, 1), cuts.size, np.int64)
    counts[-1] = cuts.last_k
    reduced = (sums - counts * zero).astype(np.int32).astype(dtype)
    term = scale * reduced + counts.astype(dtype) * offset
    return Columns(scale, zero, offset, np.ascontiguousarray(term), uniform)
