"""Locks of objects that are copied and pickled."""

from __future__ import annotations

import os
import threading
from typing import Any

_forks = 0  # between the first process and this one


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Lock:
    """A lock, for ``with``. The copy of an object that has one gets its own, and so does a forked child.

    There the thread that held it when the process forked does not exist. A signal's handler may run in the thread that
    holds it.
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}  # by number of forks; `setdefault` gives all threads the same one
        self._held: list[Any] = []  # only the thread that is inside looks

    def __enter__(self) -> None:
        lock = self._locks.get(_forks) or self._locks.setdefault(_forks, threading.RLock())
        lock.acquire()
        self._held.append(lock)

    def __exit__(self, *error: object) -> None:
        self._held.pop().release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()
