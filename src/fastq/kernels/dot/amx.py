"""AMX: products of whole tiles, 16 rows x 64 k times 64 k x 16 columns (Intel Sapphire Rapids and later).

    tmm0 tmm1     accumulators of a 2 x 2 block: 32 rows x 32 columns of int32
    tmm2 tmm3
    tmm4 tmm5     left tiles of the two row groups
    tmm6 tmm7     right tiles of the two column blocks

A step along K is one tile: four loads of a KiB each for four products, which take 16 cycles each. ``tdpbsud``
multiplies signed left codes with unsigned right ones; the other three combinations of signs never occur, because
operands are packed that way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.dot.brought import brought
from fastq.kernels.dot.micro import MicroKernel, Shape, choose
from fastq.kernels.dot.rooms import through_room
from fastq.kernels.dot.unpack import unpack
from fastq.kernels.epilogue.outputs import SIZES, Output
from fastq.kernels.epilogue.rescale import FastTile, epilogue
from fastq.kernels.epilogue.top import kept, select
from fastq.kernels.jobs import NOT_FINITE, MatmulJob
from fastq.layout.tiles import BLOCK, DEPTH, STEP, STEPS, TILE_ROWS, TileFormat, tile_bytes
from fastq.machine.ir import (
    I8,
    I16,
    I64,
    VOID,
    Target,
    arrive,
    at,
    cast_to,
    declare,
    ir_function,
    kernel_function,
    loop,
    prefetch,
    stack,
    store_vector,
    take,
)
from fastq.machine.own_job import job_room

TILE = tile_bytes(8)
ROW = DEPTH  # bytes per tile row, on either side
LINE = 64
# Each call prefetches 1/8 of the next block of left tiles (32 rows) and 1/16 of the next block of right tiles (32
# columns), both of the next block of K.
LEFT_LINES, LEFT_SHARES, RIGHT_SHARES = 4, 8, 16
ROWS, PITCH = 2 * TILE_ROWS, 2 * BLOCK  # an accumulator: rows, int32 per row

as_i32 = cast_to("i32*")


class Amx(MicroKernel):
    """Tile registers must be configured by each thread before use and released after."""

    target = Target("sapphirerapids", "+amx-tile,+amx-int8")

    def op(self, b: ir.IRBuilder, name: str, *args: Any) -> None:
        """An instruction on tiles: all of them are emitted here."""
        b.call(declare(b, f"llvm.x86.{name}", VOID, [a.type for a in args]), args)

    def move(self, b: ir.IRBuilder, name: str, sums: Any, places: list[tuple[int, int]]) -> None:
        """Load or store (``tileloadd64``, ``tilestored64``) the accumulators of these row groups and column blocks."""
        for g, c in places:
            place = b.gep(b.bitcast(sums, I8.as_pointer()), [I64(4 * (g * TILE_ROWS * PITCH + c * BLOCK))])
            self.op(b, name, I8(2 * g + c), place, I64(4 * PITCH))

    def configure(self, b: ir.IRBuilder, steps: Any) -> None:
        """Set the tiles up, those of operands for so many steps of K."""
        config = b.alloca(ir.ArrayType(I8, 64))
        config.align = 64
        b.store(ir.Constant(config.type.pointee, None), config)
        first = b.bitcast(config, I8.as_pointer())
        b.store(I8(1), first)  # palette
        for tile in range(8):
            columns, rows = b.gep(first, [I64(16 + 2 * tile)]), b.gep(first, [I64(48 + tile)])
            size = b.trunc(b.mul(steps, I64(STEP)), I16) if tile in (4, 5) else I16(ROW)
            b.store(size, b.bitcast(columns, I16.as_pointer()))
            b.store(b.trunc(steps, I8) if tile in (6, 7) else I8(TILE_ROWS), rows)
        self.op(b, "ldtilecfg", first)

    def enter(self) -> Any:
        """``enter()``: set up eight tiles of 16 rows x 64 bytes."""
        return ir_function("fastq_amx_enter", (), self.target, lambda b: self.configure(b, I64(STEPS)))

    def leave(self) -> Any:
        """``leave()``: give the tiles up."""
        return ir_function("fastq_amx_leave", (), self.target, lambda b: self.op(b, "tilerelease"))

    def bare_loop(self) -> Any:
        """``bare_loop(left, right, rounds, sums)``: one 2 x 2 block of products out of registers, `rounds` times over.

        Left and right are two tiles each; the sums are 32 x 32. What it does per second no product can exceed.
        """

        def emit(b, left, right, rounds, sums):
            for i in range(2):
                self.op(b, "tileloadd64", I8(4 + i), b.gep(left, [I64(i * TILE)]), I64(ROW))
                self.op(b, "tileloadd64", I8(6 + i), b.gep(right, [I64(i * TILE)]), I64(ROW))
            places = [(g, c) for g in range(2) for c in range(2)]
            for g, c in places:
                self.op(b, "tilezero", I8(2 * g + c))

            def once(i, _):
                for g, c in places:
                    self.op(b, "tdpbsud", I8(2 * g + c), I8(4 + g), I8(6 + c))
                return []

            loop(b, I64(0), rounds, 1, [], once)
            self.move(b, "tilestored64", sums, places)

        return ir_function("fastq_amx_bare_loop", ("u8*", "u8*", "int", "i32*"), self.target, emit)

    def blocked(self, output: Output, right_lines: int) -> Any:
        """One block of K of one accumulator of 32 x 32, and on the way the epilogue of an earlier one.

        ``blocked(job, a, left_stride, w, block_stride, tiles, acc, part, done, done_row, done_block, done_rows,
        values, next_left, next_right)``

        `part`: bit 0, start from zero rather than from `acc`; bit 1, only the upper row group; bit 2, only the first
        column block. `done` is a finished accumulator, of which `done_rows` rows are written out between the products,
        when the vector units have nothing else to do; or left in `values`, if the output is held. Written out
        afterwards it took a third of the time, since the 512 instructions that the core looks ahead do not reach from
        there to the next products.

        From `next_left` and `next_right` on, :data:`LEFT_LINES` and `right_lines` cache lines per tile are fetched into
        the L2 cache.
        """

        def emit(
            b,
            job,
            a,
            left_stride,
            w,
            block_stride,
            tiles,
            out,
            part,
            done,
            done_row,
            done_block,
            done_rows,
            values,
            *following,
        ):
            def bit(n):
                return b.icmp_unsigned("!=", b.and_(part, I64(1 << n)), I64(0))

            variants = (Shape(2, 2, 1), Shape(1, 2, 1), Shape(2, 1, 1), Shape(1, 1, 1))  # in tiles
            index = b.add(b.zext(bit(1), I64), b.shl(b.zext(bit(2), I64), I64(1)))
            if output.planes > 1:  # rows of the output
                done_row, done_rows = (b.sdiv(count, I64(output.planes)) for count in (done_row, done_rows))
            done_tile = FastTile(b, job, output, PITCH, done, done_row, done_block)

            values = b.bitcast(values, done_tile.terms.type.as_pointer())

            def write_row(r, _=None):
                if output.function is None:
                    for c in range(2):
                        if output.held:
                            y, _, _, here = done_tile.values(b, r, I64(c))
                            store_vector(b, y, b.gep(values, [here]))
                        else:
                            done_tile.write(b, r, I64(c))
                return []

            def variant(shape):
                places = [(g, c) for g in range(shape.rows) for c in range(shape.blocks)]
                with b.if_else(bit(0)) as (fresh, carried):
                    with fresh:
                        for g, c in places:
                            self.op(b, "tilezero", I8(2 * g + c))
                    with carried:
                        self.move(b, "tileloadd64", out, places)

                def one_tile(t, _):
                    offset = b.mul(t, I64(TILE))
                    loads = [(4 + g, a, left_stride, g) for g in range(shape.rows)]
                    loads += [(6 + c, w, block_stride, c) for c in range(shape.blocks)]
                    for register, base, stride, number in loads:
                        place = b.gep(base, [b.add(offset, b.mul(stride, I64(number)))])
                        self.op(b, "tileloadd64", I8(register), place, I64(ROW))
                    for base, lines in zip(following, (LEFT_LINES, right_lines)):
                        for line in range(lines):
                            prefetch(b, b.gep(base, [b.add(b.mul(t, I64(lines * LINE)), I64(line * LINE))]), 2)
                    for g, c in places:
                        self.op(b, "tdpbsud", I8(2 * g + c), I8(4 + g), I8(6 + c))
                    with b.if_then(b.icmp_signed("<", b.shl(t, I64(1)), done_rows)):
                        for later in range(2):
                            write_row(b.add(b.shl(t, I64(1)), I64(later)))
                    return []

                loop(b, I64(0), tiles, 1, [], one_tile)
                self.move(b, "tilestored64", out, places)

            choose(b, variants, index, variant)
            loop(b, b.shl(tiles, I64(1)), done_rows, 1, [], write_row)

        ints = ("int",) * 3
        kinds = (MatmulJob, "u8*", "int", "u8*", "int", "int", "i32*", "int", "i32*", *ints, "u8*", "u8*", "u8*")
        return ir_function(f"fastq_amx_blocked_{output.tag}_{right_lines}", kinds, self.target, emit)


def gemm(isa: Amx, form: TileFormat, output: Output) -> Any:
    """A product with one segment of K, in blocks that fit the caches.

    A ticket is `row_chunk` rows by `block_chunk` column blocks. For each block of K and each 32 rows, the left tiles
    stay in the L1 cache while the right tiles of the ticket's columns stream by from L2, and with them the
    accumulators, which wait in this thread's scratch between blocks of K. So a block of K is as long as left tiles,
    right tiles and two accumulators fit L1: 8 tiles are 16 + 16 + 8 KiB.

    While a block of K is multiplied, the next one is fetched into L2, a few lines per product. For the last block that
    is the first one of the next ticket, which is drawn early.

    10^12 operations per second on two cores, 4096**3, where the bare loop of products does 12.5:

    ===================================================  ==========
    K whole, 32 columns at a time, epilogue afterwards   3.6
    blocks of 16 tiles, epilogue afterwards              3.7
    blocks of 16 tiles, epilogue by the fast path        4.4
    blocks of 16 tiles, epilogue between the products    5.2
    blocks of 8 tiles                                    5.4 to 6.1
    blocks of 6; 12; 32 tiles                            5.1; 4.8; 5.1
    ===================================================  ==========

    Taken apart on one core (milliseconds, 4096**3, of which the bare loop takes 20): 48 in all; 43 without writing the
    output; 38 without reading accumulators back, 36 without storing them; 25 with operands that are always the same.
    Fetching the next block gains 5 of them: 43. What gains nothing: accumulators fetched into L1; right tiles or
    accumulators loaded with the hint that they are not used again (tileloaddt1), left tiles so: 4 more; blocks of 16
    tiles with all that: 51.
    """
    k_block = isa.k_block
    bits, packed_tile = form.bits, tile_bytes(form.bits)
    micro, finish = isa.blocked(output, 2 if bits > 4 else 1), epilogue(isa.target, isa.tag, output, PITCH)
    enter, leave = isa.enter(), isa.leave()
    widen = unpack(isa, form) if bits < 8 else None
    sum_room = stack(2 * TILE_ROWS * PITCH * SIZES[output.computed])
    between = output.function is None  # written out between later products
    top, take_in = output.top, select(output, PITCH) if output.top else None
    bring, (begin_ticket, end_ticket), own_job = brought(output.planes), through_room(output), job_room(MatmulJob)

    @kernel_function
    def gemm_kernel(job):
        sums, mine = sum_room(), own_job()
        enter()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks = job.columns // BLOCK
        groups = (blocks + job.block_chunk - 1) // job.block_chunk
        chunks = (job.m + job.row_chunk - 1) // job.row_chunk
        thread = arrive(job, 1)
        scratch = at(job.scratch, thread * job.scratch_bytes)
        accs = as_i32(scratch)
        # Where no other rows meet the right tiles, they are read in one go. (Low-bit ones have room for a block only.)
        whole = job.row_chunk <= ROWS and bits == 8
        block_k = max(tiles, 1) if whole else k_block
        # A low-bit block of K is unpacked behind the accumulators.
        dense = at(scratch, job.row_chunk * job.block_chunk * BLOCK * 4)
        ticket = take(job, 1)
        while ticket < groups * chunks:
            first_block = ticket % groups * job.block_chunk
            last_block = min(first_block + job.block_chunk, blocks)
            first_row = ticket // groups * job.row_chunk
            last_row = min(first_row + job.row_chunk, job.m)
            panels = (last_block - first_block + 1) // 2
            if top and not kept(job, first_block, last_block - first_block):
                ticket = take(job, 1)
                continue
            bring(job, first_row, last_row, thread)
            if job.status & NOT_FINITE:
                break
            begin_ticket(job, mine, thread, first_row, first_block)
            done, done_row, done_block, done_rows = accs, 0, 0, 0
            following = ticket
            next_row, next_block, next_k = first_row, first_block, 0
            for k in range(0, tiles, block_k):
                depth = min(block_k, tiles - k)
                final = k + depth == tiles
                next_k = k + depth
                if final:
                    following = take(job, 1)
                    next_k = 0
                    if following < groups * chunks:
                        next_block = following % groups * job.block_chunk
                        next_row = following // groups * job.row_chunk
                if bits < 8:
                    for block in range(first_block, last_block):
                        target = at(dense, (block - first_block) * k_block * TILE)
                        source = at(job.right, block * tiles * packed_tile)
                        factors = at(job.groups, block * job.group_pitch)
                        widen(target, source, k, k + depth, factors, job.group_quarters)
                for row in range(first_row, last_row, ROWS):
                    left = at(job.left, (row // TILE_ROWS * tiles + k) * TILE)
                    upper = 2 if last_row - row <= TILE_ROWS else 0
                    for panel in range(panels):
                        block = first_block + 2 * panel
                        if bits < 8:
                            right, stride = at(dense, 2 * panel * k_block * TILE), k_block * TILE
                        else:
                            right, stride = at(job.right, (block * tiles + k) * TILE), tiles * TILE
                        # Of those that need not wait for more of K, one is written out beside the next.
                        number = panel & 1 if whole else (row - first_row) // ROWS * panels + panel
                        acc = at(accs, number * ROWS * PITCH)
                        columns = min(2, last_block - block)
                        part = (1 if k == 0 else 0) + upper + (4 if columns == 1 else 0)
                        share = panel % LEFT_SHARES * (2 * k_block // LEFT_SHARES)
                        next_tile = ((next_row + row - first_row) // TILE_ROWS + share // k_block) * tiles
                        next_left = at(job.left, (next_tile + next_k + share % k_block) * TILE)
                        share = (row - first_row) // ROWS % RIGHT_SHARES * (2 * k_block // RIGHT_SHARES)
                        next_tile = (next_block + 2 * panel + share // k_block) * tiles + next_k + share % k_block
                        next_right = at(job.right, next_tile * packed_tile)
                        micro(
                            mine, left, tiles * TILE, right, stride, depth, acc, part,
                            done, done_row, done_block, done_rows, sums, next_left, next_right,
                        )  # fmt: skip
                        if top and done_rows > 0:
                            take_in(job, thread, sums, done_row, done_rows, done_block, 2)
                        done_rows = 0
                        if final:
                            rows = min(ROWS, job.m - row)
                            if between and job.fast and rows == ROWS and columns == 2 and (block + 2) * BLOCK <= job.n:
                                done, done_row, done_block, done_rows = acc, row, block, rows
                            else:
                                finish(mine, acc, sums, row, rows, block, columns)
                                if top:
                                    take_in(job, thread, sums, row, rows, block, columns)
            if done_rows > 0:
                finish(mine, done, sums, done_row, done_rows, done_block, 2)
                if top:
                    take_in(job, thread, sums, done_row, done_rows, done_block, 2)
            end_ticket(job, mine, thread, first_row, last_row, first_block)
            ticket = following
        leave()

    return gemm_kernel
