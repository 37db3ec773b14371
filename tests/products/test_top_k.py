"""The best of each row: those of a stable sort of the whole product, on every instruction set."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastq as fq

FORMS = [
    {"bits": 8},
    {"bits": 3},
    {"bits": 4, "group_size": 32},
    {"bits": 4, "group_size": 16, "group_scale": "float", "scheme": "affine"},
    {"bits": 8, "scheme": "asymmetric"},
]


def sorted_best(scores, k, largest=True, where=None):
    """The first k of a stable sort, the best first; NaN last."""
    columns = np.arange(scores.shape[-1]) if where is None else np.flatnonzero(where)
    scores = scores[..., columns]
    key = scores if not largest else ~scores if scores.dtype.kind == "i" else -scores
    order = np.argsort(key, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(scores, order, -1), columns[order]


def check(x, q, k, **options):
    """Compare with the product; bit for bit."""
    scores = fq.matmul(x, q.T, bias=options.get("bias"))
    values, indices = fq.top_k(x, q, k, **options)
    expected = sorted_best(scores, k, options.get("largest", True), options.get("where"))
    assert values.dtype == scores.dtype
    assert indices.dtype == np.int64
    assert (indices == expected[1]).all()
    assert values.tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 300, 64), (3, 49, 33), (9, 65, 96), (40, 150, 64)])
def test_a_stable_sort_of_the_product(isa, form, m, n, k, rng):
    w = rng.standard_normal((n, k)).astype(np.float32)
    w[n // 2 :] = w[: n - n // 2]  # equal values
    q, x = fq.quantize(w, axis=-1, **form), rng.standard_normal((m, k)).astype(np.float32)
    for many in (1, 7, n - 1, n):
        for largest in (True, False):
            check(x, q, many, largest=largest)
    where = rng.random(n) < 0.2
    where[-5:] = True
    where[:32] = False  # blocks of which nothing is wanted
    check(x, q, int(where.sum()), where=where)
    check(x, q, 5, bias=rng.standard_normal(n).astype(np.float32), where=where)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integers(isa, kind, rng):
    low = -3 if kind == "int8" else 0
    for m, n in ((1, 100), (20, 130)):
        a, b = (rng.integers(low, 4, (rows, 40)).astype(kind) for rows in (m, n))
        for k in (1, 10, n):
            for largest in (True, False):
                check(a, b, k, largest=largest)
    a = np.full((9, 64), np.iinfo(kind).min, kind)
    check(a, np.full((33, 64), np.iinfo(kind).max, kind), 3, largest=False)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_types(isa, dtype, rng):
    q = fq.quantize(rng.standard_normal((200, 48)).astype(dtype), axis=-1)
    check(rng.standard_normal((20, 48)).astype(dtype), q, 20)
    check(fq.quantize(rng.standard_normal((20, 48)).astype(dtype), axis=-1), q, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_bands(isa, threads, many_cores, monkeypatch, rng):
    """Threads share the columns, or the rows; the rows of a pass are few. All values are equal in the last case."""
    from fastq.engine import top

    monkeypatch.setattr(top, "MOST", 1)
    with fq.set_num_threads(threads):
        for m, n in ((2, 5000), (100, 700)):
            x, w = (rng.standard_normal((rows, 256)).astype(np.float32) for rows in (m, n))
            check(x, fq.quantize(w, axis=-1), 12)
            check(np.ones((m, 256), np.float32), fq.quantize(np.ones((n, 256), np.float32), axis=-1), 12)


@pytest.mark.parametrize("activations", ["group", "two-plane"])
def test_finer_activations(isa, activations, rng):
    q = fq.quantize(rng.standard_normal((90, 64)).astype(np.float32), axis=-1, group_size=32)
    for m in (1, 30):
        check(rng.standard_normal((m, 64)).astype(np.float32), q.with_activations(activations), 9)


def test_what_is_no_number_comes_last(isa, rng):
    q, x = fq.quantize(rng.standard_normal((70, 32)).astype(np.float32), axis=-1), np.ones((3, 32), np.float32)
    bias = np.zeros(70, np.float32)
    bias[[2, 50]], bias[3], bias[60] = np.nan, np.inf, -np.inf
    for largest in (True, False):
        for k in (5, 69, 70):
            values, indices = fq.top_k(x, q, k, bias=bias, largest=largest)
            expected = sorted_best(fq.matmul(x, q.T, bias=bias), k, largest)
            assert (indices == expected[1]).all()
            assert np.array_equal(values, expected[0], equal_nan=True)


def test_shapes_and_places(rng):
    w = rng.standard_normal((60, 32)).astype(np.float32)
    q, x = fq.quantize(w, axis=-1), rng.standard_normal((2, 3, 32)).astype(np.float32)
    values, indices = fq.top_k(x, q, 4)
    assert values.shape == indices.shape == (2, 3, 4)
    one = fq.top_k(x[1, 2], q, 4)
    assert (one[0] == values[1, 2]).all()
    assert (one[1] == indices[1, 2]).all()
    columns = fq.top_k(x, fq.quantize(np.ascontiguousarray(w.T), axis=0), 4, axis=0)
    assert (columns[0] == values).all()
    assert (columns[1] == indices).all()
    out = np.empty((2, 3, 4), np.float64), np.empty((2, 3, 4), np.int64)
    assert fq.top_k(x, q, 4, out=out) == out
    assert (out[0] == values).all()
    assert (out[1] == indices).all()
    nothing = fq.top_k(np.empty((0, 32), np.float32), q, 4)
    assert nothing[0].shape == nothing[1].shape == (0, 4)


def test_a_database_in_files(tmp_path, rng):
    """Packed codes are read from the file; nobody unpacks them."""
    q = fq.quantize(rng.standard_normal((500, 96)).astype(np.float32), 3, axis=-1, group_size=32)
    x = rng.standard_normal((5, 96)).astype(np.float32)
    expected = fq.top_k(x, q, 10)
    q.save(tmp_path / "index")
    loaded = fq.load(tmp_path / "index")
    got = fq.top_k(x, loaded, 10)
    assert (got[0] == expected[0]).all()
    assert (got[1] == expected[1]).all()


def test_the_matrix_of_scores_never_exists(rng):
    q = fq.quantize(rng.standard_normal((60_000, 16)).astype(np.float32), axis=-1)
    x = rng.standard_normal((200, 16)).astype(np.float32)
    fq.top_k(x, q)  # kernels are compiled, and q is packed
    tracemalloc.start()
    fq.top_k(x, q)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20  # of 48 MB


def test_scored_again(rng):
    w, x = (rng.standard_normal((rows, 24)).astype(np.float32) for rows in (300, 7))
    w[200:] = w[:100]
    q = fq.quantize(w, 3, axis=-1)
    bias = rng.standard_normal(300).astype(np.float32)
    bias[200:] = bias[:100]
    for options in ({}, {"bias": bias}, {"largest": False}):
        scores = np.matmul(w[None], x[:, :, None])[..., 0] + options.get("bias", np.float32(0))
        expected = sorted_best(scores, 6, options.get("largest", True))
        for rows in (w, w.astype(np.float64), ReadByNumber(w)):
            values, indices = fq.top_k(x, q, 6, rescore=rows, oversample=50, **options)  # all of them
            assert (indices == expected[1]).all()
            assert np.allclose(values, expected[0], rtol=1e-5, atol=1e-5)
    found = [np.mean(fq.top_k(x, q, 10, **more)[1] == sorted_best(x @ w.T, 10)[1]) for more in ({}, {"rescore": w})]
    assert found[0] < found[1]


class ReadByNumber:
    """Rows in a file, of a library that reads them in order only."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, rows):
        assert (np.diff(rows) > 0).all()
        return self.array[rows]


def test_parts_of_a_database(rng):
    w, x = (rng.integers(-5, 6, (rows, 20)).astype(np.int8) for rows in (100, 8))
    expected = fq.top_k(x, w, 9)
    parts = []
    for start in (70, 0, 30):
        stop = {0: 30, 30: 70, 70: 100}[start]
        values, indices = fq.top_k(x, w[start:stop], 9)
        parts.append((values, indices + start))
    got = fq.merge_top_k(parts, 9)
    assert (got[0] == expected[0]).all()
    assert (got[1] == expected[1]).all()
    unsigned = fq.merge_top_k([(np.array([3, 0], np.uint8), [5, 1]), (np.array([200], np.uint8), [2])], 3)
    assert (unsigned[0] == [200, 3, 0]).all()
    assert (unsigned[1] == [2, 5, 1]).all()
    with pytest.raises(ValueError, match="k must be at most the number of items, 27; got 28"):
        fq.merge_top_k(parts, 28)
