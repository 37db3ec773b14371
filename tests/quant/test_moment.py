"""The second moment of calibration rows, against NumPy in float64."""

import numpy as np
import pytest

import fastq as fq
from fastq.kernels import reference
from fastq.quant import moment as module
from fastq.quant.moment import Damped, SecondMoment


def mean_square(rows):
    rows = rows.astype(np.float64)
    return rows.T @ rows / len(rows)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_is_the_mean_of_outer_products(rng, monkeypatch, dtype):
    monkeypatch.setattr(module, "CHUNK", 16)
    x = (10 * rng.standard_normal((50, 7))).astype(dtype)
    found = SecondMoment.of(x)
    assert found.rows == 50
    close(found.matrix, mean_square(x))
    close(found.diagonal, np.diagonal(mean_square(x)))
    assert not found.matrix.flags.writeable


def test_parts_and_the_whole_agree(rng):
    x = rng.standard_normal((6, 5, 4))
    reached = []
    parts = SecondMoment.of((x[:2], x[2, 0], x[2, 1:], x[3:]), progress=reached.append)
    assert reached == [10, 11, 15, 30]
    grown = SecondMoment(4)
    grown.update(np.empty((0, 4)))
    grown.update(x)
    for found in (parts, grown, SecondMoment.of(x), SecondMoment.of(list(x)), SecondMoment.of(np.asfortranarray(x))):
        assert found.rows == 30
        close(found.matrix, mean_square(x.reshape(-1, 4)))
    assert SecondMoment.of(grown) is grown


def test_memory_maps(rng, tmp_path):
    x = rng.standard_normal((5000, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    close(SecondMoment.of(np.load(tmp_path / "x.npy", mmap_mode="r")).matrix, mean_square(x))


def test_sizes_whose_squares_float32_lacks(rng):
    x = rng.standard_normal((40, 5))
    for size in (2.0**-140, 2.0**100):
        close(SecondMoment.of(x * size).matrix, mean_square(x) * size**2)


def test_rows_are_taken_whole_or_not_at_all(rng, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    x = rng.standard_normal((10, 3))
    found = SecondMoment.of(x)
    before = found.matrix.copy()
    x[9, 1] = np.nan
    with pytest.raises(fq.NotFiniteError, match=r"1 of 30 .* at index \(9, 1\)"):
        found.update(x)
    assert found.rows == 10
    assert np.array_equal(found.matrix, before)


def related(rng, rows):
    """Rows of 32 channels, every other of which is much like the one before."""
    x = rng.standard_normal((rows, 32))
    x[:, 1::2] = x[:, ::2] + 0.3 * x[:, 1::2]
    return x


def test_shrunk_moment(rng):
    moment = SecondMoment.of(related(rng, 20))
    s = moment.shrinkage
    assert 0 < s < 1
    np.testing.assert_allclose(moment.shrunk, (1 - s) * moment.matrix + s * np.diag(moment.diagonal), rtol=1e-14)


def test_shrinkage_does_not_depend_on_parts_and_falls_with_rows(rng):
    x = related(rng, 3000)
    found = [SecondMoment.of(x).shrinkage, SecondMoment.of(np.split(x, 300)).shrinkage]
    assert found[0] == found[1]
    grown = SecondMoment.of(x[:20])
    few = grown.shrinkage
    grown.update(x[20:])
    assert grown.shrinkage == found[0] < few


@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("shrink", [False, True])
def test_transformed_moment_is_shrunk_before_and_not_again(rng, block, shrink):
    moment, d = SecondMoment.of(related(rng, 20)), np.exp(rng.standard_normal(32)).astype(np.float32)
    transformed = moment.transformed(d, block, shrink)
    turn = np.diag(d.astype(np.float64)) @ reference.rotated(np.eye(32), block)
    close(transformed.matrix, turn.T @ (moment.shrunk if shrink else moment.matrix) @ turn)
    assert transformed.rows == 20
    assert transformed.shrinkage == 0
    assert moment.transformed(None, 1, shrink) is moment


def test_a_diagonal_stays_one_under_factors(rng):
    moment = SecondMoment.of(rng.standard_normal((20, 32)))
    d = np.ones(32, np.float32)
    assert [moment.transformed(d, block, True).shrinkage for block in (1, 16)] == [1, 0]


def test_repr_tells_size():
    assert repr(SecondMoment()) == "SecondMoment(K unknown, rows=0)"
    assert repr(SecondMoment.of(np.ones((2, 3)))) == "SecondMoment(K=3, rows=2)"


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_factor_is_triangular_and_gives_the_moment_back(rng, order):
    x = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 5)) + rng.standard_normal((40, 5))
    moment = SecondMoment.of(x)
    assert 0 < moment.shrinkage < 1
    metric = Damped(moment, 0.1, np.dtype(np.float64))
    carry, weight = metric.factor(np.array(order))
    assert np.array_equal(carry, np.triu(carry))
    whole = moment.shrunk / np.diagonal(mean_square(x)).mean() + 0.1 * np.eye(5)
    close((carry * weight) @ carry.T, whole[np.ix_(order, order)])
    close(metric.rows(1, 3), whole[1:3])
    close(metric.block(1, 3), whole[1:3, 1:3])


def test_damping_rises_where_there_is_no_factor():
    metric = Damped(SecondMoment.of(np.ones((9, 4))), 0.0, np.dtype(np.float32))  # of rank 1
    carry, weight = metric.factor(np.arange(4))
    assert metric.damping == 1e-6
    assert np.isfinite(carry).all()
    assert (weight > 0).all()
