"""A small pool of threads that share the blocks of one job.

Workers spin for a moment after each job before they park, because waking a parked thread takes longer than a matrix
times vector product. The thread that calls works itself, and never waits for a worker that has not begun: when the
tickets are gone it closes the gate, and whoever comes later finds it closed.

All of that is one 64-bit word, the *gate* (:mod:`fastq.machine.pool_job`), in memory that is never freed. Only one job
uses the pool at a time; a call that finds it busy runs on its own thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

from fastq.errors import shown
from fastq.machine import cores
from fastq.machine.jit import Kernel, kernels
from fastq.machine.job import Job
from fastq.machine.pool_job import CLOSED, PERMIT, PoolJob

SPINS = 50_000  # pauses before a worker parks: one to two milliseconds, as long as a pause takes 40 to 140 cycles
# Bytes around the gate that nothing else lies in, since all workers read it all the time. Apple's cache lines have 128;
# x86 fetches lines of 64 in pairs.
GATE_ROOM = 128


def _make(which: str) -> Callable[[], tuple[Any, type[Job]]]:
    def make() -> tuple[Any, type[Job]]:
        from fastq.machine import pool_kernels

        return getattr(pool_kernels, which), PoolJob

    return make


# What the pool itself runs, as :func:`fastq.machine.jit.kernel` takes it.
KERNELS = {f"pool_{name}": _make(name) for name in ("wait", "publish", "lead")}


class _Worker:
    """A thread that runs jobs, spins for more, and parks."""

    def __init__(self, pool: ThreadPool, wait: Kernel, number: int) -> None:
        self.job = PoolJob(gate=pool.gate_address, spins=SPINS, seen=pool.epoch())
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
            # A job may have come between the last look and the line above. The kernel begins with a fence, so this look
            # comes after that line for all threads, without the GIL, too.
            self.job.spins = 1
            self.wait(self.job)
            self.wake.acquire()
            self.parked = False

    def call(self) -> None:
        """Wake the worker if it is parked. To call it twice, or to interrupt it, does no harm."""
        if self.parked and self.wake.locked():
            self.wake.release()


class ThreadPool:
    """Workers, and the gate through which they enter a job."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.workers: list[_Worker] = []
        # Never freed, even when a forked child replaces the pool: a worker may look at it at any time.
        self.memory = (ctypes.c_char * (2 * GATE_ROOM))()
        self.gate_address = ctypes.addressof(self.memory) + (-ctypes.addressof(self.memory)) % GATE_ROOM
        ctypes.c_int64.from_address(self.gate_address).value = CLOSED
        self.kernels: tuple[Kernel, Kernel, Kernel] | None = None  # wait, publish, lead

    def epoch(self) -> int:
        """The number of the last job."""
        return ctypes.c_uint64.from_address(self.gate_address).value >> 32

    def hire(self, workers: int) -> None:
        """Have at least so many workers, as far as threads can be started."""
        if self.kernels is None:
            wait, publish, lead = kernels(*((name, make, True, True) for name, make in KERNELS.items()))
            self.kernels = wait, publish, lead
        while len(self.workers) < workers:
            try:
                self.workers.append(_Worker(self, self.kernels[0], len(self.workers)))
            except RuntimeError:  # out of threads, or the interpreter is shutting down
                return

    def run(self, function: Kernel, job: Job, threads: int) -> None:
        """Work on the job with others, close the gate and wait for those inside.

        It always waits, since the workers write to the caller's memory. If a signal handler raises in here
        (KeyboardInterrupt, say), the exception is raised at the end. To lead a finished job again does nothing, as its
        tickets are gone. No call goes deeper than :meth:`hire`, so there is no RecursionError after it.
        """
        if not self.busy.acquire(blocking=False):
            function(job)
            return
        interrupt = None
        try:
            self.hire(threads - 1)
            assert self.kernels is not None
            _, publish, lead = self.kernels
            task = PoolJob(gate=self.gate_address, permits=threads - 1)
            task.function, task.argument = function.address, ctypes.addressof(job)
            try:
                # Open first: a worker may wake on this very core, in place of this thread, and must find the job.
                publish(task)
                for worker in self.workers[: threads - 1]:
                    worker.call()
            except BaseException as error:
                interrupt = error
            while True:
                try:
                    lead(task)
                    break
                except BaseException as error:
                    interrupt = error
        finally:
            self.busy.release()
        if interrupt is not None:
            raise interrupt


_pool = ThreadPool()
_graveyard: list[ThreadPool] = []
_chosen: int | None = None


_calling = threading.local()


@contextmanager
def alone() -> Iterator[None]:
    """In the block, calls from this thread use one thread each: the caller runs many of them side by side."""
    before = getattr(_calling, "alone", False)
    _calling.alone = True
    try:
        yield
    finally:
        _calling.alone = before


def num_threads() -> int:
    """Threads that one call may use: as many as were asked for, and no more than there are cores."""
    if getattr(_calling, "alone", False):
        return 1
    wanted, available = wanted_threads(), cores.available_cpus()
    return min(available if wanted is None else wanted, available, PERMIT - 1)


def wanted_threads() -> int | None:
    """Threads that were asked for, by setting or else by variable; None for all cores."""
    chosen = _chosen  # read once: another thread may take it back
    return chosen if chosen is not None else _default()


@lru_cache(maxsize=1)
def _default() -> int | None:
    text = os.environ.get("FASTQ_NUM_THREADS", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"FASTQ_NUM_THREADS must be a positive integer, got {text!r}; unset it to use all cores")
    return int(text)


class _Setting:
    """A number of threads that was set, and the setting before it."""

    def __init__(self, threads: int | None) -> None:
        self.threads, self.before = threads, _chosen
        self.__enter__()

    def __enter__(self) -> None:
        global _chosen
        _chosen = self.threads

    def __exit__(self, *error: object) -> None:
        global _chosen
        _chosen = self.before

    def __repr__(self) -> str:  # an interactive session shows it
        return f"set_num_threads({self.threads})"


def set_num_threads(threads: int | None) -> AbstractContextManager[None]:
    """Set how many threads one call may use, from now on or for a ``with`` block.

    The setting is the process's: it holds for calls from all its threads, so two of them that set it in blocks that
    overlap disturb each other.

    Parameters
    ----------
    threads : int or None
        None: as many as ``FASTQ_NUM_THREADS`` says, or else all cores that the process may use (its affinity, or its
        control group's quota where that is less; on macOS, the performance cores). A call never uses more threads than
        that many cores, whatever is set.

    Returns
    -------
    context manager
        Leaving it restores the setting before the call. Without ``with``, the setting stays.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> x = np.eye(2)
    >>> with fq.set_num_threads(1):
    ...     print(fq.matmul(x, x))
    [[1. 0.]
     [0. 1.]]
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads must be a positive integer or None, got {shown(threads)}")
    return _Setting(threads)


def run(function: Kernel, job: Job, threads: int) -> None:
    """Run a kernel on a job with up to `threads` threads, of which the calling one is the first."""
    if threads <= 1:
        function(job)
    else:
        _pool.run(function, job, threads)


def _after_fork() -> None:
    global _pool
    _graveyard.append(_pool)
    _pool = ThreadPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
