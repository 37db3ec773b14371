"""Integer scales of groups along K: as a user sees them, and as kernels read them.

Under one float scale S per column, a group has a small integer factor f, so that ``x = S * f * (code - zero)``, where
``f * (code - zero)`` fits int8: the product stays one of 8-bit integers. Kernels make the unsigned byte
``|f| * u + shift`` of an unsigned code u, in which :data:`fastq.layout.tiles.CENTRE` stands for 0. A negative factor
(symmetric codes only) is a positive one over codes that are mirrored as they are packed: u becomes high - low - u.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.layout.tiles import BLOCK, CENTRE, DEPTH, QUARTER, Segments, ceil_div
from fastq.scheme import CodeRange

Bytes = npt.NDArray[np.uint8]


class Factors(NamedTuple):
    """Integer scales of a matrix of codes (K x N), one per group and column."""

    size: int  # k per group, a multiple of QUARTER; the last group may be shorter
    factors: npt.NDArray[np.int8]  # [groups][n], never 0
    zeros: npt.NDArray[np.uint8] | None  # likewise; None: symmetric codes, whose zero point is 0

    def expand(self, values: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
        """Values by group, repeated for each k."""
        return np.repeat(values, self.size, axis=0)[:k]

    def unsigned_zeros(self, limits: CodeRange) -> npt.NDArray[np.int32]:
        """The unsigned code, as packed, of 0."""
        if self.zeros is not None:
            return self.zeros.astype(np.int32)
        return np.where(self.factors > 0, -limits.low, limits.high).astype(np.int32)

    def mirrored(self, unsigned: Bytes, limits: CodeRange) -> Bytes:
        """Unsigned codes with those under a negative factor mirrored; its own inverse."""
        if (self.factors > 0).all():
            return unsigned
        negative = self.expand(self.factors < 0, len(unsigned))
        return np.where(negative, np.uint8(limits.high - limits.low) - unsigned, unsigned)

    def multiplied(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
        """``factor * (code - zero)``, K x N."""
        zero = 0 if self.zeros is None else self.expand(self.zeros, len(codes))
        reduced = np.subtract(codes, zero, dtype=np.int16)
        result: npt.NDArray[np.int8] = (reduced * self.expand(self.factors, len(codes))).astype(np.int8)
        return result

    def packed(self, limits: CodeRange, cuts: Segments) -> Bytes:
        """``[blocks][groups][2][16]`` as kernels read them, with a group for every quarter of the last tile."""
        groups, n = self.factors.shape
        blocks, pitch = ceil_div(n, BLOCK), groups_of(cuts, self.size)
        flat = np.zeros((2, pitch, blocks * BLOCK), np.uint8)
        size = np.abs(self.factors.astype(np.int32))
        flat[0, :groups, :n] = size
        flat[1, :groups, :n] = CENTRE - size * self.unsigned_zeros(limits)
        return np.ascontiguousarray(flat.reshape(2, pitch, blocks, BLOCK).transpose(2, 1, 0, 3))

    @classmethod
    def unpacked(cls, packed: Bytes, size: int, groups: int, n: int, limits: CodeRange) -> Factors:
        """What :meth:`packed` was made of."""
        flat = packed.transpose(2, 1, 0, 3).reshape(2, packed.shape[1], -1)[:, :groups, :n].astype(np.int32)
        factors, zeros = flat[0], (CENTRE - flat[1]) // flat[0]
        if not limits.signed:
            return cls(size, factors.astype(np.int8), zeros.astype(np.uint8))
        return cls(size, np.where(zeros == -limits.low, factors, -factors).astype(np.int8), None)


def groups_of(cuts: Segments, size: int) -> int:
    """Groups that whole tiles along K take."""
    return ceil_div(cuts.tiles * DEPTH, size)


def quarters(size: int) -> int:
    """A group's size as kernels count it."""
    return size // QUARTER
