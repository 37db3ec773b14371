"""Bringing the left operand into row tiles."""

from __future__ import annotations

from typing import Any

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import LEFT_ROWS, NOT_FINITE
from fastq.kernels.pack.rotation import rotation
from fastq.kernels.quantize.codes import copied_codes, plane_codes, row_codes
from fastq.kernels.quantize.extremes import row_top
from fastq.kernels.quantize.symmetric import CHUNK, symmetric_codes
from fastq.layout.tiles import DEPTH, STEP, STEPS, TILE_ROWS, LeftFormat
from fastq.machine.ir import arrive, at, cast_to, constant, kernel_function, report, stack, take, type_like
from fastq.scheme import symmetric_scale

_symmetric = kernel_function(symmetric_scale)


def _rows_as_they_lie(kind: str) -> Any:
    """``rows(job, first, count, room, tops)``: largest magnitudes of some rows, which are then read where they lie."""
    view, find_top, find_tops = cast_to(FLOATS[kind].pointer), row_top(kind), row_top(kind, LEFT_ROWS)

    @kernel_function
    def rows(job, first, count, room, tops):
        x = at(view(job.x), first * job.pitch)
        if count == LEFT_ROWS:
            find_tops(x, job.k, job.pitch, tops)
        else:
            for row in range(count):
                find_top(at(x, row * job.pitch), job.k, 0, at(tops, row))
        return x, job.pitch

    return rows


def _balanced_rows(kind: str) -> Any:
    """The same of rows times the balance; the products are then read where they were left, in the thread's room.

    One pass over x for both, because it comes from memory; the room stays in the cache, where rows are rotated.
    """
    computed = FLOATS[kind].computed
    view, computed_view = cast_to(FLOATS[kind].pointer), cast_to(f"{computed}*")
    find_top, find_tops = row_top(kind, 1, True), row_top(kind, LEFT_ROWS, True)
    rotate, find_rotated_top = rotation(computed), row_top(computed)

    @kernel_function
    def rows(job, first, count, room, tops):
        x, factors, pitch = at(view(job.x), first * job.pitch), computed_view(job.balance), job.room_pitch
        if count == LEFT_ROWS:
            find_tops(x, job.k, job.pitch, tops, factors, room, pitch)
        else:
            for row in range(count):
                find_top(at(x, row * job.pitch), job.k, 0, at(tops, row), factors, at(room, row * pitch), 0)
        if job.block > 1:
            for row in range(count):
                here = at(room, row * pitch)
                rotate(here, job.k, job.block)
                find_rotated_top(here, job.k, 0, at(tops, row))
        return room, pitch

    return rows


def _padding(left: LeftFormat) -> Any:
    """``pad(job, out)``: zeros from the end of K to that of the last tile, since scaled right codes are not 0 there."""
    code_bytes, natural, places = left.bytes, left.natural, left.places

    @kernel_function
    def pad(job, out):
        last = job.segments - 1
        place = last * job.segment_steps * STEP + job.k - last * job.segment_k
        end = (job.steps + STEPS - 1) // STEPS * DEPTH
        if place < end:  # within one tile
            start = place // DEPTH * TILE_ROWS * DEPTH
            for k in range(place % DEPTH, DEPTH):
                i = k if natural else k // STEP * STEP + places[k % STEP]
                for byte in range(code_bytes):
                    out[(start + i) * code_bytes + byte] = 0

    return pad


def _one_plane(kind: str, left: LeftFormat) -> Any:
    """``write(x, count, scale, high, out, place, total, low_total)``: codes of a run in one row of tiles."""
    computed = FLOATS[FLOATS[kind].computed]
    quick, codes = symmetric_codes(kind, left), row_codes(kind, left)
    smallest, nought = constant(computed.name, computed.smallest_scale), constant(computed.name, 0.0)

    @kernel_function
    def write(x, count, scale, high, out, place, total, low_total):
        done = 0
        if scale >= smallest() and place % CHUNK == 0:
            done = count // CHUNK * CHUNK
            quick(x, done, scale, high, out, place, total, 0)
        if done < count:
            zero, rest = nought(), at(x, done)
            codes(rest, count - done, scale, zero, zero, -high, high, out, place + done, total)

    return write


def _two_planes(kind: str, left: LeftFormat) -> Any:
    """The same in two rows, that of high bytes and that of low ones."""
    codes, row_bytes = plane_codes(kind, left), DEPTH * left.bytes

    @kernel_function
    def write(x, count, scale, high, out, place, total, low_total):
        low_total[0] = 0
        codes(x, count, scale, high, out, at(out, row_bytes), place, total, low_total)

    return write


def floats(kind: str, left: LeftFormat, balanced: bool = False, planes: int = 1) -> Any:
    """Quantize rows of floats and write their codes straight into tiles."""
    computed = FLOATS[FLOATS[kind].computed]
    computed_view = cast_to(computed.pointer)
    rows, read = (_balanced_rows(kind), computed.name) if balanced else (_rows_as_they_lie(kind), kind)
    write, find_top, pad = (_one_plane, _two_planes)[planes - 1](read, left), row_top(read), _padding(left)
    tops_room = stack(computed.size * LEFT_ROWS, computed.pointer)
    tiny, largest, nought = (constant(computed.name, v) for v in (computed.tiny, computed.largest, 0.0))
    code_bytes = left.bytes

    @kernel_function
    def left_floats(job):
        tops = tops_room()
        scale = computed_view(job.scale)
        room = at(computed_view(job.room), arrive(job, 1) * LEFT_ROWS * job.room_pitch)
        tile_row_bytes = (job.steps + STEPS - 1) // STEPS * TILE_ROWS * DEPTH * code_bytes
        high = type_like(job.high, nought())
        ticket = take(job, 1)
        while ticket * LEFT_ROWS < job.m:
            first_row = ticket * LEFT_ROWS
            last_row = min(first_row + LEFT_ROWS, job.m)
            source, pitch = rows(job, first_row, last_row - first_row, room, tops)
            for row in range(first_row, last_row):
                top = at(tops, row - first_row)
                here = at(source, (row - first_row) * pitch)
                if not top[0] <= largest():
                    report(job, NOT_FINITE)
                scales = at(scale, row * job.groups)
                scales[0] = _symmetric(top[0], high, tiny())
                line = row * planes  # of the left tiles
                out = at(job.tiles, line // TILE_ROWS * tile_row_bytes + line % TILE_ROWS * DEPTH * code_bytes)
                for segment in range(job.segments):
                    first = segment * job.segment_k
                    count = min(job.segment_k, job.k - first)
                    run = at(here, first)
                    if job.groups > 1:
                        scales = at(scale, row * job.groups + segment)
                        find_top(run, count, 0, top)
                        scales[0] = _symmetric(top[0], high, tiny())
                    total = at(job.row_sum, line * job.segments + segment)
                    total[0] = 0
                    place = segment * job.segment_steps * STEP
                    write(run, count, scales[0], high, out, place, total, at(total, job.segments))
                for plane in range(planes):
                    pad(job, at(out, plane * DEPTH * code_bytes))
            ticket = take(job, 1)

    return left_floats


def codes(left: LeftFormat) -> Any:
    """Copy rows of codes into tiles; unsigned codes become signed ones by flipping their top bit."""
    copy, pad, code_bytes = copied_codes(left), _padding(left), left.bytes

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
