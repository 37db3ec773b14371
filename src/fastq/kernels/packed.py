"""The micro-kernel for few rows over low-bit tiles: codes are unpacked in registers, and meet the rows there."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.micro import Isa, Shape, choose, fold, left_offset, left_pointer, store
from fastq.kernels.unpack import each_tile
from fastq.layout.tiles import BLOCK, Form
from fastq.machine.dialect import I64, ir_function


def packed(isa: Isa, form: Form, shapes: tuple[Shape, ...], pitch: int) -> Any:
    """Micro-kernel over whole packed tiles of one column block.

    ``micro(a, tiles, first_tile, last_tile, acc, shape, groups, quarters)``
    """
    name = f"fastq_packed_{isa.tag}_{form.tag}_{pitch}_" + "_".join(f"{s.rows}x{s.chains}" for s in shapes)

    def emit(b, a, tiles, first, last, out, index, groups, quarters):
        def variant(shape):
            size = shape.rows * isa.parts

            def one_tile(t, rows, accs):
                accs = list(accs)
                base = left_pointer(b, isa, a, b.shl(t, I64(4)))
                for part in range(isa.parts):
                    for step, codes in enumerate(rows(part)):
                        right = isa.right(b, codes)
                        for row in range(shape.rows):
                            left = isa.left(b, b.gep(base, [left_offset(isa, row, step)]))
                            i = step % shape.chains * size + row * isa.parts + part
                            accs[i] = isa.product(b, accs[i], left, right)
                return accs

            zeros = [ir.Constant(isa.acc_type, None)] * (size * shape.chains)
            sums = each_tile(b, isa, form, (tiles, first, last), (groups, quarters), zeros, one_tile)
            store(b, isa, fold(b, sums, size), BLOCK, out, pitch)

        choose(b, shapes, index, variant)

    kinds = ("u8*", "u8*", "int", "int", "i32*", "int", "u8*", "int")
    return ir_function(name, kinds, isa.target, emit)
