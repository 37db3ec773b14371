"""Ways to search a database of embeddings, exhaustively: fastq's, NumPy's, and those of libraries that are installed.

Each one takes normalized rows, and gives a function of queries: the row numbers of the best k of each, in any order.
At 3 bits the scales of least squared error find 0.997 of the true best ten, those of the extremes 0.90.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

import fastq as fq
from fastq.machine import pool

Search = Callable[[Any], Any]
BLOCK = 100  # queries whose scores exist at a time, where there is a matrix of them


def clusters(items: int, queries: int, width: int, seed: int = 0) -> tuple[Any, Any]:
    """Normalized embeddings around 2,000 centers, and queries near items."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((2000, width), dtype=np.float32)
    w = centers[rng.integers(0, len(centers), items)]
    w += 0.5 * rng.standard_normal((items, width), dtype=np.float32)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    x = w[rng.integers(0, items, queries)] + 0.02 * rng.standard_normal((queries, width), dtype=np.float32)
    return w, x / np.linalg.norm(x, axis=1, keepdims=True)


def by_scores(scores: Callable[[Any], Any], k: int) -> Search:
    """The best of a matrix of scores, by NumPy, some queries at a time."""

    def best(x: Any) -> Any:
        parts = (scores(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK))
        return np.concatenate([np.argpartition(part, -k, axis=1)[:, -k:] for part in parts])

    return best


def searchers(w: Any, k: int) -> Iterator[tuple[str, str, Search, float]]:
    """Name, library, search, and the share of the true best that it must find."""
    q = fq.quantize(w, axis=-1)
    q.T.prepack()
    yield "top_k, int8", "fastq", lambda x: fq.top_k(x, q, k)[1], 0.96
    small = fq.quantize(w, 3, axis=-1, method="mse")
    small.T.prepack()
    yield "top_k, int3, rescored", "fastq", lambda x: fq.top_k(x, small, k, rescore=w)[1], 0.99
    grouped = fq.quantize(w, 4, axis=-1, group_size=64)
    grouped.T.prepack()
    yield "top_k, int4 group 64, rescored", "fastq", lambda x: fq.top_k(x, grouped, k, rescore=w)[1], 0.995
    yield "x @ q.T, argpartition", "fastq", by_scores(lambda x: x @ q.T, k), 0.96
    yield "x @ w.T, argpartition", "numpy", by_scores(lambda x: x @ w.T, k), 1 - 1e-9
    codes = np.rint(127 * w / np.abs(w).max()).astype(np.int8)

    def as_codes(x: Any) -> Any:
        return np.rint(127 * x / np.abs(x).max()).astype(np.int8)

    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(pool.num_threads())
        for name, index in (
            ("IndexFlatIP", faiss.IndexFlatIP(w.shape[1])),
            (
                "SQ8",
                faiss.IndexScalarQuantizer(w.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
            ),
        ):
            index.train(w)
            index.add(w)
            yield f"faiss {name}", "faiss", lambda x, index=index: index.search(x, k)[1], 0.9
    if find_spec("usearch"):
        from usearch.index import search

        yield (
            "usearch exact int8",
            "usearch",
            lambda x: search(codes, as_codes(x), k, "ip", exact=True, threads=pool.num_threads()).keys.reshape(-1, k),
            0.9,
        )
    if find_spec("numkong"):
        import numkong

        packed, threads = numkong.dots_pack(codes), pool.num_threads()

        def scores(x: Any) -> Any:
            return np.asarray(numkong.dots_packed(as_codes(x), packed, threads=threads))

        yield "NumKong, argpartition", "numkong", by_scores(scores, k), 0.9


def recall(found: Any, true: Any) -> float:
    """The share of the true best rows that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true)]))
