"""An axis of a chart: from numbers to places between 0 and 1, and round numbers to mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

_LIMIT = 1e300  # beyond it, the length of an axis may overflow


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], log: bool = False, zero: bool = False, margin: float = 0.0) -> Axis:
        """An axis on which all finite values lie (positive ones, if it is logarithmic), with a margin as a share."""
        kept = [min(max(v, -_LIMIT), _LIMIT) for v in map(float, values) if isfinite(v) and (v > 0 or not log)]
        if zero:
            kept.append(0.0)
        low, high = (min(kept), max(kept)) if kept else (1.0, 1.0)
        if log:
            spread = (high / low) ** margin if margin and high > low else 1.0
            spread = spread if high > low and spread > 1 else 2.0
            return cls(low / spread, high * spread, True)
        if low == high:
            return cls(low - (abs(low) / 2 or 1) * (not zero), high + (abs(high) / 2 or 1), False)
        extra = margin * (high - low)
        return cls(low if zero and low == 0 else low - extra, high if zero and high == 0 else high + extra, False)

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


def _round(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below the step."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= step * 0.999)
