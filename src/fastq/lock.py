"""Locks of objects that are copied and pickled."""

from __future__ import annotations

import os
import threading


class Lock:
    """A lock, for ``with``. The copy of an object that has one gets its own, and so does a forked child.

    There the thread that held it when the process forked does not exist. A signal's handler may run in the thread that
    holds it.
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()
