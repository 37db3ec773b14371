"""Scales from percentiles (``method="percentile"``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.quant.affine import choose, extremes
from fastq.quant.methods import Percentile
from fastq.quant.spec import QuantParams, QuantSpec, parameter_shape

Array = npt.NDArray[Any]
_BLOCK = 1 << 21  # elements sorted at a time; a longer run is sorted alone


def parameters(x: Array, spec: QuantSpec, method: Percentile) -> QuantParams:
    """Scale, zero point and offset of the range that holds a share of each run's elements.

    With Q(x, p) = ``np.quantile(x, p)`` (linear interpolation) and s the share, the range is ::

        -Q(|x|, s/100) .. Q(|x|, s/100)                       symmetric
        Q(x, (100-s)/200) .. Q(x, 1 - (100-s)/200)            asymmetric, affine

    and the parameters are those of its ends. Where it is a single point (more than the share of the elements are
    equal), it says nothing about a scale, and the extremes are taken. Beside x, one block of runs is held, or one run.
    """
    low, high = extremes(x, spec)
    if x.size:
        low, high = _inside(x, spec.axis, spec.group, method.ends(spec.scheme), low, high)
    return choose(low, high, spec)


def _inside(
    x: Array, axis: int | None, group: int | None, ends: tuple[float, ...], low: Array, high: Array
) -> tuple[Array, Array]:
    """Ends of the range of each run, in the shape of its extremes."""
    # Differences between neighbours of huge numbers would overflow in the interpolation.
    top = max(float(high.max()), -float(low.min()))
    factor = x.dtype.type(0.25 if top > float(np.finfo(x.dtype).max) / 4 else 1)
    if axis is None:
        lines, size = x.reshape(1, -1), x.size
    else:
        lines, size = np.moveaxis(x, axis, -1), group or x.shape[axis]
    found = np.empty((2, *lines.shape[:-1], parameter_shape(lines.shape, lines.ndim - 1, size)[-1]), x.dtype)
    whole = lines.shape[-1] // size
    for part, sets in ((slice(0, whole * size), slice(0, whole)), (slice(whole * size, None), slice(whole, None))):
        piece = lines[..., part]
        if piece.size:
            runs = piece.reshape(-1, min(size, piece.shape[-1]))
            found[..., sets] = _quantiles(runs, ends, factor).reshape(2, *piece.shape[:-1], -1)
    back = found.reshape(2, *low.shape) if axis is None else np.moveaxis(found, -1, axis + 1)
    point = back[0] == back[1]
    return np.where(point, low, back[0]), np.where(point, high, back[1])


def _quantiles(runs: Array, ends: tuple[float, ...], factor: Any) -> Array:
    """Both ends for each row."""
    found = np.empty((2, len(runs)), runs.dtype)
    step = max(1, _BLOCK // runs.shape[1])
    for first in range(0, len(runs), step):
        block = runs[first : first + step] * factor
        if len(ends) == 1:
            np.abs(block, out=block)
        # The quantile in float64: a float32 one would not tell elements of a long run apart.
        values = np.quantile(block, np.array(ends), axis=1, overwrite_input=True)
        found[1, first : first + step] = values[-1]
        found[0, first : first + step] = -values[0] if len(ends) == 1 else values[0]
    found /= factor
    return found
