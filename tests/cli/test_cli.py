"""The command line, run in this process."""

import json
import re
import runpy
import subprocess
import sys
from functools import partial

import pytest

import fastq as fq
from fastq.cli import trial
from fastq.cli.main import COMMANDS, main
from fastq.engine.roofline import Rate, Roofline, measurable
from fastq.engine.roofline import roofline as measure
from fastq.machine import cpu

from .keys import undocumented


def test_roofline(capsys, monkeypatch):
    found = Roofline(2, {"fast": Rate(1234.4e9, 2e12), "slow": Rate(5e9, 9.6e9)}, Rate(12.34e9, 20e9))
    monkeypatch.setattr("fastq.engine.roofline.roofline", lambda: found)
    assert main(["roofline"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == cpu.cpu_name().split()
    assert lines[1][-4:] == lines[4][-4:] == ["1", "thread", "2", "threads"]
    assert lines[2:4] == [["fast", "1,234", "2,000"], ["slow", "5", "10"]]
    assert lines[5] == ["read", "from", "memory", "12.3", "20.0"]


def test_roofline_for_programs(capsys, monkeypatch):
    found = Roofline(2, {"fast": Rate(1e9, 2e9)}, Rate(3e9, 4e9))
    monkeypatch.setattr("fastq.engine.roofline.roofline", lambda: found)
    assert main(["roofline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert undocumented("roofline", told) == set()
    assert told == {
        "cpu": cpu.cpu_name(),
        "threads": 2,
        "operations_per_second": {"fast": {"one": 1e9, "all": 2e9}},
        "bytes_per_second": {"one": 3e9, "all": 4e9},
    }


def test_roofline_measures(capsys, monkeypatch):
    monkeypatch.setattr("fastq.engine.roofline.roofline", partial(measure, seconds=1e-4, nbytes=1 << 16))
    assert main(["roofline"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [row[0] for row in rows] == [*(unit.name for unit in measurable()), "read"]
    assert all(float(figure.replace(",", "")) > 0 for row in rows for figure in row[-2:])


@pytest.mark.exhaustive
def test_demo(capsys, monkeypatch):
    monkeypatch.setattr(trial, "PAUSE", 0)
    monkeypatch.setattr(trial, "BLOCK", 0.01)
    assert main(["demo", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("instruction set:") for line in lines) == 1
    for form in ("float32", "int8", "int3"):
        rows = [line.split() for line in lines if line.split()[:1] == [form]]
        assert len(rows) == 3  # two products, then the digits
        assert float(rows[2][1]) > 90  # accuracy in percent
        assert all(float(row[-1]) > 0 for row in rows)  # speed-up
    assert any("1 x 512 times 512 x 512" in line for line in lines)


def test_demo_for_programs(capsys, monkeypatch):
    monkeypatch.setattr(trial, "PAUSE", 0)
    monkeypatch.setattr(trial, "BLOCK", 0.01)
    assert main(["demo", "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert undocumented("demo", {**told, "machine": None}) == set()
    assert told.keys() == {"machine", "blas", "products", "digits"}
    assert [(one["m"], one["k"], one["n"]) for one in told["products"]] == [(256, 256, 256), (1, 512, 512)]
    for forms in (*(one["forms"] for one in told["products"]), told["digits"]["forms"]):
        assert [form["weights"] for form in forms] == ["float32", "int8", "int3"]
        keys = {"nbytes", "sqnr_db", "cosine", "quantize_seconds", "first_seconds", "later_seconds", "speed_up"}
        assert all(form.keys() >= keys for form in forms)
        assert forms[1]["sqnr_db"] > forms[2]["sqnr_db"] > 5
    assert all(form["accuracy"] > 90 for form in told["digits"]["forms"])


def test_demo_needs_scikit_learn(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == 'fastq: the demo needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it\n'


@pytest.mark.parametrize("command", ["info", "roofline", "warmup"])
@pytest.mark.parametrize("setting", ["FASTQ_ISA", "FASTQ_NUM_THREADS"])
def test_bad_setting(setting, command, capsys, monkeypatch):
    monkeypatch.setenv(setting, "abacus")
    assert main([command, "--json"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fastq: {setting} must be")
    assert "'abacus'" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["abacus"], "invalid choice: 'abacus'"),
        (["info", "--quick"], "unrecognized arguments: --quick"),
        (["info", "--js"], "unrecognized arguments: --js"),  # no abbreviations, which new arguments would break
        (["warmup", "--bits", "9"], "argument --bits: it must be from 2 to 8, got '9'"),
        (["warmup", "--bits"], "argument --bits: expected at least one argument"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"fastq: error: .*; see fastq.* --help\n", captured.err)
    assert message in captured.err


def test_alone_it_prints_help(capsys, monkeypatch):
    monkeypatch.setenv("FASTQ_ISA", "abacus")  # whatever else is wrong
    assert main([]) == 0
    alone = capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert (alone.out, alone.err) == (capsys.readouterr().out, "")


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastq {fq.__version__}\n"


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(f"    {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: fastq {command} ")
    assert "--json" in out
    assert "``" not in out


def test_help_imports_no_numpy():
    """Nor anything else that would take long; of commands only the one that is asked for, and its work later."""
    code = "import sys, fastq.cli.main as m\ntry: m.main([{}])\nexcept SystemExit: print(*sys.modules)"
    for arguments in ("'--help'", *(f"'{command}', '--help'" for command in COMMANDS)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        commands = {command for command in COMMANDS if f"fastq.cli.{command}" in loaded}
        assert commands == {command for command in COMMANDS if command in arguments}
        assert not loaded & {"numpy", "numba", "llvmlite", "rich", "sklearn"}


def test_python_m_fastq(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastq", "info"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("fastq", run_name="__main__")
    assert stop.value.code == 0
    assert "kernel cache:" in capsys.readouterr().out
