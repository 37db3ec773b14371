"""Micro-kernels compiled for a CPU that need not be here, and what their k-loops consist of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.llvm_bindings import create_pass_builder

from fastq.machine.ir import F32, F64, I16, I32, I64, P8, Target, _define

ARM, X86 = "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"
KINDS = {"int": I64, "f32": F32, "f64": F64} | {
    f"{name}*": element.as_pointer()
    for name, element in {"i32": I32, "i64": I64, "u16": I16, "f32": F32, "f64": F64}.items()
}


class Function(NamedTuple):
    """What :func:`fastq.machine.ir.ir_function` is told; to take its place in the module of a micro-kernel."""

    name: str
    kinds: tuple[Any, ...]
    target: Target
    emit: Callable[..., None]


def has_target(triple: str) -> bool:
    """Whether the installed LLVM compiles for it; llvmlite may have been built without."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError:
        return False
    return True


def assembly(function: Function, triple: str) -> list[str]:
    """The lines of a micro-kernel, optimized as kernels are."""
    types = [KINDS.get(kind, P8) for kind in function.kinds]
    module = ir.Module(function.name)
    module.triple = triple
    _define(module, function.name, types, function.target, function.emit).linkage = ""
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=3)
    parsed = llvm.parse_assembly(str(module))
    builder = create_pass_builder(machine, 3, True, True)
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_assembly(parsed).splitlines()


def loops(lines: list[str]) -> list[list[str]]:
    """The innermost loops, longest first: instructions from a label to the branch back to it."""
    labels = {found[1]: i for i, line in enumerate(lines) if (found := re.match(r"(\.?\w+):", line))}
    spans = []
    for end, line in enumerate(lines):
        found = re.match(r"\s+(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s.*?(\.?\w+)$", line)
        if found and labels.get(found[1], end) < end:
            spans.append((labels[found[1]], end))
    inner = [s for s in spans if not any(s != o and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    bodies = [[x.strip() for x in lines[a : b + 1] if re.match(r"\t(?:\{vex\}\t)?[a-z]", x)] for a, b in inner]
    return sorted(bodies, key=len, reverse=True)


class Count(NamedTuple):
    """Instructions of a loop."""

    all: int
    products: int
    loads: int  # registers loaded
    spills: int  # stores to the stack, and loads from there


def counted(body: list[str], product: str) -> Count:
    words = [line.split()[0] for line in body]
    loads = sum(1 + (w == "ldp") for w, line in zip(words, body) if w.startswith("ld") and "[sp" not in line)
    return Count(len(body), sum(w.startswith(product) for w in words), loads, sum("[sp" in line for line in body))
