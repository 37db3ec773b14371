"""A product that has been computed before: all but the addresses of its arrays is known.

What :mod:`fastq.engine.run` and :mod:`fastq.engine.multiply` work out for a call is kept as two filled jobs, so that
the next call of its kind costs a copy of each, a handful of addresses and the kernels. A product of 64 x 64 took 27 us
without this, of which the kernels take 5.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import LINE, empty, workspace
from fastq.engine.multiply import STREAMED, right_job
from fastq.engine.plain import FUNCTION_RAISED
from fastq.engine.plan import Machine, Plan, left_threads
from fastq.engine.pointers import address_if, flat
from fastq.engine.prepack import Balance, Columns, Right
from fastq.engine.run import fill_balance, fill_cuts, left_kind
from fastq.kernels import table
from fastq.kernels.jobs import LEFT_ROWS, LeftJob, MatmulJob
from fastq.layout.tiles import DEPTH, TILE_ROWS, Segments, ceil_div
from fastq.machine import threads
from fastq.machine.jit import kernel


class Ready:
    """A left operand of one shape and kind, times one packed operand.

    The left operand is C-contiguous: floats, which are quantized by row (after they are balanced, if there is a
    `balance`), or (`dtype` int8) codes with a scale per row.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        balance: Balance | None,
        right: Right,
        columns: Columns,
        cuts: Segments,
        plan: Plan,
        machine: Machine,
    ) -> None:
        unit, kind = plan.unit, left_kind(dtype)
        assert unit is not None
        assert columns.offset is None
        m, k = prod(shape[:-1]), shape[-1]
        self.machine, self.shape = machine, (*shape[:-1], right.n)
        self._left_form, self._scale_shape, self._bias_shape = (shape, dtype), (m, 1), (right.n,)
        self.dtype, self.computed = np.dtype(plan.output.type), np.dtype(plan.output.computed)
        self._needed = right, columns, np.zeros((m, 1), np.int32), balance  # their addresses are in the jobs
        self._places: list[int] = []
        self._size = 0
        size = self.computed.itemsize
        tiles = ceil_div(m, TILE_ROWS) * cuts.tiles * TILE_ROWS * DEPTH * unit.left_bytes
        self._left_threads = left_threads(m * k * dtype.itemsize, plan)
        left = LeftJob(m=m, k=k, pitch=k, high=127)
        fill_cuts(left, cuts)
        fill_balance(left, balance, self.computed)
        room = self._left_threads * LEFT_ROWS * left.room_pitch * size
        for nbytes in (tiles, m * size, 4 * m * cuts.segments, right.width * size, plan.scratch * plan.threads, room):
            self._places.append(self._size)
            self._size += ceil_div(nbytes, LINE) * LINE
        self._left = bytes(left)
        if kind:
            self._left_kernel = kernel(*table.left_floats(kind, unit.left_bytes, balance is not None))
        else:
            self._left_kernel = kernel(*table.left_codes(unit.left_bytes))

        job = right_job(m, right, columns, cuts, plan)
        job.row_groups, job.row_zero = 1, flat(self._needed[2], np.int32, m)
        job.plain = columns.uniform and cuts.segments == 1
        job.out_pitch, job.scratch_bytes = right.n, plan.scratch
        self._matmul = bytes(job)
        self._matmul_kernel = kernel(*table.matmul(unit, plan.shape, plan.form, plan.output))
        self._threads = plan.threads
        self._large = m * right.n * self.dtype.itemsize >= STREAMED and right.n * self.dtype.itemsize % LINE == 0

    def __call__(self, x: Any, scale: Any = None, bias: Any = None, out: Any = None) -> npt.NDArray[Any] | None:
        """``x @ right + bias``; None if something is not as usual, or x is not finite: left to the long way.

        Codes come with a scale per row, of the type computed in. Every array must lie in memory as one would make it.
        """
        x_at = address_if(x, *self._left_form)
        scale_at = 0 if scale is None else address_if(scale, self._scale_shape, self.computed)
        bias_at = 0 if bias is None else address_if(bias, self._bias_shape, self.computed)
        if x_at is None or scale_at is None or bias_at is None:
            return None
        result: npt.NDArray[Any] = empty(self.shape, self.dtype) if out is None else out
        out_at = address_if(result, self.shape, self.dtype)
        if out_at is None or not result.flags.writeable:
            return None
        left, job = LeftJob.from_buffer_copy(self._left), MatmulJob.from_buffer_copy(self._matmul)
        with workspace() as work:
            base = work.take(self._size)
            tiles, scales, row_sum, biases, scratch, room = self._places
            left.x = x_at
            left.tiles = job.left = base + tiles
            left.scale, left.room = base + scales, base + room
            job.row_scale = left.scale if scale is None else scale_at
            left.row_sum = job.row_sum = base + row_sum
            threads.run(self._left_kernel, left, self._left_threads)
            if left.status:
                return None
            if bias is not None:
                job.bias = base + biases
                ctypes.memmove(job.bias, bias_at, bias.nbytes)
            job.scratch = base + scratch
            job.out = out_at
            if self._large:
                job.streamed = out_at % LINE == 0
            threads.run(self._matmul_kernel, job, self._threads)
        if job.status:
            raise RuntimeError(FUNCTION_RAISED)
        return result
