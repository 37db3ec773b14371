"""Quantizing arrays: geometry, parameters, codes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.engine.views import FlatParams, GroupedView
from fastq.errors import NotFiniteError
from fastq.kernels import jobs, reference
from fastq.layout.tiles import ceil_div
from fastq.scheme import SCHEMES, CodeRange, code_range

Array = npt.NDArray[Any]
CHECKED = 1 << 24  # elements that are looked at together for what is not finite, since they may lie in a large file
LONG_RUN = 16384  # a whole array under one scale is cut into runs of this length, for threads to share


class Quantized(NamedTuple):
    """Codes and parameters; parameters have one entry per group along the axis."""

    codes: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    zero: npt.NDArray[np.int32] | None
    offset: npt.NDArray[Any] | None
    factors: npt.NDArray[np.int8] | None = None  # integer scales of groups, which `scale` is shared by


def parameter_shape(shape: tuple[int, ...], axis: int | None, group: int | None) -> tuple[int, ...]:
    """The shape of scale: ``np.max(x, axis, keepdims=True).shape``, or one entry per group along the axis."""
    if axis is None:
        return (1,) * len(shape)
    along = 1 if group is None else max(1, ceil_div(shape[axis], group))
    return (*shape[:axis], along, *shape[axis + 1 :])


def expand(values: npt.NDArray[Any], shape: tuple[int, ...], axis: int | None, group: int | None) -> npt.NDArray[Any]:
    """Parameters in a form that broadcasts to the array."""
    if axis is None or group is None or values.shape[axis] == 1:
        return values
    return np.take(values, np.arange(shape[axis]) // group, axis=axis)


class Turned(NamedTuple):
    """The balance factors of the channels along an axis, and the block size of their rotation (1: none)."""

    axis: int | None
    factors: Array | None
    block: int


def restore(codes: Array, parameters: Sequence[Array | None], limits: CodeRange, channels: Turned, out: Array) -> None:
    """``out = scale * (codes - zero) + offset``, channels turned back, computed in scale's type.

    The three parameters broadcast to codes.
    """
    scale, zero, offset = parameters
    assert scale is not None
    work, wanted = scale.dtype, out.dtype
    values = out if wanted == work else np.empty(out.shape, work)
    if zero is not None:
        np.subtract(codes, zero, out=values, dtype=work, casting="unsafe")
        np.multiply(values, scale, out=values)
    else:
        np.multiply(codes, scale, out=values, dtype=work)
    if offset is not None:
        np.add(values, offset, out=values)
    factor = unbalance(values, *channels)
    # Rounding the zero point may move the ends of the range past what the type holds.
    span = limits.high - min(0, limits.low)
    largest = float(np.finfo(wanted).max) if wanted.kind == "f" else float(np.finfo(np.float32).max)
    if out.size and span * factor * float(np.abs(scale).max()) > largest:
        np.clip(values, -largest, largest, out=values)
    if values is not out:
        out[...] = values.astype(wanted)


def check_finite(x: npt.NDArray[Any], what: str) -> None:
    """Raise NotFiniteError that counts and locates what is not finite."""
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
    """The error that counts and locates what is not finite."""
    verb = "is" if count == 1 else "are"
    return NotFiniteError(
        f"{what} must be finite, because NaN and infinity have no code; {count} of {size} values {verb} not, "
        f"the first at index {first} ({value})"
    )


def _runs(shape: tuple[int, ...], axis: int | None, group: int | None) -> tuple[list[GroupedView], int]:
    """The calls that cover a C-contiguous array, whole groups before the ragged last one, and how many extremes."""
    if axis is None:
        size = prod(shape)
        rows, rest = divmod(size, LONG_RUN)
        calls = [GroupedView(rows, 1, LONG_RUN, 1, LONG_RUN, 0, 1, 0)] if rows else []
        if rest or size == 0:
            calls.append(GroupedView(1, 1, rest, 1, 0, 0, 1, 0, rows * LONG_RUN, rows))
        return calls, len(calls) and rows + (rest > 0 or size == 0)
    outer, n, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    size = max(1, n) if group is None else group
    groups, whole = max(1, ceil_div(n, size)), n // size
    pitch, sets = n * inner, groups * inner
    calls = []
    if whole:
        calls.append(GroupedView(outer, whole, size, inner, pitch, size * inner, sets, inner))
    if n % size or n == 0:
        calls.append(GroupedView(outer, 1, n % size, inner, pitch, 0, sets, inner, whole * size * inner, whole * inner))
    return calls, outer * sets


class Given(NamedTuple):
    """Parameters chosen beforehand; they broadcast to :func:`parameter_shape`."""

    scale: npt.NDArray[Any]
    zero: npt.NDArray[Any] | None = None
    offset: npt.NDArray[Any] | None = None


def quantize(
    x: npt.NDArray[Any],
    bits: int,
    axis: int | None,
    group: int | None,
    scheme: str,
    given: Given | None = None,
    name: str = "x",
) -> Quantized:
    """Codes of a float32 or float64 array, with given parameters or those of its extremes."""
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        # What lies in memory column by column is quantized as what it is in memory: its transpose.
        back = None if axis is None else x.ndim - 1 - axis
        turned = None if given is None else Given(*(None if p is None else p.T for p in given))  # type: ignore[arg-type]
        try:
            result = quantize(x.T, bits, back, group, scheme, turned, name)
        except NotFiniteError:
            check_finite(x, name)  # the same, with the index in x
            raise
        return Quantized(*(None if p is None else p.T for p in result))  # type: ignore[arg-type]
    x = np.asarray(x, order="C")
    if not x.flags.aligned:
        x = x.copy()
    limits = code_range(bits, scheme)
    codes = np.empty(x.shape, np.int8 if limits.signed else np.uint8)
    calls, spots = _runs(x.shape, axis, group)
    shape = parameter_shape(x.shape, axis, group)
    found = _room(x, shape, given, spots)
    number, run = SCHEMES.index(scheme), backend(x.size).quantize
    status = 0
    if axis is None and given is None:
        status = _choose_whole(x, calls, found, limits, number)
    if not status:
        work = jobs.WRITE if given is not None or axis is None else jobs.FIND | jobs.CHOOSE | jobs.WRITE
        for call in calls:
            at = call._replace(param_pitch=0, param_start=0) if axis is None else call
            status |= run(x, codes, at, found, limits, number, work)
    if (given is not None and not np.isfinite(x).all()) or status & jobs.NOT_FINITE:
        check_finite(x, name)
    if status & jobs.SPAN_OVERFLOW:
        raise ValueError(_SPAN)
    return Quantized(
        codes,
        found.scale.reshape(shape),
        found.zero.astype(np.int32).reshape(shape) if scheme == "asymmetric" else None,
        found.offset.reshape(shape) if scheme == "affine" else None,
    )


def _room(x: npt.NDArray[Any], shape: tuple[int, ...], given: Given | None, spots: int) -> FlatParams:
    """Flat arrays for the parameters, holding those that are given."""
    if given is None:
        scale, zero, offset = (np.empty(prod(shape), x.dtype) for _ in range(3))
    else:
        values = (np.asarray(0 if p is None else p, x.dtype) for p in given)
        wanted = (np.require(np.broadcast_to(v, shape), requirements=["C", "A"]) for v in values)
        scale, zero, offset = (v.reshape(-1) for v in wanted)
    return FlatParams(scale, zero, offset, np.empty(spots, x.dtype), np.empty(spots, x.dtype))


def _choose_whole(
    x: npt.NDArray[Any], calls: list[GroupedView], found: FlatParams, limits: CodeRange, number: int
) -> int:
    """Parameters of a whole array, from the extremes of its parts."""
    status, run = 0, backend(x.size).quantize
    for call in calls:
        status |= run(x, None, call, found, limits, number, jobs.FIND)
    if status:
        return status
    extremes = found._replace(minimum=found.minimum.min(keepdims=True), maximum=found.maximum.max(keepdims=True))
    return run(x, None, GroupedView(1, 1, 0, 1, 0, 0, 0, 0), extremes, limits, number, jobs.CHOOSE)


_SPAN = (
    "max - min of affine data must be finite in its float type; it overflows, so codes would be meaningless: "
    "scale the data down, convert it to float64, or use scheme='symmetric'"
)


def find(x: Array, axis: int | None, group: int | None, scheme: str) -> tuple[Array, Array] | None:
    """Extremes of each run, for :func:`chosen`; None if x is not finite. Those of parts of a run may be merged."""
    x = np.require(x, requirements=["C", "A"])
    calls, spots = _runs(x.shape, axis, group)
    shape = parameter_shape(x.shape, axis, group)
    found = _room(x, shape, None, spots)
    number, status = SCHEMES.index(scheme), 0
    for call in calls:
        status |= backend(x.size).quantize(x, None, call, found, code_range(8, scheme), number, jobs.FIND)
    if status & jobs.NOT_FINITE:
        return None
    if axis is None:
        return found.minimum.min().reshape(shape), found.maximum.max().reshape(shape)
    return found.minimum.reshape(shape), found.maximum.reshape(shape)


def chosen(low: Array, high: Array, bits: int, scheme: str) -> Given:
    """Parameters of runs with these extremes, bit for bit those that :func:`quantize` finds."""
    flat = (np.ascontiguousarray(end).reshape(-1) for end in (low, high))
    found = FlatParams(*(np.empty(low.size, low.dtype) for _ in range(3)), *flat)
    view, number = GroupedView(low.size, 1, 0, 1, 0, 0, 1, 0), SCHEMES.index(scheme)
    if backend(low.size).quantize(low, None, view, found, code_range(bits, scheme), number, jobs.CHOOSE):
        raise ValueError(_SPAN)
    scale, zero, offset = (p.reshape(low.shape) for p in found[:3])
    return _given(scale, zero, offset, scheme)


def _given(scale: Array, zero: Array, offset: Array, scheme: str) -> Given:
    """The parameters that a scheme has."""
    return Given(
        scale, zero.astype(np.int32) if scheme == "asymmetric" else None, offset if scheme == "affine" else None
    )


def balanced(x: Array, axis: int | None, factors: Array, block: int) -> Array:
    """``H x / (factors * block)``, H being the rotation of blocks of channels: the inverse of :func:`unbalance`."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result: Array = x / (factors * np.float32(block))
    _rotate(result, axis, block)
    return result


def unbalance(x: Array, axis: int | None, factors: Array | None, block: int) -> float:
    """Make x ``factors * H x``, in place, if there are factors; returns how much larger its elements may become."""
    if factors is None or not x.size:
        return 1.0
    _rotate(x, axis, block)
    np.multiply(x, factors, out=x)
    return block * float(factors.max())


def _rotate(x: Array, axis: int | None, block: int) -> None:
    if axis is not None and block > 1:
        lines = np.moveaxis(x, axis, -1)
        lines[...] = reference.rotated(lines, block)


def extremes(x: npt.NDArray[Any], axis: int | None, group: int | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Minimum and maximum of each run that shares a scale; 0 and 0 where a run is empty."""
    if axis is None:
        if x.size == 0:
            return np.zeros((1,) * x.ndim, x.dtype), np.zeros((1,) * x.ndim, x.dtype)
        return x.min(keepdims=True), x.max(keepdims=True)
    if x.shape[axis] == 0:
        shape = parameter_shape(x.shape, axis, group)
        return np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    starts = np.arange(0, x.shape[axis], group or x.shape[axis])
    return np.minimum.reduceat(x, starts, axis=axis), np.maximum.reduceat(x, starts, axis=axis)


def choose(low: npt.NDArray[Any], high: npt.NDArray[Any], bits: int, scheme: str) -> Given:
    """Scale, zero point and offset from extremes, by the scalar functions that the kernels compile."""
    if scheme == "affine":
        with np.errstate(over="ignore"):
            if not np.isfinite(high - low).all():
                raise ValueError(_SPAN)
    parameters = reference.parameters(low, high, code_range(bits, scheme), SCHEMES.index(scheme))
    return _given(*parameters, scheme)
