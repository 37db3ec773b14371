"""Fixtures that every room's tests share."""

from __future__ import annotations

import numpy as np
import pytest

from fastq.kernels.table import ISAS
from fastq.machine import cores, cpu, pool


@pytest.fixture(params=cpu.available(ISAS))
def isa(request):
    """Each instruction set that this CPU has, the reference included, in use for the test."""
    cpu.force(request.param)
    yield request.param
    cpu.force(None)


@pytest.fixture(autouse=True)
def _settings_stay():
    """A test that changes the number of threads does not change it for the next."""
    before = pool._chosen
    yield
    pool._chosen = before


@pytest.fixture
def many_cores(monkeypatch):
    """As many threads as a test asks for, up to eight, however few cores there are."""
    monkeypatch.setattr(cores, "available_cpus", lambda: 8)


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)
