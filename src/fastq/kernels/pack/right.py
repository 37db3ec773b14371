"""Packing the right operand: codes into tiles, tiles into planes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.layout.tiles import BLOCK, DEPTH, ROW_BYTES, STEP, STEPS, places, tile_bytes
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import (
    HOST,
    I8,
    I32,
    I64,
    at,
    filled,
    ir_function,
    kernel_function,
    load_vector,
    loop,
    splat,
    stack,
    store_vector,
    take,
)

DENSE = tile_bytes(8)
LINE_BLOCKS = CACHE_LINE // BLOCK  # blocks per ticket: row-major codes of so many columns are one cache line per k

_ROW, _WORDS = ir.VectorType(I8, ROW_BYTES), ir.VectorType(I32, BLOCK)


def _planes(bits: int) -> Any:
    """``planes(packed, dense)``: squeeze an 8-bit tile into planes; :mod:`fastq.kernels.dot.unpack` undoes it."""

    def emit(b, out, dense):
        planes: dict[int, Any] = {}
        for row in range(STEPS):
            codes = load_vector(b, b.gep(dense, [I64(row * ROW_BYTES)]), _ROW)
            for place in places(bits, row):
                mask = filled(_ROW, 2**place.width - 1)
                piece = b.and_(b.lshr(codes, filled(_ROW, place.target)), mask)
                piece = b.shl(piece, filled(_ROW, place.shift))
                planes[place.offset] = b.or_(planes[place.offset], piece) if place.offset in planes else piece
        for offset, plane in planes.items():
            store_vector(b, plane, b.gep(out, [I64(offset)]))

    return ir_function(f"fastq_planes_{bits}bit", ("u8*", "u8*"), HOST, emit)


def _whole_steps() -> Any:
    """``whole_steps(tile, codes, k_pitch, n_pitch, shift, steps, sums)``: rows of a tile with all of their 64 codes.

    Codes lie side by side along n (rows of four k are interleaved) or along k (words of four k are gathered); for other
    strides the caller has none of this.
    """

    def emit(b, tile, codes, k_pitch, n_pitch, shift, steps, sums):
        shifts = splat(b, b.trunc(shift, I8), ROW_BYTES)
        byte = filled(_WORDS, 0xFF)

        def finish(step, row, total):
            row = b.add(row, shifts)
            store_vector(b, row, b.gep(tile, [b.mul(step, I64(ROW_BYTES))]))
            words = b.bitcast(row, _WORDS)
            for k in range(STEP):
                total = b.add(total, b.and_(b.lshr(words, filled(_WORDS, 8 * k)), byte))
            return [total]

        def along_n(step, carried):
            quarter = ir.VectorType(I8, BLOCK)
            first = b.mul(b.mul(step, I64(STEP)), k_pitch)
            rows = [load_vector(b, b.gep(codes, [b.add(first, b.mul(I64(k), k_pitch))]), quarter) for k in range(STEP)]

            def joined(x, y):
                count = x.type.count * 2
                return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, count), list(range(count))))

            both = joined(joined(rows[0], rows[1]), joined(rows[2], rows[3]))
            order = [k * BLOCK + column for column in range(BLOCK) for k in range(STEP)]
            row = b.shuffle_vector(both, both, ir.Constant(ir.VectorType(I32, ROW_BYTES), order))
            return finish(step, row, carried[0])

        def along_k(step, carried):
            words = ir.Constant(_WORDS, ir.Undefined)
            for column in range(BLOCK):
                place = b.add(b.mul(I64(column), n_pitch), b.mul(step, I64(STEP)))
                word = b.load(b.bitcast(b.gep(codes, [place]), I32.as_pointer()), align=1)
                words = b.insert_element(words, word, I32(column))
            return finish(step, b.bitcast(words, _ROW), carried[0])

        before = load_vector(b, sums, _WORDS)
        with b.if_else(b.icmp_signed("==", n_pitch, I64(1))) as (side_by_side, otherwise):
            with side_by_side:
                store_vector(b, loop(b, I64(0), steps, 1, [before], along_n)[0], sums)
            with otherwise:
                store_vector(b, loop(b, I64(0), steps, 1, [before], along_k)[0], sums)

    return ir_function("fastq_whole_steps", ("u8*", "u8*", "int", "int", "int", "int", "i32*"), HOST, emit)


def pack(bits: int) -> Any:
    """Tiles of a few column blocks per ticket; what lies beyond the matrix, and between segments, is zero."""
    squeeze = _planes(bits) if bits < 8 else None
    whole_steps = _whole_steps()
    tile_room = stack(DENSE)
    packed_bytes = tile_bytes(bits)

    @kernel_function
    def fill(job, tile, t, column, sums):
        """Tile t of a block. Position p holds k = segment * segment_k + (p - start of the segment), if there is one."""
        width = min(BLOCK, job.n - column)
        straight = width == BLOCK and (job.n_pitch == 1 or job.k_pitch == 1)
        for i in range(DENSE):
            tile[i] = 0
        segment = t * STEPS // job.segment_steps
        p = t * DEPTH
        while p < (t + 1) * DEPTH and segment < job.segments:
            start = segment * job.segment_steps * STEP
            k = segment * job.segment_k + (p - start)
            end_p = min((t + 1) * DEPTH, start + job.segment_steps * STEP)
            count = min(min((segment + 1) * job.segment_k, job.k) - k, end_p - p)
            here = at(sums, segment * job.columns)
            done = 0
            if straight and count >= STEP:
                steps = count // STEP
                source = at(job.codes, k * job.k_pitch + column * job.n_pitch)
                rows = at(tile, p % DEPTH // STEP * ROW_BYTES)
                whole_steps(rows, source, job.k_pitch, job.n_pitch, job.shift, steps, here)
                done = steps * STEP
            for i in range(done, count):
                source = at(job.codes, (k + i) * job.k_pitch + column * job.n_pitch)
                q = (p + i) % DEPTH
                target = at(tile, q // STEP * ROW_BYTES + q % STEP)
                for c in range(width):
                    code = (source[c * job.n_pitch] + job.shift) % 256
                    target[c * STEP] = code
                    here[c] += code
            p = end_p
            segment += 1

    @kernel_function
    def right_pack(job):
        scratch = tile_room()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks = job.columns // BLOCK
        ticket = take(job, 1)
        while ticket * LINE_BLOCKS < blocks:
            first, last = ticket * LINE_BLOCKS, min((ticket + 1) * LINE_BLOCKS, blocks)
            for segment in range(job.segments):
                for column in range(first * BLOCK, last * BLOCK):
                    job.col_sum[segment * job.columns + column] = 0
            for t in range(tiles):
                for block in range(first, last):
                    out = at(job.tiles, (block * tiles + t) * packed_bytes)
                    tile = out if bits == 8 else scratch
                    fill(job, tile, t, block * BLOCK, at(job.col_sum, block * BLOCK))
                    if bits < 8:
                        squeeze(out, scratch)
            ticket = take(job, 1)

    return right_pack
