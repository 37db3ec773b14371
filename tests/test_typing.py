"""Type checkers read what a user writes, and say what ``tests/typing/user.py`` expects, no more and no less."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastq

USER = Path(__file__).parent / "typing" / "user.py"
MYPY = ("mypy", "--strict", "--no-error-summary", "--cache-dir")
PYRIGHT = ("pyright", "--pythonpath", sys.executable)


def missing(program):
    """Why a checker cannot run here."""
    if importlib.util.find_spec(program) is None:
        return f"{program} is not installed"
    if program == "pyright" and shutil.which("node") is None:
        return "pyright needs Node.js, and would fetch it"
    return None


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=lambda command: command[0])
def test_types_are_what_users_expect(command, tmp_path):
    if reason := missing(command[0]):
        pytest.skip(reason)
    text = USER.read_text() + "assert_type(x @ q, fq.QArray)  # wrong: a checker that says nothing reads nothing\n"
    (tmp_path / "user.py").write_text(text)
    options = [str(tmp_path / "cache")] if command is MYPY else []
    run = [sys.executable, "-m", *command, *options, "user.py"]
    told = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in told.stdout.splitlines() if "error:" in line or "error -" in line or " - error" in line]
    assert len(found) == 1, told.stdout + told.stderr
    assert f"user.py:{len(text.splitlines())}" in found[0]


def test_the_package_says_that_it_is_typed():
    assert (Path(fastq.__file__).parent / "py.typed").is_file()
