"""How many cores this process may use: its affinity, and the quota of its control groups."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path


def available_cpus() -> int:
    """Cores that the calling thread may use: its affinity, or a control group's quota where that is less.

    The affinity is asked for at every call (0.2 µs), since it may change at any time; the quota, which takes a walk
    through files, once.
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
    """Cores' worth of time that control groups leave a process; None for no limit.

    Parameters
    ----------
    membership : Path
        The process's groups, a line ``number:controllers:path`` for each hierarchy; version 2 names no controllers.
    mount : Path
        Where the hierarchies are mounted: version 2 as it is, the CPU controller of version 1 under its name. A
        container may see its own group there under the path it has on the host, or as the root, so the whole way up
        counts, and groups that do not exist limit nothing.
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
