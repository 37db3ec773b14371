"""Low-bit tiles back into rows of bytes, in registers or into 8-bit tiles; integer group scales are applied here.

A group's scale is a small integer, so that a scaled code still fits a byte: the product goes on as one of 8 bits, with
a single float scale per column, and stays exact. Per row of a tile that costs a multiplication and an addition: a
16-bit lane holds two codes of one column, and since ``factor * u`` stays below 256, one multiplication serves both.

Measured at 3 bits and groups of 64, times those without groups: 1.07 to 1.1 for 1 x 4096 x 4096 (groups of 16: 1.3),
1.0 for 1024 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastq.kernels.micro import Isa
from fastq.layout.tiles import BLOCK, DEPTH, QUARTER, ROW_BYTES, STEPS, Form, places, tile_bytes
from fastq.machine.dialect import I8, I16, I64, ir_function, load_vector, loop, store_vector

QUARTERS = DEPTH // QUARTER
GROUP_BYTES = 2 * BLOCK  # factors and shifts of a group


def unpacked_rows(b: ir.IRBuilder, isa: Isa, bits: int, tile: Any, part: int) -> list[Any]:
    """The 16 rows of a packed tile (one register-wide part of each), as vectors of codes.

    One shift and one AND per plane bring back a row; the planes' bits are shifted right into their place in the code.
    """
    words = ir.VectorType(I16, isa.width // 2)
    loaded: dict[int, Any] = {}
    rows = []
    for row in range(STEPS):
        code = None
        for place in places(bits, row):
            vector = loaded.get(place.offset)
            if vector is None:
                pointer = b.gep(tile, [I64(place.offset + part * isa.width)])
                vector = loaded[place.offset] = b.bitcast(load_vector(b, pointer, isa.byte_type), words)
            shift = place.shift - place.target
            # Shifting 16-bit lanes lets bits of the neighbour byte in; the mask drops them.
            if shift > 0:
                vector = b.lshr(vector, ir.Constant(words, [shift] * words.count))
            elif shift < 0:
                vector = b.shl(vector, ir.Constant(words, [-shift] * words.count))
            mask = (2**place.width - 1) << place.target
            piece = b.and_(vector, ir.Constant(words, [mask * 0x0101] * words.count))
            code = piece if code is None else b.or_(code, piece)
        rows.append(b.bitcast(code, isa.byte_type))
    return rows


class Groups:
    """Factors and shifts of the groups that a loop over tiles passes through.

    The loop carries :attr:`start`; :meth:`rows` gives a tile's rows and what to carry on.
    """

    def __init__(self, b: ir.IRBuilder, isa: Isa, bits: int, pointer: Any, quarters: Any, first_tile: Any) -> None:
        self.isa, self.bits, self.quarters = isa, bits, quarters
        first = b.mul(first_tile, I64(QUARTERS))
        group = b.udiv(first, quarters)
        passed = b.sub(first, b.mul(group, quarters))
        self.start = [b.gep(pointer, [b.mul(group, I64(GROUP_BYTES))]), b.sub(quarters, passed)]

    def load(self, b: ir.IRBuilder, pointer: Any, part: int) -> tuple[Any, Any]:
        """Factors in 16-bit lanes, shifts in bytes: each as often as its column's four k take."""
        lanes, ints = self.isa.lanes, self.isa.acc_type

        def spread(offset: int, bits: int) -> Any:
            narrow = load_vector(b, b.gep(pointer, [I64(offset + part * lanes)]), ir.VectorType(I8, lanes))
            value = b.zext(narrow, ints)
            for width in (16, 8)[: 2 if bits == 8 else 1]:
                value = b.or_(value, b.shl(value, ir.Constant(ints, [width] * lanes)))
            return value

        words = ir.VectorType(I16, self.isa.width // 2)
        return b.bitcast(spread(0, 16), words), b.bitcast(spread(BLOCK, 8), self.isa.byte_type)

    def advance(self, b: ir.IRBuilder, carried: list[Any], by: int) -> list[Any]:
        """The group that comes so many quarters later (at most one group)."""
        pointer, left = carried
        left = b.sub(left, I64(by))
        over = b.icmp_signed("<=", left, I64(0))
        following = b.gep(pointer, [I64(GROUP_BYTES)])
        return [b.select(over, following, pointer), b.select(over, self.quarters, left)]

    def rows(
        self, b: ir.IRBuilder, tile: Any, carried: list[Any], whole: bool
    ) -> tuple[Callable[[int], list[Any]], list[Any]]:
        """A function that gives the scaled rows of one part of a tile; `whole`: groups consist of whole tiles."""
        at_quarter = [carried]
        for _ in range(QUARTERS - 1):
            at_quarter.append(carried if whole else self.advance(b, at_quarter[-1], 1))
        following = self.advance(b, at_quarter[-1], QUARTERS if whole else 1)

        def scaled(part: int) -> list[Any]:
            found, results = None, []
            for step, row in enumerate(unpacked_rows(b, self.isa, self.bits, tile, part)):
                quarter, first = divmod(step, STEPS // QUARTERS)
                if not first and not (whole and quarter):
                    found = self.load(b, at_quarter[quarter][0], part)
                assert found is not None
                factor, shift = found
                product = b.mul(b.bitcast(row, factor.type), factor)
                results.append(b.add(b.bitcast(product, shift.type), shift))
            return results

        return scaled, following


def each_tile(
    b: ir.IRBuilder,
    isa: Isa,
    form: Form,
    tiles: tuple[Any, Any, Any],
    groups: tuple[Any, Any],
    carried: list[Any],
    body: Callable[..., list[Any]],
) -> list[Any]:
    """Loop over packed tiles: ``carried = body(t, rows, carried)``, where ``rows(part)`` gives the rows to multiply.

    `tiles` are pointer, first and last tile, `groups` pointer and quarters per group (nothing where `form` has none).
    Groups of whole tiles have a loop of their own, in which factors are loaded once per tile.
    """
    pointer, first, last = tiles

    def tile_at(t: Any) -> Any:
        return b.gep(pointer, [b.mul(t, I64(tile_bytes(form.bits)))])

    if not form.grouped:

        def plain(t: Any, values: list[Any]) -> list[Any]:
            return body(t, lambda part: unpacked_rows(b, isa, form.bits, tile_at(t), part), values)

        return loop(b, first, last, 1, carried, plain)

    state = Groups(b, isa, form.bits, *groups, first)

    def grouped(whole: bool) -> list[Any]:
        def one(t: Any, values: list[Any]) -> list[Any]:
            rows, following = state.rows(b, tile_at(t), values[:2], whole)
            return following + body(t, rows, values[2:])

        return loop(b, first, last, 1, state.start + carried, one)[2:]

    whole = b.icmp_unsigned("==", b.and_(groups[1], I64(QUARTERS - 1)), I64(0))
    results = []
    for_whole, for_parts, end = (b.append_basic_block(name) for name in ("whole", "parts", "joined"))
    b.cbranch(whole, for_whole, for_parts)
    for block, flag in ((for_whole, True), (for_parts, False)):
        b.position_at_end(block)
        results.append((grouped(flag), b.block))
        b.branch(end)
    b.position_at_end(end)
    joined = []
    for values in zip(*(values for values, _ in results)):
        phi = b.phi(values[0].type)
        for value, (_, block) in zip(values, results):
            phi.add_incoming(value, block)
        joined.append(phi)
    return joined


def unpack(isa: Isa, form: Form) -> Any:
    """``unpack(dense, packed, first_tile, last_tile, groups, quarters)``: turn packed tiles into 8-bit tiles."""
    name = f"fastq_unpack_{isa.tag}_{form.tag}"

    def emit(b, out, tiles, first, last, groups, quarters):
        def one_tile(t, rows, _):
            target = b.gep(out, [b.mul(b.sub(t, first), I64(STEPS * ROW_BYTES))])
            for part in range(isa.parts):
                for step, row in enumerate(rows(part)):
                    store_vector(b, row, b.gep(target, [I64(step * ROW_BYTES + part * isa.width)]))
            return []

        each_tile(b, isa, form, (tiles, first, last), (groups, quarters), [], one_tile)

    return ir_function(name, ("u8*", "u8*", "int", "int", "u8*", "int"), isa.target, emit)
