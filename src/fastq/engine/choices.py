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
    large = top > np.finfo(top.dtype).max / 2
    if large.any():
        of_large = scale[large]
        scale[large] = np.where(of_large * high == np.inf, of_large - of_large / 8388608, of_large)
    return scale


def _span_scale(low: Array, top: Array, high: np.floating, tiny: np.floating) -> Array:
    span = top - low
    scale = _scale(span, high, tiny)
    large = span == np.inf
    if large.any():
        scale[large] = top[large] / high - low[large] / high
    return scale


def _scale(span: Array, high: np.floating, tiny: np.floating) -> Array:
    """``span / high``, kept positive, and fit for subnormal numbers."""
    scale: Array = span / high
    small = scale < np.finfo(span.dtype).tiny  # 0 or subnormal
    if small.any():  # seldom: a pass over all of them for each line of this would take as long as all the rest
        few, before = span[small], scale[small]
        after = np.where(few / before > high + 0.5, before + tiny, before)
        scale[small] = np.where(few == 0, few + 1, np.where(before == 0, tiny, after))
    return scale
