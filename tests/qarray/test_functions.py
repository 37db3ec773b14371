"""Every function of NumPy either does with a quantized array what it does with its numbers, or refuses by name."""

from __future__ import annotations

import numpy as np
import numpy.fft
import numpy.lib.recfunctions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing.overrides import get_overridable_numpy_array_functions, get_overridable_numpy_ufuncs

import fastq as fq
from fastq.qarray.functions import FUNCTIONS, UFUNCS
from tests.qarray.test_indexing import FORMS, SCHEMES, arrays, attempt, consistent, made, same

RNG = np.random.default_rng(5)
Q = fq.quantize(RNG.standard_normal((70, 20)).astype(np.float32), 4, axis=0)
R = fq.quantize(RNG.standard_normal((20, 70)).astype(np.float32), 4, axis=-1)
STACK = fq.quantize(RNG.standard_normal((3, 70, 20)).astype(np.float32), 4, axis=-2)
VECTOR = fq.quantize(RNG.standard_normal(70).astype(np.float32), 4, axis=0)
ONE = fq.quantize(RNG.standard_normal((1, 70, 1)).astype(np.float32), 4)
X = RNG.standard_normal((9, 70)).astype(np.float32)
XS = RNG.standard_normal((3, 9, 70)).astype(np.float32)


def name_of(func):
    return f"{func.__module__}.{func.__name__}".removeprefix("numpy.")


# Rearranging and questions: the very numbers. Each case is a function of "numbers or quantized array"; they must agree.
ALIKE = {
    "shape": lambda f: np.shape(f(Q)),
    "ndim": lambda f: np.ndim(f(STACK)),
    "size": lambda f: (np.size(f(Q)), np.size(f(Q), 1)),
    "iscomplexobj": lambda f: np.iscomplexobj(f(Q)),
    "isrealobj": lambda f: np.isrealobj(f(Q)),
    "real": lambda f: np.real(f(Q)),
    "result_type": lambda f: (np.result_type(f(Q), np.float64), np.result_type(1, f(Q)), np.result_type(f(Q), f(R), X)),
    "can_cast": lambda f: (np.can_cast(f(Q).dtype, "f8"), np.can_cast(np.float64, f(Q).dtype), np.can_cast("f8", "f4")),
    "common_type": lambda f: np.common_type(f(Q), X.astype(np.float64)),
    "ravel": lambda f: np.ravel(f(ONE)),
    "reshape": lambda f: (np.reshape(f(Q), (2, 35, 20)), np.reshape(f(Q), (70, -1, 5)), np.reshape(f(ONE), 70)),
    "transpose": lambda f: (np.transpose(f(Q)), np.transpose(f(STACK), (2, 0, 1)), np.transpose(f(STACK), (0, 2, 1))),
    "matrix_transpose": lambda f: np.matrix_transpose(f(STACK)),
    "linalg.matrix_transpose": lambda f: np.linalg.matrix_transpose(f(Q)),
    "swapaxes": lambda f: np.swapaxes(f(STACK), 0, -1),
    "moveaxis": lambda f: np.moveaxis(f(STACK), 0, -1),
    "rollaxis": lambda f: np.rollaxis(f(STACK), 2),
    "expand_dims": lambda f: (np.expand_dims(f(Q), 0), np.expand_dims(f(Q), (0, -1)), np.expand_dims(f(Q), 1)),
    "squeeze": lambda f: (np.squeeze(f(ONE)), np.squeeze(f(ONE), 0), np.squeeze(f(ONE), (0, -1))),
    "atleast_1d": lambda f: np.atleast_1d(f(Q)),
    "atleast_2d": lambda f: np.atleast_2d(f(VECTOR), f(Q)),
    "atleast_3d": lambda f: np.atleast_3d(f(VECTOR), f(Q), f(STACK)),
    "flip": lambda f: (np.flip(f(Q)), np.flip(f(STACK), (0, 2))),
    "flipud": lambda f: np.flipud(f(Q)),
    "fliplr": lambda f: np.fliplr(f(Q)),
    "rot90": lambda f: (np.rot90(f(Q)), np.rot90(f(Q), 3), np.rot90(f(STACK), 2, (1, 2))),
    "take": lambda f: (
        np.take(f(Q), [3, 1, 1], axis=0),
        np.take(f(ONE), [5, 6]),
        np.take(f(Q), 4, axis=1),
        np.take(f(Q), [True, False], axis=0),
        np.take(f(Q), np.array(2), axis=0),
    ),
    "compress": lambda f: np.compress(np.arange(20) % 2, f(Q), axis=1),
    "split": lambda f: (*np.split(f(Q), 7), *np.split(f(Q), [8, 9], axis=1)),
    "array_split": lambda f: tuple(np.array_split(f(Q), 3)),
    "hsplit": lambda f: tuple(np.hsplit(f(Q), 4)),
    "vsplit": lambda f: tuple(np.vsplit(f(Q), 2)),
    "dsplit": lambda f: tuple(np.dsplit(f(STACK), 2)),
    "unstack": lambda f: (*np.unstack(f(STACK)), *np.unstack(f(Q), axis=1)),
    "concatenate": lambda f: (
        np.concatenate([f(Q), f(Q)[:, :5]], axis=1),
        np.concatenate([f(Q), f(Q)]),
        np.concatenate([f(ONE), f(ONE)], None),
        np.concatenate([f(Q)[:35], f(Q)[35:]]),
        np.concatenate((f(STACK), f(STACK)), -3, dtype="f8"),
        np.concatenate([f(Q)]),
    ),
    "stack": lambda f: (np.stack([f(Q), f(Q)]), np.stack((f(Q), f(Q), f(Q)), axis=-1)),
    "vstack": lambda f: (np.vstack([f(Q), f(Q)]), np.vstack([f(R), f(R)[:3]])),
    "hstack": lambda f: (np.hstack([f(Q), f(Q)]), np.hstack([f(VECTOR), f(VECTOR)])),
    "dstack": lambda f: np.dstack([f(Q), f(Q)]),
    "column_stack": lambda f: (np.column_stack([f(VECTOR), f(VECTOR)]), np.column_stack([f(Q), f(Q)])),
    "copy": lambda f: np.copy(f(Q)),
    "astype": lambda f: np.astype(f(Q), np.float16),
    "array_equal": lambda f: (
        np.array_equal(f(Q), Q.dequantize()),
        np.array_equal(f(Q), f(R)),
        np.array_equal(X, f(Q)),
    ),
    "array_equiv": lambda f: (np.array_equiv(f(Q), Q.dequantize()), np.array_equiv(f(Q), 0)),
    "allclose": lambda f: (
        np.allclose(f(Q), Q.dequantize() + 1e-9),
        np.allclose(0, f(Q)),
        np.allclose(f(Q), 9, atol=99),
    ),
    "isclose": lambda f: np.isclose(f(Q), 0, atol=0.5),
    "zeros_like": lambda f: (np.zeros_like(f(Q)), np.zeros_like(f(Q), dtype=int), np.zeros_like(f(Q), shape=3)),
    "ones_like": lambda f: np.ones_like(f(Q)),
    "full_like": lambda f: np.full_like(f(Q), 7),
    "empty_like": lambda f: np.empty_like(f(Q)).shape,
}

# Products: the same up to the 8 bits that floats are quantized to.
PRODUCTS = {
    "dot": lambda f: (
        np.dot(X, f(Q)),
        np.dot(f(Q).T, X.T),
        np.dot(XS, f(STACK)),
        np.dot(f(VECTOR), f(VECTOR)),
        np.dot(X, f(VECTOR)),
    ),
    "inner": lambda f: (np.inner(X, f(R)), np.inner(f(VECTOR), f(R)), np.inner(XS, f(R))),
    "vdot": lambda f: np.vdot(f(VECTOR), X[0]),
    "tensordot": lambda f: (
        np.tensordot(X, f(Q), 1),
        np.tensordot(XS, f(STACK), axes=([0, 2], [0, 1])),
        np.tensordot(f(R), XS, axes=(1, 2)),
        np.tensordot(X, f(Q), ((1,), (0,))),
    ),
    "linalg.tensordot": lambda f: np.linalg.tensordot(X, f(Q), axes=1),
    "einsum": lambda f: (
        np.einsum("ij,jk->ik", X, f(Q)),
        np.einsum("ij,jk", X, f(Q)),
        np.einsum("bij,bjk->bki", XS, f(STACK)),
        np.einsum("...j,jk->...k", XS, f(Q)),
        np.einsum("jk, ij -> ki", f(Q), X),
        np.einsum(f(R), [1, 2], X, [0, 2], [0, 1]),
        np.einsum("ij,kj", X, f(R)),
        np.einsum(X, [..., 2], f(Q), [2, 3]),
        np.einsum("i,i->", f(VECTOR), X[0]),
        np.einsum("ij->ji", f(Q)),
        np.einsum("bij,bjk", XS, f(STACK)),
        np.einsum("...ij,...jk", XS, f(Q), optimize=True),
    ),
    "linalg.matmul": lambda f: np.linalg.matmul(X, f(Q)),
    "linalg.multi_dot": lambda f: np.linalg.multi_dot([X, f(Q), np.eye(20, dtype="f4")]),
    "linalg.vecdot": lambda f: (
        np.linalg.vecdot(X[0], f(VECTOR)),
        np.linalg.vecdot(X[:, None].T, f(VECTOR)[:, None], axis=0),
    ),
    "vecdot": lambda f: (np.vecdot(X, f(VECTOR)), np.vecdot(f(R), X[0]), np.vecdot(X[:, None], f(R)[None])),
    "matvec": lambda f: (
        np.matvec(f(R), X[0]),
        np.matvec(f(R), X),
        np.matvec(f(STACK).mT, X[:3]),
        np.matvec(X, f(VECTOR)),
    ),
    "vecmat": lambda f: (np.vecmat(X[0], f(Q)), np.vecmat(X, f(Q)), np.vecmat(X[:3], f(STACK))),
    "matmul": lambda f: (np.matmul(X, f(Q)), np.matmul(XS, f(STACK)), np.matmul(f(R), X.T)),
}
SPECIAL = {"min_scalar_type", "array_repr", "array_str", "array2string"}


def id_(q):
    return q


def tuples(value):
    return value if isinstance(value, tuple) else (value,)


def have(cases):
    return [
        name for name in cases if all(hasattr(np.linalg if "linalg" in name else np, n) for n in [name.split(".")[-1]])
    ]


@pytest.mark.parametrize("name", have(ALIKE))
def test_alike(name):
    got, expected = (tuples(ALIKE[name](f)) for f in (id_, fq.dequantize))
    assert len(got) == len(expected)
    for mine, numbers in zip(got, expected):
        if isinstance(mine, fq.QArray):
            assert same(mine, numbers)
            assert consistent(mine)
        elif isinstance(numbers, np.ndarray):
            assert mine.dtype == numbers.dtype
            assert np.array_equal(mine, numbers)
        else:
            assert type(mine) is type(numbers)
            assert mine == numbers


@pytest.mark.parametrize("name", have(PRODUCTS))
def test_products(isa, name):
    got, expected = (tuples(PRODUCTS[name](f)) for f in (id_, fq.dequantize))
    for mine, numbers in zip(got, expected):
        assert mine.shape == numbers.shape
        assert mine.dtype == numbers.dtype
        mine = mine.dequantize() if isinstance(mine, fq.QArray) else mine
        assert isinstance(mine, np.ndarray) == isinstance(numbers, np.ndarray)
        # One vector alone may be unlucky; a wrong axis gives 0 dB.
        assert fq.error(numbers, mine).sqnr_db > (33 if np.size(numbers) > 50 else 25), name


def test_products_are_the_plain_ones():
    """Not only close: the rearranging changes no bit."""
    expected = fq.matmul(X, Q)
    assert np.array_equal(np.einsum("ij,jk->ki", X, Q), expected.T)
    assert np.array_equal(np.tensordot(Q, X, axes=(0, 1)), Q.T @ X.T)
    assert np.array_equal(np.dot(X, Q), expected)
    out = np.empty((9, 20), np.float32)
    assert np.dot(X, Q, out=out) is out
    assert np.array_equal(out, expected)
    assert np.einsum("ij,jk->ik", X, Q, out=out[::-1]) is not None
    assert np.array_equal(out[::-1], expected)
    assert np.array_equal(np.vecmat(X, Q) if hasattr(np, "vecmat") else expected, expected)
    assert np.array_equal(X.dot(Q.dequantize()).shape, Q.T.dot(X.T).T.shape)


def test_out_of_ufuncs():
    out = np.empty(9, np.float64)
    assert np.vecdot(X, VECTOR, out=out) is out
    assert np.array_equal(out, X @ VECTOR)
    with pytest.raises(TypeError, match="takes no axis"):
        np.vecdot(X, VECTOR, axis=0)
    with pytest.raises(TypeError, match=r"out of numpy\.multiply must be left out"):
        np.multiply(Q, 2, out=np.empty(Q.shape))


def test_kinds():
    assert np.min_scalar_type(Q) == np.float32
    for show in (np.array_repr, np.array_str, np.array2string):
        assert show(Q) == repr(Q)


# Nothing falls through in silence


@pytest.mark.parametrize("func", sorted(get_overridable_numpy_array_functions(), key=name_of), ids=name_of)
def test_every_function_is_handled_or_refused(func):
    """The complete list of this NumPy. What is handled has a case above; what is not says its name."""
    if func in FUNCTIONS:
        assert {name_of(func), func.__name__} & {*ALIKE, *PRODUCTS, *SPECIAL}
        return
    refused = rf"numpy\.{name_of(func)} has no form for quantized arrays, .* q\."
    with pytest.raises(TypeError, match=refused):
        Q.__array_function__(func, (fq.QArray,), (Q,), {})
    calls = [
        ((Q,), {}),
        ((Q, Q), {}),
        ((Q, 1), {}),
        (([Q, Q],), {}),
        ((Q, Q, Q), {}),
        ((Q, 1, 1), {}),
        ((1,), {"like": Q}),
        ((1, Q), {}),
        ((1, 1, Q), {}),
        ((1, 1), {"like": Q}),
        (([1], [1], Q), {}),
        ((Q, 1, 1, 1), {}),
        (([1.0], float), {"like": Q}),
        (("1",), {"sep": " ", "like": Q}),
    ]
    answers = []
    for args, kwargs in calls:
        try:
            answers.append(func(*args, **kwargs))
        except Exception as error:  # which kind of error a wrong number of arguments gives differs
            answers.append(error)
    assert any(isinstance(a, TypeError) and "has no form for quantized arrays" in str(a) for a in answers), answers


def test_the_lists_are_complete():
    """The walk above sees what it should."""
    names = {name_of(f) for f in get_overridable_numpy_array_functions()}
    assert len(names) > 280
    assert {"sum", "concatenate", "linalg.norm", "fft.fft"} <= names
    assert {np.matmul, np.add, np.exp} <= get_overridable_numpy_ufuncs()


@pytest.mark.parametrize(
    "ufunc", sorted(get_overridable_numpy_ufuncs(), key=lambda u: u.__name__), ids=lambda u: u.__name__
)
def test_every_ufunc_is_handled_or_refused(ufunc):
    refused = rf"numpy\.{ufunc.__name__}[a-z .]* has no form for quantized arrays"
    if ufunc is not np.matmul and ufunc not in UFUNCS:
        for operands in [(Q,) * ufunc.nin, (X[:1], Q)[-ufunc.nin :]] if ufunc.nin < 3 else [(Q,) * ufunc.nin]:
            with pytest.raises(TypeError, match=refused):
                ufunc(*operands)
    for method in ("reduce", "accumulate", "outer", "at", "reduceat"):
        if ufunc.nin == 2 and ufunc.nout == 1 and ufunc.signature is None and method in ("reduce", "accumulate"):
            with pytest.raises(TypeError, match=refused):
                getattr(ufunc, method)(Q)
        if ufunc.nin == 2 and method == "outer" and ufunc.signature is None:
            with pytest.raises(TypeError, match=refused):
                ufunc.outer(Q, X)


def test_operators():
    w = Q.dequantize()
    for call in (
        lambda: Q + 1,
        lambda: 1 - Q,
        lambda: w + Q,
        lambda: Q * Q,
        lambda: 1 / Q,
        lambda: Q // 2,
        lambda: Q < 1,
        lambda: Q == Q,
        lambda: Q != 1,
        lambda: w == Q,
        lambda: Q**2,
        lambda: abs(Q),
        lambda: ~Q,
        lambda: Q % 2,
        lambda: Q in [R],
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        w += Q
    with pytest.raises(TypeError, match=r"q\.equals"):
        Q == R  # noqa: B015


def test_arrays_of_others_are_given_their_turn():
    class Theirs:
        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            return "theirs"

        def __array_function__(self, func, types, args, kwargs):
            return "theirs"

    for call in (
        lambda t: np.matmul(Q, t),
        lambda t: np.add(t, Q),
        lambda t: Q @ t,
        lambda t: np.multiply(Q, t),
        lambda t: Q * t,
        lambda t: np.concatenate([Q, t]),
        lambda t: np.vecdot(t, Q),
    ):
        assert call(Theirs()) == "theirs"


# Factors


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_factors_fold_into_the_scale(rng, form, scheme, packed):
    q = made(rng, scheme=scheme, **FORMS[form])
    axis = q.axis
    if packed and axis != 1:
        q.prepack()
    numbers = q.dequantize()
    vector = rng.uniform(0.5, 2, 90 if axis == 0 else 200).astype(np.float32)
    vectors = [vector, vector.astype(np.float64), vector[None]] if axis == 0 else [vector[:, None], -vector[:, None]]
    eps = np.finfo(np.float32).eps
    for by in (2, 0.3, -1.5, np.float32(3), np.float64(3.3), np.int32(5), True, 0, np.array([[7]]), *vectors):
        for got, expected in (
            (q * by, numbers * by),
            (by * q, by * numbers),
            *([] if np.size(by) == 1 and not by else [(q / by, numbers / by)]),
        ):
            assert isinstance(got, fq.QArray)
            assert got.dtype == expected.dtype
            assert np.array_equal(got.codes, q.codes)
            # Two roundings against three, of parts that may cancel.
            parts = np.abs(numbers) if q.offset is None else np.abs(numbers) + 2 * np.abs(q.offset).max()
            allowed = 8 * eps * parts * np.abs(np.asarray(by, float) if got is not None else 1)
            allowed = np.maximum(allowed, 8 * eps * parts / np.maximum(np.abs(np.asarray(by, float)), 0.1))
            assert (np.abs(got.dequantize() - expected) <= allowed).all()
    assert np.array_equal((-q).dequantize(), -numbers)
    assert (+q) is q
    assert np.array_equal((q * 4).dequantize(), numbers * 4)


def test_products_with_factors(isa, rng):
    """An array times factors multiplies as the array does, and then by them."""
    x = rng.standard_normal((9, 200)).astype(np.float32)
    for form in ("down", "integer groups", "float groups"):
        for scheme in SCHEMES:
            q = made(rng, scheme=scheme, **FORMS[form])
            d = rng.uniform(0.5, 2, 90).astype(np.float32) * rng.choice([-1, 1], 90)
            y, scaled = x @ q, x @ (q * d)
            magnitude = np.abs(x) @ np.abs(q.dequantize()) * np.abs(d)
            assert (np.abs(scaled - y * d) <= 40 * np.finfo(np.float32).eps * magnitude).all()
            assert np.array_equal(x @ (q * 0.5), y * np.float32(0.5))
            assert np.array_equal(x @ -q, -y)


@pytest.mark.parametrize(
    ("by", "error", "words"),
    [
        (np.ones((70, 1)), ValueError, "must not vary along the axis that shares a scale"),
        (np.ones((70, 20)), ValueError, "must not vary along the axis"),
        (np.ones((3, 1, 1)), ValueError, r"must broadcast to its shape \(70, 20\)"),
        (np.inf, ValueError, "must leave scale finite"),
        (1e39, ValueError, "must leave scale finite"),
        (1j, TypeError, "real numbers up to 64 bits"),
        ("x", TypeError, "real numbers up to 64 bits"),
        (np.ones(3), ValueError, "broadcast"),
    ],
)
def test_factors_that_do_not_fold(by, error, words):
    if isinstance(by, np.ndarray) and by.shape == (70, 1):
        by = by * np.arange(1, 71)[:, None]
    with pytest.raises(error, match=words):
        Q * by
    with pytest.raises(ZeroDivisionError, match="divided by 0"):
        Q / 0


# Shapes and joins at will


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(q=arrays(), data=st.data())
@pytest.mark.exhaustive
def test_any_shape(q, data):
    """A reshape is either the reshape of the numbers or refused, never other numbers."""
    sizes, rest = [], q.size
    while rest > 1 and len(sizes) < 4:
        size = data.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
        sizes.append(size)
        rest //= size
    shape = (*sizes, rest) if rest > 1 or data.draw(st.booleans()) else tuple(sizes)
    got = attempt(lambda: q.reshape(shape), "must keep runs that share a scale")
    if got is None:
        assert q.axis is not None
        return
    assert got.shape == shape
    assert np.array_equal(got.dequantize(), q.dequantize().reshape(shape))
    assert consistent(got)


def test_shapes_that_must_be_possible(rng):
    """Heads of a layer, and back; stacks of matrices from their rows."""
    rows = made(rng, (64, 96), axis=-1, group_size=16)
    for q, shape in (
        (rows, (64, 6, 16)),
        (rows, (64, 3, 32)),
        (rows, (2, 32, 96)),
        (rows, (64, 12, 8)),
        (rows, (64 * 96,)),
        (made(rng, (64, 96), axis=0), (64, 6, 16)),
        (made(rng, (64, 96), axis=0), (4, 16, 96)),
        (made(rng, (64, 96)), (96, 64)),
        (made(rng, (64, 96), axis=0, group_size=16), (4, 16, 96)),
        (made(rng, (4, 16, 96), axis=1), (64, 96)),
        (made(rng, (64, 6, 16), axis=2), (64, 96)),
    ):
        assert same(q.reshape(shape), q.dequantize().reshape(shape))
        assert same(q.reshape(*shape).reshape(q.shape), q.dequantize())
    with pytest.raises(ValueError, match="cannot reshape array"):
        rows.reshape(5, 5)
    with pytest.raises(ValueError, match="keep runs"):
        rows.reshape(32, 192).T.reshape(-1)
    assert made(rng, (4, 16, 96), axis=1).reshape(64, 96).group_size == 16


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(q=arrays(), data=st.data())
@pytest.mark.exhaustive
def test_what_was_cut_joins_again(q, data):
    axis = data.draw(st.integers(-q.ndim, q.ndim - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, q.shape[axis]), max_size=3)))
    numbers = q.dequantize()
    parts = attempt(lambda: np.split(q, cuts, axis=axis), "groups of one size")
    if parts is None:
        return
    assert all(same(p, n) for p, n in zip(parts, np.split(numbers, cuts, axis=axis)))
    joined = attempt(lambda: np.concatenate(parts, axis=axis), "add up to groups of one size")
    if joined is not None:
        assert same(joined, numbers)
        assert consistent(joined)


def test_joins_of_different_scales(rng):
    """Along the shared axis they become groups, which must be of one size."""
    parts = [made(rng, (64, 20), axis=0) for _ in range(3)]
    for mine in (parts, [*parts, parts[0][:10]]):
        whole = np.concatenate(mine)
        assert whole.group_size == 64
        assert same(whole, np.concatenate([p.dequantize() for p in mine]))
    with pytest.raises(ValueError, match="add up to groups of one size"):
        np.concatenate([parts[0][:10], parts[1], parts[2]])
    single = [made(rng, (64, 20)) for _ in range(2)]
    for axis in (0, 1):
        assert same(np.concatenate(single, axis), np.concatenate([p.dequantize() for p in single], axis))
    packed = np.concatenate([made(rng, (128, 32), "packed", axis=0, group_size=64) for _ in range(2)], axis=1)
    assert packed._store.packed
    integer = made(rng, (256, 20), axis=0, group_size=64)
    again = np.concatenate([integer[:128], integer[128:]])
    assert again.equals(integer)


JOINS = {
    "other bits": (
        lambda: [Q, fq.quantize(np.ones((70, 20)), 3, axis=0)],
        TypeError,
        "one width and scheme; got 3 bits",
    ),
    "other scheme": (
        lambda: [Q, fq.quantize(np.ones((70, 20)), 4, axis=0, scheme="affine")],
        TypeError,
        "one width and scheme",
    ),
    "an ndarray": (lambda: [Q, X], TypeError, "together with quantized arrays only; got ndarray"),
    "other axes": (
        lambda: [Q, fq.quantize(np.ones((70, 20)), 4, axis=1)],
        ValueError,
        "share scales along one axis; got axes",
    ),
    "other shapes": (lambda: [Q, Q[:, :3]], ValueError, "must match exactly"),
    "nothing": (list, ValueError, "need at least one array"),
}


@pytest.mark.parametrize("case", JOINS)
def test_joins_that_are_refused(case):
    made, error, words = JOINS[case]
    with pytest.raises(error, match=words):
        np.concatenate(made())


def test_joins_of_balanced_arrays(rng):
    d = rng.uniform(1, 9, 64)
    parts = [fq.quantize(rng.standard_normal((64, 10)), 4, axis=0, balance=d) for _ in range(2)]
    whole = np.concatenate(parts, axis=1)
    assert same_numbers(whole, parts, 1)
    assert same_numbers(np.concatenate(parts, axis=0), parts, 0)
    other = fq.quantize(rng.standard_normal((64, 10)), 4, axis=0, balance=2 * d)
    with pytest.raises(ValueError, match="must have the same one"):
        np.concatenate([parts[0], other], axis=1)
    with pytest.raises(ValueError, match="all be balanced, or none"):
        np.concatenate([parts[0], fq.quantize(np.ones((64, 10)), 4, axis=0)])


def same_numbers(whole, parts, axis):
    return np.array_equal(whole.dequantize(), np.concatenate([p.dequantize() for p in parts], axis=axis))


def test_arguments_by_their_names_in_numpy():
    """NumPy's names: a1 and a2 of array_equal, say."""
    assert np.array_equal(a1=Q, a2=Q.dequantize())
    assert np.allclose(b=Q, a=Q.dequantize())
    assert np.array_equal(np.einsum(b"ij,jk->ik", X, Q), X @ Q)


def test_a_product_in_the_type_of_a_quantized_array():
    """``dtype=`` takes what has a dtype, also what cannot be hashed."""
    assert fq.matmul(X, Q, dtype=Q).dtype == np.float32
