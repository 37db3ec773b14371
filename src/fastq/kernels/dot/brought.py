"""Rows of the left operand that a ticket brings into tiles itself, to multiply them while they lie in its caches."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.jobs import LEFT_ROWS, LeftJob, MatmulJob
from fastq.machine.ir import HOST, I64, P8, field, ir_function
from fastq.machine.own_job import call_kernel, copy_job, pass_status, room_for


def brought(planes: int) -> Any:
    """``bring(job, first, last, thread)``: bring these rows of left tiles, if the job names a kernel that does.

    It draws its tickets from a copy of the left job, which begins at the first row and ends at the last; `thread` is
    this thread's number. `first` is a multiple of LEFT_ROWS rows of x.
    """

    def emit(b, job, first, last, thread):
        kernel = field(b, MatmulJob, job, "left_kernel")
        with b.if_then(b.icmp_unsigned("!=", kernel, ir.Constant(P8, None))):
            left, copy = field(b, MatmulJob, job, "left_job"), room_for(b, LeftJob)
            first, last = (b.sdiv(line, I64(planes)) for line in (first, last))
            copy_job(b, LeftJob, left, copy, ticket=b.sdiv(first, I64(LEFT_ROWS)), m=last, arrivals=thread)
            call_kernel(b, kernel, copy)
            pass_status(b, MatmulJob, job, copy)

    return ir_function(f"fastq_bring_{planes}", (MatmulJob, "int", "int", "int"), HOST, emit)
