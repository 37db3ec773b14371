"""How fast this machine can be: multiplications out of registers, bytes out of memory. Measured, not looked up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine.plan import this_machine
from fastq.engine.pointers import flat, written
from fastq.kernels.jobs import MultiplyJob, ReadJob
from fastq.kernels.table import ISAS, UNITS, Unit
from fastq.layout.tiles import BLOCK, DEPTH, STEP, STEPS, pack_codes, segments
from fastq.machine import cpu, pool
from fastq.machine.jit import Kernel, kernel
from fastq.machine.job import Job

SHARES = 16  # tickets per thread
REPEATS = 5  # the best one counts: what disturbs a run only makes it slower


class Rate(NamedTuple):
    """Something per second, on one thread and on all."""

    one: float
    all: float


@dataclass(frozen=True)
class Roofline:
    """What bounds every kernel on this machine.

    Attributes
    ----------
    threads : int
        How many "all" are.
    peaks : mapping of str to Rate
        Operations (multiplications and additions) per second out of registers, by unit of the kernel table.
    bandwidth : Rate
        Bytes per second read from a buffer beyond the L2 cache: from memory, or from a last-level cache that holds it.
    """

    threads: int
    peaks: Mapping[str, Rate]
    bandwidth: Rate

    def __repr__(self) -> str:
        count = f"{self.threads} thread" + "s" * (self.threads > 1)
        rows = [f"{name} {r.one / 1e9:.0f} and {r.all / 1e9:.0f} 10^9 op/s" for name, r in self.peaks.items()]
        rows.append(f"reading {self.bandwidth.one / 1e9:.1f} and {self.bandwidth.all / 1e9:.1f} GB/s")
        return f"Roofline(1 and {count}: {', '.join(rows)})"


def roofline(seconds: float = 0.02, nbytes: int = 64 << 20, units: Sequence[Unit] | None = None) -> Roofline:
    """Measure this machine's peaks.

    Parameters
    ----------
    seconds : float
        About how long one run of multiplications takes; there are five for each unit and number of threads.
    nbytes : int
        Size of the buffer that is read.
    units : sequence of Unit, optional
        Whose peaks to measure, by default those of all units that this CPU can run.

    Raises
    ------
    RuntimeError
        If a sum is wrong: then nothing that this machine computes can be trusted.
    """
    workers = this_machine().threads
    units = measurable() if units is None else units
    peaks = {unit.name: Rate(*(_peak(unit, seconds, n) for n in (1, workers))) for unit in units}
    return Roofline(workers, peaks, Rate(*(_bandwidth(nbytes, n) for n in (1, workers))))


def measurable() -> list[Unit]:
    """The units that this CPU can run."""
    return [unit for unit in UNITS if unit.isa in cpu.available(ISAS)]


def _peak(unit: Unit, seconds: float, workers: int) -> float:
    tickets = SHARES * workers
    depth = DEPTH if unit.k_block else STEP  # a round multiplies whole tiles, or a step in vector registers
    per_round = 2 * depth * unit.rows * unit.blocks * BLOCK
    rounds = max(1, int(seconds * unit.rate * 1e9 * workers / per_round / tickets))
    best = _best(lambda: multiply(unit, tickets, rounds, workers))
    return per_round * rounds * tickets / best


def _bandwidth(nbytes: int, workers: int) -> float:
    tickets = SHARES * workers
    words = max(1, nbytes // 8 // tickets)
    data = np.arange(words * tickets, dtype=np.int64)
    return data.nbytes / _best(lambda: read(data, tickets, workers))


def _best(timed: Callable[[], float]) -> float:
    return min(timed() for _ in range(REPEATS))


def multiply(unit: Unit, tickets: int, rounds: int, workers: int) -> float:
    """Multiply out of registers and check the sums; returns the seconds it took."""
    left, right, exact = (_tiles if unit.k_block else _vectors)(unit, rounds)
    sums = np.empty((tickets, *exact.shape), np.int32)
    task = MultiplyJob(tickets=tickets, rounds=rounds)
    task.left, task.right = (flat(a, a.dtype, a.size) for a in (left, right))
    task.sums = written(sums, np.int32, sums.size)
    took = _timed(kernel(f"peak_{unit.name}", _make_multiply(unit)), task, workers)
    _check(sums, exact.astype(np.uint32).view(np.int32), f"multiplying on {unit.name}")  # int32 wraps modulo 2**32
    return took


def _vectors(unit: Unit, rounds: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Operands for vector registers, and the exact sums: left codes change from step to step, right ones stay."""
    rng = np.random.default_rng(0)
    # All four k of a step have one left code, so that their order, which differs by unit, does not show.
    left = rng.integers(-128, 128, (STEPS, unit.rows, 1)).repeat(STEP, axis=2)
    right = rng.integers(0, 2 ** unit.bits[-1], (unit.blocks * BLOCK, STEP))
    times = rounds // STEPS + (np.arange(STEPS) < rounds % STEPS)
    exact = numpys.einsum("s,srk,ck->rc", times, left, right)
    return left.astype(f"int{8 * unit.left_bytes}"), right.astype(np.uint8), exact


def _tiles(unit: Unit, rounds: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Operands for tile registers, and the exact sums."""
    rng = np.random.default_rng(0)
    left = rng.integers(-128, 128, (unit.rows, DEPTH))
    right = rng.integers(0, 256, (DEPTH, unit.blocks * BLOCK))
    tiles = pack_codes(right.astype(np.uint8), segments(DEPTH), 8)
    return left.astype(np.int8), tiles, rounds * (left @ right)


def read(data: npt.NDArray[np.int64], tickets: int, workers: int) -> float:
    """Read an array, a multiple of `tickets` long, and check its sums; returns the seconds it took."""
    parts = data.reshape(tickets, -1)
    sums = np.empty(tickets, np.int64)
    task = ReadJob(tickets=tickets, words=parts.shape[1])
    task.data, task.sums = flat(data, np.int64, parts.size), written(sums, np.int64, tickets)
    took = _timed(kernel("peak_read", _make_read), task, workers)
    _check(sums, parts.sum(axis=1), "reading")
    return took


def _timed(function: Kernel, task: Job, workers: int) -> float:
    start = time.perf_counter()
    pool.run(function, task, workers)
    return time.perf_counter() - start


def _check(sums: npt.NDArray[Any], expected: npt.NDArray[Any], work: str) -> None:
    wrong = np.flatnonzero(sums != expected)
    if wrong.size:
        right = np.broadcast_to(expected, sums.shape).flat[wrong[0]]
        raise RuntimeError(f"{work} gave {wrong.size} wrong sums of {sums.size}: {sums.flat[wrong[0]]} must be {right}")


def _make_multiply(unit: Unit) -> Callable[[], tuple[Any, type[Job]]]:
    def make() -> tuple[Any, type[Job]]:
        from fastq.kernels.dot import peak

        return (peak.multiply_tiles if unit.k_block else peak.multiply)(unit.micro_kernel()), MultiplyJob

    return make


def _make_read() -> tuple[Any, type[Job]]:
    from fastq.kernels.dot import peak

    return peak.read, ReadJob
