"""The loops around extremes and codes: runs or bands drawn from a ticket, parameters chosen in between."""

from __future__ import annotations

from typing import Any

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import CHOOSE, FIND, NOT_FINITE, SPAN_OVERFLOW, WRITE
from fastq.kernels.quantize.codes import column_codes, row_codes
from fastq.kernels.quantize.extremes import column_extremes, row_extremes, row_top
from fastq.kernels.quantize.symmetric import CHUNK, symmetric_codes
from fastq.machine.ir import at, cast_to, constant, kernel_function, report, round_even, stack, take, type_like
from fastq.scheme import span_scale, symmetric_scale

_symmetric = kernel_function(symmetric_scale)
_span = kernel_function(span_scale)


def parameters(kind: str) -> Any:
    """``choose(job, index)``: scale, zero point and offset from ``minimum[index]`` and ``maximum[index]``."""
    floats = cast_to(f"{kind}*")
    tiny, largest, nought = (constant(kind, v) for v in (FLOATS[kind].tiny, FLOATS[kind].largest, 0.0))

    @kernel_function
    def choose(job, index):
        scale, zero, offset = floats(job.scale), floats(job.zero), floats(job.offset)
        low, high = floats(job.minimum)[index], floats(job.maximum)[index]
        steps = type_like(job.high - job.low if job.scheme != 0 else job.high, low)
        if job.scheme == 0:
            scale[index] = _symmetric(max(-low, high), steps, tiny())
            zero[index] = 0
            offset[index] = 0
        elif job.scheme == 1:
            low, high = min(low, nought()), max(high, nought())  # the range holds 0, so 0 has a code
            chosen = type_like(_span(low, high, steps, tiny()), low)
            scale[index] = chosen
            zero[index] = min(max(round_even(-low / chosen), nought()), steps)
            offset[index] = 0
        else:
            if not (high - low <= largest()):
                report(job, SPAN_OVERFLOW)
            scale[index] = _span(low, high, steps, tiny())
            zero[index] = 0
            offset[index] = low + nought()  # never -0.0: which of two zeros is the smallest depends on the instruction

    return choose


def rows(kind: str) -> Any:
    """Runs of n consecutive elements (inner = 1): a run stays in cache from its extremes to its codes."""
    floats = cast_to(f"{kind}*")
    extremes, find_top = row_extremes(kind), row_top(kind)
    quick, codes, choose = symmetric_codes(kind), row_codes(kind), parameters(kind)
    smallest, largest, like = (constant(kind, v) for v in (FLOATS[kind].smallest_scale, FLOATS[kind].largest, 0.0))
    ends_room, total_room = stack(3 * FLOATS[kind].size, f"{kind}*"), stack(4, "i32*")

    @kernel_function
    def quantize_rows(job):
        ends, total = ends_room(), total_room()
        x, scale, zero, offset = floats(job.x), floats(job.scale), floats(job.zero), floats(job.offset)
        minimum, maximum = floats(job.minimum), floats(job.maximum)
        runs = job.outer * job.groups
        ticket = take(job, 1)
        while ticket * job.band < runs:
            for run in range(ticket * job.band, min((ticket + 1) * job.band, runs)):
                outer, group = run // job.groups, run % job.groups
                start = outer * job.outer_pitch + group * job.group_pitch
                index = outer * job.param_pitch + group * job.group_param
                if job.work & FIND:
                    if job.scheme == 0:  # the magnitude says all that is needed
                        find_top(at(x, start), job.n, 0, ends)
                        minimum[index] = -ends[0]
                        maximum[index] = ends[0]
                        broken = not ends[0] <= largest()
                    else:
                        extremes(at(x, start), job.n, ends)
                        minimum[index] = ends[0]
                        maximum[index] = ends[1]
                        broken = ends[2] != 0
                    if broken:
                        report(job, NOT_FINITE)
                if job.work & CHOOSE:
                    choose(job, index)
                if job.work & WRITE:
                    s, z, o = scale[index], zero[index], offset[index]
                    low, high = type_like(job.low, like()), type_like(job.high, like())
                    done = 0
                    if job.scheme == 0 and job.work & FIND and s >= smallest():
                        done = job.n // CHUNK * CHUNK
                        quick(at(x, start), done, s, high, at(job.codes, start), 0, total, job.group_pitch)
                    if done < job.n:
                        rest = job.n - done
                        codes(at(x, start + done), rest, s, z, o, low, high, at(job.codes, start), done, total)
            ticket = take(job, 1)

    return quantize_rows


def columns(kind: str) -> Any:
    """Parameters down the columns (inner > 1), in bands of rows, each read in the order it lies in memory.

    Extremes of band t of run r go to ``minimum[(r * bands + t) * inner + j]``.
    """
    floats = cast_to(f"{kind}*")
    extremes, codes = column_extremes(kind), column_codes(kind)
    flag_room = stack(8, "i64*")
    like = constant(kind, 0.0)

    @kernel_function
    def quantize_columns(job):
        flag = flag_room()
        flag[0] = 0
        x, scale, zero, offset = floats(job.x), floats(job.scale), floats(job.zero), floats(job.offset)
        minimum, maximum = floats(job.minimum), floats(job.maximum)
        bands = (job.n + job.band - 1) // job.band
        ticket = take(job, 1)
        while ticket < job.outer * job.groups * bands:
            run, band = ticket // bands, ticket % bands
            outer, group = run // job.groups, run % job.groups
            first = band * job.band
            count = min(job.band, job.n - first)
            start = outer * job.outer_pitch + group * job.group_pitch + first * job.inner
            if job.work & FIND:
                out = ticket * job.inner
                extremes(at(x, start), job.inner, count, job.inner, at(minimum, out), at(maximum, out), flag)
            if job.work & WRITE:
                index = outer * job.param_pitch + group * job.group_param
                s, z, o = at(scale, index), at(zero, index), at(offset, index)
                low, high = type_like(job.low, like()), type_like(job.high, like())
                for row in range(count):
                    here = start + row * job.inner
                    codes(at(x, here), job.inner, s, z, o, low, high, at(job.codes, here))
            ticket = take(job, 1)
        if flag[0] != 0:
            report(job, NOT_FINITE)

    return quantize_columns
