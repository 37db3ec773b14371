"""What a call costs before it has done anything: 8x8 and 64x64 matrices, where the work is next to nothing."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from contest import FLOAT32, FLOATS, INTEGERS, NUMPY_INTEGERS, WEIGHTS, enter, problem

CONTENDERS = (FLOAT32, NUMPY_INTEGERS, WEIGHTS[8], WEIGHTS[3], FLOATS, INTEGERS)
SIDES = (8, 64)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda c: c.name.replace(" ", "_"))
@pytest.mark.parametrize("side", SIDES)
def bench_product(benchmark, side, contender):
    task = problem(side, side, side)
    run = contender.prepare(task)
    contender.check(task, run())
    enter(benchmark, f"call: product {side}x{side}", contender.name, baseline=contender is FLOAT32)
    benchmark(run)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("contender", ["NumPy expression", "fastq"])
def bench_quantize(benchmark, side, contender):
    x = problem(side, side, side).x

    def expression():
        scale = np.abs(x).max(axis=0, keepdims=True) / np.float32(127)
        return np.clip(np.rint(x / scale), -127, 127).astype(np.int8)

    enter(benchmark, f"call: quantize {side}x{side}", contender, baseline=contender != "fastq")
    if contender == "fastq":
        assert (fq.quantize(x, axis=0).codes == expression()).all()
        benchmark(fq.quantize, x, axis=0)
    else:
        benchmark(expression)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("contender", ["NumPy expression", "fastq"])
def bench_dequantize(benchmark, side, contender):
    q = fq.quantize(problem(side, side, side).x, axis=0)
    codes, scale = q.codes, q.scale
    enter(benchmark, f"call: dequantize {side}x{side}", contender, baseline=contender != "fastq")
    if contender == "fastq":
        assert (q.dequantize() == codes * scale).all()
        benchmark(q.dequantize)
    else:
        benchmark(lambda: codes * scale)
