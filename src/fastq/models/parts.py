"""Large arrays in parts, so that no float64 copy of a whole one is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.storage.maps import map_of, release

Array = npt.NDArray[Any]
Box = tuple[slice, ...]

AT_ONCE = 1 << 20  # elements, each of which takes about 100 bytes while it is compared


def boxes(shape: tuple[int, ...], axis: int | None) -> Iterator[Box]:
    """Boxes that make up an array. Each has whole lines along `axis`, whose elements share scales; None: any way."""
    free = [i for i in range(len(shape)) if axis is None or i != axis % len(shape)]
    whole = (slice(None),) * len(shape)
    if not free or prod(shape) <= AT_ONCE:
        yield whole
        return
    at = max(free, key=lambda i: shape[i])
    step = max(1, AT_ONCE * shape[at] // prod(shape))
    for start in range(0, shape[at], step):
        yield (*whole[:at], slice(start, start + step), *whole[at + 1 :])


def told(parts: Iterator[Box], tell: Callable[[int, int], Any] | None) -> Iterator[Box]:
    """The same boxes; after each it is told how many of them are done."""
    every = list(parts)
    for done, box in enumerate(every, 1):
        yield box
        if tell is not None:
            tell(done, len(every))


def read(array: Array, box: Box) -> Array:
    """The elements of a box, copied; pages of a memory map that were read go back to the system."""
    part = array[box]
    copy = np.array(part, order="C")
    if part.size:
        release(map_of(array), part)
    return copy
