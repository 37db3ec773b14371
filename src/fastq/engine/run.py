"""Running plans: the only module that calls kernels.

What comes in here has been checked: shapes agree, memory is what the job says. What goes on is filling jobs and handing
them to threads.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import Workspace, aligned
from fastq.engine.plan import Plan, share, this_machine
from fastq.engine.prepack import Columns, Lines, Right, address_of, column_sums
from fastq.kernels import reference, table
from fastq.kernels.jobs import CHOOSE, FIND, WRITE, LeftJob, MatmulJob, QuantizeJob, RightJob, SearchJob
from fastq.layout.tiles import DEPTH, TILE_ROWS, Segments, ceil_div, pack_codes, right_bytes
from fastq.machine import threads
from fastq.machine.jit import Kernel, kernel
from fastq.machine.job import Job
from fastq.scheme import symmetric_scale

KIND = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}


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
    plain: Plain | None  # what the reference works on


class Plain(NamedTuple):
    """A left operand as the reference takes it: int codes (M x K), parameters ``[m][groups]``."""

    codes: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    zero: npt.NDArray[Any]
    offset: npt.NDArray[Any] | None


def _kernel(entry: table.Entry) -> Kernel:
    return kernel(entry.name, entry.make)


def _run(entry: table.Entry, job: Job, workers: int) -> None:
    threads.run(_kernel(entry), job, workers)


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
    job.x = address_of(x) + runs.start * size
    job.codes = 0 if codes is None else address_of(codes) + runs.start
    for name in ("scale", "zero", "offset", "minimum", "maximum"):
        setattr(job, name, address_of(getattr(found, name)) + runs.param_start * size)
    if runs.inner == 1:
        job.band = max(1, min(16384 // max(1, runs.n), ceil_div(runs.outer * runs.groups, 4 * workers)))
        _run(table.quantize("rows", kind), job, workers)
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
        job.minimum, job.maximum = address_of(partial[0]), address_of(partial[1])
        _run(entry, job, workers)
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
                    setattr(choice, name, address_of(getattr(found, name)) + at)
                choice.ticket = 0
                _run(table.quantize("choices", kind), choice, 1)
            job.status = choice.status
    if work & WRITE and not job.status:
        job.work, job.ticket = WRITE, 0
        _run(entry, job, workers)
    return int(job.status)


def search(
    x: npt.NDArray[Any],
    factor: npt.NDArray[Any],
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    values: list[npt.NDArray[Any]],
    limits: tuple[int, int],
    scheme: int,
) -> None:
    """Improve the parameters `values` (scale, zero, offset) of each row of x; all arrays contiguous, of one type."""
    job = SearchJob(x=address_of(x), runs=x.shape[0], n=x.shape[1], scheme=scheme, low=limits[0], high=limits[1])
    names = ("factor", "minimum", "maximum", "scale", "zero", "offset")
    for name, array in zip(names, (factor, low, high, *values)):
        setattr(job, name, address_of(array))
    _run(table.search(KIND[x.dtype]), job, share(64 * x.nbytes, this_machine()))


# Packing


def pack_right(codes: npt.NDArray[Any], low: int, bits: int, cuts: Segments) -> Right:
    """Pack a matrix of codes (K x N, any strides), relative to the lowest code."""
    k, n = codes.shape
    machine = this_machine()
    shift = -low
    if machine.isa == "reference":
        unsigned = (codes.astype(np.int16) + shift).astype(np.uint8)
        right = Right(pack_codes(unsigned, cuts, bits), cuts, n, bits, None)
        right.col_sum = column_sums(unsigned, cuts, right.width)
        return right
    right = Right(aligned(right_bytes(cuts, n, bits)), cuts, n, bits, None)
    right.col_sum = np.empty((cuts.segments, right.width), np.int32)
    job = RightJob(codes=address_of(codes), k_pitch=codes.strides[0], n_pitch=codes.strides[1], shift=shift)
    job.k, job.n, job.columns = k, n, right.width
    job.tiles, job.col_sum = address_of(right.tiles), address_of(right.col_sum)
    _fill_cuts(job, cuts)
    _run(table.right_pack(bits), job, share(4 * k * n, machine))
    return right


def _fill_cuts(job: Any, cuts: Segments) -> None:
    job.steps, job.segments = cuts.steps, cuts.segments
    job.segment_steps, job.segment_k = cuts.step_size, cuts.size


def _left_tiles(work: Workspace, m: int, cuts: Segments, left_bytes: int) -> int:
    return work.take(ceil_div(m, TILE_ROWS) * cuts.tiles * TILE_ROWS * DEPTH * left_bytes)


def left_from_floats(work: Workspace, x: npt.NDArray[Any], bits: int, cuts: Segments, plan: Plan) -> Left | None:
    """Quantize the rows of x (M x K, unit stride along K) and bring them into tiles; None if one is not finite."""
    m, k = x.shape
    high = 2 ** (bits - 1) - 1
    if plan.unit is None:
        return _plain_floats(x, high)
    size = x.itemsize
    job = LeftJob(m=m, k=k, x=address_of(x), pitch=x.strides[0] // size, high=high)
    job.tiles = _left_tiles(work, m, cuts, plan.unit.left_bytes)
    job.scale = work.take(m * size)
    job.row_sum = work.take(4 * m * cuts.segments)
    _fill_cuts(job, cuts)
    entry = table.left_floats(KIND[x.dtype], plan.unit.left_bytes)
    _run(entry, job, share(x.size * size, this_machine()))
    if job.status:
        return None
    return Left(m, job.tiles, job.scale, 1, work.zeros(4 * m), False, job.row_sum, 0, None)


def _plain_floats(x: npt.NDArray[Any], high: int) -> Left | None:
    if not np.isfinite(x).all():
        return None
    tiny = np.finfo(x.dtype).smallest_subnormal
    tops = np.abs(x).max(axis=1, initial=0)
    scale = np.array([symmetric_scale(top, x.dtype.type(high), tiny) for top in tops], x.dtype).reshape(-1, 1)
    codes = np.clip(np.rint(x / scale), -high, high).astype(np.int8)
    plain = Plain(codes, scale, np.zeros((len(x), 1), np.int64), None)
    return Left(len(x), 0, 0, 1, 0, False, 0, 0, plain)


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
        return Left(m, 0, 0, scale.shape[1], 0, False, 0, 0, Plain(codes, scale, zero, offset))
    # Left tiles are signed: unsigned codes move down by 128, and their zero points with them.
    flip = 0 if a.limits.signed else 128
    codes = codes if codes.strides[1] == 1 or k <= 1 else np.ascontiguousarray(codes)
    job = LeftJob(m=m, k=k, x=address_of(codes), pitch=codes.strides[0], flip=flip)
    job.tiles = _left_tiles(work, m, cuts, plan.unit.left_bytes)
    job.row_sum = work.take(4 * m * cuts.segments)
    _fill_cuts(job, cuts)
    _run(table.left_codes(plan.unit.left_bytes), job, share(m * k, this_machine()))
    shifted = np.ascontiguousarray(zero - flip, np.int32)
    return Left(
        m,
        job.tiles,
        _keep(work, scale),
        scale.shape[1],
        _keep(work, shifted),
        bool(shifted.any()),
        job.row_sum,
        0 if offset is None else _keep(work, offset),
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


def _keep(work: Workspace, array: npt.NDArray[Any]) -> int:
    """Copy a contiguous array into the workspace."""
    address = work.take(array.nbytes)
    ctypes.memmove(address, address_of(array), array.nbytes)
    return address


# Multiplying

STREAMED = 8 << 20  # bytes of output that are not worth a place in the cache


def matmul(
    work: Workspace,
    left: Left,
    right: Right,
    columns: Columns,
    cuts: Segments,
    out: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None,
    plan: Plan,
) -> None:
    """``out = left @ right + bias`` with `out` (M x N) of the plan's output type and of unit stride along N."""
    affine = columns.offset is not None
    if left.plain is not None:
        out[...] = _reference(left.plain, right, columns, cuts, out.dtype, bias)
        return
    n, width, size = right.n, right.width, out.itemsize
    job = MatmulJob(m=left.m, n=n, columns=width, row_chunk=plan.row_chunk, block_chunk=plan.block_chunk)
    _fill_cuts(job, cuts)
    job.last_k = cuts.last_k
    job.left, job.right = left.tiles, right.address
    job.out, job.out_pitch = address_of(out), out.strides[0] // size
    job.row_groups, job.row_scale, job.row_zero, job.row_sum = left.groups, left.scale, left.zero, left.row_sum
    job.col_groups, job.zero_groups = len(columns.scale), len(columns.zero)
    job.col_scale, job.col_zero, job.col_offset, job.col_term = columns.addresses
    job.uniform = columns.uniform
    if left.zeros:  # the sums are not read otherwise
        sums = right.col_sum
        if sums is None or right.cuts != cuts:
            sums = column_sums(right.codes(), cuts, width)
        job.col_sum = address_of(sums)
    job.plain = columns.uniform and not left.zeros and not affine and cuts.segments == 1 and bias is None
    job.streamed = out.nbytes >= STREAMED and job.out % 64 == 0 and out.strides[0] % 64 == 0 and size == 4
    if affine:
        job.affine = 1
        job.row_offset = left.offset or work.zeros(left.m * left.groups * size)
    if bias is not None:
        padded = np.zeros(width, out.dtype)
        padded[:n] = bias
        job.bias = _keep(work, padded)
    if plan.scratch:
        job.scratch, job.scratch_bytes = work.take(plan.scratch * plan.threads), plan.scratch
    assert plan.unit is not None
    _run(table.matmul(plan.unit, plan.shape, plan.bits, plan.output), job, plan.threads)


def _reference(
    left: Plain, right: Right, columns: Columns, cuts: Segments, dtype: Any, bias: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    codes, n = right.codes(), right.n
    total: Any = None
    for g in range(cuts.segments):
        part = slice(g * cuts.size, (g + 1) * cuts.size)
        lg, cg, zg = (g if size > 1 else 0 for size in (left.scale.shape[1], len(columns.scale), len(columns.zero)))
        a = left.codes[:, part].astype(np.int64) - left.zero[:, lg : lg + 1]
        b = codes[part].astype(np.int64) - columns.zero[zg, :n]
        y: Any = reference.product(a, b)
        if dtype != np.int32:
            row_affine = col_affine = None
            if columns.offset is not None and columns.term is not None:
                scale = left.scale[:, lg]
                shift = np.zeros_like(scale) if left.offset is None else left.offset[:, lg]
                row_affine = np.stack([scale * a.sum(axis=1).astype(dtype), shift])
                col_affine = np.stack([columns.offset[cg, :n], columns.term[g, :n]])
            y = reference.epilogue(y, left.scale[:, lg], columns.scale[cg, :n], row_affine, col_affine)
        total = y if total is None else total + y
    result: npt.NDArray[Any] = total if bias is None else total + bias
    return result
