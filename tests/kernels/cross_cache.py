"""Kernels for an emulated process, compiled by the host, where that takes a twentieth of the time.

Under qemu, a process that imports this asks another one, which runs on the host itself, for each kernel that its cache
lacks. ``HOST_PYTHON`` in the environment names the host's Python::

    python -m pytest -p tests.kernels.cross_cache tests/kernels
    python -m tests.kernels.cross_cache tests.kernels.fixed_set neon

The host runs the same Numba and LLVM, and is told which CPU to compile for; but for the names of functions, the code is
the same, byte for byte (``test_cross_cache.py``). What the host does not know by its name, such as kernels that hold a
user's function, the process compiles by itself.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

from fastq.kernels import table
from fastq.kernels.epilogue.outputs import ACTIVATIONS, SIZES, Output
from fastq.layout.tiles import GROUPED, TileFormat
from fastq.machine import cpu, jit
from fastq.machine.cache import Cache
from fastq.scheme import MAX_BITS, MIN_BITS, TWO_PLANE

HOST_PYTHON = "HOST_PYTHON"
ROOT = pathlib.Path(table.__file__).parents[3]
BITS = range(MIN_BITS, MAX_BITS + 1)
own_compile = jit._compile


def products(isas: Sequence[str]) -> Iterator[table.Entry]:
    """Every kernel of a product that there can be, and some more: making an entry costs next to nothing."""
    forms = [*map(TileFormat, BITS), *(TileFormat(width, True) for width in GROUPED)]
    outputs = [
        Output(name, activation, turned=turned, planes=planes, row_groups=groups, top=top)
        for name, activation, turned, planes, groups, top in product(
            SIZES, ("", *ACTIVATIONS), (False, True), (1, 2), (False, True), (False, True)
        )
    ]
    units = [unit for unit in table.UNITS if unit.isa in isas]
    for unit, shape, form, output, segmented in product(units, ("gemm", "gemv"), forms, outputs, (False, True)):
        if form.multiplied in unit.bits:
            yield table.matmul(unit, shape, form, output, segmented)


def known(isas: Sequence[str]) -> dict[str, table.Entry]:
    """The kernels of some instruction sets by name."""
    others = (entry for isa in isas for entry in table.entries(isa, BITS, activations=(TWO_PLANE,), top=True))
    return {entry.name: entry for entries in (products(isas), others) for entry in entries}


def _say(to: Any, what: Any) -> None:
    to.write(json.dumps(what) + "\n")
    to.flush()


# On the host.


def compile_for(triple: str, options: dict[str, Any]) -> None:
    """From here on this process compiles for that system and CPU, and loads nothing that it has compiled."""
    import llvmlite.binding as llvm
    from numba.core.codegen import JITCPUCodegen
    from numba.core.registry import cpu_target

    from fastq.machine import compiling

    cpu_target.target_context.codegen()  # what Numba itself compiles is for the host
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    layout = llvm.Target.from_triple(triple).create_target_machine(**options).target_data
    texts = compiling._texts

    def retargeted(library: Any, seen: dict[int, Any]) -> list[str]:
        lines = {"triple": triple, "datalayout": layout}
        return [
            re.sub('^target (.*) = ".*"', lambda line: f'target {line[1]} = "{lines[line[1]]}"', text, flags=re.M)
            for text in texts(library, seen)
        ]

    compiling._texts = retargeted
    llvm.get_process_triple = lambda: triple
    JITCPUCodegen._customize_tm_options = lambda self, target: target.update(options)


def serve() -> None:
    """Compile what each line of the input asks for, into the asker's cache, and answer with a line."""
    asker = json.loads(sys.stdin.readline())
    compile_for(asker["triple"], asker["options"])
    entries, folder = known(asker["isas"]), Cache(pathlib.Path(asker["folder"]))
    for line in sys.stdin:
        begun = [(name, jit._begin(*entries[name].make())) for name in json.loads(line) if name in entries]
        for name, compilation in begun:
            folder.store(name, *jit._checked(name, compilation, True))
        _say(sys.stdout, len(begun))


# Under qemu.


@cache
def host() -> subprocess.Popen[str]:
    """The process on the host, told who asks."""
    import llvmlite.binding as llvm
    from numba.core.registry import cpu_target

    options = {"opt": 3}
    cpu_target.target_context.codegen()._customize_tm_options(options)
    process = subprocess.Popen(
        [os.environ[HOST_PYTHON], "-m", "tests.kernels.cross_cache", "serve"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    isas = [isa for isa in cpu.available(table.ISAS) if isa not in ("portable", "reference")]
    folder = str(jit._open_cache().folder)
    _say(process.stdin, {"triple": llvm.get_process_triple(), "options": options, "isas": isas, "folder": folder})
    return process


def ask(entries: list[Any], folder: Cache) -> None:
    """In place of ``jit._compile``: the host compiles what it knows, this process what is left."""
    if names := [name for name, _, keep, builtin in entries if keep and builtin]:
        process = host()
        _say(process.stdin, names)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the process on the host ended at one of {', '.join(names)}")
    left = []
    for entry in entries:
        code = folder.load(entry[0]) if entry[0] in names else None
        if code is None:
            left.append(entry)
        else:
            jit._compiler.publish(entry[0], jit._compiler.load(entry[0], *code))
    own_compile(left, folder)


if HOST_PYTHON in os.environ:
    jit._compile = ask  # type: ignore[assignment]

if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
