"""Rounding rows to codes one after the other, each row's error carried on to the rows that follow."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import COMPENSATED_COLUMNS, COMPENSATED_ROWS, LANES
from fastq.kernels.quantize.codes import clipped
from fastq.machine.ir import (
    HOST,
    I8,
    I32,
    I64,
    at,
    cast_to,
    constant,
    float_function,
    ir_function,
    is_null,
    kernel_function,
    loop,
    splat,
    stack,
    store_vector,
    take,
    type_like,
)

PARTS = range(0, COMPENSATED_COLUMNS, LANES)


def _round_row(kind: str) -> Any:
    """One row of a block of columns: codes, how far they end from the target, and the loss."""
    floats = FLOATS[kind]

    def emit(b, value, target, scale, zero, offset, low, high, weight, error, loss, codes):
        low, high, weight = (splat(b, v, LANES) for v in (low, high, weight))
        for first in map(I64, PARTS):
            v, t, s, z, o = (floats.load(b, p, first, floats.vector) for p in (value, target, scale, zero, offset))
            code = clipped(b, b.fadd(float_function(b, "rint", b.fdiv(b.fsub(v, o), s)), z), low, high)
            rounded = b.fadd(b.fmul(s, b.fsub(code, z)), o)
            floats.store(b, b.fsub(rounded, t), error, first)
            miss = b.fsub(rounded, v)
            term = b.fmul(b.fmul(miss, miss), weight)
            floats.store(b, b.fadd(floats.load(b, loss, first, floats.vector), term), loss, first)
            whole = b.fptosi(code, ir.VectorType(I32, LANES))
            store_vector(b, b.trunc(whole, ir.VectorType(I8, LANES)), b.gep(codes, [first]))

    kinds = (*[f"{kind}*"] * 5, kind, kind, kind, f"{kind}*", f"{kind}*", "u8*")
    return ir_function(f"fastq_round_row_{kind}", kinds, HOST, emit)


def _carry_on(kind: str) -> Any:
    """Take a row's errors off the values of the `rows` rows that follow, each times its share."""
    floats = FLOATS[kind]

    def emit(b, values, share, error, rows):
        errors = [floats.load(b, error, I64(first), floats.vector) for first in PARTS]

        def body(row, nothing):
            factor = splat(b, b.load(b.gep(share, [row])), LANES)
            for first, e in zip(PARTS, errors):
                place = b.add(b.mul(row, I64(COMPENSATED_COLUMNS)), I64(first))
                left = b.fsub(floats.load(b, values, place, floats.vector), b.fmul(factor, e))
                floats.store(b, left, values, place)
            return nothing

        loop(b, I64(0), rows, 1, [], body)

    return ir_function(f"fastq_carry_on_{kind}", (f"{kind}*", f"{kind}*", f"{kind}*", "int"), HOST, emit)


def compensate(kind: str) -> Any:
    """Codes and losses of a block of rows under each candidate's parameters.

    Columns know nothing of each other and lie side by side in vectors, so every sum is one chain of additions per
    column and comes out the same on every CPU.
    """
    floats = cast_to(f"{kind}*")
    size = FLOATS[kind].size
    wide = COMPENSATED_COLUMNS
    values_room = stack(COMPENSATED_ROWS * wide * size, f"{kind}*")
    row_room, codes_room = stack(wide * size, f"{kind}*"), stack(wide)
    nought = constant(kind, 0.0)
    round_row, carry_on = _round_row(kind), _carry_on(kind)

    @kernel_function
    def compensate_columns(job):
        values, error, unread = values_room(), row_room(), codes_room()
        target, carry, weight = floats(job.target), floats(job.carry), floats(job.weight)
        scale, zero, offset, losses = floats(job.scale), floats(job.zero), floats(job.offset), floats(job.loss)
        low, high = type_like(job.low, nought()), type_like(job.high, nought())
        rows, n = job.rows, job.n
        first = take(job, 1) * wide
        while first < n:
            for candidate in range(job.candidates):
                loss = at(losses, candidate * n + first)
                for c in range(wide):
                    loss[c] = nought()
                for row in range(rows):
                    for c in range(wide):
                        values[row * wide + c] = target[row * n + first + c]
                for row in range(rows):
                    place = candidate * job.candidate_pitch + row * job.row_pitch + first
                    codes = unread if is_null(job.codes) else at(job.codes, row * n + first)
                    value, row_target = at(values, row * wide), at(target, row * n + first)
                    s, z, o = at(scale, place), at(zero, place), at(offset, place)
                    round_row(value, row_target, s, z, o, low, high, weight[row], error, loss, codes)
                    carry_on(at(values, (row + 1) * wide), at(carry, row * rows + row + 1), error, rows - row - 1)
            first = take(job, 1) * wide

    return compensate_columns
