"""Timing contenders against each other: in blocks of consecutive calls, round after round.

Threads of a library spin for some time after its call, and disturb whoever comes next; and the clock of a machine
drifts. So every contender rests before its block, its first calls do not count, and all take turns, several times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
from statistics import median
from typing import Any, NamedTuple

from fastq.bench.busy import Watch
from fastq.machine.pool import num_threads


class Pace(NamedTuple):
    """How long a contest lasts."""

    rounds: int = 4
    rest: float = 0.3  # seconds before each block
    seconds: float = 0.06  # a block ends after this time, but
    least: int = 3  # not before so many calls, and
    most: int = 500  # not after more
    dropped: int = 2  # calls at the start of a block that do not count
    limit: float = inf  # seconds that the contest may take; two rounds are held all the same


FULL = Pace()
QUICK = Pace(rounds=2, rest=0.05, seconds=0.0, dropped=1)
ONCE = Pace(rounds=1, rest=0.0, seconds=0.0, least=1, dropped=0)


class Entry(NamedTuple):
    """A contender that is ready to run."""

    name: str
    run: Callable[..., Any]
    facts: dict[str, Any] = {}  # noqa: RUF012, never changed: what fastq.bench.run.Row wants to know
    within: Callable[[], AbstractContextManager[Any]] = nullcontext  # what its blocks run in
    fresh: Callable[[], Any] | None = None  # makes the argument of each call, untimed
    rounds: int | None = None  # no more than so many


def hold(group: str, entries: Sequence[Entry], pace: Pace) -> list[dict[str, Any]]:
    """Hold a contest; returns what :class:`fastq.bench.run.Row` takes, for each entry."""
    blocks: list[list[list[float]]] = [[] for _ in entries]
    watch, start = Watch(), time.perf_counter()
    for number in range(pace.rounds):
        for entry, own in zip(entries, blocks):
            if entry.rounds is None or number < entry.rounds:
                time.sleep(pace.rest)
                with entry.within():
                    own.append(_block(entry, pace))
        passed = time.perf_counter() - start
        if number and passed * (number + 2) / (number + 1) > pace.limit:
            break
    busy = watch.busy(max((entry.facts.get("threads") or num_threads() for entry in entries), default=1))
    shared = {"group": group, "busy": busy}
    return [{**shared, "name": entry.name, **_times(own), **entry.facts} for entry, own in zip(entries, blocks)]


def _times(blocks: list[list[float]]) -> dict[str, Any]:
    bests, every = [min(block) for block in blocks], [one for block in blocks for one in block]
    rounds = [median(block) for block in blocks]
    return {"best": min(bests), "median": median(every), "drift": max(bests) - min(bests), "rounds": rounds}


def _block(entry: Entry, pace: Pace) -> list[float]:
    clock, run, fresh = time.perf_counter, entry.run, entry.fresh

    def call() -> float:
        arguments = () if fresh is None else (fresh(),)
        start = clock()
        run(*arguments)
        return clock() - start

    for _ in range(pace.dropped):
        call()
    times: list[float] = []
    end = clock() + pace.seconds
    while len(times) < pace.least or (len(times) < pace.most and clock() < end):
        times.append(call())
    return times
