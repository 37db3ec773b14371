"""How many cores this process may use, by its affinity and by the quota of its control groups."""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from fastq.machine import sysctl


def available_cpus() -> int:
    """Cores that the calling thread may use: those of its affinity, or fewer by the quota of a control group.

    The affinity may change at any time, so each call reads it (0.2 µs). The quota takes a walk through files, and is
    read once. macOS has no affinity; there they are the fast cores: a product ends with its slowest thread, which would
    be on a core for background work.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = _affinity_of_windows() or _fast_cores() or os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _affinity_of_windows() -> int | None:
    """Cores of the process's affinity mask; None if it has all that there are, or this is no Windows.

    A mask has 64 bits, one for each core of a *processor group*. On a machine of several groups, a process that was not
    restricted has cores of all of them, and its mask, that of one group, says nothing.
    """
    if (kernel32 := _kernel32()) is None:
        return None
    process, system = ctypes.c_size_t(), ctypes.c_size_t()
    told = kernel32.GetProcessAffinityMask(kernel32.GetCurrentProcess(), ctypes.byref(process), ctypes.byref(system))
    return process.value.bit_count() or None if told and process.value != system.value else None


@cache
def _kernel32() -> Any:
    """Functions of Windows; None on other systems."""
    open_library = getattr(ctypes, "WinDLL", None)
    if open_library is None:
        return None
    library = open_library("kernel32")  # our own, since what follows would hold for all that share one
    library.GetCurrentProcess.restype = ctypes.c_void_p
    mask = ctypes.POINTER(ctypes.c_size_t)
    library.GetProcessAffinityMask.argtypes = [ctypes.c_void_p, mask, mask]
    return library


@cache
def _fast_cores() -> int | None:
    """Cores of the fastest kind of an Apple CPU; None on other machines."""
    return sysctl.number("hw.perflevel0.logicalcpu") or None


@lru_cache(maxsize=1)
def _quota() -> float | None:
    return quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def quota(membership: Path, mount: Path) -> float | None:
    """How many cores' worth of time control groups allow a process; None: no limit.

    Parameters
    ----------
    membership : Path
        The file with the groups of the process: a line ``number:controllers:path`` for each hierarchy. Version 2 names
        no controllers.
    mount : Path
        Where the hierarchies are mounted: version 2 here, the CPU controller of version 1 in the folder ``cpu``. A
        container may see its group under the path that the host uses, or as the root. So all folders on the way up
        are read; one that does not exist sets no limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    folders = {mount, mount / "cpu"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            top = mount / "cpu" if controllers else mount
            group = top / path.lstrip("/")
            folders |= {group, *(above for above in group.parents if top in above.parents)}
    return min((limit for limit in map(_limit, folders) if limit is not None), default=None)


def _limit(folder: Path) -> float | None:
    """The quota of one group, of either version."""
    try:
        if (folder / "cpu.max").exists():
            text = (folder / "cpu.max").read_text()
        else:
            text = " ".join((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        allowed, period = text.split()
        return None if allowed in ("max", "-1") else float(allowed) / float(period)
    except (OSError, ValueError):
        return None
