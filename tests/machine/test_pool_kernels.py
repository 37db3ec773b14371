"""The pool's kernels, as LLVM is told of them, and as it translates them for machines that are not here."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from fastq.machine import pool_kernels
from fastq.machine.ir import HOST, P8, _define

X86, ARM, APPLE, WINDOWS = "x86_64-linux-gnu", "aarch64-linux-gnu", "arm64-apple-macosx", "aarch64-pc-windows-msvc"
EMITTERS = (pool_kernels._emit_publish, pool_kernels._emit_lead, pool_kernels._emit_wait)


def written(emit):
    """A kernel in LLVM's language."""
    module = ir.Module("test")
    _define(module, "kernel", [P8], HOST, emit).linkage = "external"
    return str(module)


def assembly(text, triple):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(
        text.replace('target triple = "unknown-unknown-unknown"', f'target triple = "{triple}"')
    )
    module.verify()
    return llvm.Target.from_triple(triple).create_target_machine(opt=3).emit_assembly(module)


@pytest.mark.parametrize(
    ("triple", "instruction", "others"),
    [
        (X86, "pause", "isb"), ("x86_64-pc-windows-msvc", "pause", "isb"),
        (ARM, "isb", "pause|yield"), (APPLE, "isb", "pause|yield"), (WINDOWS, "isb", "pause|yield"),
        ("riscv64-unknown-linux-gnu", "", "pause|isb"),
    ],
)  # fmt: skip
def test_spinning_is_told_to_the_cpu_that_the_process_runs_on(monkeypatch, triple, instruction, others):
    """A Python for x86 on an ARM machine, which the system calls by either name, must not get what ARM would need."""
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    for emit in (pool_kernels._emit_lead, pool_kernels._emit_wait):
        text = written(emit)
        assert bool(re.search(r"llvm\.(x86|aarch64)", text)) == bool(instruction)
        if not triple.startswith("riscv"):
            lines = assembly(text, triple)
            assert re.search(rf"^\s+{instruction}\b", lines, re.M)
            assert not re.search(rf"^\s+({others})\b", lines, re.M)


def test_what_is_told_comes_before_the_look_for_all_threads():
    """A worker parks and looks at the gate, a caller opens the gate and looks who parks: a fence each, in between."""
    publish, wait = written(pool_kernels._emit_publish), written(pool_kernels._emit_wait)
    fence = "fence seq_cst"
    assert publish.count(fence) == wait.count(fence) == 1
    assert publish.index("store atomic") < publish.index(fence)
    assert wait.index(fence) < wait.index("load atomic")
    assert "mfence" in assembly(publish, X86) or "lock" in assembly(publish, X86)
    assert re.search(r"^\s+dmb\s+ish$", assembly(publish, ARM), re.M)
