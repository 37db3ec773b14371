"""The micro-kernel for few rows over low-bit tiles: codes are unpacked in registers, and meet the rows there.

Codes under integer group scales are multiplied as ``factor * u + shift``. Where groups consist of whole tiles, that is
done to the sums of a tile rather than to its codes ::

    sum over k of left * (factor * u + shift) = factor * (sum over k of left * u) + shift * (sum over k of left)

with the sums of left codes computed once per call. A tile then costs one instruction more per accumulator, and four
per register of columns; scaling its codes would take 32. A product of 1 x 4096 x 4096 at 3 bits, groups of 64, takes
1.09 to 1.13 times as long as without groups; with scaled codes it took 1.28 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from fastq.kernels.dot.micro import MicroKernel, Sets, Shape, choose, fold, left_offset, left_pointer, split, store
from fastq.kernels.dot.unpack import Groups, Tiles, by_group_size
from fastq.layout.tiles import DEPTH, ROW_BYTES, STEPS, TILE_ROWS, TileFormat
from fastq.machine.ir import I32, I64, declare, ir_function, load_vector, loop, splat


def packed(isa: MicroKernel, form: TileFormat, shapes: tuple[Shape, ...], pitch: int) -> Any:
    """Micro-kernel over whole packed tiles of one column block.

    ``micro(a, tiles, first_tile, last_tile, acc, shape, groups, quarters, sums)``; where there are groups, `sums` are
    those of :func:`tile_sums`.
    """
    name = f"fastq_packed_{isa.tag}_{form.tag}_{pitch}_" + "_".join(f"{s.rows}x{s.chains}" for s in shapes)
    zero = ir.Constant(isa.acc_type, None)

    def abreast(shape):
        """Whether codes of all columns are unpacked step by step: they live shortly then, if bits lie in one plane.

        Four rows of 4 bits take 389 instructions per tile so, of which none spills, and 442 with 42 spills the other
        way (neon_i8mm). With two planes, or with more accumulators, there are more spills.
        """
        accumulators = shape.rows * isa.parts * isa.grids
        return isa.row_by_row and form.bits in (2, 4) and not form.grouped and accumulators <= 16

    def emit(b, a, packed_tiles, first, last, out, index, groups, quarters, sums):
        tiles = Tiles(isa, form, packed_tiles, first, last)

        def directly(shape, each):
            def one_tile(t, rows, accs):
                tiles.fetch(b, t)
                sets = multiplied(b, isa, shape.rows, a, t, rows, split(accs, shape.chains), abreast=abreast(shape))
                return [acc for accs in sets for acc in accs]

            zeros = isa.zeros(shape.rows, isa.parts) * shape.chains
            accs = fold(b, split(each(b, (groups, quarters), zeros, one_tile), shape.chains))
            return isa.finalize(b, accs, shape.rows)

        def scaled_tiles(b, groups, carried, body):
            return tiles.each_scaled(b, groups, carried, body, whole=False)

        def by_sums(shape):
            """Sums of tiles times their factors."""
            chains, narrow = 2, isa.narrow
            passing = Groups(b, isa, groups, quarters, first)
            # A chain's 32 products of a left code and one of up to 3 bits fit int16.
            small = form.bits <= 3

            def one(t, values):
                tiles.fetch(b, t)
                states, totals = passing.in_tile(b, values[:2], True), list(values[2:])
                rows, zeros = partial(tiles.rows, b, t), [narrow.zeros(shape.rows, isa.parts)] * chains
                sets = multiplied(b, narrow, shape.rows, a, t, rows, zeros)
                sets = [narrow.finalize(b, accs, shape.rows) for accs in (sets if small else [fold(b, sets)])]
                for part in range(isa.parts):
                    factor, shift = passing.lanes(b, states[0], part)
                    for row in range(shape.rows):
                        i = row * isa.parts + part
                        place = b.gep(sums, [b.add(b.mul(t, I64(isa.few)), I64(row))])
                        total = isa.scaled(b, totals[i], splat(b, b.load(place), isa.lanes), shift, True)
                        for accs in sets:
                            total = isa.scaled(b, total, accs[i], factor, small)
                        totals[i] = total
                return states[-1] + totals

            return loop(b, first, last, 1, passing.start + [zero] * (shape.rows * isa.parts), one)[2:]

        def variant(shape):
            def by_kind(whole):
                return by_sums(shape) if whole else directly(shape, scaled_tiles)

            results = by_group_size(b, quarters, by_kind) if form.grouped else directly(shape, tiles.each)
            store(b, isa, results, shape.rows, out, pitch)

        choose(b, shapes, index, variant)

    kinds = ("u8*", "u8*", "int", "int", "i32*", "int", "u8*", "int", "i32*")
    return ir_function(name, kinds, isa.target, emit)


def multiplied(
    b: ir.IRBuilder,
    isa: MicroKernel,
    rows: int,
    left: Any,
    tile: Any,
    codes: Callable[[int], Sequence[Any]],
    sets: Sets,
    steps: range = range(STEPS),
    abreast: bool = False,
) -> Sets:
    """Add the products of some steps of a tile to the accumulators; ``codes(part)`` are the rows of the right tile.

    Part after part, or step after step with all parts `abreast`.
    """
    sets = [list(accs) for accs in sets]
    base = left_pointer(b, isa, left, b.shl(tile, I64(4)))

    def left_codes(row: int, step: int) -> Any:
        return b.gep(base, [left_offset(isa, row, steps[step])])

    if abreast:
        parts = [codes(part) for part in range(isa.parts)]
        return isa.multiply(b, sets, rows, len(steps), left_codes, lambda step: [part[steps[step]] for part in parts])
    for part in range(isa.parts):
        of_part, right = slice(part, None, isa.parts), codes(part)
        here = [accs[of_part] for accs in sets]
        results = isa.multiply(b, here, rows, len(steps), left_codes, lambda step, right=right: [right[steps[step]]])
        for accs, result in zip(sets, results):
            accs[of_part] = result
    return sets


def tile_sums(isa: MicroKernel) -> Any:
    """``tile_sums(a, rows, tiles, sums)``: sums of each row's left codes in each tile, ``[tiles][isa.few]`` int32."""
    codes = ir.VectorType(ir.IntType(8 * isa.left_bytes), DEPTH)
    wide = ir.VectorType(I32, DEPTH)

    def emit(b, a, rows, tiles, sums):
        reduce = declare(b, f"llvm.vector.reduce.add.v{DEPTH}i32", I32, [wide])

        def one_tile(t, _):
            def one_row(r, _):
                place = b.add(b.mul(t, I64(TILE_ROWS)), r)
                values = load_vector(b, b.gep(a, [b.mul(place, I64(ROW_BYTES * isa.left_bytes))]), codes)
                b.store(b.call(reduce, [b.sext(values, wide)]), b.gep(sums, [b.add(b.mul(t, I64(isa.few)), r)]))
                return []

            return loop(b, I64(0), rows, 1, [], one_row)

        loop(b, I64(0), tiles, 1, [], one_tile)

    return ir_function(f"fastq_tile_sums_{isa.tag}", ("u8*", "int", "int", "i32*"), isa.target, emit)
