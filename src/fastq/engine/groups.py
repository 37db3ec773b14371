"""Integer scales of groups along K: as a user sees them, and as kernels read them.

Under one float scale S per column, a group has a small integer scale s, so that ``x = S * s * (code - zero)``, where
``s * (code - zero)`` fits int8: the product stays one of 8-bit integers. Kernels make the unsigned byte
``|s| * u + shift`` of an unsigned code u, in which :data:`fastq.layout.tiles.CENTRE` stands for 0. A negative scale
(symmetric codes only) is a positive one over codes that are mirrored as they are packed: u becomes high - low - u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.layout.tiles import BLOCK, CENTRE, DEPTH, QUARTER, Segments, ceil_div
from fastq.scheme import CodeRange

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


class GroupScales(NamedTuple):
    """Integer scales of groups, in the shape of an array's parameters; of one matrix that is ``[groups][n]``.

    The methods from :meth:`expand` on are those of a matrix whose groups go down its columns.
    """

    size: int  # elements per group, a multiple of QUARTER; the last group may be shorter
    scale: npt.NDArray[np.int8]  # never 0
    zero: Bytes | None  # None: symmetric codes, whose zero point is 0

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.scale.nbytes + (0 if self.zero is None else self.zero.nbytes)

    def arranged(self, arrange: Callable[[Array], Array]) -> GroupScales:
        """The scales with both arrays transposed, or cut, by `arrange`."""
        return GroupScales(self.size, arrange(self.scale), None if self.zero is None else arrange(self.zero))

    def of_matrix(self, index: tuple[int, ...]) -> GroupScales:
        """The scales of one matrix of a stack."""
        return self.arranged(lambda values: values[index])

    def expand(self, values: Array, k: int) -> Array:
        """Values by group, repeated for each k."""
        return np.repeat(values, self.size, axis=0)[:k]

    def unsigned_zero(self, limits: CodeRange) -> npt.NDArray[np.int32]:
        """The unsigned code, as packed, of 0."""
        if self.zero is not None:
            return self.zero.astype(np.int32)
        return np.where(self.scale > 0, -limits.low, limits.high).astype(np.int32)

    def mirrored(self, unsigned: Bytes, limits: CodeRange) -> Bytes:
        """The unsigned codes, mirrored where the scale is negative; doing it twice undoes it."""
        if (self.scale > 0).all():
            return unsigned
        negative = self.expand(self.scale < 0, len(unsigned))
        return np.where(negative, np.uint8(limits.high - limits.low) - unsigned, unsigned)

    def multiplied(self, codes: Array) -> npt.NDArray[np.int8]:
        """``scale * (code - zero)``, K x N."""
        zero = 0 if self.zero is None else self.expand(self.zero, len(codes))
        reduced = np.subtract(codes, zero, dtype=np.int16)
        result: npt.NDArray[np.int8] = (reduced * self.expand(self.scale, len(codes))).astype(np.int8)
        return result

    def packed(self, limits: CodeRange, k_segments: Segments) -> Bytes:
        """``[blocks][groups][2][16]`` as kernels read them, with a group for every quarter of the last tile."""
        groups, n = self.scale.shape
        blocks, pitch = ceil_div(n, BLOCK), groups_of(k_segments, self.size)
        flat = np.zeros((2, pitch, blocks * BLOCK), np.uint8)
        factor = np.abs(self.scale.astype(np.int32))
        flat[0, :groups, :n] = factor
        flat[1, :groups, :n] = CENTRE - factor * self.unsigned_zero(limits)
        return np.ascontiguousarray(flat.reshape(2, pitch, blocks, BLOCK).transpose(2, 1, 0, 3))

    @classmethod
    def unpacked(cls, packed: Bytes, size: int, limits: CodeRange) -> GroupScales:
        """The scales that :meth:`packed` gave these factors and shifts for, ``[2][groups][n]``."""
        factor, shift = packed
        if not limits.signed:
            zero = (CENTRE - shift.astype(np.int32)) // factor
            return cls(size, factor.astype(np.int8), zero.astype(np.uint8))
        straight = factor * np.uint8(-limits.low) + shift == CENTRE  # in bytes: no sum reaches 256
        return cls(size, np.where(straight, factor, np.negative(factor)).view(np.int8), None)


def by_column(packed: Bytes, columns: npt.NDArray[np.intp] | None = None) -> Bytes:
    """Packed factors and shifts as ``[2][groups][columns]``, of all columns or of some."""
    if columns is None:
        return packed.transpose(2, 1, 0, 3).reshape(2, packed.shape[1], -1)
    block, lane = np.divmod(columns, BLOCK)
    return packed[block, :, :, lane].transpose(2, 1, 0)


def groups_of(k_segments: Segments, size: int) -> int:
    """Groups that whole tiles along K take."""
    return ceil_div(k_segments.tiles * DEPTH, size)


def quarters(size: int) -> int:
    """A group's size as kernels count it."""
    return size // QUARTER
