"""Compiling, keeping and loading kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastq.machine import jit
from fastq.machine.job import INT, job

EchoJob = job("EchoJob", "For tests.", a=INT, result=INT)

PRODUCT = """
import sys
import numpy as np
import fastq as fq
from fastq.machine import jit
x = np.arange(64, dtype=np.float32).reshape(4, 16)
q = fq.quantize(x.T, axis=0)
y = x @ q
assert fq.error(x @ x.T, y).sqnr_db > 35
print(len(jit.compiled_names()), "numba" in sys.modules, len(jit.loaded_names()))
"""


def run_product(**environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRODUCT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    compiled, numba, loaded = done.stdout.split()
    return int(compiled), numba == "True", int(loaded)


def test_a_second_process_compiles_nothing_and_does_not_import_numba(tmp_path):
    compiled, numba, loaded = run_product(FASTQ_CACHE_DIR=str(tmp_path))
    assert compiled == loaded > 0
    assert numba
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (0, False, loaded)


def test_corrupt_kernels_are_compiled_again(tmp_path):
    _, _, loaded = run_product(FASTQ_CACHE_DIR=str(tmp_path))
    files = list(tmp_path.rglob("*.kernel"))
    assert len(files) == loaded
    for file in files:
        file.write_bytes(file.read_bytes()[:-5])
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (loaded, True, loaded)
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path)) == (0, False, loaded)


def test_without_a_cache_everything_works(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("off", str(tmp_path / "file")):
        compiled, _, loaded = run_product(FASTQ_CACHE_DIR=folder)
        assert compiled == loaded


def test_processes_share_a_folder(tmp_path):
    """Four processes that compile at once all come to the right result, and leave whole files."""
    command = [sys.executable, "-W", "error", "-c", PRODUCT]
    environment = {**os.environ, "FASTQ_CACHE_DIR": str(tmp_path)}
    many = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(120) for process in many] == [0] * 4
    assert run_product(FASTQ_CACHE_DIR=str(tmp_path))[0] == 0


def test_a_kernel_reads_its_job_and_reports():
    def make():
        from fastq.machine.dialect import kernel_function, report

        @kernel_function
        def echo(job):
            report(job, job.a * 2)

        return echo, EchoJob

    todo = EchoJob(a=21)
    jit.kernel("test_echo", make)(todo)
    assert todo.status == 42


def test_a_kernel_may_not_call_what_the_linker_might_not_find():
    def make():
        import numpy as np

        from fastq.machine.dialect import kernel_function, report

        @kernel_function
        def allocates(job):
            report(job, np.zeros(job.a).size)

        return allocates, EchoJob

    with pytest.raises(RuntimeError, match=r"allocates calls .*NRT.*not allowed"):
        jit.kernel("test_allocates", make)
