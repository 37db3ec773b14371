"""Bringing the left operand into row tiles."""

from __future__ import annotations

from typing import Any

from fastq.kernels.jobs import NOT_FINITE
from fastq.kernels.quantize import LARGEST, TINY
from fastq.kernels.rounding import COMPUTED, POINTERS, copied_codes, row_codes, row_top
from fastq.kernels.symmetric import CHUNK, SMALLEST, symmetric_codes
from fastq.layout.tiles import DEPTH, STEP, STEPS, TILE_ROWS
from fastq.machine.dialect import at, cast_to, constant, kernel_function, report, stack, take, type_like
from fastq.scheme import symmetric_scale

_symmetric = kernel_function(symmetric_scale)

RUNS = 8  # rows per ticket


def _padding(code_bytes: int) -> Any:
    """``pad(job, out)``: zeros from the end of K to that of the last tile, since scaled right codes are not 0 there."""

    @kernel_function
    def pad(job, out):
        last = job.segments - 1
        place = last * job.segment_steps * STEP + job.k - last * job.segment_k
        end = (job.steps + STEPS - 1) // STEPS * DEPTH
        if place < end:  # within one tile
            start = place // DEPTH * TILE_ROWS * DEPTH
            for k in range(place % DEPTH, DEPTH):
                i = k
                if code_bytes == 2 and (k % STEP == 1 or k % STEP == 2):
                    i = k // STEP * STEP + STEP - 1 - k % STEP  # the order k0 k2 k1 k3
                for byte in range(code_bytes):
                    out[(start + i) * code_bytes + byte] = 0

    return pad


def floats(kind: str, wide: bool) -> Any:
    """Quantize rows of floats and write their codes straight into tiles (of int16 if `wide`)."""
    computed = COMPUTED[kind]
    view, scale_view = cast_to(POINTERS[kind]), cast_to(f"{computed}*")
    find_top, find_tops = row_top(kind), row_top(kind, RUNS)
    target = "wide_tiles" if wide else "tiles"
    quick, codes = symmetric_codes(kind, target), row_codes(kind, target)
    smallest = constant(computed, SMALLEST[computed])
    found_room = stack(8 * RUNS, f"{computed}*")
    tiny, largest, nought = (constant(computed, v) for v in (TINY[computed], LARGEST[computed], 0.0))
    code_bytes = 2 if wide else 1
    pad = _padding(code_bytes)

    @kernel_function
    def left_floats(job):
        found = found_room()
        x, scale = view(job.x), scale_view(job.scale)
        tile_row_bytes = (job.steps + STEPS - 1) // STEPS * TILE_ROWS * DEPTH * code_bytes
        high = type_like(job.high, nought())
        ticket = take(job, 1)
        while ticket * RUNS < job.m:
            first_row, last_row = ticket * RUNS, min((ticket + 1) * RUNS, job.m)
            if last_row - first_row == RUNS:
                find_tops(at(x, first_row * job.pitch), job.k, job.pitch, found)
            else:
                for row in range(first_row, last_row):
                    find_top(at(x, row * job.pitch), job.k, 0, at(found, row - first_row))
            for row in range(first_row, last_row):
                top = found[row - first_row]
                here = at(x, row * job.pitch)
                if not top <= largest():
                    report(job, NOT_FINITE)
                scale[row] = _symmetric(top, high, tiny())
                out = at(job.tiles, row // TILE_ROWS * tile_row_bytes + row % TILE_ROWS * DEPTH * code_bytes)
                for segment in range(job.segments):
                    first = segment * job.segment_k
                    count = min(job.segment_k, job.k - first)
                    total = at(job.row_sum, row * job.segments + segment)
                    total[0] = 0
                    place = segment * job.segment_steps * STEP
                    done = 0
                    if scale[row] >= smallest() and place % CHUNK == 0:
                        done = count // CHUNK * CHUNK
                        quick(at(here, first), done, scale[row], high, out, place, total, 0)
                    if done < count:
                        zero, rest = nought(), at(here, first + done)
                        codes(rest, count - done, scale[row], zero, zero, -high, high, out, place + done, total)
                pad(job, out)
            ticket = take(job, 1)

    return left_floats


def codes(wide: bool) -> Any:
    """Copy rows of codes into tiles; unsigned codes become signed ones by flipping their top bit."""
    copy = copied_codes("wide_tiles" if wide else "tiles")
    code_bytes = 2 if wide else 1
    pad = _padding(code_bytes)

    @kernel_function
    def left_codes(job):
        tile_row_bytes = (job.steps + STEPS - 1) // STEPS * TILE_ROWS * DEPTH * code_bytes
        ticket = take(job, 1)
        while ticket * RUNS < job.m:
            for row in range(ticket * RUNS, min((ticket + 1) * RUNS, job.m)):
                here = at(job.x, row * job.pitch)
                out = at(job.tiles, row // TILE_ROWS * tile_row_bytes + row % TILE_ROWS * DEPTH * code_bytes)
                for segment in range(job.segments):
                    first = segment * job.segment_k
                    count = min(job.segment_k, job.k - first)
                    total = at(job.row_sum, row * job.segments + segment)
                    total[0] = 0
                    copy(at(here, first), count, job.flip, out, segment * job.segment_steps * STEP, total)
                pad(job, out)
            ticket = take(job, 1)

    return left_codes
