"""The command line, run in this process."""

import re
import runpy
import sys
from functools import partial

import pytest

import fastq as fq
from fastq.cli import demo, roofline
from fastq.cli.main import main
from fastq.engine.roofline import Rate, Roofline, measurable
from fastq.engine.roofline import roofline as measure
from fastq.machine import cpu


def test_config(capsys):
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}:" in out for name in ("CPU", "instruction set", "threads", "kernel cache", "versions"))


def test_roofline(capsys, monkeypatch):
    found = Roofline(2, {"fast": Rate(1234.4e9, 2e12), "slow": Rate(5e9, 9.6e9)}, Rate(12.34e9, 20e9))
    monkeypatch.setattr(roofline, "roofline", lambda: found)
    assert main(["roofline"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == cpu.cpu_name().split()
    assert lines[1][-4:] == lines[4][-4:] == ["1", "thread", "2", "threads"]
    assert lines[2:4] == [["fast", "1,234", "2,000"], ["slow", "5", "10"]]
    assert lines[5] == ["read", "from", "memory", "12.3", "20.0"]


def test_roofline_measures(capsys, monkeypatch):
    monkeypatch.setattr(roofline, "roofline", partial(measure, seconds=1e-4, nbytes=1 << 16))
    assert main(["roofline"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [row[0] for row in rows] == [*(unit.name for unit in measurable()), "read"]
    assert all(float(figure.replace(",", "")) > 0 for row in rows for figure in row[-2:])


@pytest.mark.exhaustive
def test_demo(capsys, monkeypatch):
    monkeypatch.setattr(demo, "PAUSE", 0)
    monkeypatch.setattr(demo, "BLOCK", 0.01)
    assert main(["demo", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("instruction set:") for line in lines) == 1
    for form in ("float32", "int8", "int3"):
        rows = [line.split() for line in lines if line.split()[:1] == [form]]
        assert len(rows) == 3  # the digits and two products
        assert float(rows[0][1]) > 90  # accuracy in percent
        assert all(float(row[-1]) > 0 for row in rows)  # speed-up
    assert any("1 x 512 times 512 x 512" in line for line in lines)


def test_demo_needs_scikit_learn(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == 'fastq: the demo needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it\n'


@pytest.mark.parametrize("command", ["config", "roofline", "warmup"])
@pytest.mark.parametrize("setting", ["FASTQ_ISA", "FASTQ_NUM_THREADS"])
def test_bad_setting(setting, command, capsys, monkeypatch):
    monkeypatch.setenv(setting, "abacus")
    assert main([command]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fastq: {setting} must be")
    assert "'abacus'" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["abacus"], "invalid choice: 'abacus'"),
        (["config", "--quick"], "unrecognized arguments: --quick"),
        (["warmup", "--bits", "9"], "argument --bits: invalid choice: 9"),
        (["warmup", "--bits"], "argument --bits: expected at least one argument"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"python -m fastq.*: .*; python -m fastq.* --help tells what there is\n", captured.err)
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
    assert all(command in out for command in ("config", "warmup", "roofline", "demo"))


def test_help_does_not_import_what_commands_need():
    import subprocess

    code = "import sys, fastq.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"numba", "llvmlite", "sklearn", "threadpoolctl"}


def test_python_m_fastq(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastq", "config"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("fastq", run_name="__main__")
    assert stop.value.code == 0
    assert "kernel cache:" in capsys.readouterr().out
