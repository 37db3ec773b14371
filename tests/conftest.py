"""Fixtures that every room's tests share."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.cli import digits
from fastq.kernels.table import ISAS
from fastq.machine import cores, cpu, pool


@pytest.fixture(params=cpu.available(ISAS))
def isa(request):
    """Each instruction set that this CPU has, the reference included, in use for the test.

    A test that needs some of them only, or that of a unit, parametrizes it with ``indirect``.
    """
    cpu.force(request.param)
    return request.param


@pytest.fixture(autouse=True)
def _settings_stay():
    """What a test sets, or reads from the environment, does not stay for the next one."""
    yield
    cpu.force(None)
    fq.set_num_threads(None)
    pool._default.cache_clear()


@pytest.fixture
def many_cores(monkeypatch):
    """As many threads as a test asks for, up to eight, however few cores there are."""
    monkeypatch.setattr(cores, "available_cpus", lambda: 8)


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def network():
    """A network that reads handwritten digits."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads of BLAS would spend three times the CPU's time on such small matrices
        return digits.train()
