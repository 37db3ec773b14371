"""Right tiles back into codes: what :mod:`fastq.kernels.pack.right` has packed, whole or some of its columns.

Four k of one column are a 32-bit word of each plane of a tile; sixteen columns are a vector of such words.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.jobs import UnpackJob
from fastq.layout.tiles import BLOCK, CENTRE, DEPTH, QUARTER, STEP, STEPS, places, tile_bytes
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import (
    HOST,
    I8,
    I32,
    I64,
    at,
    field,
    filled,
    ir_function,
    is_null,
    kernel_function,
    load_vector,
    prefetch,
    splat,
    stack,
    store_vector,
    take,
)

BYTES, TOP_BITS = 0x01010101, 0x80808080  # words with 1, and with the top bit, in each byte
QUARTERS, GROUP_BYTES = DEPTH // QUARTER, 2 * BLOCK


def _codes(b: ir.IRBuilder, bits: int, tile: Any, row: int, words: ir.Type, flip: Any, less: Any) -> Any:
    """A row of a tile, as the codes that were packed: of one column, or of sixteen."""
    code = None
    for place in places(bits, row):
        piece = load_vector(b, b.gep(tile, [I64(place.offset)]), words)
        piece = b.and_(b.lshr(piece, filled(words, place.shift)), filled(words, (2**place.width - 1) * BYTES))
        piece = b.shl(piece, filled(words, place.target))
        code = piece if code is None else b.or_(code, piece)
    code = b.xor(code, flip)
    if bits == 8:  # what was added is 128 or nothing
        return b.xor(code, less)
    # A subtraction in each byte: with the top bit set, none borrows from the next.
    return b.xor(b.sub(b.or_(code, filled(words, TOP_BITS)), less), filled(words, TOP_BITS))


def _tile(bits: int, lanes: int) -> Any:
    """``tile(job, tile, flips, out, pitch)``: 64 codes of one column, side by side, or of sixteen, `pitch` apart.

    `flips` are ``[quarters][lanes]`` words.
    """
    words = I32 if lanes == 1 else ir.VectorType(I32, lanes)

    def emit(b, job, tile, flips, out, pitch):
        less = b.mul(b.trunc(field(b, UnpackJob, job, "less"), I32), I32(BYTES))
        less = less if lanes == 1 else splat(b, less, lanes)
        for row in range(STEPS):
            flip = load_vector(b, b.gep(flips, [I64(row * QUARTERS // STEPS * lanes)]), words)
            code = _codes(b, bits, tile, row, words, flip, less)
            if lanes == 1:
                store_vector(b, code, b.gep(out, [I64(row * STEP)]))
                continue
            codes = b.bitcast(code, ir.VectorType(I8, STEP * lanes))
            for k in range(STEP):
                order = ir.Constant(ir.VectorType(I32, lanes), [STEP * lane + k for lane in range(lanes)])
                place = b.gep(out, [b.mul(I64(row * STEP + k), pitch)])
                store_vector(b, b.shuffle_vector(codes, codes, order), place)

    return ir_function(f"fastq_unpack_tile_{bits}bit_{lanes}", (UnpackJob, "u8*", "i32*", "u8*", "int"), HOST, emit)


def _fetch(bits: int) -> Any:
    """``fetch(tile)``: bring a tile into the cache."""

    def emit(b, tile):
        for line in range(0, tile_bytes(bits), CACHE_LINE):
            prefetch(b, b.gep(tile, [I64(line)]), 3)

    return ir_function(f"fastq_fetch_tile_{bits}bit", ("u8*",), HOST, emit)


def _flips(bits: int) -> Any:
    """``find(job, block, t, lane, lanes, flips)``: what codes of tile t are XORed with, ``[quarters][lanes]``."""
    mirror = (2**bits - 1) * BYTES

    @kernel_function
    def find(job, block, t, lane, lanes, flips):
        group = t * QUARTERS // job.group_quarters
        end = (group + 1) * job.group_quarters - t * QUARTERS  # one division: four took a third of all the time
        for q in range(QUARTERS):
            if q == end:
                group += 1
                end += job.group_quarters
            params = at(job.groups, block * job.group_pitch + group * GROUP_BYTES + lane)
            for c in range(lanes):
                # Under a negative scale, codes are mirrored; the shift tells (engine/groups.py).
                straight = params[c] * job.zero + params[BLOCK + c] == CENTRE
                flips[q * lanes + c] = 0 if straight else mirror

    return find


def columns(bits: int) -> Any:
    """Some columns, a band of them per ticket; each becomes a row of `k` codes."""
    tile_codes, find, packed_bytes = _tile(bits, 1), _flips(bits), tile_bytes(bits)
    flip_room, room, fetch = stack(QUARTERS * 4, "i32*"), stack(DEPTH), _fetch(bits)

    @kernel_function
    def unpack_columns(job):
        flips, spare = flip_room(), room()
        for i in range(QUARTERS):
            flips[i] = 0
        tiles = (job.k + DEPTH - 1) // DEPTH
        ticket = take(job, 1)
        while ticket * job.band < job.count:
            for i in range(ticket * job.band, min((ticket + 1) * job.band, job.count)):
                block, lane = job.columns[i] // BLOCK, job.columns[i] % BLOCK
                source = at(job.tiles, block * tiles * packed_bytes + lane * STEP)
                out = at(job.out, i * job.pitch)
                # The next column is fetched meanwhile: columns far apart lie in pages that must be found first.
                following = job.columns[min(i + 1, job.count - 1)] // BLOCK
                for t in range(tiles):
                    fetch(at(job.tiles, (following * tiles + t) * packed_bytes))
                    if not is_null(job.groups):
                        find(job, block, t, lane, 1, flips)
                    count = min(DEPTH, job.k - t * DEPTH)
                    target = at(out, t * DEPTH) if count == DEPTH else spare
                    tile_codes(job, at(source, t * packed_bytes), flips, target, 1)
                    if count < DEPTH:
                        for k in range(count):
                            out[t * DEPTH + k] = spare[k]
            ticket = take(job, 1)

    return unpack_columns


def rows(bits: int) -> Any:
    """All columns, a tile's depth of k per ticket; each k becomes a row of `count` codes."""
    tile_codes, find, packed_bytes = _tile(bits, BLOCK), _flips(bits), tile_bytes(bits)
    flip_room, room = stack(QUARTERS * BLOCK * 4, "i32*"), stack(DEPTH * BLOCK)

    @kernel_function
    def unpack_rows(job):
        flips, spare = flip_room(), room()
        for i in range(QUARTERS * BLOCK):
            flips[i] = 0
        tiles = (job.k + DEPTH - 1) // DEPTH
        ticket = take(job, 1)
        while ticket < tiles:
            depth = min(DEPTH, job.k - ticket * DEPTH)
            for block in range((job.count + BLOCK - 1) // BLOCK):
                if not is_null(job.groups):
                    find(job, block, ticket, 0, BLOCK, flips)
                out = at(job.out, ticket * DEPTH * job.pitch + block * BLOCK)
                width = min(BLOCK, job.count - block * BLOCK)
                whole = depth == DEPTH and width == BLOCK
                source = at(job.tiles, (block * tiles + ticket) * packed_bytes)
                tile_codes(job, source, flips, out if whole else spare, job.pitch if whole else BLOCK)
                if not whole:
                    for k in range(depth):
                        for c in range(width):
                            out[k * job.pitch + c] = spare[k * BLOCK + c]
            ticket = take(job, 1)

    return unpack_rows
