"""The epilogue: from a tile of int32 sums to the output, while the tile is in the L1 cache.

For every segment g of K, with row parameters of row i and column parameters of column j::

    r   = row_sum - k * row_zero
    v   = acc - col_zero * r - row_zero * col_sum                 int32, modulo 2**32
    y   = (float(v) * row_scale) * col_scale
    y   = (y + (row_scale * float(r)) * col_offset) + row_offset * col_term          if anything is affine
    sum = y                                                       first segment
    sum = sum + y                                                 further segments
    out = convert(activation(sum + bias))                         last segment

Where the product is computed as a transpose (``output.turned``), ``y = (float(v) * col_scale) * row_scale``. Where left
codes come in two planes (``output.planes``), a row of the output has two rows of sums, of high bytes and of low ones;
then ``float(v)`` stands for ``float(v_high) * 256 + float(v_low)``, and ``float(r)`` likewise.
Each operation is rounded by itself, in this order, on every instruction set: no contraction, no reassociation. The
same lines stand in :func:`fastq.kernels.reference.epilogue`. For int32 output v itself is the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.kernels.epilogue.custom import each
from fastq.kernels.epilogue.lanes import activated
from fastq.kernels.epilogue.outputs import COMPUTED, Output
from fastq.kernels.floats import to_float16
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.ir import (
    F32,
    F64,
    I16,
    I32,
    I64,
    P8,
    Target,
    at,
    cast_to,
    field,
    filled,
    ir_function,
    kernel_function,
    load_at,
    load_vector,
    loop,
    replaced_if,
    splat,
    store_vector,
)

TYPES: dict[str, ir.Type] = {"int32": I32, "float16": I16, "float32": F32, "float64": F64}


class OutputWriter:
    """Where 16 columns go once their sums are complete: bias, activation, conversion, memory.

    What all rows share is loaded where the object is made.
    """

    def __init__(self, b: ir.IRBuilder, job: Any, output: Output) -> None:
        self.output, self.stored = output, TYPES[output.type]
        self.computed = TYPES[COMPUTED[output.type]]
        self.bias, self.pitch = field(b, MatmulJob, job, "bias"), field(b, MatmulJob, job, "out_pitch")
        self.has_bias = b.icmp_unsigned("!=", self.bias, ir.Constant(P8, None))
        self.out = b.bitcast(field(b, MatmulJob, job, "out"), self.stored.as_pointer())
        self.streamed = b.icmp_signed("!=", field(b, MatmulJob, job, "streamed"), I64(0))

    def biased(self, b: ir.IRBuilder, y: Any, column: Any) -> Any:
        """``y + bias``, if there is one."""

        def add() -> list[Any]:
            bias = load_at(b, self.bias, column, ir.VectorType(self.computed, BLOCK))
            return [b.fadd(y, bias) if self.computed != I32 else b.add(y, bias)]

        return replaced_if(b, self.has_bias, [y], add)[0]

    def converted(self, b: ir.IRBuilder, y: Any) -> Any:
        """The activation, unless it is a user's, and the output's type."""
        if self.output.activation and self.output.function is None:
            y = activated(self.output.activation, b, y)
        return to_float16(b, y) if self.output.type == "float16" else y

    def place(self, b: ir.IRBuilder, row: Any, column: Any) -> Any:
        """Where an element belongs."""
        return b.gep(self.out, [b.add(b.mul(row, self.pitch), column)])

    def store_whole(self, b: ir.IRBuilder, y: Any, place: Any) -> None:
        """Store 16 columns that the output has."""
        y = self.converted(b, y)
        with b.if_else(self.streamed) as (past_the_cache, cached):
            with past_the_cache:
                size = BLOCK * (2 if self.stored == I16 else 4)
                store = b.store(y, b.bitcast(place, y.type.as_pointer()), align=size)
                store.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))
            with cached:
                store_vector(b, y, place)

    def store(self, b: ir.IRBuilder, y: Any, place: Any, room: Any, spare: Any) -> None:
        """Store as many of 16 columns as there is room for; `spare` is memory for all of them."""
        with b.if_else(b.icmp_signed(">=", room, I64(BLOCK))) as (whole, edge):
            with whole:
                self.store_whole(b, y, place)
            with edge:
                spare = b.bitcast(spare, self.stored.as_pointer())
                store_vector(b, self.converted(b, y), spare)

                def copy(i, _):
                    b.store(b.load(b.gep(spare, [i])), b.gep(place, [i]))
                    return []

                loop(b, I64(0), room, 1, [], copy)


def _scaled(b: ir.IRBuilder, output: Output, v: list[Any], row_scale: Any, col_scale: Any) -> Any:
    """The integers of all planes times both scales; the left operand's first, which a transpose has on its right."""
    first, second = (col_scale, row_scale) if output.turned else (row_scale, col_scale)
    return b.fmul(b.fmul(_as_float(b, v, row_scale.type), first), second)


def _as_float(b: ir.IRBuilder, v: list[Any], kind: ir.Type) -> Any:
    """The number that integers of one plane, or of a high and a low one, stand for."""
    values = [b.sitofp(plane, kind) for plane in v]
    return values[0] if len(v) == 1 else b.fadd(b.fmul(values[0], filled(kind, 256.0)), values[1])


class FastTile:
    """A tile of the common case: one segment, no zero points on the left, one on the right, no offsets.

    What all rows share is loaded where the object is made.
    """

    def __init__(self, b: ir.IRBuilder, job: Any, output: Output, pitch: int, acc: Any, row: Any, block: Any) -> None:
        def get(name: str) -> Any:
            return field(b, MatmulJob, job, name)

        self.writer, self.pitch, self.acc, self.row = OutputWriter(b, job, output), pitch, acc, row
        self.type, self.planes = self.writer.computed, output.planes
        self.column = b.mul(block, I64(BLOCK))
        self.zero = b.load(get("col_zero"))
        self.row_sum = get("row_sum")
        self.row_scale, self.col_scale = (b.bitcast(get(n), self.type.as_pointer()) for n in ("row_scale", "col_scale"))

    def values(self, b: ir.IRBuilder, r: Any, c: Any) -> Any:
        """16 columns with their bias: row r of the output's in the tile, block c; also their row, column and place."""
        values = ir.VectorType(self.type, BLOCK)
        i, col = b.add(self.row, r), b.add(self.column, b.mul(c, I64(BLOCK)))
        in_row = b.mul(c, I64(BLOCK))
        v = []
        for line, here in _lines(b, r, self.planes, self.pitch, in_row):
            acc = load_at(b, self.acc, here, ir.VectorType(I32, BLOCK))
            line_sum = b.load(b.gep(self.row_sum, [b.add(b.mul(self.row, I64(self.planes)), line)]))
            v.append(b.sub(acc, splat(b, b.mul(self.zero, line_sum), BLOCK)))
        y = v[0]
        if self.type != I32:
            row_scale = splat(b, b.load(b.gep(self.row_scale, [i])), BLOCK)
            y = _scaled(b, self.writer.output, v, row_scale, load_at(b, self.col_scale, col, values))
        return self.writer.biased(b, y, col), i, col, b.add(b.mul(r, I64(self.pitch)), in_row)

    def write(self, b: ir.IRBuilder, r: Any, c: Any) -> None:
        """Write 16 columns: row r of the tile, block c."""
        y, i, col, _ = self.values(b, r, c)
        self.writer.store_whole(b, y, self.writer.place(b, i, col))


def _lines(b: ir.IRBuilder, r: Any, planes: int, pitch: int, column: Any) -> list[tuple[Any, Any]]:
    """The rows of a tile of sums that belong to row r of the output's, and the places of a column in them."""
    rows = [b.add(b.mul(r, I64(planes)), I64(plane)) for plane in range(planes)] if planes > 1 else [r]
    return [(row, b.add(b.mul(row, I64(pitch)), column)) for row in rows]


def epilogue(target: Target, tag: str, output: Output, pitch: int) -> Any:
    """``epilogue(job, acc, sums, row, rows, block, blocks, segment)``, for kernel code to call.

    `acc` holds `rows` x `blocks` * 16 int32 with `pitch` per row, `sums` as many values of the type in which output is
    computed; `row` and `block` say where the tile belongs. Rows are those of sums: two for one of the output, if left
    codes come in two planes.
    """
    finish = _finish(target, tag, output, pitch)
    if output.function is None:
        return finish
    planes = output.planes
    apply, deliver = each(output), _deliver(target, tag, output, pitch)
    view = cast_to("f32*" if output.computed == "float32" else "f64*")

    @kernel_function
    def with_function(job, acc, sums, row, rows, block, blocks, segment):
        finish(job, acc, sums, row, rows, block, blocks, segment)
        if segment == job.segments - 1:
            values = view(sums)
            row, rows = row // planes, rows // planes
            if blocks * BLOCK == pitch:
                apply(job, values, rows * pitch)
            else:
                for r in range(rows):
                    apply(job, at(values, r * pitch), blocks * BLOCK)
            deliver(job, sums, row, rows, block, blocks)

    return with_function


def _deliver(target: Target, tag: str, output: Output, pitch: int) -> Any:
    """``deliver(job, sums, row, rows, block, blocks)``: convert and write what a user's function has left in `sums`."""

    def emit(b, job, sums, row, rows, block, blocks):
        writer = OutputWriter(b, job, output)
        sums = b.bitcast(sums, writer.computed.as_pointer())
        n = field(b, MatmulJob, job, "n")

        def write(r, c):
            col = b.mul(b.add(block, c), I64(BLOCK))
            here = b.gep(sums, [b.add(b.mul(r, I64(pitch)), b.mul(c, I64(BLOCK)))])
            y = load_vector(b, here, ir.VectorType(writer.computed, BLOCK))
            writer.store(b, y, writer.place(b, b.add(row, r), col), b.sub(n, col), here)

        _each_block(b, rows, blocks, write)

    kinds = (MatmulJob, "u8*", "int", "int", "int", "int")
    return ir_function(f"fastq_deliver_{tag}_{output.tag}_{pitch}", kinds, target, emit)


def _finish(target: Target, tag: str, output: Output, pitch: int) -> Any:
    """What all outputs have in common; a user's function is left to come, and its values are in `sums`."""
    floating, planes = output.type != "int32", output.planes
    ints = ir.VectorType(I32, BLOCK)
    out_type = TYPES[output.computed]
    values = ir.VectorType(out_type, BLOCK)

    def emit(b, job, acc, sums, row, rows, block, blocks, segment):
        sums = b.bitcast(sums, out_type.as_pointer())
        if planes > 1:
            row, rows = (b.sdiv(count, I64(planes)) for count in (row, rows))

        def get(name):
            return field(b, MatmulJob, job, name)

        def group_of(groups):
            return b.select(b.icmp_signed(">", groups, I64(1)), segment, I64(0))

        n, segments, columns = get("n"), get("segments"), get("columns")
        last = b.icmp_signed("==", b.add(segment, I64(1)), segments)
        first = b.icmp_signed("==", segment, I64(0))
        k = b.trunc(b.select(last, get("last_k"), get("segment_k")), I32)
        row_groups = get("row_groups")
        row_group = group_of(row_groups)
        col_base = b.mul(group_of(get("col_groups")), columns)
        zero_base = b.mul(group_of(get("zero_groups")), columns)
        sum_base = b.mul(segment, columns)
        row_sum, row_zero, col_zero, col_sum = get("row_sum"), get("row_zero"), get("col_zero"), get("col_sum")
        varied = b.icmp_signed("==", get("uniform"), I64(0))
        # The first column's zero point serves for all where they are the same, as those of symmetric codes are.
        uniform_zero = load_at(b, col_zero, I64(0), I32)
        writer = OutputWriter(b, job, output)
        if floating:
            row_scale, col_scale = get("row_scale"), get("col_scale")
            row_offset, col_offset, col_term = get("row_offset"), get("col_offset"), get("col_term")
            affine = b.icmp_signed("!=", get("affine"), I64(0))

        def one_row(r, _):
            i = b.add(row, r)
            at_group = b.add(b.mul(i, row_groups), row_group)
            zero = load_at(b, row_zero, at_group, I32)
            has_zero, zero_v = b.icmp_signed("!=", zero, I32(0)), splat(b, zero, BLOCK)
            places = [b.add(b.mul(line, segments), segment) for line, _ in _lines(b, i, planes, pitch, I64(0))]
            # Of each plane; codes of two have no zero points.
            reduced = [b.sub(load_at(b, row_sum, place, I32), b.mul(k, zero)) for place in places]
            if floating:
                scale = load_at(b, row_scale, at_group, out_type)
                scale_v = splat(b, scale, BLOCK)

            def one_block(c, _):
                col = b.mul(b.add(block, c), I64(BLOCK))
                here = b.add(b.mul(r, I64(pitch)), b.mul(c, I64(BLOCK)))
                at_col = b.add(col_base, col)
                lines = _lines(b, r, planes, pitch, b.mul(c, I64(BLOCK)))
                v = [load_at(b, acc, place, ints) for _, place in lines]

                def by_column():
                    zeros = load_at(b, col_zero, b.add(zero_base, col), ints)
                    return [b.mul(zeros, splat(b, plane, BLOCK)) for plane in reduced]

                uniform = [splat(b, b.mul(uniform_zero, plane), BLOCK) for plane in reduced]
                v = [b.sub(*pair) for pair in zip(v, replaced_if(b, varied, uniform, by_column))]

                def less_zeros(v=v):
                    return [b.sub(v[0], b.mul(load_at(b, col_sum, b.add(sum_base, col), ints), zero_v))]

                if planes == 1:
                    v = replaced_if(b, has_zero, v, less_zeros)
                y = v[0]
                if floating:
                    y = _scaled(b, output, v, scale_v, load_at(b, col_scale, at_col, values))

                    def with_offsets(y=y):
                        left = splat(b, b.fmul(scale, _as_float(b, reduced, out_type)), BLOCK)
                        shift = splat(b, load_at(b, row_offset, at_group, out_type), BLOCK)
                        z = b.fadd(y, b.fmul(left, load_at(b, col_offset, at_col, values)))
                        return [b.fadd(z, b.fmul(shift, load_at(b, col_term, b.add(sum_base, col), values)))]

                    (y,) = replaced_if(b, affine, [y], with_offsets)

                    def added(y=y):
                        return [b.fadd(load_at(b, sums, here, values), y)]

                    (y,) = replaced_if(b, b.not_(first), [y], added)
                with b.if_else(last) as (then, otherwise):
                    with then:
                        final, spare = writer.biased(b, y, col), b.gep(sums, [here])
                        if output.function is not None:
                            store_vector(b, final, spare)
                        else:
                            writer.store(b, final, writer.place(b, i, col), b.sub(n, col), spare)
                    with otherwise:
                        store_vector(b, y, b.gep(sums, [here]))
                return []

            loop(b, I64(0), blocks, 1, [], one_block)
            return []

        room = b.sub(n, b.mul(b.add(block, blocks), I64(BLOCK)))
        fast = b.and_(b.icmp_signed("!=", get("fast"), I64(0)), b.icmp_signed(">=", room, I64(0)))
        with b.if_else(fast) as (common, any_case):
            with common:
                tile = FastTile(b, job, output, pitch, acc, row, block)

                def fast_block(r, c):
                    if output.function is None:
                        tile.write(b, r, c)
                    else:
                        y, _, _, here = tile.values(b, r, c)
                        store_vector(b, y, b.gep(sums, [here]))

                _each_block(b, rows, blocks, fast_block)
            with any_case:
                loop(b, I64(0), rows, 1, [], one_row)

    kinds = (MatmulJob, "i32*", "u8*", "int", "int", "int", "int", "int")
    return ir_function(f"fastq_epilogue_{tag}_{output.tag}_{pitch}", kinds, target, emit)


def _each_block(b: ir.IRBuilder, rows: Any, blocks: Any, emit: Callable[[Any, Any], None]) -> None:
    """``emit(r, c)`` for each row and each block of columns of a tile."""

    def one_row(r, _):
        def one_block(c, _):
            emit(r, c)
            return []

        return loop(b, I64(0), blocks, 1, [], one_block)

    loop(b, I64(0), rows, 1, [], one_row)
