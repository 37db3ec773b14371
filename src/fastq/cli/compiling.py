"""Compiling many kernels on all cores.

Each core compiles in a process of its own, ``python -m fastq.cli.compiling``. It is told the name of one kernel after
the other, and ends when it is told no more, even if that is because the process that tells it was killed.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastq.kernels.table import entries
from fastq.machine import cores, jit, pool
from fastq.progress import Notice

MOST_PROCESSES = 8  # of 0.2 GB each
CACHED, NOT_KEPT = "cached", "not kept"


def wanted_kernels(isas: Sequence[str], bits: Sequence[int], *more: Any) -> dict[str, Any]:
    """What makes each kernel, by name; `more` as :func:`fastq.kernels.table.entries` takes it."""
    needed = [entry for isa in isas for entry in entries(isa, bits, *more)]
    return {**pool.KERNELS, **{entry.name: entry.make for entry in needed}} if needed else {}


def compiled(wanted: dict[str, Any], which: Any) -> Iterator[tuple[str, str]]:
    """Each name, and what came of it: seconds, :data:`CACHED` or :data:`NOT_KEPT`."""
    missing = sum(not jit.kept(name) for name in wanted)
    count = min(cores.available_cpus(), missing, MOST_PROCESSES)
    processes = _processes(count, which) if count > 1 else []
    if not processes:
        yield from ((name, _compile(name, make)) for name, make in wanted.items())
        return
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def by_a_process(name: str) -> str:
        process = idle.get()
        try:
            print(name, file=process.stdin, flush=True)
            answer = process.stdout.readline().strip()
        except OSError:  # it has ended
            answer = ""
        idle.put(process)
        return answer or _compile(name, wanted[name])

    executor = ThreadPoolExecutor(len(processes))
    try:
        yield from zip(wanted, executor.map(by_a_process, wanted))
    finally:
        executor.shutdown(cancel_futures=True)
        for process in processes:
            process.communicate()


def _processes(count: int, which: Any) -> list[Any]:
    """As many processes that compile as can be started."""
    command = [sys.executable, "-m", "fastq.cli.compiling", json.dumps(which)]
    processes: list[Any] = []
    with contextlib.suppress(OSError):
        while sys.executable and len(processes) < count:  # a program that holds a Python may not know where one is
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return processes


def _compile(name: str, make: Any) -> str:
    begun = time.perf_counter()
    if jit.kept(name):
        return CACHED
    jit.kernel(name, make)
    if not jit.kept(name):
        return NOT_KEPT
    return f"{time.perf_counter() - begun:.2f} s" if name in jit.compiled_names() else CACHED


def _serve(which: Any) -> None:
    """Compile what is asked for, line after line, and answer each with what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks gets it, too
    Notice.wanted = False  # that process prints a line for each kernel
    wanted = wanted_kernels(*which)
    for line in sys.stdin:
        name = line.strip()
        print(_compile(name, wanted[name]), flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
