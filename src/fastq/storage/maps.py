"""Memory maps: pages that were read go back to the system, so that a large file does not fill memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def map_of(x: Any) -> mmap.mmap | None:
    """The map that an array lies in; None where pages that were read must stay, or cannot go."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base, mapped = x, False
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            if base.mode == "c":
                return None  # in a private copy, pages that were written to are nowhere else
            mapped = True
        base = base.base
    return base if mapped and isinstance(base, mmap.mmap) else None


def release(pages: mmap.mmap | None, part: npt.NDArray[Any]) -> None:
    """Give the pages of a part of an array back to the system, which has them in the file."""
    if pages is None:
        return
    low, high = np.lib.array_utils.byte_bounds(part)
    base = np.frombuffer(pages, np.uint8).ctypes.data
    start = (low - base) // mmap.PAGESIZE * mmap.PAGESIZE
    pages.madvise(mmap.MADV_DONTNEED, start, min(high - base, len(pages)) - start)
