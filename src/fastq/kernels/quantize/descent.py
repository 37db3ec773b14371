"""Searching for the parameters with the smallest squared error: the algorithm, as plain Python that Numba compiles.

One run (a row, column or group) after the other:

1. Start from the extremes' parameters, so that the result is never worse than theirs.
2. Try scales on a geometric grid, from 1.15 times the full range down to a twentieth of it; for symmetric codes of
   either sign, since two's complement reaches one step further down than up; for asymmetric ones with the range
   centred, and aligned at either end.
3. Try a finer grid around the best.
4. Refine by least squares: with the codes held fixed the best scale (and offset) is a division; with the new scale the
   codes are rounded again; repeat while it helps (Lloyd's method on a uniform grid).

The data are multiplied by a power of two first (exactly), so that squares neither overflow nor vanish. Each element's
squared error has a weight (1, or how much the element matters).

:func:`make_joint` chooses integer scales for the groups of a column together with the float scale they share. For each
of a dozen float scales, every group takes the better of two integers: those around the scale that is best for the group
alone. The float scale with the least error is then refined by least squares over all groups, in turns with integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GRID, RATIO, TOP = 24, 0.88, 1.15
FINE = 8
ROUNDS = 12

# Places in the sums of a trial.
NOISE, VALUE_CODE, CODE_CODE, CODE, VALUE, WEIGHT = range(6)
SUMS = 6

# Shared scales to try, as multiples of the smallest one under which no integer is cut off.
SHARED, SHARED_FROM, SHARED_STEP = 12, 0.91, 1.03
SHARED_ROUNDS = 3
LARGEST = 127  # of the products of integers and codes


def make_better(trial: Callable[..., Any]) -> Any:
    """``better(x, weights, n, factor, scale, zero, offset, low, high, sums, best)``.

    ``trial(x, weights, n, factor, scale, zero, offset, low, high, sums)`` quantizes x * factor - offset and sums
    up what :data:`SUMS` numbers name.
    """

    def better(x, weights, n, factor, scale, zero, offset, low, high, sums, best):
        """Take parameters over if their error is smaller than the best known; says whether."""
        trial(x, weights, n, factor, scale, zero, offset, low, high, sums)
        if not sums[NOISE] < best[0]:
            return False
        best[0], best[1], best[2], best[3] = sums[NOISE], scale, zero, offset
        return True

    return better


def make_joint(trial: Any, rint: Callable[[Any], Any], like: Callable[[Any, Any], Any], at: Callable[..., Any]) -> Any:
    """The choice of integer scales as a function of one column; ``at(x, i)`` is the array from its element i on.

    `column` is ``(x, weights, k, size, factor, scheme, low, high, limit)``, with the largest integer `limit`; `groups`
    are four arrays by group: the float scale and zero point of each by itself, and the integer scale and zero point
    that are chosen.
    """

    def assign(column, shared, groups, sums, totals):
        """Integer scales (and zero points) under a shared scale; sums of all groups go to ``totals[NOISE ..]``."""
        x, weights, k, size, factor, scheme, low, high, limit = column
        scales, zeros, group_scales, group_zeros = groups
        half, one = (high - low) * like(0.5, shared), like(1, shared)
        for i in range(3):
            totals[i] = like(0, shared)
        for group in range((k + size - 1) // size):
            first = group * size
            n = min(size, k - first)
            target = scales[group]
            guess = abs(target) / shared
            near = rint(guess)
            least = like(-1, shared)
            noise = value_code = code_code = least
            for other in range(2):
                f = near
                if other == 1:
                    f = near + one if guess > near else near - one
                f = min(max(f, one), limit)
                zero = like(0, shared)
                if scheme == 0:
                    # -2**(b-1) times the largest integer fits a byte, its negative does not.
                    if target < 0:
                        f = -min(f, max(limit - one, one))
                else:
                    centre = (half - zeros[group]) * target
                    zero = min(max(rint(half - centre / (shared * f)), low), high)
                    while f > one and f * max(zero, high - zero) > like(LARGEST, shared):
                        f = f - one
                        zero = min(max(rint(half - centre / (shared * f)), low), high)
                trial(at(x, first), at(weights, first), n, factor, shared * f, zero, like(0, shared), low, high, sums)
                if least < 0 or sums[NOISE] < noise:
                    least = one
                    noise, value_code, code_code = sums[NOISE], f * sums[VALUE_CODE], f * f * sums[CODE_CODE]
                    group_scales[group], group_zeros[group] = f, zero
            totals[NOISE] += noise
            totals[VALUE_CODE] += value_code
            totals[CODE_CODE] += code_code

    return assign


def make_shared(assign: Any, like: Callable[[Any, Any], Any]) -> Any:
    """The search for the scale that the groups of a column share; see :func:`make_joint`."""

    def shared_scale(column, start, groups, sums, totals):
        """The shared scale; integers and zero points stay in `groups`. `start` is the least that cuts off nothing."""
        best = start
        scale = start * like(SHARED_FROM, start)
        noise = like(-1, start)
        for i in range(SHARED + SHARED_ROUNDS):
            if i >= SHARED:  # from trying scales to refining the best
                assign(column, best, groups, sums, totals)
                if not totals[CODE_CODE] > 0:
                    break
                scale = totals[VALUE_CODE] / totals[CODE_CODE]
                if not scale > 0:
                    break
            assign(column, scale, groups, sums, totals)
            if noise < 0 or totals[NOISE] < noise:
                noise, best = totals[NOISE], scale
            elif i >= SHARED:
                break
            scale = scale * like(SHARED_STEP, start)
        assign(column, best, groups, sums, totals)
        return best

    return shared_scale


def make_search(trial: Any, better: Any, rint: Callable[[Any], Any], like: Callable[[Any, Any], Any]) -> Any:
    """The search as a function of one run; ``rint`` rounds to even, ``like(value, x)`` gives a value in x's type."""

    def search(x, weights, n, factor, scheme, minimum, maximum, low, high, sums, best):
        """Improve ``best = [noise, scale, zero, offset]``, which holds the extremes' parameters on entry.

        `minimum`, `maximum` and `best` are of the data times `factor`.
        """
        nought = like(0, minimum)
        trial(x, weights, n, factor, best[1], best[2], best[3], low, high, sums)
        best[0] = sums[NOISE]
        steps = high - low
        span = maximum - minimum
        middle = (maximum + minimum) * like(0.5, minimum)
        mean = best[3] + sums[VALUE] / sums[WEIGHT]
        if scheme == 0:
            span = max(maximum, -minimum) * like(2, minimum)
        if best[0] == 0 or not span > 0:
            return
        if scheme == 0:  # the largest magnitude as the lowest code, which reaches one step further
            scale = max(maximum, -minimum) / low
            better(x, weights, n, factor, scale, nought, nought, low, high, sums, best)
            better(x, weights, n, factor, -scale, nought, nought, low, high, sums, best)
        ratio = like(TOP, minimum)
        for i in range(GRID + FINE):
            if i == GRID:  # from the grid to the finer one around its best
                ratio = abs(best[1]) * steps / span
                ratio = ratio * like(RATIO**0.8, minimum)
            scale = span * ratio / steps
            if scheme == 0:
                better(x, weights, n, factor, scale, nought, nought, low, high, sums, best)
                better(x, weights, n, factor, -scale, nought, nought, low, high, sums, best)
            elif scheme == 1:
                for where in range(3):
                    end = middle / scale - steps * like(0.5, minimum)
                    if where == 1:
                        end = minimum / scale
                    elif where == 2:
                        end = maximum / scale - steps
                    zero = min(max(rint(-end), low), high)
                    better(x, weights, n, factor, scale, zero, nought, low, high, sums, best)
            else:
                reach = scale * steps * like(0.5, minimum)
                better(x, weights, n, factor, scale, nought, middle - reach, low, high, sums, best)
                better(x, weights, n, factor, scale, nought, mean - reach, low, high, sums, best)
            ratio = ratio * like(RATIO if i < GRID else RATIO ** (-1.6 / FINE), minimum)
        for _ in range(ROUNDS):
            trial(x, weights, n, factor, best[1], best[2], best[3], low, high, sums)
            scale, offset = best[1], best[3]
            count = sums[WEIGHT]
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
            if not better(x, weights, n, factor, scale, best[2], offset, low, high, sums, best):
                return

    return search
