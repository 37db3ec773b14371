"""From accumulators to numbers: what a segment of K adds to the product.

Every way to the output comes through here: one segment or several, accumulators in registers or in memory.
README.md has the equation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.jobs import MatmulJob
from fastq.layout.tiles import BLOCK
from fastq.machine.ir import F32, F64, I16, I32, I64, either, field, filled, load_at, replaced_if, shaped, splat

TYPES: dict[str, ir.Type] = {"int32": I32, "float16": I16, "float32": F32, "float64": F64}


class Kind(NamedTuple):
    """What is known of products where code for them is emitted; None: the code looks it up in the job."""

    row_zeros: bool | None = None  # there are zero points on the left
    varied: bool | None = None  # zero points on the right are not all the same
    row_scaled: bool | None = None  # each segment is multiplied by the scales of rows
    col_scaled: bool | None = None
    offsets: bool | None = None  # an operand has offsets
    row_offsets: bool | None = None  # the left operand has offsets


ONE_SEGMENT = Kind(row_scaled=True, col_scaled=True)
FAST = Kind(False, False, True, True, False, False)


def usual_kinds(output: Output) -> tuple[Kind, ...]:
    """Kinds of products with several segments that have straight code; the last one is any product.

    Groups on the right have one zero point, zero points or offsets; where floats on the left have groups, there may be
    none on the right.
    """
    forms = [(False, True, False), (True, True, False), (False, True, True)]
    forms += [(False, False, False)] * output.row_groups
    usual = (Kind(False, varied, output.row_groups, scaled, offsets, False) for varied, scaled, offsets in forms)
    return *usual, Kind()


class Lanes(NamedTuple):
    """Some columns in the lanes of a vector."""

    block: Any
    first: int = 0  # column of the block
    lanes: int = BLOCK


class Terms:
    """What segments add to the product. What all rows and columns share is loaded where the object is made."""

    def __init__(self, b: ir.IRBuilder, job: Any, output: Output) -> None:
        self.type, self.turned, self.planes = TYPES[output.computed], output.turned, output.planes
        self._job = {name: field(b, MatmulJob, job, name) for name in _FIELDS}

        def holds(name: str) -> Any:
            value = self._job[name]
            return b.icmp_unsigned("!=", value, ir.Constant(value.type, None if value.type.is_pointer else 0))

        varied, row_scaled, col_scaled = (b.not_(holds(name)) for name in ("uniform", "row_outside", "col_outside"))
        self._flags = Kind(holds("col_sum"), varied, row_scaled, col_scaled, holds("col_offset"), holds("row_offset"))
        # The first column's zero point serves for all where they are the same, as those of symmetric codes are.
        self._zero = load_at(b, self._job["col_zero"], I64(0), I32)

    def which(self, b: ir.IRBuilder, kinds: tuple[Kind, ...]) -> Any:
        """The number of the first kind that the job is of; the last one fits all."""
        index = I64(len(kinds) - 1)
        for number, kind in reversed(list(enumerate(kinds[:-1]))):
            fits = ir.Constant(ir.IntType(1), 1)
            for flag, known in zip(self._flags, kind):
                fits = b.and_(fits, flag if known else b.not_(flag))
            index = b.select(fits, I64(number), index)
        return index

    def of_row(
        self, b: ir.IRBuilder, kind: Kind, accs: list[Any], row: Any, columns: list[Lanes], segment: Any
    ) -> list[Any]:
        """The numbers that accumulators of a row of the output stand for in a segment.

        Where left codes come in two planes, those of high bytes come first, then those of low ones.
        """
        lines = [row] if self.planes == 1 else [b.add(b.mul(row, I64(self.planes)), I64(p)) for p in range(self.planes)]
        sums = [self._of_row(b, "row_sum", I32, line, segment, "segments") for line in lines]

        def when(name: str, values: list[Any], emit: Callable[[], list[Any]]) -> list[Any]:
            known = getattr(kind, name)
            if known is None:
                return replaced_if(b, getattr(self._flags, name), values, emit)
            return emit() if known else values

        def without_row_zeros() -> list[Any]:
            zero = self._of_row(b, "row_zero", I32, row, segment, "row_groups")
            last = b.icmp_signed("==", b.add(segment, I64(1)), self._job["segments"])
            k = b.trunc(b.select(last, self._job["last_k"], self._job["segment_k"]), I32)
            start = b.mul(segment, self._job["columns"])
            less = [b.sub(sums[0], b.mul(k, zero))]
            for acc, c in zip(accs, columns):
                place = b.add(start, b.add(b.mul(c.block, I64(BLOCK)), I64(c.first)))
                col_sum = load_at(b, self._job["col_sum"], place, ir.VectorType(I32, c.lanes))
                less.append(b.sub(acc, b.mul(col_sum, splat(b, zero, c.lanes))))
            return less

        if self.planes == 1:  # codes of two planes have no zero points
            reduced, *accs = when("row_zeros", [sums[0], *accs], without_row_zeros)
            sums = [reduced]
        # The row sum that belongs to each accumulator.
        of_plane = [r for r in sums for _ in columns]

        def one_zero() -> list[Any]:
            return [b.sub(v, splat(b, b.mul(self._zero, r), columns[0].lanes)) for v, r in zip(accs, of_plane)]

        def zeros() -> list[Any]:
            each = of_columns("col_zero", I32, "zero_groups") * self.planes
            wide = [splat(b, r, columns[0].lanes) for r in of_plane]
            return [b.sub(v, b.mul(z, r)) for v, z, r in zip(accs, each, wide)]

        def of_columns(name: str, element: ir.Type, groups: str) -> list[Any]:
            return [self._of_columns(b, name, element, c, segment, groups) for c in columns]

        if kind.varied is None:
            accs = either(b, self._flags.varied, zeros, one_zero)
        else:
            accs = zeros() if kind.varied else one_zero()
        if self.type == I32:
            return accs
        y = self._numbers(b, accs)
        row_scale = self._of_row(b, "row_scale", self.type, row, segment, "row_groups")

        def by_row(y: list[Any]) -> list[Any]:
            wide = splat(b, row_scale, columns[0].lanes)
            return [b.fmul(value, wide) for value in y]

        def by_columns(y: list[Any]) -> list[Any]:
            return [b.fmul(value, s) for value, s in zip(y, of_columns("col_scale", self.type, "col_groups"))]

        for name, scaled in self._ordered(("row_scaled", by_row), ("col_scaled", by_columns)):
            y = when(name, y, lambda y=y, scaled=scaled: scaled(y))  # type: ignore[misc]

        def plus(y: list[Any], of_row: Any, name: str, groups: str) -> list[Any]:
            wide = splat(b, of_row, columns[0].lanes)
            return [b.fadd(value, b.fmul(wide, p)) for value, p in zip(y, of_columns(name, self.type, groups))]

        def with_offsets(y: list[Any]) -> list[Any]:
            (r,) = self._numbers(b, sums)
            (total,) = when("row_scaled", [r], lambda: [b.fmul(row_scale, r)])
            return plus(y, total, "col_offset", "col_groups")

        def with_row_offsets(y: list[Any]) -> list[Any]:
            offset = self._of_row(b, "row_offset", self.type, row, segment, "row_groups")
            return plus(y, offset, "col_term", "segments")

        scaled_values = y
        shifted = when("offsets", y, lambda: with_offsets(scaled_values))
        return when("row_offsets", shifted, lambda: with_row_offsets(shifted))

    def outside(self, b: ir.IRBuilder, total: Any, row: Any, columns: Lanes) -> Any:
        """The sum of several segments, times the scales that segments were not multiplied by."""

        def by_row(y: Any) -> Any:
            return b.fmul(y, splat(b, load_at(b, self._job["row_scale"], row, self.type), columns.lanes))

        def by_columns(y: Any) -> Any:
            return b.fmul(y, self._of_columns(b, "col_scale", self.type, columns, I64(0), "col_groups"))

        for name, scaled in self._ordered(("row_scaled", by_row), ("col_scaled", by_columns)):
            done = getattr(self._flags, name)
            (total,) = replaced_if(b, b.not_(done), [total], lambda y=total, scaled=scaled: [scaled(y)])  # type: ignore[misc]
        return total

    def _ordered(self, rows: Any, columns: Any) -> tuple[Any, Any]:
        """The left operand first, which a transpose has on its right."""
        return (columns, rows) if self.turned else (rows, columns)

    def _numbers(self, b: ir.IRBuilder, accs: list[Any]) -> list[Any]:
        """Integers as floats, those of both planes together."""
        values = [b.sitofp(v, shaped(self.type, v.type)) for v in accs]
        if self.planes == 1:
            return values
        pairs = zip(values[: len(values) // 2], values[len(values) // 2 :])
        return [b.fadd(b.fmul(high, filled(high.type, 256.0)), low) for high, low in pairs]

    def _of_row(self, b: ir.IRBuilder, name: str, element: ir.Type, row: Any, segment: Any, groups: str) -> Any:
        """A parameter of a row in a segment."""
        return load_at(b, self._job[name], self._at(b, row, segment, groups), element)

    def _of_columns(
        self, b: ir.IRBuilder, name: str, element: ir.Type, columns: Lanes, segment: Any, groups: str
    ) -> Any:
        """A parameter of some columns in a segment."""
        place = b.add(b.mul(self._at(b, columns.block, segment, groups), I64(BLOCK)), I64(columns.first))
        return load_at(b, self._job[name], place, ir.VectorType(element, columns.lanes))

    def _at(self, b: ir.IRBuilder, line: Any, segment: Any, groups: str) -> Any:
        """The index of a line's parameters in a segment, where there are so many groups."""
        if isinstance(segment, ir.Constant):  # one segment
            return line
        count = self._job[groups]
        group = b.select(b.icmp_signed(">", count, I64(1)), segment, I64(0))
        return b.add(b.mul(line, count), group)


_FIELDS = (
    "segments", "segment_k", "last_k", "columns",
    "row_groups", "row_scale", "row_zero", "row_sum", "row_offset", "row_outside",
    "col_groups", "col_scale", "zero_groups", "uniform", "col_zero", "col_sum", "col_offset", "col_term", "col_outside",
)  # fmt: skip
