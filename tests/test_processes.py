"""Processes that fork, spawn, are interrupted and end, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

START = """
import atexit, multiprocessing, os, signal, sys, threading, time
import numpy as np, fastq as fq
from fastq.machine import cores, pool

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in what they run in the background
cores.available_cpus = lambda: 2  # whatever there are
rng = np.random.default_rng(0)
x, w = rng.standard_normal((64, 512)).astype("f4"), rng.standard_normal((512, 1500)).astype("f4")
a8, b8 = rng.integers(-128, 128, (200, 512)).astype("i1"), rng.integers(-128, 128, (512, 900)).astype("i1")
exact = (a8.astype("f8") @ b8.astype("f8")).astype("i4")
q = fq.quantize(w, 3, axis=0)

def work(_=None):
    return x @ q, x[:1] @ q, fq.matmul(x, w), fq.matmul(a8, b8), fq.quantize(w, 4, axis=0).codes

def right(expected):
    got = work()
    return all(map(np.array_equal, got, expected)) and np.array_equal(got[3], exact)

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def start(code, *arguments, **variables):
    """Run START and the code, or a script."""
    program = ["-c", START + code] if isinstance(code, str) else [code]
    # Later Pythons warn when a process with threads forks.
    options = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *options, *program, *arguments], env={**os.environ, **variables}, **pipes)


def output(process):
    """What a process printed; it must have ended well and said nothing else."""
    with process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    return out


# Processes of processes

FORKS = {
    "before the first use": """
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        found = work()
        os._exit(0 if np.array_equal(found[3], exact) and pool._pool.workers else 1)
    children.append(child)
expected = work()
assert [ended(child) for child in children] == [0, 0]
assert right(expected)
""",
    "after the first use": """
expected = work()
for generation in range(3):  # a child's child as well
    child = os.fork()
    if child:
        assert ended(child) == 0
        break
    assert not pool._pool.workers
assert right(expected) and pool._pool.workers
""",
    "in the middle of products": """
expected = work()
stop = threading.Event()

def busy():
    while not stop.is_set():
        assert right(expected)

many = [threading.Thread(target=busy) for _ in range(3)]
for thread in many: thread.start()
codes = []
for i in range(12):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(20 + right(expected))
    codes.append(ended(child))
stop.set()
for thread in many: thread.join()
assert codes == [21] * 12, codes
assert right(expected)
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("when", FORKS)
def test_fork(when):
    assert output(start(FORKS[when])) == ""


POOLS = """
if __name__ == "__main__":
    method, when = sys.argv[1:]
    expected = work() if when == "after" else None
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = pool.map(work, range(4), chunksize=1)
        alone = context.Process(target=work)
        alone.start()
        expected = expected or work()
        assert all(right(one) for one in found)
        assert pool.map(right, [expected] * 4, chunksize=1) == [True] * 4
        alone.join(60)
        assert alone.exitcode == 0
    assert right(expected)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["spawn", *(["fork"] if hasattr(os, "fork") else [])])
def test_pools(method, when, tmp_path):
    """Pools made before the first use or after it; the parent multiplies while its children do."""
    script = tmp_path / "pools.py"
    script.write_text(START + POOLS)
    assert output(start(script, method, when)) == ""


# Ctrl-C

LOOP = """
expected = work()
for _ in range(8):
    threading.Timer(0.001 + 0.05 * rng.random(), os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            work()
    except KeyboardInterrupt:
        print("interrupted")
    assert right(expected)
"""

ONE_PRODUCT = """
a, b = rng.integers(-128, 128, (2048, 3072)).astype("i1"), rng.integers(-128, 128, (3072, 4096)).astype("i1")
out = fq.matmul(a, b)
print("go", flush=True)
try:
    while True:
        fq.matmul(a, b, out=out)
except KeyboardInterrupt:
    before = out.copy()
    print("interrupted")
time.sleep(0.1)
assert np.array_equal(out, before)  # nobody writes any more
assert np.array_equal(fq.matmul(a, b[:, :50]), (a.astype("f4") @ b[:, :50].astype("f8")).astype("i4"))
assert right(work())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_interrupts_in_a_loop_of_products():
    assert output(start(LOOP)) == "interrupted\n" * 8


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_an_interrupt_in_a_long_product():
    """One product takes a third of a second on the slowest path, so that is where the signal arrives."""
    process = start(ONE_PRODUCT, FASTQ_ISA="portable")
    assert process.stdout.readline() == "go\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert output(process) == "interrupted\n"


# The end

ENDS = {
    "while daemons multiply": """
expected = work()
def forever():
    while True:
        work()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.02)
print("end")
""",
    "while threads multiply": """
expected = work()
def a_while():
    for _ in range(20):
        assert right(expected)
    print("end")
threading.Thread(target=a_while).start()
""",
    "with a first use": """
atexit.register(lambda: print("end") if np.array_equal(work()[3], exact) else None)
""",
    "with another use": """
atexit.register(lambda: print("end") if right(expected) else None)
expected = work()
""",
    "while workers spin": """
print("end", flush=True)
work()
""",
    "while workers are parked": """
work()
while not all(worker.parked for worker in pool._pool.workers):
    time.sleep(0.001)
print("end")
""",
}


@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("how", ENDS)
def test_a_process_ends(how, times):
    for _ in range(times):
        assert output(start(ENDS[how])) == "end\n"
