"""Codes of rows under their own scale, 64 at a time: near ties, at the ends, and beside the general code."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq


def near_ties(rng, rows, n, dtype, high):
    """Rows whose elements lie on ties of their scale and a few units in the last place beside them."""
    top = rng.uniform(0.1, 10, (rows, 1)).astype(dtype)
    scale = top / dtype(high)
    x = ((rng.integers(-high, high, (rows, n)) + dtype(0.5)) * scale).astype(dtype)
    for _ in range(3):
        x = np.where(rng.random(x.shape) < 0.5, x, np.nextafter(x, dtype(rng.choice([-np.inf, np.inf]))))
    x[:, rng.integers(n)] = top[:, 0]
    return np.clip(x, -top, top).astype(dtype)


def numpy_codes(x, high):
    scale = np.abs(x).max(axis=1, keepdims=True) / x.dtype.type(high)
    return np.clip(np.rint(x / scale), -high, high).astype(np.int8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("n", [63, 64, 65, 128, 200, 1000])
def test_rows_near_ties(n, bits, dtype, rng):
    high = 2 ** (bits - 1) - 1
    x = near_ties(rng, 50, n, dtype, high)
    assert (fq.quantize(x, bits, axis=-1).codes == numpy_codes(x, high)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 7, 8, 9, 16, 33])
def test_left_rows_near_ties(isa, m, dtype, rng):
    """Codes show in the product with the identity, whose only scale is 1 / 127."""
    for k in (64, 65, 130):
        x = near_ties(rng, m, k, dtype, 127)
        w = fq.quantize(np.eye(k, dtype=dtype), 8, axis=0)
        scale = np.abs(x).max(axis=1, keepdims=True) / dtype(127)
        exact = ((numpy_codes(x, 127).astype(np.int32) * 127).astype(dtype) * scale) * w.scale
        assert (x @ w == exact).all()


@pytest.mark.parametrize("factor", [1e-45, 1e-40, 2.0**-126, 2.0**-120, 1e30, 1e38 / 40])
def test_scales_at_the_ends(factor, rng):
    x = (rng.uniform(-100, 100, (9, 150)) * factor).astype(np.float32)
    with np.errstate(all="ignore"):
        q = fq.quantize(x, 8, axis=-1)
        expected = np.clip(np.rint(x / q.scale), -128, 127)
    assert (q.codes == expected).all()
