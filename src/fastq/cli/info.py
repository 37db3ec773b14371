"""Tell what this machine has, and what fastq makes of it.

A machine is busy when the work that waits for its cores, by the load of the last minute, takes more than a quarter of
them: times that are measured then are those of a part of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
from pathlib import Path
from typing import Any

from fastq.cli import output
from fastq.errors import in_bytes

BUSY = 0.25  # of the cores


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--clear", action="store_true", help="remove all compiled kernels, those of other versions, too; asks nothing"
    )


def run(given: argparse.Namespace) -> None:
    """Print what is known, or remove the kernels."""
    if given.clear:
        _clear(given.json)
        return
    known = facts()
    if given.json:
        output.document(known)
    else:
        output.pairs(_in_words(known))


def facts() -> dict[str, Any]:
    """All that is told, as JSON has it."""
    from fastq.kernels.table import ISAS
    from fastq.machine import cache, cores, cpu, jit, pool

    chosen, here, load = cpu.chosen(ISAS), jit.own_folder(), load_average()
    available = cores.available_cpus()
    return {
        "cpu": cpu.cpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "instruction_sets": {
            "chosen": chosen,
            "forced": os.environ.get("FASTQ_ISA") == chosen,
            "available": list(cpu.available(ISAS)),
        },
        "threads": {"used": pool.num_threads(), "cores": available},
        "cache": {
            "folder": None if here is None else str(here),
            "nbytes": sum(_sizes(here)),
            "kernels": len(_sizes(here)),
            "others": [{"folder": str(path), "nbytes": sum(_sizes(path))} for path in cache.folders() if path != here],
        },
        "versions": versions(),
        "load": {"average": load, "cores": available, "busy": load is not None and load > BUSY * available},
    }


def versions() -> dict[str, str]:
    """What results and times depend on."""
    from importlib.metadata import version

    from fastq.version import __version__

    known = {"fastq": __version__, "python": platform.python_version()}
    return known | {name: version(name) for name in ("numpy", "numba", "llvmlite")}


def load_average() -> float | None:
    """Processes that ran or waited for a core, on average over the last minute; None where the system has no number."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _in_words(known: dict[str, Any]) -> dict[str, str]:
    sets, threads, cache, load = (known[key] for key in ("instruction_sets", "threads", "cache", "load"))
    others = cache["others"]
    lines = {
        "CPU": known["cpu"],
        "system": known["system"],
        "instruction set": sets["chosen"] + (" (FASTQ_ISA)" if sets["forced"] else ""),
        "this CPU has": ", ".join(sets["available"]),
        "threads": f"{threads['used']} of {threads['cores']} cores",
        "kernel cache": cache["folder"] or "none (switched off, or not a folder that only this user can write to)",
        "kernels": f"{cache['kernels']}, {in_bytes(cache['nbytes'])}",
        "other versions": "none",
        "versions": ", ".join(f"{name} {number}" for name, number in known["versions"].items()),
        "load": "not known here",
    }
    if others:
        lines["other versions"] = (
            f"{len(others)} folder{'s' * (len(others) > 1)}, {in_bytes(sum(one['nbytes'] for one in others))}"
        )
    if load["average"] is not None:
        state = "BUSY: what is measured now is too slow" if load["busy"] else "idle enough to measure"
        lines["load"] = f"{load['average']} on {load['cores']} cores: {state}"
    return lines


def _sizes(folder: Path | None) -> list[int]:
    """Bytes of each kernel in a folder; other processes may remove some meanwhile."""
    found = []
    for path in folder.glob("*.kernel") if folder else ():
        with contextlib.suppress(OSError):
            found.append(path.stat().st_size)
    return found


def _clear(as_json: bool) -> None:
    from fastq.machine import cache

    sizes = {folder: sum(_sizes(folder)) for folder in cache.folders()}
    went = {folder: cache.remove(folder) for folder in sizes}
    if as_json:
        removed = [{"folder": str(folder), "nbytes": sizes[folder]} for folder in sizes if went[folder]]
        output.document({"removed": removed, "left": [str(folder) for folder in sizes if not went[folder]]})
        return
    for folder, nbytes in sizes.items():
        why = in_bytes(nbytes) if went[folder] else "others can write to it, or it holds other files, too"
        print(f"{'removed' if went[folder] else 'left'} {output.visible(str(folder))}: {why}")
    if not sizes:
        print("there was nothing to remove")
