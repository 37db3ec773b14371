"""Compiling ahead: kernels for ordinary use are stored in the kernel cache, and later processes load them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastq.engine.plan import this_machine
from fastq.kernels.table import ISAS, UNITS, entries
from fastq.machine import cpu, jit, pool

BITS = sorted({bits for unit in UNITS for bits in unit.bits})


class NotKeptError(Exception):
    """The cache did not keep a kernel."""


def run(bits: Sequence[int], everything: bool = False, activations: Sequence[str] = ()) -> None:
    """Compile the kernels for right operands of these widths, and print a line for each kernel.

    `everything`: all widths, and all instruction sets that this CPU has instead of the one in use. `activations`:
    float32 products with these activations, too. Raises NotKeptError if the cache does not keep a kernel.

    With AMX, all widths took 61 s on one core of a 2-core virtual machine, and `everything` more than twice that. With
    AVX2, all widths took 126 s of a busy core, and two widths (8 and 3) took 57 s.
    """
    isas = cpu.available(ISAS) if everything else (this_machine().isa,)
    needed = [entry for isa in isas for entry in entries(isa, BITS if everything else bits, activations)]
    wanted = {**pool.KERNELS, **{entry.name: entry.make for entry in needed}} if needed else {}
    width = max(map(len, wanted), default=0)
    before, start = len(jit.compiled_names()), time.perf_counter()
    for name, make in wanted.items():
        count, begun = len(jit.compiled_names()), time.perf_counter()
        jit.kernel(name, make)
        if not jit.kept(name):
            raise NotKeptError(
                "warmup needs a kernel cache: a folder that belongs to this user, that nobody else may write to, and "
                f"that has room; {name} could not be kept in {jit.cache_folder()}; set FASTQ_CACHE_DIR to such a folder"
            )
        is_new = len(jit.compiled_names()) > count
        print(f"{name:<{width}}  {f'{time.perf_counter() - begun:.2f} s' if is_new else 'cached'}", flush=True)
    compiled = len(jit.compiled_names()) - before
    print(
        f"{len(wanted)} kernels for {', '.join(isas)}: {compiled} compiled in {time.perf_counter() - start:.1f} s, "
        f"{len(wanted) - compiled} cached\n{'kernel cache:':<17} {jit.cache_folder()}"
    )
