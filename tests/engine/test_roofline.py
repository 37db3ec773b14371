"""The measured roofs: right sums, sane kinds. How fast they are is nothing to assert."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastq.engine import roofline
from fastq.machine import pool


@pytest.fixture(scope="module")
def measured():
    return roofline.roofline(seconds=1e-4, nbytes=1 << 16)


def test_every_unit_that_can_be_measured_has_a_peak(measured):
    assert list(measured.peaks) == [unit.name for unit in roofline.measurable()]
    assert "portable" in measured.peaks
    for rate in (*measured.peaks.values(), measured.bandwidth):
        assert 0 < rate.one < np.inf
        assert 0 < rate.all < np.inf
    assert measured.threads == pool.num_threads()


def test_it_is_frozen_and_says_what_it_holds(measured):
    with pytest.raises(dataclasses.FrozenInstanceError):
        measured.threads = 1
    text = repr(measured)
    assert all(name in text for name in measured.peaks)
    assert "GB/s" in text


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rounds", [0, 1, 15, 16, 100, 1_000_003])
@pytest.mark.parametrize("unit", roofline.measurable(), ids=lambda unit: unit.name)
def test_sums_are_exact(unit, rounds, workers, monkeypatch):
    """Each block is worked on once, for as many rounds as were asked; 1,000,003 of them wrap int32."""
    seen = []
    monkeypatch.setattr(roofline, "_check", lambda sums, expected, what: seen.append((sums, expected)))
    assert roofline.multiply(unit, 7, rounds, workers) > 0
    ((sums, expected),) = seen
    assert sums.shape == (7, unit.rows, 16 * unit.blocks)
    assert (sums == expected).all()
    assert len(np.unique(expected)) > expected.size // 2 or rounds == 0
    if rounds > 100:
        return
    rng = np.random.default_rng(0)  # the same operands, multiplied one step after the other
    total = np.zeros((unit.rows, 16 * unit.blocks), np.int64)
    if unit.k_block:
        left, right = rng.integers(-128, 128, (unit.rows, 64)), rng.integers(0, 256, (64, 16 * unit.blocks))
        for _ in range(rounds):
            total += left @ right
    else:
        left = rng.integers(-128, 128, (16, unit.rows, 1))[:, :, 0]
        right = rng.integers(0, 2 ** unit.bits[-1], (16 * unit.blocks, 4)).sum(axis=1)
        for i in range(rounds):
            total += np.outer(left[i % 16], right)
    assert (sums == total).all()


def test_read_sums_all_words(monkeypatch):
    seen = []
    monkeypatch.setattr(roofline, "_check", lambda sums, expected, what: seen.append(sums))
    roofline.read(np.arange(3 * 37, dtype=np.int64), 3, 2)
    assert seen[0].tolist() == [sum(range(37 * i, 37 * i + 37)) for i in range(3)]


def test_a_wrong_sum_is_an_error():
    with pytest.raises(RuntimeError, match="testing gave 1 wrong sums of 4: 9 must be 3"):
        roofline._check(np.array([[1, 2], [9, 4]]), np.array([[1, 2], [3, 4]]), "testing")
