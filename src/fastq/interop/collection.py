"""A Dask array of QArrays."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from fastq import numpys
from fastq.interop import blocks
from fastq.layout.tiles import ceil_div
from fastq.qarray.array import QArray


class DaskQArray(da.Array):
    """A Dask array of QArrays, whose products are those of :func:`fastq.interop.dask.matmul`.

    Slices, ``rechunk``, transposes, ``persist``, products with numbers and the like are DaskQArrays again. ``dtype`` is
    the logical type; :meth:`dequantize` gives a Dask array of it.

    Examples
    --------
    >>> import dask.array as da, fastq as fq
    >>> from fastq.interop.dask import quantize
    >>> q = quantize(da.eye(64, chunks=32), bits=4, axis=0)
    >>> type(q[:32].T).__name__, q[:32].T.shape
    ('DaskQArray', (64, 32))
    >>> (da.ones((3, 64), chunks=32) @ q).compute().shape
    (3, 64)
    """

    __slots__ = ()
    __array_priority__ = da.Array.__array_priority__ + 1

    def dequantize(self, dtype: npt.DTypeLike | None = None) -> Any:
        """The numbers, lazily; see :meth:`fastq.QArray.dequantize`.

        Examples
        --------
        >>> import dask.array as da
        >>> from fastq.interop.dask import quantize
        >>> quantize(da.eye(2), bits=4, axis=0).dequantize().compute()
        array([[1., 0.],
               [0., 1.]])
        """
        wanted = np.dtype(self.dtype if dtype is None else dtype)
        return self.map_blocks(blocks.dequantized, wanted, dtype=wanted, meta=np.empty((0,) * self.ndim, wanted))

    def __matmul__(self, other: Any) -> Any:
        return numpys.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return numpys.matmul(other, self)

    def dot(self, other: Any) -> Any:
        """``np.dot(q, other)``."""
        return numpys.dot(self, other)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from fastq.interop.dask import matmul

        if ufunc is numpys.matmul and method == "__call__":
            return matmul(*inputs, **kwargs)
        return kept(super().__array_ufunc__(ufunc, method, *inputs, **kwargs))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from fastq.interop.dask import PRODUCTS

        y = PRODUCTS[func](*args, **kwargs) if func in PRODUCTS else None
        return kept(super().__array_function__(func, types, args, kwargs)) if y is None else y

    def __reduce__(self) -> tuple[Any, ...]:
        return DaskQArray, super().__reduce__()[1]

    def _rebuild(self, dsk: Any, *, rename: Any = None) -> Any:
        return kept(super()._rebuild(dsk, rename=rename))


def _keeping(name: str) -> Any:
    """A method of Dask's arrays whose result is a :class:`DaskQArray`; Dask's own is a plain Dask array."""
    plain = getattr(da.Array, name)

    def method(self: DaskQArray, *args: Any, **kwargs: Any) -> Any:
        return kept(plain(self, *args, **kwargs))

    method.__name__, method.__doc__ = name, f"As of ``dask.array.Array.{name}``; a :class:`DaskQArray` again."
    return method


for _name in ("__getitem__", "rechunk", "transpose", "swapaxes", "reshape", "squeeze", "copy", "__deepcopy__", "astype",
              "map_blocks", "__neg__", "__pos__", "__mul__", "__rmul__", "__truediv__"):  # fmt: skip
    setattr(DaskQArray, _name, _keeping(_name))


def kept(x: Any) -> Any:
    """A Dask array of QArrays as a :class:`DaskQArray`, anything else as it is."""
    if type(x) is da.Array and isinstance(x._meta, QArray):
        return DaskQArray(x.dask, x.name, x.chunks, meta=x._meta)
    return x


def from_qarray(q: QArray, chunks: Any = "auto") -> DaskQArray:
    """Cut a QArray into chunks.

    Each chunk is a slice of it, so a worker gets its chunks alone; ``da.from_array(q)`` hands the whole array to each.

    Parameters
    ----------
    q : QArray
        Chunks of whole tiles, multiples of 16 columns, share the memory of packed codes.
    chunks : as of ``dask.array.from_array``
        Along the axis that shares scales they are rounded up to whole groups, and to whole blocks of a rotation;
        an array with an order is not cut there.

    Raises
    ------
    TypeError
        If q is no QArray.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> from fastq.interop.dask import from_qarray
    >>> lazy = from_qarray(fq.quantize(np.eye(64), axis=0), chunks=32)
    >>> lazy.numblocks, lazy.compute().shape
    ((2, 2), (64, 64))
    """
    if not isinstance(q, QArray):
        raise TypeError(f"q must be a QArray, as fastq.quantize makes it; got {type(q).__name__}")
    cuts = da.core.normalize_chunks(chunks, q.shape, dtype=np.int8)
    if q.axis is not None:
        cuts = (*cuts[: q.axis], whole(cuts[q.axis], grain(q, q.axis)), *cuts[q.axis + 1 :])
    name = f"qarray-{tokenize(q, cuts)}"
    places = da.core.slices_from_chunks(cuts)
    keys = np.ndindex(*map(len, cuts))
    graph = HighLevelGraph.from_collections(name, {(name, *key): q[place] for key, place in zip(keys, places)})
    return DaskQArray(graph, name, cuts, meta=q)


def whole(lengths: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Chunks along an axis, their ends moved on to multiples of a size; the last one ends with the axis."""
    ends = sorted({min(ceil_div(end, size) * size, sum(lengths)) for end in np.cumsum(lengths).tolist()})
    return tuple(np.diff([0, *ends]).tolist()) or (0,)


def grain(x: Any, axis: int) -> int:
    """The multiple at which an array, which may be one of Dask, may be cut along an axis."""
    form = x._meta if isinstance(x, da.Array) else x
    if not isinstance(form, QArray) or form.axis != axis:
        return 1
    return max(form.group_size or 1, form.rotation) if form.order is None else max(1, x.shape[axis])
