"""The loops around the micro-kernels: blocks of the output drawn from a ticket, segments of K, the epilogue."""

from __future__ import annotations

from typing import Any

from fastq.kernels.dot.amx_segments import amx_sums
from fastq.kernels.dot.brought import brought
from fastq.kernels.dot.micro import MicroKernel, Shape, dense
from fastq.kernels.dot.packed import packed, tile_sums
from fastq.kernels.dot.rooms import through_room
from fastq.kernels.dot.segments import SHORT, dense_sums, packed_sums
from fastq.kernels.dot.unpack import unpack
from fastq.kernels.epilogue.outputs import SIZES, Output
from fastq.kernels.epilogue.rescale import epilogue
from fastq.kernels.epilogue.top import kept, select
from fastq.kernels.jobs import NOT_FINITE, MatmulJob
from fastq.layout.tiles import BLOCK, DEPTH, STEPS, TILE_ROWS, TileFormat, tile_bytes
from fastq.machine.ir import arrive, at, cast_to, kernel_function, stack, take
from fastq.machine.own_job import job_room

DENSE_TILE = tile_bytes(8)


def gemm(isa: MicroKernel, form: TileFormat, output: Output, segmented: bool = False) -> Any:
    """Many rows: a panel of column blocks stays in the L2 cache while the rows of a chunk pass by.

    A low-bit panel is unpacked once into this thread's scratch and then used like an 8-bit one; one of 8 bits is copied
    there, if the micro-kernel wants its tiles in another order. `segmented`: K has several segments.
    """
    rows, panel = isa.rows, isa.blocks
    pitch = panel * BLOCK
    shapes = tuple(Shape(rows, n + 1, 1, isa.gemm_passes) for n in range(panel))
    many = isa if segmented else isa.on_copies or isa
    micro = None if segmented else dense(many, shapes, pitch)
    sums_of = amx_sums if isa.k_block else dense_sums
    micro_sums = sums_of(isa, shapes, pitch, output) if segmented else None
    finish = epilogue(isa.target, isa.tag, output, pitch, segmented)
    copies = isa.unit.copies(form.bits, segmented)  # as the planner asks, who makes room for them
    widen = unpack(many, form) if copies else None
    acc_room, sum_room = stack(rows * pitch * 4, "i32*"), stack(rows * pitch * SIZES[output.computed])
    left_row, left_tile = DEPTH * isa.left_bytes, TILE_ROWS * DEPTH * isa.left_bytes
    packed_tile = tile_bytes(form.bits)
    top, wanted, take_in = output.top, kept, select(output, pitch) if output.top else None
    bring, (begin_ticket, end_ticket), own_job = brought(output.planes), through_room(output), job_room(MatmulJob)

    @kernel_function
    def gemm_kernel(job):
        acc, sums, mine = acc_room(), sum_room(), own_job()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks = job.columns // BLOCK
        spans = (blocks + job.block_chunk - 1) // job.block_chunk
        chunks = (job.m + job.row_chunk - 1) // job.row_chunk
        block_stride = tiles * DENSE_TILE
        thread = arrive(job, 1)
        scratch = at(job.scratch, thread * job.scratch_bytes)
        ticket = take(job, 1)
        while ticket < spans * chunks:
            first_block = ticket % spans * job.block_chunk
            begin = ticket // spans * job.row_chunk
            end = min(begin + job.row_chunk, job.m)
            bring(job, begin, end, thread)
            if job.status & NOT_FINITE:
                break
            begin_ticket(job, mine, thread, begin, first_block)
            last_block = min(first_block + job.block_chunk, blocks)
            for block in range(first_block, last_block, panel):
                width = min(panel, last_block - block)
                if top and not wanted(job, block, width):
                    continue
                right = at(job.right, block * tiles * packed_tile)
                if copies:
                    for i in range(width):
                        groups = at(job.groups, (block + i) * job.group_pitch)
                        source = at(right, i * tiles * packed_tile)
                        widen(at(scratch, i * block_stride), source, 0, tiles, groups, job.group_quarters)
                    right = scratch
                for row in range(begin, end, rows):
                    left = at(job.left, row // TILE_ROWS * tiles * left_tile + row % TILE_ROWS * left_row)
                    if segmented:
                        micro_sums(job, left, right, block_stride, row, block, acc, sums, width - 1)
                    else:
                        micro(left, right, block_stride, job.steps, acc, width - 1)
                    finish(mine, acc, sums, row, min(rows, job.m - row), block, width)
                    if top:
                        take_in(job, thread, sums, row, min(rows, job.m - row), block, width)
            end_ticket(job, mine, thread, begin, end, first_block)
            ticket = take(job, 1)

    return gemm_kernel


def gemv(isa: MicroKernel, form: TileFormat, output: Output, segmented: bool = False) -> Any:
    """Few rows: the weights stream by once and are unpacked in registers."""
    return _gemv_segmented(isa, form, output) if segmented else _gemv(isa, form, output)


def _gemv(isa: MicroKernel, form: TileFormat, output: Output) -> Any:
    """One segment of K."""
    shapes = isa.gemv_shapes
    pitch = BLOCK
    micro = dense(isa, shapes, pitch, True) if form.bits == 8 else None
    micro_packed = packed(isa, form, shapes, pitch) if form.bits < 8 else None
    sum_up = tile_sums(isa) if form.grouped else None
    as_i32 = cast_to("i32*")
    finish = epilogue(isa.target, isa.tag, output, pitch)
    acc_room, sum_room = stack(isa.few * pitch * 4, "i32*"), stack(isa.few * pitch * SIZES[output.computed])
    smaller = tuple(shape.rows for shape in shapes[:-1])
    top, wanted, take_in = output.top, kept, select(output, pitch) if output.top else None
    bits, grouped, packed_tile = form.bits, form.grouped, tile_bytes(form.bits)

    @kernel_function
    def gemv_kernel(job):
        acc, sums = acc_room(), sum_room()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks = job.columns // BLOCK
        chunks = (blocks + job.block_chunk - 1) // job.block_chunk
        shape = 0  # the smallest that holds all rows
        for rows in smaller:
            shape += 1 if job.m > rows else 0
        thread = arrive(job, 1)
        left_sums = as_i32(at(job.scratch, thread * job.scratch_bytes))
        if grouped:
            sum_up(job.left, job.m, tiles, left_sums)
        ticket = take(job, 1)
        while ticket < chunks:
            for block in range(ticket * job.block_chunk, min((ticket + 1) * job.block_chunk, blocks)):
                if top and not wanted(job, block, 1):
                    continue
                right = at(job.right, block * tiles * packed_tile)
                groups = at(job.groups, block * job.group_pitch)
                if bits == 8:
                    micro(job.left, right, 0, job.steps, acc, shape)
                else:
                    micro_packed(job.left, right, 0, tiles, acc, shape, groups, job.group_quarters, left_sums)
                finish(job, acc, sums, 0, job.m, block, 1)
                if top:
                    take_in(job, thread, sums, 0, job.m, block, 1)
            ticket = take(job, 1)

    return gemv_kernel


def _gemv_segmented(isa: MicroKernel, form: TileFormat, output: Output) -> Any:
    """Several segments of K. Codes are unpacked in memory where segments are not made of tiles, or half of one."""
    shapes = tuple(shape for shape in isa.gemv_shapes if shape.rows % output.planes == 0)
    pitch = BLOCK
    in_registers = form.bits < 8 and not form.grouped
    # Others than those in registers are rare: two register blocks do for them.
    dense_shapes = (shapes[0], shapes[-1]) if in_registers else shapes
    micro = dense_sums(isa, dense_shapes, pitch, output)
    micro_packed = packed_sums(isa, form, shapes, pitch, output) if in_registers else None
    widen = unpack(isa, form) if form.bits < 8 else None
    finish = epilogue(isa.target, isa.tag, output, pitch, True)
    acc_room, sum_room = stack(isa.few * pitch * 4, "i32*"), stack(isa.few * pitch * SIZES[output.computed])
    top, wanted, take_in = output.top, kept, select(output, pitch) if output.top else None
    smaller, dense_smaller = (tuple(shape.rows for shape in some[:-1]) for some in (shapes, dense_shapes))
    bits, packed_tile = form.bits, tile_bytes(form.bits)

    @kernel_function
    def gemv_segmented_kernel(job):
        acc, sums = acc_room(), sum_room()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks = job.columns // BLOCK
        chunks = (blocks + job.block_chunk - 1) // job.block_chunk
        shape, dense_shape = 0, 0  # the smallest that holds all rows
        for rows in smaller:
            shape += 1 if job.m > rows else 0
        for rows in dense_smaller:
            dense_shape += 1 if job.m > rows else 0
        fits = job.segment_steps % STEPS == 0 or job.segment_steps == SHORT
        thread = arrive(job, 1)
        scratch = at(job.scratch, thread * job.scratch_bytes)
        ticket = take(job, 1)
        while ticket < chunks:
            for block in range(ticket * job.block_chunk, min((ticket + 1) * job.block_chunk, blocks)):
                if top and not wanted(job, block, 1):
                    continue
                right = at(job.right, block * tiles * packed_tile)
                if in_registers and fits:
                    micro_packed(job, job.left, right, block, acc, sums, shape)
                elif bits < 8:
                    widen(scratch, right, 0, tiles, at(job.groups, block * job.group_pitch), job.group_quarters)
                    micro(job, job.left, scratch, 0, 0, block, acc, sums, dense_shape)
                else:
                    micro(job, job.left, right, 0, 0, block, acc, sums, dense_shape)
                finish(job, acc, sums, 0, job.m, block, 1)
                if top:
                    take_in(job, thread, sums, 0, job.m, block, 1)
            ticket = take(job, 1)

    return gemv_segmented_kernel
