"""New processes: importing, and the first product with kernels to be compiled (cold) or in the cache (warm)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from contest import enter

OPERANDS = """
import numpy as np
rng = np.random.default_rng(0)
x, w = rng.standard_normal((2, 64, 64), dtype=np.float32)
"""
NUMPY = OPERANDS + "y = x @ w"
FASTQ = (
    OPERANDS
    + """
import fastq as fq
y = x @ fq.quantize(w, axis=0)
assert fq.error(x @ w, y).sqnr_db > 32
"""
)


def _python(code, **environment):
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True, timeout=300)


def _rounds(quick):
    return 2 if quick else 10


@pytest.mark.parametrize("code", ["import numpy", "pass", "import fastq"])
def bench_import(benchmark, code, quick):
    enter(benchmark, "start: import", f"python -c '{code}'", baseline=code == "import numpy")
    benchmark.pedantic(_python, (code,), rounds=_rounds(quick), warmup_rounds=1)


@pytest.mark.parametrize("contender", ["NumPy", "fastq, warm", "fastq, cold"])
def bench_first_product(benchmark, contender, quick, tmp_path):
    enter(benchmark, "start: first product", contender, baseline=contender == "NumPy")
    folders = iter(range(1000))

    def fresh():
        return (FASTQ,), {"FASTQ_CACHE_DIR": str(tmp_path / str(next(folders)))}

    if contender == "NumPy":
        benchmark.pedantic(_python, (NUMPY,), rounds=_rounds(quick), warmup_rounds=1)
    elif contender == "fastq, warm":
        benchmark.pedantic(_python, *fresh(), rounds=_rounds(quick), warmup_rounds=1)
    else:
        benchmark.pedantic(_python, setup=fresh, rounds=1 if quick else 5)
