"""A CPU with nothing above AVX2: float32 np.matmul and fastq, both held down to it in one process of their own.

OpenBLAS reads OPENBLAS_CORETYPE when NumPy is imported, hence the process. FASTQ_ISA chooses fastq's kernels, and the
NUMBA_ variables keep LLVM from using newer instructions in them. The contenders take turns, because a machine's clock
drifts; the report takes the blocks of one contender together.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contest import FLOAT32, FLOATS, WEIGHTS, Problem, enter
from fastq.kernels.table import ISAS
from fastq.machine import cpu

CONTENDERS = {contender.name: contender for contender in (FLOAT32, WEIGHTS[8], WEIGHTS[3], FLOATS)}
HASWELL = {
    "OPENBLAS_CORETYPE": "Haswell",
    "FASTQ_ISA": "avx2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",  # without it Numba adds what the host has
}
BLOCKS = 5


def _work(side):
    """The other process: check all contenders, then run one for each line that names it and answer with its name."""
    task = Problem(side, side, side)
    runs = {}
    for name, contender in CONTENDERS.items():
        runs[name] = contender.prepare(task)
        contender.check(task, runs[name]())
    for line in sys.stdin:
        runs[line.strip()]()
        print(line.strip(), flush=True)


@pytest.fixture(scope="module")
def process(request):
    if "avx2" not in cpu.available(ISAS):
        pytest.skip("this CPU has no AVX2")
    side = 256 if request.config.getoption("quick") else 1024
    root = str(Path(__file__).parent.parent)  # for tests.cases
    with subprocess.Popen(
        [sys.executable, __file__, str(side)],
        env={**os.environ, **HASWELL, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        yield worker, side
        worker.stdin.close()
    assert worker.returncode == 0


def pytest_generate_tests(metafunc):
    blocks = range(1 if metafunc.config.getoption("quick") else BLOCKS)
    metafunc.parametrize("block, contender", [(block, name) for block in blocks for name in CONTENDERS])


def bench_avx2(benchmark, process, block, contender, quick):
    worker, side = process

    def run():
        worker.stdin.write(contender + "\n")
        worker.stdin.flush()
        return worker.stdout.readline().strip()

    enter(
        benchmark,
        f"{side}x{side}x{side}, AVX2 only",
        contender,
        isa="avx2" if CONTENDERS[contender].fastq else None,
        operations=2 * side**3,
        baseline=contender == FLOAT32.name,
    )
    assert run() == contender
    benchmark.pedantic(run, rounds=3 if quick else 10)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
