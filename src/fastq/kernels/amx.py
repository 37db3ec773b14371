"""AMX: products of whole tiles, 16 rows x 64 k times 64 k x 16 columns (Intel Sapphire Rapids and later).

    tmm0 tmm1     accumulators of a 2 x 2 block: 32 rows x 32 columns of int32
    tmm2 tmm3
    tmm4 tmm5     left tiles of the two row groups
    tmm6 tmm7     right tiles of the two column blocks

A step along K is one tile: four loads of a KiB each for four products, which take 16 cycles each. ``tdpbsud``
multiplies signed left codes with unsigned right ones; the other three combinations of signs never occur, because
operands are packed that way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.micro import DENSE_KINDS, Isa, Shape, choose
from fastq.layout.tiles import BLOCK, DEPTH, STEPS, TILE_ROWS, tile_bytes
from fastq.machine.dialect import I8, I16, I64, VOID, Target, declare, ir_function, loop

TILE = tile_bytes(8)
ROW = DEPTH  # bytes per tile row, on either side


def _op(b: ir.IRBuilder, name: str, *args: Any) -> None:
    b.call(declare(b, f"llvm.x86.{name}", VOID, [a.type for a in args]), args)


class Amx(Isa):
    """Tile registers must be configured by each thread before use and released after."""

    name = "amx"
    target = Target("sapphirerapids", "+amx-tile,+amx-int8")

    @property
    def row_groups(self) -> tuple[int, ...]:
        return (2 * TILE_ROWS, TILE_ROWS)

    def enter(self) -> Any:
        """``enter()``: set up eight tiles of 16 rows x 64 bytes."""

        def emit(b):
            config = b.alloca(ir.ArrayType(I8, 64))
            config.align = 64
            b.store(ir.Constant(config.type.pointee, None), config)
            first = b.bitcast(config, I8.as_pointer())
            b.store(I8(1), first)  # palette
            for tile in range(8):
                columns = b.bitcast(b.gep(first, [I64(16 + 2 * tile)]), I16.as_pointer())
                b.store(I16(ROW), columns)
                b.store(I8(TILE_ROWS), b.gep(first, [I64(48 + tile)]))
            _op(b, "ldtilecfg", first)

        return ir_function("fastq_amx_enter", (), self.target, emit)

    def leave(self) -> Any:
        """``leave()``: give the tiles up."""
        return ir_function("fastq_amx_leave", (), self.target, lambda b: _op(b, "tilerelease"))

    def dense(self, shapes: tuple[Shape, ...], pitch: int) -> Any:
        """As :func:`fastq.kernels.micro.dense`; first and last step are whole tiles."""

        def emit(b, a, left_stride, w, block_stride, first, last, out, index):
            def variant(shape):
                groups = shape.rows // TILE_ROWS
                for i in range(groups * 2):
                    if i % 2 < shape.blocks:
                        _op(b, "tilezero", I8(i))

                def one_tile(t, _):
                    offset = b.mul(t, I64(TILE))
                    for g in range(groups):
                        place = b.gep(a, [b.add(offset, b.mul(left_stride, I64(g)))])
                        _op(b, "tileloadd64", I8(4 + g), place, I64(ROW))
                    for c in range(shape.blocks):
                        place = b.gep(w, [b.add(offset, b.mul(block_stride, I64(c)))])
                        _op(b, "tileloadd64", I8(6 + c), place, I64(ROW))
                    for g in range(groups):
                        for c in range(shape.blocks):
                            _op(b, "tdpbsud", I8(2 * g + c), I8(4 + g), I8(6 + c))
                    return []

                begin = b.lshr(first, I64(4))
                end = b.lshr(b.add(last, I64(STEPS - 1)), I64(4))
                loop(b, begin, end, 1, [], one_tile)
                bytes_out = b.bitcast(out, I8.as_pointer())
                for g in range(groups):
                    for c in range(shape.blocks):
                        place = b.gep(bytes_out, [I64(4 * (g * TILE_ROWS * pitch + c * BLOCK))])
                        _op(b, "tilestored64", I8(2 * g + c), place, I64(4 * pitch))

            choose(b, shapes, index, variant)

        return ir_function(f"fastq_dense_amx_{pitch}", DENSE_KINDS, self.target, emit)
