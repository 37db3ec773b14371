"""The definition of right: every kernel's result in plain NumPy, slow and obvious."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.kernels.descent import SUMS, make_better, make_search
from fastq.scheme import CodeRange

Floats = npt.NDArray[Any]


def codes(x: Floats, scale: Floats, zero: Floats, offset: Floats | None, limits: CodeRange) -> npt.NDArray[Any]:
    """``clip(rint((x - offset) / scale) + zero, low, high)``, as int8 or uint8; parameters broadcast to x."""
    with np.errstate(over="ignore"):
        shifted = x if offset is None else x - offset
        steps = np.rint(shifted / scale) + np.asarray(zero, x.dtype)
    clipped = np.asarray(np.clip(steps, limits.low, limits.high))
    return clipped.astype(np.int8 if limits.signed else np.uint8)


def product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The exact product of integers."""
    result: npt.NDArray[np.int64] = np.matmul(left.astype(np.int64), right.astype(np.int64))
    return result


def epilogue(
    acc: npt.NDArray[np.int64],  # one segment's product of the codes minus their zero points
    row_scale: Floats,
    col_scale: Floats,
    row_affine: Floats | None = None,  # row_scale * sum(left code - zero) and row_offset, stacked
    col_affine: Floats | None = None,  # col_offset and col_scale * sum(right code - zero) + k * col_offset, stacked
) -> Floats:
    """One segment's contribution to a float product, in the order and rounding that kernels keep to."""
    y = (acc.astype(row_scale.dtype) * row_scale[:, None]) * col_scale[None, :]
    if row_affine is not None and col_affine is not None:
        y = (y + row_affine[0][:, None] * col_affine[0]) + row_affine[1][:, None] * col_affine[1]
    return y


LANES = 16


def trial(
    x: Floats, n: int, factor: Any, scale: Any, zero: Any, offset: Any, low: Any, high: Any, sums: Floats
) -> None:
    """One pass of the search over a run, adding in the order in which kernels do: 16 lanes, then the rest."""
    value = x[:n] * factor - offset
    code = np.clip(np.rint(value * (value.dtype.type(1) / scale)) + zero, low, high) - zero
    rest = value - scale * code
    bulk = n // LANES * LANES
    for i, term in enumerate((rest * rest, value * code, code * code, code, value)):
        # accumulate adds one after the other, where sum would add in pairs
        lanes = np.add.accumulate(term[:bulk].reshape(-1, LANES), axis=0)[-1:].reshape(-1)
        sums[i] = np.add.accumulate(np.concatenate([lanes if bulk else np.zeros(1, x.dtype), term[bulk:]]))[-1]


def search_runs(
    x: Floats, factor: Floats, low: Floats, high: Floats, values: list[Floats], limits: CodeRange, scheme: int
) -> None:
    """The search of :mod:`fastq.kernels.descent` on every row of x; improves `values` (scale, zero, offset)."""
    search = make_search(trial, make_better(trial), np.rint, lambda value, x: x.dtype.type(value))
    kind = x.dtype.type
    sums, best = np.zeros(SUMS, x.dtype), np.zeros(4, x.dtype)
    scale, zero, offset = (v.reshape(-1) for v in values)
    with np.errstate(all="ignore"):
        for i in np.flatnonzero(factor > 0):
            f = factor[i]
            best[1:] = scale[i] * f, zero[i], offset[i] * f
            bounds = low[i] * f, high[i] * f, kind(limits.low), kind(limits.high)
            search(x[i], x.shape[1], f, scheme, *bounds, sums, best)
            scale[i], zero[i], offset[i] = best[1] / f, best[2], best[3] / f


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
