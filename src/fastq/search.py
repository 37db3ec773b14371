"""Search: the best items of a database for each query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import numpy.typing as npt

from fastq.products import top_k as search
from fastq.qarray.array import QArray
from fastq.typed import Array, Floats, Int64, Real


@overload
def top_k(
    x: QArray | Real, q: QArray, k: int = 10, *, axis: int = -1, largest: bool = True, rescore: Any = None,
    oversample: int = 4, bias: npt.ArrayLike | None = None, where: npt.ArrayLike | None = None,
    out: tuple[Array, Int64] | None = None,
) -> tuple[Floats, Int64]: ...  # fmt: skip
@overload
def top_k(
    x: Any, q: Any, k: int = 10, *, axis: int = -1, largest: bool = True, rescore: Any = None,
    oversample: int = 4, bias: npt.ArrayLike | None = None, where: npt.ArrayLike | None = None,
    out: tuple[Array, Int64] | None = None,
) -> tuple[Array, Int64]: ...  # fmt: skip
def top_k(
    x: Any,
    q: Any,
    k: int = 10,
    *,
    axis: int = -1,
    largest: bool = True,
    rescore: Any = None,
    oversample: int = 4,
    bias: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    out: tuple[Array, Int64] | None = None,
) -> tuple[Array, Int64]:
    """The best `k` scores of each query, and whose they are: ``x @ q.T`` without its matrix.

    Scores are compared with the best ones so far while they are in the cache, and mostly dropped ::

        scores_ij = (x @ q.T)_ij + bias_j
        values_i, indices_i = the k largest of row i, the best first

    Parameters
    ----------
    x : array_like or QArray
        Queries ``(..., K)``: a vector, or rows of them. Floats are quantized by row, as in :func:`matmul`.
    q : QArray or array_like
        The database, N items of K elements: ``(N, K)``, quantized with ``axis=-1``; any bits, scheme and groups. Packed
        (``q.T.prepack()``) or loaded from files, it is multiplied as it lies.
    k : int
        How many; from 1 to N.
    axis : int
        The axis of `q` that is summed over; 0 for a database ``(K, N)``.
    largest : bool
        Whether the largest are the best; else the smallest.
    rescore : array_like, optional
        The rows ``(N, K)`` as they were before they were quantized: an array, a memory map, or what else is indexed by
        an array of row numbers. The best ``k * oversample`` by codes are scored again, by products of floats, and the
        best `k` of these returned.
    oversample : int
        How many times as many, with `rescore`.
    bias : array_like, optional
        A number, or one per item, added to the scores. ``-0.5 * (w * w).sum(-1)`` with `largest` gives the order of
        Euclidean distances, since ``|x - w|**2 = |x|**2 - 2 * (x @ w - 0.5 * |w|**2)``. For cosines, normalize the rows
        before they are quantized.
    where : array_like of bool, optional
        Which items may be among the best, one value per item.
    out : tuple of two arrays, optional
        Where to write values and indices (int64).

    Returns
    -------
    values : numpy.ndarray
        ``(..., k)``, sorted, the best first; bit for bit those of ``x @ q.T``, and of its type: int32 for two arrays
        of 8-bit integers. With `rescore` they are the products of the floats.
    indices : numpy.ndarray of int64
        ``(..., k)``. Of equal values, the one with the lower index comes first; NaN comes last. So the answer is the
        same on every CPU, with any number of threads; with `rescore`, as far as NumPy's products of floats are.

    Raises
    ------
    TypeError, ValueError
        For shapes, types and values that do not fit. As :class:`fastq.NotFiniteError` for NaN and infinity in floats.
    OverflowError
        If a product of 8-bit integers does not fit int32.

    See Also
    --------
    fastq.merge_top_k : join the answers of several databases.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.array([[1.0, 0], [0, 1], [0.6, 0.8]], np.float32)
    >>> q, x = fq.quantize(w, axis=-1), np.array([0, 1], np.float32)
    >>> values, indices = fq.top_k(x, q, k=2)
    >>> values.round(2), indices
    (array([1. , 0.8], dtype=float32), array([1, 2]))
    """
    return search.top_k(x, q, k, search.Options(axis, largest, rescore, oversample, bias, where, out))


def merge_top_k(
    parts: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], k: int = 10, *, largest: bool = True
) -> tuple[Array, Int64]:
    """The best `k` of the answers of several searches, of parts of a database.

    Parameters
    ----------
    parts : iterable of pairs
        Values and indices, as :func:`top_k` gives them; ``(..., k_i)``, with the same queries. Indices count from the
        start of the whole database: add where a part begins to those of its items.
    k, largest
        As in :func:`top_k`; at most as many as the parts hold together.

    Returns
    -------
    values, indices : numpy.ndarray
        ``(..., k)``, as of one search in all parts.

    Raises
    ------
    ValueError
        If shapes do not fit, or `k` is more than there are.

    Examples
    --------
    >>> import fastq as fq
    >>> fq.merge_top_k([([0.9, 0.2], [4, 1]), ([0.9, 0.5], [2, 3])], k=3)
    (array([0.9, 0.9, 0.5]), array([2, 4, 3]))
    """
    return search.merge_top_k(parts, k, largest)
