"""Parameters from extremes, by array: what the scalar functions of :mod:`fastq.scheme` choose, bit for bit.

A kernel did this, at the same speed; compiling it took 0.5 s of the first product.
"""

from __future__ import annotations

import numpy as np

from fastq.engine.views import Array
from fastq.scheme import CodeRange


def parameters(low: Array, high: Array, limits: CodeRange, scheme: int) -> tuple[Array | float, ...]:
    """Scale, zero point and offset of sets with these finite extremes."""
    kind, tiny = low.dtype.type, np.finfo(low.dtype).smallest_subnormal
    steps = kind(limits.high)
    with np.errstate(all="ignore"):  # kernels do not warn
        if scheme == 0:
            return _symmetric_scale(np.maximum(-low, high), steps, tiny), 0, 0
        if scheme == 1:
            low, high = np.minimum(low, kind(0)), np.maximum(high, kind(0))  # the range holds 0, so 0 has a code
        scale = _span_scale(low, high, steps, tiny)
        if scheme == 1:
            return scale, np.clip(np.rint(-low / scale), 0, steps), 0
        return scale, 0, low + kind(0)  # never -0.0, as kernels have it


def _symmetric_scale(top: Array, high: np.floating, tiny: np.floating) -> Array:
    scale = _scale(top, high, tiny)
    return np.where((scale * high > top) & (scale * high == np.inf), scale - scale / 8388608, scale)


def _span_scale(low: Array, top: Array, high: np.floating, tiny: np.floating) -> Array:
    span = top - low
    return np.where(span == np.inf, top / high - low / high, _scale(span, high, tiny))


def _scale(span: Array, high: np.floating, tiny: np.floating) -> Array:
    """``span / high``, kept positive, and fit for subnormal numbers."""
    scale = span / high
    wide = np.where(span / scale > high + 0.5, scale + tiny, scale)
    return np.where(span == 0, span + 1, np.where(scale == 0, tiny, wide))
