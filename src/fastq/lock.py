"""Locks of objects that are copied and pickled."""

from __future__ import annotations

import threading


class Lock:
    """A lock, for ``with``. The copy of an object that has one gets its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()
