"""matmul_error_bound holds and is of use; what can be exact is; inputs, and `out` of failing calls, stay as they were.

Bounds are compared with errors as fractions. Products are the same on every instruction set, so one is enough for most.
"""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastq as fq
from fastq.products import sums
from tests.cases import integers

SCHEMES = ("symmetric", "asymmetric", "affine")


def real(x):
    """What an operand stands for, as fractions."""
    exact = np.frompyfunc(Fraction, 1, 1)
    if not isinstance(x, fq.QArray):
        return exact(
            x.astype(np.float64).astype(object)
            if x.dtype.kind == "f" or x.dtype.name == "bfloat16"
            else x.astype(object)
        )

    def spread(p):
        if p is None:
            return 0
        p = exact(p.astype(object))
        if x.group_size is None or p.shape[x.axis] == 1:
            return p
        return np.repeat(p, x.group_size, axis=x.axis).take(range(x.shape[x.axis]), axis=x.axis)

    values = spread(x.scale) * (x.codes.astype(object) - spread(x.zero_point)) + spread(x.offset)
    if x.rotation > 1:
        turned = np.moveaxis(values, x.axis, -1)
        blocks = turned.reshape(*turned.shape[:-1], -1, x.rotation)
        hadamard = np.ones((1, 1), object)
        while len(hadamard) < x.rotation:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        values = np.moveaxis((blocks @ hadamard).reshape(turned.shape), -1, x.axis)
    return values if x.balance is None else values * exact(x.balance.astype(object))


def share(a, b, bits=8):
    """The largest error as a share of the bound; never more than 1."""
    y, bound = fq.matmul(a, b, bits=bits), fq.matmul_error_bound(a, b, bits=bits)
    assert np.shape(bound) == np.shape(y)
    assert np.asarray(bound).dtype == np.float64
    assert type(bound) is (np.float64 if np.shape(y) == () else np.ndarray)
    exact = np.matmul(real(a), real(b))
    if np.size(y) == 0 or a.shape[-1] == 0:
        return 0.0
    triples = zip(np.ravel(y).tolist(), np.ravel(exact), np.ravel(bound).tolist())
    found = [(abs(Fraction(c) - e), Fraction(limit)) for c, e, limit in triples if limit != np.inf]
    assert all(error <= limit for error, limit in found)
    return max((float(error / limit) for error, limit in found if limit), default=0.0)


# Each width has kernels of its own, which take longer to compile than to try.
some_widths = pytest.mark.parametrize(
    "widths", [(3, 8), pytest.param(tuple(range(2, 9)), marks=pytest.mark.exhaustive)], ids=["3 and 8", "all"]
)


@st.composite
def operands(draw, side, k, ends, widths):
    """An operand of any kind, of shape (..., m, k) or (..., k, n)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch = draw(st.sampled_from([(), (), (), (2,), (3, 1)]))
    shape = (*batch, *((ends, k) if side == "left" else (k, ends)))
    along = -1 if side == "left" else -2
    kind = draw(st.sampled_from(["float", "float", "int8", "uint8", *SCHEMES]))
    if kind in ("int8", "uint8"):
        return integers(rng, shape, kind)
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16]))
    size = draw(st.sampled_from([1.0, 1.0, 1.0, 1e-4, 1e3] if dtype == np.float16 else [1.0, 1.0, 1e-30, 1e20, 1e-44]))
    x = draw(st.sampled_from([rng.standard_normal, rng.random, lambda s: rng.integers(-3, 4, s)]))(shape)
    x = (x * size).astype(dtype)
    if kind == "float":
        return x[..., ::-1, :] if draw(st.booleans()) else np.asfortranarray(x)
    form = {"bits": draw(st.sampled_from(widths)), "axis": along, "scheme": kind}
    if draw(st.booleans()):
        form["group_size"] = draw(st.sampled_from([1, 3, 16, 32]))
    elif draw(st.integers(0, 3)) == 0:
        form["axis"] = None
    return fq.quantize(x.astype(np.float32) if dtype == ml_dtypes.bfloat16 else x, **form)


@some_widths
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_error_is_beyond_the_bound(widths, data):
    k = data.draw(st.sampled_from([0, 1, 2, 3, 5, 16, 17, 40]))
    a, b = data.draw(operands("left", k, 3, widths)), data.draw(operands("right", k, 4, widths))
    assume(np.prod(a.shape[:-2], dtype=int) in (1, np.prod(b.shape[:-2], dtype=int)) or b.ndim == 2)
    share(a, b, data.draw(st.sampled_from(widths)))


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        *((np.float32, bits) for bits in (2, 3, 5, 8)),
        *((np.float64, bits) for bits in (3, 8)),
        *(pytest.param(np.float64, bits, marks=pytest.mark.exhaustive) for bits in (2, 5)),
    ],
)
def test_the_bound_is_met_by_half(bits, dtype, rng):
    """So half of it would be wrong. Two bits have one step, of which random elements rarely miss a half."""
    shares = [share(*(rng.standard_normal(s).astype(dtype) for s in ((60, 2), (2, 60))), bits) for _ in range(3)]
    assert 0.5 < max(shares) <= 1 if bits > 2 else 0.4 < max(shares) <= 1
    # Halfway between two codes: the error of an element is all that the bound has.
    top = 2 ** (bits - 1) - 1
    a, b = np.array([[top, 0.5]], dtype), fq.quantize(np.array([[0], [top]], dtype), bits, axis=0)
    assert 0.99 < share(a, b, bits) <= 1


def test_errors_of_both_sides_in_one_element(isa):
    """1.5 becomes 2 on either side: without the product of the two errors the bound would be too low."""
    a, b = np.full((1, 200), 1.5), np.full((200, 1), 1.5)
    a[0, :2], b[:2, 0] = (3, 0), (0, 3)
    assert 0.98 < share(a, b, bits=3) <= 1


@pytest.mark.exhaustive
def test_the_sum_of_many_groups(isa):
    """Adding a number again and again rounds the same way each time."""
    q = fq.quantize(np.full((3000, 1), 0.1, np.float32), axis=0, group_size=1, scale=np.float32(0.1))
    assert share(np.ones((1, 3000), np.int8), q) > 0.01
    error = abs(float(fq.matmul(np.ones((1, 3000), np.int8), q)[0, 0]) - 3000 * float(np.float32(0.1)))
    assert error > 300 * 20 * np.finfo(np.float32).eps  # many more roundings than those of one segment


@pytest.mark.parametrize("side", ["left", "right"])
def test_either_side_alone(isa, side, rng):
    for _ in range(3):
        x, w = rng.standard_normal((60, 2)).astype(np.float32), rng.standard_normal((2, 60)).astype(np.float32)
        a, b = (x, fq.quantize(w, 4, axis=0)) if side == "left" else (fq.quantize(x, 4, axis=-1), w)
        assert 0.5 < share(a, b) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.exhaustive
def test_roundings_alone(scheme, dtype, rng):
    """Two quantized arrays: what is left are the roundings of the epilogue, none of which is forgotten or dreamt."""
    for group in (None, 3):
        shares = []
        for _ in range(3):
            a = fq.quantize(rng.random((40, 7)).astype(dtype), 8, axis=-1, scheme=scheme, group_size=group)
            b = fq.quantize(rng.random((7, 40)).astype(dtype), 8, axis=0, scheme=scheme, group_size=group)
            shares.append(share(a, b))
        assert 0.1 < max(shares) <= 1


@pytest.mark.parametrize("k", [100, 1000])
def test_the_bound_of_long_sums(isa, k, rng):
    """Errors grow with the square root of K, the bound with K: within twice the ratio of the two."""
    a, b = rng.standard_normal((50, k)), rng.standard_normal((k, 50))
    error = np.abs(fq.matmul(a, b) - a @ b).max()
    bound = fq.matmul_error_bound(a, b)
    assert error < bound.min()
    assert bound.max() < 2 * np.sqrt(k) * error


@pytest.mark.parametrize("way", ["group", "two-plane"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finer_activations(way, dtype, rng):
    """The bound holds, is of use, and is far below that of rows."""
    for form in ({}, {"group_size": 48, "bits": 4}, {"scheme": "affine", "group_size": 32}, {"rotate": True}):
        a, w = rng.standard_normal((5, 96)).astype(dtype), rng.standard_normal((96, 7)).astype(dtype)
        a[:, :8] *= 100
        b = fq.quantize(w, **{"bits": 8, "axis": 0, **form})
        y, bound = fq.matmul(a, b, activations=way), fq.matmul_error_bound(a, b, activations=way)
        error = np.abs(np.matmul(real(a), real(b)) - real(y))
        assert (error <= real(bound)).all()
        assert (bound == fq.matmul_error_bound(a, b.with_activations(way))).all()
        by_row = fq.matmul_error_bound(a, b)
        assert (bound < by_row * (0.9 if way == "group" else 0.02)).all() or "rotate" in form
        turned = fq.matmul_error_bound(b.T, a.T, activations=way)
        assert turned.shape == (7, 5)
        error = np.abs(real(fq.matmul(b.T, a.T, activations=way)) - np.matmul(real(b.T), real(a.T)))
        assert (error <= real(turned)).all()


def test_the_bound_of_ties(rng):
    """Every element of x lies half a step from its code: half of the bound is reached."""
    step = 2.0**-10
    for way, high, size in (("group", 127, 32), ("two-plane", 32639, 96)):
        x = (rng.integers(-100, 100, (3, 96)) + 0.5) * step
        x[:, ::size] = high * step
        b = fq.quantize(np.ones((96, 1)) * 127, axis=0)
        error = np.abs(np.matmul(real(x), real(b)) - real(fq.matmul(x, b, activations=way)))
        bound = fq.matmul_error_bound(x, b, activations=way)
        assert (error <= real(bound)).all()
        one = np.zeros((96, 1))
        one[5] = 127
        single = fq.quantize(one, axis=0)
        error = np.abs(np.matmul(real(x), real(single)) - real(fq.matmul(x, single, activations=way)))
        assert (error >= real(0.99 * fq.matmul_error_bound(x, single, activations=way))).all()


def test_integers_are_exact():
    a, b = np.ones((2, 3), np.int8), np.ones((5, 3, 4), np.uint8)
    bound = fq.matmul_error_bound(a, b)
    assert bound.shape == (5, 2, 4)
    assert not bound.any()
    assert fq.matmul_error_bound(a[0], a[0]) == 0


@pytest.mark.parametrize(("axis", "rotate"), [("kept", False), ("summed", False), ("summed", True)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_balanced_and_rotated(axis, rotate, side, rng):
    k = 32 if axis == "summed" else 1
    x, w = rng.standard_normal((16, k)).astype(np.float32), rng.standard_normal((k, 48)).astype(np.float32)
    factors = rng.uniform(10, 99, {"left": 16, "right": 48}[side]) if axis == "kept" else rng.uniform(0.1, 3, k)
    along = (1 if side == "left" else 0) if axis == "summed" else (0 if side == "left" else 1)
    q = fq.quantize(x if side == "left" else w, 6, axis=along, balance=factors, rotate=rotate)
    others = (
        [w.astype(t) for t in (np.float16, np.float32)]
        if side == "left"
        else [x.astype(t) for t in (np.float16, np.float32)]
    )
    whole = np.rint(100 * (w if side == "left" else x)).astype(np.int8)
    for other in (*others, whole):
        met = share(*((q, other) if side == "left" else (other, q)))
        assert met > 0.01 or axis == "kept"  # one element is the largest of its row, and has no error


@pytest.mark.parametrize("scheme", SCHEMES)
def test_balance_along_the_kept_axis_is_exact_in_float64(isa, scheme, rng):
    """Scale and factor are float32, which their product does not fit: a product in float64 must not see it rounded."""
    w, d = rng.standard_normal((1, 48)).astype(np.float32), rng.uniform(10, 99, 48).astype(np.float32)
    q = fq.quantize(w, 6, axis=1, scheme=scheme, balance=d)
    whole = fq.quantize(rng.standard_normal((16, 1)), 8, axis=1)
    share(whole, q)
    share(q.T, whole.T)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint64])
def test_wide_integers_meet_a_quantized_array(dtype, rng):
    q = fq.quantize(rng.standard_normal((5, 4)), 4, axis=0)
    top = np.iinfo(dtype).max
    x = (top - rng.integers(0, 1000, (3, 5)).astype(dtype)).astype(dtype)
    share(x, q)


def test_what_underflows(rng):
    for size_a, size_b in ((1e-44, 1.0), (1e-30, 1e-12), (1e-44, 1e-44), (1e-38, 1e-3)):
        a, b = ((rng.standard_normal(s) * size).astype(np.float32) for s, size in (((9, 5), size_a), ((5, 7), size_b)))
        share(a, b)
        share(fq.quantize(a, 4, axis=-1), fq.quantize(b, 4, axis=0))
        share(fq.quantize(a, 4, axis=-1, scheme="affine"), b)


def test_what_may_overflow_has_no_bound():
    a, b = np.full((1, 3), 1e38, np.float32), np.full((3, 1), 1e38, np.float32)
    with np.errstate(over="ignore"):
        assert np.isinf(fq.matmul(a, b))
    assert fq.matmul_error_bound(a, b) == np.inf
    assert fq.matmul_error_bound(a.astype(np.float64), b) < 1e75


def test_rows_of_zeros_are_exact():
    a, b = np.zeros((2, 3), np.float32), np.ones((3, 2), np.float32)
    a[1] = 1
    assert (fq.matmul_error_bound(a, b)[0] < 1e-30).all()
    assert (fq.matmul_error_bound(a, b)[1] > 0.01).all()


@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 4)), ((2, 0), (0, 4)), ((0, 2, 3), (3, 4)), ((0,), (0,)), ((5, 2, 0), (0,))]
)
def test_empty(shapes):
    for make in (np.ones, lambda s: fq.quantize(np.ones(s), axis=max(-2, -len(s)))):
        bound = fq.matmul_error_bound(np.ones(shapes[0]), make(shapes[1]))
        assert bound.shape == np.matmul(*map(np.ones, shapes)).shape
        assert not bound.any()


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, complex])
def test_what_numpy_multiplies(dtype, rng):
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((3, 20), (20, 4)))
    if dtype == np.longdouble:
        exact = np.matmul(*(np.frompyfunc(lambda v: Fraction(*v.as_integer_ratio()), 1, 1)(x) for x in (a, b)))
        errors = abs(np.frompyfunc(lambda v: Fraction(*v.as_integer_ratio()), 1, 1)(fq.matmul(a, b)) - exact).astype(
            float
        )
    else:
        a, b = ((x.real + 1j * x.imag[::-1]).astype(dtype) for x in (a + 1j * a[:, ::-1], b + 1j * b[:, ::-1]))
        errors = np.abs(fq.matmul(a, b) - a.astype(np.clongdouble) @ b.astype(np.clongdouble))
    bound = fq.matmul_error_bound(a, b)
    assert bound.dtype == np.float64
    assert (errors <= bound).all()
    assert (bound < 1000 * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))).all()
    for wide in (int, bool):
        assert not fq.matmul_error_bound(a.real.astype(wide), b.real.astype(wide)).any()


# What is exact


@some_widths
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_integers_that_the_scale_represents(widths, data):
    """Rows and columns whose largest magnitude is the highest code, times a power of two: NumPy's product."""
    bits = data.draw(st.sampled_from(widths))
    high = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    m, k, n = (data.draw(st.integers(1, top)) for top in (20, 60, 20))
    batch = data.draw(st.sampled_from([(), (3,)]))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    a, b = rng.integers(-high, high + 1, (*batch, m, k)), rng.integers(-high, high + 1, (k, n))
    a[..., rng.integers(k)] = high * rng.choice([-1, 1], (*batch, m))
    b[rng.integers(k)] = high * rng.choice([-1, 1], n)
    powers = 2.0 ** rng.integers(-3, 4, m)[:, None], 2.0 ** rng.integers(-3, 4, n)
    a, b = (a * powers[0]).astype(dtype), (b * powers[1]).astype(dtype)
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    assert np.array_equal(fq.matmul(a, b, bits=bits), exact)
    assert np.array_equal(fq.matmul(a[..., 0, :], b[:, 0], bits=bits), exact[..., 0, 0])


@pytest.mark.parametrize("size", [1, 3, 1000, 0.1])
def test_three_values(isa, size, rng):
    """-m, 0 and m, in two bits: sums of m * m, which are rounded no more than NumPy's."""
    a, b = (np.float32(size) * rng.integers(-1, 2, s).astype(np.float32) for s in ((30, 50), (50, 20)))
    a[:, 0] = b[0] = size
    exact = (np.rint(a / np.float32(size)) @ np.rint(b / np.float32(size))) * np.float32(size) * np.float32(size)
    assert np.array_equal(fq.matmul(a, b, bits=2), exact)


# Inputs and outputs


FAILURES = {
    "NaN": lambda a, b, out: fq.matmul(np.where(a == a.flat[-1], np.nan, a), b, out),
    "shapes": lambda a, b, out: fq.matmul(a, b[:-1], out),
    "bits": lambda a, b, out: fq.matmul(a, b, out, bits=1),
    "bias": lambda a, b, out: fq.matmul(a, b, out, bias=np.ones(99)),
    "casting": lambda a, b, out: fq.matmul(a, b, out, casting="any"),
    "axes": lambda a, b, out: fq.matmul(a, b, out, axes=[(0, 1)]),
    "scale": lambda a, b, out: fq.matmul(a, fq.quantize(b, axis=1), out),
    "epilogue": lambda a, b, out: fq.matmul(a, b, out, epilogue="none"),
}


@some_widths
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_no_call_changes_its_inputs(widths, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64, np.int8, ">f4", np.int64]))
    m, k, n = (data.draw(st.integers(2, top)) for top in (20, 70, 20))
    rooms = [(100 * rng.standard_normal((2 * s, 2 * t))).astype(dtype) for s, t in ((m, k), (k, n))]
    steps = data.draw(st.sampled_from([1, 2, -1]))
    a, b = (room[::steps, ::steps][:s, :t] for room, s, t in zip(rooms, (m, k), (k, n)))
    quantized = data.draw(st.sampled_from(["none", *SCHEMES]))
    if quantized != "none":
        b = fq.quantize(b, data.draw(st.sampled_from(widths)), axis=0, scheme=quantized)
        known = b.codes.copy(), b.scale.copy()
    before = [room.tobytes() for room in rooms]
    fq.matmul(a, b)
    fq.matmul(a, b, bias=np.arange(n) if dtype == np.int8 else rng.standard_normal(n))
    fq.matmul_error_bound(a, b)
    if quantized != "none":
        assert all(map(np.array_equal, known, (b.codes, b.scale)))
    else:
        out = np.full((m, n), 7, np.result_type(fq.matmul(a, b)))
        for name, failure in FAILURES.items():
            try:
                failure(a, b, out)
            except (TypeError, ValueError):
                assert (out == 7).all(), name
            else:
                assert a.dtype.kind == "i", name  # integers have neither NaN, bits nor scales
                out[...] = 7
    assert [room.tobytes() for room in rooms] == before


# Integer sums


def reduced(x, k_axis):
    """Codes minus zero points, times integer scales of groups."""
    if not isinstance(x, fq.QArray):
        return x.astype(np.int64)

    def spread(p):
        if p is None or x.group_size is None or p.shape[x.axis] == 1:
            return p
        return np.repeat(p, x.group_size, axis=x.axis).take(range(x.shape[x.axis]), axis=x.axis)

    zero = spread(x.zero_point)
    values = x.codes.astype(np.int64) - (0 if zero is None else zero)
    return values if x.group_scale is None else values * spread(x.group_scale)


def forms(rng, shape, axis):
    """Operands of every kind that has integer sums."""
    x = rng.standard_normal(shape).astype(np.float32) + np.float32(0.5)
    yield integers(rng, shape, "int8")
    yield integers(rng, shape, "uint8")
    for bits in (3, 8):
        for scheme in ("symmetric", "asymmetric"):
            yield fq.quantize(x, bits, axis=axis, scheme=scheme)
    yield fq.quantize(x, 4, scheme="asymmetric")
    yield fq.quantize(x, 3, axis=axis, group_size=32)
    yield fq.quantize(x, 3, axis=axis, group_size=32, scheme="asymmetric")


def test_sums_are_exact_integers(isa, rng):
    for m in (3, 20):
        lefts, rights = list(forms(rng, (m, 70), -1)), list(forms(rng, (70, 33), -2))
        for left in lefts:
            for right in rights:
                exact = reduced(left, -1) @ reduced(right, -2)
                for dtype in (None, np.int64):
                    y = sums.sums(left, right, dtype)
                    assert y.dtype == (dtype or np.int32)
                    assert np.array_equal(y, exact)


def test_sums_of_stacks_vectors_and_packed_codes(isa, rng):
    a = fq.quantize(rng.standard_normal((2, 9, 70)), 4, axis=-1, scheme="asymmetric")
    b = fq.quantize(rng.standard_normal((70, 33)), 3, axis=0, group_size=16)
    exact = reduced(a, -1) @ reduced(b, -2)
    for _ in range(2):  # before and after it is packed
        assert np.array_equal(sums.sums(a, b), exact)
        b.prepack()
    assert np.array_equal(sums.sums(b.T, np.ones((70, 2), np.int8)), reduced(b, -2).T @ np.ones((70, 2), int))
    row = integers(rng, (70,), "uint8")
    assert np.array_equal(sums.sums(row, b), row.astype(int) @ reduced(b, -2))
    assert sums.sums(row, row).shape == ()
    assert sums.sums(row, row) == (row.astype(int) ** 2).sum()
    assert sums.sums(row[:0], row[:0]) == 0
    assert sums.sums(np.empty((0, 3, 4), np.int8), np.empty((4, 2), np.int8)).shape == (0, 3, 2)


def test_sums_leave_the_balance_out(isa, rng):
    w = rng.standard_normal((64, 33)).astype(np.float32)
    q = fq.quantize(w, 4, axis=0, balance=rng.uniform(1, 2, 64), rotate=True)
    a = integers(rng, (5, 64), "int8")
    assert np.array_equal(sums.sums(a, q), a.astype(int) @ q.codes.astype(int))


LARGEST = {("int8", "int8"): 131_071, ("uint8", "int8"): 65_793, ("uint8", "uint8"): 33_025}


@pytest.mark.parametrize("types", LARGEST)
def test_the_type_of_sums_follows_from_types_and_k(isa, types):
    k = LARGEST[types] // 64 * 64
    for length, dtype in ((k, np.int32), (k + 1, np.int64)):
        a, b = np.zeros((1, length), types[0]), np.zeros((length, 1), types[1])
        assert sums.sums(a, b).dtype == dtype


@pytest.mark.parametrize("right", ["uint8", "asymmetric", "groups", "symmetric"])
@pytest.mark.parametrize("left", ["int8", "asymmetric"])
def test_sums_beyond_int32(isa, left, right, rng):
    """Parts of K are added up in int64."""
    k = 140_032
    x = np.ones((2, k), np.float32)
    x[:, ::2] = 0.6
    a = integers(rng, (2, k), "int8", "lowest") if left == "int8" else fq.quantize(x, axis=-1, scheme="asymmetric")
    w = x.T
    b = {
        "uint8": lambda: integers(rng, (k, 2), "uint8", "highest"),
        "asymmetric": lambda: fq.quantize(w, axis=0, scheme="asymmetric"),
        "groups": lambda: fq.quantize(w, 4, axis=0, group_size=64),
        "symmetric": lambda: fq.quantize(w, axis=0),
    }[right]()
    exact = reduced(a, -1) @ reduced(b, -2)
    assert np.abs(exact).min() > 2**31 or right in ("groups", "symmetric")
    y = sums.sums(a, b)
    assert y.dtype == np.int64
    assert np.array_equal(y, exact)
    if np.abs(exact).max() > 2**31:
        with pytest.raises(OverflowError, match="must fit int32"):
            sums.sums(a, b, np.int32)


def test_bounds_of_empty_products():
    q = fq.quantize(np.ones((42, 65), np.float32), axis=0)
    assert fq.matmul_error_bound(q, np.ones((65, 0), np.float32)).shape == (42, 0)
    rotated = fq.quantize(np.ones((32, 3)), axis=0, rotate=True)
    assert fq.matmul_error_bound(np.empty((0, 32), np.float32), rotated).shape == (0, 3)
    balanced = fq.quantize(np.empty((2, 0)), axis=0, balance=[1e30, 1])
    assert fq.matmul_error_bound(np.full((3, 2), 1e30, np.float32), balanced).shape == (3, 0)
