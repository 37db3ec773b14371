"""Quantized arrays in chunks: bigger than the memory of a machine, multiplied by many.

A Dask array whose chunks are QArrays is a :class:`DaskQArray`: :func:`quantize` makes one of a Dask array, lazily,
:func:`from_qarray` of a QArray, :func:`fastq.interop.zarr.open_dask` of a stored array. ``@``, ``np.matmul``,
``np.dot`` and ``np.tensordot`` with it are :func:`matmul`. Once this module is imported, Dask's own arrays may have
chunks of QArrays, too. Dask's own product (``da.matmul(x, q)``, or ``x @ q`` with a Dask array x and a QArray q) is
right as well, but rescales each chunk of K by itself, and adds floats.
"""

from __future__ import annotations

from functools import partial
from math import lcm
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from fastq import api, numpys
from fastq.engine.operands import longest_segment
from fastq.interop import blocks
from fastq.interop.collection import DaskQArray, from_qarray, grain, whole
from fastq.interop.quantizing import known, quantize, with_shared_scales
from fastq.interop.search import top_k
from fastq.kernels.epilogue.outputs import COMPUTED
from fastq.products.operands import CodeOperand, IntegerView, Operand
from fastq.products.task import Extras
from fastq.promotion import EIGHT_BIT, output_type, result_shape
from fastq.qarray.array import QArray
from fastq.qarray.operand import check_summed
from fastq.quant.spec import QuantSpec
from fastq.scheme import ROW
from fastq.typed import Activations
from fastq.validation import check_bias, check_bits, check_dtype

__all__ = ["DaskQArray", "from_qarray", "matmul", "quantize", "top_k"]


def matmul(
    a: Any,
    b: Any,
    *,
    bits: int = 8,
    bias: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike | None = None,
    activations: Activations | None = None,
) -> Any:
    """``fastq.matmul`` of Dask arrays, lazily.

    Where the scales of both operands are constant along K, chunks of K give integer sums, which are added up and
    rescaled once; the scale of a float row (or column) is that of the whole of it, across chunks. So the product is bit
    for bit ``fastq.matmul(a.compute(), b.compute())``. If K is so large that sums might leave int32 (131,000 for 8-bit
    operands), ``fastq.matmul`` adds up the floats of shorter runs, and the integers here are closer. The chunks of a
    float row are held until its largest element is known.

    With float scales of groups, affine or balanced operands, and activations other than "row", each chunk of K gives a
    float sum, and a float operand has scales for each chunk. Every sum is within the error of :func:`fastq.matmul`;
    adding n of them rounds n - 1 times. With one chunk along K, this product is bit for bit the same, too.

    Parameters
    ----------
    a, b : dask.array.Array, DaskQArray, array_like or QArray
        Of the types and shapes that :func:`fastq.matmul` takes. Chunks along K are those of the Dask array; of two,
        those of the quantized one, or else of the right one. The other operand is rechunked.
    bits : int
        Bits for floats that are quantized on the fly.
    bias : array_like, optional
        A number, or one per column, added to the product.
    dtype : data type, optional
        float16, float32 or float64; int32 or int64 for two arrays of 8-bit integers.
    activations : {"row", "group", "two-plane"}, optional
        As in :func:`fastq.matmul`.

    Returns
    -------
    dask.array.Array
        Of the type that :func:`fastq.matmul` gives. What NumPy multiplies there, ``da.matmul`` multiplies here.

    Raises
    ------
    TypeError, ValueError
        For shapes and types that do not fit.
    OverflowError
        When it is computed, if a product of 8-bit integers does not fit int32; pass ``dtype=np.int64`` then.

    Examples
    --------
    >>> import numpy as np, dask.array as da, fastq as fq
    >>> from fastq.interop.dask import matmul
    >>> x = da.full((2, 8), 100, dtype=np.int8, chunks=(2, 4))
    >>> matmul(x, x.T).compute()  # da.matmul wraps around in int8
    array([[80000, 80000],
           [80000, 80000]], dtype=int32)
    """
    a, b = (x if isinstance(x, da.Array | Operand) else np.asarray(x) for x in (a, b))
    bits = check_bits(bits)
    natural = output_type(a.dtype, b.dtype, (_is_quantized(a), _is_quantized(b)))
    if natural is None:
        return da.matmul(a, b)
    wanted = natural if dtype is None else check_dtype(dtype, natural)
    n = result_shape(a.shape, b.shape)[3]
    vectors = a.ndim == 1, b.ndim == 1
    integer = wanted.kind == "i"
    computed = wanted if integer else np.dtype(COMPUTED[wanted.name])
    extra = None if bias is None else check_bias(bias, n, np.dtype(np.int32) if integer else computed)
    if integer and extra is not None:
        computed = np.dtype(np.int64)
    extras = Extras(bits, activations=activations)
    y = _product(*_aligned(a[None] if vectors[0] else a, b[:, None] if vectors[1] else b), extras, computed)
    if extra is not None or computed != wanted:
        biases = [] if extra is None else [da.from_array(extra.astype(computed), (y.chunks[-1],))]
        y = da.map_blocks(blocks.delivered, y, *biases, wanted=wanted, dtype=wanted, meta=_empty(y.ndim, wanted))
    return y.squeeze(tuple(place for place, vector in zip((-2, -1), vectors) if vector)) if any(vectors) else y


def _is_quantized(x: Any) -> bool:
    return isinstance(_meta(x), Operand)


def _meta(x: Any) -> Any:
    """An array of the form of an operand: for a Dask array, of its chunks."""
    return x._meta if isinstance(x, da.Array) else x


def _empty(ndim: int, dtype: np.dtype[Any]) -> Any:
    return np.empty((0,) * ndim, dtype)


def _aligned(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as Dask arrays, with the same chunks along K."""
    sides = ((b, b.ndim - 2), (a, a.ndim - 1))
    lazy = [side for side in sides if isinstance(side[0], da.Array)]
    leader, at = next((side for side in lazy if _is_quantized(side[0])), lazy[0])
    lengths = whole(leader.chunks[at], lcm(*(grain(x, at) for x, at in sides)))
    right, left = (_cut(x, at, lengths, name) for (x, at), name in zip(sides, "ba"))
    return left, right


def _cut(x: Any, axis: int, lengths: tuple[int, ...], name: str) -> Any:
    """An operand as a Dask array with these chunks along an axis."""
    cuts = tuple(lengths if i == axis else "auto" for i in range(x.ndim))
    if isinstance(x, QArray):
        return from_qarray(x, cuts)
    return known(x, name).rechunk({axis: lengths}) if isinstance(x, da.Array) else da.from_array(x, cuts)


def _product(a: Any, b: Any, extras: Extras, computed: np.dtype[Any]) -> Any:
    """The product of two arrays of two dimensions or more."""
    bits, activations = extras.bits, extras.activations
    work: Any = partial(blocks.product, bits=bits, dtype=computed, activations=activations)
    constant = [_constant(x, at, side) for x, at, side in ((a, a.ndim - 1, "left"), (b, b.ndim - 2, "right"))]
    ways = {activations} if activations else {getattr(_meta(x), "activations", ROW) for x in (a, b)}
    if a.numblocks[-1] > 1 and all(constant) and ways == {ROW}:
        a, b = _codes(a, bits, computed, a.ndim - 1, "a"), _codes(b, bits, computed, b.ndim - 2, "b")
        fits = a.shape[-1] <= longest_segment(_reach(a), _reach(b))
        work = partial(blocks.integer_sums, dtype=np.dtype(np.int32 if fits else np.int64))
    batch = range(max(a.ndim, b.ndim) - 2)
    i, k, j = (len(batch) + n for n in range(3))
    left, right = ((*batch[len(batch) - x.ndim + 2 :], *matrix) for x, matrix in ((a, (i, k)), (b, (k, j))))
    ones = {k: lambda n: 1}
    numbers: Any = {"dtype": computed, "meta": _empty(len(batch) + 3, computed)}
    parts = da.blockwise(work, (*batch, i, k, j), a, left, b, right, adjust_chunks=ones, **numbers)
    added, finished = (partial(f, computed=computed) for f in (blocks.added, blocks.finished))
    numbers["meta"] = _empty(len(batch) + 2, computed)
    return da.reduction(parts, added, finished, k, combine=added, concatenate=False, **numbers)


def _constant(x: Any, summed: int, side: str) -> bool:
    """Whether a chunk's scale is constant along the axis that is summed over."""
    form = _meta(x)
    if not isinstance(form, QArray):
        return True
    check_summed(form, (summed,), side, x.shape)
    grouped = form.axis == summed and form.group_size is not None and form.axis_scale is None
    return not grouped and form.scheme != "affine" and form.balance is None and form.order is None


def _codes(x: Any, bits: int, dtype: np.dtype[Any], axis: int, name: str) -> Any:
    """An operand as integers: floats under scales that chunks share."""
    if _is_quantized(x) or x.dtype in EIGHT_BIT:
        return x
    sample = api.quantize(np.ones((1,) * x.ndim, dtype), bits, axis=axis)
    return with_shared_scales(x.astype(dtype), QuantSpec(bits, axis, None, "symmetric"), sample, name)


def _reach(x: Any) -> int:
    """The largest magnitude of the integers that are multiplied."""
    form = _meta(x)
    return IntegerView(form if _is_quantized(x) else CodeOperand(form), "x").reach


def _dot(a: Any, b: Any, out: Any = None) -> Any:
    plain = out is None and all(np.ndim(x) in (1, 2) for x in (a, b))
    return matmul(a, b) if plain else None


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    if np.ndim(a) != 2 or np.ndim(b) != 2:
        return None
    first, second = (-1, 0) if axes == 1 else axes if isinstance(axes, tuple | list) else ((), ())
    (left, *more), (right, *others) = ((*np.ravel(i).tolist(), None)[:2] for i in (first, second))
    if None in (left, right) or [*more, *others] != [None, None]:
        return None  # over no axis, or over both
    a, b = (x if isinstance(x, da.Array | Operand) else np.asarray(x) for x in (a, b))
    return matmul(a if left in (1, -1) else a.T, b if right in (0, -2) else b.T)


# NumPy's functions that are ours with a DaskQArray among their operands; None: Dask's is as good.
PRODUCTS = {numpys.dot: _dot, numpys.tensordot: _tensordot}
