"""Kernels that measure the machine (see :mod:`fastq.engine.roofline`); no product uses them.

:func:`multiply` is the inner loop of a GEMM without its memory: accumulators and right codes stay in registers, and the
left codes, less than a KiB, come from the L1 cache through load ports that multiply nothing. What it does per second no
product of that unit can exceed.

The left codes change from step to step for a reason: with constant ones LLVM would move the multiplications of AVX2 out
of the loop, since they are apart from the additions there, and time nothing but additions.
"""

from __future__ import annotations

from typing import Any

from fastq.kernels.dot.amx import Amx
from fastq.kernels.dot.micro import MicroKernel
from fastq.layout.tiles import ROW_BYTES, STEP, STEPS
from fastq.machine.ir import I64, at, ir_function, kernel_function, load_vector, loop, store_vector, take


def _block(isa: MicroKernel) -> Any:
    """``block(left, right, rounds, sums)``: a step of the register block, `rounds` times over, from zero.

    Left codes are ``[16 steps][rows][4 k]``, used over and over; right ones ``[columns][4 k]``, the same in every step.
    """
    parts = isa.blocks * isa.parts

    def one_pass(b, left, right, rounds, sums, places):
        rights = [load_vector(b, b.gep(right, [I64(p * isa.width)]), isa.byte_type) for p in places]

        def one_round(i, accs):
            step = b.mul(b.and_(i, I64(STEPS - 1)), I64(isa.rows * STEP * isa.left_bytes))

            def codes(row, _):
                return b.gep(left, [b.add(step, I64(row * STEP * isa.left_bytes))])

            return isa.multiply(b, [accs], isa.rows, 1, codes, lambda _: rights)[0]

        accs = loop(b, I64(0), rounds, 1, isa.zeros(isa.rows, len(rights)), one_round)
        for i, acc in enumerate(isa.finalize(b, accs, isa.rows)):
            place = (i // len(rights) * parts + places[i % len(rights)]) * isa.lanes
            store_vector(b, acc, b.gep(sums, [I64(place)]))

    def emit(b, left, right, rounds, sums):
        width = parts // isa.gemm_passes
        for start in range(0, parts, width):
            one_pass(b, left, right, rounds, sums, range(start, start + width))

    name = f"fastq_peak_{isa.tag}_{isa.rows}x{isa.blocks}"
    return ir_function(name, ("u8*", "u8*", "int", "i32*"), isa.target, emit)


def multiply(isa: MicroKernel) -> Any:
    """For each ticket, `rounds` rounds of the register block into sums of its own."""
    block = _block(isa)
    size = isa.rows * isa.blocks * ROW_BYTES // STEP

    @kernel_function
    def multiply_kernel(job):
        ticket = take(job, 1)
        while ticket < job.tickets:
            block(job.left, job.right, job.rounds, at(job.sums, ticket * size))
            ticket = take(job, 1)

    return multiply_kernel


def multiply_tiles(isa: Amx) -> Any:
    """:func:`multiply` with tile registers: a round is one product of tiles, 64 k deep."""
    enter, bare_loop, leave = isa.enter(), isa.bare_loop(), isa.leave()
    size = isa.rows * isa.blocks * ROW_BYTES // STEP

    @kernel_function
    def multiply_tiles_kernel(job):
        enter()
        ticket = take(job, 1)
        while ticket < job.tickets:
            bare_loop(job.left, job.right, job.rounds, at(job.sums, ticket * size))
            ticket = take(job, 1)
        leave()

    return multiply_tiles_kernel


@kernel_function
def read(job):
    """For each ticket, add up its words."""
    ticket = take(job, 1)
    while ticket < job.tickets:
        words = at(job.data, ticket * job.words)
        total = 0
        for i in range(job.words):
            total += words[i]
        job.sums[ticket] = total
        ticket = take(job, 1)
