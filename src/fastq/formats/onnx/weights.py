"""Which initializers of an ONNX model are quantized weights, and what their codes mean: a function per operator.

================ ====================== ====================================================================
operator         its weight             scale and zero point
================ ====================== ====================================================================
DequantizeLinear input 0, of 2 to 8     inputs 1 and 2: of the tensor, along an axis (of the last two),
                 bits                   or by block
MatMulInteger    inputs 0 and 1         zero points: inputs 2 and 3, of the matrix, of rows of the left or columns
                                        of the right; the scale of the right is what the result is multiplied by,
                                        ``Mul(Cast(y), Mul(scale of x, scale))`` as onnxruntime's quantize_dynamic
                                        writes it; else it is 1
QLinearMatMul    inputs 0 and 3         inputs 1 and 2, 4 and 5, likewise
MatMulNBits      input 1                see :mod:`fastq.formats.onnx.nbits`
================ ====================== ====================================================================

Where the weight is no initializer, but what QuantizeLinear makes of one of floats, that is rounded when it is read. A
quantized array has the shape of the initializer, so that ``x @ w`` is the product; that of MatMulNBits has the shape
(N, K), and its product is ``x @ w.T``. What is missing, or is computed by the graph, leaves an initializer plain; so do
16 and 32 bits, and an axis that is none of the last two (kernels of convolutions). Source: Operators.md of onnx 1.23.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from fastq.errors import FileFormatError
from fastq.formats.binary import Array
from fastq.formats.onnx import nbits
from fastq.formats.onnx.graph import Graph, Node
from fastq.formats.onnx.rounding import Grain, Rounded
from fastq.formats.onnx.tensors import Tensor
from fastq.formats.onnx.types import FLOATS, NAMES, CodeType
from fastq.layout.tiles import ceil_div
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts


class Linear(NamedTuple):
    """Codes in an initializer, and the parameters of ``scale * (code - zero_point)``."""

    codes: Tensor | Rounded
    scale: Tensor | None  # None: 1
    zero: Tensor | None
    axis: int  # along which parameters differ, or blocks lie
    block: int = 0
    output: str = ""  # the type of the numbers; empty: that of scale

    @property
    def name(self) -> str:
        """The name of the initializer."""
        return self.codes.name

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the quantized array."""
        return self.codes.shape

    @property
    def kind(self) -> str:
        """Width and form."""
        assert self.codes.codes is not None
        return _kind(self.codes.codes.bits, self.group)

    @property
    def group(self) -> int | None:
        """The size of groups, if there are several along the axis."""
        several = self.scale is not None and self.scale.size > 1
        return self.block if several and 0 < self.block < self.shape[self.axis] else None

    def read(self) -> QArray:
        """The quantized array; ValueError if the parameters do not fit."""
        kind = self.codes.codes
        assert kind is not None
        if self.block < 0:
            raise ValueError(f"block_size must not be negative, got {self.block}")
        if self.scale and self.scale.kind not in FLOATS:
            raise ValueError(f"its scale must be of floats, got {self.scale.kind}")
        scale = np.ones((), np.float32) if self.scale is None else self.scale.held()
        zero = None if self.zero is None else self.zero.held()
        if zero is not None and self.zero is not None and self.zero.kind != kind.name:
            raise ValueError(f"its zero point must be of its type, {kind.name}, but is of {self.zero.kind}")
        if zero is not None and kind.signed and not zero.any():
            zero = None
        if zero is None and not kind.signed:
            zero = np.zeros((), np.uint8)
        sizes = {values.size for values in (scale, zero) if values is not None}
        axis = None if sizes == {1} else self.axis if self.block else self._shared
        if self.block and axis is not None:
            blocks = tuple(ceil_div(n, self.block) if i == axis else n for i, n in enumerate(self.shape))
            if scale.shape != blocks:
                raise ValueError(f"its scale must have one entry per block, shape {blocks}, got shape {scale.shape}")
        dtype = self.output or None
        if dtype == "bfloat16" and not find_spec("ml_dtypes"):
            dtype = None
        return from_parts(
            self.codes.held(), self._along(scale), bits=kind.bits, axis=axis, group_size=self.group, dtype=dtype,
            zero_point=None if zero is None else self._along(zero),
        )  # fmt: skip

    @property
    def _shared(self) -> int:
        """The axis along which elements share parameters that differ along the other of the last two."""
        return len(self.shape) - 1 if self.axis == len(self.shape) - 2 else len(self.shape) - 2

    def _along(self, values: Array) -> Array:
        """Parameters in a shape that broadcasts: one for all, or one per index of the axis."""
        if values.size == 1:
            return values.reshape(())
        if values.ndim == 1 and not self.block:
            return values.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])
        return values


class NBits(NamedTuple):
    """A weight of MatMulNBits."""

    codes: Tensor
    scales: Tensor
    zero_points: Tensor | None
    form: nbits.Form
    problem: str = ""

    @property
    def name(self) -> str:
        """The name of the initializer."""
        return self.codes.name

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the quantized array."""
        return self.form.n, self.form.k

    @property
    def kind(self) -> str:
        """Width and form."""
        return _kind(self.form.bits, self.form.block if 0 < self.form.block < self.form.k else None)

    def read(self) -> QArray:
        """The quantized array; ValueError if there is none."""
        if self.problem:
            raise ValueError(self.problem)
        self.form.check()
        zeros = None if self.zero_points is None else self.zero_points.held()
        return nbits.qarray(self.codes.held(), self.scales.held(), zeros, self.form)


Weight = Linear | NBits


def quantized(graph: Graph) -> Iterator[Weight]:
    """What the nodes of a graph say of initializers."""
    for node in graph.nodes:
        yield from OPERATORS[node.operator](graph, node)


def dequantize_linear(graph: Graph, node: Node) -> Iterator[Weight]:
    """DequantizeLinear (opset 10 to 28): codes, scale, zero point."""
    if not node.input(1):
        return
    block, output = node.integers.get("block_size", 0), node.integers.get("output_dtype", 0)
    axis = node.integers.get("axis", 1)
    found = _linear(graph, node, (0, 1, 2), axis, block)
    if found:
        yield found._replace(output=NAMES.get(output, ""))


def matmul_integer(graph: Graph, node: Node) -> Iterator[Weight]:
    """MatMulInteger (opset 10): a, b, their zero points."""
    left, right = _linear(graph, node, (0, None, 2), -2), _linear(graph, node, (1, None, 3), -1)
    if left:
        yield left
    if right:
        scale = _scale_of_result(graph, node)
        fits = scale is not None and scale.size in (1, *right.shape[-1:])
        yield right._replace(scale=scale if fits else None)


def qlinear_matmul(graph: Graph, node: Node) -> Iterator[Weight]:
    """QLinearMatMul (opset 10 and 21): a, its scale and zero point, b, its scale and zero point, and those of y."""
    for inputs, axis in (((0, 1, 2), -2), ((3, 4, 5), -1)):
        found = _linear(graph, node, inputs, axis)
        if found:
            yield found


def matmul_nbits(graph: Graph, node: Node) -> Iterator[Weight]:
    """MatMulNBits (domain com.microsoft): a, B, scales, zero points, g_idx, bias."""
    codes, scales, zeros = (graph.constant(node.input(number)) for number in (1, 2, 3))
    if graph.initializers.get(node.input(1)) is not codes:
        return
    if codes is None or scales is None or (node.input(3) and zeros is None):
        return
    of = node.integers
    form = nbits.Form(of.get("K", 0), of.get("N", 0), of.get("bits", 4), of.get("block_size", 0))
    problem = ""
    if node.input(4):
        problem = "MatMulNBits has the input g_idx, which is deprecated and not read"
    if of.get("weight_prepacked", 0):
        problem = "MatMulNBits has weight_prepacked, so its codes lie in the layout of some GPU"
    yield NBits(codes, scales, zeros, form, problem)


OPERATORS: dict[str, Callable[[Graph, Node], Iterator[Weight]]] = {
    "DequantizeLinear": dequantize_linear,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
    "MatMulNBits": matmul_nbits,
}


def read(graph: Graph, weight: Weight) -> QArray:
    """The quantized array; FileFormatError if there is none."""
    try:
        q = weight.read()
        _check_finite(q)
        return q
    except FileFormatError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        return graph.file.fail(weight.codes.place, str(error))


def reader(graph: Graph, weight: Weight) -> Callable[[], QArray]:
    """How to read it."""
    return partial(read, graph, weight)


def _check_finite(q: QArray) -> None:
    """Numbers beyond the logical type are infinite in ONNX, but fastq would keep them finite."""
    largest = float(np.finfo(q.dtype if q.dtype.kind == "f" else np.float32).max)
    if q.size and float(np.abs(q.scale).max()) * 2**q.bits > largest:
        with np.errstate(over="ignore"):
            if not np.abs(q.dequantize(q.scale.dtype)).max() < largest:
                raise ValueError(f"its numbers must be finite, but some are too large for {q.dtype}")


def _kind(bits: int, group: int | None) -> str:
    return f"{bits} bits" + (f", groups of {group}" if group else "")


def _linear(graph: Graph, node: Node, inputs: tuple[int, int | None, int], axis: int, block: int = 0) -> Linear | None:
    """Codes, scale and zero point, if they are constants, and such that a quantized array can hold."""
    names = [node.input(number) if number is not None else "" for number in inputs]
    codes, scale, zero = _codes(graph, names[0]), graph.constant(names[1]), graph.constant(names[2])
    missing = any(name and constant is None for name, constant in zip(names[1:], (scale, zero)))
    if missing or codes is None or codes.codes is None or codes.codes.bits > 8:
        return None
    ndim = len(codes.shape)
    axis = axis + ndim if axis < 0 else axis
    single = all(tensor is None or tensor.size == 1 for tensor in (scale, zero))
    if not single and not (0 <= axis < ndim and (block or (ndim > 1 and axis >= ndim - 2))):
        return None
    return Linear(codes, scale, zero, axis, block)


def _codes(graph: Graph, name: str) -> Tensor | Rounded | None:
    """An initializer of codes; or one of floats, behind QuantizeLinear, that nothing else takes."""
    if name in graph.initializers:
        return graph.initializers[name]
    node = graph.made_by(name, "QuantizeLinear")
    numbers = graph.initializers.get(node.input(0)) if node else None
    if node is None or numbers is None or numbers.kind not in FLOATS or numbers.name in graph.taken:
        return None
    scale, zero = graph.constant(node.input(1)), graph.constant(node.input(2))
    of = node.integers
    kind = zero.codes if zero else CodeType.of(NAMES.get(of.get("output_dtype", 0), "uint8"))
    usual = scale is not None and scale.kind in FLOATS and not of.get("precision", 0)
    if scale is None or not usual or kind is None or (node.input(2) and zero is None):
        return None
    return Rounded(numbers, scale, zero, kind, Grain(of.get("axis", 1), of.get("block_size", 0)))


def _scale_of_result(graph: Graph, node: Node) -> Tensor | None:
    """The constant that the product of integers is multiplied by, as a number or by column."""
    cast = graph.used_by(node.outputs[0], "Cast") if node.outputs else None
    product = graph.used_by(cast.outputs[0], "Mul") if cast and cast.outputs else None
    if cast is None or product is None:
        return None
    factors = [name for name in product.inputs if name != cast.outputs[0]]
    scales = graph.made_by(factors[0], "Mul") if factors else None
    for name in reversed(scales.inputs if scales else factors):
        constant = graph.constant(name)
        if constant is not None and constant.kind in FLOATS:
            return constant
    return None
