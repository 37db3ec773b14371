"""The native backend: functions that fill a job, and hand it with its kernel to the threads.

The arguments have been checked: their shapes and types agree. :mod:`fastq.engine.pointers` gives the addresses, and
compares each array with its job once more. :mod:`fastq.engine.reference` has the same functions in NumPy, and
:mod:`fastq.engine.backend` chooses. Products are in :mod:`fastq.engine.prepared`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.choices import parameters
from fastq.engine.groups import GroupScales, quarters
from fastq.engine.memory import aligned, passing
from fastq.engine.operands import Array, Right
from fastq.engine.plan import SHARES, share, this_machine
from fastq.engine.pointers import flat, of_bytes, of_floats, strided, written
from fastq.engine.views import FlatParams, GroupedView
from fastq.kernels import table
from fastq.kernels.jobs import (
    CHOOSE,
    FIND,
    SPAN_OVERFLOW,
    WRITE,
    CompensateJob,
    QuantizeJob,
    RightFloatsJob,
    RightJob,
    SearchJob,
    SharedJob,
    UnpackJob,
)
from fastq.layout.tiles import BLOCK, Segments, TileFormat, ceil_div, right_bytes
from fastq.machine import pool
from fastq.machine.jit import kernel
from fastq.machine.job import Job
from fastq.scheme import CodeRange, code_range

# The kinds of floats as names of kernels tell them; only left operands may be f16.
KIND = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64", np.dtype(np.float16): "f16"}


def float_kind(dtype: np.dtype[Any]) -> str | None:
    """The kind of floats that a left operand can be read from as it is; None: it must be converted."""
    return KIND.get(dtype) or ("bf16" if dtype.name == "bfloat16" else None)  # a name takes 3 us to make


def start(entry: table.Entry, job: Job, workers: int) -> None:
    """Run a kernel of the table."""
    pool.run(kernel(*entry), job, workers)


def fill_segments(job: Any, k_segments: Segments) -> None:
    """Put the segments of K into a job."""
    job.steps, job.segments = k_segments.steps, k_segments.segments
    job.segment_steps, job.segment_k = k_segments.step_size, k_segments.size


BAND = 64  # rows that a thread takes at a time where parameters go down the columns


def quantize(
    x: Array,
    codes: Array | None,
    view: GroupedView,
    params: FlatParams,
    limits: tuple[int, int],
    scheme: int,
    work: int,
) -> int:
    """Find extremes, choose parameters, write codes, as `work` says; returns the kernels' status."""
    kind, size = KIND[x.dtype], x.itemsize
    workers = share(view.outer * view.groups * view.n * view.inner * size, this_machine())
    job = QuantizeJob(low=limits[0], high=limits[1], scheme=scheme, work=work)
    for name in ("outer", "groups", "n", "inner", "outer_pitch", "group_pitch", "param_pitch", "group_param"):
        setattr(job, name, getattr(view, name))
    job.x = flat(x, x.dtype, view.elements) + view.start * size
    if codes is not None:
        job.codes = written(codes, np.int8 if limits[0] < 0 else np.uint8, view.elements) + view.start
    first = view.param_start * size
    for names, read, write in (("minimum", "maximum"), CHOOSE, FIND), (("scale", "zero", "offset"), WRITE, CHOOSE):
        place = written if work & write else flat
        for name in names if work & (read | write) else ():
            setattr(job, name, place(getattr(params, name), x.dtype, view.sets) + first)
    if view.inner == 1:
        job.band = max(1, min(16384 // max(1, view.n), ceil_div(view.outer * view.groups, 4 * workers)))
        start(table.quantize("rows", kind), job, workers)
        return int(job.status)
    return _quantize_columns(job, view, params, kind, workers)


def _quantize_columns(job: Any, view: GroupedView, params: FlatParams, kind: str, workers: int) -> int:
    entry = table.quantize("columns", kind)
    work, shape = job.work, (view.outer, view.groups * view.inner)

    def of_sets(*arrays: Array) -> list[Array]:
        return [strided(p, view.param_start, shape, (view.param_pitch, 1)) for p in arrays]

    if work & FIND:
        bands = min(SHARES * workers, ceil_div(view.n, BAND))
        job.band = ceil_div(view.n, bands)
        bands = ceil_div(view.n, job.band)
        partial = np.empty((2, view.outer, view.groups, bands, view.inner), params.scale.dtype)
        job.work = FIND
        job.minimum, job.maximum = (flat(part, params.scale.dtype, part.size) for part in partial)
        start(entry, job, workers)
        low, high = of_sets(params.minimum, params.maximum)
        low[...], high[...] = (end(part, axis=2).reshape(shape) for end, part in zip((np.min, np.max), partial))
    if work & CHOOSE and not job.status:
        scale, zero, offset, low, high = of_sets(*params)
        with np.errstate(over="ignore"):
            if job.scheme == 2 and not np.isfinite(high - low).all():
                return SPAN_OVERFLOW
        scale[...], zero[...], offset[...] = parameters(low, high, CodeRange(job.low, job.high), job.scheme)
    if work & WRITE and not job.status:
        job.work, job.ticket, job.band = WRITE, 0, BAND
        start(entry, job, workers)
    return int(job.status)


def search(
    x: Array,
    weights: Array,
    factor: Array,
    low: Array,
    high: Array,
    values: list[Array],
    limits: tuple[int, int],
    scheme: int,
) -> None:
    """Improve the parameters `values` (scale, zero, offset) of each row of x; all arrays contiguous, of one type.

    Row i of x takes row ``i % len(weights)`` of the weights.
    """
    runs, n = x.shape
    job = SearchJob(runs=runs, n=n, scheme=scheme, low=limits[0], high=limits[1], weight_runs=len(weights))
    job.x, job.weights = flat(x, x.dtype, runs * n), flat(weights, x.dtype, len(weights) * n)
    for name, array in (("factor", factor), ("minimum", low), ("maximum", high)):
        setattr(job, name, flat(array, x.dtype, runs))
    for name, array in zip(("scale", "zero", "offset"), values):
        setattr(job, name, written(array, x.dtype, runs))
    start(table.search(KIND[x.dtype]), job, share(64 * x.nbytes, this_machine()))


def search_shared(
    x: Array,
    weights: Array,
    size: int,
    factor: Array,
    values: tuple[Array, ...],
    limits: tuple[int, int],
    limit: int,
    scheme: int,
) -> None:
    """Choose integer scales for groups of each row of x; `values` as in :class:`fastq.kernels.jobs.SharedJob`."""
    columns, k = x.shape
    groups = ceil_div(k, size)
    job = SharedJob(columns=columns, k=k, size=size, groups=groups, scheme=scheme, limit=limit)
    job.low, job.high = limits
    job.x, job.weights = flat(x, x.dtype, columns * k), flat(weights, x.dtype, k)
    job.factor, job.shared_scale = flat(factor, x.dtype, columns), written(values[0], x.dtype, columns)
    for name, array in zip(("scale", "zero", "group_scale", "group_zero"), values[1:]):
        setattr(job, name, written(array, x.dtype, columns * groups))
    start(table.shared(KIND[x.dtype]), job, share(32 * x.nbytes, this_machine()))


def compensate(
    target: Array,
    carry: Array,
    weight: Array,
    scale: Array,
    zero: Array,
    offset: Array,
    limits: tuple[int, int],
    loss: Array,
    codes: Array | None,
) -> None:
    """Round rows to codes, each row's error carried on; all arrays contiguous, floats of one type.

    Parameters have shape (candidates, 1 or rows, n); `loss` (candidates, n) and `codes` are written.
    """
    (m, n), kind = target.shape, target.dtype
    candidates, sets = scale.shape[:2]
    job = CompensateJob(rows=m, n=n, candidates=candidates, low=limits[0], high=limits[1])
    job.row_pitch, job.candidate_pitch = n if sets > 1 else 0, sets * n
    job.target, job.carry, job.weight = flat(target, kind, m * n), flat(carry, kind, m * m), flat(weight, kind, m)
    for name, array in (("scale", scale), ("zero", zero), ("offset", offset)):
        setattr(job, name, flat(array, kind, candidates * sets * n))
    job.loss = written(loss, kind, candidates * n)
    if codes is not None:
        job.codes = written(codes, np.int8 if limits[0] < 0 else np.uint8, m * n)
    work = candidates * m * target.nbytes // 4
    start(table.compensate(KIND[target.dtype]), job, share(work, this_machine()))


def pack_right(codes: Array, low: int, bits: int, k_segments: Segments) -> Right:
    """Pack a matrix of codes (K x N, any strides), relative to the lowest code."""
    k, n = codes.shape
    job = RightJob(shift=-low)
    job.codes, job.k_pitch, job.n_pitch = of_bytes(codes, (k, n))
    room = aligned(right_bytes(k_segments, n, bits))
    return _pack(table.right_pack(bits), job, k_segments, n, bits, codes.nbytes, room)


def quantize_right(x: Array, bits: int, k_segments: Segments) -> tuple[Right, Array] | None:
    """Quantize a matrix of floats (contiguous by rows or columns) by column, symmetric by max|x|, and pack it.

    Gives the scales, too; None if it is not finite. The tiles are for a product or two, not to be kept.
    """
    (k, n), kind, limits = x.shape, x.dtype, code_range(bits, "symmetric")
    params = FlatParams(*(np.empty(n, kind) for _ in range(5)))
    by_row = x.flags.c_contiguous
    view = GroupedView(1, 1, k, n, k * n, 0, n, n) if by_row else GroupedView(n, 1, k, 1, k, 0, 1, 0)
    if quantize(x if by_row else x.T, None, view, params, limits, 0, FIND | CHOOSE):
        return None
    enough = params.scale >= np.finfo(kind).tiny
    inverse = np.divide(1, params.scale, where=enough, out=np.full(n, np.nan, kind))
    job = RightFloatsJob(low=limits.low, high=limits.high)
    job.x, job.k_pitch, job.n_pitch = of_floats(x, kind, (k, n))
    job.scale, job.inverse = (flat(values, kind, n) for values in (params.scale, inverse))
    room = passing(right_bytes(k_segments, n, bits))
    return _pack(table.right_floats(KIND[kind], bits), job, k_segments, n, bits, x.nbytes, room), params.scale


def _pack(entry: table.Entry, job: Any, k_segments: Segments, n: int, bits: int, nbytes: int, room: Array) -> Right:
    """A packed operand, with its tiles in `room`, from a job that says what is packed, of so many bytes.

    Where rows of the matrix are contiguous, a ticket is a part of K, so that they are read along: strips of 64 columns
    took twice as long, most of it for finding pages. The sums of parts are added up.
    """
    right = Right(room, k_segments, n, TileFormat(bits), None)
    workers, blocks, tiles = share(nbytes + right.tiles.nbytes, this_machine()), right.width // BLOCK, k_segments.tiles
    tickets = SHARES * workers if workers > 1 else 1
    along = job.n_pitch == 1
    parts = min(tickets, tiles) if along and k_segments.segments == 1 else 1
    job.depth, job.strip = ceil_div(tiles, parts), ceil_div(blocks, ceil_div(tickets, parts)) if along else 1
    parts = ceil_div(tiles, job.depth)
    sums = np.empty((parts, k_segments.segments, right.width), np.int32)
    job.n, job.k, job.columns = n, k_segments.k, right.width
    job.tiles, job.col_sum = right.address, flat(sums, np.int32, sums.size)
    fill_segments(job, k_segments)
    start(entry, job, workers)
    right.col_sum = sums[0] if parts == 1 else sums.sum(axis=0, dtype=np.int32)
    return right


def unpack(right: Right, limits: CodeRange) -> Array:
    """The codes of gapless tiles, K x N."""
    k, n = right.k_segments.k, right.n
    codes = np.empty((k, n), np.int8 if limits.signed else np.uint8)
    job = _unpacking(right, limits, codes)
    if limits.signed:  # otherwise no code is mirrored
        _fill_groups(job, right)
    start(table.unpack("rows", right.form.bits), job, share(4 * codes.size, this_machine()))
    return codes


def unpack_columns(right: Right, limits: CodeRange, columns: npt.NDArray[np.int64]) -> tuple[Array, GroupScales | None]:
    """The codes of some columns of gapless tiles, ``[columns][K]``, and the integer scales of their groups."""
    count, k_segments, bits, scales = len(columns), right.k_segments, right.form.bits, None
    codes = np.empty((count, k_segments.k), np.int8 if limits.signed else np.uint8)
    job = _unpacking(right, limits, codes)
    if right.groups is not None:
        _fill_groups(job, right)
        job.column_groups = ceil_div(k_segments.k, right.group_size)
        shape = count, job.column_groups
        scale, zero = np.empty(shape, np.int8), None if limits.signed else np.empty(shape, np.uint8)
        scales = GroupScales(right.group_size, scale.T, None if zero is None else zero.T)
        job.group_scale = written(scale, np.int8, scale.size)
        if zero is not None:
            job.group_zero = written(zero, np.uint8, scale.size)
    workers = share(4 * codes.size, this_machine())
    job.columns, job.band = flat(columns, np.int64, count), ceil_div(count, SHARES * workers)
    start(table.unpack("columns", bits), job, workers)
    return codes, scales


def _unpacking(right: Right, limits: CodeRange, codes: Array) -> Any:
    """The job that unpacks these codes, K x N or ``[columns][K]``."""
    job = UnpackJob(k=right.k_segments.k, less=-limits.low, zero=-limits.low, pitch=codes.shape[1])
    job.count = codes.size // job.k
    job.tiles, job.out = right.address, written(codes, codes.dtype, codes.size)
    return job


def _fill_groups(job: Any, right: Right) -> None:
    """Put integer scales, if there are some, into a job that unpacks."""
    if right.groups is not None:
        job.groups, job.group_pitch = right.groups_address, right.groups[0].nbytes
        job.group_quarters = quarters(right.group_size)
