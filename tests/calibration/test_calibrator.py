"""fastq.Calibrator against fastq.quantize on all data at once."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.calibration import histogram

SCHEMES = ("symmetric", "asymmetric")
METHODS = ("minmax", "mse", fq.Percentile(99))


@pytest.fixture
def small(monkeypatch):
    """A histogram of 2 * 512 bins, for a fast search."""
    monkeypatch.setattr(histogram, "HALF", 512)


@pytest.fixture
def x(rng):
    """Rows of growing size, some of them 0, so that ranges must widen."""
    return rng.standard_t(4, (600, 8)) * np.linspace(0, 3, 600)[:, None] ** 2 + 0.2


def calibrated(x, cuts=(), **form):
    c = fq.Calibrator(**form)
    for batch in np.split(x, cuts):
        c.update(batch)
    return c


def width(c):
    return float(np.ldexp(1.0, c._seen.exponent))


# Parameters


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("bits", [8, 3])
def test_minmax_is_that_of_all_at_once(isa, x, scheme, dtype, bits):
    x = x.astype(dtype)
    q = fq.quantize(x, bits, scheme=scheme)
    c = calibrated(x, (1, 20, 300), bits=bits, scheme=scheme)
    scale, zero = c.parameters()
    assert scale == q.scale.item()
    assert zero == (None if scheme == "symmetric" else q.zero_point.item())
    assert c.quantize(x).equals(q)
    assert c.values == x.size


@pytest.mark.parametrize("scheme", SCHEMES)
def test_by_channel_is_that_of_all_at_once(x, scheme):
    q = fq.quantize(x, axis=0, scheme=scheme)
    c = calibrated(x, (7, 100), axis=0, scheme=scheme)
    assert c.quantize(x).equals(q)
    assert c.parameters().scale.shape == (1, 8)
    assert calibrated(x.reshape(6, 100, 8), (2,), axis=0, scheme=scheme).quantize(x).equals(q)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("share", [100, 99.9, 95, 50, 10])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_percentile_is_within_half_a_bin(x, scheme, share, dtype):
    x = x.astype(dtype)
    method = fq.Percentile(share)
    c = calibrated(x, (100, 400), scheme=scheme, method=method)
    ends = method.ends(scheme)
    low, high = histogram.range_of_share(c._seen, float(x.min()), float(x.max()), scheme, method)
    exact = np.quantile(np.abs(x) if scheme == "symmetric" else x, np.array(ends))
    slack = width(c) / 2 * (1 + 1e-9) + 4 * np.finfo(dtype).eps * np.abs(exact).max()
    assert abs(high - exact[-1]) <= slack
    assert abs(low - (-exact[0] if scheme == "symmetric" else exact[0])) <= slack
    if share == 100:
        assert c.quantize(x).equals(fq.quantize(x, scheme=scheme))
    steps = 127 if scheme == "symmetric" else 255
    whole = fq.quantize(x, scheme=scheme, method=method)
    assert abs(c.parameters().scale - whole.scale.item()) <= 2.1 * slack / steps


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_least_error_is_near_the_search(small, rng, scheme, bits):
    """Within the bound, a bin's width, of what the search on the data finds, and never worse by more than minmax."""
    for data in (rng.standard_normal(4000), rng.laplace(size=4000) + 0.5, np.maximum(rng.standard_normal(4000), 0)):
        c = calibrated(data[:, None], (500,), bits=bits, scheme=scheme, method="mse")
        found = fq.error(data, c.quantize(data)).rmse
        assert found <= fq.error(data, fq.quantize(data, bits, scheme=scheme, method="mse")).rmse + width(c)
        assert found <= fq.error(data, fq.quantize(data, bits, scheme=scheme)).rmse + width(c)


def test_least_error_cuts_outliers(small, rng):
    data = np.append(rng.standard_normal(20_000), 40.0)[:, None]
    found = [fq.error(data, calibrated(data, bits=4, method=m).quantize(data)).sqnr_db for m in ("minmax", "mse")]
    assert found[1] > found[0] + 6


def test_the_ends_move_apart(small, rng):
    """An outlier on one side only: cutting both sides alike would cost most of the gain."""
    data = np.append(rng.standard_normal(50_000), 20.0)[:, None]
    found = fq.error(data, calibrated(data, bits=4, scheme="asymmetric", method="mse").quantize(data)).sqnr_db
    best = fq.error(data, fq.quantize(data, 4, scheme="asymmetric", method="mse")).sqnr_db
    assert found > best - 0.1


def test_a_negative_scale(small):
    """Codes reach one step further down than up: numbers that do the opposite are served better upside down."""
    data = np.repeat([2.0, 1, 0, -1], 25)[:, None]
    c = calibrated(data, bits=2, method="mse")
    assert c.parameters().scale < 0
    assert fq.error(data, c.quantize(data)).rmse <= width(c)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cuts_do_not_matter(small, x, scheme, method):
    expected = calibrated(x, scheme=scheme, method=method)
    for other in (
        calibrated(x, (1, 2, 3, 250), scheme=scheme, method=method),
        calibrated(x[::-1], (5, 599), scheme=scheme, method=method),
        calibrated(x, (0, 0, 600), scheme=scheme, method=method),
    ):
        assert other.parameters() == expected.parameters()
        assert np.array_equal(other._seen.counts, expected._seen.counts)
        assert np.array_equal(other.channel_max, expected.channel_max)


def test_bins(rng):
    """The histogram against np.histogram on its own edges; blocks do not matter."""
    data = np.concatenate([rng.standard_normal(5000), [0.0, -0.0, 1e-30, -1e-30, 1e9, -1e9]])
    seen = histogram.Histogram()
    for value in (data[:3000], data[3000:], np.zeros(4)):
        seen.add(value)
    edges = np.ldexp(np.arange(-histogram.HALF, histogram.HALF + 1.0), seen.exponent)
    expected, _ = np.histogram(data[data != 0], edges)
    assert np.array_equal(seen.counts, expected)
    assert seen.zeros == 6
    assert histogram.HALF / 2 <= 1e9 / np.ldexp(1.0, seen.exponent) < histogram.HALF


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e300, 1e-300])
def test_constant_data(small, scheme, method, value):
    data = np.full((5, 3), value)
    c = calibrated(data, (2,), scheme=scheme, method=method)
    assert abs(c.quantize(data).dequantize() - data).max() <= abs(value) * 1e-2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outliers_among_zeros(scheme):
    """As with fq.quantize: more than the share are one number, so the extremes are taken."""
    data = np.zeros((1, 5000))
    data[0, 7] = 3
    c = fq.Calibrator(scheme=scheme, method="percentile").update(data)
    assert c.quantize(data).equals(fq.quantize(data, scheme=scheme, method="percentile"))


def test_the_product_takes_the_parameters(rng, x):
    w = fq.quantize(rng.standard_normal((8, 5)), axis=0)
    for scheme, dtype in (("symmetric", np.int8), ("asymmetric", np.uint8)):
        c = fq.Calibrator(scheme=scheme).update(x @ w)
        static = fq.matmul(x, w, dtype=dtype, **c.parameters()._asdict())
        assert static.scale.size == 1
        assert fq.error(x @ w, static).rmse <= c.parameters().scale


def test_channels(x):
    c = calibrated(x.astype(np.float32), (100,))
    assert np.array_equal(c.channel_max, np.abs(x.astype(np.float32)).max(axis=0))
    assert c.channel_max.dtype == np.float32


# Batches


def test_bad_batches_leave_it_as_it_was(small, x):
    c = calibrated(x, method="mse")
    before = c.parameters(), c.values, c._seen.counts.copy(), c.channel_max
    bad = np.full((2, 8), 1e6)
    bad[1, 3] = np.inf
    with pytest.raises(fq.NotFiniteError, match=r"batch must be finite.*1 of 16 .* \(1, 3\) \(inf\)"):
        c.update(bad)
    with pytest.raises(ValueError, match="batch must have 8 channels"):
        c.update(np.full((2, 7), 1e6))
    assert (c.parameters(), c.values) == before[:2]
    assert np.array_equal(c._seen.counts, before[2])
    assert np.array_equal(c.channel_max, before[3])


def test_empty_batches_are_nothing():
    c = fq.Calibrator().update(np.empty((0, 3)))
    with pytest.raises(ValueError, match="must have seen data"):
        c.parameters()
    with pytest.raises(ValueError, match="must have seen data"):
        _ = c.channel_max


def test_words(x):
    assert repr(calibrated(x)).startswith("Calibrator(bits=8, scheme='symmetric', axis=None, method='minmax'; 4800 val")


# Runs


def test_a_run_is_its_updates(x, capsys):
    c = fq.Calibrator().run(np.split(x, 6), progress=False)
    assert c.parameters() == calibrated(x).parameters()
    assert capsys.readouterr() == ("", "")


def test_a_line_of_progress(x, capsys):
    fq.Calibrator().run(np.split(x, 6))
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"calibrating: 6 of 6 batches, [\d.]+ per second, 0 s to go\n", err)
    fq.Calibrator().run(iter([]))
    assert capsys.readouterr().err == ""


def test_the_line_on_a_terminal(x, capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(ValueError, match="8 channels"):
        fq.Calibrator().run([x, x[:, 1:]], total=5)
    err = capsys.readouterr().err
    assert err.endswith("\n")  # the line is ended, whatever happens
    assert err.startswith("calibrating: 1 of 5 batches")


def test_progress_is_told(x):
    told = []
    fq.Calibrator().run((b for b in np.split(x, 6)), progress=told.append, total=6)
    assert [(p.done, p.total) for p in told] == [(i, 6) for i in range(1, 7)]
    last = type(told[-1])(3, 12, 1.5)
    assert (last.rate, last.remaining) == (2.0, 4.5)
    assert str(last) == "calibrating: 3 of 12 batches, 2.0 per second, 4 s to go"
    assert str(last._replace(total=None)) == "calibrating: 3 batches, 2.0 per second"
    assert (last._replace(seconds=0.0).rate, last._replace(seconds=0.0).remaining) == (0, None)
