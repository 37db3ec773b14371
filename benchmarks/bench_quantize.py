"""Quantizing, dequantizing and packing a matrix, against the NumPy expressions that they equal bit for bit.

A pass over the data that computes next to nothing stands beside them as a roof.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

import fastq as fq
from contest import enter

AXES = {"by row": -1, "by column": 0, "whole": None}


@pytest.fixture
def x(quick):
    side = 1024 if quick else 4096
    return default_rng(5).standard_normal((side, side), dtype=np.float32)


def _size(x):
    return "x".join(map(str, x.shape))


def _expression(x, axis):
    scale = np.abs(x).max(axis=axis, keepdims=True) / np.float32(127)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


@pytest.mark.parametrize("axis", AXES.values(), ids=[name.replace(" ", "_") for name in AXES])
@pytest.mark.parametrize("contender", ["NumPy expression", "fastq", "np.max"])
def bench_quantize(benchmark, x, axis, contender):
    where = next(name for name, number in AXES.items() if number == axis)
    enter(benchmark, f"quantize {where} {_size(x)}", contender, baseline=contender == "NumPy expression")
    if contender == "NumPy expression":
        benchmark(_expression, x, axis)
    elif contender == "np.max":
        benchmark(np.max, x)
    else:
        codes, scale = _expression(x, axis)
        q = fq.quantize(x, axis=axis)
        assert (q.codes == codes).all()
        assert (q.scale == scale).all()
        benchmark(fq.quantize, x, axis=axis)


@pytest.mark.parametrize("contender", ["NumPy expression", "fastq", "np.copy"])
def bench_dequantize(benchmark, x, contender):
    q = fq.quantize(x, axis=-1)
    codes, scale = q.codes.copy(), q.scale
    enter(benchmark, f"dequantize {_size(x)}", contender, baseline=contender == "NumPy expression")
    if contender == "NumPy expression":
        benchmark(lambda: codes * scale)
    elif contender == "np.copy":
        benchmark(np.copy, x)
    else:
        assert (q.dequantize() == codes * scale).all()
        benchmark(q.dequantize)


@pytest.mark.parametrize("contender", ["np.copy of the codes", "8 bits", "3 bits"])
def bench_pack(benchmark, x, contender, quick):
    """What the first ``x @ q`` does once: codes into tiles, in the width that they have."""
    enter(benchmark, f"pack {_size(x)}", contender, baseline=contender.startswith("np"))
    rounds = 3 if quick else 15
    if contender.startswith("np"):
        codes = fq.quantize(x, axis=0).codes
        benchmark.pedantic(np.copy, (codes,), rounds=rounds)
        return
    bits = int(contender.split()[0])
    codes = fq.quantize(x, bits=bits, axis=0).codes
    packed = fq.quantize(x, bits=bits, axis=0).prepack()
    assert (packed.codes == codes).all()
    assert packed.nbytes < x.size * bits / 8 * 1.01 + 8 * x.shape[1]

    def fresh():
        return (fq.quantize(x, bits=bits, axis=0),), {}

    benchmark.pedantic(fq.QArray.prepack, setup=fresh, rounds=rounds)
