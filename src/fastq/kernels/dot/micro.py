"""Micro-kernels: the whole k-loop over one register block, emitted as LLVM IR.

    acc[r, c] = sum over k of left[r, k] * right[k, c]        r < rows, c < 16 * blocks, int32 modulo 2**32

The left operand is signed, the right one unsigned (codes are stored relative to the lowest code; the epilogue undoes
the shift), so that one instruction of each instruction set serves every combination of signs.

:class:`MicroKernel` has all that instruction sets may differ in. The loops, the accumulators and the unpacking of
low-bit weights are here, once. "Step" means four consecutive k: one row of 64 bytes of an 8-bit right tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from fastq.kernels.table import Unit
from fastq.layout.tiles import ROW_BYTES, STEP, STEPS, TILE_ROWS
from fastq.machine.cpu import CACHE_LINE
from fastq.machine.ir import HOST, I8, I32, I64, ir_function, joined, load_vector, loop, prefetch, splat, store_vector

# Steps per turn of the k-loop. With few, the scalar instructions of addresses and counters take ports away from the
# multiplications: avx512vnni, 2048**3 on one core, 67 % of the register-resident peak with 1, 73 % with 4,
# 75 % with 16.
# Prefetching the right tiles 0.5 to 4 KiB ahead changes nothing; a block of 16 x 16 reaches 49 %, one of 4 x 96 65 %.
BURST = 16

# Bytes between a right tile that passes by once, and the one that is fetched meanwhile. The CPU's own prefetching ends
# with each page, and unpacking leaves room for few loads in flight. Milliseconds of one row with 1,000,000 x 384 from
# memory, without and with it (two cores): 3 bits 7.1 and 3.6 (amx), 9.2 and 5.6 (avx2); groups of 32 with float scales,
# half as many, 3.6 and 2.3; 8 bits 12 to 13 either way. What is in a cache, 4096 x 4096, takes as long as before; 4 KiB
# ahead gains less, 16 KiB as much.
AHEAD = 8192


def fetch_ahead(b: ir.IRBuilder, place: Any, nbytes: int) -> None:
    """Fetch what lies :data:`AHEAD` bytes behind a place, so many bytes of it."""
    for line in range(0, nbytes, CACHE_LINE):
        prefetch(b, b.gep(place, [I64(AHEAD + line)]), 2)


Sets = list[list[Any]]  # of accumulators


class Shape(NamedTuple):
    """A register block: rows x (16 * blocks) accumulators, in `chains` independent sets over alternating steps.

    Small blocks need several chains to hide the latency of the multiplication. Where `passes` is more than 1, the
    k-loop runs as often, each time over a part of the columns.
    """

    rows: int
    blocks: int
    chains: int
    passes: int = 1


class MicroKernel:
    """An instruction set: subclasses state what differs.

    Most need a target, a width, the blocks for few rows and :meth:`product`. Where one instruction takes several steps
    or rows, :meth:`multiply` is what to override, and :meth:`finalize` if its accumulators are then not one row of
    columns each. What the table says of a unit (register block, left format, widths of right codes) is in `unit`.
    """

    target = HOST
    width = 64  # bytes per vector register; a row of a right tile takes 64 / width of them
    gemv_shapes: tuple[Shape, ...] = ()  # blocks for few rows, in order of rows
    gemm_passes = 1  # of the block for many rows
    row_by_row = False  # whether a row of a packed tile is unpacked right before its products, rather than all at once
    whole_tiles = False  # whether the k-loop takes whole tiles, beyond the last step, too, where left codes are 0
    grids = 1  # of accumulators, each of rows and columns of the block; `finalize` makes one of them

    def __init__(self, unit: Unit) -> None:
        self.unit, self.rows, self.blocks, self.k_block = unit, unit.rows, unit.blocks, unit.k_block
        self.left_bytes, self.tag = unit.left_bytes, unit.name  # the tag is for names of emitted functions

    @property
    def lanes(self) -> int:
        """int32 lanes per register."""
        return self.width // 4

    @property
    def parts(self) -> int:
        """Registers per row of a right tile."""
        return ROW_BYTES // self.width

    @property
    def few(self) -> int:
        """Rows of the largest block for few rows."""
        return max(shape.rows for shape in self.gemv_shapes)

    @property
    def narrow(self) -> MicroKernel:
        """What multiplies codes of at most 7 bits, where a unit for 8 has a shorter way for them."""
        return self

    @property
    def on_copies(self) -> MicroKernel | None:
        """What multiplies many rows in one segment of K, where it has tiles copied for it in another form."""
        return None

    def copied(self, b: ir.IRBuilder, rows: Sequence[Any], part: int) -> Iterator[tuple[int, Any]]:
        """Places in a copied tile of 8 bits, and the registers that lie there, of one part of each row."""
        for step, row in enumerate(rows):
            yield step * ROW_BYTES + part * self.width, row

    def zeros(self, rows: int, columns: int) -> list[Any]:
        """Accumulators before the first product: grids of `rows` times so many registers of columns."""
        return [ir.Constant(self.acc_type, None)] * (rows * columns * self.grids)

    @property
    def acc_type(self) -> ir.VectorType:
        return ir.VectorType(I32, self.lanes)

    @property
    def byte_type(self) -> ir.VectorType:
        return ir.VectorType(I8, self.width)

    def left(self, b: ir.IRBuilder, pointer: Any) -> Any:
        """Four k of one row, in every int32 lane."""
        word = b.load(b.bitcast(pointer, I32.as_pointer()), align=1)
        return splat(b, word, self.lanes)

    def right(self, b: ir.IRBuilder, row: Any) -> Any:
        """A register of right codes in the form that `product` takes; it is shared by all rows."""
        return b.bitcast(row, self.acc_type)

    def product(self, b: ir.IRBuilder, acc: Any, left: Any, right: Any) -> Any:
        """``acc + sum of the four products of each lane``, exact for all int8 and the unit's right codes."""
        raise NotImplementedError

    def multiply(
        self, b: ir.IRBuilder, sets: Sets, rows: int, steps: int, left: Callable[..., Any], right: Callable[..., Any]
    ) -> Sets:
        """Add the products of some rows and steps to accumulators.

        ``left(row, step)`` gives the address of four k of a row, and ``right(step)`` the registers of right codes; all
        steps lie in one tile: several from its first, or a quarter of it, on, or a single one. Steps take the sets of
        accumulators in turns; each set is ordered row by row, one grid after the other.
        """
        sets = [list(accs) for accs in sets]
        for step in range(steps):
            accs = sets[step % len(sets)]
            rights = [self.right(b, codes) for codes in right(step)]
            for row in range(rows):
                codes = self.left(b, left(row, step))
                for i, other in enumerate(rights, row * len(rights)):
                    accs[i] = self.product(b, accs[i], codes, other)
        return sets

    def finalize(self, b: ir.IRBuilder, accs: list[Any], rows: int) -> list[Any]:
        """Accumulators as they are stored, in one grid, row by row, one column per lane.

        Called after the last product, or after each tile where the sums of tiles are scaled.
        """
        return accs

    def scaled(self, b: ir.IRBuilder, total: Any, value: Any, factor: Any, small: bool) -> Any:
        """``total + value * factor`` in int32 lanes, with factors of 0 to 255; `small`: values fit int16."""
        return b.add(total, b.mul(value, factor))


def left_pointer(b: ir.IRBuilder, isa: MicroKernel, a: Any, step: Any) -> Any:
    """Address of four k of the first row in the left tiles (16 rows x 64 k, one after the other along K)."""
    tile = b.mul(b.lshr(step, I64(4)), I64(TILE_ROWS * ROW_BYTES * isa.left_bytes))
    inside = b.mul(b.and_(step, I64(STEPS - 1)), I64(STEP * isa.left_bytes))
    return b.gep(a, [b.add(tile, inside)])


def left_offset(isa: MicroKernel, row: int, step: int) -> ir.Constant:
    """How far another row, and a later step of the same tile, are from there."""
    return I64((row * ROW_BYTES + step * STEP) * isa.left_bytes)


def store(b: ir.IRBuilder, isa: MicroKernel, accs: list[Any], rows: int, out: Any, pitch: int, first: int = 0) -> None:
    """Write accumulators of some rows to a scratch of `pitch` int32 per row, from column `first` on."""
    per_row = len(accs) // rows
    for i, acc in enumerate(accs):
        store_vector(b, acc, b.gep(out, [I64(i // per_row * pitch + i % per_row * isa.lanes + first)]))


def fold(b: ir.IRBuilder, sets: Sets) -> list[Any]:
    """The sum of several sets of accumulators, which are a power of two."""
    while len(sets) > 1:
        half = len(sets) // 2
        sets = [[b.add(x, y) for x, y in zip(*pair)] for pair in zip(sets[:half], sets[half:])]
    return sets[0]


def split(accs: list[Any], chains: int) -> Sets:
    """The sets of accumulators in the values that a loop carries."""
    size = len(accs) // chains
    return [accs[start : start + size] for start in range(0, len(accs), size)]


def choose(b: ir.IRBuilder, variants: Sequence[Any], index: Any, emit: Callable[[Any], list[Any] | None]) -> list[Any]:
    """Emit one variant per shape, or whatever the index chooses from, and a switch; gives what they give, joined."""
    end = b.append_basic_block("end")
    blocks = [b.append_basic_block(f"variant{number}") for number in range(len(variants))]
    switch = b.switch(index, blocks[-1])
    for number, block in enumerate(blocks[:-1]):
        switch.add_case(I64(number), block)
    results = []
    for variant, block in zip(variants, blocks):
        b.position_at_end(block)
        results.append((emit(variant) or [], b.block))
        b.branch(end)
    b.position_at_end(end)
    return joined(b, results)


def dense(isa: MicroKernel, shapes: tuple[Shape, ...], pitch: int, passing: bool = False) -> Any:
    """Micro-kernel over 8-bit right tiles.

    ``micro(a, b, block_stride, steps, acc, shape)``: `shape` is an index into `shapes`, `pitch` the number of int32 per
    row of the accumulator scratch; `passing` says that right tiles pass by once.
    """
    name = f"fastq_dense_{isa.tag}_{pitch}_{'passing_' * passing}" + "_".join("x".join(map(str, s)) for s in shapes)

    def emit(b, a, w, block_stride, steps, out, index):
        if isa.whole_tiles:
            steps = b.and_(b.add(steps, I64(STEPS - 1)), I64(-STEPS))

        def variant(shape):
            for parts in passes(isa, shape):
                ahead = passing and parts[0] == 0
                accs = DenseTiles(isa, shape, parts, a, w, block_stride, ahead).summed(b, I64(0), steps, BURST)
                store(b, isa, accs, shape.rows, out, pitch, parts[0] * isa.lanes)

        choose(b, shapes, index, variant)

    return ir_function(name, ("u8*", "u8*", "int", "int", "i32*", "int"), isa.target, emit)


def passes(isa: MicroKernel, shape: Shape) -> list[range]:
    """The parts of each block of columns that the k-loop runs over at a time."""
    width = isa.parts // shape.passes
    return [range(start, start + width) for start in range(0, isa.parts, width)]


class DenseTiles(NamedTuple):
    """A register block's rows of left tiles and columns of 8-bit right tiles."""

    isa: MicroKernel
    shape: Shape
    parts: range  # of each block of columns
    left: Any
    right: Any
    block_stride: Any
    ahead: bool = False  # whether the right tiles are fetched ahead

    def summed(self, b: ir.IRBuilder, first: Any, last: Any, burst: int) -> list[Any]:
        """Accumulators of the steps from `first` to `last`, as they are stored.

        A burst divides the steps of a tile, since it must not cross the end of a left tile.
        """
        isa, shape = self.isa, self.shape

        def several(step: Any, accs: list[Any]) -> list[Any]:
            sets = self._some_steps(b, step, burst, split(accs, shape.chains))
            return [acc for accs in sets for acc in accs]

        def single(step: Any, accs: list[Any]) -> list[Any]:
            return self._some_steps(b, step, 1, [accs])[0]

        aligned = b.icmp_signed("==", b.and_(first, I64(burst - 1)), I64(0))
        whole = b.sub(last, b.and_(b.sub(last, first), I64(burst - 1)))
        rest = b.select(aligned, whole, first)
        zeros = isa.zeros(shape.rows, shape.blocks * len(self.parts)) * shape.chains
        accs = fold(b, split(loop(b, first, rest, burst, zeros, several), shape.chains))
        return isa.finalize(b, loop(b, rest, last, 1, accs, single), shape.rows)

    def _some_steps(self, b: ir.IRBuilder, step: Any, steps: int, sets: Sets) -> Sets:
        """Products of so many steps from `step` on."""
        isa = self.isa
        left_base = left_pointer(b, isa, self.left, step)
        if self.ahead:
            fetch_ahead(b, b.gep(self.right, [b.shl(step, I64(6))]), steps * ROW_BYTES * self.shape.blocks)

        def left(row: int, later: int) -> Any:
            return b.gep(left_base, [left_offset(isa, row, later)])

        def right(later: int) -> Iterator[Any]:
            for block in range(self.shape.blocks):
                base = b.gep(self.right, [b.add(b.mul(self.block_stride, I64(block)), b.shl(step, I64(6)))])
                for part in self.parts:
                    place = b.gep(base, [I64(later * ROW_BYTES + part * isa.width)])
                    yield load_vector(b, place, isa.byte_type)

        return isa.multiply(b, sets, self.shape.rows, steps, left, right)
