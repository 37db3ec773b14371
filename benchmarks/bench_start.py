"""New processes: importing, and the first product with kernels to be compiled (cold) or in the cache (warm)."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from fastq.bench.rounds import Entry, Pace
from fastq.bench.run import NUMPY

OPERANDS = """
import numpy as np
rng = np.random.default_rng(0)
x, w = rng.standard_normal((2, 64, 64), dtype=np.float32)
"""
PRODUCT = """
import fastq as fq
y = x @ fq.quantize(w, axis=0)
assert fq.error(x @ w, y).sqnr_db > 32
"""
COLD = 3  # compilations: they take seconds


def _python(code, folder=None):
    own = {} if folder is None else {"FASTQ_CACHE_DIR": folder}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **own}, check=True, timeout=300)


def bench_start(contest, quick, tmp_path):
    folders = (str(tmp_path / str(number)) for number in range(1000))
    warm = str(tmp_path / "warm")
    _python(OPERANDS + PRODUCT, warm)
    contest(
        "start",
        [
            Entry(
                "NumPy: import and product", lambda: _python(OPERANDS + "x @ w"), {"baseline": True, "library": NUMPY}
            ),
            Entry("fastq: import", lambda: _python("import fastq")),
            Entry("fastq: import and product, warm", partial(_python, OPERANDS + PRODUCT, warm)),
            Entry(
                "fastq: import and product, cold",
                partial(_python, OPERANDS + PRODUCT),
                fresh=lambda: next(folders),
                rounds=1 if quick else COLD,
            ),
        ],
        own=Pace(rounds=2 if quick else 8, rest=0.0, seconds=0.0, least=1, dropped=0),
    )
