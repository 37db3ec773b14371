"""Instructions that a CPU may lack, as functions of plain IR: what plugins that emulate some share."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

from llvmlite import ir

from fastq.machine import cache, cpu, jit


def function(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type], emit: Any) -> Any:
    """A function of the module; ``emit(builder, *arguments)`` writes it and gives what it returns."""
    name = f"emulated_{name}"
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, args), name)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        inside = ir.IRBuilder(function.append_basic_block())
        value = emit(inside, *function.args)
        inside.ret_void() if value is None else inside.ret(value)
    return function


def begin(features: set[str], file: str) -> None:
    """From here on this process has a CPU with these features, too; `file` is that of what they do."""
    everything = cpu.features() | features
    cpu.features = lambda: everything  # type: ignore[assignment]
    files = (pathlib.Path(file), pathlib.Path(__file__))
    mark = "emulated " + hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    jit.stamp = lambda *facts: cache.stamp(*facts, mark)  # type: ignore[attr-defined]
    jit.environment = lambda facts: cache.environment(facts + mark)  # type: ignore[attr-defined]
