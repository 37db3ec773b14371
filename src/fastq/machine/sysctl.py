"""What macOS tells of the machine, by names such as ``machdep.cpu.brand_string``; on other systems, nothing."""

from __future__ import annotations

import ctypes
import sys


def text(name: str) -> str | None:
    """A value that is text; None where there is none of that name."""
    value = _bytes(name)
    return None if value is None else value.rstrip(b"\0").decode(errors="replace")


def number(name: str) -> int | None:
    """A value that is an integer, of 32 or 64 bits; None where there is none of that name."""
    value = _bytes(name)
    return None if value is None else int.from_bytes(value, sys.byteorder)


def _bytes(name: str) -> bytes | None:
    if (function := _function()) is None:
        return None
    length, room = ctypes.c_size_t(256), ctypes.create_string_buffer(256)
    failed = function(name.encode(), room, ctypes.byref(length), None, ctypes.c_size_t(0))
    return None if failed else room.raw[: length.value]


def _function() -> ctypes._NamedFuncPointer | None:
    return ctypes.CDLL(None).sysctlbyname if sys.platform == "darwin" else None
