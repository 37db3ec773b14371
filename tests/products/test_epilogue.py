"""What becomes of a product: activations, functions of one's own, types, and codes for the next product."""

from __future__ import annotations

import ml_dtypes
import numba
import numpy as np
import pytest

import fastq as fq
from fastq.engine import prepared
from fastq.kernels.epilogue.activations import on_arrays
from fastq.kernels.epilogue.outputs import ACTIVATIONS

# One row, a few (GEMV), some that fill no tile, and blocks with edges on both sides.
SHAPES = [(1, 70, 40), (5, 64, 33), (33, 200, 64), (70, 130, 100), (160, 70, 96)]
AFFINE = {"bits": 3, "group_size": 32, "scheme": "affine"}


@numba.njit
def softsign(y):
    return y / (1 + abs(y)) if y > 0 else 0.1 * y


@numba.njit
def reciprocal(y):
    return 1 / (y - y)


@numba.njit
def picky(y):
    if y > 1:
        raise ValueError("too large")
    return y


def operands(rng, m, k, n, dtype=np.float32):
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    return x, w, rng.standard_normal(n).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, {"bits": 8}) for name in ACTIVATIONS),
        *(pytest.param(name, AFFINE, marks=[] if name == "silu" else pytest.mark.exhaustive) for name in ACTIVATIONS),
    ],
)
def test_activation_is_that_of_the_product(isa, name, form, shape, dtype, rng):
    x, w, bias = operands(rng, *shape, dtype)
    q = fq.quantize(w, axis=0, **form)
    for b in (None, bias):
        assert (fq.matmul(x, q, bias=b, epilogue=name) == on_arrays(name, fq.matmul(x, q, bias=b))).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.exhaustive
def test_function_of_ones_own(isa, shape, rng):
    x, w, bias = operands(rng, *shape)
    for bits, group in ((8, None), (4, 32)):
        q = fq.quantize(w, bits, axis=0, group_size=group)
        y = fq.matmul(x, q, bias=bias).astype(np.float64)
        exact = np.where(y > 0, y / (1 + abs(y)), 0.1 * y)
        # The sum and the quotient are rounded to float32 at most, then the result.
        assert (abs(fq.matmul(x, q, bias=bias, epilogue=softsign) - exact) <= abs(exact) * 2**-22).all()
        half = fq.matmul(x, q, bias=bias, epilogue=softsign, dtype=np.float16)
        assert (half == fq.matmul(x, q, bias=bias, epilogue=softsign).astype(np.float16)).all()


@pytest.mark.exhaustive
def test_function_of_ones_own_in_float64(isa, rng):
    x, w, bias = operands(rng, 40, 70, 50, np.float64)
    y = fq.matmul(x, w, bias=bias)
    exact = np.where(y > 0, y / (1 + abs(y)), 0.1 * y)
    assert (abs(fq.matmul(x, w, bias=bias, epilogue=softsign) - exact) <= abs(exact) * 2**-51).all()


def test_function_marked_parallel_is_compiled_without():
    function = numba.njit(parallel=True)(softsign.py_func)
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert (fq.matmul(x, x.T, epilogue=function) == fq.matmul(x, x.T, epilogue=softsign)).all()


@pytest.mark.parametrize(("dtype", "n"), [(np.float16, 3008), (np.float32, 1504), (np.float64, 752)])
@pytest.mark.exhaustive
def test_large_output_with_an_epilogue_goes_past_the_cache(isa, dtype, n, rng):
    """The long way, the short way, and parts too small for it: the same bits, also in rows that are no whole lines."""
    for width in (n, n + 4):
        x, w, bias = operands(rng, 1500, 20, width, np.float64 if dtype == np.float64 else np.float32)
        q = fq.quantize(w, 8, axis=0)
        parts = np.concatenate([fq.matmul(p, q, bias=bias, epilogue="silu", dtype=dtype) for p in np.split(x, 15)])
        assert parts.dtype == dtype
        assert parts.nbytes >= prepared.STREAMED
        for _ in range(2):
            assert (fq.matmul(x, q, bias=bias, epilogue="silu", dtype=dtype) == parts).all()


def test_function_divides_as_numpy_does(isa):
    result = fq.matmul(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), epilogue=reciprocal)
    assert np.isinf(result).all()


def test_function_that_raises(isa):
    x = np.ones((20, 4), np.float32)
    assert (fq.matmul(x * 0.01, np.ones((4, 40), np.float32), epilogue=picky) < 1).all()
    with pytest.raises(RuntimeError, match="the function given as epilogue must not raise an exception"):
        fq.matmul(x, np.ones((4, 40), np.float32), epilogue=picky)
    assert (fq.matmul(x * 0.01, np.ones((4, 40), np.float32), epilogue=picky) < 1).all()  # and it works again


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.exhaustive
def test_half_precision_out(isa, shape, rng):
    x, w, bias = operands(rng, *shape)
    for q in (fq.quantize(w, 8, axis=0), fq.quantize(w, 5, axis=0, group_size=48)):
        exact = fq.matmul(x, q, bias=bias).astype(np.float16)
        assert (fq.matmul(x, q, bias=bias, dtype=np.float16) == exact).all()
        out = np.empty(exact.shape, np.float16)
        assert fq.matmul(x, q, out, bias=bias) is out
        assert (out == exact).all()
        frame = np.zeros((shape[0], shape[2] + 3), np.float16)
        fq.matmul(x, q, frame[:, 1:-2], bias=bias)
        assert (frame[:, 1:-2] == exact).all()
        assert not frame[:, 0].any()
        assert not frame[:, -2:].any()
    with np.errstate(over="ignore"):
        large = fq.matmul(x * 1e6, w, dtype=np.float16)
    assert large.dtype == np.float16
    assert np.isinf(large).any()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_in_is_read_as_it_is(isa, dtype, rng):
    """Also subnormal numbers, strides, K around the vectors' length, and large ones."""
    for k in (1, 15, 16, 17, 63, 64, 130):
        x = (rng.standard_normal((40, 2 * k)) * 10.0 ** rng.integers(-9, 5, (40, 1))).astype(dtype)[:, :k]
        w = rng.standard_normal((k, 20)).astype(np.float32)
        for q in (fq.quantize(w, 8, axis=0), w):
            y = fq.matmul(x, q)
            assert y.dtype == np.float32
            assert (y == fq.matmul(x.astype(np.float32), q)).all()
            assert (fq.matmul(x[:, ::-1], q) == fq.matmul(x[:, ::-1].astype(np.float32), q)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_that_is_not_finite(isa, dtype, value):
    x = np.ones((20, 70), dtype)
    x[17, 66] = value
    with pytest.raises(fq.NotFiniteError, match=r"a must be finite.* 1 of 1400 .*index \(17, 66\)"):
        x @ fq.quantize(np.ones((70, 4), np.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "scheme"), [(np.int8, "symmetric"), (np.uint8, "asymmetric")])
def test_codes_out(isa, dtype, scheme, shape, rng):
    """By row as quantize does; with parameters of one's own, for all or by row, too."""
    x, w, bias = operands(rng, *shape)
    for q in (fq.quantize(w, 8, axis=0), fq.quantize(w, axis=0, **AFFINE)):
        y = fq.matmul(x, q, bias=bias, epilogue="silu")
        got = fq.matmul(x, q, bias=bias, epilogue="silu", dtype=dtype)
        assert got.equals(fq.quantize(y, 8, axis=-1, scheme=scheme))
        zero = None if scheme == "symmetric" else 37
        got = fq.matmul(x, q, bias=bias, epilogue="silu", dtype=dtype, scale=0.03, zero_point=zero)
        assert got.equals(fq.quantize(y, 8, scheme=scheme, scale=0.03, zero_point=zero))
        scales = rng.uniform(0.01, 0.1, (shape[0], 1))
        zeros = None if scheme == "symmetric" else rng.integers(0, 256, (shape[0], 1))
        got = fq.matmul(x, q, bias=bias, epilogue="silu", dtype=dtype, scale=scales, zero_point=zeros)
        expected = fq.quantize(y, 8, axis=-1, scheme=scheme, scale=scales, zero_point=zeros)
        if shape[0] > 1:
            assert got.equals(expected)
        else:
            assert (got.codes == expected.codes).all()


def test_codes_come_in_bands(monkeypatch, rng):
    """More rows than a band has, the last band shorter; no float array of the product's size."""
    monkeypatch.setattr(prepared, "BAND_ROWS", 32)
    monkeypatch.setattr(prepared, "BAND_BYTES", 0)
    x, w, bias = operands(rng, 101, 80, 50)
    q = fq.quantize(w, 4, axis=0, scheme="asymmetric")
    left = fq.quantize(x, 8, axis=-1, scheme="affine")
    for a in (x, left):
        y = fq.matmul(a, q, bias=bias)
        assert fq.matmul(a, q, bias=bias, dtype=np.int8).equals(fq.quantize(y, 8, axis=-1))
        assert fq.matmul(a, q, bias=bias, dtype=np.uint8).equals(fq.quantize(y, 8, axis=-1, scheme="asymmetric"))


def test_layers_chained_in_integers(rng):
    x, w1, b1 = operands(rng, 50, 64, 96)
    w2 = rng.standard_normal((96, 30)).astype(np.float32)
    q1, q2 = (fq.quantize(w, 8, axis=0) for w in (w1, w2))
    hidden = fq.matmul(x, q1, bias=b1, epilogue="relu", dtype=np.uint8)
    assert isinstance(hidden, fq.QArray)
    assert hidden.codes.dtype == np.uint8
    result = hidden @ q2
    assert (result == fq.quantize(fq.matmul(x, q1, bias=b1, epilogue="relu"), axis=-1, scheme="asymmetric") @ q2).all()
    assert fq.error(np.maximum(x @ w1 + b1, 0) @ w2, result).sqnr_db > 35


def test_stacks_vectors_and_nothing(rng):
    x = rng.standard_normal((2, 3, 20, 16)).astype(np.float32)
    w = rng.standard_normal((3, 16, 8)).astype(np.float32)
    for a, b in ((x, w), (x, w[0]), (x[0, 0, 0], w[0]), (x[0, 0], w[0, :, 0]), (x[:0], w), (x[..., :0], w[:, :0])):
        y = fq.matmul(a, b, epilogue="gelu")
        assert (y == on_arrays("gelu", fq.matmul(a, b))).all()
        assert fq.matmul(a, b, epilogue="gelu", dtype=np.int8).equals(fq.quantize(y, 8, axis=-1))
        scale = np.full((*y.shape[:-1], 1), 0.25)
        got = fq.matmul(a, b, epilogue="gelu", dtype=np.int8, scale=scale)
        assert (got.codes == fq.quantize(y, 8, axis=-1, scale=scale).codes).all()
    assert fq.matmul(x[0, 0, 0], w[0, :, 0], dtype=np.float16).dtype == np.float16
    bias = fq.matmul(x[:, :, :, :0], w[:, :0], bias=-1.0, epilogue="relu")
    assert bias.shape == (2, 3, 20, 8)
    assert not bias.any()


def test_types_asked_for(rng):
    a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in ((9, 30), (30, 7)))
    exact = a.astype(np.int64) @ b
    for dtype in (np.int32, np.int64, np.float32, np.float64):
        got = fq.matmul(a, b, dtype=dtype)
        assert got.dtype == dtype
        assert (got == exact).all()
    assert (fq.matmul(a, b, dtype=np.float32, epilogue="relu") == np.maximum(exact, 0)).all()
    x = rng.standard_normal((9, 30))
    assert (fq.matmul(x, b, dtype=np.float32) == fq.matmul(x.astype(np.float32), b)).all()
    assert fq.matmul(x.astype(np.float32), b, dtype=np.float64).dtype == np.float64
    wide = rng.integers(0, 9, (3, 3))
    assert fq.matmul(wide, wide, dtype=np.float64).dtype == np.float64  # as NumPy does it


def test_a_word_of_a_users_class_is_not_kept():
    """It may be shown, or compared, when a later product finds what was kept."""

    class Word(str):
        def __str__(self):
            raise RuntimeError

    x = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)
    q = fq.quantize(np.eye(4, dtype=np.float32), axis=0)
    assert (fq.matmul(x, q, epilogue=Word("silu")) == fq.matmul(x, q, epilogue="silu")).all()
    assert type(fq.choose_bits(x, sqnr=10, method=Word("mse"), report=False).method) is str


@pytest.mark.parametrize("scale", [None, 0.1, [[0.1], [0.2]]])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_codes_of_what_overflows_are_refused(isa, scale, dtype):
    a, b = np.full((2, 4), 3e38, np.float32), np.full((4, 3), 3e38, np.float32)
    zero = None if scale is None or dtype == np.int8 else 3
    with pytest.raises(fq.NotFiniteError, match=r"a @ b must be finite, .* it overflows its float type"):
        fq.matmul(a, b, dtype=dtype, scale=scale, zero_point=zero)


@pytest.mark.parametrize("options", [{}, {"scale": 0.5}])
def test_codes_of_stacks_times_vectors(isa, rng, options):
    a, v = rng.standard_normal((2, 3, 16)).astype(np.float32), rng.standard_normal(16).astype(np.float32)
    y = fq.matmul(a, v)
    got = fq.matmul(a, v, dtype=np.int8, **options)
    assert got.equals(fq.quantize(y, axis=None if options else -1, **options))
    got = fq.matmul(v, np.swapaxes(a, 1, 2), dtype=np.int8, **options)
    assert got.equals(fq.quantize(fq.matmul(v, np.swapaxes(a, 1, 2)), axis=None if options else -1, **options))
