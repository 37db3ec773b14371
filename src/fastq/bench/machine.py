"""The machine that a run was measured on."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastq.bench import busy, peers
from fastq.kernels.table import ISAS
from fastq.machine import cpu, pool
from fastq.version import __version__


@dataclass(frozen=True)
class Machine:
    """What decides how fast a product is.

    Attributes
    ----------
    cpu, system : str
        Its name, as its maker sells it; the operating system and architecture.
    isa : str
        The instruction set in use.
    isas : tuple of str
        Those that it has, best first.
    cores, threads : int
        Of the machine; of each product.
    blas : str
        What multiplies for NumPy.
    versions : dict of str
        Of fastq, numpy, numba, and of the other libraries that are installed.
    load : float, optional
        Programs that ran or waited in the minute before; None where the system does not say.
    busy : str
        What took cores away, as ``"load 22 on 2 cores"``; empty: nothing did.
    """

    cpu: str
    system: str
    isa: str
    isas: tuple[str, ...]
    cores: int
    threads: int
    blas: str
    versions: dict[str, str] = field(default_factory=dict)
    load: float | None = None
    busy: str = ""

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.cpu}; {self.isa}; {threads}; BLAS {self.blas}; {versions}"

    def facts(self) -> dict[str, Any]:
        """The same for the first line of a report, with the libraries that are not installed."""
        absent = {name: number for name, number in peers.installed().items() if number == peers.NOT_INSTALLED}
        return {
            "CPU": self.cpu,
            "instruction set": self.isa,
            "this CPU has": ", ".join(self.isas),
            "threads": self.threads,
            "BLAS": self.blas,
            **self.versions,
            **absent,
        }


def this_machine(busy_with: str = "") -> Machine:
    """The machine as it is now."""
    there = {name: number for name, number in peers.installed().items() if number != peers.NOT_INSTALLED}
    now = busy.load()
    return Machine(
        cpu=cpu.cpu_name(),
        system=f"{platform.system()} {platform.machine()}",
        isa=cpu.chosen(ISAS),
        isas=cpu.available(ISAS),
        cores=now.cores,
        threads=pool.num_threads(),
        blas=_blas(),
        versions={"fastq": __version__, **{name: version(name) for name in ("numpy", "numba")}, **there},
        load=now.average,
        busy=busy_with,
    )


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    # NumPy's lies with NumPy; others bring their own.
    found = next((x for x in threadpool_info() if x["user_api"] == "blas" and "numpy" in x["filepath"]), None)
    facts = ("internal_api", "version", "architecture", "num_threads")
    return " ".join(str(found.get(fact, "?")) for fact in facts) + " threads" if found else "none"
