"""The native half of :mod:`fastq.machine.pool`: entering the gate, leading a job. Written as IR for its atomics."""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir

from fastq.machine.ir import HOST, I32, I64, P8, declare, field, ir_function, kernel_function
from fastq.machine.own_job import call_kernel
from fastq.machine.pool_job import CLOSED, INSIDE, PERMIT, PoolJob

# Where an instruction for it exists, by the first part of LLVM's name for what this process runs: a Python for x86 may
# run on an ARM machine. On ARM, `yield` is for cores of several threads, and does nothing on others: the spins would
# end early. `isb` empties the pipeline, which takes tens of cycles, as `pause` does.
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", None),
    "aarch64": ("llvm.aarch64.isb", 15),
    "arm64": ("llvm.aarch64.isb", 15),  # as Apple calls it
}


def _pause(b):
    """Tell the core that this is a spin loop."""
    name, number = _PAUSES.get(llvm.get_process_triple().split("-")[0], (None, None))
    if name is not None:
        arguments = [] if number is None else [I32(number)]
        b.call(declare(b, name, ir.VoidType(), [a.type for a in arguments]), arguments)


def _gate(b, job):
    return b.bitcast(field(b, PoolJob, job, "gate"), I64.as_pointer())


def _slot(b, gate, index):
    return b.bitcast(b.gep(gate, [I64(index)]), P8.as_pointer())


def _emit_publish(b, job):
    """Open the gate to a new job."""
    gate = _gate(b, job)
    function, argument = field(b, PoolJob, job, "function"), field(b, PoolJob, job, "argument")
    b.store(function, _slot(b, gate, 1))
    b.store(argument, _slot(b, gate, 2))
    epoch = b.add(b.lshr(b.load(gate), I64(32)), I64(1))
    opened = b.or_(b.shl(epoch, I64(32)), b.mul(field(b, PoolJob, job, "permits"), I64(PERMIT)))
    b.store_atomic(opened, gate, "release", 8)
    # The caller next reads which workers are parked. A worker says that it parks, and then looks at the gate. With a
    # fence between the two, here and there, one of them sees the other: no worker sleeps through a job.
    b.fence("seq_cst")


def _emit_lead(b, job):
    """Work on the job, close the gate, wait for those inside."""
    gate = _gate(b, job)
    call_kernel(b, field(b, PoolJob, job, "function"), field(b, PoolJob, job, "argument"))
    b.atomic_rmw("or", gate, I64(CLOSED), "acq_rel")
    waiting, done = b.append_basic_block("waiting"), b.append_basic_block("done")
    b.branch(waiting)
    b.position_at_end(waiting)
    inside = b.and_(b.load_atomic(gate, "acquire", 8), I64(PERMIT - 1))
    _pause(b)
    b.cbranch(b.icmp_unsigned("==", inside, I64(0)), done, waiting)
    b.position_at_end(done)


def _emit_wait(b, job):
    """Look at the gate `spins` times; enter what is open and new, work, leave, and look again."""
    gate = _gate(b, job)
    seen_place = b.bitcast(b.gep(job, [I64(PoolJob.place_of("seen"))]), I64.as_pointer())
    spins = field(b, PoolJob, job, "spins")
    b.fence("seq_cst")  # after what the worker has told; see :func:`_emit_publish`
    before = b.block
    look, try_enter, enter, again, done = (b.append_basic_block(n) for n in ("look", "try", "enter", "again", "done"))
    b.branch(look)

    b.position_at_end(look)
    left = b.phi(I64)
    left.add_incoming(spins, before)
    state = b.load_atomic(gate, "acquire", 8)
    epoch = b.lshr(state, I64(32))
    is_new = b.icmp_unsigned("!=", epoch, b.load(seen_place))
    is_open = b.icmp_unsigned("==", b.and_(state, I64(CLOSED)), I64(0))
    permits = b.icmp_unsigned("!=", b.and_(state, I64(CLOSED - PERMIT)), I64(0))
    b.cbranch(b.and_(is_new, b.and_(is_open, permits)), try_enter, again)

    b.position_at_end(try_enter)
    swapped = b.cmpxchg(gate, state, b.add(state, I64(INSIDE - PERMIT)), "acq_rel", "acquire")
    b.cbranch(b.extract_value(swapped, 1), enter, again)

    b.position_at_end(enter)
    b.store(epoch, seen_place)
    call_kernel(b, b.load(_slot(b, gate, 1)), b.load(_slot(b, gate, 2)))
    b.atomic_rmw("sub", gate, I64(INSIDE), "acq_rel")
    left.add_incoming(spins, enter)
    b.branch(look)

    b.position_at_end(again)
    _pause(b)
    fewer = b.sub(left, I64(1))
    left.add_incoming(fewer, again)
    b.cbranch(b.icmp_signed(">", fewer, I64(0)), look, done)
    b.position_at_end(done)


_publish = ir_function("fastq_pool_publish", (PoolJob,), HOST, _emit_publish)
_lead = ir_function("fastq_pool_lead", (PoolJob,), HOST, _emit_lead)
_wait = ir_function("fastq_pool_wait", (PoolJob,), HOST, _emit_wait)


@kernel_function
def publish(job):
    _publish(job)


@kernel_function
def lead(job):
    _lead(job)


@kernel_function
def wait(job):
    _wait(job)
