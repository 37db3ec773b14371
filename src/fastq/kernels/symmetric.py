"""Codes of a run of floats under its own symmetric scale, 64 at a time: what quantizing on the fly is made of.

Since no quotient exceeds the codes' range, a number is rounded to a whole one by adding 1.5 * 2**23 (2**52 for
float64), whose last bit is worth one; its lowest byte is then the code. Everything else is as in
:mod:`fastq.kernels.rounding`: the product with the reciprocal stands for the quotient unless it comes close to a tie,
which is found out for 64 at a time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.rounding import (
    BITS,
    COMPUTED,
    LANES,
    PAIRED,
    POINTERS,
    loaded,
    mangled,
)
from fastq.layout.tiles import DEPTH, TILE_ROWS
from fastq.machine.dialect import FLOATS, HOST, I8, I16, I32, I64, declare, ir_function, loop, splat, store_vector

CHUNK = 64  # a row of a left tile
# How far the product with the reciprocal can be from the quotient, for up to 128 steps: 128 * 1.5 * 2**-23, which is
# 2.3e-5, and the rounding of the quotient itself, a third of that.
TIE = 2.0**-14
MAGIC = {"f32": 1.5 * 2.0**23, "f64": 1.5 * 2.0**52}
SMALLEST = {"f32": 2.0**-126, "f64": 2.0**-1022}  # scale whose reciprocal is finite, and rounded as others are


def symmetric_codes(kind: str, target: str) -> Any:
    """``symmetric_codes(x, n, scale, high, out, place, total, ahead)``: codes of the first n // 64 * 64 floats.

    The scale must be at least :data:`SMALLEST`, and `place` a multiple of 64 where codes go into tiles. `target` and
    the other arguments are those of :func:`fastq.kernels.rounding.row_codes`. Where codes go to rows, what lies `ahead`
    elements on is fetched into the cache. (Into tiles, two threads take turns of rows, and fetching what the other one
    will need made 64 MiB take 3.7 ms instead of 3.1.)
    """
    computed = COMPUTED[kind]
    size = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}[kind]
    vector = ir.VectorType(FLOATS[computed], LANES)
    ints = ir.VectorType(BITS[computed], LANES)
    wide = target == "wide_tiles"
    code_type = I16 if wide else I8

    def emit(b, x, n, scale, high, out, place, total, ahead):
        magic = ir.Constant(vector, [MAGIC[computed]] * LANES)
        largest, scales = splat(b, high, LANES), splat(b, scale, LANES)
        top, bottom = b.fadd(magic, largest), b.fsub(magic, largest)
        inverse = b.fdiv(ir.Constant(vector, [1.0] * LANES), scales)
        fabs = declare(b, f"llvm.fabs.{mangled(vector)}", vector, [vector])
        prefetch = declare(b, "llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        start, codes = b.bitcast(x, I8.as_pointer()), b.bitcast(out, code_type.as_pointer())

        def larger(p, q):
            return b.select(b.fcmp_ordered(">", p, q), p, q)

        def chunk(i, carried):
            for line in range(0, CHUNK * size if target == "row" else 0, 64):
                there = b.add(b.mul(b.add(i, ahead), I64(size)), I64(line))
                b.call(prefetch, [b.gep(start, [there]), I32(0), I32(3), I32(1)])
            values = [loaded(b, kind, x, b.add(i, I64(j)), LANES) for j in range(0, CHUNK, LANES)]
            quick = [b.fmul(value, inverse) for value in values]
            rounded = [b.fadd(q, magic) for q in quick]
            gaps = [b.call(fabs, [b.fsub(q, b.fsub(r, magic))]) for q, r in zip(quick, rounded)]
            worst = larger(larger(gaps[0], gaps[1]), larger(gaps[2], gaps[3]))
            close = b.bitcast(b.fcmp_ordered(">", worst, ir.Constant(vector, [0.5 - TIE] * LANES)), ir.IntType(LANES))
            fast = b.block
            with b.if_then(b.icmp_unsigned("!=", close, close.type(0)), likely=False):
                exact = [b.fadd(b.fdiv(value, scales), magic) for value in values]
                slow = b.block
            chosen = []
            for one, other in zip(rounded, exact):
                phi = b.phi(vector)
                phi.add_incoming(one, fast)
                phi.add_incoming(other, slow)
                chosen.append(phi)
            sums = carried[0]
            for j, value in enumerate(chosen):
                value = b.select(b.fcmp_ordered(">", value, top), top, value)
                value = b.select(b.fcmp_ordered("<", value, bottom), bottom, value)
                bits = b.bitcast(value, ints)
                sums = b.add(sums, bits)
                narrow = b.trunc(bits, ir.VectorType(code_type, LANES))
                if wide:
                    # The magic number's own bits are beyond the lowest 22.
                    order = [4 * (i // 4) + PAIRED[i % 4] for i in range(LANES)]
                    narrow = b.shuffle_vector(narrow, narrow, ir.Constant(ir.VectorType(I32, LANES), order))
                store_vector(b, narrow, b.gep(codes, [b.add(where(i), I64(j * LANES))]))
            return [sums]

        def where(i):
            p = b.add(place, i)
            return p if target == "row" else b.mul(b.ashr(p, I64(6)), I64(TILE_ROWS * DEPTH))

        bulk = b.and_(n, I64(-CHUNK))
        (sums,) = loop(b, I64(0), bulk, CHUNK, [ir.Constant(ints, None)], chunk)
        whole = sums
        while whole.type.count > 1:
            half = whole.type.count // 2
            parts = (
                b.shuffle_vector(whole, whole, ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))))
                for s in (0, half)
            )
            whole = b.add(*parts)
        summed = b.extract_element(whole, I32(0))
        if computed == "f64":
            summed = b.trunc(summed, I32)
        # Each code was counted with the magic number's bits, of which modulo 2**32 only these are left.
        excess = I32({"f32": 0x4B400000, "f64": 0}[computed])
        summed = b.sub(summed, b.mul(excess, b.trunc(bulk, I32)))
        b.store(b.add(b.load(total), summed), total)

    kinds = (POINTERS[kind], "int", computed, computed, "u8*", "int", "i32*", "int")
    return ir_function(f"fastq_symmetric_codes_{kind}_{target}", kinds, HOST, emit)
