"""Rotating rows of floats by a Hadamard matrix, in place, as IR over vectors of 16.

The matrix is never there: one of 2 n is ``[[H, H], [H, -H]]`` of one of n, so log2(n) rounds of sums and differences do
what it does. Their order is that of :func:`fastq.kernels.reference.rotated`, and each is rounded once, so results are
the same bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import LANES
from fastq.machine.ir import HOST, I32, I64, ir_function, kernel_function, load_vector, loop, store_vector


def rotation(kind: str) -> Any:
    """``rotate(x, n, block)``: blocks of `block` floats, a power of two from 16 on, times the matrix; they divide n."""
    first, later = _rounds_of_a_vector(kind), _round(kind)

    @kernel_function
    def rotate(x, n, block):
        first(x, n)
        half = LANES
        while half < block:
            later(x, n, half)
            half *= 2

    return rotate


def _rounds_of_a_vector(kind: str) -> Any:
    """``(x, n)``: the rounds within each 16 floats."""
    vector = FLOATS[kind].vector

    def emit(b, x, n):
        def sixteen(i, _):
            value = load_vector(b, b.gep(x, [i]), vector)
            half = 1
            while half < LANES:
                swapped = [lane ^ half for lane in range(LANES)]
                other = b.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, LANES), swapped))
                # The upper one of two is subtracted from the lower, so it is its own sign that changes.
                signs = ir.Constant(vector, [-1.0 if lane & half else 1.0 for lane in range(LANES)])
                value = b.fadd(other, b.fmul(value, signs))
                half *= 2
            store_vector(b, value, b.gep(x, [i]))
            return []

        loop(b, I64(0), n, LANES, [], sixteen)

    return ir_function(f"fastq_rotate_vector_{kind}", (f"{kind}*", "int"), HOST, emit)


def _round(kind: str) -> Any:
    """``(x, n, half)``: sums and differences of floats that lie `half`, a multiple of 16, apart."""
    vector = FLOATS[kind].vector

    def emit(b, x, n, half):
        above = b.sub(I64(0), half)

        def pair(i, _):
            low = b.gep(x, [b.add(i, b.and_(i, above))])  # i counts pairs: a block of 2 * half has half of them
            high = b.gep(low, [half])
            p, q = load_vector(b, low, vector), load_vector(b, high, vector)
            store_vector(b, b.fadd(p, q), low)
            store_vector(b, b.fsub(p, q), high)
            return []

        loop(b, I64(0), b.ashr(n, I64(1)), LANES, [], pair)

    return ir_function(f"fastq_rotate_round_{kind}", (f"{kind}*", "int", "int"), HOST, emit)
