"""``q @ x`` with an array x is computed as the transpose of ``x.T @ q.T``, with the bits of a product as it stands."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq

FORMS = {
    "symmetric": {},
    "asymmetric": {"scheme": "asymmetric"},
    "affine": {"scheme": "affine"},
    "integer groups": {"bits": 4, "group_size": 32},
    "float groups": {"bits": 4, "group_size": 32, "group_scale": "float", "scheme": "asymmetric"},
    "affine groups": {"bits": 3, "group_size": 50, "scheme": "affine"},
    "one scale": {"axis": None},
    "balanced": {"balance": np.geomspace(0.1, 10, 128)},
    "rotated": {"rotate": True},
}
SHAPES = [((40, 128), (128,)), ((40, 128), (128, 1)), ((70, 128), (128, 3)), ((2, 40, 128), (128, 2)),
          ((40, 128), (3, 128, 2)), ((2, 1, 40, 128), (3, 128, 1)), ((3, 40, 128), (128,)),
          ((1, 128), (128,))]  # fmt: skip
TYPES = (np.float32, np.float64, np.float16, np.int8, np.uint8)
SOME = ("symmetric", "affine groups")  # of the forms, in types other than float32
CASES = [
    pytest.param(form, dtype, marks=() if dtype == np.float32 or form in SOME else pytest.mark.exhaustive)
    for form in FORMS
    for dtype in TYPES
]


def quantized(rng, shape, form, dtype=np.float32):
    w = rng.standard_normal(shape).astype(dtype)
    return fq.quantize(w, **{"bits": 8, "axis": -1, **form})


def operand(rng, shape, dtype):
    x = 30 * rng.standard_normal(shape)
    return (np.abs(x) if dtype == np.uint8 else x).astype(dtype)


def in_its_own_order(q, x):
    """The product, which is not turned where it has a bias by column; 0 changes nothing but the sign of a zero."""
    if x.ndim == 1:
        return in_its_own_order(q, x[:, None])[..., 0]
    return fq.matmul(q, x, bias=np.zeros(x.shape[-1]))


@pytest.mark.parametrize(("form", "dtype"), CASES)
def test_the_bits_are_those_of_the_product_itself(isa, rng, form, dtype):
    for shape, other in SHAPES:
        q, x = quantized(rng, shape, FORMS[form]), operand(rng, other, dtype)
        expected = in_its_own_order(q, x)
        for packed in (False, True):
            if packed:
                q.mT.prepack()
            product = q @ x
            assert product.shape == expected.shape
            assert product.dtype == expected.dtype
            assert (product == expected).all()
            assert product.flags.c_contiguous
            assert ((q @ x) == expected).all()  # by what the first product has prepared


def test_where_the_result_goes(isa, rng):
    q, x = quantized(rng, (70, 128), {}), operand(rng, (128, 3), np.float32)
    expected = in_its_own_order(q, x)
    for out in (np.empty((70, 3), np.float32), np.empty((3, 70), np.float32).T, np.empty((70, 6), np.float32)[:, ::2],
                np.empty((70, 3), np.float64), np.empty((2, 70, 3), np.float32)):  # fmt: skip
        assert fq.matmul(q, x, out=out) is out
        assert (out == expected).all()
    assert np.matmul(q, x, order="F").flags.f_contiguous
    assert (np.matmul(q, x.T, axes=[(0, 1), (1, 0), (1, 0)]) == expected.T).all()
    inside = np.full((128, 70), 7.0, np.float32)
    inside[:, :3] = x
    square = quantized(rng, (128, 128), {})
    expected = in_its_own_order(square, inside[:, :3])
    fq.matmul(square, inside[:, :3], out=inside[:, :3])  # over its own operand
    assert (inside[:, :3] == expected).all()
    assert (inside[:, 3:] == 7).all()


@pytest.mark.parametrize("epilogue", [None, "relu", "gelu"])
def test_bias_and_epilogue_of_a_vector(isa, rng, epilogue):
    q, x = quantized(rng, (40, 128), {}), operand(rng, (128,), np.float32)
    for bias in (None, 2.5, [2.5]):
        expected = fq.matmul(q, x[:, None], bias=np.zeros(1) if bias is None else bias, epilogue=epilogue)[:, 0]
        assert (fq.matmul(q, x, bias=bias, epilogue=epilogue) == expected).all()
    with pytest.raises(ValueError, match="one entry per column"):
        fq.matmul(q, x, bias=np.zeros(40))


def test_the_product_and_its_transpose_do_not_meet(rng):
    """Both are prepared products of one packed operand; the scales are multiplied in another order."""
    q = quantized(rng, (500, 128), {})
    x = operand(rng, (128,), np.float32)
    ours, theirs = in_its_own_order(q, x), x @ q.T
    for _ in range(3):
        assert (q @ x == ours).all()
        assert (x @ q.T == theirs).all()
    assert (ours != theirs).any()  # they differ in the last bit of some elements: the test can tell


@pytest.mark.parametrize("form", ["symmetric", "integer groups", "affine groups"])
def test_nothing_is_unpacked(rng, form, monkeypatch, tmp_path):
    q, x = quantized(rng, (200, 128), FORMS[form]), operand(rng, (128, 2), np.float32)
    v = x[:, 0].copy()
    expected, of_vector = q @ x, q @ v
    q.save(tmp_path / "q")
    monkeypatch.setattr("fastq.engine.store.unpack", None)
    for a in (q, fq.load(tmp_path / "q")):
        for product in (a @ x, np.matmul(a, x), np.dot(a, x), np.einsum("ij,jk->ik", a, x), np.tensordot(a, x, 1)):
            assert (product == expected).all()
        for product in (a @ v, np.inner(a, v), np.dot(a, v), np.einsum("ij,j->i", a, v), fq.matmul(a, v, bias=0.0)):
            assert (product == of_vector).all()


def test_errors_name_the_operands_as_they_came(rng):
    q = quantized(rng, (200, 128), {"balance": np.full(128, 1e30)})
    bad = operand(rng, (128, 2), np.float32)
    bad[5, 1] = np.nan
    with pytest.raises(fq.NotFiniteError, match=r"^b must be finite.* at index \(5, 1\)"):
        q @ bad
    with pytest.raises(fq.NotFiniteError, match=r"^b, balanced as a is, must be finite"):
        q @ np.full((128, 2), 1e30, np.float32)
    with pytest.raises(ValueError, match="the scale of the left operand"):
        quantized(rng, (200, 128), {"axis": 0}) @ operand(rng, (128,), np.float32)
