"""Many callers at once: every result is what one caller alone gets, bit for bit."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastq as fq
from fastq.machine import cores, pool

from .cases import integers

SECONDS = float(os.environ.get("FASTQ_TEST_SECONDS", "60"))  # of the storm; fewer while you develop


@pytest.fixture
def calls(rng):
    """Calls of all kinds, some short and some shared among threads, with the results that one thread alone gives."""
    kinds = {}
    for name, m, k, n in (
        ("small", 4, 32, 48),
        ("row", 1, 1024, 2048),
        ("middle", 64, 512, 500),
        ("large", 300, 700, 900),
    ):
        x, w = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
        a8, b8 = integers(rng, (m, k), "uint8"), integers(rng, (k, n), "int8")
        for bits in (3, 8):
            q = fq.quantize(w, bits, axis=0, group_size=64 if name == "middle" else None)
            kinds[f"{name} product, {bits} bits"] = lambda x=x, q=q: x @ q
        kinds[f"{name} floats"] = lambda x=x, w=w: fq.matmul(x, w)
        kinds[f"{name} integers"] = lambda a8=a8, b8=b8: fq.matmul(a8, b8)
        for axis in (None, 0, -1):
            kinds[f"{name} codes along {axis}"] = lambda w=w, axis=axis: fq.quantize(w, 4, axis=axis).codes
    with fq.set_num_threads(1):
        return {name: (call, call()) for name, call in kinds.items()}


def join(many):
    for thread in many:
        thread.join(120)
    assert not any(thread.is_alive() for thread in many)


@pytest.mark.exhaustive
def test_a_storm(calls, many_cores):
    """Sixteen threads for a minute, while the number of threads per call changes."""
    wrong, counts = [], dict.fromkeys(calls, 0)
    end, first = time.monotonic() + SECONDS, pool._pool.epoch()

    def call(seed):
        order = np.random.default_rng(seed)
        try:
            while time.monotonic() < end:
                for i in order.permutation(len(calls)):
                    name = list(calls)[i]
                    function, expected = calls[name]
                    got = function()
                    if not np.array_equal(got, expected):
                        wrong.append(name)
                    counts[name] += 1
                    if seed == 0:
                        fq.set_num_threads([1, 2, 3, None][order.integers(4)])
        except Exception as error:
            wrong.append(error)

    many = [threading.Thread(target=call, args=(seed,)) for seed in range(16)]
    for thread in many:
        thread.start()
    time.sleep(SECONDS)
    join(many)
    assert not wrong
    assert all(counts.values())
    assert pool._pool.epoch() != first  # some were shared
    assert len(pool._pool.workers) >= 2


def test_tasks_of_an_executor(calls):
    """Tasks multiply, and hand out tasks of their own that do; the main thread multiplies meanwhile."""
    fq.set_num_threads(2)

    def task(name, inner):
        call, expected = calls[name]
        found = [pool.submit(call) for _ in range(inner)]
        return [np.array_equal(call(), expected), *(np.array_equal(f.result(), expected) for f in found)]

    with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(4) as outer:
        tasks = [outer.submit(task, name, 2) for _ in range(3) for name in calls]
        own = [np.array_equal(call(), expected) for call, expected in calls.values()]
        results = [task.result(120) for task in tasks]
    assert all(own)
    assert len(results) == 3 * len(calls)
    assert all(len(result) == 3 and all(result) for result in results)


def test_a_graph_of_tasks(rng):
    """A product in blocks, as Dask would do it: threads take what is ready, partial products are added."""
    fq.set_num_threads(2)
    blocks, size = 4, 160
    a, b = integers(rng, (blocks * size,) * 2, "int8"), integers(rng, (blocks * size,) * 2, "uint8")

    def block(array, i, j):
        return array[i * size : (i + 1) * size, j * size : (j + 1) * size]

    graph = {}  # name: (function, arguments, names of what comes before)
    for i, j in np.ndindex(blocks, blocks):
        for k in range(blocks):
            graph["part", i, j, k] = (fq.matmul, (block(a, i, k), block(b, k, j)), ())
            before = [("part", i, j, k), *([("sum", i, j, k - 1)] if k else [])]
            graph["sum", i, j, k] = (lambda *parts: sum(parts[1:], parts[0]), (), before)
    waiting = {name: set(before) for name, (_, _, before) in graph.items()}
    results, ready, lock = {}, queue.Queue(), threading.Lock()
    for name, before in waiting.items():
        if not before:
            ready.put(name)

    def work():
        while (name := ready.get()) is not None:
            function, arguments, before = graph[name]
            result = function(*arguments, *(results[other] for other in before))
            with lock:
                results[name] = result
                for other, missing in waiting.items():
                    if name in missing:
                        missing.remove(name)
                        if not missing:
                            ready.put(other)
                if len(results) == len(graph):
                    for _ in many:
                        ready.put(None)

    many = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in many:
        thread.start()
    join(many)
    c = np.block([[results["sum", i, j, blocks - 1] for j in range(blocks)] for i in range(blocks)])
    assert c.dtype == np.int32
    assert (c == a.astype(np.int64) @ b.astype(np.int64)).all()


@pytest.mark.parametrize("rounds", [25, pytest.param(100, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("hogs", [1, cores.available_cpus() + 1])
def test_a_hog(hogs, rounds, calls):
    """Other processes take the cores: a worker that does not get one must not hold a call up for good."""
    many = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)]
    wrong, done = [], []

    def work():
        for _ in range(rounds):
            wrong.extend(name for name, (call, expected) in calls.items() if not np.array_equal(call(), expected))
        done.append(True)

    try:
        fq.set_num_threads(2)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        join([thread])
    finally:
        for hog in many:
            assert hog.poll() is None  # it was there all the time
            hog.kill()
            hog.wait()
    assert not wrong
    assert done
