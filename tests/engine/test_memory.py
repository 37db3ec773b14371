"""The workspace hands out memory that does not overlap, and none that is in use."""

from __future__ import annotations

import itertools
import threading

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


def test_zeros_are_zero_in_used_memory():
    import ctypes

    with workspace() as work:
        address = work.take(100)
        ctypes.memset(address, 7, 100)
    with workspace() as work:
        assert ctypes.string_at(work.zeros(100), 100) == bytes(100)


def test_aligned_memory_has_its_size():
    assert len(aligned(0)) == 0
    assert len(aligned(100)) == 100
    assert aligned(100).ctypes.data % 64 == 0
