"""Rows of the left operand that a ticket brings into tiles itself, to multiply them while they lie in its caches."""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir

from fastq.kernels.jobs import LEFT_ROWS, LeftJob, MatmulJob
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import HOST, I8, I64, P8, call_kernel, field, ir_function

SIZE = ctypes.sizeof(LeftJob)


def brought(planes: int) -> Any:
    """``bring(job, first, last, thread)``: bring these rows of left tiles, if the job names a kernel that does.

    It draws its tickets from a copy of the left job, which begins at the first row and ends at the last; `thread` is
    this thread's number. `first` is a multiple of LEFT_ROWS rows of x.
    """

    def emit(b, job, first, last, thread):
        with b.goto_entry_block():
            own = b.alloca(ir.ArrayType(I8, SIZE))
            own.align = CACHE_LINE
        function, template = field(b, MatmulJob, job, "left_kernel"), field(b, MatmulJob, job, "left_job")

        def place(of: Any, job_type: Any, name: str) -> Any:
            return b.bitcast(b.gep(of, [I64(job_type.place_of(name))]), I64.as_pointer())

        with b.if_then(b.icmp_unsigned("!=", function, ir.Constant(P8, None))):
            copied = ir.ArrayType(I64, SIZE // 8)
            b.store(b.load(b.bitcast(template, copied.as_pointer())), b.bitcast(own, copied.as_pointer()))
            copy = b.bitcast(own, P8)
            first, last = (b.sdiv(line, I64(planes)) for line in (first, last))
            values = {"ticket": b.sdiv(first, I64(LEFT_ROWS)), "m": last, "arrivals": thread}
            for name, value in values.items():
                b.store(value, place(copy, LeftJob, name))
            call_kernel(b, function, copy)
            status = b.load(place(copy, LeftJob, "status"))
            b.atomic_rmw("or", place(job, MatmulJob, "status"), status, "monotonic")

    return ir_function(f"fastq_bring_{planes}", (MatmulJob, "int", "int", "int"), HOST, emit)
