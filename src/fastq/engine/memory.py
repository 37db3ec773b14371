"""Aligned memory, and the workspace of a call."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import weakref
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.machine.cpu import CACHE_LINE

LARGE = 1 << 20
KEPT = 32 << 20  # a thread keeps so much workspace between calls; fresh pages cost more than a small product


# The first field of an array's struct after the head that all objects have is the pointer to its data; that is part of
# NumPy's binary interface. `array.ctypes.data` tells the same, but takes six times as long: a tenth of a small product.
_HEAD = object.__basicsize__
_POINTER_IS_THERE = (
    sys.implementation.name == "cpython"
    and (_probe := np.zeros(2)).ctypes.data == ctypes.c_void_p.from_address(id(_probe) + _HEAD).value
)


def address_of(array: npt.NDArray[Any]) -> int:
    """Where an array's first element lies; the caller keeps the array alive."""
    if _POINTER_IS_THERE:
        return ctypes.c_void_p.from_address(id(array) + _HEAD).value or 0
    return int(array.ctypes.data)


def aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialized bytes that start at a cache line."""
    raw = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + nbytes]


def aligned_copy(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes, contiguous from the start of a cache line: the array itself if it is so, else a copy."""
    if array.flags.c_contiguous and address_of(array) % CACHE_LINE == 0:
        return array
    moved = aligned(array.nbytes).reshape(array.shape)
    moved[...] = array
    return moved


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An uninitialized array that starts at a cache line; small ones lie where NumPy puts them."""
    nbytes = prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if nbytes < LARGE else _recycled(shape, dtype, nbytes)


def passing(nbytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialized bytes that start at a cache line, for what is gone soon: large ones come as those of results do."""
    return aligned(nbytes) if nbytes < LARGE else _recycled((nbytes,), np.dtype(np.uint8), nbytes)


# Memory of results, kept from when the last array in it is gone until the next result of its size. The C library keeps
# freed memory too, but gives it back to the system at times, which other arrays that come and go decide: in a program
# of 4096x384 @ 384x1536, bias and relu, every second product met 500 page faults and took 2.4 times as long. Beyond
# 32 MiB it keeps nothing: faults were 10 of the 36 ms that 4096**3 took. Of large pieces, the system may have the pages
# back at any time (MADV_FREE), so what is kept is not missing elsewhere. For small ones that advice costs as much as it
# saves (40 us per MiB, when they are written again), so fewer of them are kept.
ADVISED = 32 << 20  # bytes of a piece that the system may have back
SPARE_SMALL, SPARE = 64 << 20, 256 << 20  # bytes that are kept at most, in small pieces and in all
# The number differs between systems. A Python that was built on an old Linux lacks it, where that of Linux is 8.
_MADV_FREE: int | None = getattr(mmap, "MADV_FREE", 8 if sys.platform.startswith("linux") else None)
#
# Any thread takes a piece, at any time: `list.pop` is atomic. One thread at a time puts pieces there, so that the
# limits hold. No other waits for it: a finalizer may run amid another one, and would wait for itself.
_spare: dict[int, list[npt.NDArray[np.uint8]]] = {}  # by size
_returned: list[npt.NDArray[np.uint8]] = []  # pieces that are to be kept
_keeping = threading.Lock()


def _after_fork() -> None:
    global _keeping
    _keeping = threading.Lock()  # the thread that held it is not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _madvise() -> Any:
    """The system's call, or None where there is no such advice."""
    if _MADV_FREE is None:
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _recycled(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> npt.NDArray[Any]:
    """An array whose bytes return to :data:`_spare` when no array uses them any more."""
    try:
        memory = _spare[nbytes].pop()
    except (KeyError, IndexError):
        memory = aligned(nbytes)
    # A view would keep the memory alive, but nobody would learn when the view goes; this object has a finalizer.
    lease = (ctypes.c_uint8 * nbytes).from_address(address_of(memory))
    weakref.finalize(lease, _give_back, memory).atexit = False
    return np.ndarray(shape, dtype, lease)  # type: ignore[arg-type]  # any buffer serves


def _give_back(memory: npt.NDArray[np.uint8]) -> None:
    _returned.append(memory)
    # Whoever keeps pieces looks again behind the lock. So a piece that comes in the meantime is seen: by that thread,
    # or by the one that brings it.
    while _returned and (lock := _keeping).acquire(blocking=False):
        try:
            while _returned:
                _keep(_returned.pop())
        finally:
            lock.release()


def _keep(memory: npt.NDArray[np.uint8]) -> None:
    """Put a piece to the spare ones, in place of all others where it does not fit beside them."""
    small = memory.nbytes < ADVISED
    most = SPARE_SMALL if small else SPARE
    kept = [(size, size * len(pieces)) for size, pieces in _spare.copy().items()]
    in_all, in_small = sum(n for _, n in kept), sum(n for size, n in kept if size < ADVISED)
    if in_all + memory.nbytes > SPARE or (small and in_small + memory.nbytes > SPARE_SMALL):
        _spare.clear()
    if memory.nbytes <= most and (small or _may_go(memory)):
        _spare.setdefault(memory.nbytes, []).append(memory)


def _may_go(memory: npt.NDArray[np.uint8]) -> bool:
    """Let the system have the pages if it needs them; False if it knows no such advice.

    Only pages that lie in the memory whole: the system rounds a length up, to what belongs to others.
    """
    if (madvise := _madvise()) is None:
        return False
    page = mmap.PAGESIZE  # 4 KiB, 16 on Apple's CPUs, 64 on some ARM servers
    start = -(-address_of(memory) // page) * page
    length = (address_of(memory) + memory.nbytes - start) // page * page
    return bool(madvise(start, length, _MADV_FREE) == 0)


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

    def __exit__(self, *error: object) -> None:
        if self._more:
            self._more.clear()
            if self._needed <= KEPT:
                self._buffer = aligned(self._needed)
                self._base = self._buffer.ctypes.data
        self._used = self._needed = 0
        self.busy = False

    def take(self, nbytes: int) -> int:
        """The address of `nbytes` more bytes, aligned to a cache line."""
        room = -(-nbytes // CACHE_LINE) * CACHE_LINE
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


_local = threading.local()


def workspace() -> Workspace:
    """The calling thread's workspace, or a fresh one where that is in use."""
    kept: Workspace | None = getattr(_local, "workspace", None)
    if kept is None:
        kept = _local.workspace = Workspace()
    return Workspace() if kept.busy else kept
