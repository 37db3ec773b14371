"""Float results are the same bits on every instruction set, and those of the written-down expression."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.engine import prepared
from tests.cases import NATIVE, instruction_set

SCHEMES = ("symmetric", "asymmetric", "affine")

pytestmark = pytest.mark.parametrize("isa", NATIVE, indirect=True)


def on_both(compute):
    """What the instruction set in use computes, and the reference."""
    result = compute()
    with instruction_set("reference"):
        return result, compute()


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "bits",
    [
        pytest.param(2, marks=pytest.mark.exhaustive),
        3,
        4,
        pytest.param(5, marks=pytest.mark.exhaustive),
        pytest.param(6, marks=pytest.mark.exhaustive),
        pytest.param(7, marks=pytest.mark.exhaustive),
        8,
    ],
)
@pytest.mark.parametrize("m", [1, 7, 33])
def test_float_times_quantized(isa, bits, m, dtype, rng):
    x, w = rng.standard_normal((m, 150)).astype(dtype), rng.standard_normal((150, 37)).astype(dtype)
    bias = rng.standard_normal(37).astype(dtype)
    for scheme in SCHEMES:
        for group in (None, 64, 48, 10):
            result, expected = on_both(
                lambda s=scheme, g=group: fq.matmul(x, fq.quantize(w, bits, axis=0, scheme=s, group_size=g), bias=bias)
            )
            assert expected.dtype == dtype
            assert (result == expected).all(), (scheme, group)


@pytest.mark.parametrize(
    ("dtype", "bits", "scheme", "group"),
    [
        pytest.param(dtype, *form, marks=pytest.mark.exhaustive if dtype == np.float64 and form[0] == 4 else [])
        for dtype in (np.float16, np.float32, np.float64)
        for form in ((8, "symmetric", None), (3, "symmetric", 48), (4, "asymmetric", 64))
    ],
)
@pytest.mark.parametrize("m", [1, 8, 33])
def test_float_times_balanced(isa, m, dtype, bits, scheme, group, rng):
    x, w = rng.standard_normal((m, 150)).astype(dtype), rng.standard_normal((150, 37)).astype(np.float32)
    x[-1] *= dtype(1e-5 if dtype == np.float16 else 1e-40 if dtype == np.float32 else 1e-310)  # subnormal numbers
    balance = np.exp(rng.standard_normal(150)).astype(np.float32)
    result, expected = on_both(
        lambda: x @ fq.quantize(w, bits, axis=0, scheme=scheme, group_size=group, balance=balance)
    )
    assert expected.any(axis=1).all()
    assert (result == expected).all()


@pytest.mark.parametrize("left", SCHEMES)
@pytest.mark.parametrize("right", SCHEMES)
@pytest.mark.parametrize("groups", [(None, None), (64, None), (None, 32), (32, 64), (10, 10), (6, 20)])
def test_quantized_times_quantized(isa, left, right, groups, rng):
    x, w = rng.standard_normal((19, 150)).astype(np.float32), rng.standard_normal((150, 21)).astype(np.float32)

    def compute():
        a = fq.quantize(x, 8, axis=1, scheme=left, group_size=groups[0])
        return a @ fq.quantize(w, 5, axis=0, scheme=right, group_size=groups[1])

    result, expected = on_both(compute)
    assert (result == expected).all()


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_and_codes(isa, method, scheme, dtype, rng):
    # The reference searches slowly: a smaller array, still of more than one vector and group along either axis.
    x = rng.standard_normal((20, 37) if method == "minmax" else (7, 21)).astype(dtype)
    for bits in (2, 3, 8):
        for axis, group in ((None, None), (0, None), (1, None), (1, 16), (0, 6)):
            result, expected = on_both(
                lambda b=bits, a=axis, g=group: fq.quantize(x, b, axis=a, group_size=g, scheme=scheme, method=method)
            )
            assert result.equals(expected), (bits, axis, group)


@pytest.mark.parametrize("bits", [3, 8])
def test_large_output_goes_past_the_cache(isa, bits, rng):
    """Outputs of several MiB are stored past the cache if they are aligned: into our own memory, and an odd frame."""
    x = rng.standard_normal((1500, 70)).astype(np.float32)
    w = rng.standard_normal((70, 1504)).astype(np.float32)
    frame = np.zeros((1500, 1505), np.float32)

    def compute():
        q = fq.quantize(w, bits, axis=0)
        own = x @ q
        assert own.nbytes >= prepared.STREAMED
        fq.matmul(x, q, out=frame[:, 1:])
        assert (frame[:, 1:] == own).all()
        assert (frame[:, 0] == 0).all()
        return own

    result, expected = on_both(compute)
    assert (result == expected).all()
