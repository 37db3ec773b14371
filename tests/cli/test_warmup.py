"""Compiling ahead: it is complete, and says where and whether kernels are kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq.cli import warmup
from fastq.cli.main import main
from fastq.kernels import table
from fastq.machine import cores, cpu, jit, pool

from .keys import undocumented

SESSION = """
import numpy as np, fastq as fq
from fastq.machine import cores, jit, pool

cores.available_cpus = lambda: 2
rng = np.random.default_rng(0)
for kind in ("f4", "f8"):
    x, w = rng.standard_normal((700, 512)).astype(kind), rng.standard_normal((512, 600)).astype(kind)
    for axis in (None, 0, -1):
        for scheme in ("symmetric", "asymmetric", "affine"):
            fq.quantize(w, BITS, axis=axis, scheme=scheme).dequantize()
    for form in ({}, {"group_size": 64}, {"method": "mse"}, {"scheme": "asymmetric"}):
        q = fq.quantize(w, BITS, axis=0, **form)
        for rows in (1, 5, 700):
            x[:rows] @ q
        q.T @ x[0], q.T @ x.T[:, :9], q.codes, q[:, [3, 5]]
    a = fq.quantize(x, axis=-1)
    a @ q, fq.matmul(x, w, bits=BITS, bias=1)
if BITS == 8:
    q.T @ x.T  # whatever q is
    for a8, b8 in ((np.int8, np.int8), (np.uint8, np.int8)):
        for rows in (1, 5, 700):
            fq.matmul(np.ones((rows, 300), a8), np.ones((300, 200), b8))
    fq.matmul(np.ones((2, 70_000), np.int8), np.ones((70_000, 2), np.int8), out=np.empty((2, 2), np.int64))
assert pool._pool.workers
assert set(jit.loaded_names()) > set(pool.KERNELS)
print(*jit.compiled_names())
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("bits", [8, 3])
def test_afterwards_nothing_is_compiled(bits, tmp_path):
    """Two processes warm one cache at once; a session then finds all it needs there."""
    environment = {**os.environ, "FASTQ_CACHE_DIR": str(tmp_path)}

    def start(*arguments):
        return subprocess.Popen([sys.executable, "-W", "error", *arguments], env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip

    both = [start("-m", "fastq", "warmup", "--bits", str(bits)) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        *lines, summary, folder = out.splitlines()
        count, compiled, cached = map(
            int, re.match(r"(\d+) kernels.* (\d+) compiled .* (\d+) cached$", summary).groups()
        )
        assert count == len(lines) == compiled + cached
        assert sum(line.endswith(" s") for line in lines) == compiled
        assert sum(line.endswith(" cached") for line in lines) == cached
        assert str(tmp_path) in folder
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".environment"]
    assert sorted(path.stem for path in left) == sorted(line.split()[0] for line in lines)
    session = start("-c", SESSION.replace("BITS", str(bits)))
    out, err = session.communicate(timeout=300)
    assert (session.returncode, err, out) == (0, "", "\n")


@pytest.fixture
def compiler(monkeypatch):
    """Kernels are not compiled but noted, by this process alone, and kept unless told otherwise."""
    told = SimpleNamespace(compiled=[], kept=True)
    monkeypatch.setattr(jit, "kernel", lambda name, make: told.compiled.append(name))
    monkeypatch.setattr(jit, "compiled_names", lambda: tuple(told.compiled[:2]))
    monkeypatch.setattr(jit, "kept", lambda name: told.kept and name in told.compiled)
    monkeypatch.setattr(cores, "available_cpus", lambda: 1)
    return told


def test_what_is_compiled(compiler, isa, capsys):
    assert main(["warmup", "--bits", "3", "5"]) == 0
    named = {name for name in compiler.compiled if re.search("_[2-8]bit(_[if]|$)", name) and "left" not in name}
    if isa == "reference":
        assert not compiler.compiled
        assert capsys.readouterr().out.startswith("0 kernels for reference: 0 compiled in")
        return
    assert {re.search("([2-8])bit", name)[1] for name in named} == {"3", "5"}
    assert set(pool.KERNELS) < set(compiler.compiled)
    assert len(set(compiler.compiled)) == len(compiler.compiled)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pool_wait +0\.\d\d s", lines[0])
    assert all(re.fullmatch(r"\w+ +cached", line) for line in lines[2:-2])
    assert lines[-2].startswith(f"{len(compiler.compiled)} kernels for {isa}: 2 compiled in ")
    assert lines[-1].startswith("kernel cache:     ")


def test_warmup_for_programs(compiler, isa, capsys):
    assert main(["warmup", "--bits", "3", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert undocumented("warmup", told) == set()
    assert told.keys() == {"instruction_sets", "kernels", "compiled", "cached", "seconds", "cache"}
    assert told["instruction_sets"] == [isa]
    assert [one["name"] for one in told["kernels"]] == compiler.compiled
    assert [one["seconds"] is None for one in told["kernels"]] == [False] * told["compiled"] + [True] * told["cached"]
    assert len(captured.err.splitlines()) == len(compiler.compiled)  # for people


def test_epilogues_are_compiled_on_request(compiler, isa):
    assert main(["warmup", "--bits", "4", "--epilogue", "gelu"]) == 0
    with_gelu = [name for name in compiler.compiled if "gelu" in name]
    assert bool(with_gelu) == (isa != "reference")
    assert all(name.endswith(("4bit_float32_gelu", "4bit_grouped_float32_gelu")) for name in with_gelu)
    assert not any("silu" in name for name in compiler.compiled)


@pytest.mark.parametrize("way", ["group", "two-plane"])
def test_finer_activations_are_compiled_on_request(compiler, isa, rng, way, monkeypatch):
    """Products with them, in all float types, then need no kernel that is not there."""
    assert main(["warmup", "--bits", "4"]) == 0
    usual = set(compiler.compiled)
    assert not any(word in name for name in usual for word in ("planes", "rowgroups", "float16"))
    compiler.compiled.clear()
    assert main(["warmup", "--bits", "4", "--activations", way, "--float16"]) == 0
    finer = set(compiler.compiled)
    assert (usual < finer) == (isa != "reference")
    needed = set()

    def note(*entries):
        needed.update(entry[0] for entry in entries)
        raise LookupError

    monkeypatch.setattr("fastq.engine.prepared.kernels", note)
    for form in ({}, {"group_size": 32}, {"group_size": 32, "group_scale": "float", "scheme": "affine"}):
        for kind in ("f2", "f4", "f8"):
            x = rng.standard_normal((600, 96)).astype(kind)
            q = fq.quantize(rng.standard_normal((96, 40), np.float32), 4, axis=0, **form).astype(kind).prepack()
            for rows in (1, 3, 600):
                for a, b in ((x[:rows], q), (q.T, x[:rows].T)):
                    with contextlib.suppress(LookupError):
                        fq.matmul(a, b, activations=way)
    assert needed <= finer
    assert bool(needed - usual) == (isa != "reference")


def test_searches_are_compiled_on_request(compiler, isa, rng, monkeypatch):
    """Searches in all types then need no kernel that is not there."""
    assert main(["warmup", "--bits", "4", "8", "--search", "--float16"]) == 0
    compiled = set(compiler.compiled)
    needed = set()

    def note(*entries):
        needed.update(entry[0] for entry in entries)
        raise LookupError

    monkeypatch.setattr("fastq.engine.prepared.kernels", note)
    integers = rng.integers(-9, 9, (600, 96)).astype(np.int8)
    with contextlib.suppress(LookupError):
        fq.top_k(integers, integers)
    for form in ({"bits": 8}, {"bits": 4, "group_size": 32}, {"bits": 4, "group_size": 32, "group_scale": "float"}):
        for kind in ("f2", "f4", "f8"):
            q = fq.quantize(rng.standard_normal((40, 96), np.float32), axis=-1, **form).astype(kind)
            for rows in (1, 3, 600):
                with contextlib.suppress(LookupError):
                    fq.top_k(rng.standard_normal((rows, 96)).astype(kind), q)
    assert needed <= compiled
    assert any("top" in name for name in needed) == (isa != "reference")
    assert {table.top_finish(kind).name for kind in ("float32", "float64", "int32")} <= compiled or isa == "reference"


def test_all_widths_by_default_and_all_instruction_sets_by_request(compiler):
    assert main(["warmup"]) == 0
    usual = set(compiler.compiled)
    assert {entry.name for entry in table.entries(cpu.chosen(table.ISAS), range(2, 9))} < usual
    compiler.compiled.clear()
    assert main(["warmup", "--all"]) == 0
    every = {e.name for isa in cpu.available(table.ISAS) for e in table.entries(isa, range(2, 9))}
    assert set(compiler.compiled) == every | set(pool.KERNELS) >= usual


def test_a_cache_that_keeps_nothing(compiler, capsys):
    compiler.kept = False
    assert main(["warmup"]) == 1
    assert len(compiler.compiled) == 1  # no more work for nothing
    assert re.fullmatch(
        r"fastq: warmup needs a kernel cache: a folder that .*; pool_wait could not be kept in .*; "
        r"set FASTQ_CACHE_DIR to such a folder\n",
        capsys.readouterr().err,
    )


def test_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    jit._compiler.cache = jit.Cache(tmp_path)
    assert not jit.kept("kernel")
    jit._compiler.cache.store("kernel", "symbol", b"code")
    assert jit.kept("kernel")
    jit._compiler.cache = jit.Cache(None)
    assert not jit.kept("kernel")


def test_a_function_that_is_none(capsys):
    assert main(["warmup", "--epilogue", "gelu", "tanh"]) == 2
    told = capsys.readouterr().err
    assert told == "fastq: error: --epilogue must be of relu, gelu, silu; got tanh; see fastq warmup --help\n"


@pytest.mark.parametrize("arguments", [["--bits", "9"], ["--bits"], ["--bits", "3", "--all"]])
def test_arguments_that_do_not_fit(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["warmup", *arguments])
    assert stop.value.code == 2
    assert "--bits" in capsys.readouterr().err
    assert sorted({bits for unit in table.UNITS for bits in unit.bits}) == warmup.BITS
