"""Extremes of runs of floats, as IR over vectors of 16.

These functions carry no instruction set: LLVM turns vectors into what the host has, and minima and maxima are the same
bits everywhere. Vectors have 16 lanes, or as many as leave all that a loop holds in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS, FloatType
from fastq.machine import cpu
from fastq.machine.ir import HOST, I64, filled, ir_function, loop, reduced, shaped, splat

CHAINS = 4  # vectors of a row at a time: one alone would wait for the latency of the comparisons
TOGETHER = 4  # rows at a time, down columns


def pick(b: ir.IRBuilder, order: str) -> Callable[[Any, Any], Any]:
    """The smaller ("<") or larger (">") of two floats, or the larger of two unsigned integers ("u")."""

    def of_two(x: Any, y: Any) -> Any:
        first = b.icmp_unsigned(">", x, y) if order == "u" else b.fcmp_ordered(order, x, y)
        return b.select(first, x, y)

    return of_two


def _magnitude(b: ir.IRBuilder, kind: FloatType, value: Any) -> Any:
    """The bits of |value| as an integer, in which order infinity and NaN come last."""
    ints = shaped(kind.ints, value.type)
    return b.and_(b.bitcast(value, ints), filled(ints, kind.magnitude))


def _extend(b: ir.IRBuilder, kind: FloatType, value: Any, state: list[Any]) -> list[Any]:
    """Take a value (scalar or vector) into the running minimum, maximum and largest magnitude."""
    values = value, value, _magnitude(b, kind, value)
    return [pick(b, order)(v, s) for order, v, s in zip("<>u", values, state)]


def row_top(kind: str, rows: int = 1, balanced: bool = False) -> Any:
    """``row_top(x, n, pitch, out)``: out[r] = max |x| of n floats of row r; infinite or NaN if one of them is.

    If `balanced`, ``row_top(x, n, pitch, out, factors, room, room_pitch)``: x is first multiplied by one factor per
    column, in the type that it is computed in, and the products are left in `room`.

    Several rows are read at a time, because the CPU's prefetching follows a row no farther than to the end of a page:
    read one by one, 64 MiB of rows came from memory at 9 GB/s.
    """
    stored, computed = FLOATS[kind], FLOATS[FLOATS[kind].computed]
    chains = CHAINS if rows == 1 or not cpu.short_vectors() else 1
    lanes = stored.lanes(rows * chains * (1 + balanced))
    vector = ir.VectorType(computed.type, lanes)
    ints = shaped(computed.ints, vector)

    def emit(b, x, n, pitch, out, factors=None, room=None, room_pitch=None):
        larger = pick(b, "u")

        def magnitude(r, column, like):
            value = stored.load(b, x, b.add(b.mul(pitch, I64(r)), column), like)
            if balanced:
                value = b.fmul(value, computed.load(b, factors, column, like))
                computed.store(b, value, room, b.add(b.mul(room_pitch, I64(r)), column))
            return _magnitude(b, computed, value)

        def several(i, tops):
            places = [(r, b.add(i, I64(c * lanes))) for r in range(rows) for c in range(chains)]
            return [larger(magnitude(*place, vector), top) for place, top in zip(places, tops)]

        bulk = b.and_(n, I64(-chains * lanes))
        tops = loop(b, I64(0), bulk, chains * lanes, [ir.Constant(ints, None)] * (rows * chains), several)
        for r in range(rows):
            top, done = reduce(larger, tops[chains * r : chains * (r + 1)]), bulk
            if rows == 1:  # it may be a short run, a group
                done = b.and_(n, I64(-lanes))
                (top,) = loop(b, bulk, done, lanes, [top], lambda i, t: [larger(magnitude(0, i, vector), t[0])], True)
            top = reduced(b, larger, top)
            (top,) = loop(b, done, n, 1, [top], lambda i, t, r=r: [larger(magnitude(r, i, computed.type), t[0])], True)
            computed.store(b, b.bitcast(top, computed.type), out, I64(r))

    kinds = [stored.pointer, "int", "int", computed.pointer]
    kinds += [computed.pointer, computed.pointer, "int"] * balanced
    return ir_function(f"fastq_row_top_{kind}_{rows}" + "_balanced" * balanced, tuple(kinds), HOST, emit)


def row_extremes(kind: str) -> Any:
    """``row_extremes(x, n, out)``: out[0], out[1] = min, max of n > 0 floats; out[2] = 1 if one is not finite, or 0."""
    floats = FLOATS[kind]
    lanes, element = floats.lanes(6), floats.type
    vector = ir.VectorType(element, lanes)

    def emit(b, x, n, out):
        first = splat(b, floats.load(b, x, I64(0), element), lanes)
        start = [first, first, ir.Constant(shaped(floats.ints, vector), None)]
        bulk = b.and_(n, I64(-2 * lanes))

        def two(i, state):
            # Two chains: one alone would wait for the latency of the comparisons.
            p = _extend(b, floats, floats.load(b, x, i, vector), state[:3])
            return p + _extend(b, floats, floats.load(b, x, b.add(i, I64(lanes)), vector), state[3:])

        state = loop(b, I64(0), bulk, 2 * lanes, start * 2, two)
        extremes = [
            reduced(b, pick(b, order), pick(b, order)(p, q)) for order, p, q in zip("<>u", state[:3], state[3:])
        ]
        low, high, size = loop(
            b, bulk, n, 1, extremes, lambda i, state: _extend(b, floats, floats.load(b, x, i, element), state), True
        )
        floats.store(b, low, out, I64(0))
        floats.store(b, high, out, I64(1))
        broken = b.icmp_unsigned(">=", size, floats.ints(floats.infinity))
        floats.store(b, b.uitofp(broken, element), out, I64(2))

    return ir_function(f"fastq_row_extremes_{kind}", (floats.pointer, "int", floats.pointer), HOST, emit)


def column_extremes(kind: str) -> Any:
    """``column_extremes(x, pitch, rows, columns, low, high, flag)``: minima and maxima down the columns.

    `pitch` is in elements; `flag[0]` is set to 1 if some element is not finite. Rows are read along, a few at a time,
    since each page of memory should be visited once: strips of 16 columns took twice as long.
    """
    floats = FLOATS[kind]
    lanes = floats.lanes(6)
    vector = ir.VectorType(floats.type, lanes)

    def emit(b, x, pitch, rows, columns, low, high, flag):
        wide, bulk = b.and_(columns, I64(-lanes)), b.and_(rows, I64(-TOGETHER))

        def along(first, count, like):
            starts = [b.mul(b.add(first, I64(r)), pitch) for r in range(count)]

            def body(j, sizes):
                state = [floats.load(b, low, j, like), floats.load(b, high, j, like), *sizes]
                for start in starts:
                    state = _extend(b, floats, floats.load(b, x, b.add(start, j), like), state)
                floats.store(b, state[0], low, j)
                floats.store(b, state[1], high, j)
                return state[2:]

            return body

        def some_rows(count):
            def body(i, sizes):
                (size,) = loop(b, I64(0), wide, lanes, sizes[:1], along(i, count, vector))
                (rest,) = loop(b, wide, columns, 1, sizes[1:], along(i, count, floats.type), True)
                return [size, rest]

            return body

        def begin(j, _):
            for end in (low, high):
                floats.store(b, floats.load(b, x, j, floats.type), end, j)
            return []

        loop(b, I64(0), columns, 1, [], begin)
        nothing = [ir.Constant(shaped(floats.ints, like), None) for like in (vector, floats.type)]
        sizes = loop(b, I64(0), bulk, TOGETHER, nothing, some_rows(TOGETHER))
        size, rest = loop(b, bulk, rows, 1, sizes, some_rows(1))
        size = pick(b, "u")(reduced(b, pick(b, "u"), size), rest)
        with b.if_then(b.icmp_unsigned(">=", size, floats.ints(floats.infinity))):
            b.store(I64(1), flag)

    kinds = (floats.pointer, "int", "int", "int", floats.pointer, floats.pointer, "i64*")
    return ir_function(f"fastq_column_extremes_{kind}", kinds, HOST, emit)
