"""A CPU with nothing above AVX2: float32 np.matmul and fastq, both held down to it in one process of their own.

OpenBLAS reads OPENBLAS_CORETYPE when NumPy is imported, hence the process. FASTQ_ISA chooses fastq's kernels, and the
NUMBA_ variables keep LLVM from using newer instructions in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fastq.bench.contest import MATMUL, TWO, WEIGHTS, enter
from fastq.bench.problem import Problem
from fastq.bench.rounds import Pace, hold
from fastq.kernels.table import ISAS
from fastq.machine import cpu

HASWELL = {
    "OPENBLAS_CORETYPE": "Haswell",
    "FASTQ_ISA": "avx2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",  # without it Numba adds what the host has
}


def _work(side, *pace):
    """The other process: hold the contest and print its rows."""
    task = Problem(side, side, side)
    entries, _ = enter(task, (MATMUL, WEIGHTS[8], WEIGHTS[3], TWO))
    print(json.dumps(hold(f"{task}, AVX2 only", entries, Pace(*pace))))


def bench_avx2(keep, pace, quick):
    if "avx2" not in cpu.available(ISAS):
        pytest.skip("this CPU has no AVX2")
    side = 256 if quick else 1024
    environment = {**os.environ, **HASWELL}

    def work():
        command = [sys.executable, __file__, json.dumps([side, *pace])]
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    keep("rows", work)


if __name__ == "__main__":
    _work(*json.loads(sys.argv[1]))
