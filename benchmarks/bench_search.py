"""Embeddings by row: the best for each query, products with a vector on either side, and rows by their numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastq as fq
from fastq.bench.rounds import Entry
from fastq.bench.run import NUMPY
from fastq.kernels import table
from fastq.machine import cpu
from searchers import by_numpy, by_scores, clusters, recall, rescored, searchers

BASELINE = {"baseline": True, "library": NUMPY}


def embeddings(rows, width):
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)


def searches(found, x, w, queries, quick):
    """Contenders, each of which must find its share of the true best ten, before it is timed."""
    true = by_scores(lambda x: x @ w.T, 10)(x[:100])
    for name, library, search, least, bits in found:
        share = recall(search(x[:100]), true)
        assert quick or share >= least, (name, share)
        facts = BASELINE if library == NUMPY else {"library": library}
        if library is None:
            facts = {"isa": cpu.chosen(table.ISAS), "bits": bits, "nbytes": w.size * bits / 8,
                     "operations": 2 * queries * w.size}  # fmt: skip
        slow = queries > 32 and library is not None
        yield Entry(name, lambda search=search: search(x[:queries]), facts, rounds=1 if slow else None)


@pytest.mark.parametrize("queries", [1, 32, 1000])
def bench_top_k(contest, quick, queries):
    w, x = clusters(10_000 if quick else 200_000, max(queries, 100), 384)
    entries = list(searches(searchers(w, 10), x, w, queries, quick))
    if queries > 32:
        entries.append(long_product(quick))
    contest(f"search: {queries} queries, 200000x384", entries)


def long_product(quick):
    """A product whose sums are long and whose output is small against them: the rate that search is held against."""
    m, k = (256, 512) if quick else (1024, 4096)
    a = fq.quantize(embeddings(m, k), axis=-1)
    b = fq.quantize(embeddings(k, k), axis=0).prepack()
    return Entry("a product of codes, 1024x4096x4096", lambda: a @ b, {"operations": 2 * m * k * k})


@pytest.mark.parametrize("queries", [1, 32])
def bench_million(contest, quick, queries):
    w, x = clusters(10_000 if quick else 1_000_000, 100, 384)
    found = [by_numpy(w, 10), rescored(w, 10, "top_k, int3, rescored", bits=3, method="mse", oversample=8)]
    contest(f"search: {queries} queries, 1000000x384", list(searches(found, x, w, queries, quick)))


MEMORY = """
import numpy as np
import fastq as fq

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

def peak(queries, items):
    rng = np.random.default_rng(0)
    q = fq.quantize(rng.standard_normal((items, 384), dtype=np.float32), axis=-1)
    q.T.prepack()
    x = rng.standard_normal((queries, 384), dtype=np.float32)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    values, indices = fq.top_k(x, q)
    return status("VmHWM") - before - values.nbytes - indices.nbytes

peak(1000, 1000)  # loads the kernels
print(peak(1000, {items}))
"""


def bench_memory(keep, quick):
    """Beyond operands and answers."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a single call cannot be told on this system")
    code = MEMORY.format(items=10_000 if quick else 1_000_000)

    def work():
        found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return {"memory of top_k": int(found.stdout)}

    keep("measures", work)


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
