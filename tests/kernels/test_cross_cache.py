"""Kernels that the host compiles for an emulated process: the same code as that process makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from fastq.kernels import table
from fastq.kernels.epilogue.outputs import ACTIVATIONS, Output
from fastq.layout.tiles import TileFormat
from fastq.machine import cpu, jit
from fastq.machine.cache import Cache
from tests.kernels import cross, cross_cache

NEON = [isa for isa in table.ISAS if isa.startswith("neon")]


def sections(kept):
    """The machine code and constants of a kernel, by the names of their sections."""
    _, code = kept
    named = [(s.name() or b"", s.data()) for s in llvm.ObjectFileRef.from_data(code).sections()]
    return [(name, data) for name, data in named if name.startswith((b".text", b".rodata"))]


@pytest.mark.parametrize("isa", [*NEON, "avx2"])
def test_the_host_knows_every_kernel(isa):
    known = cross_cache.known([isa])
    ways = "two-plane", "group"
    assert {entry.name for entry in table.entries(isa, range(2, 9), ACTIVATIONS, ways, True, True)} <= known.keys()
    assert f"gemm_{table.unit_for(isa, 3, 100)[0].name}_3bit_int32" in known  # a product of tests alone


@pytest.mark.skipif(not cross.has_target(cross.ARM), reason="this LLVM does not compile for ARM")
def test_the_host_compiles_for_another_cpu(tmp_path):
    told = {
        "triple": cross.ARM,
        "options": {"opt": 3, "cpu": "generic", "reloc": "default", "codemodel": "jitdefault", "jit": True},
        "isas": ["neon"],
        "folder": str(tmp_path / "kernels"),
    }
    lines = "".join(json.dumps(line) + "\n" for line in (told, ["left_codes_8bit", "no such kernel"]))
    command = [sys.executable, "-m", "tests.kernels.cross_cache", "serve"]
    done = subprocess.run(command, input=lines, text=True, capture_output=True, cwd=cross_cache.ROOT)
    assert done.stdout == "1\n", done.stderr
    symbols, code = Cache(tmp_path / "kernels").load("left_codes_8bit")
    assert symbols
    assert code[:4] == b"\x7fELF"
    assert code[18:20] == (183).to_bytes(2, "little")  # EM_AARCH64


@pytest.mark.skipif(cross_cache.HOST_PYTHON not in os.environ, reason="not under emulation, where a host compiles")
def test_it_is_the_code_that_this_process_makes(monkeypatch, tmp_path):
    unit, shape = table.unit_for(cpu.chosen(table.ISAS), 8, 100)
    entry = table.matmul(unit, shape, TileFormat(8), Output("int32"))
    jit.kernels(entry)
    by_host, by_us = jit._open_cache(), Cache(tmp_path / "kernels")
    assert entry.name not in jit.compiled_names()
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    cross_cache.own_compile([entry], by_us)
    assert entry.name in jit.compiled_names()
    found = sections(by_us.load(entry.name))
    assert found
    assert found == sections(by_host.load(entry.name))
