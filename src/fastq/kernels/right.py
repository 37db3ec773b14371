"""Packing the right operand: codes into tiles, tiles into planes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.layout.tiles import BLOCK, DEPTH, ROW_BYTES, STEP, STEPS, places, tile_bytes
from fastq.machine.dialect import I8, I64, at, ir_function, kernel_function, load_vector, stack, store_vector, take

DENSE = tile_bytes(8)


def _planes(bits: int) -> Any:
    """``planes(packed, dense)``: squeeze an 8-bit tile into planes, which :func:`fastq.kernels.micro.unpack` undoes."""
    vector = ir.VectorType(I8, ROW_BYTES)

    def emit(b, out, dense):
        planes: dict[int, Any] = {}
        for row in range(STEPS):
            codes = load_vector(b, b.gep(dense, [I64(row * ROW_BYTES)]), vector)
            for place in places(bits, row):
                mask = ir.Constant(vector, [2**place.width - 1] * ROW_BYTES)
                piece = b.and_(b.lshr(codes, ir.Constant(vector, [place.target] * ROW_BYTES)), mask)
                piece = b.shl(piece, ir.Constant(vector, [place.shift] * ROW_BYTES))
                planes[place.offset] = b.or_(planes[place.offset], piece) if place.offset in planes else piece
        for offset, plane in planes.items():
            store_vector(b, plane, b.gep(out, [I64(offset)]))

    return ir_function(f"fastq_planes_{bits}bit", ("u8*", "u8*"), "", emit)


def pack(bits: int) -> Any:
    """Tiles of one column block after the other; what lies beyond the matrix, and between segments, is zero."""
    squeeze = _planes(bits) if bits < 8 else None
    tile_room = stack(DENSE)
    packed_bytes = tile_bytes(bits)

    @kernel_function
    def right_pack(job):
        scratch = tile_room()
        tiles = (job.steps + STEPS - 1) // STEPS
        ticket = take(job, 1)
        while ticket * BLOCK < job.columns:
            column = ticket * BLOCK
            width = max(0, min(BLOCK, job.n - column))
            sums = at(job.col_sum, column)
            for i in range(job.segments):
                for c in range(BLOCK):
                    sums[i * job.columns + c] = 0
            for t in range(tiles):
                out = at(job.tiles, (ticket * tiles + t) * packed_bytes)
                tile = out if bits == 8 else scratch
                for i in range(DENSE):
                    tile[i] = 0
                # Position p holds k = segment * segment_k + (p - start of the segment), if the segment is that long.
                segment = t * STEPS // job.segment_steps
                p = t * DEPTH
                while p < (t + 1) * DEPTH and segment < job.segments:
                    start = segment * job.segment_steps * STEP
                    first = segment * job.segment_k + (p - start)
                    end_k = min((segment + 1) * job.segment_k, job.k)
                    end_p = min((t + 1) * DEPTH, start + job.segment_steps * STEP)
                    count = min(end_k - first, end_p - p)
                    here = at(sums, segment * job.columns)
                    for i in range(count):
                        source = at(job.codes, (first + i) * job.k_pitch + column * job.n_pitch)
                        q = (p + i) % DEPTH
                        target = at(tile, q // STEP * ROW_BYTES + q % STEP)
                        for c in range(width):
                            code = (source[c * job.n_pitch] + job.shift) % 256
                            target[c * STEP] = code
                            here[c] += code
                    p = end_p
                    segment += 1
                if bits < 8:
                    squeeze(out, scratch)
            ticket = take(job, 1)

    return right_pack
