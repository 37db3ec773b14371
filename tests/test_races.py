"""Two threads at one object: each window between them is held open, or tried many times.

Those of the pool, of kernels and of calibrators are in tests/machine and tests/calibration.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq import lock
from fastq.engine import memory
from fastq.engine.groups import GroupScales
from fastq.engine.operands import ColumnParams
from fastq.engine.store import Store
from fastq.kernels.epilogue import outputs
from fastq.kernels.table import ISAS
from fastq.layout.tiles import segments
from fastq.machine import cpu
from fastq.quant import moment
from fastq.scheme import code_range

THREADS = 4


@pytest.fixture
def often():
    """The interpreter changes threads after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def meet():
    """Wait here until all threads have come, or for as long as they would take if nothing kept them out."""
    together = threading.Barrier(THREADS)

    def wait():
        with suppress(threading.BrokenBarrierError):
            together.wait(0.1)

    return wait


def at_once(*functions):
    """Results of functions, each of which has a thread; all begin at once."""
    begin = threading.Barrier(len(functions))

    def work(function):
        begin.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as threads:
        return [task.result(60) for task in [threads.submit(work, function) for function in functions]]


# Quantized arrays, which are packed at first use


@pytest.mark.parametrize(("bits", "axis", "group_size"), [(8, None, None), (3, None, None), (4, 0, 32)])
def test_first_uses_at_once(bits, axis, group_size, rng, often):
    """Whichever use comes first packs the codes for itself; the others must not take them for what they were."""
    w, some = rng.standard_normal((96, 96), dtype=np.float32), np.array([7, 3, 50])

    def uses(q):
        both = [lambda: w[:5] @ q.T, lambda: q @ w[:, :5]] if axis is None else []
        return [
            lambda: w[:4] @ q,
            lambda: q[:, some].codes,
            lambda: q[some].codes,
            lambda: q[16:40].dequantize(),
            lambda: q.codes,
            lambda: q.scale if q.nbytes and repr(q) else None,
            *both,
        ]

    def made():
        return fq.quantize(w, bits, axis=axis, group_size=group_size)

    expected = [uses(made())[i]() for i in range(len(uses(made())))]
    for _ in range(20):
        assert all(map(np.array_equal, at_once(*uses(made())), expected))


def test_lines_are_chosen_while_another_thread_packs_the_transpose(rng, monkeypatch):
    w, some = rng.standard_normal((96, 96), dtype=np.float32), np.array([7, 3, 50])
    q, real = fq.quantize(w, axis=None), Store.lines
    expected = q.codes[:, some]

    def lines(self, *arguments):
        w @ q.T
        return real(self, *arguments)

    monkeypatch.setattr(Store, "lines", lines)
    assert (q[:, some].codes == expected).all()
    assert q._store.transposed


def test_scales_beside_the_codes_stay_while_another_thread_packs_them_inside(rng, monkeypatch):
    """A store keeps group scales beside its tiles, or in them; who packs for a file must not mix the two."""
    codes, k_segments = rng.integers(-8, 8, (64, 32)).astype(np.int8), segments(64)
    scales = GroupScales(32, rng.integers(1, 8, (2, 32)).astype(np.int8), None)
    store, real = Store(codes, code_range(4, "symmetric"), 4, scales), Store._pack

    def pack(self, *arguments):
        monkeypatch.setattr(Store, "_pack", real)
        assert store.right((), False, k_segments, grouped=True).form.grouped
        return real(self, *arguments)

    monkeypatch.setattr(Store, "_pack", pack)
    rights, _, beside = store.operands(False, k_segments, grouped=False)
    assert not rights[()].form.grouped
    assert beside is scales


def test_the_size_of_an_array_whose_cache_grows():
    class Growing(ColumnParams):
        @property
        def nbytes(self):
            q._cache["of another thread"] = None
            return 1000

    q = fq.quantize(np.eye(4), axis=0)
    before = q.nbytes
    q._cache["first"] = object.__new__(Growing)
    assert q.nbytes == before + 1000


# Memory of results


@pytest.fixture
def kept(monkeypatch, meet):
    """Spare memory for two pieces; between the look at the limit and the keeping of a piece, threads meet."""
    pieces = {}
    monkeypatch.setattr(memory, "_spare", pieces)
    monkeypatch.setattr(memory, "ADVISED", 1 << 10)
    monkeypatch.setattr(memory, "SPARE", 2 << 10)
    monkeypatch.setattr(memory, "_may_go", lambda piece: [meet()])
    return pieces


def test_pieces_given_back_at_once_keep_to_the_limit(kept):
    give = [lambda: memory._give_back(np.empty(1 << 10, np.uint8)) for _ in range(THREADS)]
    at_once(*give)
    assert 1 <= len(kept[1 << 10]) <= 2
    assert not memory._returned  # none is forgotten


def test_a_piece_given_back_amid_another_by_the_same_thread(kept, monkeypatch):
    """By a finalizer, which the collector may run anywhere."""
    other = [np.empty(1 << 10, np.uint8)]

    def may_go(piece):
        if other:
            memory._give_back(other.pop())
        return True

    monkeypatch.setattr(memory, "_may_go", may_go)
    memory._give_back(np.empty(1 << 10, np.uint8))
    assert len(kept[1 << 10]) == 2


# Names, settings, locks


class Slow:
    """Numbers whose counting another thread may come amid."""

    def __init__(self, meet):
        self.meet, self.number = meet, 0

    def __next__(self):
        number = self.number
        self.meet()
        self.number = number + 1
        return number


def test_functions_that_come_at_once_have_names_of_their_own(monkeypatch, meet):
    """A kernel goes by the name of the function in it."""
    monkeypatch.setattr(outputs, "_names", {})
    monkeypatch.setattr(outputs, "_numbers", Slow(meet))
    functions = [lambda: None for _ in range(THREADS)]
    names = at_once(*(lambda f=f: outputs.with_function("float32", f).activation for f in functions))
    assert len(set(names)) == THREADS
    again = [lambda: None] * THREADS
    assert len(set(at_once(*(lambda f=f: outputs.with_function("float32", f).activation for f in again)))) == 1


def test_what_was_chosen_before_another_was_forced_does_not_stay(monkeypatch):
    real, forcing = cpu._choose, threading.Thread(target=cpu.force, args=("reference",))

    def choose(needs):
        isa = real(needs)
        forcing.start()
        forcing.join(0.1)  # which waits, if it must not come in
        return isa

    cpu.force("portable")
    monkeypatch.setattr(cpu, "_choose", choose)
    assert cpu.chosen(ISAS) == "portable"
    monkeypatch.setattr(cpu, "_choose", real)
    forcing.join()
    assert cpu.chosen(ISAS) == "reference"


def test_threads_of_a_forked_child_share_one_new_lock(monkeypatch, meet):
    shared, inside, most = lock.Lock(), [], []

    def slow():
        made = threading.RLock()
        meet()
        return made

    def enter():
        with shared:
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()

    with shared:  # by a thread of the parent, which the child does not have
        monkeypatch.setattr(lock, "_forks", lock._forks + 1)
        monkeypatch.setattr(lock, "threading", SimpleNamespace(RLock=slow))
        at_once(*[enter] * THREADS)
        assert most == [1] * THREADS


# Second moments, which are read while rows come


def test_a_matrix_that_was_read_does_not_change(rng):
    shared = fq.SecondMoment.of(rng.standard_normal((8, 4)))
    matrix, before = shared.matrix, shared.matrix.copy()
    shared.update(np.full((2, 4), 1e9))
    assert (matrix == before).all()


@pytest.mark.parametrize("read", ["shrunk", "transformed", "damped"])
def test_a_moment_is_read_as_it_was_at_one_time(read, rng, monkeypatch):
    """Rows come between the matrix and its shrinkage."""
    reads = {
        "shrunk": lambda m: m.shrunk,
        "transformed": lambda m: m.transformed(np.ones(4), 1, shrink=True).matrix,
        "damped": lambda m: moment.Damped(m, 0.0, np.dtype(float)).rows(0, 4),
    }[read]
    rows, more = rng.standard_normal((64, 4)) + 1, 100 * rng.standard_normal((64, 4))
    expected = reads(fq.SecondMoment.of(rows))
    shared, real = fq.SecondMoment.of(rows), fq.SecondMoment.shrinkage
    other = threading.Thread(target=shared.update, args=(more,))

    def shrinkage(self):
        if self is shared and not other.ident:
            other.start()
            other.join(0.1)
        return real.fget(self)

    monkeypatch.setattr(fq.SecondMoment, "shrinkage", property(shrinkage))
    assert (reads(shared) == expected).all()
    other.join()
    assert shared.rows == 128
