"""Codes of a run of floats under its own symmetric scale, 64 at a time: what quantizing on the fly is made of.

Since no quotient exceeds the codes' range, a number is rounded to a whole one by adding 1.5 * 2**23 (2**52 for
float64), whose last bit is worth one; its lowest byte is then the code. Everything else is as in
:mod:`fastq.kernels.quantize.codes`: the product with the reciprocal stands for the quotient unless it comes close to a
tie, which is looked for in 64 at a time (or in as many as registers hold).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.quantize.codes import CodeWriter, tag
from fastq.kernels.quantize.extremes import pick
from fastq.layout.tiles import DEPTH, LeftFormat
from fastq.machine import cpu
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import (
    HOST,
    I32,
    I64,
    P8,
    any_lane,
    filled,
    float_function,
    ir_function,
    loop,
    prefetch,
    reduced,
    replaced_if,
    shaped,
    splat,
    store_vector,
)

CHUNK = DEPTH  # a row of a left tile
# How far the product with the reciprocal can be from the quotient, for up to 128 steps: 128 * 1.5 * 2**-23, which is
# 2.3e-5, and the rounding of the quotient itself, a third of that.
TIE = 2.0**-14


def symmetric_codes(kind: str, left: LeftFormat | None = None) -> Any:
    """``symmetric_codes(x, n, scale, high, out, place, total, ahead)``: codes of the first n // 64 * 64 floats.

    The scale must be at least the float type's `smallest_scale`, and `place` a multiple of 64 where codes go into
    tiles. `left` and the other arguments are those of :func:`fastq.kernels.quantize.codes.row_codes`. Where codes go to
    rows, what lies `ahead` elements on is fetched into the cache. (Into tiles, two threads take turns of rows, and
    fetching what the other one will need made 64 MiB take 3.7 ms instead of 3.1.)
    """
    floats = FLOATS[kind]
    lanes, together = floats.lanes(4), 1 if cpu.short_vectors() else 4
    step, vector = lanes * together, ir.VectorType(floats.type, lanes)
    ints = shaped(floats.ints, vector)

    def emit(b, x, n, scale, high, out, place, total, ahead):
        magic = filled(vector, floats.magic)
        largest, scales = splat(b, high, lanes), splat(b, scale, lanes)
        top, bottom = b.fadd(magic, largest), b.fsub(magic, largest)
        inverse = b.fdiv(filled(vector, 1.0), scales)
        start, writer, larger = b.bitcast(x, P8), CodeWriter(b, left, out), pick(b, ">")

        def place_of(i, vectors):
            if step == CHUNK:
                return writer.place(b.add(place, i), within=vectors * lanes)
            return writer.place(b.add(place, b.add(i, I64(vectors * lanes))))

        def some(i, carried):
            for line in range(0, 0 if left else step * floats.size, CACHE_LINE):
                there = b.add(b.mul(b.add(i, ahead), I64(floats.size)), I64(line))
                prefetch(b, b.gep(start, [there]), 3)
            values = [floats.load(b, x, b.add(i, I64(j * lanes)), vector) for j in range(together)]
            quick = [b.fmul(value, inverse) for value in values]
            rounded = [b.fadd(q, magic) for q in quick]
            gaps = [float_function(b, "fabs", b.fsub(q, b.fsub(r, magic))) for q, r in zip(quick, rounded)]
            worst = reduce(larger, gaps)
            close = any_lane(b, b.fcmp_ordered(">", worst, filled(vector, 0.5 - TIE)))

            def divided():
                return [b.fadd(b.fdiv(value, scales), magic) for value in values]

            (sums,) = carried
            for j, value in enumerate(replaced_if(b, close, rounded, divided, likely=False)):
                value = b.select(b.fcmp_ordered(">", value, top), top, value)
                value = b.select(b.fcmp_ordered("<", value, bottom), bottom, value)
                bits = b.bitcast(value, ints)  # the magic number's own bits are beyond the lowest 22
                sums = b.add(sums, bits)
                narrow = writer.narrowed(bits)
                store_vector(b, narrow, place_of(i, j))
            return [sums]

        bulk = b.and_(n, I64(-CHUNK))
        (sums,) = loop(b, I64(0), bulk, step, [ir.Constant(ints, None)], some)
        summed = reduced(b, b.add, sums)
        if floats.computed == "f64":
            summed = b.trunc(summed, I32)
        # Each code was counted with the magic number's bits, of which modulo 2**32 only these are left.
        excess = I32({"f32": 0x4B400000, "f64": 0}[floats.computed])
        summed = b.sub(summed, b.mul(excess, b.trunc(bulk, I32)))
        b.store(b.add(b.load(total), summed), total)

    kinds = (floats.pointer, "int", floats.computed, floats.computed, "u8*", "int", "i32*", "int")
    return ir_function(f"fastq_symmetric_codes_{kind}_{tag(left)}", kinds, HOST, emit)
