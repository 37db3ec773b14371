"""``pytest benchmarks --shape MxKxN``, as people call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *options]
    # Benchmarks are switched off in what the first of several workers starts.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_shape_of_ones_own():
    """Alone, and its report at the end: without the figures, of which it has none."""
    done = run("benchmarks/bench_matmul.py", "benchmarks/bench_isas.py", "--quick", "--shape", "2x32x16", "-k", "bench")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    groups = [line.split("**")[1] for line in done.stdout.splitlines() if line.startswith("| **")]
    assert sorted(groups) == ["2x32x16", "2x32x16, one thread"]
    assert "| int8 weights, " in done.stdout
    assert "## Figures" not in done.stdout
    assert "not measured" not in done.stdout


def test_a_wrong_shape_is_answered_in_a_line():
    done = run("benchmarks/bench_matmul.py", "--shape", "2x32")
    assert done.returncode == 4
    assert "a shape must be MxKxN, three positive integers" in done.stderr
    assert "Traceback" not in done.stderr
