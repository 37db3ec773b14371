"""The programs again, with every array beside a page that nobody may touch: what reads or writes beyond dies there.

NumPy takes the memory of all its arrays from an allocator that can be replaced (NEP 49). This one puts each array into
pages of its own, right before an unreadable page or right behind one, and gives the pages back when the array goes, so
that late reads die as well. New memory holds 0xFF, which is NaN, -1 or the highest code to those who read it too early.
What fastq rounds up to cache lines, or takes from a larger piece, is made exact. Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np

from . import programs

PAGE = mmap.PAGESIZE
LINE = 64

# NumPy gives memory back while it raises, too, and what is on its way then is lost in a callback that Python runs.
LostError = SystemError

_at_end = True  # where the guard is that arrays touch
_pieces: dict[int, tuple[int, int]] = {}  # by the address of an array: its pages, and their length
_callbacks: list[Any] = []  # NumPy calls them as long as the process lives


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """All that have kernels, on Linux."""
    return tuple(isa for isa in have if isa != "reference" and sys.platform.startswith("linux"))


def case(seed: int) -> None:
    """One program; even cases have the guard behind each array, odd ones before it."""
    global _at_end
    _at_end = seed % 2 == 0
    with suppress(LostError):
        programs.case(seed)


def prepare() -> None:
    """Replace the allocator of this thread's arrays, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, *(ctypes.c_size_t,) * 5]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def allocate(context: int, nbytes: int, fill: int = 0xFF) -> int:
        body = -(-max(nbytes, 1) // PAGE) * PAGE
        whole = body + 2 * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = libc.mmap(None, whole, mmap.PROT_READ | mmap.PROT_WRITE, flags, 2**64 - 1, 0)
        if base == 2**64 - 1:
            return 0
        for guard in (base, base + PAGE + body):
            libc.mprotect(guard, PAGE, 0)
        if fill:
            ctypes.memset(base + PAGE, fill, body)
        address: int = base + PAGE + (body - nbytes if _at_end else 0)
        _pieces[address] = base, whole
        return address

    def zeros(context: int, count: int, size: int) -> int:
        return allocate(context, count * size, 0)

    def free(context: int, address: int, nbytes: int) -> None:
        if address:
            libc.munmap(*_pieces.pop(address))

    def resize(context: int, address: int, nbytes: int) -> int:
        new = allocate(context, nbytes)
        if address:
            base, whole = _pieces[address]
            ctypes.memmove(new, address, min(nbytes, base + whole - PAGE - address))
            free(context, address, 0)
        return new

    _install(allocate, zeros, resize, free)
    _make_exact()


class _Allocator(ctypes.Structure):
    """``PyDataMem_Handler`` of NumPy's C interface."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        *((function, ctypes.c_void_p) for function in ("malloc", "calloc", "realloc", "free")),
    )


def _install(*functions: Any) -> None:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    kinds = [(pointer, pointer, size), (pointer, pointer, size, size), (pointer, pointer, pointer, size),
             (None, pointer, pointer, size)]  # fmt: skip
    made = [ctypes.CFUNCTYPE(*kind)(function) for kind, function in zip(kinds, functions)]
    handler = _Allocator(b"guard", 1, None, *(ctypes.cast(f, pointer).value for f in made))
    name = b"mem_handler"
    _callbacks.extend([*made, handler, name])
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [pointer, ctypes.c_char_p, pointer]
    api.PyCapsule_GetPointer.restype = pointer
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = api.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    place = 304  # of PyDataMem_SetHandler in the table, where it stays
    address = pointer.from_address(table + place * ctypes.sizeof(pointer)).value
    assert address
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)
    set_handler(api.PyCapsule_New(ctypes.addressof(handler), name, None))


def _make_exact() -> None:
    """Have fastq take each piece of memory by itself, with nothing to spare but the rest of a cache line."""
    from fastq.engine import memory

    rounded = memory.aligned

    def aligned(nbytes: int) -> np.ndarray:
        return np.empty(nbytes, np.uint8)  # at the end of a page, which may be no cache line: no kernel needs one

    def take(self: memory.Workspace, nbytes: int) -> int:
        piece = np.empty(-(-nbytes // LINE) * LINE, np.uint8)
        self._more.append(piece)
        return int(piece.ctypes.data)

    for name, module in list(sys.modules.items()):
        if name.startswith("fastq.") and getattr(module, "aligned", None) is rounded:
            module.aligned = aligned
    memory.Workspace.take = take
