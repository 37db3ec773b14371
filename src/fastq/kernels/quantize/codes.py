"""Codes of runs of floats, as IR over vectors of 16, or of fewer where registers are few.

Like :mod:`fastq.kernels.quantize.extremes` these functions carry no instruction set; their results are the same bits
everywhere, since subtraction, division and rounding to even are exact or correctly rounded.

A division takes longer than everything else together, and a multiplication by the reciprocal gives another result near
ties (2.5 steps may become 2.5000002). So vectors are multiplied, and one of which some element comes within
:data:`TIE` of a tie is divided after all; that is one vector in sixty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import LANES
from fastq.layout.tiles import DEPTH, STEP, TILE_ROWS, LeftFormat
from fastq.machine.ir import (
    HOST,
    I8,
    I32,
    I64,
    any_lane,
    filled,
    float_function,
    ir_function,
    load_vector,
    loop,
    reduced,
    replaced_if,
    shaped,
    splat,
    store_vector,
)

# How far the product with the reciprocal can be from the quotient, for up to 1,000 steps: 1,000 * 1.5 * 2**-23, which
# is 1.8e-4, and twice that for scales whose reciprocal is subnormal. More steps than that are cut off either way. Codes
# of two planes have 32 times as many steps.
TIE, WIDE_TIE = 2.0**-11, 2.0**-6
VECTORS = 3  # that a loop holds for each result


def clipped(b: ir.IRBuilder, value: Any, low: Any, high: Any) -> Any:
    """The value, but `low` where it is less and `high` where it is more."""
    value = b.select(b.fcmp_ordered("<", value, low), low, value)
    return b.select(b.fcmp_ordered(">", value, high), high, value)


class _Steps:
    """``clip(rint((x - offset) / scale) + zero, low, high)`` as int32, for scalars or vectors of one type."""

    def __init__(
        self, b: ir.IRBuilder, scale: Any, zero: Any, offset: Any, low: Any, high: Any, *, tie: float = TIE
    ) -> None:
        self.scale, self.zero, self.offset, self.low, self.high, self.tie = scale, zero, offset, low, high, tie
        self.type = scale.type
        self.is_vector = isinstance(self.type, ir.VectorType)
        if self.is_vector:
            self.inverse = b.fdiv(filled(self.type, 1.0), scale)

    def __call__(self, b: ir.IRBuilder, x: Any) -> Any:
        x = b.fsub(x, self.offset)

        def divided() -> Any:
            return [float_function(b, "rint", b.fdiv(x, self.scale))]

        if self.is_vector:
            quick = b.fmul(x, self.inverse)
            value = float_function(b, "rint", quick)
            gap = float_function(b, "fabs", b.fsub(quick, value))
            # Unordered: a reciprocal that overflows gives NaN here.
            close = any_lane(b, b.fcmp_unordered(">", gap, filled(self.type, 0.5 - self.tie)))
            (steps,) = replaced_if(b, close, [value], divided, likely=False)
        else:
            (steps,) = divided()
        code = clipped(b, b.fadd(steps, self.zero), self.low, self.high)
        return b.fptosi(code, shaped(I32, self.type))


class CodeWriter:
    """Where codes go: to a row of left tiles of a format, or, without one, to consecutive bytes."""

    def __init__(self, b: ir.IRBuilder, left: LeftFormat | None, out: Any) -> None:
        self.b, self.tiled = b, left is not None
        self.left = left or LeftFormat()
        self.type = ir.IntType(8 * self.left.bytes)
        self.out = b.bitcast(out, self.type.as_pointer())

    def place(self, p: Any, within: int | None = None) -> Any:
        """The address of the code at position p; or `within` codes further, where p is known to begin a tile."""
        b = self.b
        start = b.mul(b.ashr(p, I64(6)), I64(TILE_ROWS * DEPTH)) if self.tiled else p
        if within is not None:
            start = b.add(start, I64(within))
        elif self.tiled:
            start = b.add(start, b.and_(p, I64(DEPTH - 1)))
        return b.gep(self.out, [start])

    def narrowed(self, codes: Any) -> Any:
        """The lowest bits of integers from whole steps, in the order in which they are stored."""
        b, narrow = self.b, shaped(self.type, codes.type)
        value = b.trunc(codes, narrow)
        if not self.left.natural:
            order = [i - i % STEP + self.left.order[i % STEP] for i in range(narrow.count)]
            value = b.shuffle_vector(value, value, ir.Constant(shaped(I32, narrow), order))
        return value

    def single(self, code: Any, p: Any) -> None:
        """Store the code at position p."""
        b = self.b
        if not self.left.natural:
            # Two bits for each k of a step say where it lies.
            where = sum(place << 2 * k for k, place in enumerate(self.left.places))
            inside = b.and_(b.lshr(I64(where), b.shl(b.and_(p, I64(STEP - 1)), I64(1))), I64(STEP - 1))
            p = b.or_(b.and_(p, I64(-STEP)), inside)
        b.store(b.trunc(code, self.type), self.place(p))


def _write_run(
    b: ir.IRBuilder,
    writers: Sequence[CodeWriter],
    n: Any,
    place: Any,
    totals: Sequence[Any],
    codes_at: Callable[..., Any],
    lanes: int = LANES,
) -> None:
    """Write the codes ``codes_at(i, type)`` (int32, some at a time or one) for i < n from `place` on, and add them up.

    There is a code for each writer, and a total for each.
    """
    ints = ir.VectorType(I32, lanes)

    def several(i, sums):
        codes = codes_at(i, ints)
        for writer, code in zip(writers, codes):
            store_vector(b, writer.narrowed(code), writer.place(b.add(place, i)))
        return [b.add(*pair) for pair in zip(sums, codes)]

    def one(i, sums):
        codes = codes_at(i, I32)
        for writer, code in zip(writers, codes):
            writer.single(code, b.add(place, i))
        return [b.add(*pair) for pair in zip(sums, codes)]

    bulk = b.and_(n, I64(-lanes))
    if writers[0].tiled:
        # A vector must not cross the end of a tile.
        aligned = b.icmp_signed("==", b.and_(place, I64(lanes - 1)), I64(0))
        bulk = b.select(aligned, bulk, I64(0))
    sums = loop(b, I64(0), bulk, lanes, [ir.Constant(ints, None)] * len(writers), several)
    sums = loop(b, bulk, n, 1, [reduced(b, b.add, total) for total in sums], one, True)
    for total, rest in zip(totals, sums):
        b.store(b.add(b.load(total), rest), total)


def tag(left: LeftFormat | None) -> str:
    """What tells where codes go, in the names of functions."""
    return f"tiles_{left.tag}" if left else "row"


def row_codes(kind: str, left: LeftFormat | None = None) -> Any:
    """``row_codes(x, n, scale, zero, offset, low, high, out, place, total)``.

    Codes of a run of floats under one set of parameters, from position `place` on as :class:`CodeWriter` says; their
    sum is added to ``total[0]``.
    """
    floats = FLOATS[kind]
    lanes = floats.lanes(VECTORS)

    def emit(b, x, n, scale, zero, offset, low, high, out, place, total):
        parameters = (scale, zero, offset, low, high)
        one = _Steps(b, *parameters)
        several = _Steps(b, *(splat(b, v, lanes) for v in parameters))

        def code_at(i, like):
            return [(one if like is I32 else several)(b, floats.load(b, x, i, like))]

        _write_run(b, [CodeWriter(b, left, out)], n, place, [total], code_at, lanes)

    kinds = (floats.pointer, "int", *(floats.computed,) * 5, "u8*", "int", "i32*")
    return ir_function(f"fastq_row_codes_{kind}_{tag(left)}", kinds, HOST, emit)


def plane_codes(kind: str, left: LeftFormat) -> Any:
    """``plane_codes(x, n, scale, high, out, low_out, place, total, low_total)``: symmetric codes in two planes.

    A code is ``256 * high byte + low byte``, both of them signed; codes go from -high to high.
    """
    floats = FLOATS[kind]
    lanes = floats.lanes(VECTORS)

    def emit(b, x, n, scale, high, out, low_out, place, total, low_total):
        nought = floats.type(0)
        parameters = (scale, nought, nought, b.fneg(high), high)
        one = _Steps(b, *parameters, tie=WIDE_TIE)
        several = _Steps(b, *(splat(b, v, lanes) for v in parameters), tie=WIDE_TIE)

        def codes_at(i, like):
            code = (one if like is I32 else several)(b, floats.load(b, x, i, like))
            upper = b.ashr(b.add(code, filled(like, 128)), filled(like, 8))
            return [upper, b.sub(code, b.shl(upper, filled(like, 8)))]

        writers = [CodeWriter(b, left, place_of) for place_of in (out, low_out)]
        _write_run(b, writers, n, place, [total, low_total], codes_at, lanes)

    kinds = (floats.pointer, "int", *(floats.computed,) * 2, "u8*", "u8*", "int", "i32*", "i32*")
    return ir_function(f"fastq_plane_codes_{kind}_{tag(left)}", kinds, HOST, emit)


def copied_codes(left: LeftFormat) -> Any:
    """``copied_codes(codes, n, flip, out, place, total)``: codes as they are, but for the bits in `flip`."""

    def emit(b, codes, n, flip, out, place, total):
        one = b.trunc(flip, I8)
        sixteen = splat(b, one, LANES)

        def code_at(i, like):
            code = load_vector(b, b.gep(codes, [i]), shaped(I8, like))
            return [b.sext(b.xor(code, one if like is I32 else sixteen), like)]

        _write_run(b, [CodeWriter(b, left, out)], n, place, [total], code_at)

    kinds = ("u8*", "int", "int", "u8*", "int", "i32*")
    return ir_function(f"fastq_copied_codes_{tag(left)}", kinds, HOST, emit)


def column_codes(kind: str) -> Any:
    """``column_codes(x, n, scale, zero, offset, low, high, out)``: codes of a run with parameters per element."""
    floats = FLOATS[kind]
    lanes = floats.lanes(VECTORS)
    vector = ir.VectorType(floats.type, lanes)

    def emit(b, x, n, scale, zero, offset, low, high, out):
        def part(like):
            bounds = [splat(b, v, lanes) if like is not floats.type else v for v in (low, high)]

            def body(i, _):
                value, *parameters = (floats.load(b, p, i, like) for p in (x, scale, zero, offset))
                codes = _Steps(b, *parameters, *bounds)(b, value)
                store_vector(b, b.trunc(codes, shaped(I8, like)), b.gep(out, [i]))
                return []

            return body

        bulk = b.and_(n, I64(-lanes))
        loop(b, I64(0), bulk, lanes, [], part(vector))
        loop(b, bulk, n, 1, [], part(floats.type), True)

    kinds = (floats.pointer, "int", *[floats.pointer] * 3, kind, kind, "u8*")
    return ir_function(f"fastq_column_codes_{kind}", kinds, HOST, emit)
