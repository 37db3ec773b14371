"""Compiling ahead: kernels for ordinary use are stored in the kernel cache, and later processes load them.

Each core compiles in a process of its own, ``python -m fastq.cli.warmup``. It is told the name of one kernel after the
other, and ends when it is told no more, even if that is because the process that tells it was killed.
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

from fastq.engine.plan import this_machine
from fastq.kernels.table import ISAS, UNITS, entries
from fastq.machine import cores, cpu, jit, pool
from fastq.progress import Notice

BITS = sorted({bits for unit in UNITS for bits in unit.bits})
MOST_PROCESSES = 8  # of 0.2 GB each
CACHED, NOT_KEPT = "cached", "not kept"


class NotKeptError(Exception):
    """The cache did not keep a kernel."""


def run(
    bits: Sequence[int],
    everything: bool = False,
    epilogues: Sequence[str] = (),
    activations: Sequence[str] = (),
    float16: bool = False,
    top: bool = False,
) -> None:
    """Compile the kernels for right operands of these widths, and print a line for each kernel.

    `everything`: all widths, and all instruction sets that this CPU has instead of the one in use. `epilogues`,
    `activations`, `float16`, `top`: products with these, too (:func:`fastq.kernels.table.entries`). Raises NotKeptError
    if the cache does not keep a kernel.

    With AVX2 on two cores, all widths took 159 s (276 kernels, 310 s of CPU time), and two widths (8 and 3) 45 s. On
    one core 160 kernels took 226 s when Numba compiled each function by itself.
    """
    isas = cpu.available(ISAS) if everything else (this_machine().isa,)
    which = list(isas), list(BITS if everything else bits), list(epilogues), list(activations), float16, top
    wanted = _wanted(*which)
    width, compiled, start = max(map(len, wanted), default=0), 0, time.perf_counter()
    for name, result in _compiled(wanted, which):
        if result == NOT_KEPT:
            raise NotKeptError(
                "warmup needs a kernel cache: a folder that belongs to this user, that nobody else may write to, and "
                f"that has room; {name} could not be kept in {jit.cache_folder()}; set FASTQ_CACHE_DIR to such a folder"
            )
        compiled += result != CACHED
        print(f"{name:<{width}}  {result}", flush=True)
    print(
        f"{len(wanted)} kernels for {', '.join(isas)}: {compiled} compiled in {time.perf_counter() - start:.1f} s, "
        f"{len(wanted) - compiled} cached\n{'kernel cache:':<17} {jit.cache_folder()}"
    )


def _wanted(isas: Sequence[str], bits: Sequence[int], *more: Any) -> dict[str, Any]:
    """What makes each kernel, by name; `more` as :func:`fastq.kernels.table.entries` takes it."""
    needed = [entry for isa in isas for entry in entries(isa, bits, *more)]
    return {**pool.KERNELS, **{entry.name: entry.make for entry in needed}} if needed else {}


def _compiled(wanted: dict[str, Any], which: Any) -> Iterator[tuple[str, str]]:
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
    command = [sys.executable, "-m", "fastq.cli.warmup", json.dumps(which)]
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
    wanted = _wanted(*which)
    for line in sys.stdin:
        name = line.strip()
        print(_compile(name, wanted[name]), flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
