"""Prepared products: the product of left operands of one form with one packed right operand.

The first call makes a prepared product, and every call runs it. The native one keeps two filled jobs: the first brings
the left operand into tiles, the second multiplies. Only the addresses of a call's arrays are missing. So a call copies
both jobs, adds a handful of addresses, and runs two kernels. (A product of 64 x 64 took 27 us when each call filled its
jobs anew; the kernels take 5.)

With many rows, the second kernel calls the first for the rows of each ticket (:mod:`fastq.kernels.dot.brought`). The
core that has them in its caches then multiplies them, and threads meet once. With AVX2 that takes 0.8 to 1.1 times as
long, 0.85 to 0.96 where the left operand has codes (two noisy cores; 128 x 384 x 1536 to 2048**3). A row that is not
finite is found when others have been written; so it is done only where the output is not the caller's.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastq.engine import native
from fastq.engine.groups import quarters
from fastq.engine.memory import Workspace, empty, workspace
from fastq.engine.operands import Array, ChannelTransform, ColumnParams, Right, RowParams
from fastq.engine.plan import Machine, Plan, left_threads, plan_matmul, this_machine
from fastq.engine.pointers import address_if, flat, rows
from fastq.engine.views import FlatParams, GroupedView
from fastq.errors import NotFiniteError
from fastq.kernels import table
from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.jobs import CHOOSE, FIND, LEFT_ROWS, NOT_FINITE, RAISED, WRITE, LeftJob, MatmulJob
from fastq.layout.tiles import BLOCK, DEPTH, TILE_ROWS, Segments, ceil_div
from fastq.machine import pool
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.jit import kernels

LEFT_NOT_FINITE = "a, balanced as b is, must be finite; it overflows its float type"
FUNCTION_RAISED = (
    "the function given as epilogue must not raise an exception, but for some element it did; what the product's "
    "output holds is undefined"
)
STREAMED = 8 << 20  # bytes of output that are not worth a place in the cache
BAND_BYTES, BAND_ROWS = 4 << 20, 256  # of floats that are requantized while they are in the cache; rows at least
# Left codes are packed all at once, so that nothing is written before all of them are known to be finite; more than
# this many bytes are packed and multiplied in bands of rows, for which the workspace between calls is large enough.
MOST_LEFT, BAND = 256 << 20, 24 << 20


class LeftForm(NamedTuple):
    """What left operands of a product have in common."""

    m: int
    k: int
    dtype: np.dtype[Any]  # of floats that are quantized by row, or of codes
    high: int = 0  # such floats' codes go from -high to high; 0: these are codes
    transform: ChannelTransform | None = None  # of floats, before they are quantized
    groups: int = 1  # sets of parameters per row


class Grid(NamedTuple):
    """What a product is requantized to."""

    params: FlatParams
    limits: tuple[int, int]  # lowest and highest code
    scheme: int  # its number in fastq.scheme.SCHEMES


class PreparedProduct(ABC):
    """The product of left operands of one form with one packed operand."""

    code_bytes = 1  # per left code in tiles

    def __init__(
        self, form: LeftForm, right: Right, columns: ColumnParams, k_segments: Segments, output: Output
    ) -> None:
        if not (right.fits(k_segments) and columns.fit(right, k_segments, output.computed)):
            raise RuntimeError(
                f"operands of a product must be cut alike; got {right.k_segments} for {k_segments}: a mistake in fastq"
            )
        self.form, self.right, self.columns, self.k_segments, self.output = form, right, columns, k_segments, output
        self.computed, self.dtype = np.dtype(output.computed), np.dtype(output.type)

    @abstractmethod
    def packed(self, work: Workspace, x: Array, params: RowParams | None, bias: Array | None) -> Any:
        """The left operand, ready to be multiplied; raises NotFiniteError."""

    @abstractmethod
    def _multiply(self, left: Any, out: Array, first: int) -> None:
        """``out = activation(left @ right + bias)``, of as many rows as `out` has, from `first` on."""

    quantize: Callable[..., int]  # :func:`fastq.engine.native.quantize`, or the reference's

    def __call__(self, x: Array, params: RowParams | None, out: Array, bias: Array | None = None) -> None:
        """``out = activation(x @ right + bias)``; `out` is of the output's type, with unit stride along N.

        Floats have unit stride along K. Codes come with parameters.
        """
        with workspace() as work:
            self._multiply(self.packed(work, x, params, bias), out, 0)

    def requantized(
        self, x: Array, params: RowParams | None, codes: Array, grid: Grid, bias: Array | None = None
    ) -> int:
        """The product in codes. Only a band of rows at a time exists as floats. Returns the kernels' status.

        The parameters are given. If their scale is 0, there is one set per row, and they are chosen from the data.
        """
        chosen, limits, scheme = grid
        m, n = codes.shape
        band = min(m, max(BAND_ROWS, BAND_BYTES // (n * chosen.scale.itemsize) // TILE_ROWS * TILE_ROWS))
        by_row = len(chosen.scale) > 1 or m == 1
        todo = WRITE if chosen.scale[0] != 0 else FIND | CHOOSE | WRITE
        status = 0
        with workspace() as work:
            left, floats = self.packed(work, x, params, bias), work.array((band, n), chosen.scale.dtype)
            for first in range(0, m, band):
                part = floats[: min(band, m - first)]
                self._multiply(left, part, first)
                view = GroupedView(len(part), 1, n, 1, n, 0, int(by_row), 0, 0, first if by_row else 0)
                if not todo & FIND:  # writing codes alone takes infinity for a large number
                    status |= self.quantize(part, None, view, chosen, limits, scheme, FIND)
                status |= self.quantize(part, codes[first : first + len(part)], view, chosen, limits, scheme, todo)
        return status

    @property
    def rows_at_once(self) -> int:
        """How many rows to multiply at a time: all of them, or a band of whole tiles."""
        row = self.k_segments.tiles * DEPTH * self.code_bytes * self.output.planes
        return self.form.m if self.form.m * row <= MOST_LEFT else max(1, BAND // (DEPTH * row)) * DEPTH

    def of_rows(self, m: int) -> PreparedProduct:
        """The same product with another number of rows."""
        form = self.form._replace(m=m)
        return type(self)(form, self.right, self.columns, self.k_segments, self.output)


def all_at_once(m: int, k: int) -> bool:
    """Whether all rows are multiplied at once, on every machine and however K is cut."""
    return 16 * m * (k + DEPTH) <= MOST_LEFT


class NativeProduct(PreparedProduct):
    """A product by kernels."""

    quantize = staticmethod(native.quantize)

    def __init__(
        self,
        form: LeftForm,
        right: Right,
        columns: ColumnParams,
        k_segments: Segments,
        output: Output,
        plan: Plan | None = None,  # tests run each row of the table of kernels on its own edges
    ) -> None:
        super().__init__(form, right, columns, k_segments, output)
        self.machine = this_machine()
        self._lines = form.m * output.planes  # rows of left tiles and of sums
        plan = plan or plan_matmul(self._lines, right.n, k_segments, right.form, output, self.machine)
        self.plan = plan
        self.code_bytes = plan.unit.left_bytes
        self._left_threads = left_threads(form.m * form.k * form.dtype.itemsize, plan)
        self._flip = 128 if form.high == 0 and form.dtype == np.uint8 else 0  # left tiles are signed
        self._no_zero = np.full((form.m, form.groups), -self._flip, np.int32)
        large = form.m * right.n * self.dtype.itemsize >= STREAMED
        # A pitch that is no power of two: the rows of a block do not fall into the same sets of the cache.
        self._room_pitch = right.width + BLOCK if plan.own_rows and large else 0
        self._room_bytes = plan.own_rows * self._room_pitch * self.dtype.itemsize
        self._left, self._matmul = self._left_job(), self._matmul_job()
        if form.high:
            kind = native.float_kind(form.dtype)
            assert kind is not None
            left = table.left_floats(kind, plan.unit.left, form.transform is not None, output.planes)
        else:
            left = table.left_codes(plan.unit.left)
        self._matmul_kernel, self._left_kernel = kernels(plan.kernel, left)
        self._lay_out()

    def _left_job(self) -> Any:
        m, k, _, high, transform, groups = self.form
        job = LeftJob(m=m, k=k, pitch=k, high=high, flip=self._flip, groups=groups)
        native.fill_segments(job, self.k_segments)
        if transform is not None:
            job.balance, job.block = flat(transform.factors, self.computed, k), transform.block
            job.room_pitch = ceil_div(k, 16) * 16 + 16  # rows do not fall into the same sets of the cache
        return job

    def _matmul_job(self) -> Any:
        right, columns, k_segments, plan = self.right, self.columns, self.k_segments, self.plan
        job = MatmulJob(m=self._lines, n=right.n, columns=right.width)
        job.row_chunk, job.block_chunk, job.scratch_bytes = plan.row_chunk, plan.block_chunk, plan.scratch
        native.fill_segments(job, k_segments)
        job.last_k, job.right = k_segments.last_k, right.address
        if right.groups is not None:
            job.groups, job.group_pitch = right.groups_address, right.groups[0].nbytes
            job.group_quarters = quarters(right.group_size)
        job.col_groups, job.zero_groups = columns.groups, columns.zero_groups
        job.col_scale, job.col_zero, job.col_offset, job.col_term = columns.addresses
        job.uniform, job.col_outside = columns.uniform, columns.outside
        job.row_groups, job.row_zero = self.form.groups, flat(self._no_zero, np.int32, self._no_zero.size)
        job.row_outside = k_segments.segments > 1 and self.form.groups == 1
        job.out_pitch, job.room_bytes = right.n, self._room_bytes
        job.fast = columns.uniform and columns.offset is None and k_segments.segments == 1
        return job

    def _lay_out(self) -> None:
        """Divide the workspace of a call."""
        form, right, size = self.form, self.right, self.computed.itemsize
        threads = self.plan.threads if self.plan.own_rows else self._left_threads  # that bring rows into tiles
        sizes = (
            ceil_div(self._lines, TILE_ROWS) * self.k_segments.tiles * TILE_ROWS * DEPTH * self.code_bytes,  # tiles
            form.m * form.groups * size if form.high else 0,  # scales
            4 * self._lines * self.k_segments.segments,  # sums
            right.width * size,  # bias
            self.plan.scratch * self.plan.threads,
            threads * LEFT_ROWS * self._left.room_pitch * size,
            self._room_bytes * self.plan.threads,
        )
        self._places, self._size = [], 0
        for nbytes in sizes:
            self._places.append(self._size)
            self._size += ceil_div(nbytes, CACHE_LINE) * CACHE_LINE

    def _filled(self, work: Workspace, x_at: int, scale_at: int, bias_at: int) -> tuple[Any, Any]:
        """Copies of both jobs with the addresses of this call."""
        left, job = LeftJob.from_buffer_copy(self._left), MatmulJob.from_buffer_copy(self._matmul)
        base = work.take(self._size)
        tiles, scales, row_sum, biases, scratch, room, job_room = self._places
        left.x = x_at
        left.tiles = job.left = base + tiles
        left.scale, left.room = base + scales, base + room
        job.row_scale = scale_at or left.scale
        left.row_sum = job.row_sum = base + row_sum
        job.scratch, job.room = base + scratch, base + job_room
        if bias_at:
            job.bias = base + biases
            ctypes.memmove(job.bias, bias_at, self.right.n * self.computed.itemsize)
        return left, job

    def packed(self, work: Workspace, x: Array, params: RowParams | None, bias: Array | None) -> Any:
        """See :class:`PreparedProduct`; the job of the product, but for the output."""
        m, k, dtype, _, _, groups = self.form
        x_at, pitch = rows(x, dtype, (m, k))
        bias = None if bias is None else np.ascontiguousarray(bias, self.computed)
        scale_at = 0 if params is None else flat(params.scale, self.computed, m * groups)
        bias_at = 0 if bias is None else flat(bias, self.computed, self.right.n)
        left, job = self._filled(work, x_at, scale_at, bias_at)
        left.pitch = pitch
        job.kept = params
        if params is not None:
            self._with_params(job, params)
        pool.run(self._left_kernel, left, self._left_threads)
        if left.status:
            raise NotFiniteError(LEFT_NOT_FINITE)
        return job

    def _with_params(self, job: Any, params: RowParams) -> None:
        """Add the zero points and offsets of left codes to a job."""
        count, sums = self.form.m * self.form.groups, None
        zero = self._no_zero if params.zero is None else params.zero - np.int32(self._flip)
        job.row_zero = flat(zero, np.int32, count)
        if zero.any():
            sums = self._col_sum
            job.col_sum, job.fast = flat(sums, np.int32, self.k_segments.segments * self.right.width), 0
        if params.offset is not None:
            job.row_offset, job.row_outside = flat(params.offset, self.computed, count), 0
        job.kept = params, zero, sums

    @cached_property
    def _col_sum(self) -> Any:
        """The sums of right codes, which zero points on the left are multiplied with."""
        return self.right.sums(self.k_segments)

    def _multiply(self, left: Any, out: Array, first: int) -> None:
        job = left if len(out) == self.form.m else self._rows_of(left, first, len(out))
        job.out, job.out_pitch = rows(out, self.dtype, (len(out), job.n))
        if out.nbytes >= STREAMED:
            self._past_the_cache(job)
        self.run(job)

    def _past_the_cache(self, job: Any) -> None:
        """Write a large output past the cache, through rooms where its rows do not begin at cache lines."""
        job.streamed = job.out % CACHE_LINE == 0 and job.out_pitch * self.dtype.itemsize % CACHE_LINE == 0
        if not job.streamed and self._room_pitch:
            job.room_pitch = self._room_pitch
            self._take_rows(job)

    def _take_rows(self, job: Any) -> None:
        """Let tickets be rows of all columns."""
        job.row_chunk, job.block_chunk = self.plan.own_rows, self.right.width // BLOCK

    def run(self, job: Any) -> None:
        """Multiply."""
        pool.run(self._matmul_kernel, job, self.plan.threads)
        if job.status & RAISED:
            raise RuntimeError(FUNCTION_RAISED)

    def _rows_of(self, job: Any, first: int, count: int) -> Any:
        """The job for some rows of a job's product; `first` is a multiple of a tile's rows."""
        part = MatmulJob.from_buffer_copy(job)
        line = first * self.output.planes
        part.m = count * self.output.planes
        part.left += line * self.k_segments.tiles * DEPTH * self.code_bytes
        part.row_scale += first * job.row_groups * self.computed.itemsize
        part.row_zero += first * job.row_groups * 4
        part.row_sum += line * self.k_segments.segments * 4
        if job.row_offset:
            part.row_offset += first * job.row_groups * self.computed.itemsize
        return part

    def expect(self, shape: tuple[int, ...], order: Array | None = None) -> None:
        """Prepare for :meth:`again` with left operands of this shape; its leading axes are rows.

        Elements of rows are multiplied in this order, None being theirs.
        """
        self._order = order
        self._x_shape, self._out_shape = shape, (*shape[:-1], self.right.n)
        self._scale_shape, self._bias_shape = (self.form.m, 1), (self.right.n,)
        self._large = self.form.m * self.right.n * self.dtype.itemsize >= STREAMED

    def again(self, x: Any, scale: Any = None, bias: Any = None, out: Any = None) -> Array | None:
        """The product of contiguous arrays of the expected shapes and types; None for others, and if x is not finite.

        If `x` holds int8 codes, they have no zero points, and `scale` has one element per row.
        """
        if self._order is not None:
            # Clips nothing. "raise" would look at the indices first, and take half as long again.
            x = x.take(self._order, -1, mode="clip")
        x_at = address_if(x, self._x_shape, self.form.dtype)
        scale_at = 0 if scale is None else address_if(scale, self._scale_shape, self.computed)
        bias_at = 0 if bias is None else address_if(bias, self._bias_shape, self.computed)
        if x_at is None or scale_at is None or bias_at is None:
            return None
        result: Array = empty(self._out_shape, self.dtype) if out is None else out
        out_at = address_if(result, self._out_shape, self.dtype)
        if out_at is None or not result.flags.writeable:
            return None
        # Nothing is written to a caller's array before all rows are known to be finite, nor over rows yet to be read.
        apart = out_at >= x_at + x.nbytes or out_at + result.nbytes <= x_at
        safe = out is None or (not self.form.high and apart)
        with workspace() as work:
            left, job = self._filled(work, x_at, scale_at, bias_at)
            if self.plan.own_rows and safe:
                job.left_kernel, job.left_job = self._left_kernel.address, ctypes.addressof(left)
                self._take_rows(job)
            else:
                pool.run(self._left_kernel, left, self._left_threads)
                if left.status:
                    return None
            job.out = out_at
            if self._large:
                self._past_the_cache(job)
            self.run(job)
            if job.status & NOT_FINITE:
                return None
        return result

    def repeats(self, machine: Machine) -> bool:
        """Whether :meth:`again` can compute this product, on a machine that is set up so."""
        simple = self.form.high > 0 or self.form.groups == 1
        return self.machine == machine and simple and not self._flip
