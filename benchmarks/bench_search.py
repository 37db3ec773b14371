"""Embeddings by row: products with one vector, which is on either side, and rows by their numbers."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from results import NUMPY
from rounds import Entry

BASELINE = {"baseline": True, "library": NUMPY}


def embeddings(rows, width):
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)


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
