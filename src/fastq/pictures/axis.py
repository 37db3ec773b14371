"""An axis of a chart: from numbers to places between 0 and 1, and round numbers to mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

# Numbers beyond these are drawn as if they were there: ratios and differences of what is left are finite.
_LEAST, _MOST = 1e-140, 1e140


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], log: bool = False, zero: bool = False, margin: float = 0.0) -> Axis:
        """An axis on which all finite values lie (positive ones, if it is logarithmic), with a margin as a share."""
        kept = [_within(v) for v in map(float, values) if isfinite(v) and (v > 0 or not log)]
        if zero:
            kept.append(0.0)
        low, high = (min(kept), max(kept)) if kept else (1.0, 1.0)
        flat = high - low <= 1e-9 * max(abs(low), abs(high))
        if log:
            low, high = max(low, _LEAST), max(high, _LEAST)
            spread = 2.0 if flat else (high / low) ** margin
            return cls(low / spread, high * spread, True)
        if flat:
            return cls(low if zero else low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0))
        extra = margin * (high - low)
        return cls(low if zero and low == 0 else low - extra, high if zero and high == 0 else high + extra)

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1; values beyond an end lie at the end."""
        if value <= self.low:
            return 0.0
        if not value < self.high:
            return 1.0
        if self.log:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, wanted: int = 5) -> list[float]:
        """About so many round numbers on the axis."""
        if self.log:
            return self._powers(wanted)
        step = _round((self.high - self.low) / max(1, wanted))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

    def _powers(self, wanted: int) -> list[float]:
        """Powers of ten; also 2 and 5 times these, if there are few."""
        low, high = log10(self.low), log10(self.high)
        first, last = floor(low), ceil(high)
        every = max(1, ceil((last - first) / max(1, wanted)))
        within = [1, 2, 5] if high - low < 2 else [1]
        marks = [m * 10.0**e for e in range(first, last + 1) if e % every == 0 for m in within if abs(e) < 300]
        return [mark for mark in marks if self.low <= mark <= self.high]


def _within(value: float) -> float:
    return 0.0 if abs(value) < _LEAST else min(max(value, -_MOST), _MOST)


def _round(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below the step."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= step * 0.999)
