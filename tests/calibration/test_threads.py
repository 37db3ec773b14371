"""Threads that update one calibrator, or one second moment, at once; each meets the others in the middle of it."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading

import numpy as np
import pytest

import fastq as fq
from fastq.calibration.histogram import Histogram
from fastq.quant.shrinkage import KeptRows

THREADS = 4


@pytest.fixture
def often(monkeypatch):
    """The interpreter changes threads after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def yielding(monkeypatch):
    """In the middle of an update, all threads that could come in here do so, if nothing keeps them out."""
    together = threading.Barrier(THREADS)

    def meet():
        try:
            together.wait(0.002)
        except threading.BrokenBarrierError:
            together.reset()

    for owner in (Histogram, KeptRows):
        real = owner.add

        def add(self, *args, real=real):
            real(self, *args)
            meet()

        monkeypatch.setattr(owner, "add", add)


def at_once(update, batches):
    """Each thread takes every fourth batch; errors by number of thread."""
    errors = {}

    def work(number):
        try:
            for batch in batches[number::THREADS]:
                update(batch)
        except ValueError as error:
            errors[number] = str(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("method", ["mse", fq.Percentile(99), "minmax"])
def test_a_calibrator(rng, often, yielding, method):
    batches = [*(rng.standard_normal((16, 8, 32)) * np.logspace(-2, 2, 16)[:, None, None])]
    alone, shared = fq.Calibrator(method=method), fq.Calibrator(method=method)
    for batch in batches:
        alone.update(batch)
    assert not at_once(shared.update, batches)
    assert shared.values == alone.values == 16 * 8 * 32
    assert (shared.channel_max == alone.channel_max).all()
    assert shared.parameters() == alone.parameters()


def test_a_second_moment(rng, often, yielding):
    batches = [*rng.standard_normal((16, 8, 32), np.float32)]
    shared = fq.SecondMoment()
    assert not at_once(shared.update, batches)
    assert shared.rows == 16 * 8
    np.testing.assert_allclose(shared.matrix, fq.SecondMoment.of(batches).matrix, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [fq.Calibrator, fq.SecondMoment])
def test_widths_that_come_at_once(make, rng, often):
    """The first one decides; the others are told, and change nothing."""
    for _ in range(20):
        shared = make()
        errors = at_once(shared.update, [rng.standard_normal((4, k)) for k in (3, 4, 5, 6)])
        assert len(errors) == THREADS - 1
        found = shared.channel_max if make is fq.Calibrator else shared.diagonal
        assert len(found) not in [3 + number for number in errors]
        assert (shared.values if make is fq.Calibrator else shared.rows * len(found)) == 4 * len(found)


@pytest.mark.parametrize("make", [fq.Calibrator, fq.SecondMoment])
def test_copies_have_locks_of_their_own(make):
    first = make()
    first.update([[1.0, 2.0]])
    for other in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        with first._lock:
            other.update([[3.0, 1.0]])
        assert repr(other) != repr(first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_is_forked_while_another_thread_updates():
    shared, held, end = fq.Calibrator(), threading.Event(), threading.Event()

    def hold():
        with shared._lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)  # instead of a wait without end
        shared.update([[1.0, 2.0]])
        os._exit(0 if shared.values == 2 else 1)
    end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
