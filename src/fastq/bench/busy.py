"""Whether other programs took the cores that were measured."""

from __future__ import annotations

import os
from typing import NamedTuple

SHARE = 0.85  # of a core must be left for each thread that is measured
STAT = "/proc/stat"  # where Linux counts what its cores do
QUEUE = 2  # so many waiting programs per core are too many, where nothing else is told


class Load(NamedTuple):
    """What a machine has to do."""

    average: float | None  # programs that ran or waited, over the last minute; None where the system does not say
    cores: int  # of the machine

    @property
    def high(self) -> bool:
        """More than this process can have caused itself: threads that spin for their next call count, too."""
        return self.average is not None and self.average > QUEUE * self.cores

    def __str__(self) -> str:
        plural = "s" * (self.cores > 1)
        return f"load {'unknown' if self.average is None else f'{self.average:.3g}'} on {self.cores} core{plural}"


def load() -> Load:
    """The load of this machine now."""
    try:
        average: float | None = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        average = None
    return Load(average, os.cpu_count() or 1)


class Watch:
    """How much of the cores other programs take, from now on."""

    def __init__(self) -> None:
        self._start = _taken()

    def others(self) -> float | None:
        """Cores that others took on average since the watch began; None where the system does not say."""
        end = _taken()
        if self._start is None or end is None or end.passed == self._start.passed:
            return None
        working, own, passed = (after - before for after, before in zip(end, self._start))
        return max(0.0, working - own) / passed

    def busy(self, threads: int) -> str:
        """In words, what kept so many threads from having a core each; empty if nothing did."""
        others, now = self.others(), load()
        if others is None:
            return str(now) if now.high else ""
        cores = len(_cores())
        if cores - others >= SHARE * min(threads, cores):
            return ""
        return str(now) if now.high else f"other programs take {others:.1f} of {cores} core{'s' * (cores > 1)}"


class _Time(NamedTuple):
    """Seconds."""

    working: float  # of the cores that this process may use, whoever worked on them
    own: float  # of this process, its threads and the processes that it waited for
    passed: float


def _cores() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


def _taken() -> _Time | None:
    """What Linux has counted so far."""
    try:
        with open(STAT) as file:
            lines = [line.split() for line in file if line[:3] == "cpu" and line[3:4].isdigit()]
        tick = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    mine = [[int(field) for field in line[1:9]] for line in lines if int(line[0][3:]) in _cores()]
    if not mine:
        return None
    every = sum(map(sum, mine))
    idle = sum(core[3] + core[4] for core in mine)  # waiting for a disk is idle
    here = os.times()
    own = here.user + here.system + here.children_user + here.children_system
    return _Time(tick * (every - idle), own, tick * every / len(mine))
