"""Integer scales for groups, under one float scale that all groups along the axis share.

``scale = S * f`` with a float S and an integer f per group (:mod:`fastq.engine.groups`). Codes, scale and zero point
have the equation of all arrays; S has so few significant bits that ``S * f`` is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.kernels.quantize.descent import LARGEST
from fastq.layout.tiles import GROUPED, QUARTER
from fastq.quant.search import near_one
from fastq.quant.spec import QuantParams, QuantSpec
from fastq.scheme import largest_factor

Array = npt.NDArray[Any]

SIGNIFICANT = 16  # bits of a shared scale: with the 7 of the largest integer, they fit the 24 of float32


def possible(bits: int, group: int | None, scheme: str) -> bool:
    """Whether groups of this size can have integer scales."""
    return group is not None and group % QUARTER == 0 and bits in GROUPED and scheme != "affine"


def rounded_up(scale: Array) -> Array:
    """The scales, rounded up to :data:`SIGNIFICANT` bits."""
    mantissa, exponent = np.frexp(scale)
    result: Array = np.ldexp(np.ceil(mantissa * 2.0**SIGNIFICANT) / 2.0**SIGNIFICANT, exponent).astype(scale.dtype)
    # A subnormal number may have no room for them; the next larger one has fewer.
    return np.where(result > 0, result, np.finfo(scale.dtype).smallest_subnormal).astype(scale.dtype)


def widened(by_group: QuantParams, spec: QuantSpec) -> QuantParams:
    """Integer scales that are at least each group's float scale, so that no more values are clipped."""
    return under(rounded_up(needed(by_group, spec)), by_group, spec)


def needed(by_group: QuantParams, spec: QuantSpec) -> Array:
    """The smallest shared scale under which no group's integer is too large; its length along the axis is 1."""
    limit, size = largest(by_group.scale, by_group.zero, spec.bits), np.abs(by_group.scale)
    shared: Array = (size / limit).max(axis=spec.axis, keepdims=True)
    # A subnormal quotient may have been rounded down by much: groups would need larger integers than there are.
    short = (shared < np.finfo(shared.dtype).tiny) & (shared * limit < size).any(axis=spec.axis, keepdims=True)
    return np.where(short, np.nextafter(shared, np.inf, dtype=shared.dtype), shared)


def under(shared: Array, by_group: QuantParams, spec: QuantSpec) -> QuantParams:
    """Integer scales of groups under a shared scale; other groups may share it, too."""
    scale, zero = by_group.scale, by_group.zero
    limit = largest(scale, zero, spec.bits)
    group_scale = np.clip(np.ceil(np.abs(scale) / shared), 1, limit).astype(np.int8)
    group_scale = np.where(scale < 0, -group_scale, group_scale).astype(np.int8)
    # A zero point is where the range begins, which a wider scale moves: rint(-min / scale).
    if zero is not None:
        zero = np.clip(np.rint(zero * (scale / (shared * group_scale))), 0, spec.limits.high).astype(np.int32)
    return QuantParams(shared, zero, None, group_scale)


def chosen(x: Array, by_group: QuantParams, spec: QuantSpec, weights: Array | None = None) -> QuantParams:
    """Integer scales and their shared scale, chosen together so that the (weighted) squared error is smallest.

    `by_group` are the groups' parameters with float scales (:func:`fastq.quant.search.search`). The method is described
    in :mod:`fastq.kernels.quantize.descent`; on Gaussian data it ends within 0.02 dB of float scales at 3 bits and
    groups of 64.
    """
    axis = spec.axis
    assert axis is not None
    lines, last = np.moveaxis(x, axis, -1), by_group.mapped(lambda p: np.moveaxis(p, axis, -1))
    k, shape = lines.shape[-1], last.scale.shape
    zero = np.zeros_like(last.scale) if last.zero is None else last.zero.astype(x.dtype)
    shared = np.ascontiguousarray(needed(last, spec._replace(axis=-1))).reshape(-1)
    rows = np.ascontiguousarray(lines).reshape(-1, k)
    factor = near_one(np.abs(rows).max(axis=1))
    factor[factor == 0] = 1
    start = tuple(
        np.array(v, x.dtype, order="C").reshape(len(rows), -1) for v in (last.scale, zero, np.ones(shape), zero)
    )
    whole = np.ones(k, x.dtype) if weights is None else np.ascontiguousarray(weights, x.dtype)
    group, limit = spec.group or max(k, 1), largest_factor(spec.bits)
    backend().search_shared(rows, whole, group, factor, (shared, *start), spec.limits, limit, spec.number)
    scales, zeros = start[2].reshape(shape).astype(np.int8), start[3].reshape(shape).astype(np.int32)
    shared = rounded_up(shared.reshape(*shape[:-1], 1))
    result = QuantParams(shared, None if by_group.zero is None else zeros, None, scales)
    return result.mapped(lambda p: np.ascontiguousarray(np.moveaxis(p, -1, axis)))


def largest(scale: Array, zero: Array | None, bits: int) -> Array:
    """The largest integer that each group may have."""
    largest = largest_factor(bits)
    if zero is None:
        limit = np.where(scale < 0, max(largest - 1, 1), largest)
    else:
        high = 2**bits - 1
        limit = np.minimum(largest, LARGEST // np.maximum(zero, high - zero).astype(np.int64))
    return limit.astype(scale.dtype)
