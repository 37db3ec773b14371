"""A product whose arguments have been checked, and how its matrices are computed, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import backend
from fastq.engine.operands import BatchIndex, LineParams, RowParams, longest_segment, row_parameters
from fastq.engine.prepared import BAND, Grid, LeftForm, PreparedProduct
from fastq.engine.reference import activated
from fastq.engine.views import FlatParams
from fastq.errors import NotFiniteError
from fastq.kernels.epilogue import outputs
from fastq.kernels.epilogue.outputs import Output, with_function
from fastq.layout.tiles import Segments, segments
from fastq.products.operands import ArrayOperand, CodeOperand, FloatOperand, Operand, aligned, balanced, operand
from fastq.promotion import result_shape
from fastq.quant.affine import check_finite
from fastq.scheme import ACTIVATIONS, ROW
from fastq.validation import check_bias, check_bits, check_epilogue, word

Array = npt.NDArray[Any]

INTEGERS = Output("int32")


class Extras(NamedTuple):
    """Arguments of a product that np.matmul does not have."""

    bits: Any = 8
    bias: Any = None
    epilogue: Any = None
    activations: str | None = None  # None: as the quantized operand says

    @property
    def given(self) -> bool:
        """Whether there are some."""
        return self.bits != 8 or any(extra is not None for extra in self[1:])


class Task(NamedTuple):
    """A checked product."""

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
    def of(cls, a: Any, b: Any, extras: Extras, wanted: np.dtype[Any]) -> Task:
        """The product of arrays or quantized arrays, in a type that it can have."""
        bits, bias, epilogue, activations = extras
        if type(bits) is not int or bits != 8:
            bits = check_bits(bits)
        batch, m, k, n, shape = result_shape(a.shape, b.shape)
        output = _output(check_epilogue(epilogue, wanted, outputs.ACTIVATIONS), wanted)
        computed = np.dtype(output.computed)
        extra = None if bias is None else check_bias(bias, n, computed)
        left = operand(a, bits, computed, "left").promoted("left")
        right = operand(b, bits, computed, "right").promoted("right")
        left, right = balanced(*aligned(left, right), bits, computed)
        activations = right.activations if activations is None else _checked(activations, left, right)
        if isinstance(left, FloatOperand) and activations != ROW:
            left = left.formed(left.form.like(activations, right.group_along("right")))
            output = output._replace(planes=left.form.planes)
        if isinstance(left, ArrayOperand) and len(right.shape) == 2 and len(left.shape) > 2 and _flat(left.array):
            # Every row of every matrix meets the same right operand: one product with many rows.
            m, batch = m * prod(batch), ()
            left = left.on(left.array.reshape(m, k))
        return cls((a, b), left, right, batch, m, k, n, shape, extra, output)

    @classmethod
    def turned_of(cls, a: Any, b: Any, extras: Extras, wanted: np.dtype[Any]) -> Task:
        """``a @ b`` as the transpose of ``b.T @ a.T``, in which the quantized operand is the right one.

        There it is packed once, or multiplied as it is packed already. The shape of the result is that of the
        transpose. Where `b` is a vector, there may be a bias: a number.
        """
        if 0 not in a.shape:
            a.lines((0,) * (len(a.shape) - 2), "left")  # an error about its scales is one about the left operand
        bias = extras.bias
        task = cls.of(b if b.ndim == 1 else np.swapaxes(b, -1, -2), a.mT, extras._replace(bias=None), wanted)
        if bias is not None:
            bias = np.repeat(check_bias(bias, 1, np.dtype(task.output.computed)), task.n)
        return task._replace(inputs=(a, b), bias=bias, output=task.output._replace(turned=True))

    @property
    def turned(self) -> bool:
        """Whether it is computed as a transpose."""
        return self.output.turned

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The result as a stack of matrices."""
        return prod(self.batch), self.m, self.n

    def each(self) -> Iterator[tuple[int, BatchIndex, BatchIndex]]:
        """Number of a matrix, and its index in the left and the right operand."""
        for number, index in enumerate(np.ndindex(self.batch) if self.batch else ((),)):
            yield number, _within(self.left.shape, index), _within(self.right.shape, index)

    def fill(self, result: Array) -> PreparedProduct | None:
        """Write the stack of products; gives the prepared product, if there was one for all of them."""
        prepared = None
        if result.size and self.k == 0:
            sums = np.zeros(self.n, self.output.computed) if self.bias is None else self.bias
            result[...] = activated(np.asarray(sums), self.output)
        elif result.size:
            with self.named_errors():
                for number, left_at, right_at in self.each():
                    prepared = self.one(result[number], left_at, right_at)[0]
        return None if self.batch else prepared

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Tell where an operand is not finite, with the index in what came in."""
        try:
            yield
        except NotFiniteError:
            for name, x in zip("ab", self.inputs):
                if isinstance(x, np.ndarray):
                    check_finite(x, name)
            transform = self.right.balance_along("right")
            if self.turned and transform is not None:
                b, order = self.inputs[1].astype(self.output.computed), self.right.order_along("right")
                rows = b if b.ndim == 1 else b.mT
                at = np.arange(self.k) if order is None else order
                rows[..., at] = transform.apply(rows[..., at])
                check_finite(b, "b, balanced as a is,")
            raise

    def one(
        self, out: Array, left_at: BatchIndex, right_at: BatchIndex, grid: Grid | None = None
    ) -> tuple[PreparedProduct | None, int]:
        """One matrix of the product; into codes on a grid, if one is given.

        Gives the prepared product, if all rows went through it, and the kernels' status.
        """
        a, b = self.left.lines(left_at, "left"), self.right.lines(right_at, "right")
        longest = longest_segment(a.reach, b.reach)
        if self.output.computed == "int32" and (self.k > longest or out.dtype == np.int64):
            self._one_wide(out, left_at, right_at, longest)
            return None, 0
        prepared, status = self.prepared(a, b, right_at, longest), 0
        size = prepared.rows_at_once
        for part, band, x, params in self.bands(prepared, a, left_at, size):
            if grid is None:
                band(x, params, out[part], self.bias)
            else:
                whole = len(grid.params.scale) == 1
                chosen = grid.params if whole else FlatParams(*(p[part] for p in grid.params))
                status |= band.requantized(x, params, out[part], grid._replace(params=chosen), self.bias)
        return (prepared if size == self.m else None), status

    def bands(
        self, prepared: PreparedProduct, a: LineParams, left_at: BatchIndex, size: int
    ) -> Iterator[tuple[slice, PreparedProduct, Array, RowParams | None]]:
        """So many rows at a time: which, their product, and its left operand with the parameters of codes."""
        for start in range(0, self.m, size):
            part = slice(start, min(start + size, self.m))
            band = prepared if part.stop - start == self.m else prepared.of_rows(part.stop - start)
            x, params = self.left.rows_of(left_at, part), None
            if not band.form.high:
                params = row_parameters(a.rows(part), band.form.m, band.k_segments, band.computed)
                x = x if x.strides[1] == 1 or self.k == 1 else np.ascontiguousarray(x)
            yield part, band, x, params

    def prepared(self, a: LineParams, b: LineParams, right_at: BatchIndex, longest: int) -> PreparedProduct:
        """The product with one right matrix, of left ones with such parameters."""
        k_segments = segment_k(self.k, a, b, longest)
        packed = self.right.right(right_at, k_segments)
        computed = np.dtype(self.output.computed)
        columns = self.right.columns(
            right_at, packed, k_segments, computed, a.offset is not None or b.offset is not None
        )
        left, output = self.left, self.output
        if isinstance(left, FloatOperand):
            groups = 1 if a.group is None else k_segments.segments
            form = LeftForm(self.m, self.k, left.dtype, left.form.high, left.form.balance, groups)
            output = output._replace(row_groups=groups > 1)
        else:
            codes = np.dtype(np.int8 if a.limits.signed else np.uint8)
            form = LeftForm(self.m, self.k, codes, groups=a.row_groups(k_segments))
        return backend().prepare(form, packed, columns, k_segments, output)

    def _one_wide(self, out: Array, left_at: BatchIndex, right_at: BatchIndex, longest: int) -> None:
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
                operands = CodeOperand(a.array[:, start:stop], a.zero), CodeOperand(b.array[start:stop], b.zero)
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


def _checked(activations: Any, left: Operand, right: Operand) -> Any:
    """The way in which floats are quantized on the fly, as a user has named it."""
    activations = word(activations, "activations", ACTIVATIONS)
    if not (isinstance(left, FloatOperand) or isinstance(right, FloatOperand)):
        raise ValueError(
            "activations says how an array of floats is quantized on the fly, but both operands have codes already; "
            f"got {activations!r}: leave it out"
        )
    return activations


def _output(epilogue: Any, wanted: np.dtype[Any]) -> Output:
    name = "int32" if wanted.kind == "i" else str(wanted)
    if epilogue is None or isinstance(epilogue, str):
        return Output(name, epilogue or "")
    return with_function(name, epilogue)


def _flat(array: Array) -> bool:
    """Whether the array's rows can be put one under the other without a copy, or with one that is small."""
    return array.flags.c_contiguous or array.size <= BAND


def _within(shape: tuple[int, ...], index: BatchIndex) -> BatchIndex:
    """The index of a broadcast batch in an operand's own batch dimensions."""
    batch = shape[:-2]
    return tuple(0 if size == 1 else i for size, i in zip(batch, index[len(index) - len(batch) :]))


def segment_k(k: int, a: LineParams, b: LineParams, longest: int) -> Segments:
    """Segments of K within which all parameters are constant and no sum overflows."""
    groups = [lines.group for lines in (a, b) if lines.group is not None and lines.group < k]
    size = gcd(*groups) if groups else k
    if size > longest:
        size = gcd(size, longest) if groups else longest
    return segments(k, size)
