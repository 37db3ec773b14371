"""Embeddings by row: the best for each query, products with a vector on either side, and rows by their numbers."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from results import NUMPY
from rounds import Entry
from searchers import by_scores, clusters, recall, searchers

BASELINE = {"baseline": True, "library": NUMPY}


def embeddings(rows, width):
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)


@pytest.mark.parametrize("queries", [1, 32, 1000])
def bench_top_k(contest, quick, queries):
    """Each contender must find its share of the true best, before it is timed."""
    items, k = (10_000, 10) if quick else (200_000, 10)
    w, x = clusters(items, max(queries, 100), 384)
    true = by_scores(lambda x: x @ w.T, k)(x[:100])
    entries = []
    for name, library, search, least in searchers(w, k):
        share = recall(search(x[:100]), true)
        assert quick or share >= least, (name, share)
        facts = BASELINE if library == "numpy" else {"library": library}
        slow = queries > 32 and library != "fastq"
        entries.append(Entry(name, lambda search=search: search(x[:queries]), facts, rounds=1 if slow else None))
    contest(f"search: {queries} queries, 200000x384", entries)


def bench_vector(contest, quick):
    """Packed for ``v @ q.T``; both ways multiply what lies there."""
    x = embeddings(20_000 if quick else 200_000, 384)
    v = np.random.default_rng(1).standard_normal(384, dtype=np.float32)
    q = fq.quantize(x, axis=-1)
    q.T.prepack()
    expected = x @ v
    for product in (q @ v, v @ q.T):
        assert np.linalg.norm(product - expected) < 0.03 * np.linalg.norm(expected)
    contest(
        "search: 200000x384 with a vector",
        [
            Entry("NumPy", lambda: x @ v, BASELINE),
            Entry("q @ v", lambda: q @ v),
            Entry("v @ q.T", lambda: v @ q.T),
        ],
    )


@pytest.mark.parametrize(
    ("name", "form"), [("8 bits", {"bits": 8}), ("4 bits, group 64", {"bits": 4, "group_size": 64})]
)
def bench_rows(contest, quick, name, form):
    """Rows of embeddings by their numbers, before the array is packed for ``x @ q.T`` and after."""
    x = embeddings(4096 if quick else 49_152, 576)
    ids = np.random.default_rng(1).integers(0, len(x), 256)
    before, packed = (fq.quantize(x, axis=-1, **form) for _ in range(2))
    packed.T.prepack()
    assert packed[ids].equals(before[ids])
    contest(
        f"search: 256 rows of 49152x576, {name}",
        [
            Entry("ndarray", lambda: x[ids], BASELINE),
            Entry("not packed", lambda: before[ids]),
            Entry("packed", lambda: packed[ids]),
        ],
    )
