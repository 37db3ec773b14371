"""A histogram of numbers whose range is not known in advance, and ranges chosen from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.quant.affine import chosen
from fastq.quant.methods import Percentile
from fastq.quant.spec import QuantSpec
from fastq.scheme import code_range

Array = npt.NDArray[Any]
Range = tuple[float, float]
HALF = 1 << 15  # bins on each side of 0
_BLOCK = 1 << 20  # numbers counted at a time
# How the ends of a range are moved, as powers of two: over 16 octaves first, then around the best of these.
_MOVES = (np.arange(4, -128, -1) / 8, np.arange(-8, 9) / 64)


class Histogram:
    """Counts of numbers in bins of one width, a power of two, on both sides of 0; zeros are counted apart.

    Bin i holds ``i * width <= x < (i + 1) * width``. When a number does not fit, the width doubles until it does, and
    pairs of bins become one. So the width follows from the largest magnitude alone, and the counts do not depend on the
    batches or on their order. The largest magnitude is HALF / 2 bins from 0 or more.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF, np.int64)
        self.zeros = 0
        self.exponent: int | None = None  # of the width; None while there are only zeros

    def add(self, x: Array) -> None:
        """Count finite numbers."""
        flat = x.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            block = block[block != 0]
            self.zeros += min(_BLOCK, flat.size - start) - block.size
            if block.size:
                self._widen(int(np.frexp(np.abs(block).max())[1]) - HALF.bit_length() + 1)
                bins = np.floor(np.ldexp(block, -self.exponent)).astype(np.int64)  # type: ignore[operator]
                self.counts += np.bincount(bins + HALF, minlength=2 * HALF)

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
        for _ in range(self.exponent, exponent):
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[HALF // 2 : HALF // 2 + HALF] = pairs
        self.exponent = max(self.exponent, exponent)

    def points(self) -> tuple[Array, Array]:
        """The centres of the bins that are not empty, and 0 if it was seen, ascending; and the counts."""
        at = np.flatnonzero(self.counts)
        centres, counts = np.ldexp(at - HALF + 0.5, self.exponent or 0), self.counts[at]
        if self.zeros:
            place = np.searchsorted(centres, 0)
            centres, counts = np.insert(centres, place, 0), np.insert(counts, place, self.zeros)
        return centres, counts


def range_of_share(seen: Histogram, low: float, high: float, scheme: str, method: Percentile) -> Range:
    """The range that holds a share of the numbers; `low` and `high` are their extremes.

    Each end is within half a bin's width of the quantile that ``fq.quantize`` takes for such a percentile.
    """
    centres, counts = seen.points()
    shares = method.ends(scheme)
    if scheme == "symmetric":
        sizes = np.abs(centres)
        order = np.argsort(sizes)
        last = _quantile(sizes[order], counts[order], shares[0], 0.0, max(-low, high))
        first = -last
    else:
        first, last = (_quantile(centres, counts, share, low, high) for share in shares)
    return (low, high) if first == last else (first, last)


def _quantile(centres: Array, counts: Array, share: float, low: float, high: float) -> float:
    """``np.quantile`` (linear interpolation) of numbers whose bins and extremes are known."""
    upto = np.cumsum(counts)
    last = int(upto[-1]) - 1

    def number(k: int) -> float:
        """The k-th smallest."""
        if k in (0, last):
            return low if k == 0 < last else high
        return float(np.clip(centres[np.searchsorted(upto, k, side="right")], low, high))

    below = int(share * last)
    part = share * last - below
    return number(below) * (1 - part) + (number(below + 1) * part if part else 0.0)


def range_of_least_error(seen: Histogram, low: float, high: float, bits: int, scheme: str) -> Range:
    """The range with the smallest squared error, if each number lies at the centre of its bin.

    When a number moves, its distance to the nearest value with a code changes by no more than the move. So under one
    scale, the root mean squared errors of the numbers and of the centres differ by half a bin's width at most
    (Minkowski's inequality). In that error, the range found is within one width of the best one tried. A symmetric
    range may come out upside down, low above high, for a negative scale.
    """
    top = max(-low, high)
    if top == 0:
        return low, high
    centres, counts = seen.points()
    exponent = int(np.frexp(top)[1])  # numbers near 1 have squares that neither overflow nor vanish
    low, high, top = (float(np.ldexp(v, -exponent)) for v in (low, high, top))
    centres = np.clip(np.ldexp(centres, -exponent), low, high)
    limits, weights = code_range(bits, scheme), counts.astype(np.float64)

    def noise(ends: Range) -> float:
        scale, zero = parameters(np.array([ends[0]]), np.array([ends[1]]), bits, scheme)
        codes = np.rint(centres / scale)
        if zero is not None:
            codes += zero
        np.clip(codes, *limits, out=codes)
        if zero is not None:
            codes -= zero
        return float(weights @ (centres - scale * codes) ** 2)

    if scheme == "symmetric":
        _, ends = min(_moved(noise, (-end, end), (True, True)) for end in (top, -top))
    else:
        ends = min(low, 0.0), max(high, 0.0)
        for moving in ((True, True), (True, False), (False, True), (True, False), (False, True)):
            _, ends = _moved(noise, ends, moving)
    return float(np.ldexp(ends[0], exponent)), float(np.ldexp(ends[1], exponent))


def _moved(noise: Callable[[Range], float], ends: Range, moving: tuple[bool, bool]) -> tuple[float, Range]:
    """The least error, and its range, when the marked ends of a range are multiplied by a factor."""

    def at(power: float) -> Range:
        return ends[0] * 2.0 ** (power * moving[0]), ends[1] * 2.0 ** (power * moving[1])

    least, best = noise(ends), 0.0
    for powers in _MOVES:
        least, best = min([(least, best), *((noise(at(p)), p) for p in best + powers)])
    return least, at(best)


def parameters(low: Array, high: Array, bits: int, scheme: str) -> tuple[Array, Array | None]:
    """Scale and zero point of ranges, in their float type; a range that is upside down has a negative scale."""
    spec = QuantSpec(bits, None, None, scheme)
    scale, zero, _, _ = chosen(np.minimum(low, high), np.maximum(low, high), spec)
    return np.where(low > high, -scale, scale), zero
