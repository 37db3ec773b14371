"""What all benchmarks share: the --quick option, contests and where their results go, facts about the machine."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

import pytest

import peers
from fastq.engine.roofline import measurable, roofline
from fastq.kernels.table import ISAS
from fastq.machine import cpu, threads
from rounds import FULL, ONCE, QUICK, hold


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="small shapes and few rounds: shows that benchmarks work")


@pytest.fixture
def quick(request):
    """Whether small shapes and few rounds are wanted."""
    return request.config.getoption("quick")


@pytest.fixture
def pace(benchmark, quick):
    """How long a contest lasts."""
    return ONCE if benchmark.disabled else QUICK if quick else FULL


@pytest.fixture
def keep(benchmark):
    """A function that keeps what ``work()`` gives, under a name that report.py knows: rows, measures or notes.

    To pytest-benchmark a contest is one benchmark that runs once; the times of its contenders are extra information.
    """

    def keep(name, work, notes=()):
        _roofs()  # once before anything is timed; again when all is over
        benchmark.extra_info[name] = benchmark.pedantic(work, rounds=1)
        benchmark.extra_info["notes"] = list(notes)

    return keep


@pytest.fixture
def contest(keep, pace):
    """A function that holds a contest of these entries; keywords change its pace."""

    def contest(group, entries, notes=(), **changes):
        changed = pace if pace is ONCE else pace._replace(**changes)
        keep("rows", lambda: hold(group, entries, changed), notes)

    return contest


def pytest_benchmark_update_machine_info(config, machine_info):
    """Add what fastq found to the JSON; report.py prints it."""
    machine_info["fastq"] = {
        "CPU": cpu.cpu_name(),
        "instruction set": cpu.chosen(ISAS),
        "this CPU has": ", ".join(cpu.available(ISAS)),
        "threads": threads.num_threads(),
        "BLAS": _blas(),
        **{name: version(name) for name in ("fastq", "numpy", "numba")},
        **peers.installed(),
    }
    before, after = _roofs(), _measured()
    machine_info["roofs"] = {
        "threads": before["threads"],
        "bandwidth": _better(before["bandwidth"], after["bandwidth"]),
        "peaks": {
            unit.name: {
                "isa": unit.isa,
                "bits": list(unit.bits),
                **_better(before["peaks"][unit.name], after["peaks"][unit.name]),
            }
            for unit in measurable()
        },
    }


def _measured():
    found = roofline()
    peaks = {name: rate._asdict() for name, rate in found.peaks.items()}
    return {"threads": found.threads, "peaks": peaks, "bandwidth": found.bandwidth._asdict()}


@lru_cache(maxsize=1)
def _roofs():
    return _measured()


def _better(a, b):
    """Whatever disturbs a measurement of a peak makes it lower."""
    return {key: max(a[key], b[key]) for key in a}


def _blas():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    # NumPy's lies with NumPy; others bring their own.
    found = next((x for x in threadpool_info() if x["user_api"] == "blas" and "numpy" in x["filepath"]), None)
    facts = ("internal_api", "version", "architecture", "num_threads")
    return " ".join(str(found.get(fact, "?")) for fact in facts) + " threads" if found else "none"
