"""fastq.error against its formulas, written out."""

from __future__ import annotations

import dataclasses
import math
import pickle
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.accuracy import error as metrics

NAMES = ("mse", "rmse", "l2", "max_abs", "sqnr_db", "cosine")

# Sums of n squares in float64, in whatever order.
CLOSE = 1e-12


def by_hand(x, y):
    """All measures of two lists of numbers, summed exactly."""
    pairs = list(zip(map(float, x), map(float, y)))
    noise = math.fsum((a - b) ** 2 for a, b in pairs)
    signal, other = math.fsum(a * a for a, _ in pairs), math.fsum(b * b for _, b in pairs)
    return {
        "mse": noise / len(pairs),
        "rmse": math.sqrt(noise / len(pairs)),
        "l2": math.sqrt(noise),
        "max_abs": max(abs(a - b) for a, b in pairs),
        "sqnr_db": 10 * math.log10(signal / noise),
        "cosine": math.fsum(a * b for a, b in pairs) / math.sqrt(signal * other),
    }


@pytest.fixture
def x(rng):
    return rng.standard_normal((6, 50, 7)).astype(np.float32)


@pytest.fixture
def y(rng, x):
    return (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)


def test_a_small_example():
    found = fq.error([3.0, 4.0], [3.0, 0.0])
    expected = fq.Error(mse=8.0, rmse=math.sqrt(8), l2=4.0, max_abs=4.0, sqnr_db=10 * math.log10(25 / 16), cosine=0.6)
    for name in NAMES:
        assert math.isclose(getattr(found, name), getattr(expected, name), rel_tol=1e-15)
        assert type(getattr(found, name)) is float


def test_formulas(x, y):
    found, expected = fq.error(x, y), by_hand(x.flat, y.flat)
    for name in NAMES:
        assert math.isclose(getattr(found, name), expected[name], rel_tol=CLOSE)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, (0, 1), (2, 0), (-1, -2), (0, 1, 2), np.int64(1)])
def test_along_axes(x, y, axis):
    found = fq.error(x, y, axis=axis)
    axes = {a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))}
    kept = [i for i in range(3) if i not in axes]
    shape = tuple(x.shape[i] for i in kept)
    for name in NAMES:
        assert getattr(found, name).shape == shape == np.sum(x, axis=axis).shape
    for index in np.ndindex(shape):
        at = [slice(None)] * 3
        for i, place in zip(kept, index):
            at[i] = place
        expected = by_hand(x[tuple(at)].flat, y[tuple(at)].flat)
        for name in NAMES:
            assert math.isclose(getattr(found, name)[index], expected[name], rel_tol=CLOSE)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("size", [1, 4, 7, 50, 99])
def test_by_group(x, y, axis, size):
    found = fq.error(x, y, axis=axis, group_size=size)
    for g, start in enumerate(range(0, x.shape[axis], size)):
        part = [slice(None)] * 3
        part[axis] = slice(start, start + size)
        expected = fq.error(x[tuple(part)], y[tuple(part)], axis=axis)
        for name in NAMES:
            assert np.allclose(np.take(getattr(found, name), g, axis), getattr(expected, name), rtol=CLOSE, atol=0)


@pytest.mark.parametrize("form", [(0, 16), (0, 70), (1, 7), (1, None)])
def test_by_group_there_is_one_value_for_each_scale(rng, form):
    w = rng.standard_normal((70, 20)).astype(np.float32)
    q = fq.quantize(w, 3, axis=form[0], group_size=form[1])
    found = fq.error(w, q, axis=form[0], group_size=form[1] or w.shape[form[0]])
    assert found.mse.shape == q.scale.shape
    for shape in ((0, 3), (3, 0)):
        empty = np.empty(shape)
        assert (
            fq.error(empty, empty, axis=0, group_size=2).mse.shape
            == fq.quantize(empty, axis=0, group_size=2).scale.shape
        )


def test_along_no_axes(x, y):
    assert np.array_equal(fq.error(x, y, axis=()).max_abs, np.abs(x.astype(np.float64) - y))


@pytest.mark.parametrize("block", [1, 7, 100])
def test_large_arrays_are_compared_in_blocks(monkeypatch, x, y, block):
    whole = fq.error(x, y), fq.error(x, y, axis=1)
    monkeypatch.setattr(metrics, "_BLOCK", block)
    for before, after in zip(whole, (fq.error(x, y), fq.error(x, y, axis=1))):
        for name in NAMES:
            assert np.allclose(getattr(before, name), getattr(after, name), rtol=CLOSE, atol=0)


def test_identical_arrays(x):
    found = fq.error(x, x)
    assert (found.mse, found.rmse, found.l2, found.max_abs, found.sqnr_db) == (0, 0, 0, 0, math.inf)
    assert 1 - CLOSE <= found.cosine <= 1
    assert fq.error(x, -x).cosine == -found.cosine


def test_zeros():
    zero, one = np.zeros(5), np.ones(5)
    both, exact, approximate = fq.error(zero, zero), fq.error(zero, one), fq.error(one, zero)
    assert dataclasses.astuple(both) == (0, 0, 0, 0, math.inf, 1)
    assert dataclasses.astuple(exact) == (1, 1, math.sqrt(5), 1, -math.inf, 0)
    assert dataclasses.astuple(approximate) == (1, 1, math.sqrt(5), 1, 0, 0)


def test_zeros_by_row():
    found = fq.error([[0, 0], [0, 0], [1, 1]], [[0, 0], [1, 0], [0, 0]], axis=1)
    assert found.sqnr_db.tolist() == [math.inf, -math.inf, 0]
    assert found.cosine.tolist() == [1, 0, 0]


NOTHING = [
    ((0,), None, ()),
    ((2, 0), None, ()),
    ((3, 0), 1, (3,)),
    ((3, 0), 0, (0,)),
    ((0, 3), 0, (3,)),
    ((0, 0), 0, (0,)),
]


@pytest.mark.parametrize(("shape", "axis", "kept"), NOTHING)
def test_nothing(shape, axis, kept):
    found = fq.error(np.empty(shape), np.empty(shape), axis=axis)
    for name, value in zip(NAMES, (0, 0, 0, 0, math.inf, 1)):
        assert np.shape(getattr(found, name)) == kept
        assert np.all(getattr(found, name) == value)


def test_single_numbers():
    assert fq.error(2.0, 1.5).max_abs == 0.5


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
@pytest.mark.parametrize("axis", [None, 0])
def test_quantized_arrays_on_either_side(isa, rng, scheme, axis):
    w = rng.standard_normal((70, 20)).astype(np.float32)
    q = fq.quantize(w, 4, axis=0, scheme=scheme)
    back = q.dequantize()
    for found, expected in (
        (fq.error(w, q, axis), fq.error(w, back, axis)),
        (fq.error(q, w, axis), fq.error(back, w, axis)),
        (fq.error(q, q, axis), fq.error(back, back, axis)),
        (fq.error(w.T, q.T, None if axis is None else 1), fq.error(w, back, axis)),
    ):
        assert np.allclose(dataclasses.astuple(found), dataclasses.astuple(expected), rtol=CLOSE, atol=0)


def test_narrow_types_are_compared_in_float64():
    x, y = np.array([60000, 1], np.float16), np.array([-60000, 1], np.float16)
    assert fq.error(x, y).max_abs == 120000
    x, y = np.array([3e38, 0], np.float32), np.array([-3e38, 0], np.float32)
    assert fq.error(x, y).l2 == float(x[0]) * 2
    x = np.array([1, 2], ml_dtypes.bfloat16)
    assert fq.error(x, [1.0, 1.0]).mse == 0.5


def test_integers_do_not_wrap():
    x, y = np.array([0, 200], np.uint8), np.array([255, 0], np.uint8)
    found = fq.error(x, y)
    assert found.max_abs == 255
    assert found.mse == (255**2 + 200**2) / 2
    assert fq.error(np.array([True, False]), np.array([True, True])).mse == 0.5
    assert fq.error(np.array([-128], np.int8), np.array([127], np.int8)).max_abs == 255


def test_float64_is_not_rounded():
    x = np.array([1.0, 1.0 + 2**-40])
    assert fq.error(x, [1.0, 1.0]).max_abs == 2**-40
    q = fq.quantize(np.array([1.0, 1.0 / 127 * (1 + 2**-40)]))
    assert fq.error(x, q).max_abs == np.abs(x - q.dequantize()).max()


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_ratios_do_not_depend_on_the_unit(rng, size):
    """Squares of such numbers overflow or vanish in float64; ratios of them need not."""
    x = rng.standard_normal(50)
    y = x + 0.1 * rng.standard_normal(50)
    plain, found = fq.error(x, y), fq.error(x * size, y * size)
    assert math.isclose(found.sqnr_db, plain.sqnr_db, rel_tol=1e-9)
    assert math.isclose(found.cosine, plain.cosine, rel_tol=1e-9)
    assert math.isclose(found.l2, plain.l2 * size, rel_tol=1e-9)


def test_memory_order_does_not_matter(x, y):
    plain = fq.error(x, y, axis=1)
    for turned in (fq.error(np.asfortranarray(x), y, axis=1), fq.error(x, y[::-1].copy()[::-1], axis=1)):
        for name in NAMES:
            assert np.allclose(getattr(turned, name), getattr(plain, name), rtol=CLOSE, atol=0)


def test_more_bits_are_better(rng):
    x = rng.standard_normal((64, 64)).astype(np.float32)
    found = [fq.error(x, fq.quantize(x, bits, axis=0)).sqnr_db for bits in range(2, 9)]
    assert all(5 < b - a < 12 for a, b in pairwise(found))  # 6 dB per bit, more where there are few steps


def test_words(x, y):
    found = fq.error(x, y)
    assert str(found) == ", ".join(f"{name} {getattr(found, name):.4g}" for name in NAMES)
    values = fq.error(x, y, axis=1).mse
    assert str(fq.error(x, y, axis=1)).startswith(f"mse {values.min():.4g} .. {values.max():.4g}, rmse ")
    assert str(fq.error(x, y, axis=1)).endswith(" (42 values each)")


def test_repr_is_a_readable_line(x, y):
    found = fq.error(x, y)
    assert repr(found) == f"Error({', '.join(f'{name}={getattr(found, name):.4g}' for name in NAMES)})"
    found = fq.error(x, y, axis=1)
    assert repr(found).startswith(f"Error(shape=(6, 7), mse={found.mse.min():.4g} .. {found.mse.max():.4g}, max_abs=")
    assert repr(found).endswith(f"cosine={found.cosine.min():.4g} .. {found.cosine.max():.4g})")
    for words in (repr(fq.error(np.ones((0, 3)), np.ones((0, 3)), axis=1)), repr(found)):
        assert len(words) < 120
        assert "\n" not in words
    assert "mse=none" in repr(fq.error(np.ones((0, 3)), np.ones((0, 3)), axis=1))
    assert "mse none" in str(fq.error(np.ones((0, 3)), np.ones((0, 3)), axis=1))


# Hints

FORMS = [{}, {"axis": 0}, {"axis": 0, "group_size": 16}, {"axis": 0, "group_size": 16, "group_scale": "float"}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_hint_for_data_on_one_side_of_zero(rng, form, method, bits, sign):
    """And whoever follows it has a smaller error."""
    if form.get("group_scale") is None and "group_size" in form and bits == 8:
        form = {"axis": 0}
    x = sign * np.maximum(rng.standard_normal((64, 40)), 0)
    found = fq.error(x, fq.quantize(x, bits, method=method, **form))
    side = "negative" if sign > 0 else "positive"
    words = f"x is never {side}, so half of the symmetric codes are unused: scheme='asymmetric' halves the step"
    assert found.hint == words
    assert str(found).endswith(f"\nhint: {words}")
    assert repr(found).endswith("; see .hint)")
    assert "\n" not in repr(found)
    better = fq.error(x, fq.quantize(x, bits, scheme="asymmetric", method=method, **form))
    assert better.mse < found.mse
    assert better.hint == ""


def test_a_hint_changes_no_number(x):
    q = fq.quantize(abs(x))
    found, plain = fq.error(abs(x), q), fq.error(abs(x), q.dequantize())
    assert found.hint != plain.hint == ""
    assert found == plain
    assert dataclasses.astuple(found) == dataclasses.astuple(plain)
    assert fq.error(abs(x), q, axis=0).hint == fq.error(abs(x), q, 0, group_size=2).hint == found.hint
    assert pickle.loads(pickle.dumps(found)).hint == found.hint


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_no_hint_where_it_would_not_help(rng, bits):
    x = rng.standard_normal((64, 8))
    top = np.full((64, 8), 2.0 ** (bits - 1) - 1)
    for array, form in (
        (x, {}),
        (abs(x), {"scheme": "asymmetric"}),
        (abs(x), {"scheme": "affine"}),
        (abs(x), {"axis": 0, "rotate": True}),  # what is rounded lies on both sides
        (np.zeros((3, 3)), {}),
        (np.zeros((0, 3)), {}),
        (top, {}),  # it is exact
        (top * 0.1, {"axis": 0}),  # nearly
    ):
        assert fq.error(array, fq.quantize(array, bits, **form)).hint == ""


def test_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        fq.error([1.0], [1.0]).mse = 1
