"""Floats straight into right tiles: the tiles, sums and scales of codes by the equation, packed by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.engine.backend import quantize_right
from fastq.layout.tiles import BLOCK, ceil_div, pack_codes, segments

from .test_symmetric import near_ties

SHAPES = [(1, 1), (3, 40), (63, 15), (64, 16), (65, 17), (130, 1), (200, 150), (1100, 33)]


def check(x, bits, k_segments):
    """Against the equation, with the scales that fq.quantize chooses."""
    n, high = x.shape[1], 2 ** (bits - 1) - 1
    right, scale = quantize_right(x, bits, k_segments)
    assert scale.dtype == x.dtype
    assert (scale == fq.quantize(x, bits, axis=0).scale[0]).all()
    with np.errstate(under="ignore"):
        codes = np.clip(np.rint(x / scale), -high - 1, high).astype(np.int64) + high + 1
    assert (right.tiles == pack_codes(codes.astype(np.uint8), k_segments, bits)).all()
    sums = np.zeros((k_segments.segments, ceil_div(n, BLOCK) * BLOCK), np.int64)
    for g in range(k_segments.segments):
        sums[g, :n] = codes[g * k_segments.size : (g + 1) * k_segments.size].sum(axis=0)
    assert (right.col_sum == sums).all()


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", range(2, 9))
def test_near_ties(bits, dtype, order, rng):
    for k, n in SHAPES:
        x = near_ties(rng, n, k, dtype, 2 ** (bits - 1) - 1).T
        check(np.array(x, order=order), bits, segments(k))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("size", [1, 3, 4, 10, 16, 62, 64, 100, 128])
def test_segments_with_and_without_gaps(isa, size, order, rng):
    x = np.array(rng.standard_normal((301, 37)), np.float32, order=order)
    for bits in (8, 3):
        check(x, bits, segments(301, size))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("factor", [1e-45, 1e-40, 2.0**-126, 2.0**-120, 1.0, 1e30, 1e38 / 40])
def test_scales_at_the_ends(factor, order, rng):
    x = np.array(rng.uniform(-100, 100, (150, 40)) * factor, np.float32, order=order)
    x[:, 3] = 0  # whose scale is 1
    x[:, 5] = rng.standard_normal(150)  # beside it, a scale whose reciprocal serves
    for bits in (2, 8):
        check(x, bits, segments(150))


@pytest.mark.parametrize("order", "CF")
def test_parts_of_k_by_many_threads(many_cores, order, rng):
    fq.set_num_threads(8)
    check(np.array(rng.standard_normal((5000, 100)), np.float32, order=order), 8, segments(5000))
    check(np.array(rng.standard_normal((70, 3000)), np.float32, order=order), 4, segments(70))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (63, 16), (129, 32)])
def test_what_is_not_finite(isa, place, bad, order, rng):
    b = np.array(rng.standard_normal((130, 33)), np.float32, order=order)
    b[place] = bad
    with pytest.raises(fq.NotFiniteError):
        quantize_right(b, 8, segments(130))
    out = np.full((2, 33), 7, np.float32)
    with pytest.raises(fq.NotFiniteError, match=rf"^b must be finite.*\({place[0]}, {place[1]}\)"):
        fq.matmul(np.ones((2, 130), np.float32), b, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("view", [lambda w: w[:, ::2], lambda w: w[::-1], lambda w: w[3:, 5:], lambda w: w.T[1:]])
def test_views(isa, view, rng):
    b = view(rng.standard_normal((150, 150)).astype(np.float32))
    a = rng.standard_normal((5, len(b))).astype(np.float32)
    assert (fq.matmul(a, b) == fq.matmul(a, np.ascontiguousarray(b))).all()
    assert (fq.matmul(a, b) == a @ fq.quantize(b, 8, axis=0)).all()


@pytest.mark.parametrize("left", ["rows", "asymmetric", "groups", "uint8"])
def test_every_kind_of_left_operand(isa, left, rng):
    """Sums of the right codes, and segments of K, are those of a packed array."""
    x = rng.standard_normal((9, 300)).astype(np.float32)
    a = {
        "rows": x,
        "asymmetric": fq.quantize(x, 8, axis=-1, scheme="asymmetric"),
        "groups": fq.quantize(x, 8, axis=-1, group_size=50, scheme="affine"),
        "uint8": rng.integers(0, 256, x.shape).astype(np.uint8),
    }[left]
    for order in "CF":
        b = np.array(rng.standard_normal((300, 40)), np.float32, order=order)
        assert (fq.matmul(a, b) == fq.matmul(a, fq.quantize(b, 8, axis=0))).all()
