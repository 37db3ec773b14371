"""Quantizing arrays by their extremes, or with given parameters."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.engine.views import FlatParams, GroupedView
from fastq.errors import NotFiniteError
from fastq.kernels import jobs, reference
from fastq.promotion import check_real, is_float
from fastq.quant.spec import Quantized, QuantParams, QuantSpec, cut, expand, parameter_shape

Array = npt.NDArray[Any]
CHECKED = 1 << 24  # elements checked for NaN and infinity at a time, because they may lie in a large file
LONG_RUN = 16384  # a whole array under one scale is cut into runs of this length, for threads to share


def restore(codes: Array, spec: QuantSpec, params: QuantParams, balance: Array | None, out: Array) -> None:
    """``out = balance * H (scale * (codes - zero) + offset)``, computed in scale's type; H is the rotation.

    If that is one of 16 bits, the product is rounded to it, and then the sum.
    """
    scale, zero, offset, _ = params.mapped(lambda p: expand(p, codes.shape, spec.axis, spec.group))
    limits, work = spec.limits, scale.dtype
    values = out if out.dtype == work else np.empty(out.shape, work)
    if (
        offset is not None and work.itemsize == 2
    ):  # neither balanced nor rotated; what overflows is infinite, as in NumPy
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(codes, scale, out=values, dtype=work)
            np.add(values, offset, out=values)
            out[...] = values.astype(out.dtype, copy=False)
        return
    if zero is not None:
        np.subtract(codes, zero, out=values, dtype=work, casting="unsafe")
        np.multiply(values, scale, out=values)
    else:
        np.multiply(codes, scale, out=values, dtype=work)
    if offset is not None:
        np.add(values, offset, out=values)
    factor = unbalance(values, spec.axis, balance, spec.rotation)
    # Rounding the zero point may move the ends of the range past what the type holds.
    span = limits.high - min(0, limits.low)
    largest = float(np.finfo(out.dtype).max) if out.dtype.kind == "f" else float(np.finfo(np.float32).max)
    if out.size and span * factor * float(np.abs(scale).max()) > largest:
        np.clip(values, -largest, largest, out=values)
    if values is not out:
        out[...] = values.astype(out.dtype)


def finite_numbers(x: Any, name: str) -> Array:
    """An array of finite real numbers, checked."""
    array = np.asarray(x)
    check_real(array, name)
    if is_float(array.dtype):
        check_finite(array, name)
    return array


def check_finite(x: Array, what: str) -> None:
    """Raise a NotFiniteError that counts and locates NaN and infinity, if there are any."""
    rows = np.atleast_1d(x)
    step = max(1, CHECKED * len(rows) // max(1, x.size))
    count, first = 0, None
    for start in range(0, len(rows), step):
        bad = ~np.isfinite(rows[start : start + step])
        count += int(bad.sum())
        if count and first is None:
            row, *rest = np.unravel_index(int(bad.argmax()), bad.shape)
            first = (start + int(row), *map(int, rest))[: x.ndim]
    if first is not None:
        raise not_finite(what, count, x.size, first, x[first])


def not_finite(what: str, count: int, size: int, first: tuple[int, ...], value: Any) -> NotFiniteError:
    """The error that counts and locates NaN and infinity."""
    verb = "is" if count == 1 else "are"
    return NotFiniteError(
        f"{what} must be finite, because NaN and infinity have no code; {count} of {size} values {verb} not, "
        f"the first at index {first} ({value})"
    )


def _views(shape: tuple[int, ...], spec: QuantSpec) -> tuple[list[GroupedView], int]:
    """The views that cover a C-contiguous array, whole groups first, and the number of its minima."""
    axis, views = spec.axis, []
    if axis is None:
        for start, first, runs, n in cut(prod(shape), LONG_RUN):
            views.append(GroupedView(runs, 1, n, 1, n, 0, 1, 0, start, first))
        return views, first + runs
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    pitch, sets = length * inner, parameter_shape(shape, axis, spec.group)[axis] * inner
    for start, first, groups, n in cut(length, spec.group):
        starts = start * inner, first * inner
        views.append(GroupedView(outer, groups, n, inner, pitch, n * inner, sets, inner, *starts))
    return views, outer * sets


def _run(
    x: Array, codes: Array | None, views: list[GroupedView], params: FlatParams, spec: QuantSpec, work: int
) -> int:
    """Some passes (FIND, CHOOSE, WRITE) over all views; the kernels' status."""
    quantize, status = backend(x.size).quantize, 0
    for view in views:
        status |= quantize(x, codes, view, params, spec.limits, spec.number, work)
    return status


def quantize(
    x: Array, spec: QuantSpec, given: QuantParams | None = None, name: str = "x", finite: bool = False
) -> Quantized:
    """Codes of a float32 or float64 array, with given parameters (by group) or those of its extremes.

    `finite`: x is known to be; only with given parameters it would be looked at anew.
    """
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        # An array that lies by columns is quantized as its transpose, which lies by rows.
        axis = None if spec.axis is None else x.ndim - 1 - spec.axis
        try:
            codes, params = quantize(
                x.T, spec._replace(axis=axis), None if given is None else given.mapped(np.transpose), name, finite
            )
        except NotFiniteError:
            check_finite(x, name)  # the same error, with the index in x
            raise
        return Quantized(codes.T, params.mapped(np.transpose))
    x = np.asarray(x, order="C")
    if not x.flags.aligned:
        x = x.copy()
    codes = np.empty(x.shape, np.int8 if spec.limits.signed else np.uint8)
    views, spots = _views(x.shape, spec)
    shape = spec.parameter_shape(x.shape)
    flat = _room(x, shape, given, spots)
    status, work = 0, jobs.FIND | jobs.CHOOSE | jobs.WRITE if given is None else jobs.WRITE
    if spec.axis is None:
        if given is None:
            status, work = _choose_whole(x, views, flat, spec), jobs.WRITE
        views = [view._replace(param_pitch=0, param_start=0) for view in views]
    if not status:
        status = _run(x, codes, views, flat, spec, work)
    if (given is not None and not finite and not np.isfinite(x).all()) or status & jobs.NOT_FINITE:
        check_finite(x, name)
    if status & jobs.SPAN_OVERFLOW:
        raise ValueError(_SPAN)
    return Quantized(codes, QuantParams.of_scheme(spec.scheme, *(p.reshape(shape) for p in flat[:3])))


def _room(x: Array, shape: tuple[int, ...], given: QuantParams | None, spots: int) -> FlatParams:
    """Flat arrays for the parameters; they hold those that are given."""
    if given is None:
        scale, zero, offset = (np.empty(prod(shape), x.dtype) for _ in range(3))
    else:
        values = (np.asarray(0 if p is None else p, x.dtype) for p in given[:3])
        whole = (np.require(np.broadcast_to(v, shape), requirements=["C", "A"]) for v in values)
        scale, zero, offset = (v.reshape(-1) for v in whole)
    return FlatParams(scale, zero, offset, np.empty(spots, x.dtype), np.empty(spots, x.dtype))


def _choose_whole(x: Array, views: list[GroupedView], flat: FlatParams, spec: QuantSpec) -> int:
    """Parameters of a whole array, from the extremes of its parts."""
    if status := _run(x, None, views, flat, spec, jobs.FIND):
        return status
    extremes = flat._replace(minimum=flat.minimum.min(keepdims=True), maximum=flat.maximum.max(keepdims=True))
    return _run(x, None, [GroupedView(1, 1, 0, 1, 0, 0, 0, 0)], extremes, spec, jobs.CHOOSE)


_SPAN = (
    "max - min of affine data must be finite in its float type; it overflows, so codes would be meaningless: "
    "scale the data down, convert it to float64, or use scheme='symmetric'"
)


def find(x: Array, spec: QuantSpec) -> tuple[Array, Array] | None:
    """Extremes of each run, for :func:`chosen`; None if x is not finite. Extremes of parts of a run can be merged."""
    x = np.require(x, requirements=["C", "A"])
    views, spots = _views(x.shape, spec)
    shape = spec.parameter_shape(x.shape)
    flat = _room(x, shape, None, spots)
    if _run(x, None, views, flat, spec, jobs.FIND) & jobs.NOT_FINITE:
        return None
    if spec.axis is None:
        return flat.minimum.min().reshape(shape), flat.maximum.max().reshape(shape)
    return flat.minimum.reshape(shape), flat.maximum.reshape(shape)


def chosen(low: Array, high: Array, spec: QuantSpec) -> QuantParams:
    """Parameters of runs with these extremes, bit for bit those that :func:`quantize` chooses."""
    ends = (np.ascontiguousarray(end).reshape(-1) for end in (low, high))
    flat = FlatParams(*(np.empty(low.size, low.dtype) for _ in range(3)), *ends)
    if _run(flat.minimum, None, [GroupedView(low.size, 1, 0, 1, 0, 0, 1, 0)], flat, spec, jobs.CHOOSE):
        raise ValueError(_SPAN)
    return QuantParams.of_scheme(spec.scheme, *(p.reshape(low.shape) for p in flat[:3]))


def balanced(x: Array, axis: int | None, factors: Array, block: int) -> Array:
    """``H x / (factors * block)``, H being the rotation of blocks of channels: the inverse of :func:`unbalance`."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result: Array = x / (factors * np.float32(block))
    _rotate(result, axis, block)
    return result


def unbalance(x: Array, axis: int | None, factors: Array | None, block: int) -> float:
    """Make x ``factors * H x``, in place, if there are factors; return by what factor elements may grow."""
    if factors is None or not x.size:
        return 1.0
    _rotate(x, axis, block)
    np.multiply(x, factors, out=x)
    return block * float(factors.max())


def _rotate(x: Array, axis: int | None, block: int) -> None:
    if axis is not None and block > 1:
        lines = np.moveaxis(x, axis, -1)
        lines[...] = reference.rotated(lines, block)


def extremes(x: Array, spec: QuantSpec) -> tuple[Array, Array]:
    """Minimum and maximum of each run that shares a scale; 0 and 0 where a run is empty. In NumPy."""
    axis, shape = spec.axis, spec.parameter_shape(x.shape)
    if (x.size if axis is None else x.shape[axis]) == 0:
        return np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    if axis is None:
        return x.min(keepdims=True), x.max(keepdims=True)
    starts = np.arange(0, x.shape[axis], spec.group or x.shape[axis])
    return np.minimum.reduceat(x, starts, axis=axis), np.maximum.reduceat(x, starts, axis=axis)
