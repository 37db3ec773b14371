"""Products of many shapes: float32 np.matmul against fastq on every instruction set of this CPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import pytest

from contest import (
    FLOAT32,
    FLOATS,
    INTEGERS,
    NUMPY_INTEGERS,
    WEIGHTS,
    Contender,
    enter,
    native_isas,
    problem,
    setting,
)

WIDE = [(m, 4096, 4096) for m in (1, 16, 128, 1024)]
CUBES = [(n, n, n) for n in (64, 512, 1024, 2048)]
ONE_THREAD = [(1, 4096, 4096), (16, 4096, 4096), (1024, 1024, 1024)]
QUICK = [(1, 1024, 1024), (16, 1024, 1024), (64, 64, 64), (256, 256, 256)]
QUICK_ONE_THREAD = QUICK[-1:]

SLOW = 2 * 512**3  # operations: NumPy's integers and portable kernels get no more


class Case(NamedTuple):
    """A contender on a shape."""

    shape: tuple[int, int, int]
    contender: Contender
    isa: str | None  # None: not fastq
    threads: int | None  # None: all

    def __str__(self) -> str:
        parts = ("x".join(map(str, self.shape)), self.contender.name, self.isa, self.threads and "one thread")
        return "-".join(part.replace(" ", "_") for part in parts if part)


def _all_threads(shape):
    m, k, n = shape
    small = 2 * m * k * n <= SLOW
    yield Case(shape, FLOAT32, None, None)
    if small:
        yield Case(shape, NUMPY_INTEGERS, None, None)
    for number, isa in enumerate(native_isas()):
        if isa != "portable" or small:
            some = (WEIGHTS[8], WEIGHTS[3], INTEGERS)
            for contender in (*WEIGHTS.values(), FLOATS, INTEGERS) if number == 0 else some:
                yield Case(shape, contender, isa, None)


def _one_thread(shape):
    yield Case(shape, FLOAT32, None, 1)
    for bits in (8, 3):
        yield Case(shape, WEIGHTS[bits], native_isas()[0], 1)


def pytest_generate_tests(metafunc):
    quick = metafunc.config.getoption("quick")
    cases = []
    for shape in QUICK if quick else WIDE + CUBES:
        cases += _all_threads(shape)
        if shape in (QUICK_ONE_THREAD if quick else ONE_THREAD):
            cases += _one_thread(shape)
    metafunc.parametrize("case", cases, ids=str)


def bench_matmul(benchmark, case):
    task = problem(*case.shape)
    group = f"{task}, one thread" if case.threads else str(task)
    contender = case.contender
    enter(
        benchmark,
        group,
        contender.name,
        isa=case.isa,
        operations=task.operations,
        baseline=contender is FLOAT32,
    )
    with _blas_threads(case), setting(case.isa, case.threads):
        run = contender.prepare(task)
        answer = run()
        contender.check(task, answer)
        if contender.fastq:
            task.check_same_bits(contender.name, answer)
        benchmark(run)


def _blas_threads(case):
    if case.contender.fastq or not case.threads:
        return nullcontext()
    return pytest.importorskip("threadpoolctl").threadpool_limits(case.threads, user_api="blas")
