"""The packed layout: where each code lies, in how many bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastq.engine.backend import pack_right
from fastq.layout.tiles import (
    BLOCK,
    DEPTH,
    STEPS,
    pack_codes,
    places,
    right_bytes,
    segments,
    tile_bytes,
    unpack_codes,
)


def test_an_8_bit_tile_is_sixteen_rows_of_sixteen_columns_of_four_k(rng):
    codes = rng.integers(0, 256, (DEPTH, BLOCK)).astype(np.uint8)
    tile = pack_codes(codes, segments(DEPTH), 8)
    for k in range(DEPTH):
        for column in range(BLOCK):
            assert tile[64 * (k // 4) + 4 * column + k % 4] == codes[k, column]


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_tile_takes_128_bytes_per_bit(bits):
    assert tile_bytes(bits) == 128 * bits
    assert right_bytes(segments(130), 33, bits) == 3 * 3 * 128 * bits  # whole tiles: 3 along K, 3 column blocks


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes_hold_each_bit_of_each_row_once(bits):
    taken = np.zeros((tile_bytes(bits), 8), int)
    for row in range(STEPS):
        covered = 0
        for place in places(bits, row):
            covered |= (2**place.width - 1) << place.target
            taken[place.offset : place.offset + 64, place.shift : place.shift + place.width] += 1
        assert covered == 2**bits - 1
    assert (taken == 1).all()


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(2, 8),
    k=st.integers(1, 200),
    n=st.integers(1, 50),
    size=st.one_of(st.none(), st.integers(1, 200)),
    seed=st.integers(0, 99),
    transposed=st.booleans(),
)
def test_the_packing_kernel_equals_numpy_and_unpacks(bits, k, n, size, seed, transposed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (n, k) if transposed else (k, n)).astype(np.uint8)
    codes = codes.T if transposed else codes
    k_segments = segments(k, size)
    packed = pack_right(codes, 0, bits, k_segments)
    assert (packed.tiles == pack_codes(codes, k_segments, bits)).all()
    assert (unpack_codes(packed.tiles, k_segments, n, bits) == codes).all()
    for g in range(k_segments.segments):
        part = codes[g * k_segments.size : (g + 1) * k_segments.size]
        assert (packed.col_sum[g, :n] == part.sum(axis=0, dtype=np.int64)).all()
        assert (packed.col_sum[g, n:] == 0).all()


@settings(deadline=None)
@given(k=st.integers(1, 5000), size=st.integers(1, 5000))
def test_segments_cover_k_without_overlap(k, size):
    k_segments = segments(k, size)
    positions = k_segments.positions()
    assert len(np.unique(positions)) == k
    assert positions.max() < k_segments.steps * 4 <= k_segments.tiles * 64
    assert k_segments.gapless == (positions == np.arange(k)).all()
    assert (k_segments.segments - 1) * k_segments.size + k_segments.last_k == k
