"""How far a moment is believed: the measure against its definition, and what comes of it on rows that were not seen."""

import numpy as np
import pytest

import fastq as fq
from fastq.quant.shrinkage import HELD, RIDGE, SPAN, KeptRows, intensity, left

K = 128


def autoregressive(rho):
    def draw(random, rows):
        x = random.standard_normal((rows, K)).astype(np.float32)
        for i in range(1, K):
            x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
        return x

    return draw


def outliers(random, rows):
    size = np.ones(K, np.float32)
    size[5::16] = np.linspace(20, 100, 8)
    return random.standard_normal((rows, K)).astype(np.float32) * size


def deficient(random, rows):
    mix = np.random.default_rng(7).standard_normal((K // 8, K)) / np.sqrt(K // 8)
    return (random.standard_normal((rows, K // 8)) @ mix).astype(np.float32)


def one_strong_direction(random, rows):
    """White around a mean: the mean outweighs all that is chance."""
    return (random.standard_normal((rows, K)) + 1).astype(np.float32)


INPUTS = {
    "white": autoregressive(0),
    **{f"AR({rho})": autoregressive(rho) for rho in (0.5, 0.9, 0.95)},
    "outlier channels": outliers,
    "rank-deficient": deficient,
    "one strong direction": one_strong_direction,
}
ROWS = (K // 16, K // 2, K, 4 * K, 16 * K)


def sqnr(kind, rows, *methods):
    """SQNR by these methods in dB, of products of 2,048 rows that calibration has not seen."""
    random = np.random.default_rng([rows, *map(ord, kind)])
    seen, unseen = fq.SecondMoment.of(INPUTS[kind](random, rows)), INPUTS[kind](random, 2048)
    w = random.standard_normal((K, 32)).astype(np.float32)
    found = (fq.quantize(w, 3, axis=0, group_size=32, method=method, calibration=seen) for method in methods)
    return [fq.error(unseen @ w, unseen @ q.dequantize()).sqnr_db for q in found]


@pytest.mark.filterwarnings("ignore:calibration must show")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.exhaustive
def test_gptq_is_not_worse_than_mse(kind, rows):
    mse, gptq = sqnr(kind, rows, "mse", "gptq")
    assert gptq > mse - 0.1


@pytest.mark.parametrize(
    ("kind", "rows", "gain"),
    [("AR(0.5)", 16 * K, 1), ("AR(0.9)", K // 16, 0.8), ("AR(0.9)", K, 5), ("AR(0.9)", 16 * K, 6.5),
     ("AR(0.95)", K, 8), ("AR(0.95)", 16 * K, 9), ("rank-deficient", K // 2, 11), ("rank-deficient", 16 * K, 12),
     ("one strong direction", K // 2, 2)],
)  # fmt: skip
def test_gptq_gains_where_it_can(kind, rows, gain):
    mse, gptq = sqnr(kind, rows, "mse", "gptq")
    assert gptq > mse + gain


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 5, 300])  # less than a block, several
def test_what_is_left_of_an_input(rng, strength, k):
    x = rng.standard_normal((2 * k, k)) @ rng.standard_normal((k, k))
    h = np.corrcoef(x, rowvar=False).reshape(k, k)
    z = rng.standard_normal((k, 3))
    shrunk = (1 - strength) * h
    shrunk[np.diag_indices(k)] = 1 + RIDGE
    upper = np.linalg.cholesky(shrunk[::-1, ::-1])[::-1, ::-1]
    want = np.square(np.linalg.solve(upper / np.diagonal(upper), z)).sum(axis=0)
    # The sums are float32; those of an inverse lose what the condition of h takes.
    bound = 4 * k * np.finfo(np.float32).eps * np.linalg.cond(shrunk)
    np.testing.assert_allclose(left(h.astype(np.float32), strength, z.astype(np.float32)), want, rtol=bound)


def test_what_has_no_factor_is_not_chosen():
    assert np.isinf(left(np.float32([[1, 2], [2, 1]]), 0.0, np.ones((2, 3), np.float32))).all()


@pytest.mark.parametrize("rows", [1, HELD, HELD + 1, 10_000])
def test_rows_are_kept_evenly_however_they_come(rng, rows):
    x = np.arange(rows, dtype=np.float64)[:, None]
    whole, parts = KeptRows(), KeptRows()
    whole.add(x, 0)
    start = 0
    while start < rows:
        step = int(rng.integers(1, 700))
        parts.add(x[start : start + step], start)
        start += step
    assert np.array_equal(whole.rows, parts.rows)
    assert min(rows, HELD // 2) <= len(whole.rows) <= HELD
    gaps = np.diff(whole.rows[::SPAN, 0])
    assert len(set(gaps)) <= 1


def test_rows_that_cannot_tell(rng):
    """One row, rows of zeros, channels that are seen in one half of the rows only: nothing is believed."""
    for x in (np.ones((1, 8)), np.ones((3, 8)), np.zeros((20, 8)), np.eye(32)):
        held = KeptRows()
        held.add(x, 0)
        assert intensity(x.T @ x / len(x), len(x), held.rows) == 1


def test_large_channels_do_not_decide_alone(rng):
    x = INPUTS["AR(0.9)"](rng, 500)
    size = np.ones(K)
    size[::40] = 2.0**40
    assert fq.SecondMoment.of(x * size).shrinkage == fq.SecondMoment.of(x).shrinkage < 0.5
