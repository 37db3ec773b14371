"""Right tiles back into codes: what :mod:`fastq.kernels.pack.right` has packed, whole or some of its columns.

Four k of one column are a 32-bit word of each plane of a tile. Sixteen of them are a vector: those of a row of the tile
where all columns are unpacked, and those of a column where some are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from fastq.kernels.jobs import UnpackJob
from fastq.layout.tiles import BLOCK, CENTRE, DEPTH, QUARTER, ROW_BYTES, STEP, STEPS, places, tile_bytes
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
WORDS = ir.VectorType(I32, BLOCK)


def _codes(b: ir.IRBuilder, bits: int, planes: list[Any], rows: Sequence[int], flip: Any, less: Any) -> Any:
    """Sixteen words of a tile, in these rows, as the codes that were packed; `planes` are the words of each plane."""
    code = None
    for plane, words in enumerate(planes):
        _, _, width, target = places(bits, 0)[plane]
        shifts = [places(bits, row)[plane].shift for row in rows]
        piece = b.and_(b.lshr(words, ir.Constant(WORDS, shifts)), filled(WORDS, (2**width - 1) * BYTES))
        piece = b.shl(piece, filled(WORDS, target))
        code = piece if code is None else b.or_(code, piece)
    code = b.xor(code, flip)
    if bits == 8:  # what was added is 128 or nothing
        return b.xor(code, less)
    # A subtraction in each byte: with the top bit set, none borrows from the next.
    return b.xor(b.sub(b.or_(code, filled(WORDS, TOP_BITS)), less), filled(WORDS, TOP_BITS))


def _less(b: ir.IRBuilder, job: Any) -> Any:
    """What was added to codes, in each byte of sixteen words."""
    return splat(b, b.mul(b.trunc(field(b, UnpackJob, job, "less"), I32), I32(BYTES)), BLOCK)


def _tile(bits: int) -> Any:
    """``tile(job, tile, flips, out, pitch)``: 64 codes of sixteen columns, `pitch` apart.

    `flips` are ``[quarters][columns]`` words.
    """

    def emit(b, job, tile, flips, out, pitch):
        less = _less(b, job)
        for row in range(STEPS):
            flip = load_vector(b, b.gep(flips, [I64(row * QUARTERS // STEPS * BLOCK)]), WORDS)
            planes = [load_vector(b, b.gep(tile, [I64(place.offset)]), WORDS) for place in places(bits, row)]
            codes = b.bitcast(_codes(b, bits, planes, [row] * BLOCK, flip, less), ir.VectorType(I8, ROW_BYTES))
            for k in range(STEP):
                order = ir.Constant(WORDS, [STEP * lane + k for lane in range(BLOCK)])
                place = b.gep(out, [b.mul(I64(row * STEP + k), pitch)])
                store_vector(b, b.shuffle_vector(codes, codes, order), place)

    return ir_function(f"fastq_unpack_tile_{bits}bit", (UnpackJob, "u8*", "i32*", "u8*", "int"), HOST, emit)


def _column(bits: int) -> Any:
    """``column(job, tile, mirrored, out)``: 64 codes of one column; bit q: whether to mirror quarter q."""

    def emit(b, job, tile, mirrored, out):
        quarter = ir.Constant(WORDS, [1 << row * QUARTERS // STEPS for row in range(STEPS)])
        straight = b.icmp_unsigned("==", b.and_(splat(b, b.trunc(mirrored, I32), STEPS), quarter), filled(WORDS, 0))
        flip = b.select(straight, filled(WORDS, 0), filled(WORDS, (2**bits - 1) * BYTES))
        # One word after the other took four times as many instructions.
        planes = []
        for of_plane in zip(*(places(bits, row) for row in range(STEPS))):
            offsets = sorted({place.offset for place in of_plane})
            words = ir.Constant(ir.VectorType(I32, len(offsets)), ir.Undefined)
            for i, offset in enumerate(offsets):
                words = b.insert_element(words, load_vector(b, b.gep(tile, [I64(offset)]), I32), I32(i))
            planes.append(_spread(b, words, [offsets.index(place.offset) for place in of_plane]))
        store_vector(b, _codes(b, bits, planes, range(STEPS), flip, _less(b, job)), out)

    return ir_function(f"fastq_unpack_column_{bits}bit", (UnpackJob, "u8*", "int", "u8*"), HOST, emit)


def _spread(b: ir.IRBuilder, words: Any, places: list[int]) -> Any:
    """Sixteen words, from these places of a vector."""
    return b.shuffle_vector(words, words, ir.Constant(WORDS, places))


def _fetch(bits: int) -> Any:
    """``fetch(tile)``: bring a tile into the cache."""

    def emit(b, tile):
        for line in range(0, tile_bytes(bits), CACHE_LINE):
            prefetch(b, b.gep(tile, [I64(line)]), 3)

    return ir_function(f"fastq_fetch_tile_{bits}bit", ("u8*",), HOST, emit)


def _flips(bits: int) -> Any:
    """``find(job, block, t, flips)``: what codes of tile t are XORed with, ``[quarters][columns]``."""
    mirror = (2**bits - 1) * BYTES

    @kernel_function
    def find(job, block, t, flips):
        group = t * QUARTERS // job.group_quarters
        end = (group + 1) * job.group_quarters - t * QUARTERS  # one division: four took a third of all the time
        for q in range(QUARTERS):
            if q == end:
                group += 1
                end += job.group_quarters
            params = at(job.groups, block * job.group_pitch + group * GROUP_BYTES)
            for c in range(BLOCK):
                # Under a negative scale, codes are mirrored; the shift tells (engine/groups.py).
                straight = params[c] * job.zero + params[BLOCK + c] == CENTRE
                flips[q * BLOCK + c] = 0 if straight else mirror

    return find


def columns(bits: int) -> Any:
    """Some columns, a band of them per ticket; each becomes a row of `k` codes."""
    column_codes, packed_bytes, room, fetch = _column(bits), tile_bytes(bits), stack(DEPTH), _fetch(bits)

    @kernel_function
    def enter(job, i, group, params, first):
        """Enter a group of a column: write its scale, and tell whether its codes are mirrored."""
        factor, shift = params[0], params[BLOCK]
        straight = not is_null(job.group_zero) or factor * job.zero + shift == CENTRE
        if first < job.k:  # tiles may reach into groups beyond
            place = i * job.column_groups + group
            job.group_scale[place] = factor if straight else -factor
            if not is_null(job.group_zero):
                job.group_zero[place] = (CENTRE - shift) // factor
        return 0 if straight else 1

    @kernel_function
    def unpack_columns(job):
        spare = room()
        tiles = (job.k + DEPTH - 1) // DEPTH
        ticket = take(job, 1)
        while ticket * job.band < job.count:
            for i in range(ticket * job.band, min((ticket + 1) * job.band, job.count)):
                block, lane = job.columns[i] // BLOCK, job.columns[i] % BLOCK
                source = at(job.tiles, block * tiles * packed_bytes + lane * STEP)
                out = at(job.out, i * job.pitch)
                # The next column is fetched meanwhile: columns far apart lie in pages that must be found first.
                following = job.columns[min(i + 1, job.count - 1)] // BLOCK
                params = at(job.groups, block * job.group_pitch + lane)
                group, left, mirror = 0, 0, 0  # left: quarters of the group that are still to come
                for t in range(tiles):
                    fetch(at(job.tiles, (following * tiles + t) * packed_bytes))
                    mirrored = 0
                    if not is_null(job.groups):
                        for q in range(QUARTERS):
                            if left == 0:
                                mirror = enter(job, i, group, params, (t * QUARTERS + q) * QUARTER)
                                group, left, params = group + 1, job.group_quarters, at(params, GROUP_BYTES)
                            left -= 1
                            mirrored |= mirror << q
                    count = min(DEPTH, job.k - t * DEPTH)
                    target = at(out, t * DEPTH) if count == DEPTH else spare
                    column_codes(job, at(source, t * packed_bytes), mirrored, target)
                    if count < DEPTH:
                        for k in range(count):
                            out[t * DEPTH + k] = spare[k]
            ticket = take(job, 1)

    return unpack_columns


def rows(bits: int) -> Any:
    """All columns, a tile's depth of k per ticket; each k becomes a row of `count` codes."""
    tile_codes, find, packed_bytes = _tile(bits), _flips(bits), tile_bytes(bits)
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
                    find(job, block, ticket, flips)
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
