"""Packing the right operand: codes into tiles, tiles into planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.layout.tiles import BLOCK, DEPTH, ROW_BYTES, STEP, STEPS, places, tile_bytes
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
TOGETHER = 8  # blocks whose tiles are made side by side

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


def _add_up() -> Any:
    """``add_up(rows, steps, sums)``: add the codes in up to 16 rows of a tile to the sums of their columns."""
    pairs = filled(_WORDS, 0x00FF00FF)

    def emit(b, rows, steps, sums):
        def one(step, carried):
            words = load_vector(b, b.gep(rows, [b.mul(step, I64(ROW_BYTES))]), _WORDS)
            # Two sums of 16 bits in a word: 32 codes reach 8,160.
            both = b.add(b.and_(words, pairs), b.and_(b.lshr(words, filled(_WORDS, 8)), pairs))
            return [b.add(carried[0], both)]

        (both,) = loop(b, I64(0), steps, 1, [ir.Constant(_WORDS, None)], one)
        total = b.add(b.and_(both, filled(_WORDS, 0xFFFF)), b.lshr(both, filled(_WORDS, 16)))
        store_vector(b, b.add(load_vector(b, sums, _WORDS), total), sums)

    return ir_function("fastq_add_up", ("u8*", "int", "i32*"), HOST, emit)


def packing(bits: int, steps_of: Any, code_of: Any) -> Any:
    """The kernel that writes tiles of codes, which functions of its job bring.

    ``steps_of(job, k, column, blocks, rows, steps)`` fills `steps` rows of the 8-bit tiles of some blocks with the
    codes of four k each, from k on, and gives the number of rows that it has filled; ``code_of(job, k, column)`` gives
    one code. Both as they are packed, from 0 on. What lies beyond the matrix, and between segments, is zero.

    Tiles of several blocks are made side by side, in the cache: rows of the matrix are read along, where one tile after
    the other would read one cache line of each, and all of these in the same few sets of the cache.
    """
    squeeze, add_up = _planes(bits), _add_up()
    room = stack(TOGETHER * DENSE)
    packed_bytes = tile_bytes(bits)

    @kernel_function
    def fill(job, dense, t, column, blocks, width, sums):
        """Tile t of some blocks. Position p holds k = segment * segment_k + (p - start of the segment), if any."""
        segment = t * STEPS // job.segment_steps
        p = t * DEPTH
        cleared = False
        while p < (t + 1) * DEPTH and segment < job.segments:
            start = segment * job.segment_steps * STEP
            k = segment * job.segment_k + (p - start)
            end_p = min((t + 1) * DEPTH, start + job.segment_steps * STEP)
            count = min(min((segment + 1) * job.segment_k, job.k) - k, end_p - p)
            if not cleared and (count < DEPTH or width < BLOCK):
                for i in range(blocks * DENSE):
                    dense[i] = 0
                cleared = True
            here = at(sums, segment * job.columns + column)
            rows, steps, done = at(dense, p % DEPTH // STEP * ROW_BYTES), count // STEP, 0
            if width == BLOCK and steps > 0:
                steps = steps_of(job, k, column, blocks, rows, steps)
                for block in range(blocks):
                    add_up(at(rows, block * DENSE), steps, at(here, block * BLOCK))
                done = steps * STEP
            for i in range(done, count):
                q = (p + i) % DEPTH
                for c in range((blocks - 1) * BLOCK + width):
                    code = code_of(job, k + i, column + c)
                    dense[c // BLOCK * DENSE + q // STEP * ROW_BYTES + c % BLOCK * STEP + q % STEP] = code
                    here[c] += code
            p = end_p
            segment += 1

    @kernel_function
    def right_pack(job):
        dense = room()
        tiles = (job.steps + STEPS - 1) // STEPS
        blocks, whole = job.columns // BLOCK, job.n // BLOCK
        parts, strips = (tiles + job.depth - 1) // job.depth, (blocks + job.strip - 1) // job.strip
        ticket = take(job, 1)
        while ticket < parts * strips:
            part, first = ticket // strips, ticket % strips * job.strip
            last = min(first + job.strip, blocks)
            sums = at(job.col_sum, part * job.segments * job.columns)
            for segment in range(job.segments):
                for column in range(first * BLOCK, last * BLOCK):
                    sums[segment * job.columns + column] = 0
            for t in range(part * job.depth, min((part + 1) * job.depth, tiles)):
                block = first
                while block < last:
                    count = max(1, min(TOGETHER, min(last, whole) - block))
                    fill(job, dense, t, block * BLOCK, count, min(BLOCK, job.n - block * BLOCK), sums)
                    for i in range(count):
                        squeeze(at(job.tiles, ((block + i) * tiles + t) * packed_bytes), at(dense, i * DENSE))
                    block += count
            ticket = take(job, 1)

    return right_pack


def _whole_steps() -> Any:
    """``whole_steps(tile, codes, k_pitch, n_pitch, shift, steps, blocks)``: rows of tiles with all of their 64 codes.

    Codes lie side by side along n (rows of four k are interleaved) or along k (words of four k are gathered); for other
    strides the caller has none of this.
    """

    def emit(b, tile, codes, k_pitch, n_pitch, shift, steps, blocks):
        shifts = splat(b, b.trunc(shift, I8), ROW_BYTES)

        def finish(step, block, row):
            place = b.add(b.mul(block, I64(DENSE)), b.mul(step, I64(ROW_BYTES)))
            store_vector(b, b.add(row, shifts), b.gep(tile, [place]))
            return []

        def along_n(step, block):
            quarter = ir.VectorType(I8, BLOCK)
            first = b.add(b.mul(b.mul(step, I64(STEP)), k_pitch), b.mul(block, I64(BLOCK)))
            rows = [load_vector(b, b.gep(codes, [b.add(first, b.mul(I64(k), k_pitch))]), quarter) for k in range(STEP)]

            def joined(x, y):
                count = x.type.count * 2
                return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, count), list(range(count))))

            both = joined(joined(rows[0], rows[1]), joined(rows[2], rows[3]))
            order = [k * BLOCK + column for column in range(BLOCK) for k in range(STEP)]
            row = b.shuffle_vector(both, both, ir.Constant(ir.VectorType(I32, ROW_BYTES), order))
            return finish(step, block, row)

        def along_k(step, block):
            words = ir.Constant(_WORDS, ir.Undefined)
            for c in range(BLOCK):
                column = b.add(b.mul(block, I64(BLOCK)), I64(c))
                place = b.add(b.mul(column, n_pitch), b.mul(step, I64(STEP)))
                word = b.load(b.bitcast(b.gep(codes, [place]), I32.as_pointer()), align=1)
                words = b.insert_element(words, word, I32(c))
            return finish(step, block, b.bitcast(words, _ROW))

        with b.if_else(b.icmp_signed("==", n_pitch, I64(1))) as (side_by_side, otherwise):
            with side_by_side:
                each(b, steps, blocks, along_n)
            with otherwise:
                each(b, blocks, steps, lambda block, step: along_k(step, block))

    return ir_function("fastq_whole_steps", ("u8*", "u8*", "int", "int", "int", "int", "int"), HOST, emit)


def each(b: ir.IRBuilder, outer: Any, inner: Any, body: Callable[[Any, Any], list[Any]]) -> None:
    """``for i in range(outer): for j in range(inner): body(i, j)``."""
    loop(b, I64(0), outer, 1, [], lambda i, _: loop(b, I64(0), inner, 1, [], lambda j, _: body(i, j)))


def pack(bits: int) -> Any:
    """Pack a matrix of codes."""
    whole_steps = _whole_steps()

    @kernel_function
    def steps_of(job, k, column, blocks, rows, steps):
        if job.n_pitch != 1 and job.k_pitch != 1:
            return 0
        source = at(job.codes, k * job.k_pitch + column * job.n_pitch)
        whole_steps(rows, source, job.k_pitch, job.n_pitch, job.shift, steps, blocks)
        return steps

    @kernel_function
    def code_of(job, k, column):
        return (job.codes[k * job.k_pitch + column * job.n_pitch] + job.shift) % 256

    return packing(bits, steps_of, code_of)
