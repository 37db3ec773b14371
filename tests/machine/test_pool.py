"""The thread pool: every block once, whoever calls, from whichever process or thread."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq.engine import roofline
from fastq.engine.memory import address_of
from fastq.kernels import jobs
from fastq.machine import jit, pool
from fastq.machine.pool_job import CLOSED, PERMIT


def wait_until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def operands(rng):
    """A product that is shared out on any instruction set."""
    x, w = rng.standard_normal((512, 512), dtype=np.float32), rng.standard_normal((512, 1536), dtype=np.float32)
    q = fq.quantize(w, axis=0)
    fq.set_num_threads(1)
    return x, q, x @ q


def test_any_number_of_threads_gives_the_same_bits(operands, many_cores):
    x, q, expected = operands
    for count in (1, 2, 3, 5, 8):
        fq.set_num_threads(count)
        for _ in range(20):
            assert (x @ q == expected).all()
    assert len(pool._pool.workers) >= 7


def test_parked_workers_wake(operands):
    x, q, expected = operands
    fq.set_num_threads(2)
    for _ in range(5):
        assert (x @ q == expected).all()
        time.sleep(0.05)
    wait_until(lambda: all(worker.parked for worker in pool._pool.workers))
    assert (x @ q == expected).all()


@pytest.mark.parametrize("rounds", [20, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_many_callers_at_once(operands, rounds):
    x, q, expected = operands
    fq.set_num_threads(2)
    wrong = []

    def call():
        for _ in range(rounds):
            if not (x @ q == expected).all():
                wrong.append(threading.current_thread().name)

    many = [threading.Thread(target=call) for _ in range(16)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join(120)
    assert not wrong
    assert not any(thread.is_alive() for thread in many)


class Interrupted:
    """What is called in here is interrupted once: before its work is done, or after it."""

    def __init__(self, real, late, error=KeyboardInterrupt):
        self.real, self.late, self.error = real, late, error

    def __call__(self, *args):
        error, self.error = self.error, None
        if self.late or error is None:
            self.real(*args)
        if error is not None:
            raise error


@pytest.fixture
def sums():
    """A job of 200 tickets, which a kernel is to run; whether it is done, each ticket once."""
    data, found = np.arange(200 * 5_000), np.zeros(200, np.int64)
    task = jobs.ReadJob(tickets=200, words=5_000, data=address_of(data), sums=address_of(found))
    read = jit.kernel("peak_read", roofline._make_read)
    return partial(pool.run, read, task, 3), lambda: (found == data.reshape(200, -1).sum(axis=1)).all()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])  # a signal's handler may raise what it likes
@pytest.mark.parametrize("which", [1, 2])  # publish, lead
def test_an_interrupt_is_raised_when_the_work_is_done(which, error, late, sums, monkeypatch):
    """Workers write to the caller's memory, which may be gone once the call is left."""
    run, done = sums
    threads = pool._pool
    threads.hire(2)
    kernels = list(threads.kernels)
    kernels[which] = Interrupted(kernels[which], late, error)
    monkeypatch.setattr(threads, "kernels", tuple(kernels))
    with pytest.raises(error):
        run()
    state = ctypes.c_uint64.from_address(threads.gate_address).value
    assert state & CLOSED
    assert state % PERMIT == 0  # nobody is inside
    assert done()
    assert not threads.busy.locked()


def test_a_worker_whose_waking_was_interrupted_is_woken_by_the_next_call(sums, monkeypatch):
    run, _ = sums
    pool._pool.hire(2)
    worker = pool._pool.workers[0]
    wait_until(lambda: worker.parked and worker.wake.locked())  # not one that is on its way
    wake = worker.wake
    worker.wake = SimpleNamespace(release=Interrupted(wake.release, False), acquire=wake.acquire, locked=wake.locked)
    seen = worker.job.seen
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
        assert worker.job.seen == seen

        def enters():
            run.args[1].ticket = 0
            run()
            return worker.job.seen != seen

        wait_until(enters)
    finally:
        worker.wake = wake


def test_a_job_that_comes_while_a_worker_parks_is_found(sums, monkeypatch):
    """The caller found the worker awake, and woke nobody; the worker's last look at the gate comes after that."""
    run, done = sums
    read, task, _ = run.args
    pool._pool.hire(1)
    wait, publish, lead = pool._pool.kernels
    threads = pool.ThreadPool()
    pool._graveyard.append(threads)
    call = pool.PoolJob(gate=threads.gate_address, permits=1, function=read.address, argument=ctypes.addressof(task))
    looks = []

    def waits(job):
        wait_until(lambda: threads.workers)
        looks.append(threads.workers[0].parked)
        wait(job)
        if len(looks) == 1:
            publish(call)

    monkeypatch.setattr(pool, "SPINS", 10)
    threads.kernels = waits, publish, lead
    threads.hire(1)
    wait_until(done)
    lead(call)
    assert looks[:2] == [False, True]


def test_nothing_else_lies_near_the_gate():
    """Within the lines of 128 bytes of Apple's CPUs, and the pairs of lines that x86 fetches."""
    for threads in [pool.ThreadPool() for _ in range(20)]:
        first = ctypes.addressof(threads.memory)
        assert threads.gate_address % 128 == 0
        assert first <= threads.gate_address <= first + len(threads.memory) - 128


def _child(x, w, expected, queue):
    fq.set_num_threads(2)
    queue.put(bool((x @ fq.quantize(w, axis=0) == expected).all()))


# Later Pythons warn when a process with threads forks.
FORKS = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@FORKS
@pytest.mark.parametrize("method", ["spawn", *(["fork"] if hasattr(os, "fork") else [])])
def test_child_processes_multiply(method, rng):
    x, w = rng.standard_normal((64, 256), dtype=np.float32), rng.standard_normal((256, 512), dtype=np.float32)
    fq.set_num_threads(2)
    expected = x @ fq.quantize(w, axis=0)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_child, args=(x, w, expected, queue))
    child.start()
    assert queue.get(timeout=120) is True
    child.join(30)
    assert child.exitcode == 0


@FORKS
def test_a_fork_in_the_middle_of_products(operands):
    """A thread is inside a product while another forks; the child's own products work and it ends."""
    x, q, expected = operands
    fq.set_num_threads(2)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            _ = x @ q

    busy = threading.Thread(target=work)
    busy.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if (x @ q == expected).all() else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        busy.join()


def test_the_process_ends_while_workers_spin():
    code = (
        "import numpy as np, fastq as fq; fq.set_num_threads(2); x = np.ones((256, 512), np.float32); "
        "q = fq.quantize(np.ones((512, 512), np.float32), axis=0); y = x @ q; print(y[0, 0])"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "512.0\n", "")


def test_no_thread_is_started_before_it_is_needed():
    code = (
        "import threading, numpy as np, fastq as fq; x = np.ones((8, 8), np.float32); y = x @ fq.quantize(x); "
        "print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n"


def test_a_thread_that_is_one_of_many_works_alone(many_cores):
    """The setting is this thread's: others go on as before, and so does this one after the block."""
    elsewhere = []
    pool.set_num_threads(5)
    with pool.alone():
        assert pool.num_threads() == 1
        with pool.alone():
            assert pool.num_threads() == 1
        assert pool.num_threads() == 1
        other = threading.Thread(target=lambda: elsewhere.append(pool.num_threads()))
        other.start()
        other.join()
    assert elsewhere == [5]
    assert pool.num_threads() == 5
    with pytest.raises(KeyError), pool.alone():
        raise KeyError
    assert pool.num_threads() == 5
