"""What is told of the machine, and the kernels that are removed."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

import fastq as fq
from fastq.cli import info
from fastq.cli.main import main
from fastq.kernels.table import ISAS
from fastq.machine import cache, cores, cpu, jit, pool

from .keys import undocumented


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A cache folder with kernels of this version, of another, and a folder that somebody else uses."""
    monkeypatch.setenv("FASTQ_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    own, other, foreign = jit.own_folder(), tmp_path / ("a" * 24), tmp_path / ("b" * 24)
    for folder, count in ((own, 2), (other, 3), (foreign, 1)):
        kept = cache.Cache(folder, "0" * 16)
        for number in range(count):
            kept.store(f"kernel{number}", "symbol", b"code")
    (foreign / "thesis.txt").write_text("all there is")
    (tmp_path / "notes").mkdir()
    return own, other, foreign


def test_info_in_words(capsys, isa):
    assert main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    told = {name: value.strip() for name, value in lines.items()}
    assert told["CPU"] == cpu.cpu_name()
    assert told["instruction set"] == isa
    assert told["this CPU has"] == ", ".join(cpu.available(ISAS))
    assert told["threads"] == f"{pool.num_threads()} of {cores.available_cpus()} cores"
    assert told["kernel cache"] == str(jit.own_folder())
    assert f"fastq {fq.__version__}, python {platform.python_version()}, numpy " in told["versions"]


def test_info_for_programs(capsys, kernels, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (cores.available_cpus() * 0.25 + 0.01, 0, 0), raising=False)
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert undocumented("info", told) == set()
    assert told.keys() == {"cpu", "system", "instruction_sets", "threads", "cache", "versions", "load"}
    assert told["instruction_sets"]["available"] == list(cpu.available(ISAS))
    own, other, foreign = kernels
    sizes = {folder: sum(path.stat().st_size for path in folder.glob("*.kernel")) for folder in kernels}
    assert told["cache"] == {
        "folder": str(own),
        "nbytes": sizes[own],
        "kernels": 2,
        "others": [{"folder": str(folder), "nbytes": sizes[folder]} for folder in (other, foreign)],
    }
    assert told["versions"].keys() == {"fastq", "python", "numpy", "numba", "llvmlite"}
    assert told["load"]["busy"] is True


def test_an_idle_machine(capsys, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (cores.available_cpus() * 0.25 - 0.01, 0, 0), raising=False)
    assert main(["info"]) == 0
    assert "idle enough" in capsys.readouterr().out


def test_a_system_without_a_load(capsys, monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert info.facts()["load"] == {"average": None, "cores": cores.available_cpus(), "busy": False}
    assert main(["info"]) == 0
    assert "load:            not known here" in capsys.readouterr().out


def test_looking_makes_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    assert main(["info"]) == 0
    assert "kernels:         0, 0 bytes" in capsys.readouterr().out
    assert main(["info", "--clear"]) == 0
    assert capsys.readouterr().out == "there was nothing to remove\n"
    assert not (tmp_path / "cache").exists()


def test_no_cache(capsys, monkeypatch):
    monkeypatch.setenv("FASTQ_CACHE_DIR", "off")
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"]["folder"] is None
    assert main(["info"]) == 0
    assert "kernel cache:    none (" in capsys.readouterr().out


def test_clear_removes_kernels_alone(capsys, kernels):
    own, other, foreign = kernels
    assert main(["info", "--clear"]) == 0
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines[0] == f"left {foreign}: others can write to it, or it holds other files, too"
    assert [line.split(":")[0] for line in lines[1:]] == sorted(f"removed {folder}" for folder in (own, other))
    assert all("bytes" in line for line in lines[1:])
    assert sorted(own.parent.iterdir()) == sorted([foreign, own.parent / "notes"])
    assert len(list(foreign.iterdir())) == 3  # the kernel, the marker and the text


def test_clear_for_programs(capsys, kernels):
    assert main(["info", "--clear", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert undocumented("info", told) == set()
    assert {Path(one["folder"]) for one in told["removed"]} == set(kernels[:2])
    assert all(one["nbytes"] > 0 for one in told["removed"])
    assert told["left"] == [str(kernels[2])]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_clear_follows_no_link(capsys, kernels, tmp_path):
    linked = tmp_path / ("c" * 24)
    linked.symlink_to(kernels[1])
    before = sorted(kernels[1].iterdir())
    assert not cache.remove(linked)
    assert sorted(kernels[1].iterdir()) == before
