"""The epilogue: from a tile of int32 sums to the output, while the tile is in the L1 cache.

For every segment g of K, with row parameters of row i and column parameters of column j::

    r   = row_sum - k * row_zero
    v   = acc - col_zero * r - row_zero * col_sum                 int32, modulo 2**32
    y   = (float(v) * row_scale) * col_scale
    y   = (y + (row_scale * float(r)) * col_offset) + row_offset * col_term          if anything is affine
    sum = y                                                       first segment
    sum = sum + y                                                 further segments
    out = sum + bias                                              last segment

Each operation is rounded by itself, in this order, on every instruction set: no contraction, no reassociation. The
same lines stand in :func:`fastq.kernels.reference.epilogue`. For int32 output v itself is the result.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.dialect import (
    F32,
    F64,
    I32,
    I64,
    P8,
    Target,
    field,
    ir_function,
    load_vector,
    loop,
    splat,
    store_vector,
)

OUTPUTS: dict[str, ir.Type] = {"int32": I32, "float32": F32, "float64": F64}
SIZES = {"int32": 4, "float32": 4, "float64": 8}


class PlainTile:
    """A tile of the common case: one segment, no zero points on the left, one on the right, no offsets, no bias.

    What the lines share is loaded where the object is made.
    """

    def __init__(self, b: ir.IRBuilder, job: Any, output: str, pitch: int, acc: Any, row: Any, block: Any) -> None:
        def get(name: str) -> Any:
            return field(b, MatmulJob, job, name)

        self.type, self.pitch, self.acc, self.row = OUTPUTS[output], pitch, acc, row
        self.floating = output != "int32"
        self.column = b.mul(block, I64(BLOCK))
        self.zero = b.load(get("col_zero"))
        self.row_sum, self.out_pitch = get("row_sum"), get("out_pitch")
        pointer = self.type.as_pointer()
        self.row_scale, self.col_scale, self.out = (
            b.bitcast(get(n), pointer) for n in ("row_scale", "col_scale", "out")
        )
        self.streamed = b.icmp_signed("!=", get("streamed"), I64(0))

    def write(self, b: ir.IRBuilder, r: Any, c: Any) -> None:
        """Write 16 columns: row r of the tile, block c."""
        ints, values = ir.VectorType(I32, BLOCK), ir.VectorType(self.type, BLOCK)
        i, col = b.add(self.row, r), b.add(self.column, b.mul(c, I64(BLOCK)))
        v = load_vector(b, b.gep(self.acc, [b.add(b.mul(r, I64(self.pitch)), b.mul(c, I64(BLOCK)))]), ints)
        y = b.sub(v, splat(b, b.mul(self.zero, b.load(b.gep(self.row_sum, [i]))), BLOCK))
        if self.floating:
            scaled = b.fmul(b.sitofp(y, values), splat(b, b.load(b.gep(self.row_scale, [i])), BLOCK))
            y = b.fmul(scaled, load_vector(b, b.gep(self.col_scale, [col]), values))
        place = b.gep(self.out, [b.add(b.mul(i, self.out_pitch), col)])
        with b.if_else(self.streamed) as (past_the_cache, cached):
            with past_the_cache:
                store = b.store(y, b.bitcast(place, values.as_pointer()), align=64)
                store.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))
            with cached:
                store_vector(b, y, place)


def epilogue(target: Target, tag: str, output: str, pitch: int) -> Any:
    """Emit ``epilogue(job, acc, sums, row, rows, block, blocks, segment)``.

    `acc` holds `rows` x `blocks` * 16 int32 with `pitch` per row, `sums` as many values of the output's type; `row` and
    `block` say where the tile belongs in the output.
    """
    out_type = OUTPUTS[output]
    floating = output != "int32"
    ints = ir.VectorType(I32, BLOCK)
    values = ir.VectorType(out_type, BLOCK)

    def emit(b, job, acc, sums, row, rows, block, blocks, segment):
        def get(name):
            return field(b, MatmulJob, job, name)

        def group_of(groups):
            return b.select(b.icmp_signed(">", groups, I64(1)), segment, I64(0))

        def element(pointer, index, kind):
            typed = b.bitcast(pointer, kind.as_pointer())
            return b.load(b.gep(typed, [index]))

        def columns_of(pointer, index, vector):
            typed = b.bitcast(pointer, vector.element.as_pointer())
            return load_vector(b, b.gep(typed, [index]), vector)

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
        uniform_zero = element(col_zero, I64(0), I32)
        bias, out, out_pitch = get("bias"), get("out"), get("out_pitch")
        has_bias = b.icmp_unsigned("!=", bias, ir.Constant(P8, None))
        if floating:
            row_scale, col_scale = get("row_scale"), get("col_scale")
            row_offset, col_offset, col_term = get("row_offset"), get("col_offset"), get("col_term")
            affine = b.icmp_signed("!=", get("affine"), I64(0))

        def one_row(r, _):
            i = b.add(row, r)
            at_group = b.add(b.mul(i, row_groups), row_group)
            zero = element(row_zero, at_group, I32)
            reduced = b.sub(element(row_sum, b.add(b.mul(i, segments), segment), I32), b.mul(k, zero))
            has_zero = b.icmp_signed("!=", zero, I32(0))
            reduced_v, zero_v = splat(b, reduced, BLOCK), splat(b, zero, BLOCK)
            uniform_v = splat(b, b.mul(uniform_zero, reduced), BLOCK)
            if floating:
                scale = element(row_scale, at_group, out_type)
                scale_v = splat(b, scale, BLOCK)

            def one_block(c, _):
                col = b.mul(b.add(block, c), I64(BLOCK))
                here = b.add(b.mul(r, I64(pitch)), b.mul(c, I64(BLOCK)))
                at_col = b.add(col_base, col)
                v = columns_of(acc, here, ints)
                shift = _if(
                    b, varied, uniform_v, lambda: b.mul(columns_of(col_zero, b.add(zero_base, col), ints), reduced_v)
                )
                v = b.sub(v, shift)
                v = _if(
                    b, has_zero, v, lambda: b.sub(v, b.mul(columns_of(col_sum, b.add(sum_base, col), ints), zero_v))
                )
                y = v
                if floating:
                    y = b.fmul(b.fmul(b.sitofp(v, values), scale_v), columns_of(col_scale, at_col, values))

                    def with_offsets(y=y):
                        left = splat(b, b.fmul(scale, b.sitofp(reduced, out_type)), BLOCK)
                        shift = splat(b, element(row_offset, at_group, out_type), BLOCK)
                        z = b.fadd(y, b.fmul(left, columns_of(col_offset, at_col, values)))
                        return b.fadd(z, b.fmul(shift, columns_of(col_term, b.add(sum_base, col), values)))

                    y = _if(b, affine, y, with_offsets)
                    typed_sums = b.gep(b.bitcast(sums, out_type.as_pointer()), [here])
                    y = _if(b, first, None, lambda y=y: b.fadd(load_vector(b, typed_sums, values), y), y)
                with b.if_else(last) as (then, otherwise):
                    with then:
                        add = b.fadd if floating else b.add
                        final = _if(b, has_bias, y, lambda: add(y, columns_of(bias, col, values)))
                        target = b.gep(b.bitcast(out, out_type.as_pointer()), [b.add(b.mul(i, out_pitch), col)])
                        room = b.sub(n, col)
                        with b.if_else(b.icmp_signed(">=", room, I64(BLOCK))) as (whole, edge):
                            with whole:
                                store_vector(b, final, target)
                            with edge:
                                # Through memory: the accumulators' place is free now.
                                store_vector(b, final, b.gep(b.bitcast(sums, out_type.as_pointer()), [here]))
                                _copy(b, b.gep(b.bitcast(sums, out_type.as_pointer()), [here]), target, room)
                    with otherwise:
                        store_vector(b, y, b.gep(b.bitcast(sums, out_type.as_pointer()), [here]))
                return []

            loop(b, I64(0), blocks, 1, [], one_block)
            return []

        room = b.sub(n, b.mul(b.add(block, blocks), I64(BLOCK)))
        plain = b.and_(b.icmp_signed("!=", get("plain"), I64(0)), b.icmp_signed(">=", room, I64(0)))
        with b.if_else(plain) as (common, any_case):
            with common:
                lines = PlainTile(b, job, output, pitch, acc, row, block)

                def plain_row(r, _):
                    def one_line(c, _):
                        lines.write(b, r, c)
                        return []

                    return loop(b, I64(0), blocks, 1, [], one_line)

                loop(b, I64(0), rows, 1, [], plain_row)
            with any_case:
                loop(b, I64(0), rows, 1, [], one_row)

    kinds = (MatmulJob, "i32*", "u8*", "int", "int", "int", "int", "int")
    return ir_function(f"fastq_epilogue_{tag}_{output}_{pitch}", kinds, target, emit)


def _if(b: ir.IRBuilder, condition: Any, plain: Any, otherwise: Any, when_true: Any = None) -> Any:
    """``otherwise() if condition else plain``; or, given `when_true`, ``when_true if condition else otherwise()``."""
    if when_true is not None:
        condition, plain = b.not_(condition), when_true
    before = b.block
    block, join = b.append_basic_block("then"), b.append_basic_block("join")
    b.cbranch(condition, block, join)
    b.position_at_end(block)
    value = otherwise()
    after = b.block
    b.branch(join)
    b.position_at_end(join)
    result = b.phi(plain.type)
    result.add_incoming(plain, before)
    result.add_incoming(value, after)
    return result


def _copy(b: ir.IRBuilder, source: Any, target: Any, count: Any) -> None:
    def one(i, _):
        b.store(b.load(b.gep(source, [i])), b.gep(target, [i]))
        return []

    loop(b, I64(0), count, 1, [], one)
