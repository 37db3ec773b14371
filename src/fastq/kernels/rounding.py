"""Extremes and codes of runs of floats, as IR over vectors of 16.

These functions carry no instruction set: LLVM turns vectors of 16 into what the host has, and the results are the same
bits everywhere, since minimum, maximum, subtraction, division and rounding to even are exact or correctly rounded.

A division takes longer than everything else together, and a multiplication by the reciprocal gives another result near
ties (2.5 steps may become 2.5000002). So vectors are multiplied, and one of which some element comes within
:data:`TIE` of a tie is divided after all; that is one vector in sixty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.kernels.lanes import from_bfloat16, from_float16
from fastq.layout.tiles import DEPTH, TILE_ROWS
from fastq.machine.dialect import (
    F32,
    F64,
    HOST,
    I8,
    I16,
    I32,
    I64,
    declare,
    ir_function,
    load_vector,
    loop,
    splat,
    store_vector,
)

LANES = 16

# How far the product with the reciprocal can be from the quotient, for up to 1,000 steps: 1,000 * 1.5 * 2**-23, which
# is 1.8e-4, and twice that for scales whose reciprocal is subnormal. More steps than that are cut off either way.
TIE = 2.0**-11
FLOATS = {"f32": F32, "f64": F64}
BITS = {"f32": I32, "f64": I64}
MAGNITUDE = {"f32": 0x7FFFFFFF, "f64": 0x7FFFFFFFFFFFFFFF}
INFINITY = {"f32": 0x7F800000, "f64": 0x7FF0000000000000}


# Floats as they lie in memory: those of 16 bits are computed in float32.
COMPUTED = {"f16": "f32", "bf16": "f32", "f32": "f32", "f64": "f64"}
POINTERS = {"f16": "u16*", "bf16": "u16*", "f32": "f32*", "f64": "f64*"}
WIDENED = {"f16": from_float16, "bf16": from_bfloat16}


def loaded(b: ir.IRBuilder, kind: str, x: Any, i: Any, lanes: int) -> Any:
    """One float (`lanes` = 1) or a vector of them, in the type that it is computed in."""
    element = FLOATS.get(kind, I16)
    value = load_vector(b, _typed(b, x, i, element), element if lanes == 1 else ir.VectorType(element, lanes))
    return WIDENED[kind](b, value) if kind in WIDENED else value


def _typed(b: ir.IRBuilder, pointer: Any, index: Any, element: ir.Type) -> Any:
    return b.gep(b.bitcast(pointer, element.as_pointer()), [index])


def _extend(b: ir.IRBuilder, kind: str, value: Any, state: list[Any]) -> list[Any]:
    """Take a value (scalar or vector) into the running minimum, maximum and largest magnitude (as an integer)."""
    low, high, size = state
    ints = BITS[kind] if not isinstance(value.type, ir.VectorType) else ir.VectorType(BITS[kind], value.type.count)
    mask = ir.Constant(ints, MAGNITUDE[kind] if ints is BITS[kind] else [MAGNITUDE[kind]] * ints.count)
    bits = b.and_(b.bitcast(value, ints), mask)
    return [
        b.select(b.fcmp_ordered("<", value, low), value, low),
        b.select(b.fcmp_ordered(">", value, high), value, high),
        b.select(b.icmp_unsigned(">", bits, size), bits, size),
    ]


def _larger(b: ir.IRBuilder, order: str) -> Callable[[Any, Any], Any]:
    """The smaller ("<") or larger (">") of two floats, or the larger of two unsigned integers ("u")."""

    def pick(x: Any, y: Any) -> Any:
        first = b.icmp_unsigned(">", x, y) if order == "u" else b.fcmp_ordered(order, x, y)
        return b.select(first, x, y)

    return pick


def _folded(b: ir.IRBuilder, combine: Callable[[Any, Any], Any], x: Any) -> Any:
    """Reduce a vector to one element, halving its length again and again."""
    while x.type.count > 1:
        half = x.type.count // 2
        halves = (
            b.shuffle_vector(x, x, ir.Constant(ir.VectorType(I32, half), list(range(start, start + half))))
            for start in (0, half)
        )
        x = combine(*halves)
    return b.extract_element(x, I32(0))


def row_top(kind: str, rows: int = 1, balanced: bool = False) -> Any:
    """``row_top(x, n, pitch, out)``: out[r] = max |x| of n floats of row r; infinite or NaN if one of them is.

    If `balanced`, ``row_top(x, n, pitch, out, factors, room, room_pitch)``: x is first multiplied by one factor per
    column, in the type that it is computed in, and the products are left in `room`.

    Magnitudes are compared as integers, in which order infinity and NaN come last. Several rows at a time, because the
    CPU's prefetching follows a row no farther than to the end of a page: read one by one, 64 MiB of rows came from
    memory at 9 GB/s.
    """
    computed = COMPUTED[kind]
    element, ints = FLOATS[computed], BITS[computed]
    chains = 4

    def emit(b, x, n, pitch, out, factors=None, room=None, room_pitch=None):
        def magnitude(r, column, value_type):
            vector = isinstance(value_type, ir.VectorType)
            lanes = LANES if vector else 1
            value = loaded(b, kind, x, b.add(b.mul(pitch, I64(r)), column), lanes)
            if balanced:
                value = b.fmul(value, loaded(b, computed, factors, column, lanes))
                store_vector(b, value, _typed(b, room, b.add(b.mul(room_pitch, I64(r)), column), element))
            mask = MAGNITUDE[computed]
            return b.and_(b.bitcast(value, value_type), ir.Constant(value_type, [mask] * LANES if vector else mask))

        vector = ir.VectorType(ints, LANES)
        pick = _larger(b, "u")

        def several(i, tops):
            places = [(r, b.add(i, I64(c * LANES))) for r in range(rows) for c in range(chains)]
            return [pick(magnitude(*place, vector), top) for place, top in zip(places, tops)]

        bulk = b.and_(n, I64(-chains * LANES))
        tops = loop(b, I64(0), bulk, chains * LANES, [ir.Constant(vector, None)] * (rows * chains), several)
        for r in range(rows):
            a, c, d, e = tops[chains * r : chains * (r + 1)]
            top = _folded(b, pick, pick(pick(a, c), pick(d, e)))
            (top,) = loop(b, bulk, n, 1, [top], lambda i, t, r=r: [pick(magnitude(r, i, ints), t[0])])
            b.store(b.bitcast(top, element), _typed(b, out, I64(r), element))

    kinds = [POINTERS[kind], "int", "int", f"{computed}*"] + [f"{computed}*", f"{computed}*", "int"] * balanced
    return ir_function(f"fastq_row_top_{kind}_{rows}" + "_balanced" * balanced, tuple(kinds), HOST, emit)


def row_extremes(kind: str) -> Any:
    """``row_extremes(x, n, out)``: out[0], out[1] = min, max of n > 0 floats; out[2] = 1 if one is not finite, or 0."""
    element, ints = FLOATS[kind], BITS[kind]
    vector = ir.VectorType(element, LANES)

    def emit(b, x, n, out):
        first = b.load(b.bitcast(x, element.as_pointer()), align=1)
        start = [splat(b, first, LANES)] * 2 + [ir.Constant(ir.VectorType(ints, LANES), None)]
        bulk = b.and_(n, I64(-2 * LANES))

        def two(i, state):
            # Two chains: one alone would wait for the latency of the comparisons.
            a = _extend(b, kind, load_vector(b, _typed(b, x, i, element), vector), state[:3])
            c = _extend(b, kind, load_vector(b, _typed(b, x, b.add(i, I64(LANES)), element), vector), state[3:])
            return a + c

        state = loop(b, I64(0), bulk, 2 * LANES, start * 2, two)
        scalars = [
            _folded(b, _larger(b, pick), _larger(b, pick)(x, y)) for pick, x, y in zip("<>u", state[:3], state[3:])
        ]

        def one(i, state):
            return _extend(b, kind, b.load(_typed(b, x, i, element), align=1), state)

        low, high, size = loop(b, bulk, n, 1, scalars, one)
        b.store(low, _typed(b, out, I64(0), element))
        b.store(high, _typed(b, out, I64(1), element))
        broken = b.icmp_unsigned(">=", size, ir.Constant(ints, INFINITY[kind]))
        b.store(b.uitofp(broken, element), _typed(b, out, I64(2), element))

    return ir_function(f"fastq_row_extremes_{kind}", (f"{kind}*", "int", f"{kind}*"), HOST, emit)


def column_extremes(kind: str) -> Any:
    """``column_extremes(x, pitch, rows, columns, low, high, flag)``: minima and maxima down the columns.

    `pitch` is in elements; `flag[0]` is set to 1 if some element is not finite.
    """
    element, ints = FLOATS[kind], BITS[kind]

    def emit(b, x, pitch, rows, columns, low, high, flag):
        def strip(vector):
            int_type = ints if vector is element else ir.VectorType(ints, LANES)

            def columns_at(j, sizes):
                def down(i, state):
                    place = _typed(b, x, b.add(b.mul(i, pitch), j), element)
                    return _extend(b, kind, load_vector(b, place, vector), state)

                first = load_vector(b, _typed(b, x, j, element), vector)
                lowest, highest, size = loop(b, I64(0), rows, 1, [first, first, ir.Constant(int_type, None)], down)
                store_vector(b, lowest, _typed(b, low, j, element))
                store_vector(b, highest, _typed(b, high, j, element))
                return [b.select(b.icmp_unsigned(">", size, sizes[0]), size, sizes[0])]

            return columns_at

        bulk = b.and_(columns, I64(-LANES))
        (sizes,) = loop(
            b,
            I64(0),
            bulk,
            LANES,
            [ir.Constant(ir.VectorType(ints, LANES), None)],
            strip(ir.VectorType(element, LANES)),
        )
        size = b.extract_element(sizes, I32(0))
        for lane in range(1, LANES):
            other = b.extract_element(sizes, I32(lane))
            size = b.select(b.icmp_unsigned(">", other, size), other, size)
        (size,) = loop(b, bulk, columns, 1, [size], strip(element))
        with b.if_then(b.icmp_unsigned(">=", size, ir.Constant(ints, INFINITY[kind]))):
            b.store(I64(1), flag)

    kinds = (f"{kind}*", "int", "int", "int", f"{kind}*", f"{kind}*", "i64*")
    return ir_function(f"fastq_column_extremes_{kind}", kinds, HOST, emit)


class _Steps:
    """``clip(rint((x - offset) / scale) + zero, low, high)`` as int32, for scalars or vectors of one type."""

    def __init__(self, b: ir.IRBuilder, scale: Any, zero: Any, offset: Any, low: Any, high: Any) -> None:
        self.scale, self.zero, self.offset, self.low, self.high = scale, zero, offset, low, high
        self.type = scale.type
        self.is_vector = isinstance(self.type, ir.VectorType)
        if self.is_vector:
            self.inverse = b.fdiv(self._constant(1.0), scale)

    def _constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.type, [value] * self.type.count if self.is_vector else value)

    def _rint(self, b: ir.IRBuilder, value: Any) -> Any:
        return b.call(declare(b, "llvm.rint." + mangled(self.type), self.type, [self.type]), [value])

    def __call__(self, b: ir.IRBuilder, x: Any) -> Any:
        x = b.fsub(x, self.offset)
        if self.is_vector:
            quick = b.fmul(x, self.inverse)
            value = self._rint(b, quick)
            gap = b.call(declare(b, "llvm.fabs." + mangled(self.type), self.type, [self.type]), [b.fsub(quick, value)])
            # Unordered: a reciprocal that overflows gives NaN here.
            close = b.fcmp_unordered(">", gap, self._constant(0.5 - TIE))
            lanes = b.bitcast(close, ir.IntType(self.type.count))
            fast = b.block
            with b.if_then(b.icmp_unsigned("!=", lanes, lanes.type(0)), likely=False):
                exact = self._rint(b, b.fdiv(x, self.scale))
                slow = b.block
            chosen = b.phi(self.type)
            chosen.add_incoming(value, fast)
            chosen.add_incoming(exact, slow)
        else:
            chosen = self._rint(b, b.fdiv(x, self.scale))
        value = b.fadd(chosen, self.zero)
        value = b.select(b.fcmp_ordered("<", value, self.low), self.low, value)
        value = b.select(b.fcmp_ordered(">", value, self.high), self.high, value)
        return b.fptosi(value, ir.VectorType(I32, self.type.count) if self.is_vector else I32)


def mangled(value_type: ir.Type) -> str:
    """The type as it stands in the names of LLVM's intrinsics."""
    if isinstance(value_type, ir.VectorType):
        return f"v{value_type.count}{mangled(value_type.element)}"
    return {"float": "f32", "double": "f64"}[str(value_type)]


# Places of four k inside a 16-bit left tile: even k first, which is how a 16-bit product takes them apart.
PAIRED = (0, 2, 1, 3)


def _write_run(
    b: ir.IRBuilder, target: str, n: Any, out: Any, place: Any, total: Any, code_at: Callable[..., Any]
) -> None:
    """Write ``code_at(i, vector)`` (int32, 16 at a time or one) for i < n, and add their sum to ``total[0]``.

    `target` says where codes go: ``"row"`` to consecutive bytes from `place` on, ``"tiles"`` to a row of left tiles of
    int8, ``"wide_tiles"`` to one of int16 (:data:`PAIRED`).
    """
    wide = target == "wide_tiles"
    code_type = I16 if wide else I8
    ints = ir.VectorType(I32, LANES)

    def address(p):
        if target != "row":
            tile = b.mul(b.ashr(p, I64(6)), I64(TILE_ROWS * DEPTH))
            p = b.add(tile, b.and_(p, I64(DEPTH - 1)))
        return b.gep(b.bitcast(out, code_type.as_pointer()), [p])

    def sixteen(i, sums):
        codes = code_at(i, True)
        narrow = b.trunc(codes, ir.VectorType(code_type, LANES))
        if wide:
            order = [4 * (i // 4) + PAIRED[i % 4] for i in range(LANES)]
            narrow = b.shuffle_vector(narrow, narrow, ir.Constant(ints, order))
        store_vector(b, narrow, address(b.add(place, i)))
        return [b.add(sums[0], codes)]

    def one(i, sums):
        code = code_at(i, False)
        p = b.add(place, i)
        if wide:
            low_bit, high_bit = b.and_(p, I64(1)), b.and_(b.lshr(p, I64(1)), I64(1))
            p = b.or_(b.and_(p, I64(-4)), b.or_(b.shl(low_bit, I64(1)), high_bit))
        b.store(b.trunc(code, code_type), address(p))
        return [b.add(sums[0], code)]

    bulk = b.and_(n, I64(-LANES))
    if target != "row":
        # A vector must not cross the end of a tile.
        aligned = b.icmp_signed("==", b.and_(place, I64(LANES - 1)), I64(0))
        bulk = b.select(aligned, bulk, I64(0))
    (sums,) = loop(b, I64(0), bulk, LANES, [ir.Constant(ints, None)], sixteen)
    (rest,) = loop(b, bulk, n, 1, [_folded(b, b.add, sums)], one)
    b.store(b.add(b.load(total), rest), total)


def row_codes(kind: str, target: str = "row") -> Any:
    """``row_codes(x, n, scale, zero, offset, low, high, out, place, total)``.

    Codes of a run of floats under one set of parameters, written as :func:`_write_run` says.
    """
    computed = COMPUTED[kind]

    def emit(b, x, n, scale, zero, offset, low, high, out, place, total):
        parameters = (scale, zero, offset, low, high)
        scalar_steps = _Steps(b, *parameters)
        vector_steps = _Steps(b, *(splat(b, v, LANES) for v in parameters))

        def code_at(i, vector):
            steps, lanes = (vector_steps, LANES) if vector else (scalar_steps, 1)
            return steps(b, loaded(b, kind, x, i, lanes))

        _write_run(b, target, n, out, place, total, code_at)

    kinds = (POINTERS[kind], "int", *(computed,) * 5, "u8*", "int", "i32*")
    return ir_function(f"fastq_row_codes_{kind}_{target}", kinds, HOST, emit)


def copied_codes(target: str) -> Any:
    """``copied_codes(codes, n, flip, out, place, total)``: codes as they are, but for the bits in `flip`."""

    def emit(b, codes, n, flip, out, place, total):
        flips = b.trunc(flip, I8), splat(b, b.trunc(flip, I8), LANES)

        def code_at(i, vector):
            byte, wide = (ir.VectorType(I8, LANES), ir.VectorType(I32, LANES)) if vector else (I8, I32)
            return b.sext(b.xor(load_vector(b, b.gep(codes, [i]), byte), flips[vector]), wide)

        _write_run(b, target, n, out, place, total, code_at)

    return ir_function(f"fastq_copied_codes_{target}", ("u8*", "int", "int", "u8*", "int", "i32*"), HOST, emit)


def column_codes(kind: str) -> Any:
    """``column_codes(x, n, scale, zero, offset, low, high, out)``: codes of a run with parameters per element."""
    element = FLOATS[kind]

    def emit(b, x, n, scale, zero, offset, low, high, out):
        def part(value_type):
            vector = isinstance(value_type, ir.VectorType)
            bounds = [splat(b, v, LANES) if vector else v for v in (low, high)]
            byte = ir.VectorType(I8, LANES) if vector else I8

            def body(i, _):
                values = [load_vector(b, _typed(b, p, i, element), value_type) for p in (x, scale, zero, offset)]
                codes = _Steps(b, *values[1:], *bounds)(b, values[0])
                store_vector(b, b.trunc(codes, byte), b.gep(out, [i]))
                return []

            return body

        bulk = b.and_(n, I64(-LANES))
        loop(b, I64(0), bulk, LANES, [], part(ir.VectorType(element, LANES)))
        loop(b, bulk, n, 1, [], part(element))

    kinds = (f"{kind}*", "int", f"{kind}*", f"{kind}*", f"{kind}*", kind, kind, "u8*")
    return ir_function(f"fastq_column_codes_{kind}", kinds, HOST, emit)
