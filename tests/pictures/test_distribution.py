"""Histograms of arrays, from a bounded part of them."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import fastq as fq
from fastq.engine import store as stores
from fastq.engine.sample import sample
from fastq.models.levels import levels
from fastq.pictures.distribution import LIMIT, of_codes, of_numbers, parts_of, places

SHAPES = [(10,), (10**9,), (4096, 4096), (1, 10**7), (10**7, 1), (10**7, 3), (5, 2000, 3000), (1000, 7, 9, 11, 13),
          (2, 2, 2, 10**5), (), (0, 3), (3, 0)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [LIMIT, 100, 1])
def test_places_are_inside_and_few(shape, limit):
    found = list(places(shape, limit))
    seen = sum(prod(s.stop - s.start for s in place) for place in found)
    assert seen <= limit
    assert seen == prod(shape) or seen >= limit / 3
    for place in found:
        assert all(0 <= s.start <= s.stop <= n for s, n in zip(place, shape))


def test_places_are_spread():
    """From the first rows and columns to the last ones, and no two alike."""
    found = list(places((4096, 4096)))
    for axis in range(2):
        starts = {place[axis].start for place in found}
        assert len(starts) == 8
        assert 0 in starts
        assert max(place[axis].stop for place in found) == 4096


def test_a_histogram_of_codes():
    found = of_codes([np.array([[-2, 1], [1, 0]], np.int8), np.array([1], np.int8)], -2, 1, 99)
    assert (found.counts, found.levels, found.seen, found.size) == ((1, 0, 1, 3), (-2, -1, 0, 1), 5, 99)
    assert found.edges == (-2.5, -1.5, -0.5, 0.5, 1.5)
    assert found.ends == 0.8
    assert of_codes([], 0, 3, 0).seen == 0


def test_a_histogram_of_numbers():
    found = of_numbers([np.array([0.0, 1.0, np.nan]), np.array([[2.0, np.inf]])], [0.5, 1.5], 5, "value", bins=2)
    assert (found.counts, found.edges, found.levels) == ((1, 2), (0.0, 1.0, 2.0), (0.5, 1.5))
    assert (found.seen, found.ends) == (3, 2 / 3)  # 1.0 is as near to both
    assert of_numbers([], [], 0, "value").seen == 0
    ends = of_numbers([np.array([-1.7e308, 1.7e308])], [0.0], 2, "value")
    assert sum(ends.counts) == 2


FORMS = [{}, {"axis": 0}, {"axis": 1}, {"axis": 0, "group_size": 64}, {"axis": 0, "group_size": 10},
         {"axis": 0, "group_size": 64, "group_scale": "float"}, {"axis": 1, "group_size": 32},
         {"axis": 0, "group_size": 96, "scheme": "asymmetric"}, {"scheme": "affine", "axis": 0}]  # fmt: skip


CASES = [
    (shape, form)
    for shape in [(600, 70), (70, 600), (3, 200, 40), (5000,), (64, 16), (0, 4), ()]
    for form in FORMS
    if form.get("axis") is None or form["axis"] < len(shape)
]


@pytest.mark.parametrize(("shape", "form"), CASES)
@pytest.mark.parametrize("bits", [3, 8])
def test_a_sample_has_codes_of_the_array(rng, shape, form, bits):
    """Packed or not; small arrays are counted whole."""
    x = rng.standard_normal(shape).astype(np.float32)
    q = fq.quantize(x, bits, **form)
    codes, (low, high) = q.codes, q._store.limits
    exact = of_codes([codes], low, high, q.size)
    assert of_codes(sample(q._store), low, high, q.size) == exact
    if q.size and (len(shape) == 2 or (len(shape) == 3 and form.get("axis") in (1, None))):
        q.prepack()
        assert q._store.packed
        assert of_codes(sample(q._store), low, high, q.size) == exact
        before = q._store._form
        some = sample(q._store, 2000)
        assert q._store._form is before
        assert sum(part.size for part in some) <= 8000
        assert set(np.unique(np.concatenate([p.ravel() for p in some] or [np.zeros(0)]))) <= set(np.unique(codes))


def test_a_look_compiles_nothing(rng, monkeypatch):
    """It would take a second, in the middle of a notebook."""
    q = fq.quantize(rng.standard_normal((300, 200)), 3, axis=0).prepack()
    monkeypatch.setattr(stores, "unpack", None)
    monkeypatch.setattr(stores, "unpack_columns", None)
    assert sum(part.size for part in sample(q._store)) == q.size


def test_codes_under_negative_scales_are_those_of_the_array():
    """Tiles hold them mirrored, group by group: a part that began within a group would show others."""
    signs = np.resize([1, -1, -1, 1, 1], 40).repeat(96)[:, None] * np.ones((1, 64), np.int8)
    codes = np.where(signs > 0, 3, -2).astype(np.int8)
    scales = {"scale": np.ones((1, 64), np.float32), "group_scale": signs[::96].astype(np.int8), "group_size": 96}
    q = fq.from_parts(codes, bits=3, axis=0, **scales).prepack()
    for limit in (5_000, 20_000, LIMIT):
        parts = sample(q._store, limit)
        assert set(np.unique(np.concatenate([part.ravel() for part in parts]))) == {3, -2}


def test_levels_of_numbers(rng):
    """In steps of their scale, so that each number is half a step at most from its code."""
    x = rng.standard_normal((64, 256)).astype(np.float32)
    for scheme, low in (("symmetric", -4), ("asymmetric", 0), ("affine", 0)):
        for more in ({"group_size": 32}, {"axis": None}, {"axis": 0}):
            found = levels(x, 3, scheme=scheme, **more)
            assert found.levels == tuple(range(low, low + 8))
            assert found.seen == found.size == x.size
            assert min(found.edges) >= low - 0.51
            assert max(found.edges) <= low + 7.51


def test_levels_of_what_is_quantized(rng):
    q = fq.quantize(rng.standard_normal((40, 30)), 4)
    assert levels(q).counts == tuple(np.bincount(q.codes.ravel() + 8, minlength=16))


@pytest.mark.parametrize("value", [np.zeros((0, 3)), np.arange(9), np.array([[1.0, np.nan]]), np.array(["a"])])
def test_levels_of_what_has_no_codes(value):
    assert levels(value) is None


def test_levels_of_large_arrays_are_those_of_a_part():
    large = np.broadcast_to(np.linspace(-1, 1, 4096, dtype=np.float32), (10**6, 4096))
    found = levels(large)
    assert LIMIT / 2 < found.seen <= LIMIT
    assert found.size == large.size
    long = np.broadcast_to(np.float32(1), (3, 10**8))
    assert levels(long, axis=1).seen == LIMIT


def test_a_memory_map_is_not_read_whole(tmp_path):
    """Parts are views until they are used."""
    path = tmp_path / "large"
    large = np.memmap(path, np.int8, "w+", shape=(1 << 14, 1 << 14))  # a file with a hole
    parts = parts_of(large)
    assert sum(part.size for part in parts) <= LIMIT
    assert all(np.shares_memory(part, large) for part in parts)
