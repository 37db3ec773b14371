"""Packed codes come back as they were: all of them, or some columns, under any scales of their groups."""

from __future__ import annotations

import numpy as np
import pytest

from fastq.engine.backend import pack_right, unpack, unpack_columns
from fastq.engine.groups import GroupScales
from fastq.engine.store import Store
from fastq.layout.tiles import segments
from fastq.scheme import code_range

LENGTHS = (1, 3, 63, 64, 65, 130)  # of K, about the depth of a tile
WIDTHS = (1, 15, 16, 17, 40)  # of N, about a block


def codes_of(rng, bits, scheme, k, n):
    limits = code_range(bits, scheme)
    codes = rng.integers(limits.low, limits.high + 1, (k, n)).astype(np.int8 if limits.signed else np.uint8)
    codes[:: max(1, k - 1), :: max(1, n - 1)] = limits.low
    codes[k // 2, n // 2] = limits.high
    return codes, limits


def check(right, codes, limits, rng, groups=None):
    n = codes.shape[1]
    assert (unpack(right, limits) == codes).all()
    for columns in (rng.integers(0, n, 7), np.arange(n)[::-1], np.array([n - 1]), np.array([], np.int64)):
        some, scales = unpack_columns(right, limits, columns)
        assert some.dtype == codes.dtype
        assert some.shape == (len(columns), len(codes))
        assert (some == codes[:, columns].T).all()
        if groups is None:
            assert scales is None
            continue
        assert scales.size == groups.size
        for found, expected in zip(scales[1:], groups[1:]):
            assert (found is None) == (expected is None)
            if found is not None:
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected[:, columns])


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_come_back(isa, rng, bits, scheme):
    for k in LENGTHS:
        for n in WIDTHS:
            codes, limits = codes_of(rng, bits, scheme, k, n)
            check(pack_right(codes, limits.low, bits, segments(k)), codes, limits, rng)


@pytest.mark.parametrize("size", [16, 48, 64, 80])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 3, 5, 6])
def test_codes_under_integer_scales_come_back(isa, rng, bits, scheme, size):
    """Codes under a negative scale are packed mirrored."""
    for k, n in ((130, 17), (64, 16), (16, 1), (257, 40)):
        codes, limits = codes_of(rng, bits, scheme, k, n)
        shape = (-(-k // size), n)
        scale = rng.integers(1, 2 ** (8 - bits) + 1, shape).astype(np.int8)
        if limits.signed:
            scale *= rng.choice(np.array([-1, 1], np.int8), shape)
            zero = None
        else:
            zero = rng.integers(0, limits.high + 1, shape).astype(np.uint8)
        scale = np.where(np.abs(scale.astype(int)) * limits.reach > 127, np.sign(scale), scale).astype(np.int8)
        groups = GroupScales(size, scale, zero)
        check(pack_right(codes, limits.low, bits, segments(k), groups), codes, limits, rng, groups)


def test_codes_between_gaps_come_back(isa, rng):
    """Segments of ten k take twelve places each."""
    codes, limits = codes_of(rng, 4, "symmetric", 55, 20)
    check(pack_right(codes, limits.low, 4, segments(55, 10)), codes, limits, rng)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_scales_of_some_elements_do_not_depend_on_how_codes_are_held(rng, scheme, transposed):
    """Another thread may pack them at any time: an index is always along an axis of the array."""
    codes, limits = codes_of(rng, 4, scheme, 128, 70)
    scale = rng.integers(1, 9, (2, 4, 70)).astype(np.int8)
    zero = None if limits.signed else rng.integers(0, 16, scale.shape).astype(np.uint8)
    turn = np.transpose if transposed else np.asarray
    order = (0, 2, 1) if transposed else (0, 1, 2)
    scales = GroupScales(32, scale.transpose(order), None if zero is None else zero.transpose(order))
    held = Store(np.stack([turn(codes), turn(codes)]), limits, 4, scales)
    packed = Store(np.stack([turn(codes), turn(codes)]), limits, 4, scales)
    packed.right((0,), transposed, segments(128), True)
    assert packed.packed
    assert packed.transposed == transposed
    assert (packed.codes() == held.codes()).all()
    assert packed.codes().flags.c_contiguous
    for axis in (-1, -2):
        for index in (slice(1, 3), np.array([3, 0, 0, 2]), slice(None)):
            expected = np.take(scales.scale, np.arange(scales.scale.shape[axis])[index], axis=axis)
            for store in (held, packed):
                found = store.scales(index, axis)
                assert (found.scale == expected).all()
                assert (found.zero is None) == limits.signed
    assert (packed.scales().scale == scales.scale).all()
