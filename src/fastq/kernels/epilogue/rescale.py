"""The epilogue: from a tile of int32 sums to the output, while the tile is in the L1 cache.

For every segment g of K, with row parameters of row i and column parameters of column j::

    r   = row_sum - k * row_zero
    v   = acc - col_zero * r - row_zero * col_sum                 int32, modulo 2**32
    y   = (float(v) * row_scale) * col_scale
    y   = y + (row_scale * float(r)) * col_offset                 if an operand has offsets
    y   = y + row_offset * col_term                               if the left operand has offsets
    sum = y                                                       first segment
    sum = sum + y                                                 further segments
    out = convert(activation((sum * outer_row_scale) * outer_col_scale + bias))

Where K has several segments, the scale of an operand that is constant along K, and has no offsets, is the outer scale;
it is 1 in y. (Multiplications of the sum rather than of every segment; one scale after the other is the same for a
product and its transpose.) Any other outer scale is 1. Where the product is computed as a transpose
(``output.turned``), scales of columns come before those of rows. Where left codes come in two planes
(``output.planes``), a row of the output has two rows of accumulators, of high bytes and of low ones; then ``float(v)``
stands for ``float(v_high) * 256 + float(v_low)``, and ``float(r)`` likewise.

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
from fastq.kernels.epilogue.terms import FAST, ONE_SEGMENT, TYPES, Lanes, Terms
from fastq.kernels.floats import to_float16
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.ir import (
    I16,
    I32,
    I64,
    P8,
    Target,
    at,
    cast_to,
    field,
    ir_function,
    kernel_function,
    load_at,
    load_vector,
    loop,
    replaced_if,
    store_vector,
)


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


class FastTile:
    """A tile of the common case: one segment, no zero points on the left, one on the right, no offsets.

    What all rows share is loaded where the object is made.
    """

    def __init__(self, b: ir.IRBuilder, job: Any, output: Output, pitch: int, acc: Any, row: Any, block: Any) -> None:
        self.writer, self.pitch, self.acc, self.row = OutputWriter(b, job, output), pitch, acc, row
        self.terms, self.block = Terms(b, job, output), block

    def values(self, b: ir.IRBuilder, r: Any, c: Any) -> Any:
        """16 columns with their bias: row r of the tile, block c; also their row, column and place in the tile."""
        i, block = b.add(self.row, r), b.add(self.block, c)
        here = b.add(b.mul(r, I64(self.pitch)), b.mul(c, I64(BLOCK)))
        accs = _accumulators(b, self.acc, self.terms.planes, self.pitch, r, c)
        (y,) = self.terms.of_row(b, FAST, accs, i, [Lanes(block)], I64(0))
        col = b.mul(block, I64(BLOCK))
        return self.writer.biased(b, y, col), i, col, here

    def write(self, b: ir.IRBuilder, r: Any, c: Any) -> None:
        """Write 16 columns: row r of the tile, block c."""
        y, i, col, _ = self.values(b, r, c)
        self.writer.store_whole(b, y, self.writer.place(b, i, col))


def _accumulators(b: ir.IRBuilder, acc: Any, planes: int, pitch: int, r: Any, c: Any) -> list[Any]:
    """Those of row r and block c of a tile of the output, of each plane."""
    rows = [b.add(b.mul(r, I64(planes)), I64(plane)) for plane in range(planes)]
    places = (b.add(b.mul(row, I64(pitch)), b.mul(c, I64(BLOCK))) for row in rows)
    return [load_at(b, acc, place, ir.VectorType(I32, BLOCK)) for place in places]


def epilogue(target: Target, tag: str, output: Output, pitch: int, segmented: bool = False) -> Any:
    """``epilogue(job, acc, sums, row, rows, block, blocks)``, for kernel code to call.

    `acc` holds `rows` x `blocks` * 16 int32 with `pitch` per row, and `sums` has room for as many values of the type in
    which output is computed; `row` and `block` say where the tile belongs. (Left codes in two planes have two rows of
    accumulators for one of the output, which are counted here.) Where K has several segments, `sums` holds what they
    add up to (:func:`fastq.kernels.dot.segments.dense_sums`), and `acc` is not read.
    """
    finish = _finish(target, tag, output, pitch, segmented)
    if output.function is None:
        return finish
    apply, deliver = each(output), _deliver(target, tag, output, pitch)
    view, planes = cast_to("f32*" if output.computed == "float32" else "f64*"), output.planes

    @kernel_function
    def with_function(job, acc, sums, row, rows, block, blocks):
        finish(job, acc, sums, row, rows, block, blocks)
        values, row, rows = view(sums), row // planes, rows // planes
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


def _finish(target: Target, tag: str, output: Output, pitch: int, segmented: bool) -> Any:
    """What all outputs have in common; values that others take are left in `sums`."""
    held = output.held

    def emit(b, job, acc, sums, row, rows, block, blocks):
        sums = b.bitcast(sums, TYPES[output.computed].as_pointer())
        n = field(b, MatmulJob, job, "n")
        if output.planes > 1:
            row, rows = (b.sdiv(count, I64(output.planes)) for count in (row, rows))

        def any_case():
            terms, writer = Terms(b, job, output), OutputWriter(b, job, output)

            def one_block(r, c):
                i, columns = b.add(row, r), Lanes(b.add(block, c))
                col = b.mul(columns.block, I64(BLOCK))
                here = b.add(b.mul(r, I64(pitch)), b.mul(c, I64(BLOCK)))
                spare = b.gep(sums, [here])
                if segmented:
                    y = terms.outside(b, load_vector(b, spare, ir.VectorType(terms.type, BLOCK)), i, columns)
                else:
                    accs = _accumulators(b, acc, output.planes, pitch, r, c)
                    (y,) = terms.of_row(b, ONE_SEGMENT, accs, i, [columns], I64(0))
                y = writer.biased(b, y, col)
                if held:
                    store_vector(b, y, spare)
                else:
                    writer.store(b, y, writer.place(b, i, col), b.sub(n, col), spare)

            _each_block(b, rows, blocks, one_block)

        def common():
            tile = FastTile(b, job, output, pitch, acc, row, block)

            def one_block(r, c):
                if held:
                    y, _, _, here = tile.values(b, r, c)
                    store_vector(b, y, b.gep(sums, [here]))
                else:
                    tile.write(b, r, c)

            _each_block(b, rows, blocks, one_block)

        if segmented:
            any_case()
            return
        room = b.sub(n, b.mul(b.add(block, blocks), I64(BLOCK)))
        fast = b.icmp_signed("!=", field(b, MatmulJob, job, "fast"), I64(0))
        with b.if_else(b.and_(fast, b.icmp_signed(">=", room, I64(0)))) as (then, otherwise):
            with then:
                common()
            with otherwise:
                any_case()

    kinds = (MatmulJob, "i32*", "u8*", "int", "int", "int", "int")
    name = f"fastq_epilogue_{tag}_{output.tag}_{pitch}" + "_segmented" * segmented
    return ir_function(name, kinds, target, emit)


def _each_block(b: ir.IRBuilder, rows: Any, blocks: Any, emit: Callable[[Any, Any], None]) -> None:
    """``emit(r, c)`` for each row and each block of columns of a tile."""

    def one_row(r, _):
        def one_block(c, _):
            emit(r, c)
            return []

        return loop(b, I64(0), blocks, 1, [], one_block)

    loop(b, I64(0), rows, 1, [], one_row)
