"""What all benchmarks share: the --quick option, contests and where their results go, facts about the machine."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import fastq as fq
import peers
from fastq.engine.roofline import measurable, roofline
from fastq.kernels.table import ISAS
from fastq.machine import cpu, pool
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
def keep(benchmark, quick):
    """A function that keeps what ``work()`` gives, under a name that report.py knows: rows, measures or notes.

    To pytest-benchmark a contest is one benchmark that runs once; the times of its contenders are extra information.
    """

    def keep(name, work, notes=()):
        if not (benchmark.disabled or quick):
            _look_at_the_roofs()
        benchmark.extra_info[name] = benchmark.pedantic(work, rounds=1)
        benchmark.extra_info["notes"] = list(notes)

    return keep


@pytest.fixture
def contest(keep, pace):
    """A function that holds a contest of these entries, at the pace of all, in fewer rounds, or at its own pace."""

    def contest(group, entries, notes=(), rounds=FULL.rounds, own=None):
        chosen = pace if own is None or pace is ONCE else own
        if own is None:
            chosen = chosen._replace(rounds=min(rounds, chosen.rounds))
        keep("rows", lambda: hold(group, entries, chosen), notes)

    return contest


def pytest_benchmark_update_machine_info(config, machine_info):
    """Add what fastq found to the JSON; report.py prints it."""
    machine_info["fastq"] = {
        "CPU": cpu.cpu_name(),
        "instruction set": cpu.chosen(ISAS),
        "this CPU has": ", ".join(cpu.available(ISAS)),
        "threads": pool.num_threads(),
        "BLAS": _blas(),
        "fastq": fq.__version__,
        **{name: version(name) for name in ("numpy", "numba")},
        **peers.installed(),
    }
    machine_info["roofs"] = _look_at_the_roofs()


_roofs: dict = {}


def _look_at_the_roofs():
    """What the machine can do, by all measurements so far: whatever disturbs one makes it lower."""
    found = roofline()
    _roofs["threads"] = found.threads
    _raise_to(_roofs.setdefault("bandwidth", {}), found.bandwidth)
    for unit in measurable():
        known = _roofs.setdefault("peaks", {}).setdefault(unit.name, {"isa": unit.isa, "bits": list(unit.bits)})
        _raise_to(known, found.peaks[unit.name])
    return _roofs


def _raise_to(known, rate):
    known.update({key: max(known.get(key, 0.0), value) for key, value in rate._asdict().items()})


def _blas():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    # NumPy's lies with NumPy; others bring their own.
    found = next((x for x in threadpool_info() if x["user_api"] == "blas" and "numpy" in x["filepath"]), None)
    facts = ("internal_api", "version", "architecture", "num_threads")
    return " ".join(str(found.get(fact, "?")) for fact in facts) + " threads" if found else "none"
