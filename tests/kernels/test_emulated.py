"""AMX and AVX512-VNNI on any CPU: tests of this and other rooms, in a process whose instructions are emulated."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVERYTHING = [
    "tests/kernels/test_matmul.py",
    "tests/kernels/test_segments.py",
    "tests/kernels/test_same_bits.py",
    "tests/engine/test_prepared.py",
    "tests/products/test_activations.py",
    "tests/products/test_epilogue.py",
    "tests/products/test_turned.py",
]


@pytest.mark.parametrize(
    ("files", "which", "least"),
    [
        (EVERYTHING[:1], "test_edges and amx and (3bit or 8bit)", 2),
        (EVERYTHING[1:2], "test_the_equation and amx", 27),
        (EVERYTHING[3:4], "(bring_themselves or not_aligned) and amx", 14),
        pytest.param(EVERYTHING, "amx or avx512vnni", 900, marks=pytest.mark.exhaustive),
    ],
    ids=["edges", "groups", "rows of tickets", "everything"],
)
def test_on_any_cpu(files, which, least):
    plugins = ["-p", "no:xdist", "-p", "tests.kernels.emulated"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *files, "-k", which]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert int(passed[1]) >= least
    assert "skipped" not in done.stdout
