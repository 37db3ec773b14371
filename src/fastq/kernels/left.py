"""Bringing the left operand into row tiles."""

from __future__ import annotations

from typing import Any

from fastq.kernels.jobs import LEFT_ROWS, NOT_FINITE
from fastq.kernels.quantize import LARGEST, TINY
from fastq.kernels.rotation import rotation
from fastq.kernels.rounding import COMPUTED, POINTERS, copied_codes, row_codes, row_top
from fastq.kernels.symmetric import CHUNK, SMALLEST, symmetric_codes
from fastq.layout.tiles import DEPTH, STEP, STEPS, TILE_ROWS
from fastq.machine.dialect import arrive, at, cast_to, constant, kernel_function, report, stack, take, type_like
from fastq.scheme import symmetric_scale

_symmetric = kernel_function(symmetric_scale)


def _plain_rows(kind: str) -> Any:
    """``rows(job, first, count, room, found)``: largest magnitudes of some rows, which are then read where they lie."""
    view, find_top, find_tops = cast_to(POINTERS[kind]), row_top(kind), row_top(kind, LEFT_ROWS)

    @kernel_function
    def rows(job, first, count, room, found):
        x = at(view(job.x), first * job.pitch)
        if count == LEFT_ROWS:
            find_tops(x, job.k, job.pitch, found)
        else:
            for row in range(count):
                find_top(at(x, row * job.pitch), job.k, 0, at(found, row))
        return x, job.pitch

    return rows


def _balanced_rows(kind: str) -> Any:
    """The same of rows times the balance; the products are then read where they were left, in the thread's room.

    One pass over x for both, because it comes from memory; the room stays in the cache, where rows are rotated.
    """
    computed = COMPUTED[kind]
    view, computed_view = cast_to(POINTERS[kind]), cast_to(f"{computed}*")
    find_top, find_tops = row_top(kind, 1, True), row_top(kind, LEFT_ROWS, True)
    rotate, find_rotated_top = rotation(computed), row_top(computed)

    @kernel_function
    def rows(job, first, count, room, found):
        x, factors, pitch = at(view(job.x), first * job.pitch), computed_view(job.balance), job.room_pitch
        if count == LEFT_ROWS:
            find_tops(x, job.k, job.pitch, found, factors, room, pitch)
        else:
            for row in range(count):
                find_top(at(x, row * job.pitch), job.k, 0, at(found, row), factors, at(room, row * pitch), 0)
        if job.block > 1:
            for row in range(count):
                here = at(room, row * pitch)
                rotate(here, job.k, job.block)
                find_rotated_top(here, job.k, 0, at(found, row))
        return room, pitch

    return rows


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


def floats(kind: str, wide: bool, balanced: bool = False) -> Any:
    """Quantize rows of floats and write their codes straight into tiles (of int16 if `wide`)."""
    computed = COMPUTED[kind]
    computed_view = cast_to(f"{computed}*")
    rows, read = (_balanced_rows(kind), computed) if balanced else (_plain_rows(kind), kind)
    target = "wide_tiles" if wide else "tiles"
    quick, codes = symmetric_codes(read, target), row_codes(read, target)
    smallest = constant(computed, SMALLEST[computed])
    found_room = stack(8 * LEFT_ROWS, f"{computed}*")
    tiny, largest, nought = (constant(computed, v) for v in (TINY[computed], LARGEST[computed], 0.0))
    code_bytes = 2 if wide else 1
    pad = _padding(code_bytes)

    @kernel_function
    def left_floats(job):
        found = found_room()
        scale = computed_view(job.scale)
        room = at(computed_view(job.room), arrive(job, 1) * LEFT_ROWS * job.room_pitch)
        tile_row_bytes = (job.steps + STEPS - 1) // STEPS * TILE_ROWS * DEPTH * code_bytes
        high = type_like(job.high, nought())
        ticket = take(job, 1)
        while ticket * LEFT_ROWS < job.m:
            first_row = ticket * LEFT_ROWS
            last_row = min(first_row + LEFT_ROWS, job.m)
            source, pitch = rows(job, first_row, last_row - first_row, room, found)
            for row in range(first_row, last_row):
                top = found[row - first_row]
                here = at(source, (row - first_row) * pitch)
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
        while ticket * LEFT_ROWS < job.m:
            for row in range(ticket * LEFT_ROWS, min((ticket + 1) * LEFT_ROWS, job.m)):
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
