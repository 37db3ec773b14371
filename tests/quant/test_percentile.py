"""Scales from percentiles, against np.quantile."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.quant import percentile

SCHEMES = ("symmetric", "asymmetric", "affine")
FORMS = [(None, None), (0, None), (1, None), (0, 16), (1, 7), (1, 100)]


def range_of(x, share, scheme):
    """The range by the definition."""
    if scheme == "symmetric":
        top = np.quantile(np.abs(x), np.float64(share / 100))
        return -top, top
    return tuple(np.quantile(x, np.array([(100 - share) / 200, 1 - (100 - share) / 200])))


def by_hand(x, bits, share, scheme):
    """Scale and zero point (or offset) of one run."""
    low, high = range_of(x, share, scheme)
    if scheme == "symmetric":
        return high / (2 ** (bits - 1) - 1), 0
    if scheme == "asymmetric":
        low, high = min(low, 0), max(high, 0)
    scale = (high - low) / (2**bits - 1)
    return scale, np.rint(-low / scale) if scheme == "asymmetric" else low


def runs(x, axis, group):
    """Each run of a matrix, with its place among the parameters."""
    if axis is None:
        yield (0, 0), x.ravel()
        return
    for line in range(x.shape[1 - axis]):
        values = x[:, line] if axis == 0 else x[line]
        for g, start in enumerate(range(0, x.shape[axis], group or x.shape[axis])):
            yield ((g, line) if axis == 0 else (line, g)), values[start : start + (group or x.shape[axis])]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("axis", "group"), FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_definition(rng, scheme, axis, group, dtype):
    x = (rng.standard_t(3, (50, 30)) + 0.5).astype(dtype)
    q = fq.quantize(x, 5, axis=axis, group_size=group, scheme=scheme, group_scale="float", method=fq.Percentile(93))
    places = list(runs(x, axis, group))
    assert q.scale.size == len(places)
    for place, values in places:
        scale, shift = by_hand(values, 5, 93, scheme)
        ulp = np.finfo(dtype).eps * np.abs(values).max()  # of the ends, whose difference the scale comes from
        assert np.isclose(q.scale[place], scale, rtol=8 * np.finfo(dtype).eps, atol=ulp / 15)
        if scheme == "asymmetric":
            assert q.zero_point[place] == shift
        if scheme == "affine":
            assert np.isclose(q.offset[place], shift, rtol=8 * np.finfo(dtype).eps, atol=ulp)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_share_stays_inside(rng, scheme):
    x = rng.standard_normal(10_001)
    q = fq.quantize(x, 8, scheme=scheme, method=fq.Percentile(99))
    cut = np.abs(q.dequantize() - x) > 0.5001 * q.scale
    assert 90 <= cut.sum() <= 101  # one percent, but what is cut by less than half a step


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("axis", "group"), FORMS)
def test_all_of_it_is_minmax(isa, rng, scheme, axis, group):
    x = rng.standard_normal((50, 30)).astype(np.float32)
    form = {"bits": 4, "axis": axis, "group_size": group, "scheme": scheme}
    assert fq.quantize(x, method=fq.Percentile(100), **form).equals(fq.quantize(x, **form))


def test_the_word_has_a_share(rng):
    x = rng.standard_normal((5000, 2))
    q = fq.quantize(x, axis=0, method="percentile")
    assert q.equals(fq.quantize(x, axis=0, method=fq.Percentile(99.9)))
    assert not q.equals(fq.quantize(x, axis=0))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("axis", [None, 0, 2])
def test_blocks_of_runs(monkeypatch, rng, scheme, axis):
    x = rng.standard_normal((6, 5, 40)).astype(np.float32)
    form = {"axis": axis, "group_size": None if axis is None else 7, "scheme": scheme, "method": fq.Percentile(80)}
    whole = fq.quantize(x, **form)
    monkeypatch.setattr(percentile, "_BLOCK", 23)
    assert fq.quantize(x, **form).equals(whole)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outliers_among_equal_numbers(scheme):
    """The share is a single point, from which no scale follows."""
    x = np.zeros(5000, np.float32)
    x[7] = 3
    q = fq.quantize(x, scheme=scheme, method="percentile")
    assert q.equals(fq.quantize(x, scheme=scheme))


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers(scheme, dtype):
    top = np.finfo(dtype).max
    x = np.array([-top, -top / 2, top / 3, top], dtype)
    assert np.isfinite(fq.quantize(x, scheme=scheme, method=fq.Percentile(90)).scale).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1, 1)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_small_shapes(shape, scheme):
    q = fq.quantize(np.ones(shape), axis=0, scheme=scheme, method="percentile")
    assert q.equals(fq.quantize(np.ones(shape), axis=0, scheme=scheme))


def test_any_form_of_number(rng):
    x = rng.integers(-100, 100, 500)
    for share in (np.float32(50), np.int64(50), 50):
        assert fq.quantize(x, method=fq.Percentile(share)).equals(fq.quantize(x, method=fq.Percentile(50.0)))


def test_errors():
    with pytest.raises(fq.NotFiniteError, match=r"x must be finite.* index \(1,\)"):
        fq.quantize([1.0, np.nan], method="percentile")
    with pytest.raises(ValueError, match=r"method='percentile' chooses the scale, so scale must be left out"):
        fq.quantize([1.0, 2.0], method="percentile", scale=0.1)
