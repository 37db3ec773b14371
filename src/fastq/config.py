"""The machine that fastq sees, and the settings in use."""

from __future__ import annotations

import os
import platform
import sys
from typing import TextIO

from fastq.errors import with_type
from fastq.kernels.table import FALLBACK, ISAS, UNITS
from fastq.machine import cores, cpu, jit, pool
from fastq.version import __version__

__all__ = ["set_num_threads", "show_config"]

set_num_threads = pool.set_num_threads


def show_config(file: TextIO | None = None) -> None:
    """Print the CPU, the instruction set in use, kernels, threads, the folder of the kernel cache, and versions.

    Parameters
    ----------
    file : text file, optional
        Where to print; standard output by default.

    Raises
    ------
    TypeError
        If `file` has no method ``write``.

    Examples
    --------
    >>> import io, fastq as fq
    >>> text = io.StringIO()
    >>> fq.show_config(text)
    >>> [line.split(":")[0] for line in text.getvalue().splitlines()][:3]
    ['CPU', 'system', 'instruction set']
    """
    target = sys.stdout if file is None else file
    if not hasattr(target, "write"):
        raise TypeError(f"file must be a text file, with a method write; got {with_type(file)}")
    isa = cpu.chosen(ISAS)
    forced = " (FASTQ_ISA)" if os.environ.get("FASTQ_ISA") == isa else ""
    units = [u for u in UNITS if u.isa in (isa, FALLBACK.get(isa))]
    blocks = ", ".join(f"{u.name} {u.rows}x{16 * u.blocks}, {u.bits[0]} to {u.bits[-1]} bits" for u in units)
    compiled = jit.compiled_names()
    rows = {
        "CPU": cpu.cpu_name(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "instruction set": f"{isa}{forced}",
        "this CPU has": ", ".join(cpu.available(ISAS)),
        "kernels": blocks or "plain NumPy",
        "loaded": f"{len(jit.loaded_names())} kernels, {len(compiled)} of them compiled by this process",
        "threads": _threads(),
        "kernel cache": jit.cache_folder(),
        "versions": _versions(),
    }
    for name, value in rows.items():
        print(f"{name + ':':<17} {value}", file=target)


def _threads() -> str:
    used, wanted, available = pool.num_threads(), pool.wanted_threads(), cores.available_cpus()
    return f"{used} of {available} available" + (f" ({wanted} asked for)" if wanted and wanted > used else "")


def _versions() -> str:
    from importlib.metadata import version

    others = (f"{name} {version(name)}" for name in ("numpy", "numba", "llvmlite"))
    return ", ".join([f"fastq {__version__}", *others])
