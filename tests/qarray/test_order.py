"""An order: codes that lie in another order than the elements they stand for; products take the other operand in it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastq as fq
from fastq.products import repeated
from fastq.products.sums import sums
from fastq.qarray.parts import put_together, take_apart

K, N = 96, 40
FORMS = {
    "symmetric": {},
    "asymmetric": {"scheme": "asymmetric"},
    "affine": {"bits": 4, "scheme": "affine"},
    "float groups": {"bits": 4, "group_size": 32, "group_scale": "float", "scheme": "asymmetric"},
    "integer groups": {"bits": 3, "group_size": 16},
    "ragged groups": {"bits": 5, "group_size": 36},
    "balanced": {"balance": np.geomspace(0.1, 10, K)},
    "rotated in groups": {"rotate": True, "bits": 4, "group_size": 48},
    "groups of activations": {"group_size": 32, "bits": 4, "activations": "group"},
    "two planes": {"activations": "two-plane"},
}


@pytest.fixture
def order(rng):
    return rng.permutation(K)


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, K)).astype(np.float32)


def made(rng, order, form="symmetric", axis=0, shape=None):
    """The plain array, and the same codes with an order."""
    form = dict(FORMS[form])
    activations = form.pop("activations", "row")
    shape = shape or ((K, N) if axis == 0 else (N, K))
    plain = fq.quantize(rng.standard_normal(shape).astype(np.float32), axis=axis, **form).with_activations(activations)
    return plain, fq.from_parts(**plain.parts(), order=order)


def test_dequantize(rng, order):
    for form in FORMS:
        for axis in (0, 1):
            plain, q = made(rng, order, form, axis)
            exact, found = plain.dequantize(), np.full(q.shape, np.nan, np.float32)
            q.dequantize(out=found)
            assert np.array_equal(np.take(found, order, axis), exact), form
            assert np.array_equal(q.codes, plain.codes)
    stacked, q = made(rng, order, axis=1, shape=(3, K, 4))
    assert np.array_equal(q.dequantize(np.float64)[:, order], stacked.dequantize(np.float64))


@pytest.mark.parametrize("form", FORMS)
def test_products_take_the_other_operand_in_that_order(rng, order, x, form):
    plain, q = made(rng, order, form)
    expected = x[:, order] @ plain
    for _ in range(3):  # the first prepares, later ones repeat
        assert np.array_equal(x @ q, expected)
    assert np.array_equal(x[0] @ q, x[0, order] @ plain)
    assert np.array_equal(x.astype(np.float64) @ q, x[:, order].astype(np.float64) @ plain)
    assert np.array_equal(q.T @ x.T, plain.T @ x[:, order].T)
    assert np.array_equal(q.T @ x[0], plain.T @ x[0, order])
    many = np.tile(x, (40, 1))
    assert np.array_equal(many @ q, many[:, order] @ plain)
    stack = x.reshape(1, 5, K)
    assert np.array_equal(stack @ q, stack[..., order] @ plain)
    packed = fq.from_parts(**q.parts()).prepack()
    assert np.array_equal(x @ packed, expected)
    by_rows = fq.from_parts(**plain.T.parts(), order=order)
    assert np.array_equal(by_rows @ x.T, plain.T @ x[:, order].T)
    assert np.array_equal(x @ by_rows.T, expected)
    bias = rng.standard_normal(N).astype(np.float32)
    options = {"bias": bias, "epilogue": "relu"}
    for _ in range(2):
        assert np.array_equal(fq.matmul(x, q, **options), fq.matmul(x[:, order], plain, **options))
    codes = fq.matmul(x, q, dtype=np.int8, activations="row")
    assert codes.equals(fq.matmul(x[:, order], plain, dtype=np.int8, activations="row"))


def test_products_repeat_with_the_order(rng, order, x):
    plain, q = made(rng, order, "float groups")
    x @ q
    assert q.ready
    found = repeated.again(x, q, None, None, (None, None, None))
    assert found is not None
    assert np.array_equal(found, x[:, order] @ plain)
    out = np.empty((5, N), np.float32)
    assert repeated.again(x, q, out, None, (None, None, None)) is out
    assert np.array_equal(out, found)
    vector = x[0].copy()
    by_rows = q.T
    by_rows @ vector
    found = repeated.again(by_rows, vector, None, None, (None, None, None))
    assert np.array_equal(found, plain.T @ vector[order])
    left = fq.quantize(x, axis=-1)
    first = left @ q
    again = repeated.again(left, q, None, None, (None, None, None))
    assert again is not None
    assert np.array_equal(first, again)
    assert np.array_equal(first, left[:, order] @ plain)


def test_codes_of_8_bits(rng, order):
    plain, q = made(rng, order, "asymmetric")
    for kind in (np.int8, np.uint8):
        a = rng.integers(0, 100, (6, K)).astype(kind)
        assert np.array_equal(a @ q, a[:, order] @ plain)
        assert np.array_equal(q.T @ a.T, plain.T @ a[:, order].T)
        assert np.array_equal(sums(a, q), sums(a[:, order], plain))
        assert np.array_equal(sums(q.T, a.T), sums(plain.T, a[:, order].T))
    wide = rng.integers(-9, 9, (2, K))
    assert np.array_equal(wide @ q, wide[:, order] @ plain)


def test_quantized_operands(rng, order, x):
    plain, q = made(rng, order, "float groups")
    exact = plain.dequantize(np.float64)
    left = fq.quantize(x, 6, axis=-1)
    assert np.array_equal(left @ q, left[:, order] @ plain)
    assert np.array_equal(q.T @ left.T, plain.T @ left[:, order].T)
    # Both have one: the left one is brought into that of the right one, or stays where they are the same.
    other = rng.permutation(K)
    a = fq.from_parts(**left.parts(), order=other)
    close = {"rtol": 1e-5, "atol": 1e-4}
    logical = np.empty_like(exact)
    logical[order] = exact
    np.testing.assert_allclose(a @ q, a.dequantize(np.float64) @ logical, **close)
    same = fq.from_parts(**left.parts(), order=order)
    assert np.array_equal(same @ q, left @ plain)
    grouped = fq.quantize(x, 6, axis=-1, group_size=24)
    for given in (None, other):
        by_group = fq.from_parts(**grouped.parts(), order=given)
        _, q8 = made(rng, order)
        np.testing.assert_allclose(by_group @ q8, by_group.dequantize(np.float64) @ q8.dequantize(np.float64), **close)
        with pytest.raises(ValueError, match=r"different orders along the axis .*multiply the dequantize\(\) of one"):
            by_group @ q
    same_groups = fq.from_parts(**grouped.parts(), order=order)
    assert np.array_equal(same_groups @ q, grouped @ plain)


def test_stacks_and_functions_of_numpy(rng, order, x):
    plain, q = made(rng, order, axis=1, shape=(3, K, 8))
    left = rng.standard_normal((3, 5, K)).astype(np.float32)
    assert np.array_equal(left @ q, left[..., order] @ plain)
    assert np.array_equal(x @ q, x[:, order] @ plain)
    assert np.array_equal(np.einsum("bik,bkj->bij", left, q), left[..., order] @ plain)
    assert np.array_equal(q.mT @ left.mT, plain.mT @ left[..., order].mT)
    assert np.array_equal(np.matmul(left, q[1]), left[..., order] @ plain[1])
    plain, q = made(rng, order)
    expected = x[:, order] @ plain
    for found in (np.dot(x, q), np.inner(x, q.T), np.tensordot(x, q, 1), np.einsum("ik,kj", x, q), np.matmul(x, q)):
        assert np.array_equal(found, expected)
    assert np.array_equal(np.linalg.multi_dot([x, q]), expected)
    assert np.array_equal(fq.matmul(x.T, q, axes=[(1, 0), (0, 1), (0, 1)]), expected)
    vector = fq.from_parts(np.arange(K) - 48, 0.5, bits=8, order=order)
    plain = fq.from_parts(np.arange(K) - 48, 0.5, bits=8)
    assert np.array_equal(x @ vector, x[:, order] @ plain)
    assert np.array_equal(vector @ x.T, plain @ x[:, order].T)
    assert vector @ vector == plain @ plain


def test_search(rng, order, x):
    plain, q = made(rng, order, "float groups", axis=1)
    for database, original, axis in ((q, plain, -1), (q.T, plain.T, 0)):
        for found, expected in zip(fq.top_k(x, database, 3, axis=axis), fq.top_k(x[:, order], original, 3, axis=axis)):
            assert np.array_equal(found, expected)
    exact = rng.standard_normal((N, K)).astype(np.float32)
    found = fq.top_k(x, q, 3, rescore=exact)[0]
    assert np.array_equal(found, np.sort(found)[:, ::-1])


@pytest.mark.parametrize("form", FORMS)
def test_errors_and_their_bound(rng, order, x, form):
    plain, q = made(rng, order, form)
    w = rng.standard_normal((K, N)).astype(np.float32)
    assert repr(fq.error_matmul(x, w, q)) == repr(fq.error_matmul(x[:, order], w[order], plain))
    np.testing.assert_allclose(fq.matmul_error_bound(x, q), fq.matmul_error_bound(x[:, order], plain), rtol=1e-12)
    assert fq.error_matmul(x, q.dequantize(), q).weights.sqnr_db > 120
    if "balance" not in form and "rotate" not in form and "plane" not in form:
        left = fq.quantize(x, axis=-1)
        if q.balance is None:
            found = fq.error_matmul(left, w, q)
            assert repr(found) == repr(fq.error_matmul(left[:, order], w[order], plain))


def test_errors_of_two_with_orders(rng, order, x):
    w = rng.standard_normal((K, N)).astype(np.float32)
    _, q = made(rng, order)
    for left in (fq.quantize(x, axis=-1), fq.quantize(x, axis=-1, group_size=32)):
        for given in (order, rng.permutation(K), None):
            a = fq.from_parts(**left.parts(), order=given)
            e = fq.error_matmul(a, w, q)
            exact, found = a.dequantize(np.float64) @ w, a.dequantize(np.float64) @ q.dequantize(np.float64)
            assert e.weights.rmse == pytest.approx(fq.error(exact, found).rmse, rel=1e-6)
            assert e.rounding.sqnr_db > 100


def test_it_is_kept(rng, order, tmp_path):
    for form in FORMS:
        for axis in (0, 1):
            plain, q = made(rng, order, form, axis)
            along = [1, 1]
            along[axis] = K
            assert q.order.shape == tuple(along)
            assert np.array_equal(q.order.reshape(-1), order)
            assert not q.order.flags.writeable
            assert not q.equals(plain)
            assert not plain.equals(q)
            for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q)), put_together(*take_apart(q)),
                          fq.from_parts(**q.parts()), fq.from_parts(**q.parts(packed=True)), q.T.T):  # fmt: skip
                assert other.equals(q)
            q.save(tmp_path / f"{form}{axis}")
            assert fq.load(tmp_path / f"{form}{axis}").equals(q)
            assert np.array_equal(q.T.dequantize(), q.dequantize().T)
            assert np.array_equal(q.astype(np.float64).order, q.order)
            assert np.array_equal((q * 2).order, q.order)
            assert np.array_equal(q.with_activations("group").order, q.order)
            beside = q[:, 3:19] if axis == 0 else q[[5, 1]]
            assert np.array_equal(beside.dequantize(), q.dequantize()[:, 3:19] if axis == 0 else q.dequantize()[[5, 1]])
    assert repr(q).count(", reordered") == 1
    assert "reordered" not in repr(plain)


def test_an_order_that_changes_nothing_is_left_out(rng):
    assert made(rng, np.arange(K))[1].order is None


def test_shapes_that_keep_it(rng, order):
    _, q = made(rng, order, "float groups")
    exact = q.dequantize()
    assert np.array_equal(q.reshape(K, 5, 8).dequantize(), exact.reshape(K, 5, 8))
    assert np.array_equal(np.expand_dims(q, 0).dequantize(), exact[None])
    assert np.array_equal(q[:, 4].dequantize(), exact[:, 4])
    assert np.array_equal(np.concatenate([q, q], axis=1).dequantize(), np.concatenate([exact, exact], axis=1))
    assert np.array_equal(np.stack([q, q]).dequantize(), np.stack([exact, exact]))
    assert q[:, :0].dequantize().shape == (K, 0)
    assert q[:0].dequantize().shape == (0, N)
    assert q[:0].order is not None
    assert fq.from_parts(**q[:0].parts()).equals(q[:0])
    one = fq.from_parts([[1], [2]], [[1.0], [2.0]], bits=4, order=[0])
    assert one[:, 0].dequantize().tolist() == [1, 4]


@pytest.mark.parametrize(("change", "words"), [
    (lambda q: q[3:50], r"a cut along axis 0 must leave all elements or none, .*: cut q\.dequantize\(\)"),
    (lambda q: q[3], r"a cut along axis 0 must leave all"),
    (lambda q: q[::-1], r"a cut along axis 0 must leave all"),
    (lambda q: np.split(q, 2), r"a cut along axis 0 must leave all"),
    (lambda q: q.reshape(2, 48, N), r"has a balance or an order along axis 0: keep that axis"),
    (lambda q: np.ravel(q), r"has a balance or an order along axis 0"),
    (lambda q: np.concatenate([q, q]), r"in the order of their elements; got one with an order: join what"),
    (lambda q: np.concatenate([q, fq.from_parts(**{**q.parts(), "order": None})], axis=1), r"beside their order must"),
    (lambda q: np.ones((2, N), np.float32) @ q.T, r"as the right operand|along the axis that is summed over"),
])  # fmt: skip
def test_what_would_tear_it(rng, order, change, words):
    with pytest.raises(ValueError, match=words):
        change(made(rng, order)[1])


def test_beside_the_summed_axis():
    """Only where there is nothing else along the summed axis may scales be shared along another one."""
    q = fq.from_parts([[[1]], [[2]]], [[[1.0]]], bits=4, axis=0, order=[1, 0])
    with pytest.raises(ValueError, match=r"a reordered array must be summed over the axis .*multiply q\.dequantize"):
        np.ones((2, 1, 1), np.float32) @ q


def test_what_overflows_is_told_where_it_is(rng, order):
    balance = np.ones(K)
    balance[order == 7] = 1e30
    plain = fq.quantize(rng.standard_normal((200, K)).astype(np.float32), axis=1, balance=balance)
    q = fq.from_parts(**plain.parts(), order=order)
    b = np.ones(K, np.float32)
    b[7] = 1e30
    for right, where in ((b, r"\(7,\)"), (b[:, None], r"\(7, 0\)")):
        with pytest.raises(fq.NotFiniteError, match=rf"^b, balanced as a is, must be finite.* at index {where}"):
            q @ right


def test_files_without_one_are_as_before(rng, order):
    plain, q = made(rng, order)
    assert "order" not in take_apart(plain)[0]
    assert take_apart(plain)[1] == take_apart(q)[1]
    arrays, attributes = take_apart(q)
    for wrong in (arrays["order"] + 1, np.zeros_like(arrays["order"]), arrays["order"] - 1):
        with pytest.raises(ValueError, match=r"order must be a permutation, each number below 96 once"):
            put_together({**arrays, "order": wrong}, attributes)
    with pytest.raises(ValueError, match=r"order must be an array of int64"):
        put_together({**arrays, "order": arrays["order"].astype(np.int32)}, attributes)


@pytest.mark.parametrize("form", ["symmetric", "float groups", "balanced"])
def test_dask_and_zarr(rng, order, x, form, tmp_path):
    pytest.importorskip("dask.array")
    from fastq.interop import dask as fqd
    from fastq.interop.collection import from_qarray

    plain, q = made(rng, order, form)
    expected = x[:, order] @ plain
    lazy = from_qarray(q, chunks=32)
    assert lazy.chunks == ((K,), (32, 8))
    assert lazy.compute().equals(q)
    assert np.array_equal((x @ lazy).compute(), expected)
    assert np.array_equal(fqd.matmul(lazy.T, x.T).compute(), plain.T @ x[:, order].T)
    whole = fqd.matmul(__import__("dask.array").array.from_array(x, chunks=(5, 24)), q)
    assert np.array_equal(whole.compute(), expected)
    with pytest.raises(ValueError, match=r"a cut along axis 0 must leave all elements"):
        lazy[:40].compute()
    pytest.importorskip("zarr")
    from fastq.interop import zarr as fz

    fz.save(tmp_path / "q.zarr", q, chunks=(32, 16))
    assert fz.open(tmp_path / "q.zarr").equals(q)
    again = fz.open_dask(tmp_path / "q.zarr", chunks=(32, 16))
    assert again.chunks == ((K,), (16, 16, 8))
    assert np.array_equal((x @ again).compute(), expected)
    fz.save(tmp_path / "lazy.zarr", lazy)
    assert fz.open(tmp_path / "lazy.zarr").equals(q)
