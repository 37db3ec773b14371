"""The definition of right: every kernel's result in plain NumPy, slow and obvious."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.kernels.jobs import LANES
from fastq.kernels.quantize.descent import SUMS, make_better, make_joint, make_search, make_shared
from fastq.scheme import CodeRange, span_scale, symmetric_scale

Floats = npt.NDArray[Any]


def codes(x: Floats, scale: Floats, zero: Floats, offset: Floats | None, limits: CodeRange) -> npt.NDArray[Any]:
    """``clip(rint((x - offset) / scale) + zero, low, high)``, as int8 or uint8; parameters broadcast to x."""
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = x if offset is None else x - offset
        steps = np.rint(shifted / scale) + np.asarray(zero, x.dtype)
        clipped = np.asarray(np.clip(steps, limits.low, limits.high))
        return clipped.astype(np.int8 if limits.signed else np.uint8)


def parameters(low: Floats, high: Floats, limits: CodeRange, scheme: int) -> tuple[Floats, Floats, Floats]:
    """Scale, zero point and offset of runs with these extremes, by the scalar functions that kernels compile."""
    kind, tiny, none = low.dtype.type, np.finfo(low.dtype).smallest_subnormal, np.zeros_like(low)
    steps = kind(limits.high)
    with np.errstate(over="ignore", under="ignore"):
        if scheme == 0:
            tops = np.maximum(-low, high)
            return _each(lambda top: symmetric_scale(top, steps, tiny), tops), none, none
        if scheme == 1:
            low, high = np.minimum(low, kind(0)), np.maximum(high, kind(0))  # the range holds 0, so 0 has a code
        scale = _each(lambda a, b: span_scale(a, b, steps, tiny), low, high)
    if scheme == 1:
        return scale, np.clip(np.rint(-low / scale), 0, limits.high), none
    return scale, none, low + kind(0)  # never -0.0, as kernels have it


def _each(function: Callable[..., Any], *arrays: Floats) -> Floats:
    """A scalar function of each element."""
    values = [function(*each) for each in zip(*(array.flat for array in arrays))]
    return np.array(values, arrays[0].dtype).reshape(arrays[0].shape)


def product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The exact product of integers."""
    result: npt.NDArray[np.int64] = numpys.matmul(left.astype(np.int64), right.astype(np.int64))
    return result


def planes(codes: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The signed bytes of codes, the high ones first: ``256 * high + low``."""
    high = (codes + 128) >> 8
    return [high, codes - 256 * high]


def as_float(sums: list[npt.NDArray[np.int64]], kind: Any) -> Floats:
    """The number that sums of one plane, or of a high and a low one, stand for."""
    values = [plane.astype(kind) for plane in sums]
    return values[0] if len(values) == 1 else values[0] * values[0].dtype.type(256) + values[1]


def epilogue(
    acc: Floats,  # one segment's product of the codes minus their zero points
    row_scale: Floats,
    col_scale: Floats,
    col_offsets: tuple[Floats, Floats] | None = None,  # row_scale * sum(left code - zero), and col_offset
    row_offsets: tuple[Floats, Floats] | None = None,  # row_offset, and col_scale * sum(right code - zero) + ...
    turned: bool = False,  # the product is computed as a transpose
) -> Floats:
    """One segment's contribution to a float product, in the order and rounding that kernels keep to.

    Scales that are constant along K are 1 here where there are several segments; the sum is multiplied by them.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # kernels do not warn
        y = scaled(acc.astype(row_scale.dtype), row_scale, col_scale, turned)
        for terms in (col_offsets, row_offsets):
            if terms is not None:
                y = y + terms[0][:, None] * terms[1]
    return y


def scaled(y: Floats, row_scale: Floats, col_scale: Floats, turned: bool) -> Floats:
    """``(y * row_scale) * col_scale``; of a product that is computed as a transpose, in the other order."""
    first, second = row_scale[:, None], col_scale[None, :]
    if turned:
        first, second = second, first
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return (y * first) * second


def trial(
    x: Floats,
    weights: Floats,
    n: int,
    factor: Any,
    scale: Any,
    zero: Any,
    offset: Any,
    low: Any,
    high: Any,
    sums: Floats,
) -> None:
    """One pass of the search over a run, adding in the order in which kernels do: 16 lanes, then the rest."""
    value = x[:n] * factor - offset
    code = np.clip(np.rint(value * (value.dtype.type(1) / scale)) + zero, low, high) - zero
    rest = value - scale * code
    bulk = n // LANES * LANES
    weight = weights[:n]
    weighted = code * weight
    terms = (rest * rest * weight, value * weighted, code * weighted, weighted, value * weight, weight)
    for i, term in enumerate(terms):
        # accumulate adds one after the other, where sum would add in pairs
        lanes = np.zeros(LANES, x.dtype)
        if bulk:
            lanes = np.add.accumulate(term[:bulk].reshape(-1, LANES), axis=0)[-1]
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        sums[i] = np.add.accumulate(np.concatenate([lanes, term[bulk:]]))[-1]


def search_runs(
    x: Floats,
    weights: Floats,
    factor: Floats,
    low: Floats,
    high: Floats,
    values: list[Floats],
    limits: CodeRange,
    scheme: int,
) -> None:
    """The search of :mod:`fastq.kernels.quantize.descent` on rows of x; improves `values` (scale, zero, offset)."""
    search = make_search(trial, make_better(trial), np.rint, lambda value, x: x.dtype.type(value))
    kind = x.dtype.type
    sums, best = np.zeros(SUMS, x.dtype), np.zeros(4, x.dtype)
    scale, zero, offset = (v.reshape(-1) for v in values)
    with np.errstate(all="ignore"):
        for i in np.flatnonzero(factor > 0):
            f = factor[i]
            best[1:] = scale[i] * f, zero[i], offset[i] * f
            bounds = low[i] * f, high[i] * f, kind(limits.low), kind(limits.high)
            search(x[i], weights[i % len(weights)], x.shape[1], f, scheme, *bounds, sums, best)
            scale[i], zero[i], offset[i] = best[1] / f, best[2], best[3] / f


def search_shared(
    x: Floats,
    weights: Floats,
    size: int,
    factor: Floats,
    values: tuple[Floats, ...],
    limits: CodeRange,
    limit: int,
    scheme: int,
) -> None:
    """Integer scales for every row of x; `values` are as in :class:`fastq.kernels.jobs.SharedJob`."""
    shared, scales, zeros, group_scales, group_zeros = values
    assign = make_joint(trial, np.rint, lambda value, x: x.dtype.type(value), lambda x, i: x[i:])
    shared_scale = make_shared(assign, lambda value, x: x.dtype.type(value))
    kind = x.dtype.type
    sums, totals = np.zeros(SUMS, x.dtype), np.zeros(SUMS, x.dtype)
    bounds = kind(limits.low), kind(limits.high), kind(limit)
    scales *= factor[:, None]
    with np.errstate(all="ignore"):
        for i, f in enumerate(factor):
            column = x[i], weights, x.shape[1], size, f, scheme, *bounds
            groups = scales[i], zeros[i], group_scales[i], group_zeros[i]
            shared[i] = shared_scale(column, shared[i] * f, groups, sums, totals) / f


def rotated(x: Floats, block: int) -> Floats:
    """Blocks of the last axis times a Hadamard matrix of `block` rows, a power of two, whose elements are 1 and -1.

    It is symmetric, and its own inverse but for a factor of `block`.
    """
    half = 1
    with np.errstate(over="ignore", invalid="ignore"):
        while half < block:
            pairs = x.reshape(*x.shape[:-1], x.shape[-1] // (2 * half), 2, half)  # -1 has no size where x is empty
            low, high = pairs[..., 0, :], pairs[..., 1, :]
            x = np.stack([low + high, low - high], axis=-2).reshape(x.shape)
            half *= 2
    return x


def compensate(
    target: Floats,
    carry: Floats,
    weight: Floats,
    scale: Floats,  # [candidates][1 or rows][n], like zero and offset
    zero: Floats,
    offset: Floats,
    limits: CodeRange,
    loss: Floats,  # [candidates][n]
    codes: npt.NDArray[Any] | None,
) -> None:
    """Rounding with errors carried on, as :class:`fastq.kernels.jobs.CompensateJob` has it."""
    for candidate in range(len(scale)):
        values = target.copy()
        loss[candidate] = 0
        for i, value in enumerate(values):
            s, z, o = (p[candidate][i if p.shape[1] > 1 else 0] for p in (scale, zero, offset))
            code = np.clip(np.rint((value - o) / s) + z, limits.low, limits.high)
            rounded = s * (code - z) + o
            miss = rounded - value
            loss[candidate] += miss * miss * weight[i]
            values[i + 1 :] -= carry[i, i + 1 :, None] * (rounded - target[i])
            if codes is not None:
                codes[i] = code
