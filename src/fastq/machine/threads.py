"""A small crew of threads that share the blocks of one job.

Workers spin for a moment after each job before they park, because waking a parked thread takes longer than a matrix
times vector product. The thread that calls works itself, and never waits for a worker that has not begun: when the
tickets are gone it closes the gate, and whoever comes later finds it closed.

All of that is one 64-bit word, the *gate* (:mod:`fastq.machine.gate`), in memory that is never freed. Only one job uses
the crew at a time; a call that finds it busy runs on its own thread.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from functools import lru_cache
from typing import Any

from fastq.machine.gate import CLOSED, PERMIT, CrewJob
from fastq.machine.jit import Kernel, kernel
from fastq.machine.job import Job

SPINS = 50_000  # pauses before a worker parks: one to two milliseconds, as long as a pause takes 40 to 140 cycles


def available_cpus() -> int:
    """Cores that this process may use: its affinity, or its cgroup's quota where that is less."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, math.ceil(quota))) if quota else count


def _cgroup_quota() -> float | None:
    for path, parse in (("/sys/fs/cgroup/cpu.max", str.split), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", None)):
        try:
            with open(path) as file:
                text = file.read().strip()
            if parse is not None:
                quota, period = parse(text)
            else:
                with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
                    quota, period = text, file.read().strip()
            if quota not in ("max", "-1"):
                return float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None


class _Worker:
    """A thread that runs jobs, spins for more, and parks."""

    def __init__(self, crew: _Crew, wait: Kernel, number: int) -> None:
        self.job = CrewJob(gate=crew.gate_address, spins=SPINS, seen=crew.epoch())
        self.wait = wait
        self.parked = False
        self.wake = threading.Lock()
        self.wake.acquire()
        # A daemon: at interpreter exit it may be in native code, where nothing of Python is touched.
        threading.Thread(target=self._live, name=f"fastq-{number}", daemon=True).start()

    def _live(self) -> None:
        while True:
            self.job.spins = SPINS
            self.wait(self.job)
            self.parked = True
            self.job.spins = 1  # a job may have come between the last look and the line above
            self.wait(self.job)
            self.wake.acquire()


class _Crew:
    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.workers: list[_Worker] = []
        # Never freed, even when a forked child replaces the crew: a worker may look at it at any time.
        self.memory = (ctypes.c_int64 * 16)()
        self.gate_address = ctypes.addressof(self.memory) + (-ctypes.addressof(self.memory)) % 64
        ctypes.c_int64.from_address(self.gate_address).value = CLOSED
        self.kernels: tuple[Kernel, Kernel, Kernel] | None = None  # wait, publish, lead

    def epoch(self) -> int:
        return ctypes.c_uint64.from_address(self.gate_address).value >> 32

    def hire(self, workers: int) -> None:
        """Have at least so many workers, as far as threads can be started."""
        if self.kernels is None:
            wait, publish, lead = (kernel(f"crew_{name}", _make(name)) for name in ("wait", "publish", "lead"))
            self.kernels = wait, publish, lead
        while len(self.workers) < workers:
            try:
                self.workers.append(_Worker(self, self.kernels[0], len(self.workers)))
            except RuntimeError:  # out of threads, or the interpreter is shutting down
                return

    def run(self, function: Kernel, job: Job, threads: int) -> None:
        if not self.busy.acquire(blocking=False):
            function(job)
            return
        try:
            self.hire(threads - 1)
            assert self.kernels is not None
            lead = CrewJob(gate=self.gate_address, permits=threads - 1)
            lead.function, lead.argument = function.address, ctypes.addressof(job)
            try:
                # Open first: a worker may wake on this very core, in place of this thread, and must find the job.
                self.kernels[1](lead)
                for worker in self.workers[: threads - 1]:
                    if worker.parked:
                        worker.parked = False
                        worker.wake.release()
            finally:
                self._lead(lead)
        finally:
            self.busy.release()

    def _lead(self, lead: Job) -> None:
        """Work, close the gate and wait for those inside: whatever happens, for they write to the caller's memory.

        An interrupt is raised afterwards. To lead a finished job again does nothing, since its tickets are gone.
        """
        assert self.kernels is not None
        interrupt = None
        while True:
            try:
                self.kernels[2](lead)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


_crew = _Crew()
_graveyard: list[_Crew] = []
_chosen: int | None = None


def num_threads() -> int:
    """Threads that one call may use."""
    return _chosen if _chosen is not None else _default()


@lru_cache(maxsize=1)
def _default() -> int:
    text = os.environ.get("FASTQ_NUM_THREADS", "")
    if not text:
        return available_cpus()
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"FASTQ_NUM_THREADS must be a positive integer, got {text!r}; unset it to use all cores")
    return min(int(text), PERMIT - 1)


def set_num_threads(threads: int | None) -> None:
    """Set how many threads one call may use; None for all cores that the process may use."""
    global _chosen
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}")
    _chosen = threads if threads is None else min(threads, PERMIT - 1)


def run(function: Kernel, job: Job, threads: int) -> None:
    """Run a kernel on a job with up to `threads` threads, of which the calling one is the first."""
    if threads <= 1:
        function(job)
    else:
        _crew.run(function, job, threads)


def _make(which: str) -> Any:
    def make() -> tuple[Any, type[Job]]:
        from fastq.machine import crew

        return getattr(crew, which), CrewJob

    return make


def _after_fork() -> None:
    global _crew
    _graveyard.append(_crew)
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
