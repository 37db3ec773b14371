"""Rows and results that were not measured."""

from __future__ import annotations

from fastq.bench.machine import Machine
from fastq.bench.result import BenchResult
from fastq.bench.run import FLOAT32, FLOATS, NUMPY, Row, Run

MACHINE = Machine("A CPU (R)", "Linux x86_64", "avx2", ("avx2", "portable"), 2, 2, "openblas", {"fastq": "1"}, 0.5)
ROOFS = {
    "threads": 2,
    "bandwidth": {"one": 1e9, "all": 2e9},
    "peaks": {"avx2": {"isa": "avx2", "bits": [8], "one": 1e12, "all": 2e12}},
}


def row(name, best, rounds, **facts):
    """A row whose medians by round are these."""
    shared = {"group": "8x16x32", "shape": (8, 16, 32), "operations": 2 * 10**9, "nbytes": 1e6, "median": rounds[0]}
    return Row(
        **{**shared, "name": name, "best": best, "rounds": tuple(rounds), "isa": "avx2", "kind": FLOATS, **facts}
    )


def numpy(best=0.010, rounds=(0.010, 0.010, 0.010, 0.010), **facts):
    more = {"library": NUMPY, "baseline": True, "isa": None, "bits": 32, "kind": FLOAT32, "sqnr": 130.0}
    return row("float32 np.matmul", best, rounds, **more | facts)


def ours(best=0.002, rounds=(0.002, 0.002, 0.002, 0.002), **facts):
    return row("int8 weights", best, rounds, **{"sqnr": 39.5, **facts})


def result(*rows, machine=MACHINE, taken="2026-01-02T03:04:05+00:00"):
    run = Run({}, {"8x16x32": list(rows or (numpy(), ours()))}, ROOFS)
    return BenchResult.of_run(run, machine, taken)
