"""Packed codes come back as they were: all of them, or some columns, under any scales of their groups."""

from __future__ import annotations

import numpy as np
import pytest

from fastq.engine.backend import pack_right, unpack
from fastq.engine.groups import GroupScales
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


def check(right, codes, limits, rng):
    n = codes.shape[1]
    assert (unpack(right, limits) == codes).all()
    for columns in (rng.integers(0, n, 7), np.arange(n)[::-1], np.array([n - 1]), np.array([], np.int64)):
        some = unpack(right, limits, columns)
        assert some.dtype == codes.dtype
        assert some.shape == (len(columns), len(codes))
        assert (some == codes[:, columns].T).all()


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
        right = pack_right(codes, limits.low, bits, segments(k), GroupScales(size, scale, zero))
        check(right, codes, limits, rng)


def test_codes_between_gaps_come_back(isa, rng):
    """Segments of ten k take twelve places each."""
    codes, limits = codes_of(rng, 4, "symmetric", 55, 20)
    check(pack_right(codes, limits.low, 4, segments(55, 10)), codes, limits, rng)
