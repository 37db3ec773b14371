"""A benchmark of products: these shapes and widths, on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import Any, NamedTuple

import fastq as fq
from fastq.bench.busy import Watch
from fastq.bench.contest import INT8_CODES, MATMUL, Contender, enter, weights
from fastq.bench.machine import Machine, this_machine
from fastq.bench.peers import peers
from fastq.bench.problem import Problem
from fastq.bench.result import BenchResult, BenchRow, rows_of
from fastq.bench.roofs import Roofs
from fastq.bench.rounds import FULL, Pace, hold
from fastq.bench.run import Run, by_group, row
from fastq.bench.shapes import Shape
from fastq.engine.roofline import measurable

GROUPED = range(2, 7)  # widths whose groups have integer scales
LOOK = 0.25  # seconds to see whether the machine is busy
ALWAYS = 0.02  # seconds of a call that there is always time for: the rests between blocks are longer
CALLS = 20  # a peer has time for so many calls, of a share of the whole that is as large as any other's


class Wanted(NamedTuple):
    """What is asked for.

    Groups are those of 2 to 6 bits; wider codes have a scale per column. `codes`: 8-bit codes on both sides, too,
    beside the libraries that multiply integers alone.
    """

    bits: Sequence[int] = (8, 4, 3)
    group: int | None = None
    codes: bool = False
    threads: int | None = None  # None: as many as each takes by itself
    seconds: float = 60

    def contenders(self) -> list[Contender]:
        """float32 NumPy, fastq, and the peers of the same kinds."""
        ours = [weights(bits, self.group if bits in GROUPED else None) for bits in dict.fromkeys(self.bits)]
        ours += [INT8_CODES] * self.codes
        kinds = {contender.kind for contender in ours}
        return [MATMUL, *ours, *(peer for peer in peers() if peer.kind in kinds)]


def check_memory(shapes: Iterable[Shape]) -> None:
    """Raise MemoryError for a shape that this machine has no memory for."""
    for shape in shapes:
        # x, w and y in float32; w and y again for the check; codes, and copies of other libraries.
        needs = 4 * (2 * shape.m * shape.k + 3 * shape.k * shape.n + 3 * shape.m * shape.n)
        if (there := _memory()) and needs > there:
            raise MemoryError(f"{shape} takes about {needs / 1e9:,.1f} GB; this machine has {there / 1e9:,.1f} GB")


def bench(
    shapes: Iterable[Shape],
    wanted: Wanted,
    began: Callable[[Machine], None] = lambda machine: None,
    told: Callable[[Sequence[BenchRow], Sequence[str]], None] = lambda rows, notes: None,
    pace: Pace = FULL,
) -> BenchResult:
    """Hold a contest for each shape, in about `wanted.seconds`.

    `began` is told of the machine as soon as it is known, and `told` the rows and notes of each shape.
    """
    shapes, end = list(dict.fromkeys(shapes)), time.perf_counter() + wanted.seconds
    contenders, found, notes = wanted.contenders(), [], []
    with nullcontext() if wanted.threads is None else fq.set_num_threads(wanted.threads):
        machine = _looked_at()
        began(machine)
        roofs = Roofs([unit for unit in measurable() if unit.isa in (machine.isa, machine.isas[0])])
        for number, shape in enumerate(shapes):
            share = max(0.0, end - time.perf_counter()) / (len(shapes) - number)
            rows, more = _contest(shape, contenders, wanted.threads, pace, share, roofs)
            told(rows, more)
            found += rows
            notes += more
    if not machine.busy and (busy := [one for one in found if one.busy]):
        notes.append(f"the machine became busy: {len(busy)} of {len(found)} figures are marked")
    taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return BenchResult(machine, tuple(found), roofs.known, tuple(notes), taken)


def _memory() -> int:
    """Bytes of memory of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _looked_at() -> Machine:
    watch = Watch()
    time.sleep(LOOK)
    machine = this_machine()
    return this_machine(watch.busy(machine.threads))


def _contest(
    shape: Shape, contenders: Sequence[Contender], threads: int | None, pace: Pace, seconds: float, roofs: Roofs
) -> tuple[list[BenchRow], list[str]]:
    start = time.perf_counter()
    roofs.look()
    slowest = max(ALWAYS, seconds / len(contenders) / CALLS)
    entries, notes = enter(Problem(*shape), contenders, threads=threads, sqnr=True, slowest=slowest)
    limit = min(pace.limit, max(0.0, seconds - (time.perf_counter() - start)))
    facts: list[dict[str, Any]] = hold(str(shape), entries, pace._replace(limit=limit))
    run = Run({}, by_group(map(row, facts)), roofs.known)
    return list(rows_of(run, run.groups[str(shape)])), notes
