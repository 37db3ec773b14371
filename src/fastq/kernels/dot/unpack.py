"""Low-bit tiles back into rows of bytes, in registers or into 8-bit tiles; integer group scales are applied here.

A group's scale is a small integer, so that a scaled code still fits a byte: the product goes on as one of 8 bits, with
a single float scale per column, and stays exact. Per row of a tile that costs a multiplication and an addition: a
16-bit lane holds two codes of one column, and since ``factor * u`` stays below 256, one multiplication serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from fastq.kernels.dot.micro import MicroKernel, fetch_ahead
from fastq.layout.tiles import BLOCK, DEPTH, QUARTER, ROW_BYTES, STEPS, TileFormat, places, tile_bytes
from fastq.machine.ir import I8, I16, I64, filled, ir_function, joined, load_vector, loop, store_vector

QUARTERS = DEPTH // QUARTER
GROUP_BYTES = 2 * BLOCK  # factors and shifts of a group


class Rows(Sequence[Any]):
    """Rows of codes that are unpacked where they are asked for, each once."""

    def __init__(self, unpacked: Callable[[int], Any]) -> None:
        self._unpacked = unpacked

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, row: Any) -> Any:
        if row >= STEPS:
            raise IndexError(row)
        return self._unpacked(row)


def unpacked_rows(b: ir.IRBuilder, isa: MicroKernel, bits: int, tile: Any, part: int) -> Sequence[Any]:
    """The 16 rows of a packed tile (one register-wide part of each), as vectors of codes.

    One shift and one AND per plane bring back a row; the planes' bits are shifted right into their place in the code.
    """
    words = ir.VectorType(I16, isa.width // 2)
    loaded: dict[int, Any] = {}

    def one_row(row: int) -> Any:
        code = None
        for place in places(bits, row):
            vector = loaded.get(place.offset)
            if vector is None:
                pointer = b.gep(tile, [I64(place.offset + part * isa.width)])
                vector = loaded[place.offset] = b.bitcast(load_vector(b, pointer, isa.byte_type), words)
            shift = place.shift - place.target
            # Shifting 16-bit lanes lets bits of the neighbour byte in; the mask drops them.
            if shift > 0:
                vector = b.lshr(vector, filled(words, shift))
            elif shift < 0:
                vector = b.shl(vector, filled(words, -shift))
            mask = (2**place.width - 1) << place.target
            piece = b.and_(vector, filled(words, mask * 0x0101))
            code = piece if code is None else b.or_(code, piece)
        return b.bitcast(code, isa.byte_type)

    rows = Rows(one_row)
    return rows if isa.row_by_row else list(rows)


class Groups:
    """Factors and shifts of the groups that a loop over tiles passes through.

    The loop carries :attr:`start`; each tile gives the state to carry on.
    """

    def __init__(self, b: ir.IRBuilder, isa: MicroKernel, pointer: Any, quarters: Any, first_tile: Any) -> None:
        self.isa, self.quarters = isa, quarters
        first = b.mul(first_tile, I64(QUARTERS))
        group = b.udiv(first, quarters)
        passed = b.sub(first, b.mul(group, quarters))
        self.start = [b.gep(pointer, [b.mul(group, I64(GROUP_BYTES))]), b.sub(quarters, passed)]

    def advance(self, b: ir.IRBuilder, state: list[Any], by: int) -> list[Any]:
        """The group that comes so many quarters later (at most one group)."""
        pointer, left = state
        left = b.sub(left, I64(by))
        over = b.icmp_signed("<=", left, I64(0))
        following = b.gep(pointer, [I64(GROUP_BYTES)])
        return [b.select(over, following, pointer), b.select(over, self.quarters, left)]

    def in_tile(self, b: ir.IRBuilder, state: list[Any], whole: bool) -> list[list[Any]]:
        """The states at each quarter of a tile and after it; `whole`: groups consist of whole tiles."""
        if whole:
            return [state] * QUARTERS + [self.advance(b, state, QUARTERS)]
        states = [state]
        for _ in range(QUARTERS):
            states.append(self.advance(b, states[-1], 1))
        return states

    def lanes(self, b: ir.IRBuilder, state: list[Any], part: int) -> tuple[Any, Any]:
        """Factors and shifts, one per column in int32 lanes."""
        lanes = self.isa.lanes

        def load(offset: int) -> Any:
            place = b.gep(state[0], [I64(offset + part * lanes)])
            return b.zext(load_vector(b, place, ir.VectorType(I8, lanes)), self.isa.acc_type)

        return load(0), load(BLOCK)

    def spread(self, b: ir.IRBuilder, state: list[Any], part: int) -> tuple[Any, Any]:
        """Factors in 16-bit lanes, shifts in bytes: each as often as its column's four k take."""

        def twice(value: Any, width: int) -> Any:
            return b.or_(value, b.shl(value, filled(value.type, width)))

        factor, shift = (twice(value, 16) for value in self.lanes(b, state, part))
        words = ir.VectorType(I16, self.isa.width // 2)
        return b.bitcast(factor, words), b.bitcast(twice(shift, 8), self.isa.byte_type)

    def scaled(self, b: ir.IRBuilder, rows: Sequence[Any], states: list[list[Any]], part: int) -> list[Any]:
        """Rows of codes as they are multiplied; `states` are those of the tile's quarters."""
        results: list[Any] = []
        loaded: tuple[Any, Any] = (None, None)
        for step, row in enumerate(rows):
            quarter, first = divmod(step, STEPS // QUARTERS)
            if not first and not (quarter and states[quarter] is states[quarter - 1]):
                loaded = self.spread(b, states[quarter], part)
            factor, shift = loaded
            product = b.mul(b.bitcast(row, factor.type), factor)
            results.append(b.add(b.bitcast(product, shift.type), shift))
        return results


def by_group_size(b: ir.IRBuilder, quarters: Any, emit: Callable[[bool], list[Any]]) -> list[Any]:
    """``emit(whole)`` for groups of whole tiles and for others, each in a branch of its own; what it gives, joined."""
    whole = b.icmp_unsigned("==", b.and_(quarters, I64(QUARTERS - 1)), I64(0))
    for_whole, for_parts, end = (b.append_basic_block(name) for name in ("whole", "parts", "joined"))
    b.cbranch(whole, for_whole, for_parts)
    results = []
    for block, flag in ((for_whole, True), (for_parts, False)):
        b.position_at_end(block)
        results.append((emit(flag), b.block))
        b.branch(end)
    b.position_at_end(end)
    return joined(b, results)


class Tiles(NamedTuple):
    """Packed tiles to loop over."""

    isa: MicroKernel
    form: TileFormat
    pointer: Any
    first: Any
    last: Any

    def rows(self, b: ir.IRBuilder, t: Any, part: int) -> Sequence[Any]:
        """The codes of one part of tile t."""
        tile = b.gep(self.pointer, [b.mul(t, I64(tile_bytes(self.form.bits)))])
        return unpacked_rows(b, self.isa, self.form.bits, tile, part)

    def fetch(self, b: ir.IRBuilder, t: Any) -> None:
        """Fetch the tiles ahead of tile t, as many bytes as a tile has."""
        size = tile_bytes(self.form.bits)
        fetch_ahead(b, b.gep(self.pointer, [b.mul(t, I64(size))]), size)

    def each(
        self, b: ir.IRBuilder, groups: tuple[Any, Any], carried: list[Any], body: Callable[..., list[Any]]
    ) -> list[Any]:
        """``carried = body(t, rows, carried)`` for each tile, where ``rows(part)`` gives the rows to multiply.

        `groups` are pointer and quarters per group; nothing where the form has none.
        """
        if not self.form.grouped:

            def ungrouped(t: Any, values: list[Any]) -> list[Any]:
                return body(t, lambda part: self.rows(b, t, part), values)

            return loop(b, self.first, self.last, 1, carried, ungrouped)
        return by_group_size(b, groups[1], lambda whole: self.each_scaled(b, groups, carried, body, whole))

    def each_scaled(
        self, b: ir.IRBuilder, groups: tuple[Any, Any], carried: list[Any], body: Callable[..., list[Any]], whole: bool
    ) -> list[Any]:
        """The same for groups of one kind."""
        passing = Groups(b, self.isa, *groups, self.first)

        def one(t: Any, values: list[Any]) -> list[Any]:
            states = passing.in_tile(b, values[:2], whole)

            def rows(part: int) -> list[Any]:
                return passing.scaled(b, self.rows(b, t, part), states, part)

            return states[-1] + body(t, rows, values[2:])

        return loop(b, self.first, self.last, 1, passing.start + carried, one)[2:]


def unpack(isa: MicroKernel, form: TileFormat) -> Any:
    """``unpack(dense, packed, first_tile, last_tile, groups, quarters)``: copy tiles, packed or not, as 8-bit ones."""
    name = f"fastq_unpack_{isa.tag}_{form.tag}"

    def emit(b, out, tiles, first, last, groups, quarters):
        passing = Tiles(isa, form, tiles, first, last)

        def one_tile(t, rows, _):
            passing.fetch(b, t)
            target = b.gep(out, [b.mul(b.sub(t, first), I64(STEPS * ROW_BYTES))])
            for part in range(isa.parts):
                for place, register in isa.copied(b, rows(part), part):
                    store_vector(b, register, b.gep(target, [I64(place)]))
            return []

        passing.each(b, (groups, quarters), [], one_tile)

    return ir_function(name, ("u8*", "u8*", "int", "int", "u8*", "int"), isa.target, emit)
