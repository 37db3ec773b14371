"""Lesson 10: search: the best items of a database for each query, without a matrix of scores.

50,000 embeddings of 256 numbers in 500 clusters, synthetic ones, go to 8, 4 and 3 bits. For 100 queries, each form is
asked for the best ten, by its codes alone and scored again by the floats. What is shown: bytes per item, the share of
the true best ten that were found (recall), and the time of a single query.

- By codes alone, eight bits find nearly all; fewer bits lose more.
- Scored again (rescore=), four times as many candidates are enough even for three bits, if their scales are those of
  least squared error. The floats may lie in a file, of which only the candidates are read.

The database is saved, loaded without being read, and extended: the answers of two arrays are joined.
"""

import pathlib
import tempfile
import time

import numpy as np

import fastq as fq

ITEMS, WIDTH, CLUSTERS, QUERIES, K = 50_000, 256, 500, 100, 10
FORMS = {
    "8 bits": {"bits": 8},
    "4 bits, groups of 64": {"bits": 4, "group_size": 64},
    "3 bits, least squared error": {"bits": 3, "method": "mse"},
}


def normalized(rows):
    """Rows of length 1, whose products are cosines."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall(found, true):
    """The share of the true best that were found."""
    return np.mean([np.isin(a, b).mean() for a, b in zip(found, true)])


def milliseconds(function):
    """The shortest of ten times."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


random = np.random.default_rng(0)
centers = random.standard_normal((CLUSTERS, WIDTH), dtype=np.float32)
spread = random.standard_normal((ITEMS, WIDTH), dtype=np.float32)
w = normalized(centers[random.integers(0, CLUSTERS, ITEMS)] + spread / 2)
near = random.standard_normal((QUERIES, WIDTH), dtype=np.float32)
x = normalized(w[random.integers(0, ITEMS, QUERIES)] + near / 50)
true = np.argsort(-(x @ w.T), axis=1, kind="stable")[:, :K]

print(f"{'':30}bytes  recall  rescored  ms per query")
for name, form in FORMS.items():
    q = fq.quantize(w, axis=-1, **form)
    q.T.prepack()
    plain = recall(fq.top_k(x, q, K)[1], true)
    again = recall(fq.top_k(x, q, K, rescore=w)[1], true)
    took = milliseconds(lambda q=q: fq.top_k(x[0], q, K))
    print(f"{name:30}{q.nbytes / ITEMS:5.0f}{plain:8.3f}{again:10.3f}{took:14.2f}")
    assert again > 0.98
print(f"{'NumPy, float32':30}{4 * WIDTH:5}{1:8.3f}{milliseconds(lambda: np.argpartition(w @ x[0], -K)[-K:]):24.2f}")

with tempfile.TemporaryDirectory() as folder:
    q.save(pathlib.Path(folder) / "items")
    index = fq.load(pathlib.Path(folder) / "items")
    first = fq.top_k(x, index, K)
    added = normalized(x + random.standard_normal(x.shape, dtype=np.float32) / 100)  # one more near each query
    values, items = fq.top_k(x, fq.quantize(added, axis=-1), K)
    both = fq.merge_top_k([first, (values, items + ITEMS)], K)
    new = np.mean(both[1][:, 0] >= ITEMS)
    print(f"\nafter {len(added)} more items, one near each query: {new:.0%} of the best are new")
    del index, first  # files that are mapped cannot be removed everywhere
