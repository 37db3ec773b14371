"""Integer scales for groups, under one float scale that all groups along the axis share.

``scale = S * f`` with a float S and an integer f per group: see :mod:`fastq.engine.groups` for what they are good for.
Codes, their scale and zero point keep the equation that all arrays have; S has so few significant bits that the product
is exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.kernels.quantize.descent import LARGEST
from fastq.layout.tiles import GROUPED, QUARTER
from fastq.quant.affine import Given
from fastq.quant.search import near_one
from fastq.scheme import SCHEMES, code_range, largest_factor

Array = npt.NDArray[Any]

SIGNIFICANT = 16  # bits of a shared scale: with the 7 of the largest integer, they fit float32's 24


class Shared(NamedTuple):
    """Parameters of groups: the float scale they share, their integer scales, and zero points."""

    scale: Array  # 1 along the axis
    factors: npt.NDArray[np.int8]  # one per group along the axis
    zero: npt.NDArray[np.int32] | None

    @property
    def given(self) -> Given:
        """The same as parameters by group."""
        return Given(self.scale * self.factors, self.zero)


def possible(bits: int, group: int | None, scheme: str) -> bool:
    """Whether groups of this size can have integer scales."""
    return group is not None and group % QUARTER == 0 and bits in GROUPED and scheme != "affine"


def rounded_up(scale: Array) -> Array:
    """Scales with :data:`SIGNIFICANT` bits, not smaller than they were."""
    mantissa, exponent = np.frexp(scale)
    result: Array = np.ldexp(np.ceil(mantissa * 2.0**SIGNIFICANT) / 2.0**SIGNIFICANT, exponent).astype(scale.dtype)
    # A subnormal number may have no room for them; the next larger one has fewer.
    return np.where(result > 0, result, np.finfo(scale.dtype).smallest_subnormal).astype(scale.dtype)


def widened(own: Given, bits: int, axis: int) -> Shared:
    """Integer scales that are at least each group's own scale, so that no value is cut off that was not before."""
    return under(rounded_up(needed(own, bits, axis)), own, bits, axis)


def needed(own: Given, bits: int, axis: int) -> Array:
    """The shared scale that groups need so that their integers do not become too large; 1 along the axis."""
    limit = largest(own.scale, own.zero, bits)
    size = np.abs(own.scale)
    shared: Array = (size / limit).max(axis=axis, keepdims=True)
    # A subnormal quotient may have been rounded down by much: groups would need larger integers than there are.
    short = (shared < np.finfo(shared.dtype).tiny) & (shared * limit < size).any(axis=axis, keepdims=True)
    return np.where(short, np.nextafter(shared, np.inf, dtype=shared.dtype), shared)


def under(shared: Array, own: Given, bits: int, axis: int) -> Shared:
    """Integer scales of groups under a shared scale, which may be that of more groups than these."""
    scale, zero = own.scale, own.zero
    limit = largest(scale, zero, bits)
    factors = np.clip(np.ceil(np.abs(scale) / shared), 1, limit).astype(np.int8)
    factors = np.where(scale < 0, -factors, factors).astype(np.int8)
    # A zero point is where the range begins, which a wider scale moves: rint(-min / scale).
    if zero is not None:
        zero = np.clip(np.rint(zero * (scale / (shared * factors))), 0, 2**bits - 1).astype(np.int32)
    return Shared(shared, factors, zero)


def chosen(x: Array, own: Given, bits: int, axis: int, group: int, scheme: str, weights: Array | None = None) -> Shared:
    """Integer scales and their shared scale, chosen together so that the (weighted) squared error is smallest.

    `own` are parameters of the groups by themselves (:func:`fastq.quant.search.search`). The method is described in
    :mod:`fastq.kernels.quantize.descent`; on Gaussian data it ends within 0.02 dB of float scales at 3 bits and groups
    of 64.
    """
    lines = np.moveaxis(x, axis, -1)
    scale = np.moveaxis(own.scale, axis, -1)
    zero = np.zeros_like(scale) if own.zero is None else np.moveaxis(own.zero, axis, -1).astype(x.dtype)
    shape, k = scale.shape, lines.shape[-1]
    shared = np.ascontiguousarray(needed(Given(scale, None if own.zero is None else zero), bits, -1)).reshape(-1)
    rows = np.ascontiguousarray(lines).reshape(-1, k)
    factor = near_one(np.abs(rows).max(axis=1))
    factor[factor == 0] = 1
    by_group = tuple(
        np.array(v, x.dtype, order="C").reshape(len(rows), -1) for v in (scale, zero, np.ones(shape), zero)
    )
    whole = np.ones(k, x.dtype) if weights is None else np.ascontiguousarray(weights, x.dtype)
    args = (rows, whole, group, factor, (shared, *by_group), code_range(bits, scheme), largest_factor(bits))
    backend().search_shared(*args, SCHEMES.index(scheme))
    factors, zeros = by_group[2].reshape(shape).astype(np.int8), by_group[3].reshape(shape).astype(np.int32)
    shared = rounded_up(shared.reshape(*shape[:-1], 1))
    return _back(shared, factors, None if own.zero is None else zeros, axis)


def largest(scale: Array, zero: Array | None, bits: int) -> Array:
    """The largest integer that each group may have."""
    largest = largest_factor(bits)
    if zero is None:
        limit = np.where(scale < 0, max(largest - 1, 1), largest)
    else:
        high = 2**bits - 1
        limit = np.minimum(largest, LARGEST // np.maximum(zero, high - zero).astype(np.int64))
    return limit.astype(scale.dtype)


def _back(shared: Array, factors: Array, zero: Array | None, axis: int) -> Shared:
    turned = (None if v is None else np.ascontiguousarray(np.moveaxis(v, -1, axis)) for v in (shared, factors, zero))
    return Shared(*turned)  # type: ignore[arg-type]
