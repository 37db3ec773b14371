"""What all benchmarks share: their options, contests and where their results go, facts about the machine."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import asdict

import pytest

from fastq.bench.machine import this_machine
from fastq.bench.roofs import Roofs
from fastq.bench.rounds import FULL, ONCE, QUICK, hold
from fastq.bench.shapes import parse

KEPT = pytest.StashKey[list]()
roofs = Roofs()


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="small shapes and few rounds: shows that benchmarks work")
    about = "time products of this shape alone; may be given several times"
    parser.addoption("--shape", action="append", type=_shape, default=[], metavar="MxKxN", help=about)


def _shape(text):
    try:
        return parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def pytest_configure(config):
    config.stash[KEPT] = []


def pytest_collection_modifyitems(config, items):
    """Shapes of one's own leave out what is not told shapes."""
    if config.getoption("shape"):
        others = [item for item in items if "shape" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture
def quick(request):
    """Whether small shapes and few rounds are wanted."""
    return request.config.getoption("quick")


@pytest.fixture
def pace(benchmark, quick):
    """How long a contest lasts."""
    return ONCE if benchmark.disabled else QUICK if quick else FULL


@pytest.fixture
def keep(benchmark, quick, pytestconfig):
    """A function that keeps what ``work()`` gives, under a name that report.py knows: rows, measures or notes.

    To pytest-benchmark a contest is one benchmark that runs once; the times of its contenders are extra information.
    """

    def keep(name, work, notes=()):
        if not (benchmark.disabled or quick):
            roofs.look()
        benchmark.extra_info[name] = benchmark.pedantic(work, rounds=1)
        benchmark.extra_info["notes"] = list(notes)
        pytestconfig.stash[KEPT].append(benchmark.extra_info)

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


def _facts():
    machine = this_machine()
    return {"fastq": machine.facts(), "machine": asdict(machine), "roofs": roofs.known or roofs.look()}


def pytest_benchmark_update_machine_info(config, machine_info):
    """Add what fastq found to the JSON; report.py prints it."""
    machine_info.update(_facts())


def pytest_terminal_summary(terminalreporter, config):
    """A short run, or one of shapes of one's own, shows its report at once."""
    kept = config.stash.get(KEPT, [])
    if kept and (config.getoption("quick") or config.getoption("shape")):
        import report
        from results import collect

        terminalreporter.section("report")
        terminalreporter.write_line(report.whole(collect(kept, _facts())))
