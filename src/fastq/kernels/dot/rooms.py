"""Output that a ticket writes into a room of its thread, and moves from there in whole cache lines.

Large outputs go past the cache, which would read each line before it is written. That takes whole lines at a time, and
blocks of 16 columns are not whole lines where rows of the output do not begin at cache lines. Rows of all columns are,
but for the first and the last line. Such a room stays in the L2 cache.

4096 x k x 1536 with AVX2 on two cores, into an output 16 bytes off a cache line, against an aligned one; before, it was
written through the cache. What lies at K = 16 and 64 here, where output is most of the work, lies at K = 384 for AMX.

====================  =======  =======  =======  =======
K                     16       64       128      384
====================  =======  =======  =======  =======
floats on the left    1.05     1.06     1.02     0.94
before                1.95     1.33     1.10     0.9
codes on the left     1.33     1.18     1.04     1.01
before                3.54     1.22     1.20     1.14
====================  =======  =======  =======  =======
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.epilogue.outputs import SIZES, Output
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import HOST, I1, I32, I64, P8, VOID, declare, field, ir_function, load_vector, loop
from fastq.machine.own_job import copy_job, pass_status

LINE = ir.VectorType(I32, CACHE_LINE // 4)


def through_room(output: Output) -> tuple[Any, Any]:
    """``begin(job, mine, thread, row, block)`` and ``end(job, mine, thread, row, last_row, block)`` of a ticket.

    Between them, `mine` is a copy of the job for all that is written: where `job.room_pitch` is not 0, its output is
    the room. `row` counts rows of left tiles; the ticket has all columns from `block` on.
    """
    size, planes = SIZES[output.type], output.planes

    def corner(b, job, thread):
        """The room of a thread, and bytes from row to row in it."""
        room_bytes, pitch = (field(b, MatmulJob, job, name) for name in ("room_bytes", "room_pitch"))
        return b.gep(field(b, MatmulJob, job, "room"), [b.mul(thread, room_bytes)]), pitch

    def emit_begin(b, job, mine, thread, row, block):
        copy_job(b, MatmulJob, job, mine)
        room, pitch = corner(b, job, thread)
        with b.if_then(b.icmp_signed("!=", pitch, I64(0))):
            before = b.add(b.mul(b.sdiv(row, I64(planes)), pitch), b.mul(block, I64(BLOCK)))
            out = b.gep(room, [b.mul(before, I64(-size))])
            copy_job(b, MatmulJob, job, mine, out=b.ptrtoint(out, I64), out_pitch=pitch, streamed=I64(0))

    def emit_end(b, job, mine, thread, row, last_row, block):
        pass_status(b, MatmulJob, job, mine)
        room, pitch = corner(b, job, thread)
        with b.if_then(b.icmp_signed("!=", pitch, I64(0))):
            first, last = (b.sdiv(line, I64(planes)) for line in (row, last_row))
            column = b.mul(block, I64(BLOCK))
            length = b.mul(b.sub(field(b, MatmulJob, job, "n"), column), I64(size))
            out, out_pitch = (field(b, MatmulJob, job, name) for name in ("out", "out_pitch"))

            def one_row(r, _):
                source = b.gep(room, [b.mul(b.sub(r, first), b.mul(pitch, I64(size)))])
                target = b.gep(out, [b.mul(b.add(b.mul(r, out_pitch), column), I64(size))])
                _move(b, source, target, length)
                return []

            loop(b, first, last, 1, [], one_row)

    name, jobs = f"fastq_room_{output.type}_{planes}", (MatmulJob, MatmulJob)
    begin = ir_function(f"{name}_begin", (*jobs, *("int",) * 3), HOST, emit_begin)
    return begin, ir_function(f"{name}_end", (*jobs, *("int",) * 4), HOST, emit_end)


def _move(b: ir.IRBuilder, source: Any, target: Any, length: Any) -> None:
    """Copy bytes, whole cache lines of the target past the cache."""
    copy = declare(b, "llvm.memcpy.p0.p0.i64", VOID, [P8, P8, I64, I1])
    ahead = b.and_(b.neg(b.ptrtoint(target, I64)), I64(CACHE_LINE - 1))
    ahead = b.select(b.icmp_signed("<", ahead, length), ahead, length)
    whole = b.sub(length, b.srem(b.sub(length, ahead), I64(CACHE_LINE)))
    b.call(copy, [target, source, ahead, I1(0)])

    def line(i, _):
        store = b.store(load_vector(b, b.gep(source, [i]), LINE), b.bitcast(b.gep(target, [i]), LINE.as_pointer()))
        store.align = CACHE_LINE
        store.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))
        return []

    loop(b, ahead, whole, CACHE_LINE, [], line)
    b.call(copy, [b.gep(target, [whole]), b.gep(source, [whole]), b.sub(length, whole), I1(0)])
