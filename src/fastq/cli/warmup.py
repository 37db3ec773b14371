"""Compile kernels for ordinary use now, on all cores, and keep them in the kernel cache, from which later processes
load them: for images and fleets. All widths take one to three minutes on two cores.
"""

# Each core compiles in a process of its own, ``python -m fastq.cli.warmup``. It is told the name of one kernel after
# the other, and ends when it is told no more, even if that is because the process that tells it was killed.

from __future__ import annotations

import argparse
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

from fastq.cli import output
from fastq.engine.plan import this_machine
from fastq.kernels.epilogue.outputs import ACTIVATIONS
from fastq.kernels.table import ISAS, UNITS, entries
from fastq.machine import cores, cpu, jit, pool
from fastq.progress import Notice
from fastq.scheme import GROUP, TWO_PLANE

BITS = sorted({bits for unit in UNITS for bits in unit.bits})
MOST_PROCESSES = 8  # of 0.2 GB each
CACHED, NOT_KEPT = "cached", "not kept"


class NotKeptError(RuntimeError):
    """The cache did not keep a kernel."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    which = parser.add_mutually_exclusive_group()
    widths = "widths of right operands, all by default: those of weights, and 8 for floats that matmul quantizes"
    which.add_argument("--bits", type=int, nargs="+", choices=BITS, default=BITS, help=widths)
    which.add_argument("--all", action="store_true", help="all widths, on every instruction set that this CPU has")
    parser.add_argument(
        "--epilogue", nargs="+", choices=ACTIVATIONS, default=(), help="activation functions besides none"
    )
    finer = "ways of quantizing floats on the fly besides by row"
    parser.add_argument("--activations", nargs="+", choices=(GROUP, TWO_PLANE), default=(), help=finer)
    parser.add_argument("--float16", action="store_true", help="products in float16, too")
    parser.add_argument("--search", action="store_true", help="top_k, too")


def run(given: argparse.Namespace) -> None:
    """Compile the kernels, and tell of each. Raises NotKeptError if the cache does not keep one.

    With AVX2 on two cores, all widths took 159 s (276 kernels, 310 s of CPU time), and two widths (8 and 3) 45 s. On
    one core 160 kernels took 226 s when Numba compiled each function by itself.
    """
    machine, start = this_machine(), time.perf_counter()
    isas, bits = (cpu.available(ISAS), BITS) if given.all else ((machine.isa,), given.bits)
    which = list(isas), list(bits), list(given.epilogue), list(given.activations), given.float16, given.search
    wanted, results = _wanted(*which), dict[str, str]()
    width, tell = max(map(len, wanted), default=0), output.note if given.json else _print
    for name, result in _compiled(wanted, which):
        if result == NOT_KEPT:
            raise NotKeptError(
                "warmup needs a kernel cache: a folder that belongs to this user, that nobody else may write to, and "
                f"that has room; {name} could not be kept in {jit.cache_folder()}; set FASTQ_CACHE_DIR to such a folder"
            )
        results[name] = result
        tell(f"{name:<{width}}  {result}")
    cached, seconds = sum(result == CACHED for result in results.values()), time.perf_counter() - start
    if given.json:
        output.document(
            {
                "instruction_sets": list(isas),
                "kernels": [{"name": name, "seconds": _seconds(result)} for name, result in results.items()],
                "compiled": len(results) - cached,
                "cached": cached,
                "seconds": round(seconds, 3),
                "cache": jit.cache_folder(),
            }
        )
        return
    print(
        f"{len(wanted)} kernels for {', '.join(isas)}: {len(results) - cached} compiled in {seconds:.1f} s, "
        f"{cached} cached\n{'kernel cache:':<17} {jit.cache_folder()}"
    )


def _print(line: str) -> None:
    print(line, flush=True)


def _seconds(result: str) -> float | None:
    """How long a kernel took to compile; None if it was there."""
    return None if result == CACHED else float(result.split()[0])


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
