"""Packing floats as the right operand: codes under a symmetric scale per column, straight into tiles.

Codes are rounded as in :mod:`fastq.kernels.quantize.symmetric`: by a multiplication, a magic number and a look for
ties. The sum of a code and of what makes it unsigned is a small integer too, so the magic number takes that along.

Extremes come first, from a pass of their own, so memory is read twice. Tried instead: a ticket for a strip of columns,
whose codes follow its extremes while it is in the cache. Each page of the matrix is then visited once per strip, and
4096 x 4096 float32 took 20 to 50 ms of one core with strips of 32 to 256 columns, against 11 this way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.kernels.floats import FLOATS
from fastq.kernels.jobs import RightFloatsJob
from fastq.kernels.pack.right import DENSE, each, packing
from fastq.kernels.quantize.codes import clipped
from fastq.kernels.quantize.extremes import pick
from fastq.kernels.quantize.symmetric import TIE
from fastq.layout.tiles import BLOCK, ROW_BYTES, STEP
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import (
    HOST,
    I8,
    I32,
    I64,
    P8,
    any_lane,
    at,
    cast_to,
    field,
    filled,
    float_function,
    ir_function,
    kernel_function,
    loop,
    prefetch,
    replaced_if,
    shaped,
    splat,
    stack,
    store_vector,
)

AHEAD = 8  # rows from those in use to those that are fetched, where rows are contiguous
CHUNK = 16  # k of a column at a time, where columns are contiguous: a cache line of float32


class _Codes:
    """Unsigned codes of floats, in the lowest bits of the integers that it gives; `like` is a scalar or vector type."""

    def __init__(self, b: ir.IRBuilder, kind: str, job: Any, like: ir.Type) -> None:
        self.floats = FLOATS[kind]
        self.like, self.ints = like, shaped(self.floats.ints, like)

        def number(name: str) -> Any:
            value = b.sitofp(field(b, RightFloatsJob, job, name), self.floats.type)
            return splat(b, value, like.count) if isinstance(like, ir.VectorType) else value

        self.low, self.high = number("low"), number("high")
        self.magic = b.fsub(filled(like, self.floats.magic), self.low)

    def divided(self, b: ir.IRBuilder, value: Any, scale: Any) -> Any:
        """By the definition."""
        code = clipped(b, float_function(b, "rint", b.fdiv(value, scale)), self.low, self.high)
        return b.bitcast(b.fadd(code, self.magic), self.ints)

    def __call__(
        self, b: ir.IRBuilder, values: list[Any], scales: Callable[[], list[Any]], inverses: list[Any]
    ) -> list[Any]:
        """Four vectors; ties are looked for in all of them at once. An inverse that is NaN does for none."""
        quick = [b.fmul(value, inverse) for value, inverse in zip(values, inverses)]
        # No quotient exceeds the codes' range, since each scale is that of the largest element.
        rounded = [b.fadd(q, self.magic) for q in quick]
        # As integers, numbers have the same order, and NaN comes last: a maximum of floats would lose it.
        larger = pick(b, "u")
        gaps = [float_function(b, "fabs", b.fsub(q, b.fsub(r, self.magic))) for q, r in zip(quick, rounded)]
        gaps = [b.bitcast(gap, self.ints) for gap in gaps]
        worst = b.bitcast(larger(larger(gaps[0], gaps[1]), larger(gaps[2], gaps[3])), self.like)
        close = any_lane(b, b.fcmp_unordered(">", worst, filled(self.like, 0.5 - TIE)))
        codes = [b.bitcast(r, self.ints) for r in rounded]
        return replaced_if(
            b, close, codes, lambda: [self.divided(b, v, s) for v, s in zip(values, scales())], likely=False
        )


def _steps_by_row(kind: str) -> Any:
    """``steps(job, x, column, blocks, rows, steps)``: rows of tiles from floats that lie side by side along n."""
    floats = FLOATS[kind]
    words = ir.VectorType(I32, BLOCK)

    def emit(b, job, x, column, blocks, rows, steps):
        codes = _Codes(b, kind, job, floats.vector)
        pitch = field(b, RightFloatsJob, job, "k_pitch")
        scale, inverse = (b.bitcast(field(b, RightFloatsJob, job, name), P8) for name in ("scale", "inverse"))
        start, ahead = b.bitcast(x, P8), b.mul(pitch, I64(AHEAD))

        def one(step, block):
            across = b.mul(block, I64(BLOCK))
            first = b.add(b.mul(b.mul(step, I64(STEP)), pitch), across)
            places = [b.add(first, b.mul(pitch, I64(k))) for k in range(STEP)]
            for k in places:
                there = b.mul(b.add(k, ahead), I64(floats.size))
                for line in range(0, floats.size * BLOCK, CACHE_LINE):
                    prefetch(b, b.gep(start, [b.add(there, I64(line))]), 3)
            values = [floats.load(b, x, k, floats.vector) for k in places]
            place = b.add(column, across)
            inverses = floats.load(b, inverse, place, floats.vector)
            found = codes(b, values, lambda: [floats.load(b, scale, place, floats.vector)] * STEP, [inverses] * STEP)
            row = None
            for k, code in enumerate(found):
                word = b.and_(code if code.type == words else b.trunc(code, words), filled(words, 0xFF))
                word = b.shl(word, filled(words, 8 * k))
                row = word if row is None else b.or_(row, word)
            store_vector(b, row, b.gep(rows, [b.add(b.mul(block, I64(DENSE)), b.mul(step, I64(ROW_BYTES)))]))
            return []

        each(b, steps, blocks, one)

    kinds = (RightFloatsJob, floats.pointer, "int", "int", "u8*", "int")
    return ir_function(f"fastq_right_steps_by_row_{kind}", kinds, HOST, emit)


def _steps_by_column(kind: str) -> Any:
    """The same from floats that lie side by side along k; `steps` is a multiple of four."""
    floats = FLOATS[kind]
    narrow, words = ir.VectorType(I8, CHUNK), ir.VectorType(I32, STEP)

    def emit(b, job, x, column, blocks, rows, steps):
        codes = _Codes(b, kind, job, floats.vector)
        pitch = field(b, RightFloatsJob, job, "n_pitch")
        scale, inverse = (b.bitcast(field(b, RightFloatsJob, job, name), P8) for name in ("scale", "inverse"))

        def splats(array: Any, first: Any) -> list[Any]:
            places = [b.add(b.add(column, first), I64(c)) for c in range(STEP)]
            return [splat(b, floats.load(b, array, place, floats.type), CHUNK) for place in places]

        def four_columns(block, quad):
            within = b.mul(quad, I64(STEP))
            across = b.add(b.mul(block, I64(BLOCK)), within)
            inverses = splats(inverse, across)
            runs = [b.mul(b.add(across, I64(c)), pitch) for c in range(STEP)]

            def sixteen(i, _):
                first = b.mul(i, I64(STEP))
                values = [floats.load(b, x, b.add(run, first), floats.vector) for run in runs]
                found = codes(b, values, lambda: splats(scale, across), inverses)
                p, q, r, s = (b.bitcast(b.trunc(c, narrow), words) for c in found)

                def shuffled(x: Any, y: Any, *order: int) -> Any:
                    return b.shuffle_vector(x, y, ir.Constant(words, order))

                # Words of four k, four of each column, become four of each row.
                low, high = (0, 4, 1, 5), (2, 6, 3, 7)
                pairs = [(shuffled(p, q, *half), shuffled(r, s, *half)) for half in (low, high)]
                out = [shuffled(*pair, *order) for pair in pairs for order in ((0, 1, 4, 5), (2, 3, 6, 7))]
                start = b.add(b.mul(block, I64(DENSE)), b.mul(within, I64(STEP)))
                for row, word in enumerate(out):
                    place = b.add(start, b.mul(b.add(i, I64(row)), I64(ROW_BYTES)))
                    store_vector(b, word, b.gep(rows, [place]))
                return []

            loop(b, I64(0), steps, CHUNK // STEP, [], sixteen)
            return []

        each(b, blocks, I64(BLOCK // STEP), four_columns)

    kinds = (RightFloatsJob, floats.pointer, "int", "int", "u8*", "int")
    return ir_function(f"fastq_right_steps_by_column_{kind}", kinds, HOST, emit)


def _single(kind: str) -> Any:
    """``single(job, x, scale, out)``: one unsigned code."""
    floats = FLOATS[kind]

    def emit(b, job, x, scale, out):
        codes = _Codes(b, kind, job, floats.type)
        value = floats.load(b, x, I64(0), floats.type)
        code = codes.divided(b, value, floats.load(b, scale, I64(0), floats.type))
        b.store(b.trunc(code, I8), out)

    kinds = (RightFloatsJob, floats.pointer, floats.pointer, "u8*")
    return ir_function(f"fastq_right_single_{kind}", kinds, HOST, emit)


def pack(kind: str, bits: int) -> Any:
    """Quantize a matrix of floats by column, and pack it; its rows or its columns are contiguous."""
    view = cast_to(f"{kind}*")
    by_row, by_column, single = _steps_by_row(kind), _steps_by_column(kind), _single(kind)
    code_room = stack(1)

    @kernel_function
    def steps_of(job, k, column, blocks, rows, steps):
        x = at(view(job.x), k * job.k_pitch + column * job.n_pitch)
        if job.n_pitch == 1:
            by_row(job, x, column, blocks, rows, steps)
            return steps
        whole = steps // (CHUNK // STEP) * (CHUNK // STEP)
        by_column(job, x, column, blocks, rows, whole)
        return whole

    @kernel_function
    def code_of(job, k, column):
        room = code_room()
        x = at(view(job.x), k * job.k_pitch + column * job.n_pitch)
        single(job, x, at(view(job.scale), column), room)
        return room[0]

    return packing(bits, steps_of, code_of)
