"""The search of :mod:`fastq.kernels.quantize.descent`, compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import LANES
from fastq.kernels.quantize.codes import clipped
from fastq.kernels.quantize.descent import (
    CODE,
    CODE_CODE,
    NOISE,
    SUMS,
    VALUE,
    VALUE_CODE,
    WEIGHT,
    make_better,
    make_joint,
    make_search,
    make_shared,
)
from fastq.machine import cpu
from fastq.machine.ir import (
    HOST,
    I32,
    I64,
    at,
    cast_to,
    constant,
    float_function,
    ir_function,
    kernel_function,
    loop,
    reduced,
    round_even,
    splat,
    stack,
    take,
    type_like,
)


def _side_by_side(b: ir.IRBuilder, vectors: list[Any]) -> Any:
    """Vectors of one length, a power of two of them, as one."""
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        lanes = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        vectors = [b.shuffle_vector(*pair, lanes) for pair in zip(vectors[::2], vectors[1::2])]
    return vectors[0]


def _trial(kind: str) -> Any:
    """One pass over a run: sums in 16 lanes, lane i taking elements i, i + 16, ...; then over lanes, by halves; then
    the rest.

    The order is fixed, so that the search comes to the same parameters on every CPU. Where registers are few, they
    hold the sums of some lanes, and the run passes by as often as it takes.
    """
    floats = FLOATS[kind]
    width = LANES if cpu.wide() else 32 // floats.size
    vector = ir.VectorType(floats.type, width)

    def emit(b, x, weights, n, factor, scale, zero, offset, low, high, out):
        inverse = b.fdiv(floats.type(1.0), scale)
        scalars = (factor, scale, inverse, zero, offset, low, high)

        def part(like):
            f, s, inv, z, o, lo, hi = (splat(b, v, width) for v in scalars) if like is not floats.type else scalars

            def body(i, sums):
                value = b.fsub(b.fmul(floats.load(b, x, i, like), f), o)
                weight = floats.load(b, weights, i, like)
                code = b.fadd(float_function(b, "rint", b.fmul(value, inv)), z)
                code = b.fsub(clipped(b, code, lo, hi), z)
                rest = b.fsub(value, b.fmul(s, code))
                weighted = b.fmul(code, weight)
                terms = {
                    NOISE: b.fmul(b.fmul(rest, rest), weight),
                    VALUE_CODE: b.fmul(value, weighted),
                    CODE_CODE: b.fmul(code, weighted),
                    CODE: weighted,
                    VALUE: b.fmul(value, weight),
                    WEIGHT: weight,
                }
                return [b.fadd(sums[i], terms[i]) for i in range(SUMS)]

            return body

        def lanes_from(first):
            return loop(b, I64(first), bulk, LANES, [ir.Constant(vector, None)] * SUMS, part(vector))

        bulk = b.and_(n, I64(-LANES))
        passes = [lanes_from(first) for first in range(0, LANES, width)]
        lanes = [_side_by_side(b, list(parts)) for parts in zip(*passes)]
        totals = loop(b, bulk, n, 1, [reduced(b, b.fadd, v) for v in lanes], part(floats.type), True)
        for i, total in enumerate(totals):
            floats.store(b, total, out, I64(i))

    kinds = (f"{kind}*", f"{kind}*", "int", kind, kind, kind, kind, kind, kind, f"{kind}*")
    return ir_function(f"fastq_trial_{kind}", kinds, HOST, emit)


def runs(kind: str) -> Any:
    """Improve the parameters of each run."""
    floats = cast_to(f"{kind}*")
    size = FLOATS[kind].size
    sums_room, best_room = stack(SUMS * size, f"{kind}*"), stack(4 * size, f"{kind}*")
    trial = _trial(kind)
    better = kernel_function(make_better(trial))
    search = kernel_function(make_search(trial, better, round_even, type_like))
    nought = constant(kind, 0.0)

    @kernel_function
    def search_runs(job):
        sums, best = sums_room(), best_room()
        weights = floats(job.weights)
        x, scale, zero, offset = floats(job.x), floats(job.scale), floats(job.zero), floats(job.offset)
        minimum, maximum, factors = floats(job.minimum), floats(job.maximum), floats(job.factor)
        low, high = type_like(job.low, nought()), type_like(job.high, nought())
        run = take(job, 1)
        while run < job.runs:
            factor = factors[run]
            if factor > 0:
                best[1], best[2], best[3] = scale[run] * factor, zero[run], offset[run] * factor
                here, shares = at(x, run * job.n), at(weights, run % job.weight_runs * job.n)
                least, most = minimum[run] * factor, maximum[run] * factor
                search(here, shares, job.n, factor, job.scheme, least, most, low, high, sums, best)
                scale[run], zero[run], offset[run] = best[1] / factor, best[2], best[3] / factor
            run = take(job, 1)

    return search_runs


def shared(kind: str) -> Any:
    """Choose the integer scales of each column's groups, and the scale that they share."""
    floats = cast_to(f"{kind}*")
    size = FLOATS[kind].size
    sums_room, totals_room = stack(SUMS * size, f"{kind}*"), stack(SUMS * size, f"{kind}*")
    assign = kernel_function(make_joint(_trial(kind), round_even, type_like, at))
    shared_scale = kernel_function(make_shared(assign, type_like))
    nought = constant(kind, 0.0)

    @kernel_function
    def search_shared(job):
        sums, totals = sums_room(), totals_room()
        low, high = type_like(job.low, nought()), type_like(job.high, nought())
        limit = type_like(job.limit, nought())
        column = take(job, 1)
        while column < job.columns:
            here, first = at(floats(job.x), column * job.k), column * job.groups
            factor, shared_scales = floats(job.factor)[column], floats(job.shared_scale)
            scale, zero = at(floats(job.scale), first), at(floats(job.zero), first)
            groups = scale, zero, at(floats(job.group_scale), first), at(floats(job.group_zero), first)
            for group in range(job.groups):
                scale[group] = scale[group] * factor
            run = here, floats(job.weights), job.k, job.size, factor, job.scheme, low, high, limit
            best = shared_scale(run, shared_scales[column] * factor, groups, sums, totals)
            shared_scales[column] = best / factor
            column = take(job, 1)

    return search_shared
