"""Balanced arrays: the factors of channels, and where a product takes them."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.kernels.table import ISAS
from fastq.machine import cpu

SCHEMES = ("symmetric", "asymmetric", "affine")
K, N = 70, 37
large = pytest.mark.skipif(cpu.chosen(ISAS) == "reference", reason="a thousand channels take a while in plain NumPy")


@pytest.fixture
def w(rng):
    return rng.standard_normal((K, N)).astype(np.float32)


@pytest.fixture
def d(rng):
    return np.exp(rng.standard_normal(K)).astype(np.float32)


def activations(rng, m, k):
    """Rows of which a few channels are much larger than the others."""
    x = rng.standard_normal((m, k)).astype(np.float32)
    x[:, rng.choice(k, 8, replace=False)] *= rng.uniform(20, 100, 8).astype(np.float32)
    return x


# The factors


@pytest.mark.parametrize("strength", [0, 0.25, 0.5, 1])
def test_factors_are_those_of_the_equation(strength, rng):
    x, w = rng.standard_normal((20, K)), rng.standard_normal((K, N))
    expected = np.abs(w).max(1) ** (1 - strength) / np.abs(x).max(0) ** strength
    d = fq.balance(x, w, strength)
    assert d.dtype == np.float32
    assert d.shape == (K,)
    assert np.allclose(d / d[0], expected / expected[0])
    assert np.isclose(np.log(d).mean(), 0, atol=1e-6)


def test_both_ends_of_strength(rng):
    x, w = activations(rng, 50, K), rng.standard_normal((K, N)).astype(np.float32)
    even = np.abs(x * fq.balance(x, w, 1)).max(0)
    assert np.allclose(even, even[0])
    even = np.abs(w / fq.balance(x, w, 0)[:, None]).max(1)
    assert np.allclose(even, even[0])


def test_statistics_in_every_form(w, rng):
    x = activations(rng, 50, K)
    d = fq.balance(x, w)
    top = np.abs(x).max(0)
    for stats in (top, -top, x[:, None], x.astype(np.float64), SimpleNamespace(channel_max=top)):
        assert (fq.balance(stats, w) == d).all()
    assert (fq.balance(x, np.stack([w, w / 2])) == d).all()
    assert (fq.balance(x, np.abs(w).max(1)) == d).all()
    extremes = fq.balance(np.array([-128, 1], np.int8), np.ones((2, 3)))
    assert np.allclose(extremes[1] / extremes[0], 128**0.5)


def test_dead_channels_stay_as_they_are(w, rng):
    x = activations(rng, 50, K)
    x[:, 3], w[5] = 0, 0
    d = fq.balance(x, w)
    alive = ~np.isin(np.arange(K), [3, 5])
    assert (d[[3, 5]] == 1).all()
    assert (d[alive] == fq.balance(x[:, alive], w[alive])).all()
    assert (fq.balance(np.zeros(K), w) == 1).all()
    assert fq.balance(np.zeros(0), np.zeros((0, 3))).shape == (0,)


def test_factors_stay_within_bounds():
    d = fq.balance(np.array([1e-300, 1.0, 1e300]), np.ones((3, 1)), 1)
    assert (d == [2.0**20, 1, 2.0**-20]).all()


# The array


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", [{}, {"group_size": 16}, {"method": "mse"}])
def test_what_is_quantized_is_the_quotient(isa, form, scheme, w, d):
    q = fq.quantize(w, 4, axis=0, scheme=scheme, balance=d, **form)
    plain = fq.quantize(w / d[:, None], 4, axis=0, scheme=scheme, **form)
    assert (q.codes == plain.codes).all()
    assert (q.scale == plain.scale).all()
    assert (q.dequantize() == plain.dequantize() * d[:, None]).all()
    assert (q.dequantize(np.float64) == (plain.dequantize() * d[:, None])).all()


def test_factors_are_an_attribute(w, d):
    q = fq.quantize(w, 4, axis=0, balance=d)
    assert q.balance.shape == (K, 1)
    assert (q.balance[:, 0] == d).all()
    assert fq.quantize(w, 4, axis=0).balance is None
    with pytest.raises(ValueError, match="read-only"):
        q.balance[0] = 1
    with pytest.raises(AttributeError, match="immutable"):
        q.balance = None
    before = q.dequantize()
    d[:] = 1  # the caller's own
    assert (q.dequantize() == before).all()
    assert fq.error(w, fq.quantize(w, 8, axis=0, balance=q.balance)).sqnr_db > 15
    again = fq.quantize(w, 4, axis=0, balance=q.balance)
    assert again.equals(q)
    assert repr(q).startswith("QArray(shape=(70, 37), 4 bits, symmetric, axis=0, balanced, dtype=float32, ")
    assert q.nbytes == fq.quantize(w, 4, axis=0).nbytes + 4 * K


def test_copies_carry_them(w, d):
    q = fq.quantize(w, 4, axis=0, balance=d)
    for other in (q.T.T, pickle.loads(pickle.dumps(q)), copy.deepcopy(q), q.copy()):
        assert other.equals(q)
        assert (other.balance == q.balance).all()
    assert q.T.balance.shape == (1, K)
    assert (q.T.dequantize() == q.dequantize().T).all()
    plain = fq.quantize(w / d[:, None], 4, axis=0)
    assert not q.equals(plain)
    assert not plain.equals(q)
    assert not q.equals(fq.quantize(w, 4, axis=0, balance=2 * d))


def test_numbers_that_overflow_are_brought_back():
    w = np.array([[3e38], [1.0]], np.float32)
    with np.errstate(over="ignore"):
        back = fq.quantize(w, 2, axis=0, scheme="asymmetric", balance=[4, 1]).dequantize()
    assert np.isfinite(back).all()


# Products: those of x * d with the quotient


def pair(w, d, *args, axis=0, **kwargs):
    """A balanced array, and the same without its factors."""
    shape = [1] * w.ndim
    shape[axis] = -1
    q = fq.quantize(w, *args, axis=axis, balance=d, **kwargs)
    return q, fq.quantize(w / d.reshape(shape), *args, axis=axis, **kwargs)


@pytest.mark.parametrize("m", [1, 7, 8, 19, 40])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.exhaustive
def test_product_is_that_of_scaled_rows(isa, m, dtype, d, rng):
    w = rng.standard_normal((K, N)).astype(np.float64 if dtype == np.float64 else np.float32)
    computed = w.dtype
    bias = rng.standard_normal(N).astype(computed)
    for form in ({"bits": 8}, {"bits": 3, "group_size": 24}, {"bits": 4, "scheme": "asymmetric", "group_size": 64}):
        q, plain = pair(w, d.astype(computed), **form)
        for options in ({}, {"bias": bias, "epilogue": "gelu"}, {"bits": 5}):
            for _ in range(2):  # the second one is a repeated product
                x = rng.standard_normal((m, K)).astype(dtype)
                got, expected = fq.matmul(x, q, **options), fq.matmul(x.astype(computed) * d, plain, **options)
                assert got.dtype == expected.dtype == computed
                assert (got == expected).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_of_either_orientation(isa, scheme, w, d, rng):
    x = rng.standard_normal((9, K)).astype(np.float32)
    q, plain = pair(w, d, 4, scheme=scheme)
    turned, _ = pair(np.ascontiguousarray(w.T), d, 4, axis=1, scheme=scheme)
    expected = (x * d) @ plain
    assert (x @ q == expected).all()
    assert (x @ turned.T == expected).all()


def test_arrays_of_every_form(isa, w, d, rng):
    q, plain = pair(w, d, 3, group_size=32)
    x = rng.standard_normal((2, 5, K)).astype(np.float32)
    expected = (x * d) @ plain
    assert (x @ q == expected).all()
    assert (x[0, 0] @ q == expected[0, 0]).all()
    for strange in (np.asfortranarray(x), x[:, ::-1][:, ::-1], x.astype(">f4")):
        assert (np.asarray(fq.matmul(strange, q)) == expected).all()
    out = np.empty_like(expected)
    assert fq.matmul(x, q, out) is out
    assert (out == expected).all()
    v, plain_v = pair(w[:, 0].copy(), d, 5)
    assert (x @ v == (x * d) @ plain_v).all()


def test_integers_become_floats(isa, w, d, rng):
    q, plain = pair(w, d)
    for dtype in (np.int8, np.uint8, np.int16, bool):
        x = rng.integers(0, 100, (9, K)).astype(dtype)
        for _ in range(2):
            assert (x @ q == (x.astype(np.float32) * d) @ plain).all()


def test_stacks_of_weights(isa, d, rng):
    w = rng.standard_normal((3, K, N)).astype(np.float32)
    x = rng.standard_normal((3, 6, K)).astype(np.float32)
    q, plain = pair(w, d, 4, axis=1)
    assert q.balance.shape == (1, K, 1)
    assert (x @ q == (x * d) @ plain).all()
    assert (x[0] @ q == (x[0] * d) @ plain).all()
    experts, apart = pair(rng.standard_normal((3, 1, 1)).astype(np.float32), d[:3], 4, axis=0)  # one factor a matrix
    ones = np.ones((3, 2, 1), np.float32)
    assert np.allclose(ones @ experts, ones @ experts.dequantize(), rtol=1e-6)
    assert not np.allclose(ones @ experts, ones @ apart.dequantize(), rtol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_the_left_the_right_is_scaled(isa, scheme, w, d, rng):
    y = rng.standard_normal((K, 9)).astype(np.float32)
    q, plain = pair(w.T.copy(), d, 4, axis=1, scheme=scheme)
    for _ in range(2):
        assert (q @ y == plain @ (y * d[:, None])).all()
    assert (q @ y[:, 0] == plain @ (y[:, 0] * d)).all()
    whole = rng.integers(-100, 100, (K, 9)).astype(np.int8)
    assert (q @ whole == plain @ (whole.astype(np.float32) * d[:, None])).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_along_the_kept_axis_they_are_scales(isa, scheme, w, d, rng):
    """A matrix of one column shares its scale along the axis that the product keeps."""
    y = rng.standard_normal((1, 9)).astype(np.float32)
    q, _ = pair(w[:, :1].copy(), d, 6, scheme=scheme)
    exact = q.dequantize() @ fq.quantize(y, axis=0).dequantize()
    for _ in range(2):
        assert np.allclose(q @ y, exact, atol=1e-4)
    x = fq.quantize(rng.standard_normal((5, 1)).astype(np.float32), axis=-1)
    assert np.allclose(x @ q.T, x.dequantize() @ q.T.dequantize(), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantized_output(isa, dtype, w, d, rng):
    x = rng.standard_normal((33, K)).astype(np.float32)
    q, plain = pair(w, d, 5)
    assert fq.matmul(x, q, dtype=dtype).equals(fq.matmul(x * d, plain, dtype=dtype))


@large
def test_threads_have_rooms_of_their_own(many_cores, d, rng):
    k = 3000
    d = np.exp(rng.standard_normal(k)).astype(np.float32)
    x, w = rng.standard_normal((700, k)).astype(np.float32), rng.standard_normal((k, 256)).astype(np.float32)
    q, plain = pair(w, d)
    with fq.set_num_threads(1):
        expected = (x * d) @ plain
    with fq.set_num_threads(8):
        for _ in range(10):
            assert (x @ q == expected).all()


def test_the_short_way_sees_a_balanced_left_operand(w, d, rng):
    x, q = rng.standard_normal((9, K)).astype(np.float32), fq.quantize(w, axis=0)
    for _ in range(2):
        fq.quantize(x, axis=1) @ q  # of one kind with what follows, but for the factors
    with pytest.raises(ValueError, match="because the left one is balanced"):
        fq.quantize(x, axis=1, balance=d) @ q


def test_rows_that_overflow(isa, w, d):
    q = fq.quantize(w, axis=0, balance=np.full(K, 4))
    for _ in range(2):
        with pytest.raises(fq.NotFiniteError, match="a, balanced as b is, must be finite"):
            np.full((9, K), 3e38, np.float32) @ q
        with pytest.raises(fq.NotFiniteError, match=r"a must be finite, .* at index \(0, 0\)"):
            np.full((9, K), np.inf, np.float32) @ q


# What it is for


@large
def test_products_gain_where_few_channels_are_large(rng):
    x, w = activations(rng, 128, 1024), rng.standard_normal((1024, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ w
    d = fq.balance(x, w)
    for form, gain in (({"bits": 8}, 10), ({"bits": 3, "group_size": 64}, 6)):
        before, after = (
            fq.error(exact, x @ fq.quantize(w, axis=0, balance=factors, **form)).sqnr_db for factors in (None, d)
        )
        assert after > before + gain


# Rotations: products are those of rotated rows with the rotated quotient


def hadamard(n):
    h = np.ones((1, 1), np.float32)
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h


def turned(x, block):
    """Blocks of rows, times the matrix, in float64."""
    shape = x.shape
    return (x.reshape(*shape[:-1], -1, block).astype(np.float64) @ hadamard(block)).reshape(shape)


@pytest.mark.parametrize(("k", "block"), [(16, 16), (48, 16), (64, 64), (96, 32), (192, 64), (512, 512)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rotation_is_that_of_the_matrix(isa, k, block, dtype, rng):
    """On whole numbers, of which sums are exact."""
    w = rng.integers(-8, 8, (k, 9)).astype(np.float32)
    d = 2.0 ** rng.integers(-2, 3, k)
    q = fq.quantize(w, 5, axis=0, balance=d, rotate=True)
    assert q.rotation == block
    plain = fq.quantize((turned((w / d[:, None]).T, block).T / block).astype(np.float32), 5, axis=0)
    assert (q.codes == plain.codes).all()
    assert (q.scale == plain.scale).all()
    for m in (1, 8, 11):
        x = rng.integers(-8, 8, (m, k)).astype(dtype)
        rows = turned(x * d, block).astype(np.float64 if dtype == np.float64 else np.float32)
        for _ in range(2):
            assert (x @ q == rows @ plain).all()
    back = turned(plain.dequantize().T, block).T * d[:, None]
    assert np.allclose(q.dequantize(), back, rtol=1e-5, atol=1e-5)
    assert fq.error(w, fq.quantize(w, axis=0, rotate=True)).sqnr_db > 30


def test_rotated_arrays_are_arrays(isa, rng):
    w = rng.standard_normal((K - 6, N)).astype(np.float32)
    q = fq.quantize(w, 8, axis=0, rotate=True)
    assert (q.balance == 1).all()
    assert "balanced, rotated by 64, dtype" in repr(q)
    for other in (q.T.T, pickle.loads(pickle.dumps(q))):
        assert other.equals(q)
    assert not q.equals(fq.quantize(w, 8, axis=0))
    assert (q.T.dequantize() == q.dequantize().T).all()
    x = rng.standard_normal((5, K - 6)).astype(np.float32)
    exact = x @ w
    stored = fq.quantize(np.ascontiguousarray(w.T), 8, axis=1, rotate=True)
    assert (x @ stored.T == x @ q).all()
    assert (x[0] @ q == (x @ q)[0]).all()
    assert fq.error(exact, x @ q).sqnr_db > 35
    assert fq.error(exact.T, stored @ x.T).sqnr_db > 35
    assert fq.error(exact[0], stored @ x[0]).sqnr_db > 35
    vector = fq.quantize(w[:, 0].copy(), 8, axis=0, rotate=True)
    assert np.isclose(x[0] @ vector, exact[0, 0], atol=0.3)


@large
def test_rotations_gain_more(rng):
    x, w = activations(rng, 128, 1024), rng.standard_normal((1024, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ w
    d = fq.balance(x, w)
    for form, gain in (({"bits": 8}, 8), ({"bits": 3, "group_size": 64, "method": "mse"}, 8)):
        before, after = (
            fq.error(exact, x @ fq.quantize(w, axis=0, balance=d, rotate=rotate, **form)).sqnr_db
            for rotate in (False, True)
        )
        assert after > before + gain


@pytest.mark.parametrize("packed", [False, True])
def test_balanced_arrays_in_another_order_along_the_axis(isa, rng, packed):
    """Factors of an array that was turned around are a view in falling order, which kernels cannot read."""
    w, x = rng.standard_normal((100, 20)).astype(np.float32), rng.standard_normal((5, 100)).astype(np.float32)
    d = np.exp(rng.standard_normal(100)).astype(np.float32)
    q = fq.quantize(w, axis=0, balance=d)
    if packed:
        q.prepack()
    for cut in (slice(None, None, -1), slice(None, None, 2), rng.permutation(100)):
        fresh = pickle.loads(pickle.dumps(q[cut]))
        assert fresh.balance.flags.c_contiguous
        for kind in (np.float16, np.float32, np.float64):
            part = x[:, cut].astype(kind)
            assert np.array_equal(part @ q[cut], part @ fresh)
    want = fq.quantize(w[::-1], axis=0, balance=d[::-1])
    assert np.array_equal(x[:, ::-1] @ q[::-1], x[:, ::-1] @ want)
    assert np.array_equal(q.T[:, ::-1] @ x.T[::-1], want.T @ x.T[::-1])


@pytest.mark.parametrize("shape", [(0, 32), (32, 0), (3, 0, 48)])
@pytest.mark.parametrize("axis", [0, -1])
def test_rotations_of_nothing(isa, shape, axis):
    if shape[axis] % 16 or not shape[axis]:
        with pytest.raises(ValueError, match="rotate needs a multiple of 16 elements"):
            fq.quantize(np.empty(shape), axis=axis, rotate=True)
    else:
        q = fq.quantize(np.empty(shape), 3, axis=axis, rotate=True)
        assert q.dequantize().shape == shape
