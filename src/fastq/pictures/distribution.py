"""How numbers are distributed about the levels that codes stand for, from a part of a large array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LIMIT = 100_000  # elements to look at
_PLACES = 8  # of a large array, as many parts


@dataclass(frozen=True)
class Distribution:
    """A histogram, and the levels below it.

    Attributes
    ----------
    edges, counts : tuple of numbers
        Of the bins; one edge more than counts.
    levels : tuple of floats
        What codes stand for.
    seen, size : int
        Elements that were counted, and those of the array.
    unit : str
        What is along the axis.
    ends : float
        The share of elements whose nearest level is the lowest or the highest.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    levels: tuple[float, ...]
    seen: int
    size: int
    unit: str
    ends: float


def of_codes(parts: list[Array], low: int, high: int, size: int) -> Distribution:
    """How often each code occurs in parts of an array."""
    counts = np.zeros(high - low + 1, np.int64)
    for part in parts:
        counts += np.bincount(part.astype(np.int64).reshape(-1) - low, minlength=len(counts))
    seen = int(counts.sum())
    ends = float(counts[0] + counts[-1]) / max(1, seen)
    edges, levels = np.arange(low, high + 2) - 0.5, np.arange(low, high + 1)
    return Distribution(_floats(edges), tuple(counts.tolist()), _floats(levels), seen, size, "code", ends)


def of_numbers(parts: list[Array], levels: npt.ArrayLike, size: int, unit: str, bins: int = 81) -> Distribution:
    """How numbers lie about levels; those that are not finite are left out."""
    values = np.concatenate([np.zeros(0), *(np.ravel(part).astype(np.float64) for part in parts)])
    values = values[np.isfinite(values)]
    marks = np.sort(np.ravel(levels).astype(np.float64))
    both = np.concatenate([values, marks])
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    if max(abs(low), abs(high)) > 1e300:  # where differences may overflow
        values, marks, low, high = values / 1e10, marks / 1e10, low / 1e10, high / 1e10
        unit = f"{unit} / 10¹⁰"
    top = max(abs(low), abs(high))
    if high - low <= max(1e-9 * top, 1e-300):  # all are alike, and bins between them would have no width
        extra = top / 100 if top > 1e-300 else 0.5
        low, high = low - extra, high + extra
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    first, last = (float(marks[:2].mean()), float(marks[-2:].mean())) if marks.size else (-np.inf, np.inf)
    ends = float(((values < first) | (values > last)).mean()) if values.size else 0.0
    return Distribution(_floats(edges), tuple(counts.tolist()), _floats(marks), values.size, size, unit, ends)


def parts_of(array: Array, limit: int = LIMIT) -> list[Array]:
    """Parts of an array here and there, about `limit` elements in all; a memory map reads no more than these."""
    return [array[place] for place in places(array.shape, limit)]


def places(shape: tuple[int, ...], limit: int = LIMIT) -> Iterator[tuple[slice, ...]]:
    """Blocks spread over an array of this shape, with about `limit` elements together: all of it, if it has no more."""
    if prod(shape) <= limit:
        yield tuple(slice(0, n) for n in shape)
        return
    count = min(_PLACES, limit)
    room, lengths = limit // count, [1] * len(shape)
    for rest, axis in zip(range(len(shape), 0, -1), sorted(range(len(shape)), key=shape.__getitem__)):
        lengths[axis] = min(shape[axis], max(1, int(room ** (1 / rest) + 1e-9)))  # short axes first, as a whole
        room //= lengths[axis]
    for i in range(count):
        # Along each axis in another order, so that neither a row nor a column is seen twice.
        steps = [i * factor % count for factor, _ in zip((1, 3, 5, 7) * len(shape), shape)]
        starts = [(n - length) * step // max(1, count - 1) for n, length, step in zip(shape, lengths, steps)]
        yield tuple(slice(start, start + length) for start, length in zip(starts, lengths))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(values.astype(np.float64).tolist())
