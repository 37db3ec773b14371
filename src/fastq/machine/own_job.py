"""Jobs of a thread's own: copies with some fields changed, and kernels that are called with them by their address."""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import I8, I32, I64, P8, JobType
from fastq.machine.job import Job

# Numba's calling convention for a kernel: status(return slot, exception slot, job).
_KERNEL = ir.FunctionType(I32, [P8, P8, P8]).as_pointer()


def call_kernel(b: ir.IRBuilder, address: Any, job: Any) -> None:
    """Call a kernel by its address, with its return and exception slots left unread."""
    with b.goto_entry_block():
        slots = b.alloca(ir.ArrayType(P8, 2))
    first, second = (b.bitcast(b.gep(slots, [I64(0), I64(slot)]), P8) for slot in range(2))
    b.call(b.bitcast(address, _KERNEL), [first, second, job])


def room_for(b: ir.IRBuilder, job_type: type[Job]) -> Any:
    """Memory for a job on the stack."""
    with b.goto_entry_block():
        memory = b.alloca(ir.ArrayType(I8, ctypes.sizeof(job_type)))
        memory.align = CACHE_LINE
        return b.bitcast(memory, P8)


def job_room(job_type: type[Job]) -> Any:
    """An intrinsic that gives memory for a job on the stack, to kernel code."""

    @intrinsic
    def room(typingctx: Any) -> Any:
        return JobType(job_type)(), lambda context, builder, sig, args: room_for(builder, job_type)

    return room


def place_in(b: ir.IRBuilder, job_type: type[Job], job: Any, name: str) -> Any:
    """Where a field of a job lies, as a 64-bit integer."""
    return b.bitcast(b.gep(job, [I64(job_type.place_of(name))]), I64.as_pointer())


def copy_job(b: ir.IRBuilder, job_type: type[Job], source: Any, target: Any, **changes: Any) -> None:
    """Copy a job, with other values (64-bit integers) in some fields; its status begins at nothing."""
    for place in range(0, ctypes.sizeof(job_type), 8):
        word = b.load(b.bitcast(b.gep(source, [I64(place)]), I64.as_pointer()))
        b.store(word, b.bitcast(b.gep(target, [I64(place)]), I64.as_pointer()))
    for name, value in {"status": I64(0), **changes}.items():
        b.store(value, place_in(b, job_type, target, name))


def pass_status(b: ir.IRBuilder, job_type: type[Job], job: Any, copy: Any) -> None:
    """Report in a job what a copy's status says."""
    status = b.load(place_in(b, job_type, copy, "status"))
    b.atomic_rmw("or", place_in(b, job_type, job, "status"), status, "monotonic")
