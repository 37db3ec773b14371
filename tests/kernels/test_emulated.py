"""AMX, AVX512-VNNI and NEON on any CPU: tests of this and other rooms, in a process whose instructions are emulated.

``.ci/emulated`` runs more of NEON, and the instructions themselves.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from fastq.kernels.table import ISAS
from fastq.machine import arm
from tests import attack

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("file", "which", "least"),
    [
        ("kernels/test_matmul.py", "test_edges and amx and (3bit or 8bit)", 2),
        ("kernels/test_segments.py", "test_the_equation and amx", 27),
        ("engine/test_prepared.py", "(bring_themselves or not_aligned) and amx", 14),
        ("products/test_top_k.py", "(stable_sort or integers) and amx and not 150", 17),
        ("kernels/test_matmul.py", "test_edges and neon and (3bit or 8bit)", 12),
        ("kernels/test_segments.py", "test_the_equation and neon", 81),
        # Quantizing, where registers are few.
        ("kernels/test_symmetric.py", "test_rows_near_ties or at_the_ends or neon_dot", 60),
        *(
            pytest.param(file, which, least, marks=pytest.mark.exhaustive)
            for file, which, least in (
                ("kernels/test_matmul.py", "amx and (2bit or 5bit)", 36),
                ("kernels/test_segments.py", "amx", 142),
                ("products/test_activations.py", "test_every_instruction_set and amx", 16),
                ("kernels/test_segments.py", "neon_i8mm", 142),
                ("engine/test_roofline.py", "neon", 60),
                ("quant/test_quantize.py", "neon_dot", 400),
                ("kernels/test_same_bits.py", "test_quantized_times_quantized and (neon_dot or neon_i8mm)", 100),
            )
        ),
    ],
)
def test_on_any_cpu(file, which, least):
    if "neon" in which and arm.is_arm():
        pytest.skip("this CPU has NEON itself")
    plugins = ["-p", "no:xdist", "-p", f"tests.kernels.emulated{'_neon' * ('neon' in which)}"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"tests/{file}", "-k", which]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert int(passed[1]) >= least
    assert "skipped" not in done.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(("which", "isa"), [("x86", "amx"), *(("neon", isa) for isa in ISAS if "neon" in isa)])
def test_memory_that_is_not_theirs(which, isa, monkeypatch):
    """Kernels read and write what they were given, and nothing beside it."""
    if not attack.isas_of("guard"):
        pytest.skip("guard needs another system")
    monkeypatch.setenv("FASTQ_TEST_EMULATED", which)
    done = attack.run("guard", isa, range(40))
    assert "\n".join(map(str, done.found)) == ""
    assert done.count == 40
