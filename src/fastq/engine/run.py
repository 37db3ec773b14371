"""Running kernels, as only this room does (here, and in multiply.py and ready.py): quantizing, packing operands.

What comes in here has been checked: shapes and types agree. What goes on is filling jobs and handing them to threads;
addresses come through :mod:`fastq.engine.pointers`, which holds each array against its job once more.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import plain
from fastq.engine.groups import Factors
from fastq.engine.memory import Workspace, aligned
from fastq.engine.plan import Plan, left_threads, share, this_machine
from fastq.engine.pointers import flat, of_bytes, rows, written
from fastq.engine.prepack import Balance, Lines, Right, column_sums
from fastq.kernels import table
from fastq.kernels.jobs import (
    CHOOSE,
    FIND,
    LEFT_ROWS,
    WRITE,
    CompensateJob,
    LeftJob,
    QuantizeJob,
    RightJob,
    SearchJob,
    SharedJob,
)  # fmt: skip
from fastq.layout.tiles import DEPTH, TILE_ROWS, Form, Segments, ceil_div, pack_codes, right_bytes, segments
from fastq.machine import threads
from fastq.machine.jit import kernel
from fastq.machine.job import Job
from fastq.scheme import CodeRange

KIND = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}


def left_kind(dtype: np.dtype[Any]) -> str | None:
    """The kind of floats that a left operand can be read from as it is; None: it must be converted."""
    return KIND.get(dtype) or {"float16": "f16", "bfloat16": "bf16"}.get(dtype.name)


class Left(NamedTuple):
    """A left operand in row tiles, all of it in a workspace (addresses)."""

    m: int
    tiles: int
    scale: int
    groups: int  # sets of parameters per row
    zero: int
    zeros: bool  # whether some zero point is not 0
    row_sum: int
    offset: int
    plain: plain.Rows | None  # what the reference works on


def start(entry: table.Entry, job: Job, workers: int) -> None:
    """Run a kernel of the table."""
    threads.run(kernel(*entry), job, workers)


# Quantizing


class Runs(NamedTuple):
    """A C-contiguous array seen as ``[outer][groups][n][inner]``: one set of parameters per outer, group, inner."""

    outer: int
    groups: int
    n: int
    inner: int
    outer_pitch: int
    group_pitch: int
    param_pitch: int
    group_param: int
    start: int = 0  # elements from the start of the array
    param_start: int = 0

    @property
    def elements(self) -> int:
        """How far into the array they reach."""
        last = (self.outer - 1) * self.outer_pitch + (self.groups - 1) * self.group_pitch
        return self.start + last + self.n * self.inner

    @property
    def sets(self) -> int:
        """How far into the parameters they reach."""
        last = (self.outer - 1) * self.param_pitch + (self.groups - 1) * self.group_param
        return self.param_start + last + self.inner


class Parameters(NamedTuple):
    """Flat arrays of parameters, all of the data's float type; the zero point is an integer in it."""

    scale: npt.NDArray[Any]
    zero: npt.NDArray[Any]
    offset: npt.NDArray[Any]
    minimum: npt.NDArray[Any]
    maximum: npt.NDArray[Any]


BAND = 64  # rows that a thread takes at a time where parameters go down the columns


def quantize(
    x: npt.NDArray[Any],
    codes: npt.NDArray[Any] | None,
    runs: Runs,
    found: Parameters,
    limits: tuple[int, int],
    scheme: int,
    work: int,
) -> int:
    """Find extremes, choose parameters, write codes, as `work` says; returns the kernels' status."""
    kind, size = KIND[x.dtype], x.itemsize
    workers = share(runs.outer * runs.groups * runs.n * runs.inner * size, this_machine())
    job = QuantizeJob(low=limits[0], high=limits[1], scheme=scheme, work=work)
    for name in ("outer", "groups", "n", "inner", "outer_pitch", "group_pitch", "param_pitch", "group_param"):
        setattr(job, name, getattr(runs, name))
    job.x = flat(x, x.dtype, runs.elements) + runs.start * size
    if codes is not None:
        job.codes = written(codes, np.int8 if limits[0] < 0 else np.uint8, runs.elements) + runs.start
    first = runs.param_start * size
    for names, read, write in (("minimum", "maximum"), CHOOSE, FIND), (("scale", "zero", "offset"), WRITE, CHOOSE):
        place = written if work & write else flat
        for name in names if work & (read | write) else ():
            setattr(job, name, place(getattr(found, name), x.dtype, runs.sets) + first)
    if runs.inner == 1:
        job.band = max(1, min(16384 // max(1, runs.n), ceil_div(runs.outer * runs.groups, 4 * workers)))
        start(table.quantize("rows", kind), job, workers)
        return int(job.status)
    return _quantize_columns(job, runs, found, kind, workers)


def _quantize_columns(job: Any, runs: Runs, found: Parameters, kind: str, workers: int) -> int:
    job.band = BAND
    entry = table.quantize("columns", kind)
    work = job.work
    if work & FIND:
        bands = ceil_div(runs.n, BAND)
        shape = (2, runs.outer, runs.groups, bands, runs.inner)
        partial = np.empty(shape, found.scale.dtype)
        job.work = FIND
        job.minimum, job.maximum = (flat(part, found.scale.dtype, part.size) for part in partial)
        start(entry, job, workers)
        sets = runs.groups * runs.inner
        for into, reduce, part in ((found.minimum, np.minimum, partial[0]), (found.maximum, np.maximum, partial[1])):
            target = into[runs.param_start :]
            for o in range(runs.outer):
                at = o * runs.param_pitch
                target[at : at + sets] = reduce.reduce(part[o], axis=1).reshape(-1)
        if work & CHOOSE and not job.status:
            size = found.scale.itemsize
            choice = QuantizeJob(low=job.low, high=job.high, scheme=job.scheme, outer=sets)
            for o in range(runs.outer):
                at = (runs.param_start + o * runs.param_pitch) * size
                for name in ("scale", "zero", "offset", "minimum", "maximum"):
                    setattr(choice, name, written(getattr(found, name), found.scale.dtype, runs.sets) + at)
                choice.ticket = 0
                start(table.quantize("choices", kind), choice, 1)
            job.status = choice.status
    if work & WRITE and not job.status:
        job.work, job.ticket = WRITE, 0
        start(entry, job, workers)
    return int(job.status)


def search(
    x: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    factor: npt.NDArray[Any],
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    values: list[npt.NDArray[Any]],
    limits: tuple[int, int],
    scheme: int,
) -> None:
    """Improve the parameters `values` (scale, zero, offset) of each row of x; all arrays contiguous, of one type.

    Rows of `weights` are taken in turns.
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
    x: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    size: int,
    factor: npt.NDArray[Any],
    values: tuple[npt.NDArray[Any], ...],
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
    job.factor, job.shared = flat(factor, x.dtype, columns), written(values[0], x.dtype, columns)
    for name, array in zip(("own", "zeros", "factors", "chosen"), values[1:]):
        setattr(job, name, written(array, x.dtype, columns * groups))
    start(table.shared(KIND[x.dtype]), job, share(32 * x.nbytes, this_machine()))


def compensate(
    target: npt.NDArray[Any],
    carry: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    scale: npt.NDArray[Any],
    zero: npt.NDArray[Any],
    offset: npt.NDArray[Any],
    limits: tuple[int, int],
    loss: npt.NDArray[Any],
    codes: npt.NDArray[Any] | None,
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


# Packing


def pack_right(codes: npt.NDArray[Any], low: int, bits: int, cuts: Segments, factors: Factors | None = None) -> Right:
    """Pack a matrix of codes (K x N, any strides), relative to the lowest code; `cuts` without gaps for `factors`."""
    if factors is not None:
        return _pack_grouped(codes, CodeRange(low, low + 2**bits - 1), bits, cuts, factors)
    k, n = codes.shape
    machine = this_machine()
    shift = -low
    if machine.isa == "reference":
        unsigned = (codes.astype(np.int16) + shift).astype(np.uint8)
        right = Right(pack_codes(unsigned, cuts, bits), cuts, n, Form(bits), None)
        right.col_sum = column_sums(unsigned, cuts, right.width)
        return right
    right = Right(aligned(right_bytes(cuts, n, bits)), cuts, n, Form(bits), None)
    right.col_sum = np.empty((cuts.segments, right.width), np.int32)
    job = RightJob(k=k, n=n, columns=right.width, shift=shift)
    job.codes, job.k_pitch, job.n_pitch = of_bytes(codes, (k, n))
    job.tiles, job.col_sum = right.address, flat(right.col_sum, np.int32, cuts.segments * right.width)
    fill_cuts(job, cuts)
    start(table.right_pack(bits), job, share(4 * k * n, machine))
    return right


def _pack_grouped(codes: npt.NDArray[Any], limits: CodeRange, bits: int, cuts: Segments, factors: Factors) -> Right:
    """The same under integer group scales. Sums are those of the codes as multiplied, and of K as a whole."""
    k, n = codes.shape
    low = limits.low
    if (factors.factors < 0).any():
        codes, low = factors.mirrored(np.subtract(codes, low, dtype=np.int16).astype(np.uint8), limits), 0
    # Cut by group, the tiles are the same, and the sums are those of the groups.
    right = pack_right(codes, low, bits, segments(k, factors.size))
    packed = factors.packed(limits, cuts)
    flat = packed.transpose(2, 1, 0, 3).reshape(2, packed.shape[1], right.width)[:, : len(factors.factors)]
    counts = np.full((len(flat[0]), 1), factors.size, np.int32)
    counts[-1] = k - (len(counts) - 1) * factors.size
    assert right.col_sum is not None
    sums = (flat[0] * right.col_sum + flat[1] * counts).sum(axis=0, dtype=np.int32, keepdims=True)
    whole = segments(k)
    return Right(right.tiles, whole, n, Form(bits, grouped=True), sums, packed, factors.size)


def fill_cuts(job: Any, cuts: Segments) -> None:
    """Tell a job how K is cut."""
    job.steps, job.segments = cuts.steps, cuts.segments
    job.segment_steps, job.segment_k = cuts.step_size, cuts.size


def _left_tiles(work: Workspace, m: int, cuts: Segments, left_bytes: int) -> int:
    return work.take(ceil_div(m, TILE_ROWS) * cuts.tiles * TILE_ROWS * DEPTH * left_bytes)


def fill_balance(job: Any, balance: Balance | None, dtype: npt.DTypeLike) -> None:
    """Tell a job of the left operand, if there is one, how its rows are balanced; `dtype` is computed in."""
    if balance is not None:
        k = job.k
        job.balance, job.block = flat(balance.factors, dtype, k), balance.block
        job.room_pitch = ceil_div(k, 16) * 16 + 16  # rows do not fall into the same sets of the cache


def left_from_floats(
    work: Workspace, x: npt.NDArray[Any], bits: int, balance: Balance | None, cuts: Segments, plan: Plan
) -> Left | None:
    """Quantize the rows of x (M x K, unit stride along K) and bring them into tiles; None if one is not finite.

    Factors of the `balance`, if there is one, are contiguous and of the type computed in.
    """
    m, k = x.shape
    high = 2 ** (bits - 1) - 1
    if plan.unit is None:
        found = plain.quantized_rows(x, high, balance)
        return None if found is None else Left(m, 0, 0, 1, 0, False, 0, 0, found)
    kind = left_kind(x.dtype)
    assert kind is not None
    computed = np.result_type(x.dtype, np.float32) if kind != "bf16" else np.dtype(np.float32)
    size = computed.itemsize
    job = LeftJob(m=m, k=k, high=high)
    job.x, job.pitch = rows(x, x.dtype, (m, k))
    job.tiles = _left_tiles(work, m, cuts, plan.unit.left_bytes)
    job.scale = work.take(m * size)
    job.row_sum = work.take(4 * m * cuts.segments)
    fill_cuts(job, cuts)
    workers = left_threads(x.nbytes, plan)
    fill_balance(job, balance, computed)
    job.room = work.take(workers * LEFT_ROWS * job.room_pitch * size)
    start(table.left_floats(kind, plan.unit.left_bytes, balance is not None), job, workers)
    if job.status:
        return None
    return Left(m, job.tiles, job.scale, 1, work.zeros(4 * m), False, job.row_sum, 0, None)


def left_from_codes(work: Workspace, codes: npt.NDArray[Any], a: Lines, cuts: Segments, plan: Plan, dtype: Any) -> Left:
    """Bring codes (M x K) into tiles; parameters in the product's float type."""
    m, k = codes.shape
    by_segment = _by_segment(a, cuts)
    scale = np.ascontiguousarray(np.broadcast_to(_or(by_segment(a.scale), 1), (m, _groups(a, cuts))), dtype)
    zero = np.broadcast_to(_or(by_segment(a.zero), 0), scale.shape)
    offset = (
        None if a.offset is None else np.ascontiguousarray(np.broadcast_to(by_segment(a.offset), scale.shape), dtype)
    )
    if plan.unit is None:
        return Left(m, 0, 0, scale.shape[1], 0, False, 0, 0, plain.Rows(codes, scale, zero, offset))
    # Left tiles are signed: unsigned codes move down by 128, and their zero points with them.
    flip = 0 if a.limits.signed else 128
    codes = codes if codes.strides[1] == 1 or k <= 1 else np.ascontiguousarray(codes)
    job = LeftJob(m=m, k=k, flip=flip)
    job.x, job.pitch = rows(codes, np.uint8 if flip else np.int8, (m, k))
    job.tiles = _left_tiles(work, m, cuts, plan.unit.left_bytes)
    job.row_sum = work.take(4 * m * cuts.segments)
    fill_cuts(job, cuts)
    start(table.left_codes(plan.unit.left_bytes), job, left_threads(m * k, plan))
    shifted = np.ascontiguousarray(zero - flip, np.int32)
    return Left(
        m,
        job.tiles,
        keep(work, scale),
        scale.shape[1],
        keep(work, shifted),
        bool(shifted.any()),
        job.row_sum,
        0 if offset is None else keep(work, offset),
        None,
    )


def _or(values: npt.NDArray[Any] | None, default: int) -> npt.NDArray[Any]:
    return np.array([[default]]) if values is None else values


def _groups(a: Lines, cuts: Segments) -> int:
    """Sets of parameters per row: one per segment where some vary by group."""
    varies = any(p is not None and p.shape[1] > 1 for p in (a.scale, a.zero, a.offset))
    return cuts.segments if varies else 1


def _by_segment(a: Lines, cuts: Segments) -> Any:
    def expand(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        if values is None or values.shape[1] == 1 or a.group is None:
            return values
        return values[:, np.arange(cuts.segments) * cuts.size // a.group]

    return expand


def keep(work: Workspace, array: npt.NDArray[Any]) -> int:
    """Copy a contiguous array into the workspace."""
    address = work.take(array.nbytes)
    ctypes.memmove(address, flat(array, array.dtype, array.size), array.nbytes)
    return address
