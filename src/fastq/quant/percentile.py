"""Scales from percentiles (``method="percentile"``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.quant.affine import chosen, extremes
from fastq.quant.methods import Percentile
from fastq.quant.spec import QuantParams, QuantSpec, lines, runs

Array = npt.NDArray[Any]
_BLOCK = 1 << 21  # elements sorted at a time; a longer run is sorted alone


def parameters(x: Array, spec: QuantSpec, method: Percentile) -> QuantParams:
    """Scale, zero point and offset of the range that holds a share of each run's elements.

    With Q(x, p) = ``np.quantile(x, p)`` (linear interpolation) and s the share, the range is ::

        -Q(|x|, s/100) .. Q(|x|, s/100)                       symmetric
        Q(x, (100-s)/200) .. Q(x, 1 - (100-s)/200)            asymmetric, affine

    and the parameters are those of its ends. If it is a single point (more than the share of the elements are equal),
    it determines no scale, and the extremes are taken. Beside x, memory holds one block of runs, or one run.
    """
    low, high = extremes(x, spec)
    if not x.size:
        return chosen(low, high, spec)
    # Differences between neighbours of huge numbers would overflow in the interpolation.
    top = max(float(high.max()), -float(low.min()))
    factor = x.dtype.type(0.25 if top > float(np.finfo(x.dtype).max) / 4 else 1)
    inside = np.empty((2, *low.shape), x.dtype)
    for rows, _, groups in runs(x, spec.axis, spec.group):
        for end, values in zip(inside, _quantiles(rows, method.ends(spec.scheme), factor)):
            place = lines(end, spec.axis)[..., groups]
            place[...] = values.reshape(place.shape)
    point = inside[0] == inside[1]
    return chosen(np.where(point, low, inside[0]), np.where(point, high, inside[1]), spec)


def _quantiles(runs: Array, ends: tuple[float, ...], factor: Any) -> Array:
    """Both ends of the range of each row."""
    result = np.empty((2, len(runs)), runs.dtype)
    step = max(1, _BLOCK // runs.shape[1])
    for first in range(0, len(runs), step):
        block = runs[first : first + step] * factor
        if len(ends) == 1:
            np.abs(block, out=block)
        # The quantile in float64: a float32 one would not tell elements of a long run apart.
        values = np.quantile(block, np.array(ends), axis=1, overwrite_input=True)
        result[1, first : first + step] = values[-1]
        result[0, first : first + step] = -values[0] if len(ends) == 1 else values[0]
    result /= factor
    return result
