"""Search in quantized Dask arrays: each chunk of items gives its best, which are joined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from fastq import search
from fastq.interop.collection import DaskQArray
from fastq.interop.quantizing import known
from fastq.products.dispatch import natural_type
from fastq.products.top_k import Top
from fastq.validation import integer


def top_k(x: Any, q: Any, k: int = 10, *, largest: bool = True, bias: npt.ArrayLike | None = None) -> tuple[Any, Any]:
    """``fastq.top_k`` in a quantized Dask array, lazily: bit for bit the same values, and the same indices.

    Parameters
    ----------
    x : dask.array.Array or array_like
        Queries ``(M, K)``. Each of its chunks of rows meets each chunk of `q`.
    q : DaskQArray
        The database ``(N, K)``, quantized with ``axis=-1``, in chunks of items.
    k, largest, bias
        As in :func:`fastq.top_k`.

    Returns
    -------
    values, indices : dask.array.Array
        ``(M, k)``. Compute both at once: ``dask.compute(values, indices)``.

    Raises
    ------
    TypeError, ValueError
        For other operands. When the result is computed, as :func:`fastq.top_k`.

    Examples
    --------
    >>> import dask, dask.array as da, numpy as np
    >>> from fastq.interop import dask as fqd
    >>> q = fqd.quantize(da.eye(300, chunks=100, dtype=np.float32), axis=-1)
    >>> values, indices = fqd.top_k(np.eye(300, dtype=np.float32)[[7, 299]], q, k=1)
    >>> dask.compute(indices)
    (array([[  7],
           [299]]),)
    """
    if not isinstance(q, DaskQArray) or q.ndim != 2:
        raise TypeError(f"q must be a matrix in a DaskQArray, as fastq.interop.dask.quantize gives; got {q!r}")
    x = known(x if isinstance(x, da.Array) else da.from_array(np.asarray(x)), "x")
    if x.ndim != 2 or x.shape[1] != q.shape[1]:
        raise ValueError(f"x must be queries of {q.shape[1]} elements each, shape (M, {q.shape[1]}); got {x.shape}")
    k = integer(k, "k", "an integer of at least 1")
    if not 1 <= k <= q.shape[0]:
        raise ValueError(f"k must be from 1 to the number of items, {q.shape[0]}; got {k}")
    x, q = x.rechunk({1: -1}), known(q, "q").rechunk({1: -1})
    added = None if bias is None else np.broadcast_to(np.asarray(bias), q.shape[:1])
    starts = np.cumsum([0, *q.chunks[0]])
    items = [
        (block, int(start), None if added is None else added[start:stop])
        for block, start, stop in zip(q.to_delayed()[:, 0], starts, starts[1:])
    ]
    kind = natural_type(x._meta, q._meta)
    rows = []
    for block, m in zip(x.to_delayed()[:, 0], x.chunks[0]):
        parts = [_PART(block, codes, start, k, largest, some) for codes, start, some in items]
        best = _JOINED(parts, k, largest)
        rows.append([da.from_delayed(best[i], (m, k), dtype) for i, dtype in enumerate((kind, np.dtype(np.int64)))])
    values, indices = (da.concatenate(some, axis=0) for some in zip(*rows))
    return values, indices


def _part(x: Any, q: Any, start: int, k: int, largest: bool, bias: Any) -> Top:
    values, indices = search.top_k(x, q, min(k, q.shape[0]), largest=largest, bias=bias)
    return values, indices + start


def _joined(parts: Iterable[Top], k: int, largest: bool) -> Top:
    return search.merge_top_k(parts, k, largest=largest)


_PART, _JOINED = (dask.delayed(function, pure=True, nout=2) for function in (_part, _joined))
