"""AMX: products over several segments of K, whose sums are scaled and added up as floats.

Tiles cannot scale sums. So a segment's sums, of 32 rows x 32 columns, are stored to 4 KiB in the L1 cache. The vector
units make floats of them and add these to the sums of the segments before (:mod:`fastq.kernels.epilogue.terms`), which
lie in L1, too. They do so between the products of the next segment: the core looks 512 instructions ahead, and the rows
of a segment are more than that.

    tiles      store g; products of segment g + 1 . . . . . . . . .   store g + 1; products of g + 2 . . .
    vectors             some rows of g, in turns with the products             some rows of g + 1 . . .

Accumulators are stored where the next segment begins, not where theirs ends, since a product takes 52 cycles.

A segment is a number of *pieces*: as many steps of K as divide both the segment and a tile, which is 16 steps for
groups of 64 or 128 k, and 8 for those of 32. Tiles are configured so deep. A product takes 16 cycles, however deep it
is. So long segments of an odd number of steps, which are rare, take more than they would with AVX512-VNNI: those of
100 k about a quarter, by the same count.

Cycles per segment of 32 x 32, counted, not measured (one store of 64 bytes per cycle, two vector ports; what llvm-mca
14 makes of the rows' loops for sapphirerapids is within a sixth of it: 152, 175, 243):

===========================================  =====  ====  ====
k per segment                                128    64    32
===========================================  =====  ====  ====
products                                     128    64    64
stores of accumulators and sums              128    128   128
vectors, symmetric: 9 per row of the output  144    144   144
zero points: 13                              208    208   208
offsets: 16                                  256    256   256
===========================================  =====  ====  ====

If all that runs side by side, 128 k take 144 cycles at least in one segment, and 576 in four. The kernel of AVX512-VNNI
takes 1024 for the products alone, and ``amx.gemm``, which has one segment, 280 to 310 as measured: it waits for
operands from L2 most of the time, and so will this.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.dot.amx import PITCH, ROWS, TILE, Amx
from fastq.kernels.dot.micro import Shape, choose
from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.epilogue.terms import Kind, Lanes, Terms, usual_kinds
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK, ROW_BYTES, STEP, STEPS, TILE_ROWS
from fastq.machine.ir import I8, I32, I64, field, filled, ir_function, load_at, loop, store_vector

PAIR = range(2)  # of row groups, and of column blocks


def amx_sums(isa: Amx, shapes: tuple[Shape, ...], pitch: int, output: Output) -> Any:
    """Micro-kernel over 8-bit right tiles, as :func:`fastq.kernels.dot.segments.dense_sums` says.

    ``micro(job, a, b, block_stride, row, block, acc, sums, shape)``. At the edge it works on one row group, or one
    block of columns, twice.
    """
    places = [(g, c) for g in PAIR for c in PAIR]

    def emit(b, job, a, w, block_stride, row, block, acc, sums, index):
        def at_most(value: Any, limit: Any) -> Any:
            return b.select(b.icmp_signed("<", value, limit), value, limit)

        for scratch in (acc, sums):  # so that loads of parameters need not be repeated after each store
            scratch.add_attribute("noalias")
        terms, kinds, planes = Terms(b, job, output), usual_kinds(output), output.planes
        count, size, steps, m = (field(b, MatmulJob, job, name) for name in ("segments", "segment_steps", "steps", "m"))
        sums = b.bitcast(sums, terms.type.as_pointer())
        columns = [Lanes(block), Lanes(b.add(block, index))]
        left_stride = b.mul(b.lshr(b.add(steps, I64(STEPS - 1)), I64(4)), I64(TILE))
        lines = at_most(b.sub(m, row), I64(ROWS))
        left_stride = b.select(b.icmp_signed(">", lines, I64(TILE_ROWS)), left_stride, I64(0))
        right_stride = b.mul(block_stride, index)
        first_row, rows = (b.sdiv(value, I64(planes)) for value in (row, lines))

        piece = at_most(b.and_(size, b.neg(size)), I64(STEPS))
        per_segment, pieces = b.udiv(size, piece), b.udiv(b.add(steps, b.sub(piece, I64(1))), piece)
        # Rows after each pair of products, so that the last ones come after the last pair.
        share = b.udiv(b.add(I64(ROWS // planes - 1), b.shl(per_segment, I64(1))), b.shl(per_segment, I64(1)))
        isa.configure(b, piece)

        def add_rows(kind: Kind, segment: Any, first: Any, last: Any) -> None:
            def one_row(r: Any, _: Any) -> list[Any]:
                starts = [b.mul(b.add(b.mul(r, I64(planes)), I64(plane)), I64(PITCH)) for plane in range(planes)]
                accs = [
                    load_at(b, acc, b.add(start, I64(c * BLOCK)), ir.VectorType(I32, BLOCK))
                    for start in starts
                    for c in PAIR
                ]
                values = terms.of_row(b, kind, accs, b.add(first_row, r), columns, segment)
                for c, y in enumerate(values):
                    place = b.add(b.mul(r, I64(PITCH)), I64(c * BLOCK))
                    store_vector(b, b.fadd(load_at(b, sums, place, y.type), y), b.gep(sums, [place]))
                return []

            loop(b, first, last, 1, [], one_row)

        def clear(r: Any, _: Any) -> list[Any]:
            for c in PAIR:  # -0.0 + y is y, whatever y is
                zeros = filled(ir.VectorType(terms.type, BLOCK), -0.0)
                store_vector(b, zeros, b.gep(sums, [b.add(b.mul(r, I64(PITCH)), I64(c * BLOCK))]))
            return []

        def products(kind: Kind) -> None:
            between = kind != kinds[-1]  # code for any product is large, and stands here once

            def one_segment(g: Any, _: Any) -> list[Any]:
                before = b.sub(g, I64(1))
                finished = b.select(b.icmp_signed(">", g, I64(0)), rows, I64(0))
                isa.move(b, "tilestored64", acc, places)
                for number in range(4):
                    isa.op(b, "tilezero", I8(number))

                def one_piece(p: Any, carried: list[Any]) -> list[Any]:
                    (r,) = carried
                    step = b.mul(p, piece)
                    inside = b.mul(b.and_(step, I64(STEPS - 1)), I64(STEP))
                    left = b.gep(a, [b.add(b.mul(b.lshr(step, I64(4)), I64(TILE)), inside)])
                    right = b.gep(w, [b.mul(step, I64(ROW_BYTES))])
                    for i in PAIR:
                        for tile, base, stride in ((4 + i, left, left_stride), (6 + i, right, right_stride)):
                            isa.op(b, "tileloadd64", I8(tile), b.gep(base, [b.mul(stride, I64(i))]), I64(ROW_BYTES))
                    for i in PAIR:
                        for c in PAIR:
                            isa.op(b, "tdpbsud", I8(2 * i + c), I8(4 + i), I8(6 + c))
                        if between:
                            last = at_most(b.add(r, share), finished)
                            add_rows(kind, before, r, last)
                            r = last
                    return [r]

                first = b.mul(g, per_segment)
                last = at_most(b.add(first, per_segment), pieces)  # none, behind the last segment
                (r,) = loop(b, first, last, 1, [I64(0)], one_piece)
                add_rows(kind, before, r, finished)
                return []

            loop(b, I64(0), b.add(count, I64(1)), 1, [], one_segment)

        loop(b, I64(0), rows, 1, [], clear)
        choose(b, kinds, terms.which(b, kinds), products)
        isa.op(b, "tilerelease")

    kinds = (MatmulJob, "u8*", "u8*", "int", "int", "int", "i32*", "u8*", "int")
    return ir_function(f"fastq_amx_sums_{output.tag}", kinds, isa.target, emit)
