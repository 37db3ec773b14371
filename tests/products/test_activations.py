"""How floats are quantized on the fly: by row, by group of a row, or in two planes of bytes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastq as fq
from fastq.machine import cpu

WAYS = ("row", "group", "two-plane")
FINER = WAYS[1:]
FORMS = {
    "symmetric": {},
    "affine": {"scheme": "affine"},
    "integer groups": {"bits": 4, "group_size": 32},
    "float groups": {"bits": 4, "group_size": 32, "group_scale": "float", "scheme": "asymmetric"},
    "symmetric float groups": {"bits": 8, "group_size": 32, "group_scale": "float"},
    "odd groups": {"bits": 4, "group_size": 13, "scheme": "affine"},
    "balanced": {"balance": np.geomspace(0.1, 10, 96)},
    "rotated in groups": {"rotate": True, "bits": 4, "group_size": 48},
}
TYPES = (np.float32, np.float64, np.float16)


def weights(rng, shape=(96, 40), **form):
    return fq.quantize(rng.standard_normal(shape, np.float32), **{"bits": 8, "axis": -2, **form})


def by_reference(isa, a, b, **options):
    """The product by the reference; the instruction set is the test's again after that."""
    cpu.force("reference")
    try:
        return fq.matmul(a, b, **options)
    finally:
        cpu.force(isa)


def defined(x, size, high):
    """Scale and codes of rows of x in groups, by the definition."""
    scale, codes = [], []
    for first in range(0, x.shape[1], size):
        part = x[:, first : first + size]
        scale.append(np.abs(part).max(axis=1, keepdims=True) / x.dtype.type(high))
        codes.append(np.rint(part / scale[-1]).astype(int))
    return scale, codes


def test_two_planes_are_16_bits(isa, rng):
    x, q = rng.standard_normal((33, 96)), weights(rng).astype(np.float64)
    (scale,), (codes,) = defined(x, 96, 32639)
    high = (codes + 128) >> 8
    sums = (high @ q.codes.astype(int)) * 256.0 + (codes - 256 * high) @ q.codes.astype(int)
    product = fq.matmul(x, q, activations="two-plane")
    assert (product == sums * scale * q.scale).all()
    exact = x @ q.dequantize()
    assert fq.error(exact, product).sqnr_db > 85


def test_a_scale_for_each_group(isa, rng):
    x, q = rng.standard_normal((33, 96)) * np.repeat([1, 100, 0.01], 32), weights(rng).astype(np.float64)
    total = 0.0
    for g, (scale, codes) in enumerate(zip(*defined(x, 32, 127))):
        total = total + (codes @ q.codes[32 * g : 32 * g + 32].astype(int)) * scale
    # The scale of columns, which does not vary along K, multiplies the sum.
    assert (fq.matmul(x, q, activations="group") == total * q.scale).all()


def test_groups_are_those_of_the_array(isa, rng):
    x, q = rng.standard_normal((5, 96), np.float32), weights(rng, group_size=48, bits=4)
    x[:, 48:] *= 1e-3
    same = np.concatenate([x[:, :48], x[:, 48:] * 1000], axis=1)  # other groups, but the same codes
    first, second = (fq.matmul(part, half, activations="row") for part, half in
                     ((x[:, :48], q[:48]), (same[:, 48:], q[48:])))  # fmt: skip
    product = fq.matmul(x, q, activations="group")
    np.testing.assert_allclose(product, first + second / 1000, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("top", [32639 * 2.0**-9, 1.0, 321.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_close_to_ties(isa, dtype, top):
    """Quotients are those of a true division, and ties go to even; a product with the reciprocal gives others."""
    step = dtype(top) / dtype(32639)
    halves = (np.arange(29000, 32000, dtype=dtype) + dtype(0.5)) * step
    rows = [halves, np.nextafter(halves, dtype(0)), np.nextafter(halves, 2 * halves), -halves]
    x = np.concatenate([np.stack(rows), np.full((4, 1), top, dtype)], axis=1)
    expected = np.rint(x / step) * step
    for first in range(0, 3001, 601):  # each column by itself
        select = np.eye(3001, dtype=dtype)[:, first : first + 601]
        product = fq.matmul(x, fq.quantize(select, scale=1.0), activations="two-plane")
        assert (product == expected[:, first : first + 601]).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", FINER)
def test_every_instruction_set_gives_the_bits_of_the_reference(isa, rng, form, way):
    q = weights(rng, **FORMS[form])
    others = ((2, np.float64), (5, np.float16)) if form in ("symmetric", "float groups") else ()
    for m, dtype in ((1, np.float32), (37, np.float32), *others):
        x = rng.standard_normal((m, 96)).astype(dtype)
        product = fq.matmul(x, q, activations=way)
        assert (product == fq.matmul(x, q, activations=way)).all()  # by what the first one has prepared
        expected = by_reference(isa, x, q, activations=way)
        assert product.dtype == expected.dtype
        assert (product == expected).all()


@pytest.mark.parametrize("way", FINER)
def test_what_lies_beyond_k(isa, rng, way):
    """The integer scale of the last group makes codes of what lies beyond K, so left tiles are 0 there."""
    long, short = (weights(rng, (k, 40), bits=4, group_size=32) for k in (128, 80))
    for m in (1, 37):
        x = rng.standard_normal((m, 128), np.float32)
        expected = by_reference(isa, x[:, :80], short, activations=way)
        fq.matmul(x, long, activations=way)  # into the same memory
        assert (fq.matmul(x[:, :80], short, activations=way) == expected).all()


@pytest.mark.parametrize("way", FINER)
def test_bias_epilogue_type_and_place(isa, rng, way):
    x, q, bias = rng.standard_normal((20, 96), np.float32), weights(rng), np.arange(40, dtype=np.float32)
    for options in ({"bias": bias}, {"bias": bias, "epilogue": "gelu"}, {"dtype": np.float64, "bias": 1}):
        product = fq.matmul(x, q, activations=way, **options)
        expected = by_reference(isa, x, q, activations=way, **options)
        assert product.dtype == expected.dtype
        assert (product == expected).all()
    plain = fq.matmul(x, q, activations=way)
    for out in (np.empty((20, 40), np.float32), np.empty((40, 20), np.float32).T, np.empty((20, 40))):
        assert fq.matmul(x, q, activations=way, out=out) is out
        assert (out == plain).all()


@pytest.mark.parametrize("way", FINER)
def test_a_function_of_ones_own(isa, rng, way):
    numba = pytest.importorskip("numba")
    double = numba.njit(lambda y: 2 * y)
    x, q = rng.standard_normal((37, 96), np.float32), weights(rng, (96, 21))
    assert (fq.matmul(x, q, activations=way, epilogue=double) == 2 * fq.matmul(x, q, activations=way)).all()


@pytest.mark.parametrize("way", FINER)
def test_stacks_vectors_and_nothing(isa, rng, way):
    q = weights(rng, (3, 96, 8), axis=-2)
    x = rng.standard_normal((3, 5, 96), np.float32)
    stack = fq.matmul(x, q, activations=way)
    assert all((stack[i] == fq.matmul(x[i], q[i], activations=way)).all() for i in range(3))
    assert (fq.matmul(x[0, 0], q[0], activations=way) == stack[0, 0]).all()
    flat = fq.matmul(x, q[0], activations=way)
    assert (flat[1] == fq.matmul(x[1], q[0], activations=way)).all()
    assert fq.matmul(x[:, :0], q, activations=way).shape == (3, 0, 8)
    nothing = fq.quantize(np.ones((0, 4)), axis=0)
    assert (fq.matmul(np.ones((2, 0)), nothing, activations=way) == 0).all()
    zeros = fq.matmul(np.zeros((2, 96)), q[0], activations=way)
    assert (zeros == 0).all()


@pytest.mark.parametrize("way", FINER)
def test_strides_and_integers(isa, rng, way):
    q, x = weights(rng), rng.standard_normal((96, 14), np.float32)
    expected = fq.matmul(np.ascontiguousarray(x.T), q, activations=way)
    assert (fq.matmul(x.T, q, activations=way) == expected).all()
    wide = np.zeros((14, 192), np.float32)
    wide[:, ::2] = x.T
    assert (fq.matmul(wide[:, ::2], q, activations=way) == expected).all()
    numbers = rng.integers(-3000, 3000, (3, 96))
    product = fq.matmul(numbers, q, activations=way)
    assert product.dtype == np.float64
    assert (product == fq.matmul(numbers.astype(float), q, activations=way)).all()


@pytest.mark.parametrize("way", FINER)
def test_floats_on_the_right(isa, rng, way):
    q, x = weights(rng, (40, 96), axis=-1), rng.standard_normal((96, 7), np.float32)
    expected = fq.matmul(x.T, q.T, activations=way).T
    product = fq.matmul(q, x, activations=way)
    assert product.flags.c_contiguous
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-5)  # scales are multiplied in another order
    assert (q.with_activations(way) @ x == product).all()
    assert (q.with_activations(way) @ x[:, 0] == product[:, 0]).all()
    with_bias = fq.matmul(q, x[:, 0], bias=1, activations=way)
    assert (with_bias == product[:, 0] + np.float32(1)).all()


def test_two_arrays_of_floats(isa, rng):
    a, b = rng.standard_normal((6, 96)), rng.standard_normal((96, 5))
    finer = fq.matmul(a, b, activations="two-plane")
    assert (finer == fq.matmul(a, fq.quantize(b, axis=0), activations="two-plane")).all()
    low = fq.matmul(a, b, bits=4, activations="two-plane")  # bits are those of b
    assert (low == fq.matmul(a, fq.quantize(b, 4, axis=0), activations="two-plane")).all()


@pytest.mark.parametrize("way", FINER)
def test_into_codes(isa, rng, way):
    x, q = rng.standard_normal((300, 96), np.float32), weights(rng)
    codes = fq.matmul(x, q, dtype=np.int8, activations=way)
    assert codes.equals(fq.quantize(fq.matmul(x, q, activations=way), axis=-1))


@pytest.mark.parametrize("way", FINER)
def test_rows_in_bands(isa, rng, way, monkeypatch):
    from fastq.engine import prepared

    x, q = rng.standard_normal((200, 96), np.float32), weights(rng, group_size=32)
    expected = fq.matmul(x, q, activations=way)
    monkeypatch.setattr(prepared, "MOST_LEFT", 1 << 14)
    monkeypatch.setattr(prepared, "BAND", 1 << 14)
    assert (fq.matmul(x.copy(), q.with_activations(way), bias=np.zeros(40)) == expected).all()


@pytest.mark.parametrize("way", FINER)
def test_what_is_not_finite(isa, rng, way):
    q, x = weights(rng), np.ones((4, 96), np.float32)
    x[2, 40] = np.inf
    out = np.full((4, 40), 7, np.float32)
    with pytest.raises(fq.NotFiniteError, match=r"a must be finite.*\(2, 40\)"):
        fq.matmul(x, q, activations=way, out=out)
    assert (out == 7).all()
    with pytest.raises(fq.NotFiniteError, match=r"b must be finite.*\(40, 2\)"):
        fq.matmul(q.T, x.T, activations=way)


@pytest.mark.parametrize("way", FINER)
def test_extreme_numbers(isa, rng, way):
    q = weights(rng, (96, 3))
    for scale in (2.0**-140, 2.0**-149, 2.0**120):
        x = (rng.standard_normal((5, 96)) * scale).astype(np.float32)
        expected = by_reference(isa, x, q, activations=way)
        np.testing.assert_array_equal(fq.matmul(x, q, activations=way), expected)  # NaN where groups overflow


# On the quantized array


def test_the_array_says_how(isa, rng):
    x, q = rng.standard_normal((9, 96), np.float32), weights(rng)
    assert q.activations == "row"
    for way in WAYS:
        finer = q.with_activations(way)
        assert finer.activations == way
        expected = fq.matmul(x, q, activations=way)
        for product in (x @ finer, np.matmul(x, finer), np.dot(x, finer), np.einsum("ij,jk->ik", x, finer),
                        fq.matmul(x, finer)):  # fmt: skip
            assert (product == expected).all()
        assert (fq.matmul(x, finer, activations="row") == x @ q).all()
        codes = fq.quantize(x, axis=-1)
        assert (codes @ finer == codes @ q).all()
    assert q.with_activations("row") is q


def test_what_is_made_of_it_keeps_it(rng, tmp_path):
    q = weights(rng).with_activations("two-plane")
    packed = weights(rng).with_activations("group").prepack()
    q.save(tmp_path / "q")
    made = [q.T, q.T.T, q[:, :16], q[:, [3, 5]], q.reshape(96, 5, 8), q.astype(np.float64), 2 * q, copy.copy(q),
            pickle.loads(pickle.dumps(q)), fq.load(tmp_path / "q")]  # fmt: skip
    assert {other.activations for other in made} == {"two-plane"}
    assert {packed.T.activations, packed[:, :20].activations, packed[:, [1, 2]].activations} == {"group"}
    assert fq.load(tmp_path / "q").equals(weights(np.random.default_rng(20240607)))  # the numbers are the same
    assert "activations='two-plane'" in repr(q)
    assert "activations" not in repr(weights(rng))
    assert "activations" in dir(q)


def test_mistakes(rng):
    q, x = weights(rng), np.ones((2, 96))
    for wrong in ("tensor", 3, None, np.ones(3), "Row"):
        if wrong is not None:
            with pytest.raises(ValueError, match="activations must be one of 'row', 'group', 'two-plane'; got"):
                fq.matmul(x, q, activations=wrong)
        with pytest.raises(ValueError, match="activations must be one of"):
            q.with_activations(wrong)
    with pytest.raises(ValueError, match="both operands have codes already; got 'group': leave it out"):
        fq.matmul(np.ones((2, 96), np.int8), q, activations="group")
    with pytest.raises(TypeError, match="activations needs a product of floats"):
        fq.matmul(np.ones((2, 3), int), np.ones((3, 2), int), activations="group")
    with pytest.raises(ValueError, match="bias must be left out where floats on the right"):
        fq.matmul(q.T, x.T, bias=np.zeros(2), activations="group")
    with pytest.raises(ValueError, match='activations must be "row" where floats on the right become part'):
        fq.matmul(q.T.with_activations("group"), x.T, dtype=np.int8)


@pytest.mark.parametrize("way", FINER)
def test_what_floats_on_the_right_refuse(rng, way):
    """Each error says what follows, and that works."""
    q, x, bias = weights(rng, (40, 96), axis=-1), rng.standard_normal((96, 7), np.float32), np.arange(7, dtype="f4")
    finer = q.with_activations(way)
    part = f'activations must be "row" where floats on the right become part .*; got {way!r}: quantize what .*"row"$'
    for dtype in (np.int8, np.uint8):
        for b in (x, x[:, 0]):
            for more in ({}, {"bias": 1}, {"epilogue": "relu"}):
                for a, options in ((q, {"activations": way}), (finer, {})):
                    with pytest.raises(ValueError, match=part):
                        fq.matmul(a, b, dtype=dtype, **more, **options)
                assert fq.matmul(finer, b, dtype=dtype, activations="row", **more).equals(
                    fq.matmul(q, b, dtype=dtype, **more)
                )
    rows = fq.quantize(fq.matmul(finer, x), axis=-1)
    assert rows.equals(fq.quantize(fq.matmul(q, x, activations=way), axis=-1))
    assert fq.error(q.dequantize() @ x, rows.dequantize()).sqnr_db > 30
    left_out = f"bias must be left out where floats on the right .*; got {way!r}: add it to the product"
    for a, options in ((q, {"activations": way}), (finer, {})):
        for value in (bias, 1):
            with pytest.raises(ValueError, match=left_out + "$"):
                fq.matmul(a, x, bias=value, **options)
        with pytest.raises(ValueError, match=left_out + " without the epilogue, which comes after the bias$"):
            fq.matmul(a, x, bias=bias, epilogue="relu", **options)
    sums = fq.matmul(finer, x) + bias
    by_row = fq.matmul(q, x, bias=bias)
    assert fq.error(by_row, sums).sqnr_db > 30
    assert (fq.matmul(finer, x[:, 0], bias=1) == fq.matmul(finer, x[:, 0]) + np.float32(1)).all()
