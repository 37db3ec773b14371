"""ARM: NEON with dot products of mixed signs (Armv8.6), of equal signs (Armv8.2), and without any.

``usdot`` is what is wanted: unsigned times signed bytes, four products per lane. ``sdot`` and ``smull`` take signed
bytes alone. Codes of at most 7 bits are both. Of 8-bit codes 128 is taken off, by their highest bit ::

    sum of left * u = sum of left * (u - 128) + 128 * sum of left

and the sums of left codes are added up beside the products. (What the left tile holds counts, not the sums of rows that
come with it: between segments it holds anything, and a right code of 0 is -128 here.) A step of the register block,
four rows and 16 columns, takes 16 dot products; the sums take one per row and four steps. Added up by themselves, they
would take as many, and loads of their own. Flipping the highest bits takes 4 instructions more per step. So many rows
of one segment meet copies of tiles, where they are flipped.

A dot product takes its left codes from a lane of a register: four steps of a row are one load. With a load per step
(``ld1r``) the block takes 420 instructions per 64 k, with lanes 301 (usdot; LLVM 22). 8 x 8 takes 305 and spills,
6 x 16 and 8 x 16 spill more. The block of ``sdot`` with sums takes 381, over copies 317.

How LLVM orders and spills depends on the CPU that it believes to compile for. What is stated is the one, without SVE,
whose code is best: Neoverse N1 spills nothing in the block of ``sdot`` with sums, Cortex-A76 6 registers, and the 3-bit
block of four rows takes 699 instructions, with "generic" 812. ``smull`` takes 638 for Cortex-A72 and 724 for "generic".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.kernels.dot.micro import MicroKernel, Sets, Shape
from fastq.kernels.table import Unit
from fastq.layout.tiles import ROW_BYTES, STEPS
from fastq.machine.ir import I8, I32, Target, declare, filled, load_vector, splat

BYTES, WORDS, INTS, LONGS = (ir.VectorType(ir.IntType(bits), 128 // bits) for bits in (8, 16, 32, 64))
QUAD = 4  # steps in a register of left codes
_HIGHEST = filled(BYTES, 0x80)


def _call(b: ir.IRBuilder, name: str, *args: Any, to: ir.Type = INTS) -> Any:
    return b.call(declare(b, f"llvm.aarch64.neon.{name}", to, [a.type for a in args]), args)


def _picked(b: ir.IRBuilder, first: Any, second: Any, lanes: list[int]) -> Any:
    """Some lanes of two registers, one after the other."""
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


class _Neon(MicroKernel):
    """What the rows share. Right codes come in as many registers as there are grids of accumulators."""

    width = 16
    # A tile of 3 bits and one row take 385 instructions; unpacked all at once, 406, of which 14 for spills.
    row_by_row = True
    gemv_shapes = (Shape(1, 1, 2), Shape(2, 1, 1), Shape(4, 1, 1))

    def right(self, b: ir.IRBuilder, row: Any) -> list[Any]:
        return [row]

    def lane(self, b: ir.IRBuilder, codes: Any, step: int) -> Any:
        """The codes of one of four steps, as often as `product` takes them."""
        return b.bitcast(_picked(b, codes, codes, [step] * 4), BYTES)

    def passed(self, b: ir.IRBuilder, accs: list[Any], left: list[Any]) -> None:
        """What becomes of four steps of left codes, a register per row, apart from the products."""

    def multiply(
        self, b: ir.IRBuilder, sets: Sets, rows: int, steps: int, left: Callable[..., Any], right: Callable[..., Any]
    ) -> Sets:
        sets = [list(accs) for accs in sets]
        for first in range(0, steps, QUAD):
            few = min(QUAD, steps - first)
            codes = [_quad(b, left(row, first), few) for row in range(rows)]
            self.passed(b, sets[0], codes)
            for step in range(few):
                accs = sets[(first + step) % len(sets)]
                registers = list(right(first + step))
                lanes = [self.lane(b, of_row, step) for of_row in codes]
                # A register of right codes meets all rows before the next one is needed.
                for column, register in enumerate(registers):
                    for grid, other in enumerate(self.right(b, register)):
                        for row, here in enumerate(lanes):
                            i = (grid * rows + row) * len(registers) + column
                            accs[i] = self.product(b, accs[i], here, other)
        return sets


def _quad(b: ir.IRBuilder, place: Any, steps: int) -> Any:
    """Left codes of four steps, or of one, beside which there are zeros: beyond it the buffer may end."""
    if steps == QUAD:
        return load_vector(b, place, INTS)
    return b.insert_element(ir.Constant(INTS, None), load_vector(b, place, I32), I32(0))


class NeonI8mm(_Neon):
    """``usdot`` (Graviton 3, Neoverse N2 and V1, Apple M2, Snapdragon X, and later ones)."""

    target = Target("neoverse-n1", "+dotprod,+i8mm")

    def product(self, b, acc, left, right):
        return _call(b, "usdot.v4i32.v16i8", acc, right, left)

    @property
    def on_copies(self) -> MicroKernel:
        return NeonMmla(self.unit)


class NeonMmla(MicroKernel):
    """``usmmla`` for many rows, in tiles that are copied for it (with or without unpacking codes).

    An instruction multiplies 2 columns by 2 rows, 8 k each, and does twice the work of a dot product. Two steps of a
    column lie side by side for it: a register of a copied tile has 2 columns, so two steps are the registers of columns
    0 and 1, 2 and 3, and so on. Left codes are paired in registers. A tile takes 189 instructions, of which 128 are
    products, and spills nothing, where ``usdot`` takes 301; copying it takes 213, once for all rows. Zipping right
    codes beside the products, tiles being read as they lie, would take 64 more in each block of four rows.
    """

    target = Target("cortex-a76", "+dotprod,+i8mm")  # for Neoverse N1 LLVM spills a register
    width = 16
    whole_tiles = True

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit)
        self.tag += "_zipped"

    def copied(self, b, rows, part):
        for step in range(0, STEPS, 2):
            two = [b.bitcast(rows[step + i], INTS) for i in range(2)]
            for i, lanes in enumerate(([0, 4, 1, 5], [2, 6, 3, 7])):
                yield step * ROW_BYTES + (2 * part + i) * self.width, _picked(b, two[0], two[1], lanes)

    def multiply(self, b, sets, rows, steps, left, right):
        accs = list(sets[0])
        per_pair = 2 * self.parts  # registers that hold two steps of all columns
        for first in range(0, steps, QUAD):
            codes = [load_vector(b, left(row, first), LONGS) for row in range(rows)]
            for half in range(2):
                step, lanes = first + 2 * half, [half, 2 + half]
                pairs = [b.bitcast(_picked(b, codes[r], codes[r + 1], lanes), BYTES) for r in range(0, rows, 2)]
                for column, register in enumerate([*right(step), *right(step + 1)]):
                    for pair, here in enumerate(pairs):
                        i = pair * per_pair + column
                        accs[i] = _call(b, "usmmla.v4i32.v16i8", accs[i], register, here)
        return [accs]

    def finalize(self, b, accs, rows):
        size, results = 2 * self.parts, list[Any]()
        for first in range(0, len(accs), size):
            for row in range(2):
                lanes = [row, 2 + row, 4 + row, 6 + row]
                results += [_picked(b, accs[i], accs[i + 1], lanes) for i in range(first, first + size, 2)]
        return results


class NeonDotNarrow(_Neon):
    """``sdot`` for codes of at most 7 bits (Graviton 2, Ampere Altra, Apple M1, Cortex-A76)."""

    target = Target("neoverse-n1", "+dotprod")

    def product(self, b, acc, left, right):
        return _call(b, "sdot.v4i32.v16i8", acc, right, left)

    def added(self, b: ir.IRBuilder, total: Any, codes: Any) -> Any:
        """``total`` plus `worth` times the codes of a register, in whatever lanes."""
        return _call(b, "sdot.v4i32.v16i8", total, codes, _HIGHEST)


class NeonNarrow(_Neon):
    """``smull`` and ``sadalp`` for codes of at most 7 bits, on any ARM of 64 bits (Cortex-A72, Graviton 1).

    Two products make one lane, so there are two grids of accumulators, for the halves of each register of columns.
    """

    target = Target("cortex-a72", "+neon")
    grids = 2
    gemm_passes = 2
    gemv_shapes = (Shape(1, 1, 1), Shape(2, 1, 1), Shape(4, 1, 1, 2))

    def lane(self, b, codes, step):
        return b.bitcast(_picked(b, codes, codes, [step] * 2), ir.VectorType(I8, 8))

    def right(self, b, row):
        return [_picked(b, row, row, list(range(half, half + 8))) for half in (0, 8)]

    def product(self, b, acc, left, right):
        products = _call(b, "smull.v8i16", right, left, to=WORDS)
        return b.add(acc, _call(b, "saddlp.v4i32.v8i16", products))

    def finalize(self, b, accs, rows):
        half = len(accs) // 2
        return [_call(b, "addp.v4i32", low, high) for low, high in zip(accs[:half], accs[half:])]

    def added(self, b: ir.IRBuilder, total: Any, codes: Any) -> Any:
        """``total`` plus `worth` times the codes of a register, in whatever lanes."""
        pairs = _call(b, "saddlp.v8i16.v16i8", codes, to=WORDS)
        return b.add(total, _call(b, "saddlp.v4i32.v8i16", pairs))


class _Flipped(_Neon):
    """Codes of 8 bits, less 128. One more grid has the sums of left codes, of each row in its first column.

    Many rows meet copies of tiles, in which the highest bits are flipped already.
    """

    added: Callable[..., Any]
    worth: int  # of a left code in these sums
    unflipped: type[_Neon]

    def __init__(self, unit: Unit, flipped: bool = False) -> None:
        super().__init__(unit)
        self.flipped = flipped  # tiles are such copies
        self.tag += "_flipped" * flipped

    @property
    def on_copies(self) -> MicroKernel | None:
        return None if self.flipped else type(self)(self.unit, flipped=True)

    def copied(self, b, rows, part):
        for place, row in super().copied(b, rows, part):
            yield place, b.xor(row, _HIGHEST) if self.flipped else row

    @property
    def narrow(self) -> MicroKernel:
        return self.unflipped(self.unit)

    def right(self, b, row):
        return super().right(b, row if self.flipped else b.xor(row, _HIGHEST))

    def passed(self, b, accs, left):
        first = len(accs) // self.grids * (self.grids - 1)
        for row, codes in enumerate(left):
            i = first + row * (len(accs) - first) // len(left)
            accs[i] = self.added(b, accs[i], b.bitcast(codes, BYTES))

    def finalize(self, b, accs, rows):
        first = len(accs) // self.grids * (self.grids - 1)
        sums = accs[first:]
        results = super().finalize(b, accs[:first], rows)
        per_row = len(sums) // rows
        reduce = declare(b, "llvm.vector.reduce.add.v4i32", I32, [INTS])
        for row in range(rows):
            total = b.mul(b.call(reduce, [sums[row * per_row]]), I32(128 // self.worth))
            for i in range(row * per_row, (row + 1) * per_row):
                results[i] = b.add(results[i], splat(b, total, self.lanes))
        return results


class NeonDot(_Flipped, NeonDotNarrow):
    """``sdot`` for all codes."""

    grids = 2
    worth = -128  # so the register of highest bits serves here, too
    unflipped = NeonDotNarrow


class Neon(_Flipped, NeonNarrow):
    """``smull`` and ``sadalp`` for all codes."""

    grids = 3
    worth = 1
    unflipped = NeonNarrow
