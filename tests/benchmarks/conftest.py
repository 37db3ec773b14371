"""The benchmarks' own modules, as `python benchmarks/report.py` finds them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("figures", "picture", "report", "results")


@pytest.fixture(scope="session", autouse=True)
def modules():
    """By name; they are gone from sys.modules afterwards, for their names are everyday words."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def report(modules):
    return modules["report"]


@pytest.fixture
def results(modules):
    return modules["results"]


@pytest.fixture
def figures(modules):
    return modules["figures"]
