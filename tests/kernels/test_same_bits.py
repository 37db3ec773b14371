"""Float results are the same bits on every instruction set, and those of the written-down expression."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.engine import prepared
from fastq.kernels.table import ISAS
from fastq.machine import cpu

SCHEMES = ("symmetric", "asymmetric", "affine")


def on_every_isa(compute):
    results = {}
    for isa in cpu.available(ISAS):
        cpu.force(isa)
        try:
            results[isa] = compute()
        finally:
            cpu.force(None)
    return results


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
def test_float_times_quantized(bits, m, dtype, rng):
    x, w = rng.standard_normal((m, 150)).astype(dtype), rng.standard_normal((150, 37)).astype(dtype)
    bias = rng.standard_normal(37).astype(dtype)
    for scheme in SCHEMES:
        for group in (None, 64, 48, 10):
            results = on_every_isa(
                lambda s=scheme, g=group: fq.matmul(x, fq.quantize(w, bits, axis=0, scheme=s, group_size=g), bias=bias)
            )
            reference = results.pop("reference")
            assert reference.dtype == dtype
            for isa, result in results.items():
                assert (result == reference).all(), (isa, scheme, group)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 8, 33])
def test_float_times_balanced(m, dtype, rng):
    x, w = rng.standard_normal((m, 150)).astype(dtype), rng.standard_normal((150, 37)).astype(np.float32)
    x[-1] *= dtype(1e-5 if dtype == np.float16 else 1e-40 if dtype == np.float32 else 1e-310)  # subnormal numbers
    balance = np.exp(rng.standard_normal(150)).astype(np.float32)
    for bits, scheme, group in ((8, "symmetric", None), (3, "symmetric", 48), (4, "asymmetric", 64)):
        results = on_every_isa(
            lambda b=bits, s=scheme, g=group: x @ fq.quantize(w, b, axis=0, scheme=s, group_size=g, balance=balance)
        )
        reference = results.pop("reference")
        assert reference.any(axis=1).all()
        for isa, result in results.items():
            assert (result == reference).all(), (isa, bits)


@pytest.mark.parametrize("left", SCHEMES)
@pytest.mark.parametrize("right", SCHEMES)
@pytest.mark.parametrize("groups", [(None, None), (64, None), (None, 32), (32, 64), (10, 10), (6, 20)])
def test_quantized_times_quantized(left, right, groups, rng):
    x, w = rng.standard_normal((19, 150)).astype(np.float32), rng.standard_normal((150, 21)).astype(np.float32)

    def compute():
        a = fq.quantize(x, 8, axis=1, scheme=left, group_size=groups[0])
        return a @ fq.quantize(w, 5, axis=0, scheme=right, group_size=groups[1])

    results = on_every_isa(compute)
    reference = results.pop("reference")
    for isa, result in results.items():
        assert (result == reference).all(), isa


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_and_codes(method, scheme, dtype, rng):
    x = rng.standard_normal((20, 37)).astype(dtype)
    for bits in (2, 3, 8):
        for axis, group in ((None, None), (0, None), (1, None), (1, 16), (0, 6)):
            results = on_every_isa(
                lambda b=bits, a=axis, g=group: fq.quantize(x, b, axis=a, group_size=g, scheme=scheme, method=method)
            )
            reference = results.pop("reference")
            for isa, result in results.items():
                assert result.equals(reference), (isa, bits, axis, group)


@pytest.mark.parametrize("bits", [3, 8])
def test_large_output_goes_past_the_cache(bits, rng):
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

    results = on_every_isa(compute)
    reference = results.pop("reference")
    for isa, result in results.items():
        assert (result == reference).all(), isa
