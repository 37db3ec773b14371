"""The compute layout: tiles of 64 k by 16 columns, in 8 bits or in planes of fewer bits.

An 8-bit **right tile** is 16 rows of 64 bytes; row `s` holds k = 4s..4s+3 of sixteen columns, ``[column][k]``:

    byte(k, column) = 64 * (k // 4) + 4 * column + k % 4

That is one AMX tile, sixteen AVX512-VNNI operands or thirty-two AVX2 operands. The tiles of one block of 16 columns
follow each other along K. Codes are stored relative to the lowest code of their range, so they are unsigned.

A **b-bit tile** takes ``128 * b`` bytes. The code's bits are split into planes of 4, 2 and 1 bits (3 = 2 + 1,
5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1), lowest bits in the widest plane. A plane of p bits is 2p vectors of 64 bytes; each
byte of a vector holds p bits of the byte at the same place in 8 / p consecutive rows, so one shift and one AND bring
back a row, whatever the instruction set.

Where groups of k have integer scales, 32 bytes per group and block of columns stand beside the tiles: sixteen factors
and sixteen shifts, ``[block][group][2][16]`` (see :class:`TileFormat`).

A **left tile** is 16 rows by 64 k, one row after the other: 1 KiB of int8. Tiles of the same rows follow each other
along K. It is never stored, so a micro-kernel may want another one (``LeftFormat``).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DEPTH = 64  # k per tile
BLOCK = 16  # columns per right tile
STEP = 4  # k per row of a right tile
STEPS = DEPTH // STEP
ROW_BYTES = STEP * BLOCK
TILE_ROWS = 16  # rows per left tile
QUARTER = 16  # k: groups with integer scales are multiples of it
GROUPED = range(2, 8)  # widths that leave room for such scales
CENTRE = 128  # the unsigned byte that stands for 0 where codes are grouped


def ceil_div(a: int, b: int) -> int:
    """``ceil(a / b)`` for non-negative integers."""
    return -(-a // b)


def tile_bytes(bits: int) -> int:
    """Bytes of a right tile."""
    return DEPTH * BLOCK * bits // 8


class TileFormat(NamedTuple):
    """What right tiles hold: codes of so many bits, as they are or under integer group scales.

    Grouped codes u are multiplied as the unsigned bytes ``factor * u + shift``, with a factor and a shift per group of
    k and column: they are the codes minus their zero points, times the group's integer scale, plus :data:`CENTRE`.
    """

    bits: int
    grouped: bool = False

    @property
    def tag(self) -> str:
        """For names of kernels."""
        return f"{self.bits}bit" + ("_grouped" if self.grouped else "")

    @property
    def multiplied(self) -> int:
        """Width of what is multiplied."""
        return 8 if self.grouped else self.bits


class LeftFormat(NamedTuple):
    """How left tiles hold codes, which is up to the micro-kernel that multiplies them.

    The code at place p of a step is that of k = order[p].
    """

    bytes: int = 1  # per code
    order: tuple[int, ...] = tuple(range(STEP))

    @property
    def natural(self) -> bool:
        """Whether codes lie in the order of k."""
        return self.order == tuple(range(STEP))

    @property
    def places(self) -> tuple[int, ...]:
        """Where each k of a step lies."""
        return tuple(self.order.index(k) for k in range(STEP))

    @property
    def tag(self) -> str:
        """For names of kernels."""
        return f"{8 * self.bytes}bit" + ("" if self.natural else "_" + "".join(map(str, self.order)))


class Place(NamedTuple):
    """Where some bits of one row of a packed tile are: bits ``shift .. shift + width`` of the vector at `offset`."""

    offset: int  # bytes from the start of the tile
    shift: int
    width: int
    target: int  # the bits' place in the code


@cache
def places(bits: int, row: int) -> tuple[Place, ...]:
    """The planes' places of one row of a packed tile, widest plane first."""
    planes, start, target = [], 0, 0
    for width in (8, 4, 2, 1):
        if bits & width:
            per_vector = 8 // width
            offset = start + ROW_BYTES * (row // per_vector)
            planes.append(Place(offset, (row % per_vector) * width, width, target))
            start += 2 * width * ROW_BYTES
            target += width
    return tuple(planes)


class Segments(NamedTuple):
    """How K is cut into runs over which parameters are constant, and where k lies in the tiles.

    Each segment starts at a whole step: a segment of 10 k takes 3 steps, of which the last two k are zero.
    """

    k: int
    size: int  # k per segment; the last one may be shorter
    segments: int
    step_size: int  # steps per segment
    last_k: int  # k in the last segment
    steps: int  # steps in all
    tiles: int  # tiles along K

    @property
    def gapless(self) -> bool:
        """Whether k lies at position k."""
        return self.segments == 1 or self.size % STEP == 0

    def positions(self) -> npt.NDArray[np.intp]:
        """The place of each k along the tiles, in k."""
        k = np.arange(self.k)
        return k // self.size * (self.step_size * STEP) + k % self.size


@lru_cache(maxsize=4096)
def segments(k: int, size: int | None = None) -> Segments:
    """K in segments of `size`, or in one."""
    size = max(1, k if size is None else min(size, k))
    count = max(1, ceil_div(k, size))
    step_size, last_k = ceil_div(size, STEP), k - (count - 1) * size
    steps = (count - 1) * step_size + ceil_div(last_k, STEP)
    return Segments(k, size, count, step_size, last_k, steps, ceil_div(steps, STEPS))


def right_bytes(k_segments: Segments, n: int, bits: int) -> int:
    """Bytes of a packed right operand with n columns."""
    return ceil_div(n, BLOCK) * k_segments.tiles * tile_bytes(bits)


def unpack_codes(tiles: npt.NDArray[np.uint8], k_segments: Segments, n: int, bits: int) -> npt.NDArray[np.uint8]:
    """The codes (K x N, relative to the lowest code) in packed right tiles."""
    blocks = ceil_div(n, BLOCK)
    planes = tiles[: right_bytes(k_segments, n, bits)].reshape(blocks, k_segments.tiles, tile_bytes(bits))
    rows = np.zeros((STEPS, blocks, k_segments.tiles, ROW_BYTES), np.uint8)
    for row in range(STEPS):
        for place in places(bits, row):
            piece = planes[..., place.offset : place.offset + ROW_BYTES] >> np.uint8(place.shift)
            rows[row] |= (piece & np.uint8(2**place.width - 1)) << np.uint8(place.target)
    # [step][block][tile][column][k] -> [tile][step][k][block][column]
    codes = rows.reshape(STEPS, blocks, k_segments.tiles, BLOCK, STEP).transpose(2, 0, 4, 1, 3)
    codes = codes.reshape(k_segments.tiles * DEPTH, blocks * BLOCK)
    if k_segments.gapless:
        return np.ascontiguousarray(codes[: k_segments.k, :n])
    return codes[k_segments.positions(), :n]


def pack_codes(codes: npt.NDArray[np.uint8], k_segments: Segments, bits: int) -> npt.NDArray[np.uint8]:
    """Pack codes (K x N, relative to the lowest code) in NumPy: slow, and the definition of the layout."""
    n = codes.shape[1]
    blocks = ceil_div(n, BLOCK)
    padded = np.zeros((k_segments.tiles * DEPTH, blocks * BLOCK), np.uint8)
    padded[k_segments.positions(), :n] = codes
    rows = padded.reshape(k_segments.tiles, STEPS, STEP, blocks, BLOCK).transpose(1, 3, 0, 4, 2)
    rows = rows.reshape(STEPS, blocks, k_segments.tiles, ROW_BYTES)
    planes = np.zeros((blocks, k_segments.tiles, tile_bytes(bits)), np.uint8)
    for row in range(STEPS):
        for place in places(bits, row):
            piece = (rows[row] >> np.uint8(place.target)) & np.uint8(2**place.width - 1)
            planes[..., place.offset : place.offset + ROW_BYTES] |= piece << np.uint8(place.shift)
    return planes.reshape(-1)
