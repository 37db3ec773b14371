"""Scales that minimise the squared error (``method="mse"``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.quant.affine import Given, choose, extremes, parameter_shape
from fastq.scheme import SCHEMES, CodeRange, code_range

Array = npt.NDArray[Any]


def search(
    x: Array, bits: int, axis: int | None, group: int | None, scheme: str, weights: Array | None = None
) -> Given:
    """Scale, zero point and offset that minimise ``sum(weight * (x - x_hat)**2)`` over each run that shares them.

    `weights` are one per index along the axis, positive; None: all the same.

    The error is a wavy function of the scale with many local minima. The search (``fastq.kernels.quantize.descent``)
    tries a geometric grid, a finer one around its best, and refines by least squares; it is never worse than the
    extremes. On Gaussian data it ends within 0.1 dB of the best scale there is.

    A symmetric scale may come out negative: codes reach from -2**(b-1) to 2**(b-1) - 1, one step further down than up,
    so a run whose largest values are positive is served better upside down.
    """
    limits = code_range(bits, scheme)
    shape = parameter_shape(x.shape, axis, group)
    scale, zero, offset = choose(*extremes(x, axis, group), bits, scheme)
    zeros = np.zeros(shape, x.dtype) if zero is None else zero.astype(x.dtype)
    offsets = np.zeros(shape, x.dtype) if offset is None else offset.astype(x.dtype)
    if x.size:
        found = [np.array(v) for v in (scale, zeros, offsets)]
        _improve(x, axis, group, scheme, limits, found, weights)
        scale, zeros, offsets = found
    return Given(
        scale,
        np.clip(zeros, limits.low, limits.high).astype(np.int32) if scheme == "asymmetric" else None,
        offsets if scheme == "affine" else None,
    )


def _improve(
    x: Array,
    axis: int | None,
    group: int | None,
    scheme: str,
    limits: CodeRange,
    found: list[Array],
    weights: Array | None,
) -> None:
    """Run the search over all runs, whole groups first, then the ragged last one; `found` is changed in place."""
    if axis is None:
        _improve_runs(np.ascontiguousarray(x).reshape(1, -1), scheme, limits, found, None)
        return
    lines = np.moveaxis(x, axis, -1)
    moved = [np.moveaxis(v, axis, -1) for v in found]
    size = x.shape[axis] if group is None else group
    whole = x.shape[axis] // size
    for part, sets in ((slice(0, whole * size), slice(0, whole)), (slice(whole * size, None), slice(whole, None))):
        piece = lines[..., part]
        if piece.size == 0:
            continue
        length = min(size, piece.shape[-1])
        values = [np.ascontiguousarray(m[..., sets]) for m in moved]
        mine = None if weights is None else np.ascontiguousarray(weights[part], x.dtype).reshape(-1, length)
        _improve_runs(np.ascontiguousarray(piece).reshape(-1, length), scheme, limits, values, mine)
        for into, value in zip(moved, values):
            into[..., sets] = value


def near_one(top: Array) -> Array:
    """Powers of two that bring magnitudes to about 1; 0 for those of almost nothing."""
    _, exponent = np.frexp(top)
    usable = top > np.finfo(top.dtype).tiny * 2.0**30
    factor: Array = np.where(usable, np.ldexp(np.ones_like(top), np.where(usable, -exponent, 0)), 0).astype(top.dtype)
    return factor


def _improve_runs(x: Array, scheme: str, limits: CodeRange, values: list[Array], weights: Array | None) -> None:
    low, high = x.min(axis=1), x.max(axis=1)
    factor = near_one(np.maximum(np.abs(low), np.abs(high)))
    if weights is None:
        weights = np.ones((1, x.shape[1]), x.dtype)
    if scheme == "asymmetric":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    backend().search(x, weights, factor, low, high, values, limits, SCHEMES.index(scheme))
