"""What all benchmarks share: the --quick option, a rest before each, facts about the machine."""

from __future__ import annotations

import time
from importlib.metadata import version

import pytest

from fastq.kernels.table import ISAS
from fastq.machine import cpu, threads

REST = 0.3  # seconds: BLAS threads spin for a while after a call and would slow the next contender down


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="small shapes and few rounds: shows that benchmarks work")


def pytest_configure(config):
    if config.getoption("quick"):  # before pytest-benchmark, which reads its options last of all
        config.option.benchmark_max_time = "0.02"
        config.option.benchmark_min_rounds = 3


@pytest.fixture
def quick(request):
    """Whether small shapes and few rounds are wanted."""
    return request.config.getoption("quick")


@pytest.fixture(autouse=True)
def _rest(request, quick):
    if request.config.getoption("benchmark_enable") or not request.config.getoption("benchmark_disable"):
        time.sleep(REST / 6 if quick else REST)


def pytest_benchmark_update_machine_info(config, machine_info):
    """Add what fastq found to the JSON; report.py prints it."""
    machine_info["fastq"] = {
        "CPU": cpu.cpu_name(),
        "instruction set": cpu.chosen(ISAS),
        "this CPU has": ", ".join(cpu.available(ISAS)),
        "threads": threads.num_threads(),
        "BLAS": _blas(),
        **{name: version(name) for name in ("fastq", "numpy", "numba")},
    }


def _blas():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    # The first one is NumPy's; Numba brings in SciPy's as well.
    found = next((library for library in threadpool_info() if library["user_api"] == "blas"), None)
    facts = ("internal_api", "version", "architecture", "num_threads")
    return " ".join(str(found.get(fact, "?")) for fact in facts) + " threads" if found else "none"
