"""Functions of the blocks of a Dask array: of NumPy arrays and QArrays.

Quantizing takes two passes. The first finds the :func:`extremes` of every block, which give the :func:`parameters`; the
second makes :func:`coded` blocks. A product that is summed over blocks is made of :class:`Part` s.

Each thread of a pool works on a block of its own, so each block uses one kernel thread.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastq.interop.chunks  # noqa: F401  whoever runs these functions knows the chunks
from fastq import api
from fastq.errors import NotFiniteError
from fastq.machine import pool
from fastq.products.sums import sums
from fastq.promotion import as_floats, is_float
from fastq.qarray.array import QArray
from fastq.qarray.of_task import as_qarray
from fastq.quant import affine, groups
from fastq.quant.spec import Quantized, QuantParams, QuantSpec, expand

Array = npt.NDArray[Any]


# Quantizing


@pool.alone()
def quantized(x: Array, *parameters: Array, block_id: tuple[int, ...] = (), **form: Any) -> QArray:
    """A block that shares no scale with another, or has a given scale (and zero point)."""
    given: dict[str, Any] = dict(zip(("scale", "zero_point"), parameters))
    try:
        return _prepacked(api.quantize(x, **form, **given))
    except NotFiniteError:
        affine.check_finite(x, _block_name("x", block_id))
        raise


def _prepacked(q: QArray) -> QArray:
    """The array, packed along an axis that products can sum over, where that takes less memory."""
    if q.bits < 8 and q.ndim > 1:
        if q.axis == q.ndim - 1:
            q.mT.prepack()
        elif q.axis in (None, q.ndim - 2):
            q.prepack()
    return q


@pool.alone()
def extremes(x: Array, spec: QuantSpec, block_id: tuple[int, ...] = (), name: str = "x") -> Array:
    """Smallest and largest element of each run that shares a scale, one after the other along the axis (None: 0).

    The extremes of extremes are those of the elements, so the result may be passed in again.
    """
    ends = affine.find(as_floats(x, name), spec)
    if ends is None:
        affine.check_finite(x, _block_name(name, block_id))
    assert ends is not None
    at, shape = spec.axis or 0, ends[0].shape
    return np.stack(ends, axis=at + 1).reshape(*shape[:at], 2 * shape[at], *shape[at + 1 :])


def merged(pairs: Array, spec: QuantSpec, axis: Any, keepdims: bool) -> Array:
    """Extremes of extremes, as :func:`dask.array.reduction` calls it."""
    return extremes(pairs, spec)


def _block_name(name: str, block_id: tuple[int, ...]) -> str:
    """A block in Dask's words."""
    return f"{name}.blocks[{', '.join(map(str, block_id))}]" if block_id else name


@pool.alone()
def parameters(pairs: Array, spec: QuantSpec) -> QuantParams:
    """The parameters that :func:`fastq.quantize` would choose, from the extremes of every run."""
    ends = affine.find(pairs, spec._replace(group=None if spec.group is None else 2))
    assert ends is not None
    params = affine.chosen(*ends, spec)
    return groups.widened(params, spec) if spec.integer else params


@pool.alone()
def coded(
    x: Array,
    params: QuantParams,
    spec: QuantSpec,
    starts: tuple[int, ...] = (),
    name: str = "x",
    block_id: tuple[int, ...] = (),
) -> QArray:
    """A block's codes under parameters that it shares with others; `starts`: where blocks begin along the axis.

    The operand "a" of a product does not use the lowest code, as floats on the left do not.
    """
    if params.group_scale is not None:
        assert spec.axis is not None
        assert spec.group is not None
        first = starts[block_id[spec.axis]] // spec.group
        places = np.arange(first, first + spec.parameter_shape(x.shape)[spec.axis])
        of_groups = (None if p is None else p.take(places, spec.axis) for p in params[1:])
        params = QuantParams(params.scale, *of_groups)
    values = as_floats(x, "x")
    codes, _ = affine.quantize(values, spec, params.by_group)
    if name == "a":
        np.maximum(codes, 1 - 2 ** (spec.bits - 1), out=codes)
    dtype = x.dtype if is_float(x.dtype) else values.dtype
    q = as_qarray(Quantized(codes, params), spec, dtype.newbyteorder("="))
    return q if name != "x" else _prepacked(q)


# Multiplying


class Part(NamedTuple):
    """A product over some of K: sums, and the scales, if there are any, that they must still be multiplied by."""

    sums: Array
    row: Array | None = None
    column: Array | None = None

    def plus(self, other: Part, dtype: np.dtype[Any]) -> Part:
        """Both together: integers where the scales are the same, floats of `dtype` where they are not."""
        scales = zip(self[1:], other[1:])
        if all(p is q or (p is not None and q is not None and np.array_equal(p, q)) for p, q in scales):
            return self._replace(sums=self.sums + other.sums)
        return Part(self.value(dtype) + other.value(dtype))

    def value(self, dtype: np.dtype[Any]) -> Array:
        """The product itself, in the order of operations that the epilogue of kernels has."""
        if dtype.kind == "i":
            return _narrowed(self.sums, dtype)
        with np.errstate(over="ignore"):
            y = self.sums.astype(dtype, copy=False)
            for scale in self[1:]:
                y = y if scale is None else y * scale.astype(dtype, copy=False)
        return y


def _narrowed(sums: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    if sums.dtype != dtype and sums.size and (sums.min() < limits.min or sums.max() > limits.max):
        worst = sums.flat[np.abs(sums).argmax()]
        raise OverflowError(
            f"the product of 8-bit integers must fit {dtype}, but it reaches {worst}; pass dtype=np.int64 for the "
            "exact result"
        )
    return sums.astype(dtype, copy=False)


@pool.alone()
def product(a: Any, b: Any, **options: Any) -> Part:
    """The product of two blocks, which is final: over all of K, or in floats that will be added."""
    try:
        return Part(api.matmul(a, b, **options))
    except NotFiniteError as error:
        raise NotFiniteError(f"{error}; indices are those of a chunk") from None


@pool.alone()
def integer_sums(a: Any, b: Any, dtype: np.dtype[Any]) -> Part:
    """The product of two blocks in integers, whose scales do not vary along K."""
    return Part(sums(a, b, dtype), _scale(a, -1), _scale(b, -2))


def _scale(x: Any, summed: int) -> Array | None:
    """The scale of a block, in a shape that broadcasts to a product's; None: 1."""
    if not isinstance(x, QArray):
        return None
    if x.axis_scale is not None and x.axis == x.ndim + summed:
        return x.axis_scale
    return expand(x.scale, x.shape, x.axis, x.group_size)


def added(parts: Any, computed: np.dtype[Any], axis: Any = None, keepdims: bool = True) -> Part:
    """Several parts as one, as :func:`dask.array.reduction` calls it."""
    total: Part = reduce(partial(Part.plus, dtype=computed), parts if isinstance(parts, list) else [parts])
    return total


def finished(parts: Any, computed: np.dtype[Any], axis: Any = None, keepdims: bool = True) -> Array:
    """The product of several parts, as :func:`dask.array.reduction` calls it."""
    return added(parts, computed).value(computed)


def delivered(y: Array, bias: Array | None = None, *, wanted: np.dtype[Any]) -> Array:
    """A product plus its bias, in the wanted type."""
    with np.errstate(over="ignore"):
        y = y if bias is None else y + bias
        return _narrowed(y, wanted) if wanted.kind == "i" else y.astype(wanted)


def dequantized(q: QArray, dtype: np.dtype[Any]) -> Array:
    """Back to numbers."""
    return q.dequantize(dtype)
