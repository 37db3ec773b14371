"""The search of :mod:`fastq.kernels.descent`, compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.descent import (
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
from fastq.kernels.rounding import LANES
from fastq.machine.dialect import (
    FLOATS,
    HOST,
    I32,
    I64,
    at,
    cast_to,
    constant,
    declare,
    ir_function,
    kernel_function,
    load_vector,
    loop,
    round_even,
    splat,
    stack,
    take,
    type_like,
)


def _summed(b: ir.IRBuilder, v: Any) -> Any:
    """The sum over lanes: the upper half onto the lower one, until one is left.

    One lane after the other took longer than the rest of a pass over 64 elements.
    """
    count = v.type.count
    while count > 1:
        count //= 2
        halves = (ir.Constant(ir.VectorType(I32, count), list(range(i * count, (i + 1) * count))) for i in (0, 1))
        low, high = (b.shuffle_vector(v, v, half) for half in halves)
        v = b.fadd(low, high)
    return b.extract_element(v, I32(0))


def _trial(kind: str) -> Any:
    """One pass over a run: sums in 16 lanes, lane i taking elements i, i + 16, ...; then over lanes, by halves; then
    the rest.

    The order is fixed, so that the search comes to the same parameters on every CPU.
    """
    element = FLOATS[kind]
    vector = ir.VectorType(element, LANES)

    def emit(b, x, weights, n, factor, scale, zero, offset, low, high, out):
        inverse = b.fdiv(ir.Constant(element, 1.0), scale)
        scalars = (factor, scale, inverse, zero, offset, low, high)

        def part(value_type):
            is_vector = isinstance(value_type, ir.VectorType)
            f, s, inv, z, o, lo, hi = (splat(b, v, LANES) for v in scalars) if is_vector else scalars
            name = f"v{LANES}{kind}" if is_vector else kind
            rint = declare(b, f"llvm.rint.{name}", value_type, [value_type])

            def body(i, sums):
                place = b.gep(b.bitcast(x, element.as_pointer()), [i])
                value = b.fsub(b.fmul(load_vector(b, place, value_type), f), o)
                weight = load_vector(b, b.gep(b.bitcast(weights, element.as_pointer()), [i]), value_type)
                code = b.fadd(b.call(rint, [b.fmul(value, inv)]), z)
                code = b.select(b.fcmp_ordered("<", code, lo), lo, code)
                code = b.select(b.fcmp_ordered(">", code, hi), hi, code)
                code = b.fsub(code, z)
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

        bulk = b.and_(n, I64(-LANES))
        lanes = loop(b, I64(0), bulk, LANES, [ir.Constant(vector, None)] * SUMS, part(vector))
        totals = [_summed(b, v) for v in lanes]
        totals = loop(b, bulk, n, 1, totals, part(element))
        for i, total in enumerate(totals):
            b.store(total, b.gep(b.bitcast(out, element.as_pointer()), [I64(i)]))

    kinds = (f"{kind}*", f"{kind}*", "int", kind, kind, kind, kind, kind, kind, f"{kind}*")
    return ir_function(f"fastq_trial_{kind}", kinds, HOST, emit)


def runs(kind: str) -> Any:
    """Improve the parameters of each run."""
    floats = cast_to(f"{kind}*")
    size = 4 if kind == "f32" else 8
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
                here, mine = at(x, run * job.n), at(weights, run % job.weight_runs * job.n)
                least, most = minimum[run] * factor, maximum[run] * factor
                search(here, mine, job.n, factor, job.scheme, least, most, low, high, sums, best)
                scale[run], zero[run], offset[run] = best[1] / factor, best[2], best[3] / factor
            run = take(job, 1)

    return search_runs


def shared(kind: str) -> Any:
    """Choose the integer scales of each column's groups, and the scale that they share."""
    floats = cast_to(f"{kind}*")
    size = 4 if kind == "f32" else 8
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
            factor, scales = floats(job.factor)[column], floats(job.shared)
            own, zeros = at(floats(job.own), first), at(floats(job.zeros), first)
            groups = own, zeros, at(floats(job.factors), first), at(floats(job.chosen), first)
            for group in range(job.groups):
                own[group] = own[group] * factor
            what = here, floats(job.weights), job.k, job.size, factor, job.scheme, low, high, limit
            scales[column] = shared_scale(what, scales[column] * factor, groups, sums, totals) / factor
            column = take(job, 1)

    return search_shared
