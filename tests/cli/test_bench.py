"""``fastq bench``: arguments, what is printed, the file that is kept. What is measured: tests/bench."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from fastq.bench import folder, products
from fastq.bench.result import BenchResult
from fastq.cli.main import main
from fastq.machine import pool
from tests.bench.made import MACHINE, numpy, ours, result


@pytest.fixture
def measured(monkeypatch):
    """A function that has the command find a result that nobody measured; returns what it is asked for."""

    def measured(found):
        asked = []

        def bench(shapes, wanted, began, told):
            asked.append((list(map(str, shapes)), wanted))
            began(found.machine)
            for rows in found.by_shape().values():
                told(rows, found.notes)
            return found

        monkeypatch.setattr(products, "bench", bench)
        return asked

    return measured


def test_what_is_printed(measured, capsys):
    asked = measured(result())
    assert main(["bench", "8x16x32", "--bits", "8"]) == 0
    ((shapes, wanted),) = asked
    assert (shapes, wanted) == (["8x16x32"], products.Wanted(bits=[8]))
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "A CPU (R); avx2; 2 threads; BLAS openblas; fastq 1",
        "",
        "8x16x32",
        "                   best, ms  median, ms  times faster  by medians  of the nearer roof  SQNR, dB",
        "float32 np.matmul      10.0        10.0             1                                     130.0",
        "int8 weights           2.00        2.00          5.00        5.00         50% compute      39.5",
    ]


def test_a_busy_machine(measured, capsys):
    """The word stands on top, and a mark at each figure."""
    busy = MACHINE.__class__(**{**vars(MACHINE), "busy": "load 22 on 2 cores"})
    measured(result(numpy(), ours(busy="load 22 on 2 cores"), machine=busy))
    assert main(["bench", "8x16x32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "BUSY: load 22 on 2 cores; figures with a ? say little"
    assert lines[-1].split()[4:] == ["5.00?", "5.00?", "50%?", "compute", "39.5"]


def test_a_machine_that_becomes_busy(measured, capsys):
    found = result(numpy(), ours(busy="load 22 on 2 cores"))
    measured(BenchResult(found.machine, found.rows, notes=("the machine became busy: 1 of 2 figures are marked",)))
    assert main(["bench", "8x16x32"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "BUSY: the machine became busy: 1 of 2 figures are marked"


def test_what_is_asked_for(measured):
    asked = measured(result())
    options = ["--bits", "4", "3", "--group", "64", "--codes", "--threads", "1", "--seconds", "7.5"]
    assert main(["bench", "1x2x3", "4x5x6", *options]) == 0
    assert asked == [(["1x2x3", "4x5x6"], products.Wanted([4, 3], 64, True, 1, 7.5))]
    assert main(["bench"]) == 0
    assert asked[1] == (["1x4096x4096", "16x4096x4096", "1024x1024x1024"], products.Wanted())


def test_json_and_save(measured, capsys, tmp_path):
    found = result()
    measured(found)
    assert main(["bench", "8x16x32", "--json", "--save", str(tmp_path / "new")]) == 0
    captured = capsys.readouterr()
    assert BenchResult.of_json(captured.out) == found
    (path,) = (tmp_path / "new").iterdir()
    assert captured.err.splitlines() == ["8x16x32 done", f"written to {path}"]
    assert folder.load(path) == found


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["128x768"], r"argument MxKxN: a shape must be MxKxN, three positive integers .*; got '128x768'"),
        (["0x1x1"], r"argument MxKxN: a shape must be MxKxN, .*; got '0x1x1'"),
        (["1x1x1", "--bits", "9"], r"argument --bits: must be widths from 2 to 8; got '9'"),
        (["--bits", "8", "1x1x1"], r"argument --bits: .*; got '1x1x1'; shapes come before --bits"),
        (["1x1x1", "--group", "-3"], r"argument --group: must be a positive integer; got '-3'"),
        (["1x1x1", "--threads", "0"], r"argument --threads: must be a positive integer; got '0'"),
        (["1x1x1", "--seconds", "nan"], r"argument --seconds: must be a positive number of seconds; got 'nan'"),
        (["1x1x1", "--seconds", "soon"], r"argument --seconds: must be a positive number of seconds; got 'soon'"),
    ],
)
def test_wrong_arguments_are_answered_in_a_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *argv])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err)


def test_what_this_machine_does_not_have(capsys, monkeypatch):
    assert main(["bench", "9999999x9999999x9999999"]) == 1
    assert "takes about" in capsys.readouterr().err
    assert main(["bench", "1x1x1", "--threads", "100000"]) == 1
    err = capsys.readouterr().err
    assert (
        err
        == f"fastq: --threads must be at most {pool.num_threads()}, the cores that this process may use; got 100000\n"
    )
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert main(["bench", "1x1x1", "--threads", "1"]) == 1
    assert "pip install threadpoolctl" in capsys.readouterr().err


def test_a_whole_run(capsys, monkeypatch):
    """The smallest one that there is."""
    monkeypatch.setattr(products, "peers", list)
    monkeypatch.setattr(products, "LOOK", 0.0)
    monkeypatch.setattr(products.Roofs, "look", lambda roofs: roofs.known.update(peaks={}, bandwidth={}))
    assert main(["bench", "2x16x16", "--bits", "8", "--seconds", "0.1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["float32 np.matmul", "int8 weights"]


def test_its_arguments_need_nothing():
    """``fastq --help`` asks for them."""
    code = (
        "import sys, argparse, fastq; before = set(sys.modules); from fastq.cli import bench; "
        "bench.arguments(argparse.ArgumentParser()); "
        "print(*sorted(name for name in set(sys.modules) - before if name.startswith('fastq')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"fastq.cli{name}" for name in ("", ".bench", ".html", ".output")]
