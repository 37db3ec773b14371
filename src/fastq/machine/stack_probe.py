"""Windows and large frames: the stack grows page by page, so a function whose frame is larger calls ``__chkstk`` first.

LLVM writes that call by itself, and only the object code shows it: that of packing on the right, among others. The C
library has the function in each program and does not export it, but Windows does. A kernel that calls it is loaded
where it is found, and refused elsewhere: linking it would end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from typing import Any

# Where it is: as Microsoft's page "__chkstk Routine" says, and where it has long been.
LIBRARIES = ("kernelbase", "ntdll")
_NAME = re.compile(rb"_{2,3}chkstk(?:_ms)?")  # the longer one is that of MinGW


def asked_for(code: bytes) -> set[str]:
    """The function that object code calls for its large frames; none on other systems than Windows."""
    return {name.decode() for name in _NAME.findall(code)}


def is_probe(symbol: str) -> bool:
    """Whether a function is one of these."""
    return _NAME.fullmatch(symbol.encode()) is not None


def provide(symbol: str) -> bool:
    """Have LLVM find the function in the system; False if the system has none of that name."""
    import llvmlite.binding as llvm

    address = _address(symbol)
    if address is not None:
        llvm.add_symbol(symbol, address)
    return address is not None


def _address(symbol: str) -> int | None:
    open_library: Any = getattr(ctypes, "WinDLL", None)
    if open_library is None:
        return None
    for library in LIBRARIES:
        with contextlib.suppress(OSError, AttributeError):  # no such library, or no such function in it
            return ctypes.cast(getattr(open_library(library), symbol), ctypes.c_void_p).value
    return None
