"""Ways to search a database of embeddings, exhaustively: fastq's, NumPy's, and those of libraries that are installed.

Each one takes normalized rows, and gives a function of queries: the row numbers of the best k of each, in any order.
At 3 bits the scales of least squared error find 0.997 of the true best ten of 200,000, those of the extremes 0.90. Of
1,000,000 in as many clusters they find 0.94, and 0.99 if twice as many are scored again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

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


class Searcher(NamedTuple):
    """A way to search a database."""

    name: str
    library: str | None  # None: fastq
    search: Search
    least: float  # the share of the true best that it must find
    bits: int = 8  # per element that it reads


def by_numpy(w: Any, k: int) -> Searcher:
    """That of floats."""
    return Searcher("x @ w.T, argpartition", "numpy", by_scores(lambda x: x @ w.T, k), 1 - 1e-9, 32)


def rescored(w: Any, k: int, name: str, bits: int, oversample: int = 4, **form: Any) -> Searcher:
    """That of a few bits, the best of which are scored again."""
    q = fq.quantize(w, bits, axis=-1, **form)
    q.T.prepack()
    return Searcher(name, None, lambda x: fq.top_k(x, q, k, rescore=w, oversample=oversample)[1], 0.99, bits)


def searchers(w: Any, k: int) -> Iterator[Searcher]:
    """Those that are installed."""
    q = fq.quantize(w, axis=-1)
    q.T.prepack()
    yield by_numpy(w, k)
    yield Searcher("top_k, int8", None, lambda x: fq.top_k(x, q, k)[1], 0.96)
    yield rescored(w, k, "top_k, int3, rescored", bits=3, method="mse")
    yield rescored(w, k, "top_k, int4 group 64, rescored", bits=4, group_size=64)
    yield Searcher("x @ q.T, argpartition", None, by_scores(lambda x: x @ q.T, k), 0.96)
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
            yield Searcher(f"faiss {name}", "faiss", lambda x, index=index: index.search(x, k)[1], 0.9)
    if find_spec("usearch"):
        from usearch.index import search

        yield Searcher(
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

        yield Searcher("NumKong, argpartition", "numkong", by_scores(scores, k), 0.9)


def recall(found: Any, true: Any) -> float:
    """The share of the true best rows that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true)]))
