"""Two runs against each other: by time on one machine, by ratio to NumPy on two."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10
from typing import NamedTuple

from fastq.bench.result import BenchResult
from fastq.bench.run import Run

Key = tuple[str, str]  # the contest, the contender


class Timed(NamedTuple):
    """Seconds: the best time, and what it varies by."""

    best: float
    noise: float


class Ratio(NamedTuple):
    """How many times faster than NumPy in the same contest."""

    value: float
    unsteady: bool

    def __str__(self) -> str:
        return digits(self.value) + "?" * self.unsteady


def digits(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:.{max(0, 2 - floor(log10(value)))}f}" if value > 0 else "0"


def times_of(result: BenchResult) -> dict[Key, Timed]:
    """Of all rows."""
    return {(row.size, row.name): Timed(row.best, row.noise or 0.0) for row in result.rows}


def ratios_of(found: BenchResult | Run) -> dict[Key, Ratio]:
    """Of all rows but NumPy's; of several with one name, on several instruction sets, the first."""
    ratios: dict[Key, Ratio] = {}
    if isinstance(found, BenchResult):
        for one in found.rows:
            if one.library != "numpy":
                ratios.setdefault((one.size, one.name), Ratio(one.times_faster, one.unsteady))
        return ratios
    for group, (baseline, *others) in found.groups.items():
        for row in others if baseline.baseline else ():
            value = Ratio(row.times_faster(baseline), row.unsteady or baseline.unsteady)
            ratios.setdefault((group, row.name), value)
    return ratios


def by_time(before: Mapping[Key, Timed], after: Mapping[Key, Timed]) -> tuple[list[str], bool]:
    """What became slower or faster by more than the noise of both runs together, and whether anything became slower.

    Best times are compared. The noise of a run is the distance from the best to the median or, if that is larger, to
    the best of the worst round.
    """
    changes = []
    for key in before.keys() & after.keys():
        a, b = before[key], after[key]
        if abs(b.best - a.best) > a.noise + b.noise:
            changes.append((b.best / a.best, key, a, b))
    changes.sort(key=lambda change: -change[0])
    lines = [
        f"{'slower' if ratio > 1 else 'faster'}: {': '.join(key)}: "
        f"{digits(1e3 * a.best)} -> {digits(1e3 * b.best)} ms ({ratio - 1:+.0%})"
        for ratio, key, a, b in changes
    ]
    return lines + _came_and_went(before, after), any(ratio > 1 for ratio, *_ in changes)


def by_ratio(before: Mapping[Key, Ratio], after: Mapping[Key, Ratio]) -> list[str]:
    """How many times faster than NumPy each contender is in both runs; a ``?`` stands behind what varied too much."""
    lines = [
        f"{': '.join(key)}: {before[key]} -> {after[key]} times faster than NumPy "
        f"({digits(after[key].value / before[key].value)} of it)"
        for key in before
        if key in after
    ]
    return lines + _came_and_went(before, after)


def _came_and_went(before: Mapping[Key, object], after: Mapping[Key, object]) -> list[str]:
    gone = [f"gone: {', '.join(key)}" for key in before if key not in after]
    return gone + [f"new: {', '.join(key)}" for key in after if key not in before]
