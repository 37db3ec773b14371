"""Calibration data in `fastq.quantize`: products of weights chosen for the inputs that they will meet."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import fastq as fq


@pytest.fixture
def inputs(rng):
    """A function that draws rows of 128 channels, of which neighbours are alike and four are fifty times larger."""
    size = np.ones(128, np.float32)
    size[[3, 40, 77, 100]] = 50

    def draw(rows):
        x = rng.standard_normal((rows, 128)).astype(np.float32)
        for i in range(1, 128):
            x[:, i] += 0.9 * x[:, i - 1]
        return x * size

    return draw


@pytest.fixture
def w(rng):
    return rng.standard_normal((128, 48)).astype(np.float32)


def sqnr(x, w, q):
    """Of products with the weights alone: x is not quantized."""
    return fq.error(x @ w, x @ q.dequantize()).sqnr_db


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
@pytest.mark.parametrize("group", [None, 32, 20])
@pytest.mark.exhaustive
def test_products_gain(isa, inputs, w, scheme, group):
    """Weighing errors gains, and making up for them gains more, on rows that were not seen."""
    seen, unseen = fq.SecondMoment.of(inputs(4000)), inputs(500)
    form = {"bits": 3, "axis": 0, "group_size": group, "scheme": scheme}
    plain = sqnr(unseen, w, fq.quantize(w, method="mse", **form))
    weighed = sqnr(unseen, w, fq.quantize(w, method="mse", calibration=seen, **form))
    gptq = sqnr(unseen, w, fq.quantize(w, method="gptq", calibration=seen, **form))
    assert weighed > plain + 3
    assert gptq > weighed + 1


def test_calibration_may_come_in_any_form(inputs, w):
    rows = inputs(300)
    wanted = fq.quantize(w, 3, axis=0, method="gptq", calibration=rows)
    for same in (
        fq.SecondMoment.of(rows),
        [rows[:100], rows[100:]],
        (part for part in np.split(rows, 3)),
        rows.reshape(3, 100, 128),
    ):
        found = fq.quantize(w, 3, axis=0, method=fq.Gptq(), calibration=same)
        # Chunks of rows are added in another order.
        assert np.mean(found.codes == wanted.codes) > 0.99
    assert fq.quantize(w.T, 3, axis=1, method="gptq", calibration=rows).T.equals(wanted)


@pytest.mark.parametrize("group", [None, 16, 30])
def test_the_result_keeps_the_equation(inputs, w, group):
    """Codes and parameters are those of an ordinary array, and multiply like one."""
    seen = inputs(200)
    for scheme in ("symmetric", "asymmetric", "affine"):
        q = fq.quantize(w, 3, axis=0, group_size=group, scheme=scheme, method="gptq", calibration=seen)
        assert (q.group_scale is not None) == (group == 16 and scheme != "affine")
        size = group or 128
        scale, zero, offset = (
            0 if p is None else np.repeat(p, size, axis=0)[:128] for p in (q.scale, q.zero_point, q.offset)
        )
        assert (q.dequantize() == (q.codes - np.float32(zero)) * scale + np.float32(offset)).all()
        x = inputs(9)
        exact = fq.quantize(x, axis=-1).dequantize(np.float64) @ q.dequantize(np.float64)
        assert np.abs(x @ q - exact).max() < 2e-5 * np.abs(exact).max()


def test_balance_and_rotation_turn_the_moment_too(inputs, w):
    """With the moment of x where that of the balanced, rotated x belongs, the gain would be a loss."""
    seen, unseen = inputs(4000), inputs(300)
    d = fq.balance(seen, w)
    for form in ({"balance": d}, {"balance": d, "rotate": True}, {"rotate": True}):
        form = {"bits": 3, "axis": 0, "group_size": 32, **form}
        plain = sqnr(unseen, w, fq.quantize(w, method="mse", **form))
        gptq = sqnr(unseen, w, fq.quantize(w, method="gptq", calibration=seen, **form))
        assert gptq > plain + 4


def test_bad_calibration_leaves_a_way_out(inputs, w, rng):
    """Few rows, constant and dead channels, channels that depend on each other: shrinkage and damping cope."""
    rows = inputs(200)
    constant, dead, twins = rows.copy(), rows.copy(), rows.copy()
    constant[:, 7], dead[:, 7], twins[:, 8] = 3, 0, twins[:, 7]
    for bad in (rows[:5], rows[:1], constant, dead, twins, np.zeros((3, 128))):
        for method in ("mse", "gptq"):
            hopeless = method == "gptq" and (len(bad) < 4 or not bad.any())
            with pytest.warns(UserWarning, match="rows are too few") if hopeless else nullcontext():
                q = fq.quantize(w, 4, axis=0, group_size=32, method=method, calibration=bad)
            assert np.isfinite(q.dequantize()).all()
    q = fq.quantize(w, 4, axis=0, method="gptq", calibration=dead)
    assert fq.error(w[7], q.dequantize()[7]).sqnr_db > 10  # a dead channel's weights are kept as they are
    for value in (np.nan, np.inf):
        bad = rows.copy()
        bad[1, 2] = value
        with pytest.raises(fq.NotFiniteError, match=r"the first at index \(1, 2\)"):
            fq.quantize(w, 4, axis=0, method="mse", calibration=bad)


def test_weights_of_errors(rng):
    """A channel that counts for nothing may be as wrong as it likes."""
    w = rng.standard_normal((64, 20)).astype(np.float32)
    w[0] *= 30
    x = np.ones((10, 64), np.float32)
    x[:, 0] = 0
    for group in (None, 64, 20):
        q = fq.quantize(w, 3, axis=0, group_size=group, method="mse", calibration=x)
        plain = fq.quantize(w, 3, axis=0, group_size=group, method="mse")
        assert fq.error(w[1:], q.dequantize()[1:]).mse < 0.5 * fq.error(w[1:], plain.dequantize()[1:]).mse


@pytest.mark.parametrize(
    ("rows", "why"), [(64, "its rows are too few to tell, or channels"), (2000, "do not: channels")]
)
def test_rows_from_which_gptq_gains_nothing_are_told_of(rng, w, rows, why):
    """Once for each moment; the result is that of mse, and what the warning advises ends it."""
    form = {"bits": 3, "axis": 0, "group_size": 32}
    moment = fq.SecondMoment.of(rng.standard_normal((rows, 128)))
    with pytest.warns(UserWarning, match=f"got {rows} rows of 128 channels that .*{why}") as told:
        found = fq.quantize(w, method="gptq", calibration=moment, **form)
    assert told[0].filename == __file__
    assert fq.quantize(w, method="gptq", calibration=moment, **form).equals(found)
    assert fq.quantize(w, method="mse", calibration=moment, **form).equals(found)


def test_more_rows_end_the_warning(rng, w):
    x = rng.standard_normal((1000, 128))
    x[:, 1:] += 0.5 * x[:, :-1]
    with pytest.warns(UserWarning, match="give more rows"):
        fq.quantize(w, 3, axis=0, method="gptq", calibration=x[:8])
    fq.quantize(w, 3, axis=0, method="gptq", calibration=x)


def test_a_rotation_makes_use_of_channels_that_are_not_correlated(rng, w):
    x = rng.standard_normal((2000, 128)) * np.where(np.arange(128) % 32 == 5, 50, 1)
    form = {"bits": 3, "axis": 0, "group_size": 32, "rotate": True, "calibration": x[:64]}
    mse, gptq = (
        sqnr(x[64:].astype(np.float32), w, fq.quantize(w, method=method, **form)) for method in ("mse", "gptq")
    )
    assert gptq > mse + 5
