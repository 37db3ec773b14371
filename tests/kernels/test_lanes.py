"""Conversions of 16-bit floats, all of them, and activations against their definitions."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from fastq.kernels.epilogue import activations
from fastq.kernels.epilogue.outputs import ACTIVATIONS
from fastq.machine.jit import kernel
from fastq.machine.job import INT, job

ConvertJob = job("ConvertJob", "Convert n vectors of 16.", n=INT, source="u8*", target="u8*")
SIZES = {"from_float16": (2, 4), "from_bfloat16": (2, 4), "to_float16": (4, 2)}


def convert(name, values, dtype):
    """Run a conversion of fastq.kernels.floats over an array whose length is a multiple of 16."""

    def make():
        from llvmlite import ir

        from fastq.kernels import floats
        from fastq.machine.ir import F32, HOST, I16, I64, ir_function, kernel_function, load_vector, loop, store_vector

        size_in, size_out = SIZES[name]

        def emit(b, source, target, n):
            def one(i, _):
                vector = ir.VectorType(F32 if size_in == 4 else I16, 16)
                value = load_vector(b, b.gep(source, [b.mul(i, I64(16 * size_in))]), vector)
                store_vector(b, getattr(floats, name)(b, value), b.gep(target, [b.mul(i, I64(16 * size_out))]))
                return []

            loop(b, I64(0), n, 1, [], one)

        run = ir_function(f"test_{name}", ("u8*", "u8*", "int"), HOST, emit)

        @kernel_function
        def convert_kernel(job):
            run(job.source, job.target, job.n)

        return convert_kernel, ConvertJob

    result = np.empty(values.shape, dtype)
    kernel(f"test_{name}", make)(ConvertJob(n=values.size // 16, source=values.ctypes.data, target=result.ctypes.data))
    return result


def test_every_float16_is_read():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):  # ARM CPUs report signalling NaNs
        read, exact = convert("from_float16", values, np.float32), values.astype(np.float32)
    finite = np.isfinite(exact)
    assert (read[finite].view(np.uint32) == exact[finite].view(np.uint32)).all()
    assert np.isinf(read[~finite]).all()


def test_every_bfloat16_is_read():
    values = np.arange(2**16, dtype=np.uint16)
    read, exact = convert("from_bfloat16", values, np.float32), values.view(ml_dtypes.bfloat16).astype(np.float32)
    assert (read.view(np.uint32) == exact.view(np.uint32))[~np.isnan(exact)].all()
    assert (np.isnan(read) == np.isnan(exact)).all()


def test_float16_is_rounded_to_even():
    """Every float16, the middle between it and the next, and the float32 on either side of both."""
    grid = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (grid[:-1] + grid[1:]) / 2
    points = np.concatenate([grid, middle, [65504, 65519.99, 65520, 65536, 1e30, np.inf]]).astype(np.float32)
    values = np.concatenate([points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(np.inf))])
    values = np.concatenate([values, -values, np.full(-2 * values.size % 16, np.nan, np.float32)])
    written = convert("to_float16", values, np.float16)
    with np.errstate(over="ignore"):
        exact = values.astype(np.float16)
    assert (written.view(np.uint16) == exact.view(np.uint16))[~np.isnan(exact)].all()
    assert np.isnan(written[np.isnan(exact)]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_are_accurate(dtype):
    """Against the definitions in float64.

    A few roundings, of which those in the exponent, here and in math.erfc's argument, count x**2 / 2 times or twice
    that in the tail of gelu.
    """
    x = np.concatenate([np.linspace(-12, 12, 20001), np.geomspace(1e-30, 30, 999), -np.geomspace(1e-30, 30, 999)])
    x = x.astype(dtype)
    wide = x.astype(np.float64)
    normal = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    logistic = np.array([1 / (1 + math.exp(-v)) for v in wide])
    exact = {"relu": np.maximum(wide, 0), "gelu": wide * normal, "silu": wide * logistic}
    eps = np.finfo(dtype).eps
    fit = {np.float32: 1.1e-7, np.float64: 2.5e-15}[dtype]
    room = {"relu": 0 * wide, "gelu": fit + (4 + 2 * wide**2) * eps, "silu": (3 + abs(wide)) * eps}
    for name in ACTIVATIONS:
        got = activations.on_arrays(name, x)
        assert got.dtype == dtype
        assert (np.abs(got - exact[name]) <= room[name] * np.abs(exact[name]) + np.finfo(dtype).tiny * 1e5).all(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_at_the_ends(dtype):
    ends = np.array([np.inf, -np.inf, np.nan, 0, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    for name in ACTIVATIONS:
        got = activations.on_arrays(name, ends)
        np.testing.assert_array_equal(got, [np.inf, 0, np.nan, 0, np.finfo(dtype).max, 0])
