"""The instruction sets of this CPU against each other, and each against what it multiplies out of registers."""

from __future__ import annotations

import pytest

from fastq.bench.contest import INT8_CODES, WEIGHTS, enter, native_isas
from fastq.bench.problem import problem

SLOW = 2 * 512**3  # operations: portable kernels get no more


def _isas(task):
    return [isa for isa in native_isas() if isa != "portable" or task.operations <= SLOW]


@pytest.mark.parametrize("threads", [None, 1], ids=["all_threads", "one_thread"])
def bench_large(contest, quick, threads):
    """Both operands quantized before: the left one goes into tiles, the epilogue scales the result."""
    task = problem(*([256 if quick else 2048] * 3))
    entries = [entry for isa in _isas(task) for entry in enter(task, (INT8_CODES,), isa=isa, threads=threads)[0]]
    contest(f"{task} by instruction set" + (", one thread" if threads else ""), entries, rounds=3)


@pytest.mark.parametrize("m", [1, 16])
def bench_few_rows(contest, quick, m):
    task = problem(m, *([1024 if quick else 4096] * 2))
    contenders = WEIGHTS[8], WEIGHTS[3]
    entries = [entry for isa in _isas(task) for entry in enter(task, contenders, isa=isa)[0]]
    contest(f"{task} by instruction set", entries, rounds=2)
