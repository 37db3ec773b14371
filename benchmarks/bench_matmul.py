"""Products of many shapes: float32 np.matmul, fastq and the peers that are installed, all in one contest per shape."""

from __future__ import annotations

from fastq.bench.contest import INT8, INT8_CODES, MATMUL, TWO, WEIGHTS, enter
from fastq.bench.peers import peers
from fastq.bench.problem import problem
from fastq.bench.run import LOW_BITS

WIDE = [(m, 4096, 4096) for m in (1, 16, 128, 1024)]
CUBES = [(n, n, n) for n in (64, 512, 1024, 2048, 4096)]
QUICK = [(1, 1024, 1024), (16, 1024, 1024), (64, 64, 64), (256, 256, 256)]
ONE_THREAD = [(1, 4096, 4096), (16, 4096, 4096), (2048, 2048, 2048)]
QUICK_ONE_THREAD = QUICK[-1:]

OURS = (INT8_CODES, WEIGHTS[8], WEIGHTS[4], WEIGHTS[3], INT8, TWO)
SLOW = 2 * 3072**3  # operations: low-bit peers take a second for more


def pytest_generate_tests(metafunc):
    quick, own = metafunc.config.getoption("quick"), metafunc.config.getoption("shape")
    shapes = {"bench_all_threads": own or (QUICK if quick else WIDE + CUBES)}
    shapes["bench_one_thread"] = own or (QUICK_ONE_THREAD if quick else ONE_THREAD)
    metafunc.parametrize("shape", shapes[metafunc.function.__name__], ids=lambda shape: "x".join(map(str, shape)))


def bench_all_threads(contest, shape):
    task = problem(*shape)
    contenders = [c for c in (MATMUL, *OURS, *peers()) if c.kind != LOW_BITS or task.operations < SLOW]
    contest(str(task), *enter(task, contenders))


def bench_one_thread(contest, shape):
    """Where two cores are compared with one, both take part."""
    task = problem(*shape)
    rivals = [c for c in peers() if c.kind in (INT8_CODES.kind, WEIGHTS[8].kind)]
    one, wrong = enter(task, (MATMUL, INT8_CODES, WEIGHTS[8], WEIGHTS[3], *rivals), threads=1)
    every, _ = enter(task, (WEIGHTS[8],))
    all_threads = [entry._replace(name=f"{entry.name}, all threads") for entry in every]
    contest(f"{task}, one thread", one + all_threads, wrong, rounds=3)
