"""fastq.error_matmul against its equation, written out."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.accuracy import error_matmul as attribution

PARTS = ("weights", "activations", "rounding", "total")
NAMES = ("mse", "rmse", "l2", "max_abs", "sqnr_db", "cosine")


@pytest.fixture
def w(rng):
    return rng.standard_normal((100, 24)).astype(np.float32)


@pytest.fixture
def x(rng):
    return rng.standard_normal((13, 100)).astype(np.float32)


def values(q):
    """What a matrix with one scale per row or column stands for, in float64."""
    zero = 0 if q.zero_point is None else q.zero_point.astype(np.float64)
    offset = 0 if q.offset is None else q.offset.astype(np.float64)
    return q.scale.astype(np.float64) * (q.codes - zero) + offset


def by_hand(x, x_hat, w, w_hat, product):
    """The noise of each part, and the exact product."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    noise = x @ (w_hat - w), (x_hat - x) @ w_hat, product - x_hat @ w_hat, product - x @ w
    return x @ w, dict(zip(PARTS, noise))


def check(found, exact, noise):
    for name in PARTS:
        expected, part = fq.error(exact, exact + noise[name]), getattr(found, name)
        if part.sqnr_db > 250 and expected.sqnr_db > 250:
            continue  # the rounding of float64, in which both sides are computed
        for measure in NAMES:
            # Adding noise to the exact product, as fq.error takes it, rounds it.
            atol = 1e-13 * np.abs(exact).max()
            assert np.isclose(getattr(part, measure), getattr(expected, measure), rtol=1e-6, atol=atol)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_floats(isa, x, w, scheme, dtype):
    x, q = x.astype(dtype), fq.quantize(w, 3, axis=0, scheme=scheme)
    product = x @ q
    x_hat = values(fq.quantize(x.astype(product.dtype), 8, axis=-1))
    check(fq.error_matmul(x, w, q), *by_hand(x, x_hat, w, values(q), product))


@pytest.mark.parametrize("form", [{}, {"bits": 4, "group_size": 32}, {"balance": np.geomspace(1, 9, 100)}])
def test_activations(x, w, form):
    q = fq.quantize(w, **{"bits": 8, "axis": 0, **form})
    for way, size, high in (("row", 100, 127), ("group", q.group_size or 32, 127), ("two-plane", 100, 32639)):
        factors = np.ones(100, np.float32) if q.balance is None else q.balance[:, 0].astype(np.float32)
        scaled = x * factors
        scale = np.repeat(np.maximum.reduceat(np.abs(scaled), range(0, 100, size), axis=1), size, axis=1)[:, :100]
        scale = scale / np.float32(high)
        x_hat = np.rint(scaled / scale).astype(float) * scale / factors.astype(float)
        product = fq.matmul(x, q, activations=way)
        by_k = np.repeat(q.scale.astype(float), q.group_size or 100, axis=0)[:100]
        w_hat = by_k * q.codes * factors[:, None].astype(float)
        expected = by_hand(x, x_hat, w, w_hat, product)
        check(fq.error_matmul(x, w, q, activations=way), *expected)
        check(fq.error_matmul(x, w, q.with_activations(way)), *expected)


def test_groups(x, w):
    q = fq.quantize(w, 3, axis=0, group_size=32)
    w_hat = np.repeat(q.scale.astype(np.float64), 32, axis=0)[:100] * q.codes
    check(fq.error_matmul(x, w, q), *by_hand(x, values(fq.quantize(x, axis=-1)), w, w_hat, x @ q))


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_quantized_rows_are_taken_as_they_are(x, w, scheme):
    x, q = fq.quantize(x, 5, axis=-1, scheme=scheme), fq.quantize(w, 4, axis=0)
    found = fq.error_matmul(x, w, q)
    check(found, *by_hand(values(x), values(x), w, values(q), x @ q))
    assert (found.activations.mse, found.activations.sqnr_db) == (0, np.inf)


def test_integers_are_taken_as_they_are(rng, w):
    x, q = rng.integers(-128, 128, (7, 100), np.int8), fq.quantize(w, 4, axis=0)
    found = fq.error_matmul(x, w, q)
    check(found, *by_hand(x, x.astype(np.float64), w, values(q), x @ q))
    assert found.activations.max_abs == 0


@pytest.mark.parametrize("block", [1, 500, 1500])
def test_blocks(monkeypatch, x, w, block):
    """Blocks of rows and columns; with the rows quantized beforehand too."""
    q = fq.quantize(w, 3, axis=0, group_size=32, scheme="asymmetric")
    before = [fq.error_matmul(v, w, q) for v in (x, fq.quantize(x, axis=-1))]
    monkeypatch.setattr(attribution, "_BLOCK", block)
    for old, new in zip(before, (fq.error_matmul(v, w, q) for v in (x, fq.quantize(x, axis=-1)))):
        for name in PARTS:
            for measure in NAMES:
                a, b = getattr(getattr(old, name), measure), getattr(getattr(new, name), measure)
                assert np.isclose(a, b, rtol=1e-6, atol=1e-13)


def test_stacks_and_vectors(rng, w):
    x, q = rng.standard_normal((2, 3, 100)), fq.quantize(w, 3, axis=0)
    assert fq.error_matmul(x, w, q) == fq.error_matmul(x.reshape(6, 100), w, q)
    assert fq.error_matmul(x[0, 0], w, q) == fq.error_matmul(x[0, :1], w, q)


def test_exact_weights_and_rows(rng):
    """Integers with a scale of 1 are quantized exactly, and their product is."""
    x, w = (rng.integers(-126, 127, shape).astype(np.float32) for shape in ((5, 60), (60, 8)))
    x[:, 0], w[0] = 127, 127
    found = fq.error_matmul(x, w, fq.quantize(w, axis=0))
    assert [getattr(found, name).max_abs for name in PARTS] == [0, 0, 0, 0]


def test_no_rows(w):
    assert fq.error_matmul(np.empty((0, 100)), w, fq.quantize(w, axis=0)).total.mse == 0


def test_words(x, w):
    found = fq.error_matmul(x, w, fq.quantize(w, 3, axis=0))
    lines = str(found).splitlines()
    assert lines[0].split() == ["part", "SQNR", "rmse", "max"]
    assert [line.split()[0] for line in lines[1:]] == list(PARTS)
    assert lines[1].split()[1:3] == [f"{found.weights.sqnr_db:.1f}", "dB"]
    assert len({len(line) for line in lines}) == 1
    assert repr(found) == f"MatmulError({', '.join(f'{n} {getattr(found, n).sqnr_db:.1f} dB' for n in PARTS)})"


def test_balanced_and_rotated_weights(rng):
    """Parts are those of the logical weights and of x as it was, whatever happens to both before they are rounded."""
    x, w = rng.standard_normal((20, 64)).astype(np.float32), rng.standard_normal((64, 30)).astype(np.float32)
    x[:, 5] *= 50
    d = fq.balance(x, w)
    plain = fq.error_matmul(x, w, fq.quantize(w, 4, axis=0))
    for form in ({"balance": d}, {"rotate": True}, {"balance": d, "rotate": True}):
        q = fq.quantize(w, 4, axis=0, group_size=16, **form)
        found = fq.error_matmul(x, w, q)
        assert found.rounding.sqnr_db > 110
        assert found.activations.sqnr_db > plain.activations.sqnr_db + 3
        assert np.isclose(found.weights.sqnr_db, fq.error(x @ w, x @ q.dequantize()).sqnr_db, atol=0.01)
        assert np.isclose(found.total.sqnr_db, fq.error(x.astype(float) @ w, x @ q).sqnr_db, atol=1e-6)


def test_a_balance_along_the_columns_is_that_of_the_weights(rng):
    x, w = rng.standard_normal((9, 1)), rng.standard_normal((1, 30))
    q = fq.quantize(w, 4, axis=1, balance=rng.uniform(0.5, 2, 30))
    found = fq.error_matmul(x, w, q)
    assert abs(found.total.max_abs - np.abs(x @ q - x @ w).max()) <= 1e-12
