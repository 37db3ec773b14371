"""Aligned memory, and the workspace of a call."""

from __future__ import annotations

import ctypes
import threading
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

LINE = 64
LARGE = 1 << 20
KEPT = 32 << 20  # a thread keeps so much workspace between calls; fresh pages cost more than a small product


def aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialized bytes that start at a cache line."""
    raw = np.empty(nbytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes]


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An uninitialized array that starts at a cache line; small ones lie where NumPy puts them."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return np.empty(shape, dtype)
    return aligned(nbytes).view(dtype).reshape(shape)


class Workspace:
    """Memory for one call, handed out from the start in pieces; addresses are plain integers.

    Use as a context manager. A thread's workspace is used again by its next call. A call inside a call (from a signal
    handler, say) gets one of its own.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)
        self._base = 0
        self._used = 0
        self._more: list[Any] = []  # pieces that did not fit
        self._needed = 0
        self.busy = False

    def __enter__(self) -> Workspace:
        self.busy = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._more:
            self._more.clear()
            if self._needed <= KEPT:
                self._buffer = aligned(self._needed)
                self._base = self._buffer.ctypes.data
        self._used = self._needed = 0
        self.busy = False

    def take(self, nbytes: int) -> int:
        """The address of `nbytes` more bytes, aligned to a cache line."""
        room = (nbytes + LINE - 1) // LINE * LINE
        self._needed += room
        if self._used + room <= len(self._buffer):
            address = self._base + self._used
            self._used += room
            return address
        piece = aligned(room)
        self._more.append(piece)
        return int(piece.ctypes.data)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Like :meth:`take`, as an array; it must not outlive the call."""
        nbytes = prod(shape) * dtype.itemsize
        memory = (ctypes.c_uint8 * nbytes).from_address(self.take(nbytes))
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def zeros(self, nbytes: int) -> int:
        """Like :meth:`take`, filled with zeros."""
        address = self.take(nbytes)
        ctypes.memset(address, 0, nbytes)
        return address


_local = threading.local()


def workspace() -> Workspace:
    """The calling thread's workspace, or a fresh one where that is in use."""
    mine: Workspace | None = getattr(_local, "workspace", None)
    if mine is None:
        mine = _local.workspace = Workspace()
    return Workspace() if mine.busy else mine
