"""What a product does to its neighbours, and they to it: its memory, and a process that takes one core away."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastq.bench.contest import WEIGHTS, enter, fq_threads
from fastq.bench.problem import problem
from fastq.bench.rounds import FULL, Entry

HOG = "import os; os.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"

# The peak of resident memory can be set back, and then holds what came later: Linux alone has that.
MEMORY = """
import numpy as np
import fastq as fq

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

def peak(m, n):
    x = np.random.default_rng(0).standard_normal((m, n), dtype=np.float32)
    q = fq.quantize(np.random.default_rng(1).standard_normal((n, n), dtype=np.float32), axis=0).prepack()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    y = x @ q
    return status("VmHWM") - before - y.nbytes - x.size

peak(256, 256)  # loads the kernels
print(peak({side}, {side}))
"""


def bench_memory(keep, quick):
    """Beyond the operands, the result, and the left operand's copy in 8-bit codes."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a single call cannot be told on this system")
    code = MEMORY.format(side=1024 if quick else 4096)

    def work():
        found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return {"memory": int(found.stdout)}

    keep("measures", work)


@contextmanager
def _hog(within):
    """Another process on one of the cores, that never rests."""
    core = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", HOG.format(core=core)], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()  # it has begun
            with within():
                yield
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be tied to cores on this system")
@pytest.mark.parametrize("m", [1, 1024])
def bench_hog(contest, quick, m):
    if fq_threads() < 2:
        pytest.skip("one core only")
    side = (1024 if m == 1 else 256) if quick else 4096 if m == 1 else 1024
    task = problem(m if m == 1 else side, side, side)
    (one,), _ = enter(task, (WEIGHTS[8],), threads=1)
    (every,), _ = enter(task, (WEIGHTS[8],))
    entries = [
        one._replace(name="one thread"),
        every._replace(name="all threads"),
        Entry("all threads, one core taken", every.run, every.facts, lambda: _hog(every.within)),
    ]
    contest(f"{task} beside a busy process", entries, own=None if quick else FULL._replace(seconds=0.3))
