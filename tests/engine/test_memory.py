"""The workspace hands out memory that does not overlap, and none that is in use."""

from __future__ import annotations

import gc
import itertools
import mmap
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastq.engine import memory
from fastq.engine.memory import KEPT, Workspace, aligned, workspace


def test_pieces_are_aligned_and_apart():
    for _ in range(3):  # the second time around all pieces come from one buffer
        with workspace() as work:
            spans = sorted((work.take(n), n) for n in (1, 64, 65, 1000, 1))
        assert all(start % 64 == 0 for start, _ in spans)
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))


def test_a_call_within_a_call_gets_its_own():
    with workspace() as outer, workspace() as inner:
        assert outer is not inner
    with workspace() as again:
        assert again is outer


def test_threads_have_their_own():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(workspace()))
    thread.start()
    thread.join()
    assert seen[0] is not workspace()


def test_large_workspaces_are_not_kept():
    work = Workspace()
    with work:
        work.take(KEPT + 1)
    assert len(work._buffer) == 0
    with work:
        work.take(1000)
    assert len(work._buffer) >= 1000


def test_aligned_memory_has_its_size():
    assert len(aligned(0)) == 0
    assert len(aligned(100)) == 100
    assert aligned(100).ctypes.data % 64 == 0


SIZES = [memory.LARGE + 4000]
if memory._MADV_FREE is not None:  # where the system may have large pieces back
    SIZES.append(memory.ADVISED + 4000)


@pytest.fixture
def spare(monkeypatch):
    pieces = {}
    monkeypatch.setattr(memory, "_spare", pieces)
    return pieces


def floats(nbytes):
    return memory.empty((nbytes // 4,), np.dtype(np.float32))


@pytest.mark.parametrize("nbytes", SIZES)
def test_memory_of_a_result_is_used_again_when_nothing_refers_to_it(spare, nbytes):
    first = floats(nbytes)
    place = first.ctypes.data
    assert place % 64 == 0
    first[:] = 3
    view = first[10:20].view(np.int32)
    del first
    other = floats(nbytes)
    other[:] = 5
    assert (view == np.float32(3).view(np.int32)).all()  # a view kept the memory
    assert not np.shares_memory(view, other)
    del view
    gc.collect()
    assert sum(map(len, spare.values())) == 1
    assert floats(nbytes).ctypes.data == place
    assert (other == 5).all()


@pytest.mark.parametrize(("nbytes", "limit"), list(zip(SIZES, ["SPARE_SMALL", "SPARE"])))
def test_spare_memory_has_a_limit(spare, monkeypatch, nbytes, limit):
    most = 2 * nbytes + 10**5
    monkeypatch.setattr(memory, limit, most)
    arrays = [floats(nbytes + n) for n in (0, 4, 8)]
    while arrays:
        arrays.pop()
        gc.collect()
        assert sum(size * len(pieces) for size, pieces in spare.items()) <= most
    assert sum(map(len, spare.values())) == 1  # the third did not fit beside two
    monkeypatch.setattr(memory, limit, 0)
    floats(nbytes)
    gc.collect()
    assert not sum(map(len, spare.values()))


@pytest.mark.skipif(len(SIZES) < 2, reason="no large pieces are kept on this system")
def test_small_pieces_count_beside_large_ones(spare, monkeypatch):
    monkeypatch.setattr(memory, "SPARE", SIZES[1] + SIZES[0] // 2)
    for nbytes in SIZES[::-1]:
        floats(nbytes)
        gc.collect()
        assert sum(size * len(pieces) for size, pieces in spare.items()) <= memory.SPARE
    assert list(spare) == [SIZES[0]]


@pytest.mark.parametrize("page", [4 << 10, 16 << 10, 64 << 10])
@pytest.mark.parametrize("ahead", [0, 64, 4096, (64 << 10) - 64])
def test_the_system_gets_whole_pages_of_any_size(monkeypatch, page, ahead):
    told = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *call: told.append(call) or 0)
    monkeypatch.setattr(memory, "_MADV_FREE", 5)  # that of macOS
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    piece = aligned(memory.LARGE + (64 << 10) + 4000)[ahead:]
    assert memory._may_go(piece)
    [(start, length, advice)] = told
    first, last = memory.address_of(piece), memory.address_of(piece) + piece.nbytes
    assert start % page == length % page == 0
    assert first <= start < first + page
    assert last - page < start + length <= last
    assert advice == 5


def test_large_pieces_are_kept_only_where_the_system_may_have_them_back(spare, monkeypatch):
    answer = [None]
    monkeypatch.setattr(memory, "_madvise", lambda: answer[0])
    for answer[0], kept in ((None, 0), (lambda *call: -1, 0), (lambda *call: 0, 1)):
        memory._give_back(np.empty(memory.ADVISED, np.uint8))
        assert sum(map(len, spare.values())) == kept


def test_the_advice_is_that_of_the_system(monkeypatch):
    if hasattr(mmap, "MADV_FREE"):
        assert mmap.MADV_FREE == memory._MADV_FREE
    if sys.platform.startswith("linux"):
        assert memory._MADV_FREE == 8
    monkeypatch.setattr(memory, "_MADV_FREE", None)
    assert memory._madvise.__wrapped__() is None


def test_small_results_do_not_drive_each_other_out(spare):
    """The results of a program, one after the other, each find the memory of the last round."""
    places = []
    for _ in range(2):
        for nbytes in (memory.LARGE, 2 * memory.LARGE, 5 * memory.LARGE):
            places.append(floats(nbytes).ctypes.data)
            gc.collect()
    assert places[:3] == places[3:]


@pytest.mark.parametrize("nbytes", SIZES)
def test_threads_never_get_the_same_memory(spare, nbytes):
    def work(number):
        for _ in range(20):
            array = floats(nbytes)
            array[:: 1 << 12] = number
            time.sleep(0.0005)
            assert (array[:: 1 << 12] == number).all()
            del array
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_address_is_that_of_ctypes():
    array = np.arange(100, dtype=np.float32).reshape(10, 10)
    for a in (
        array,
        array[3:, 2:],
        array.T,
        np.empty(0),
        np.broadcast_to(np.float64(1), (3, 3)),
        array.view(np.matrix),
    ):
        assert memory.address_of(a) == a.ctypes.data
