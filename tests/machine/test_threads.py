"""The crew: every block once, whoever calls, from whichever process or thread."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fastq as fq
from fastq.machine import threads


@pytest.fixture
def operands(rng):
    """A product that is shared out on any instruction set."""
    x, w = rng.standard_normal((512, 512), dtype=np.float32), rng.standard_normal((512, 1536), dtype=np.float32)
    q = fq.quantize(w, axis=0)
    fq.set_num_threads(1)
    return x, q, x @ q


def test_any_number_of_threads_gives_the_same_bits(operands):
    x, q, expected = operands
    for count in (1, 2, 3, 5, 8):
        fq.set_num_threads(count)
        for _ in range(20):
            assert (x @ q == expected).all()
    assert len(threads._crew.workers) >= 7


def test_parked_workers_wake(operands):
    x, q, expected = operands
    fq.set_num_threads(2)
    for _ in range(5):
        assert (x @ q == expected).all()
        time.sleep(0.05)
    deadline = time.monotonic() + 10
    while not all(worker.parked for worker in threads._crew.workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (x @ q == expected).all()


def test_many_callers_at_once(operands):
    x, q, expected = operands
    fq.set_num_threads(2)
    wrong = []

    def call():
        for _ in range(50):
            if not (x @ q == expected).all():
                wrong.append(threading.current_thread().name)

    many = [threading.Thread(target=call) for _ in range(16)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join(120)
    assert not wrong
    assert not any(thread.is_alive() for thread in many)


def _child(x, w, expected, queue):
    fq.set_num_threads(2)
    queue.put(bool((x @ fq.quantize(w, axis=0) == expected).all()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_multiply(method, rng):
    if method not in multiprocessing.get_all_start_methods():
        assert sys.platform == "win32"
        return
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


def test_the_default_respects_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5}, raising=False)
    for quota, expected in ((None, 6), (2.5, 3), (0.1, 1), (64.0, 6)):
        monkeypatch.setattr(threads, "_cgroup_quota", lambda q=quota: q)
        assert threads.available_cpus() == expected
