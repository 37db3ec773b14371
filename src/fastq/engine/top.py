"""The best k of each row of a product, without the product (:mod:`fastq.kernels.epilogue.top`)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import workspace
from fastq.engine.native import start
from fastq.engine.operands import Array, RowParams
from fastq.engine.pointers import flat, written
from fastq.engine.prepared import NativeProduct
from fastq.kernels import table
from fastq.kernels.jobs import TopJob
from fastq.layout.tiles import BLOCK, ceil_div

MOST = 8 << 20  # bytes of what all threads keep, of the rows of one pass


class Wanted(NamedTuple):
    """What is kept of each row."""

    k: int
    smallest: bool
    keep: npt.NDArray[np.uint16]  # a bit per column, 16 each


def columns_to_keep(n: int, where: Array | None) -> npt.NDArray[np.uint16]:
    """A bit for each of n columns, and none beyond them."""
    return _all_columns(n) if where is None else _bits(where)


@lru_cache(maxsize=4)
def _all_columns(n: int) -> npt.NDArray[np.uint16]:
    return _bits(np.ones(n, bool))


def _bits(where: Array) -> npt.NDArray[np.uint16]:
    bits = np.zeros(ceil_div(len(where), BLOCK) * 2, np.uint8)
    chosen = np.packbits(where, bitorder="little")
    bits[: len(chosen)] = chosen
    return bits.view("<u2").astype(np.uint16, copy=False)


def rows_at_once(k: int, threads: int) -> int:
    """Rows whose best fit in :data:`MOST` bytes."""
    return max(BLOCK, MOST // (16 * k * threads) // BLOCK * BLOCK)


def best(
    product: NativeProduct, x: Array, params: RowParams | None, bias: Array | None, wanted: Wanted
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Values and columns of the best k of each row, sorted, the best first; both m x k.

    The product's output is one of those that are held (`Output.top`).
    """
    k, threads, kind = wanted.k, product.plan.threads, product.computed
    shape = threads, product.form.m, k
    size = threads * product.form.m
    lowest = -np.inf if kind.kind == "f" else np.iinfo(kind).min
    values, indices = np.empty(shape, kind), np.empty(shape, np.int64)
    counts, limits = np.zeros(size, np.int64), np.full(size, lowest, kind)
    with workspace() as work:
        job = product.packed(work, x, params, bias)
        job.top_k, job.top_rows, job.top_smallest = k, product.form.m, wanted.smallest
        job.top_values, job.top_indices = written(values, kind, size * k), written(indices, np.int64, size * k)
        job.top_counts, job.top_limits = written(counts, np.int64, size), written(limits, kind, size)
        job.keep = flat(wanted.keep, np.uint16, ceil_div(job.n, BLOCK))
        product.run(job)
    end = TopJob(rows=product.form.m, k=k, threads=threads, smallest=wanted.smallest)
    end.values, end.indices, end.counts = job.top_values, job.top_indices, job.top_counts
    start(table.top_finish(kind.name), end, 1 if size * k < 1 << 14 else threads)
    return values[0], indices[0]
