"""How many cores this process may use, by its affinity and by the quota of its control groups."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path


def available_cpus() -> int:
    """Cores that the calling thread may use: those of its affinity, or fewer by the quota of a control group.

    The affinity may change at any time, so each call reads it (0.2 µs). The quota takes a walk through files, and is
    read once.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


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
