"""The error of each array, and its shares: held against definitions, written out element by element."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastq as fq
from fastq.formats.entries import Entry, Opened
from fastq.models import parts
from fastq.models.difference import Shares, compare, difference

RNG = np.random.default_rng(3)
W = RNG.standard_t(4, (40, 96)).astype(np.float32)  # with outliers, which are clipped
FORMS = [
    {"axis": axis, "group_size": group, "scheme": scheme, "method": method}
    for axis, group, scheme, method in itertools.product(
        (None, 0, -1), (None, 32), ("symmetric", "asymmetric", "affine"), ("minmax", "mse")
    )
    if not (axis is None and group)
]


def runs(q):
    """Places of elements that share a scale."""
    if q.axis is None:
        return [np.ones(q.shape, bool)]
    size = q.group_size or q.shape[q.axis]
    places = []
    for line, start in itertools.product(range(q.shape[1 - q.axis]), range(0, q.shape[q.axis], size)):
        place = np.zeros(q.shape, bool)
        np.moveaxis(place, q.axis, 0)[start : start + size, line] = True
        places.append(place)
    return places


def at(parameter, q, place):
    """The parameter of one run."""
    if parameter is None:
        return 0.0
    i, j = np.argwhere(place)[0]
    index = [0, 0]
    if q.axis is not None:
        index = [i, j]
        index[q.axis] = index[q.axis] // q.group_size if q.group_size else 0
    return float(parameter[tuple(index)])


def slowly(x, q):
    """The shares by their definitions: each run alone, the best scale by NumPy's least squares."""
    x, y, codes = x.astype(np.float64), q.dequantize().astype(np.float64), q.codes.astype(np.float64)
    noise = clipped = removed = 0.0
    low, high = (-(2 ** (q.bits - 1)), 2 ** (q.bits - 1) - 1) if q.scheme == "symmetric" else (0, 2**q.bits - 1)
    for place in runs(q):
        scale, zero, offset = (at(p, q, place) for p in (q.scale, q.zero_point, q.offset))
        e, c, numbers = (x - y)[place], codes[place], x[place]
        noise += (e**2).sum()
        first, last = (scale * (code - zero) + offset for code in (low, high))
        beyond = (c == low) & ((numbers < first) if first < last else (numbers > first))
        beyond |= (c == high) & ((numbers > last) if first < last else (numbers < last))
        clipped += (e[beyond] ** 2).sum()
        basis = np.stack([c - zero, np.ones_like(c)][: 1 + (q.offset is not None)], axis=1)
        best = np.linalg.lstsq(basis, e, rcond=None)[0]
        removed += (e**2).sum() - ((e - basis @ best) ** 2).sum()
    return 1 - clipped / noise, clipped / noise, removed / noise


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
@pytest.mark.parametrize("at_once", [1 << 20, 500])
def test_shares_are_what_they_say(form, at_once, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    q = fq.quantize(W, 3, **form)
    error, shares = compare(W, q)
    assert shares == pytest.approx(slowly(W, q), abs=2e-6)
    whole = fq.error(W, q)
    names = ("mse", "rmse", "l2", "max_abs", "sqnr_db", "cosine")
    assert [getattr(error, n) for n in names] == pytest.approx([getattr(whole, n) for n in names], rel=1e-9)


def test_scales_that_are_too_large_by_a_tenth():
    """The best scale takes away what the wrong one has brought."""
    q = fq.quantize(W, 8, axis=-1)
    x = q.dequantize().astype(np.float64)  # without any rounding
    wrong = fq.from_parts(q.codes, q.scale * np.float32(1.1), bits=8, axis=-1)
    _, shares = compare(x, wrong)
    assert shares.scales == pytest.approx(1, abs=1e-6)
    assert shares.clipping == 0


def test_clipping_alone():
    x = np.array([[1.0, -1.0, 2.0, 9.0]])
    q = fq.quantize(x, 4, axis=-1, scale=[[1.0]])  # codes -8 to 7
    error, shares = compare(x, q)
    assert error.max_abs == 2
    assert shares[:2] == (0, 1)
    assert compare(-x, fq.quantize(-x, 4, axis=-1, scale=[[1.0]]))[1][:2] == (0, 1)  # 9 is -9, beyond -8


def test_negative_scales_and_ragged_groups():
    q = fq.from_parts(RNG.integers(-4, 4, (6, 20)), RNG.standard_normal((6, 3)), bits=3, axis=1, group_size=8)
    x = RNG.standard_normal((6, 20)) * 4
    assert compare(x, q)[1] == pytest.approx(slowly(x, q), abs=1e-9)


def test_codes_in_another_order():
    """Act-order of GPTQ: what a code stands for lies elsewhere along the axis."""
    order = RNG.permutation(96)
    q = fq.quantize(W[:, order], 3, axis=-1, group_size=32)
    ordered = fq.from_parts(**{**q.parts(), "order": order})
    assert compare(W, ordered)[1] == pytest.approx(compare(W[:, order], q)[1])
    assert compare(W, ordered)[0].sqnr_db == pytest.approx(fq.error(W, ordered).sqnr_db)


@pytest.mark.parametrize("options", [{"balance": np.linspace(1, 2, 96)}, {"rotate": True}])
def test_mixed_channels_have_no_shares(options):
    q = fq.quantize(W, 4, axis=-1, **options)
    error, shares = compare(W, q)
    assert shares is None
    assert error.sqnr_db == pytest.approx(fq.error(W, q).sqnr_db)


@pytest.mark.parametrize("at_once", [1 << 20, 300])
@pytest.mark.parametrize("axes", list(itertools.product((None, 0, -1), repeat=2)))
def test_two_quantized_arrays(axes, at_once, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    groups = [None if axis is None else 8 for axis in axes]
    fine, coarse = (fq.quantize(W, bits, axis=a, group_size=g) for bits, a, g in zip((8, 3), axes, groups))
    for x, y in ((fine, coarse), (coarse, fine)):
        error, shares = compare(x, y)
        assert error.sqnr_db == pytest.approx(fq.error(x, y).sqnr_db)
        assert sum(shares[:2]) == pytest.approx(1)


def test_floats_and_stacks():
    half = W.astype(np.float16)
    error, shares = compare(W, half)
    assert error.sqnr_db == pytest.approx(fq.error(W, half).sqnr_db)
    assert shares is None
    stack = W.reshape(4, 10, 96)
    q = fq.quantize(stack, 3, axis=1)
    assert compare(stack, q)[0].sqnr_db == pytest.approx(fq.error(stack, q).sqnr_db)


def test_nothing_differs():
    q = fq.quantize(W, 4, axis=-1)
    error, shares = compare(q, q)
    assert (error.sqnr_db, shares) == (np.inf, Shares(0, 0, 0))
    empty = np.zeros((0, 4), np.float32)
    assert compare(empty, fq.quantize(empty, axis=-1))[1] == Shares(0, 0, 0)
    assert compare(np.float32(2), fq.quantize(np.float32(2)))[0].max_abs < 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_numbers_that_have_no_square(bad):
    x = W.astype(np.float64)
    x[3, 4] = bad
    with pytest.raises(ValueError, match="numbers must be finite to be compared"):
        compare(x, W)


def test_types_without_a_distance():
    with pytest.raises(TypeError, match="arrays must be of real numbers to be compared; got complex64"):
        compare(W, W.astype(np.complex64))


def test_models():
    first = {"a": W, "b": W, "gone": W, "shape": W, "odd": W.astype(np.complex64), "same": W}
    second = {"new": W, "b": fq.quantize(W, 3, axis=-1), "a": fq.quantize(W, 8, axis=-1), "shape": W.T,
              "odd": W, "same": W}  # fmt: skip
    told = []
    found = difference(first, second, lambda done, total: told.append((done, total)))
    assert [row.name for row in found.rows] == ["b", "a", "shape", "odd", "same"]  # the worst first
    assert [row.error is None for row in found.rows] == [False, False, True, True, False]
    assert found.rows[2].problem == "shapes differ: (40, 96) and (96, 40)"
    assert "complex64" in found.rows[3].problem
    assert (found.only_first, found.only_second, found.compared) == (("gone",), ("new",), 3)
    assert (found.rows[0].kind, found.rows[0].other) == ("float32", "3 bits")
    assert found.rows[0].sqnr_db == pytest.approx(fq.error(W, second["b"]).sqnr_db)
    assert told[-1][0] == told[-1][1]
    assert repr(found).startswith("Difference(3 arrays compared, ")
    assert repr(found.rows[0]).startswith("ErrorRow('b', (40, 96), float32 -> 3 bits, ")
    assert "rounding 100%" in repr(found.rows[0])


def test_progress_within_an_array(monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", 500)
    told = []
    difference({"w": W}, {"w": W}, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len(told) > 5
    assert told[-1] == (W.nbytes, W.nbytes)


def test_arrays_that_cannot_be_read():
    def read():
        raise fq.FileFormatError("broken")

    broken = Opened("file", "made", {"w": Entry(W.shape, "float32", W.nbytes, read)})
    (row,) = difference(broken, {"w": W}).rows
    assert (row.problem, row.shape, row.sqnr_db) == ("broken", W.shape, None)
