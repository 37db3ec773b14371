"""How a run of a command begins and ends: exit codes, messages in a line, closed pipes, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastq as fq
from fastq.cli import info
from fastq.cli.main import main

INFO = [sys.executable, "-m", "fastq", "info", "--json"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def replaced(monkeypatch, work):
    """The command info does something else."""
    monkeypatch.setattr(info, "run", work)
    return main(["info"])


def raising(error):
    def run(given):
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [OSError("disk\nfull"), ValueError("disk full"), fq.IsaError("disk full"), MemoryError("disk full")],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_is_told_in_a_line(error, monkeypatch, capsys):
    assert replaced(monkeypatch, raising(error)) == 1
    assert capsys.readouterr() == ("", "fastq: disk full\n")


def test_an_error_without_a_message(monkeypatch, capsys):
    assert replaced(monkeypatch, raising(MemoryError())) == 1
    assert capsys.readouterr().err == "fastq: MemoryError\n"


def test_a_fault_of_fastq_keeps_its_traceback(monkeypatch):
    with pytest.raises(KeyError):
        replaced(monkeypatch, raising(KeyError("lost")))


def test_an_interrupt_ends_in_a_line(monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells have ignored in the background
    try:
        assert replaced(monkeypatch, lambda given: signal.raise_signal(signal.SIGINT)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "fastq: interrupted\n")


def test_warnings_are_notes(monkeypatch, capsys):
    def run(given):
        warnings.simplefilter("always")
        warnings.warn("few rows", UserWarning, stacklevel=1)

    shown = warnings.showwarning
    assert replaced(monkeypatch, run) == 0
    assert capsys.readouterr() == ("", "fastq: warning: few rows\n")
    assert warnings.showwarning is shown


def test_a_process_without_a_terminal():
    """By the program's entry point and by its name; nothing but the document is on standard output."""
    from importlib.metadata import entry_points

    (point,) = entry_points(group="console_scripts", name="fastq")
    assert point.load() is main
    done = subprocess.run(INFO, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["versions"]["fastq"] == fq.__version__


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal for a pipe")
def test_a_closed_pipe_ends_silently(tmp_path):
    fq.save(tmp_path / "many", {f"array {i:05}": np.zeros(1) for i in range(5000)})  # more lines than a pipe holds
    command = [sys.executable, "-m", "fastq", "inspect", str(tmp_path / "many")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=BUFFERED) as process:
        assert process.stdout.readline().startswith("name")
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr.read()) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal for a pipe")
def test_a_pipe_that_nobody_reads():
    """The little that is printed is written when the process ends."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(INFO, stdout=write, stderr=subprocess.PIPE, env=BUFFERED, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_a_terminal_cannot_show(tmp_path):
    """Names of arrays in an encoding that lacks their letters, and signs that would steer a terminal."""
    fq.save(tmp_path / "żółw", {"wagi.żółw": np.zeros(2), "a\x1b[2J": np.zeros(1)})
    command = [sys.executable, "-m", "fastq", "inspect", str(tmp_path / "żółw")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"wagi.\\u017c\\xf3\\u0142w" in done.stdout
    assert b"a\\x1b[2J" in done.stdout
    assert b"\x1b" not in done.stdout
