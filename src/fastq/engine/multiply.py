"""Running the product of packed operands, to floats or to codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import plain
from fastq.engine.groups import quarters
from fastq.engine.memory import Workspace
from fastq.engine.plan import Plan
from fastq.engine.pointers import flat, rows
from fastq.engine.prepack import Columns, Right, column_sums
from fastq.engine.run import Left, Parameters, Runs, fill_cuts, keep, quantize, start
from fastq.kernels import table
from fastq.kernels.jobs import CHOOSE, FIND, RAISED, WRITE, MatmulJob
from fastq.layout.tiles import DEPTH, TILE_ROWS, Segments

STREAMED = 8 << 20  # bytes of output that are not worth a place in the cache
BAND_BYTES, BAND_ROWS = (
    4 << 20,
    256,
)  # of floats that are requantized while they are in the cache; at least so many rows


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
    """``out = activation(left @ right + bias)``, `out` (M x N) of the plan's output type and of unit stride along N."""
    if left.plain is not None:
        out[...] = plain.product(left.plain, right, columns, cuts, plan.output, bias)
        return
    _multiply(_matmul_job(work, left, right, columns, cuts, bias, plan), out, plan)


class Grid(NamedTuple):
    """What a product is requantized to."""

    found: Parameters
    limits: tuple[int, int]  # lowest and highest code
    scheme: int  # its number in fastq.scheme.SCHEMES


def matmul_requantized(
    work: Workspace,
    left: Left,
    right: Right,
    columns: Columns,
    cuts: Segments,
    codes: npt.NDArray[Any],
    grid: Grid,
    bias: npt.NDArray[Any] | None,
    plan: Plan,
) -> int:
    """The same, requantized by row; a band of rows at a time exists as floats. Returns the kernels' status.

    Parameters are chosen from the data where there are as many as rows and their scale is 0; otherwise they are given.
    """
    found, limits, scheme = grid
    m, n = codes.shape
    band = min(m, max(BAND_ROWS, BAND_BYTES // (n * found.scale.itemsize) // TILE_ROWS * TILE_ROWS))
    floats = work.array((band, n), found.scale.dtype)
    job = None if left.plain is not None else _matmul_job(work, left, right, columns, cuts, bias, plan)
    each = len(found.scale) > 1 or m == 1
    todo = WRITE if found.scale[0] != 0 else FIND | CHOOSE | WRITE
    status = 0
    for first in range(0, m, band):
        part = floats[: min(band, m - first)]
        if job is None:
            assert left.plain is not None
            part[...] = plain.product(left.plain.rows(first, len(part)), right, columns, cuts, plan.output, bias)
        else:
            _multiply(_rows_of(job, first, len(part), cuts, plan), part, plan)
        runs = Runs(len(part), 1, n, 1, n, 0, int(each), 0, 0, first if each else 0)
        if not todo & FIND:  # writing codes alone takes infinity for a large number
            status |= quantize(part, None, runs, found, limits, scheme, FIND)
        status |= quantize(part, codes[first : first + len(part)], runs, found, limits, scheme, todo)
    return status


def right_job(m: int, right: Right, columns: Columns, cuts: Segments, plan: Plan) -> Any:
    """What a job says of the right operand, and of the product as a whole."""
    if not (right.fits(cuts) and columns.fit(right, cuts, plan.output.computed)):
        raise RuntimeError(f"operands of a product must be cut alike; got {right.cuts} for {cuts}: a mistake in fastq")
    job = MatmulJob(m=m, n=right.n, columns=right.width, row_chunk=plan.row_chunk, block_chunk=plan.block_chunk)
    fill_cuts(job, cuts)
    job.last_k, job.right = cuts.last_k, right.address
    if right.groups is not None:
        job.groups, job.group_pitch = right.groups_address, right.groups[0].nbytes
        job.group_quarters = quarters(right.group_size)
    job.col_groups, job.zero_groups = len(columns.scale), len(columns.zero)
    job.col_scale, job.col_zero, job.col_offset, job.col_term = columns.addresses
    job.uniform, job.affine = columns.uniform, columns.offset is not None
    return job


def _matmul_job(
    work: Workspace,
    left: Left,
    right: Right,
    columns: Columns,
    cuts: Segments,
    bias: npt.NDArray[Any] | None,
    plan: Plan,
) -> Any:
    """All of a job but for its output."""
    job = right_job(left.m, right, columns, cuts, plan)
    job.left = left.tiles
    job.row_groups, job.row_scale, job.row_zero, job.row_sum = left.groups, left.scale, left.zero, left.row_sum
    if left.zeros:  # the sums are not read otherwise
        sums = right.col_sum
        if sums is None or right.cuts != cuts:
            sums = column_sums(right.codes(), cuts, right.width)
        flat(sums, np.int32, cuts.segments * right.width)
        job.col_sum = keep(work, sums)
    job.plain = columns.uniform and not left.zeros and not job.affine and cuts.segments == 1
    if job.affine:
        job.row_offset = left.offset or work.zeros(left.m * left.groups * columns.scale.itemsize)
    if bias is not None:
        padded = np.zeros(right.width, plan.output.computed)
        padded[: right.n] = bias
        job.bias = keep(work, padded)
    if plan.scratch:
        job.scratch, job.scratch_bytes = work.take(plan.scratch * plan.threads), plan.scratch
    return job


def _rows_of(job: Any, first: int, count: int, cuts: Segments, plan: Plan) -> Any:
    """A job for some rows of another one's product; `first` is a multiple of a tile's rows."""
    assert plan.unit is not None
    part = MatmulJob.from_buffer_copy(job)
    part.m = count
    part.left += first * cuts.tiles * DEPTH * plan.unit.left_bytes
    size = np.dtype(plan.output.computed).itemsize
    part.row_scale += first * job.row_groups * size
    part.row_zero += first * job.row_groups * 4
    part.row_sum += first * cuts.segments * 4
    if job.row_offset:
        part.row_offset += first * job.row_groups * size
    return part


def _multiply(job: Any, out: npt.NDArray[Any], plan: Plan) -> None:
    """Run a job into an output."""
    size = out.itemsize
    job.out, job.out_pitch = rows(out, plan.output.type, (job.m, job.n))
    job.streamed = out.nbytes >= STREAMED and job.out % 64 == 0 and out.strides[0] % 64 == 0 and size <= 4
    assert plan.unit is not None
    start(table.matmul(plan.unit, plan.shape, plan.form, plan.output), job, plan.threads)
    if job.status & RAISED:
        raise RuntimeError(plain.FUNCTION_RAISED)
