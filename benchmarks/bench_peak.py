"""How much of the machine a large product uses: one thread, against what it multiplies out of registers."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from contest import enter, equal, problem, setting
from fastq.engine.roofline import measurable, roofline

BITS = 8
UNITS = [unit for unit in measurable() if BITS in unit.bits and unit.name != "portable"]


@pytest.fixture(scope="module")
def roof():
    return roofline()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def bench_peak(benchmark, unit, roof, quick):
    """Both operands are quantized before: only rows go into tiles, and the epilogue scales the result."""
    task = problem(*([256 if quick else 2048] * 3))
    # With scales of 1 the float32 result is the integers themselves, rounded once.
    a, b = (fq.quantize(codes.astype(np.float32), BITS, scale=1.0) for codes in (task.a8, task.b8))
    b.prepack()
    enter(
        benchmark,
        f"share of the peak, {task}, one thread",
        "int8 @ int8 weights",
        isa=unit.isa,
        operations=task.operations,
        peak=roof.peaks[unit.name].one,
    )
    with setting(unit.isa, threads=1):
        equal(task.integer_product.astype(np.float32), a @ b)
        benchmark.pedantic(lambda: a @ b, rounds=3 if quick else 7, warmup_rounds=1)
