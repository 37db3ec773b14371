"""The micro-kernel for few rows over low-bit tiles: codes are unpacked in registers, and meet the rows there.

Codes under integer group scales are multiplied as ``factor * u + shift``. Where groups consist of whole tiles, that is
done to the sums of a tile rather than to its codes ::

    sum over k of left * (factor * u + shift) = factor * (sum over k of left * u) + shift * (sum over k of left)

with the sums of left codes worked out once per call. A tile then costs one
instruction more per accumulator, and four per register of columns, where scaling its codes takes 32: 1 x 4096 x 4096 at
3 bits, groups of 64, takes 1.09 to 1.13 times as long as without groups, and 1.28 times the other way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.micro import Isa, Shape, choose, fold, left_offset, left_pointer, store
from fastq.kernels.unpack import Groups, Tiles, by_group_size
from fastq.layout.tiles import BLOCK, DEPTH, ROW_BYTES, TILE_ROWS, Form
from fastq.machine.dialect import I8, I16, I32, I64, declare, ir_function, load_vector, loop, splat

MOST_ROWS = 8


def packed(isa: Isa, form: Form, shapes: tuple[Shape, ...], pitch: int) -> Any:
    """Micro-kernel over whole packed tiles of one column block.

    ``micro(a, tiles, first_tile, last_tile, acc, shape, groups, quarters, sums)``; where there are groups, `sums` are
    those that :func:`tile_sums` finds.
    """
    name = f"fastq_packed_{isa.tag}_{form.tag}_{pitch}_" + "_".join(f"{s.rows}x{s.chains}" for s in shapes)
    zero = ir.Constant(isa.acc_type, None)

    def emit(b, a, packed_tiles, first, last, out, index, groups, quarters, sums):
        tiles = Tiles(isa, form, packed_tiles, first, last)

        def multiplied(t, rows, accs, shape, chains):
            """Add a tile's products to the accumulators."""
            accs, size = list(accs), shape.rows * isa.parts
            base = left_pointer(b, isa, a, b.shl(t, I64(4)))
            for part in range(isa.parts):
                for step, codes in enumerate(rows(part)):
                    right = isa.right(b, codes)
                    for row in range(shape.rows):
                        left = isa.left(b, b.gep(base, [left_offset(isa, row, step)]))
                        i = step % chains * size + row * isa.parts + part
                        accs[i] = isa.product(b, accs[i], left, right)
            return accs

        def directly(shape, each):
            size = shape.rows * isa.parts

            def one_tile(t, rows, accs):
                return multiplied(t, rows, accs, shape, shape.chains)

            return fold(b, each(b, (groups, quarters), [zero] * (size * shape.chains), one_tile), size)

        def scaled_tiles(b, groups, carried, body):
            return tiles.each_scaled(b, groups, carried, body, whole=False)

        def by_sums(shape):
            """Sums of tiles times their factors."""
            size, chains = shape.rows * isa.parts, 2
            passing = Groups(b, isa, groups, quarters, first)
            # A chain's 32 products of a left code and one of up to 3 bits fit int16.
            small = form.bits <= 3

            def one(t, values):
                states, totals = passing.in_tile(b, values[:2], True), list(values[2:])
                accs = multiplied(t, lambda part: tiles.rows(b, t, part), [zero] * (size * chains), shape, chains)
                if not small:
                    accs = fold(b, accs, size)
                for part in range(isa.parts):
                    factor, shift = passing.lanes(b, states[0], part)
                    for row in range(shape.rows):
                        i = row * isa.parts + part
                        place = b.gep(sums, [b.add(b.mul(t, I64(MOST_ROWS)), I64(row))])
                        total = isa.scaled(b, totals[i], splat(b, b.load(place), isa.lanes), shift, True)
                        for acc in accs[i::size]:
                            total = isa.scaled(b, total, acc, factor, small)
                        totals[i] = total
                return states[-1] + totals

            return loop(b, first, last, 1, passing.start + [zero] * size, one)[2:]

        def variant(shape):
            def by_kind(whole):
                return by_sums(shape) if whole else directly(shape, scaled_tiles)

            results = by_group_size(b, quarters, by_kind) if form.grouped else directly(shape, tiles.each)
            store(b, isa, results, BLOCK, out, pitch)

        choose(b, shapes, index, variant)

    kinds = ("u8*", "u8*", "int", "int", "i32*", "int", "u8*", "int", "i32*")
    return ir_function(name, kinds, isa.target, emit)


def tile_sums(isa: Isa) -> Any:
    """``tile_sums(a, rows, tiles, sums)``: sums of each row's left codes in each tile, ``[tiles][MOST_ROWS]`` int32."""
    codes = ir.VectorType(I16 if isa.left_bytes == 2 else I8, DEPTH)
    wide = ir.VectorType(I32, DEPTH)

    def emit(b, a, rows, tiles, sums):
        reduce = declare(b, f"llvm.vector.reduce.add.v{DEPTH}i32", I32, [wide])

        def one_tile(t, _):
            def one_row(r, _):
                place = b.add(b.mul(t, I64(TILE_ROWS)), r)
                values = load_vector(b, b.gep(a, [b.mul(place, I64(ROW_BYTES * isa.left_bytes))]), codes)
                b.store(b.call(reduce, [b.sext(values, wide)]), b.gep(sums, [b.add(b.mul(t, I64(MOST_ROWS)), r)]))
                return []

            return loop(b, I64(0), rows, 1, [], one_row)

        loop(b, I64(0), tiles, 1, [], one_tile)

    return ir_function(f"fastq_tile_sums_{isa.tag}", ("u8*", "int", "int", "i32*"), isa.target, emit)
