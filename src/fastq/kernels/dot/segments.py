"""Micro-kernels over several segments of K, whose sums are scaled and added up as floats.

Accumulators of a segment become numbers where they are, in registers, and are added to the sums of the segments before
(:mod:`fastq.kernels.epilogue.terms`). Only the sums of all segments are stored.

The time of m x 4096 x 4096 at 4 bits with float scales, against integer groups of 64, two cores with AVX2; before,
accumulators were stored, and a call of the epilogue per segment read them and all parameters, ``[groups][columns]``:

====================  =============  =============  =============  =============
groups                m = 256        before         m = 1          before
====================  =============  =============  =============  =============
128, symmetric        0.6 to 0.8     0.9            0.9            1.1
32, symmetric         0.8 to 0.9     2.2            1.0            4.2
32, with zero points  0.9            2.5            1.1            3.8
32, with offsets      0.8 to 1.0     2.6            1.1            3.8
====================  =============  =============  =============  =============

Floats on the left that are quantized by group (of 32) take 1.3 to 1.45 times as long as by row; 1.9 times, when they
went through the code for any product.

Of the one row with offsets, 0.2 ms were a product that was prepared anew in each call. With AVX512-VNNI, a segment
takes five instructions per register (less zero, to float, times scale, plus sum, store), beside 8 products at 32 k.

What branches share is joined in registers, which many accumulators have not got: one code, with a branch each for zero
points, offsets and scales, spilled 24 of 32 registers of AVX512-VNNI three times per segment. So there is straight code
for each kind of groups, and small code for all other products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llvmlite import ir

from fastq.kernels.dot.micro import DenseTiles, MicroKernel, Shape, choose, fold, passes, store
from fastq.kernels.dot.packed import multiplied
from fastq.kernels.dot.unpack import Tiles
from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.epilogue.terms import Kind, Lanes, Terms, usual_kinds
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import STEPS, TileFormat
from fastq.machine.ir import I64, either, field, filled, ir_function, load_at, loop, replaced_if, store_vector

SHORT = STEPS // 2  # steps per turn of the k-loop: groups of 32 k are usual


class Segments:
    """The segments of a job, and what they add to a register block."""

    def __init__(
        self,
        b: ir.IRBuilder,
        isa: MicroKernel,
        job: Any,
        output: Output,
        shape: Shape,
        parts: range,
        pitch: int,
        places: tuple[Any, Any, Any, Any],
    ) -> None:
        row, block, acc, sums = places
        self.count, self.size, self.steps = (
            field(b, MatmulJob, job, name) for name in ("segments", "segment_steps", "steps")
        )
        self.isa, self.terms, self.pitch, self.acc = isa, Terms(b, job, output), pitch, acc
        self.sums = b.bitcast(sums, self.terms.type.as_pointer())
        self.kinds = usual_kinds(output)
        self.kind = self.terms.which(b, self.kinds)
        # Rows of the output; each has accumulators of as many rows as there are planes.
        self.planes, lines = output.planes, field(b, MatmulJob, job, "m")
        self.row, m = (value if self.planes == 1 else b.sdiv(value, I64(self.planes)) for value in (row, lines))
        self.rows, self.first, self.last = shape.rows // self.planes, parts[0] * isa.lanes, b.sub(m, I64(1))
        self.columns = [
            Lanes(b.add(block, I64(c)), part * isa.lanes, isa.lanes) for c in range(shape.blocks) for part in parts
        ]
        # -0.0 + y is y, whatever y is.
        self.zeros = [filled(ir.VectorType(self.terms.type, isa.lanes), -0.0)] * (self.rows * len(self.columns))

    def values(self, b: ir.IRBuilder, kind: Kind, segment: Any, accs: list[Any]) -> Iterator[Any]:
        """The numbers that a segment's accumulators stand for."""
        size = len(self.columns) * self.planes
        for r in range(self.rows):
            yield from self._of_row(b, kind, segment, accs[r * size :][:size], I64(r))

    def add_any(self, b: ir.IRBuilder, segment: Any, accs: list[Any]) -> None:
        """Add the values of a product of any kind to the sums in memory; row by row, since all at once are too much."""
        self.store(b, accs, self.acc)

        def one_row(r: Any, _: Any) -> list[Any]:
            def places(row: Any) -> list[Any]:
                return [self._place(b, row, column) for column in range(len(self.columns))]

            lines = [b.add(b.mul(r, I64(self.planes)), I64(plane)) for plane in range(self.planes)]
            row = [load_at(b, self.acc, place, self.isa.acc_type) for line in lines for place in places(line)]
            for place, y in zip(places(r), self._of_row(b, self.kinds[-1], segment, row, r)):
                self._add(b, place, y)
            return []

        loop(b, I64(0), I64(self.rows), 1, [], one_row)

    def add(self, b: ir.IRBuilder, segment: Any, accs: list[Any]) -> None:
        """Add a segment's values to the sums in memory."""

        def of_kind(kind: Kind) -> None:
            if kind == self.kinds[-1]:
                self.add_any(b, segment, accs)
            else:
                for i, y in enumerate(self.values(b, kind, segment, accs)):
                    self._add(b, self._place(b, I64(i // len(self.columns)), i % len(self.columns)), y)

        choose(b, self.kinds, self.kind, of_kind)

    def added(self, b: ir.IRBuilder, totals: list[Any], segment: Any, accs: list[Any]) -> list[Any]:
        """The sums, which are in registers, with a segment's values."""

        def of_kind(kind: Kind) -> list[Any]:
            if kind != self.kinds[-1]:
                return [b.fadd(total, y) for total, y in zip(totals, self.values(b, kind, segment, accs))]
            self.store(b, totals, self.sums)
            self.add_any(b, segment, accs)
            places = (self._place(b, I64(r), c) for r in range(self.rows) for c in range(len(self.columns)))
            return [load_at(b, self.sums, place, totals[0].type) for place in places]

        return choose(b, self.kinds, self.kind, of_kind)

    def store(self, b: ir.IRBuilder, values: list[Any], place: Any) -> None:
        """Store accumulators or sums."""
        store(b, self.isa, values, len(values) // len(self.columns), place, self.pitch, self.first)

    def _of_row(self, b: ir.IRBuilder, kind: Kind, segment: Any, accs: list[Any], r: Any) -> list[Any]:
        row = b.add(self.row, r)
        # Rows beyond the last have accumulators, but no parameters.
        row = b.select(b.icmp_signed("<", row, self.last), row, self.last)
        return self.terms.of_row(b, kind, accs, row, self.columns, segment)

    def _place(self, b: ir.IRBuilder, r: Any, column: int) -> Any:
        return b.add(b.mul(r, I64(self.pitch)), I64(self.first + column * self.isa.lanes))

    def _add(self, b: ir.IRBuilder, place: Any, y: Any) -> None:
        store_vector(b, b.fadd(load_at(b, self.sums, place, y.type), y), b.gep(self.sums, [place]))


def dense_sums(isa: MicroKernel, shapes: tuple[Shape, ...], pitch: int, output: Output) -> Any:
    """Micro-kernel over 8-bit right tiles.

    ``micro(job, a, b, block_stride, row, block, acc, sums, shape)``: `shape` is an index into `shapes`; the sums of its
    accumulators, which belong to `row` and `block` of the output, go to `sums`, with `pitch` per row. They lie there
    from the first segment on, since accumulators take the registers. `acc` is scratch for as many accumulators.
    """
    name = f"fastq_dense_sums_{isa.tag}_{output.tag}_{pitch}_" + "_".join("x".join(map(str, s)) for s in shapes)

    def emit(b, job, a, w, block_stride, row, block, acc, sums, index):
        def one_pass(shape, parts):
            segments = Segments(b, isa, job, output, shape, parts, pitch, (row, block, acc, sums))
            tiles = DenseTiles(isa, shape, parts, a, w, block_stride)
            segments.store(b, segments.zeros, segments.sums)

            def one(g, _):
                first = b.mul(g, segments.size)
                last = b.add(first, segments.size)
                last = b.select(b.icmp_signed("<", last, segments.steps), last, segments.steps)
                segments.add(b, g, tiles.summed(b, first, last, SHORT))
                return []

            loop(b, I64(0), segments.count, 1, [], one)

        def variant(shape):
            for parts in passes(isa, shape):
                one_pass(shape, parts)

        choose(b, shapes, index, variant)

    kinds = (MatmulJob, "u8*", "u8*", "int", "int", "int", "i32*", "u8*", "int")
    return ir_function(name, kinds, isa.target, emit)


def packed_sums(isa: MicroKernel, form: TileFormat, shapes: tuple[Shape, ...], pitch: int, output: Output) -> Any:
    """Micro-kernel over packed tiles of one column block, for segments of whole tiles or of half a tile.

    ``micro(job, a, tiles, block, acc, sums, shape)``, from row 0 on; the rest as in :func:`dense_sums`. Codes are
    unpacked in registers, where the sums are, too.
    """
    name = f"fastq_packed_sums_{isa.tag}_{form.tag}_{output.tag}_{pitch}_" + "_".join(
        f"{s.rows}x{s.chains}" for s in shapes
    )

    def emit(b, job, a, packed_tiles, block, acc, sums, index):
        def variant(shape):
            places = I64(0), block, acc, sums
            segments = Segments(b, isa, job, output, shape, range(isa.parts), pitch, places)
            tiles = Tiles(isa, form, packed_tiles, None, None)
            zeros = isa.zeros(shape.rows, isa.parts)

            def products(t, accs, steps):
                if steps.start == 0:
                    tiles.fetch(b, t)
                sets = [accs] + [zeros] * (shape.chains - 1)
                return fold(b, multiplied(b, isa, shape.rows, a, t, partial(tiles.rows, b, t), sets, steps))

            def whole(g, totals):
                per, all_tiles = b.lshr(segments.size, I64(4)), b.lshr(b.add(segments.steps, I64(STEPS - 1)), I64(4))
                first = b.mul(g, per)
                last = b.add(first, per)
                last = b.select(b.icmp_signed("<", last, all_tiles), last, all_tiles)
                accs = loop(b, first, last, 1, zeros, lambda t, accs: products(t, accs, range(STEPS)))
                return segments.added(b, totals, g, isa.finalize(b, accs, shape.rows))

            def halves(t, totals):
                for half in range(2):
                    g = b.add(b.shl(t, I64(1)), I64(half))

                    def add(g=g, half=half, totals=totals):
                        steps = range(half * SHORT, (half + 1) * SHORT)
                        accs = isa.finalize(b, products(t, zeros, steps), shape.rows)
                        return segments.added(b, totals, g, accs)

                    # The last tile may hold one segment only.
                    totals = replaced_if(b, b.icmp_signed("<", g, segments.count), totals, add) if half else add()
                return totals

            def over(count: Any, body: Callable[..., list[Any]]) -> list[Any]:
                return loop(b, I64(0), count, 1, segments.zeros, body)

            is_half = b.icmp_signed("==", segments.size, I64(SHORT))
            pairs = b.lshr(b.add(segments.count, I64(1)), I64(1))
            totals = either(b, is_half, lambda: over(pairs, halves), lambda: over(segments.count, whole))
            segments.store(b, totals, segments.sums)

        choose(b, shapes, index, variant)

    return ir_function(name, (MatmulJob, "u8*", "u8*", "int", "i32*", "u8*", "int"), isa.target, emit)
