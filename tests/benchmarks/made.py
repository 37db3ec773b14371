"""A small made run of the benchmarks."""

from __future__ import annotations

import copy

FLOATS = "float rows, 8-bit weights"

OPERATIONS = 2 * 10**9
FAST = {"operations": OPERATIONS, "nbytes": 1e6, "isa": "avx512vnni", "kind": FLOATS}
PEER = {"operations": OPERATIONS, "nbytes": 1e6, "kind": FLOATS}


def row(group, name, best, median, **facts):
    return {"group": group, "name": name, "best": best, "median": median, **facts}


ROWS = [
    row("10x10x10", "int8 weights", 0.001, 0.0011, pack=0.003, **FAST),
    row("10x10x10", "int8 weights", 0.004, 0.005, **FAST | {"isa": "avx2"}),
    row("10x10x10", "float32 np.matmul", 0.010, 0.012, operations=OPERATIONS, baseline=True, library="numpy"),
    row("10x10x10", "slow", 0.003, 0.003, library="torch", **PEER),
    row("10x10x10", "quick", 0.002, 0.003, library="mkl", **PEER),
    row("10x10x10", "other", 0.0001, 0.0001, library="mkl", **PEER | {"kind": "integers"}),
    row("start", "import", 0.25, 0.5),
]
ROOFS = {
    "threads": 2,
    "bandwidth": {"one": 1e9, "all": 2e9},
    "peaks": {
        "avx512vnni": {"isa": "avx512vnni", "bits": [3, 8], "one": 2e12, "all": 4e12},
        "avx2": {"isa": "avx2", "bits": [8], "one": 0.5e12, "all": 1e12},
        "avx2narrow": {"isa": "avx2", "bits": [3], "one": 1e12, "all": 2e12},
    },
}


def data(rows=ROWS, measures=None, notes=(), roofs=ROOFS, **machine):
    """What pytest-benchmark would write."""
    facts = {"CPU": "A CPU", "instruction set": "avx512vnni", "threads": 2, **machine}
    benchmarks = [{"extra_info": {"rows": [r]}} for r in copy.deepcopy(rows)]
    benchmarks += [{"extra_info": {"measures": measures or {}, "notes": list(notes)}}, {"extra_info": {}}]
    return {"machine_info": {"fastq": facts, "roofs": roofs}, "benchmarks": benchmarks}
