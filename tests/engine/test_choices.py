"""Parameters chosen by array are those of the scalar functions."""

from __future__ import annotations

import numpy as np
import pytest

from fastq.engine.choices import parameters
from fastq.kernels import reference
from fastq.scheme import code_range

SCHEMES = ("symmetric", "asymmetric", "affine")


def extremes(dtype):
    """Pairs of all magnitudes, from the smallest subnormal number to the largest, and ordinary ones."""
    about = np.finfo(dtype)
    rng = np.random.default_rng(5)
    edges = [
        0,
        -0.0,
        about.smallest_subnormal,
        about.tiny,
        about.eps,
        1,
        127,
        about.max / 255,
        about.max / 2,
        about.max,
    ]
    factors = np.array([1, 1.5, 3, 63.5, 255.5], dtype)
    with np.errstate(all="ignore"):
        steps = np.multiply.outer(np.array(edges, dtype), factors).reshape(-1)
        spread = np.ldexp(rng.uniform(0.5, 1, 400), rng.integers(about.minexp - about.nmant, about.maxexp, 400))
        values = np.concatenate([steps, spread.astype(dtype), np.exp(rng.standard_normal(100)).astype(dtype)])
    values = np.unique(values[np.isfinite(values)])
    values = np.concatenate([-values, values]).astype(dtype)
    low, high = np.meshgrid(values, values)
    keep = low <= high
    return low[keep].reshape(1, -1), high[keep].reshape(1, -1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_those_of_the_scalar_functions(scheme, dtype):
    low, high = extremes(dtype)
    if scheme == "affine":
        with np.errstate(over="ignore"):
            keep = np.isfinite(high - low)  # others are an error before
        low, high = low[keep].reshape(1, -1), high[keep].reshape(1, -1)
    rng = np.random.default_rng(6)
    some = rng.choice(low.size, 20_000, replace=False)
    low, high = low[:, some], high[:, some]
    for bits in (2, 3, 8):
        limits, number = code_range(bits, scheme), SCHEMES.index(scheme)
        found = parameters(low, high, limits, number)
        wanted = reference.parameters(low, high, limits, number)
        for name, value, exact in zip(("scale", "zero", "offset"), found, wanted):
            value = np.broadcast_to(np.asarray(value, dtype), exact.shape)
            assert (value == exact).all(), (name, bits)
            if name == "scale":
                assert (value > 0).all()
                assert np.isfinite(value).all()
