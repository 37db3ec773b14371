"""Searching for the parameters with the smallest squared error: the algorithm, as plain Python that Numba compiles.

One run (a row, column or group) after the other:

1. Start from the extremes' parameters, so that the result is never worse than theirs.
2. Try scales on a geometric grid, from 1.15 times the full range down to a twentieth of it; for symmetric codes of
   either sign, since two's complement reaches one step further down than up; for asymmetric ones with the range
   centred, and aligned at either end.
3. Try a finer grid around the best.
4. Refine by least squares: with the codes held fixed the best scale (and offset) is a division; with the new scale the
   codes are rounded again; repeat while it helps (Lloyd's method on a uniform grid).

The data are multiplied by a power of two first (exactly), so that squares neither overflow nor vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GRID, RATIO, TOP = 24, 0.88, 1.15
FINE = 8
ROUNDS = 12

# Places in the sums of a trial.
NOISE, VALUE_CODE, CODE_CODE, CODE, VALUE = range(5)
SUMS = 5


def make_better(trial: Callable[..., Any]) -> Any:
    """``better(x, n, factor, scale, zero, offset, low, high, sums, best)``.

    ``trial(x, n, factor, scale, zero, offset, low, high, sums)`` quantizes x * factor - offset and sums up what
    :data:`SUMS` numbers name.
    """

    def better(x, n, factor, scale, zero, offset, low, high, sums, best):
        """Take parameters over if their error is smaller than the best known; says whether."""
        trial(x, n, factor, scale, zero, offset, low, high, sums)
        if not sums[NOISE] < best[0]:
            return False
        best[0], best[1], best[2], best[3] = sums[NOISE], scale, zero, offset
        return True

    return better


def make_search(trial: Any, better: Any, rint: Callable[[Any], Any], like: Callable[[Any, Any], Any]) -> Any:
    """The search as a function of one run; ``rint`` rounds to even, ``like(value, x)`` gives a value in x's type."""

    def search(x, n, factor, scheme, minimum, maximum, low, high, sums, best):
        """Improve ``best = [noise, scale, zero, offset]``, which holds the extremes' parameters on entry.

        `minimum`, `maximum` and `best` are of the data times `factor`.
        """
        nought = like(0, minimum)
        trial(x, n, factor, best[1], best[2], best[3], low, high, sums)
        best[0] = sums[NOISE]
        steps = high - low
        span = maximum - minimum
        middle = (maximum + minimum) * like(0.5, minimum)
        if scheme == 0:
            span = max(maximum, -minimum) * like(2, minimum)
        if best[0] == 0 or not span > 0:
            return
        if scheme == 0:  # the largest magnitude as the lowest code, which reaches one step further
            scale = max(maximum, -minimum) / low
            better(x, n, factor, scale, nought, nought, low, high, sums, best)
            better(x, n, factor, -scale, nought, nought, low, high, sums, best)
        ratio = like(TOP, minimum)
        for i in range(GRID + FINE):
            if i == GRID:  # from the grid to the finer one around its best
                ratio = abs(best[1]) * steps / span
                ratio = ratio * like(RATIO**0.8, minimum)
            scale = span * ratio / steps
            if scheme == 0:
                better(x, n, factor, scale, nought, nought, low, high, sums, best)
                better(x, n, factor, -scale, nought, nought, low, high, sums, best)
            elif scheme == 1:
                for where in range(3):
                    end = middle / scale - steps * like(0.5, minimum)
                    if where == 1:
                        end = minimum / scale
                    elif where == 2:
                        end = maximum / scale - steps
                    zero = min(max(rint(-end), low), high)
                    better(x, n, factor, scale, zero, nought, low, high, sums, best)
            else:
                offset = middle - scale * steps * like(0.5, minimum)
                better(x, n, factor, scale, nought, offset, low, high, sums, best)
            ratio = ratio * like(RATIO if i < GRID else RATIO ** (-1.6 / FINE), minimum)
        for _ in range(ROUNDS):
            trial(x, n, factor, best[1], best[2], best[3], low, high, sums)
            scale, offset = best[1], best[3]
            count = like(n, minimum)
            if scheme == 2:
                spread = count * sums[CODE_CODE] - sums[CODE] * sums[CODE]
                if not spread > 0:
                    return
                scale = (count * sums[VALUE_CODE] - sums[VALUE] * sums[CODE]) / spread
                offset = offset + (sums[VALUE] - scale * sums[CODE]) / count
            else:
                if not sums[CODE_CODE] > 0:
                    return
                scale = sums[VALUE_CODE] / sums[CODE_CODE]
            if scale == 0 or (scheme != 0 and scale < 0):
                return
            if not better(x, n, factor, scale, best[2], offset, low, high, sums, best):
                return

    return search
