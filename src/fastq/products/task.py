"""A product whose arguments have been checked, and how its matrices are computed, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import multiply, plain, run
from fastq.engine.memory import workspace
from fastq.engine.plan import Plan, plan_matmul, this_machine
from fastq.engine.prepack import Columns, Lines, Right, longest_segment
from fastq.errors import NotFiniteError
from fastq.kernels.outputs import ACTIVATIONS, Output, with_function
from fastq.layout.tiles import DEPTH, Segments, segments
from fastq.products.operands import Codes, Floats, Operand, PlainArray, balanced, operand
from fastq.quant.affine import check_finite
from fastq.rules import check_bias, check_bits, check_epilogue, result_shape

Array = npt.NDArray[Any]
Index = tuple[int, ...]

INTEGERS = Output("int32")
# Left codes are packed all at once, so that nothing is written before all of them are known to be finite; more than
# this many bytes are packed and multiplied in bands of rows, for which the workspace between calls is large enough.
MOST_LEFT, BAND = 256 << 20, 24 << 20


class Task(NamedTuple):
    """A product whose arguments have been checked."""

    inputs: tuple[Any, Any]  # as they came in, but as arrays
    left: Operand
    right: Operand
    batch: tuple[int, ...]
    m: int
    k: int
    n: int
    shape: tuple[int, ...]  # of the result
    bias: Array | None
    output: Output

    @classmethod
    def of(cls, a: Any, b: Any, bits: Any, bias: Any, epilogue: Any, wanted: np.dtype[Any]) -> Task:
        """The product of arrays or quantized arrays, in a type that it can have."""
        if type(bits) is not int or bits != 8:
            bits = check_bits(bits)
        batch, m, k, n, shape = result_shape(a.shape, b.shape)
        output = _output(check_epilogue(epilogue, wanted, ACTIVATIONS), wanted)
        computed = np.dtype(output.computed)
        extra = None if bias is None else check_bias(bias, n, computed)
        left = operand(a, bits, computed, "left").promoted("left")
        right = operand(b, bits, computed, "right").promoted("right")
        left, right = balanced(left, right, bits, computed)
        if isinstance(left, PlainArray) and len(right.shape) == 2 and len(left.shape) > 2 and _flat(left.array):
            # Every row of every matrix meets the same right operand: one product with many rows.
            m, batch = m * prod(batch), ()
            left = left.on(left.array.reshape(m, k))
        return cls((a, b), left, right, batch, m, k, n, shape, extra, output)

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The result as a stack of matrices."""
        return prod(self.batch), self.m, self.n

    def each(self) -> Iterator[tuple[int, Index, Index]]:
        """Number of a matrix, and its index in the left and the right operand."""
        for number, index in enumerate(np.ndindex(self.batch) if self.batch else ((),)):
            yield number, _within(self.left.shape, index), _within(self.right.shape, index)

    def fill(self, result: Array) -> None:
        """Write the stack of products."""
        if result.size and self.k == 0:
            sums = np.zeros(self.n, np.result_type(self.output.computed)) if self.bias is None else self.bias
            result[...] = plain.activated(np.asarray(sums), self.output)
        elif result.size:
            with self.named_errors():
                for number, left_at, right_at in self.each():
                    self.one(result[number], left_at, right_at)

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Tell where an operand is not finite, with the index in what came in."""
        try:
            yield
        except NotFiniteError:
            for name, x in zip("ab", self.inputs):
                if isinstance(x, np.ndarray):
                    check_finite(x, name)
            raise

    def one(self, out: Array, left_at: Index, right_at: Index, grid: multiply.Grid | None = None) -> int:
        """One matrix of the product; into codes on a grid, if one is given. Returns the kernels' status."""
        left, right = self.left, self.right
        if self.output.computed == "int32":
            longest = longest_segment(left.lines(left_at, "left").reach, right.lines(right_at, "right").reach)
            if self.k > longest or out.dtype == np.int64:
                self._one_wide(out, left_at, right_at, longest)
                return 0
        a, cuts, packed, columns, plan = self.pieces(left_at, right_at)
        status = 0
        size = rows_at_once(self.m, cuts, plan)
        for start in range(0, self.m, size):
            part = slice(start, min(start + size, self.m))
            mine = plan if size == self.m else _plan(part.stop - start, packed, cuts, self.output)
            with workspace() as work:
                x = left.rows_of(left_at, part)
                if isinstance(left, Floats):
                    tiles = run.left_from_floats(work, x, left.bits, left.balance, cuts, mine)
                    if tiles is None:
                        raise NotFiniteError("a, balanced as b is, must be finite; it overflows its float type")
                else:
                    tiles = run.left_from_codes(work, x, _rows(a, part), cuts, mine, columns.scale.dtype)
                operands = work, tiles, packed, columns, cuts, out[part]
                if grid is None:
                    multiply.matmul(*operands, self.bias, mine)
                else:
                    found = grid.found if len(grid.found.scale) == 1 else run.Parameters(*(p[part] for p in grid.found))
                    status |= multiply.matmul_requantized(*operands, grid._replace(found=found), self.bias, mine)
        return status

    def pieces(self, left_at: Index, right_at: Index) -> tuple[Lines, Segments, Right, Columns, Plan]:
        """What the product of two matrices is made of, but for the left operand's data."""
        a, b = self.left.lines(left_at, "left"), self.right.lines(right_at, "right")
        cuts = cut(self.k, a, b, longest_segment(a.reach, b.reach))
        packed = self.right.right(right_at, cuts)
        computed = np.dtype(self.output.computed)
        columns = self.right.columns(right_at, packed, cuts, computed, a.offset is not None or b.offset is not None)
        return a, cuts, packed, columns, _plan(self.m, packed, cuts, self.output)

    def _one_wide(self, out: Array, left_at: Index, right_at: Index, longest: int) -> None:
        """An integer product whose sums may leave int32: parts of K that cannot, added up in int64."""
        total = np.zeros(out.shape, np.int64)
        if self.bias is not None:
            total += self.bias
        part = np.empty(out.shape, np.int32)
        if self.k <= longest:
            self._replace(bias=None).one(part, left_at, right_at)
            total += part
        else:
            a, b = self.left.codes_of(left_at, "left"), self.right.codes_of(right_at, "right")
            for start in range(0, self.k, longest):
                stop = min(start + longest, self.k)
                operands = Codes(a.array[:, start:stop], a.zero), Codes(b.array[start:stop], b.zero)
                shorter = Task(operands, *operands, (), self.m, stop - start, self.n, out.shape, None, INTEGERS)
                shorter.one(part, (), ())
                total += part
        limits = np.iinfo(out.dtype)
        if total.min() < limits.min or total.max() > limits.max:
            worst = total.flat[np.abs(total).argmax()]
            raise OverflowError(
                f"the product of 8-bit integers must fit {out.dtype}, but with K = {self.k} it reaches {worst}; "
                "pass out=np.empty(shape, np.int64) for the exact result"
            )
        out[...] = total


def _output(epilogue: Any, wanted: np.dtype[Any]) -> Output:
    name = "int32" if wanted.kind == "i" else str(wanted)
    if epilogue is None or isinstance(epilogue, str):
        return Output(name, epilogue or "")
    return with_function(name, epilogue)


def _flat(array: Array) -> bool:
    """Whether the array's rows can be put one under the other without a copy, or with one that is small."""
    return array.flags.c_contiguous or array.size <= BAND


def _within(shape: tuple[int, ...], index: Index) -> Index:
    """The index of a broadcast batch in an operand's own batch dimensions."""
    own = shape[:-2]
    return tuple(0 if size == 1 else i for size, i in zip(own, index[len(index) - len(own) :]))


def _plan(m: int, packed: Right, cuts: Segments, output: Output) -> Plan:
    return plan_matmul(m, packed.n, cuts, packed.form, output, this_machine())


def _left_bytes(m: int, cuts: Segments, plan: Plan) -> int:
    """Bytes of the left codes of m rows in tiles."""
    return m * cuts.tiles * DEPTH * (1 if plan.unit is None else plan.unit.left_bytes)


def rows_at_once(m: int, cuts: Segments, plan: Plan) -> int:
    """How many of m rows are multiplied at a time."""
    if _left_bytes(m, cuts, plan) <= MOST_LEFT:
        return m
    return max(1, BAND // _left_bytes(DEPTH, cuts, plan)) * DEPTH  # whole tiles, also of packed codes


def all_at_once(m: int, k: int) -> bool:
    """Whether that is all of them, on every machine and however K is cut."""
    return 8 * m * (k + DEPTH) <= MOST_LEFT


def _rows(a: Lines, rows: slice) -> Lines:
    """Parameters of some rows of a left operand."""

    def of(values: Array | None) -> Array | None:
        return values if values is None or len(values) == 1 else values[rows]

    return replace(a, scale=of(a.scale), zero=of(a.zero), offset=of(a.offset))


def cut(k: int, a: Lines, b: Lines, longest: int) -> Segments:
    """Segments of K within which all parameters are constant and no sum overflows."""
    groups = [lines.group for lines in (a, b) if lines.group is not None and lines.group < k]
    size = gcd(*groups) if groups else k
    if size > longest:
        size = gcd(size, longest) if groups else longest
    return segments(k, size)
