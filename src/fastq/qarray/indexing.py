"""Indices of quantized arrays, parsed by NumPy's rules and with NumPy's errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastq.engine.operands import AxisIndex
from fastq.errors import shown
from fastq.qarray.structure import placeholder

FULL = slice(None)


class ParsedIndex(NamedTuple):
    """A parsed index: the elements that it chooses along each axis, and the axes that it drops, adds or reshapes."""

    shape: tuple[int, ...]  # of the result
    key: tuple[AxisIndex, ...]  # by axis; an integer is a slice of one element
    dropped: tuple[int, ...]  # axes that an integer takes away
    added: tuple[int, ...]  # places of new axes in the result
    spread: tuple[int, tuple[int, ...]] | None  # an axis that an index array chose from, and the array's shape
    leading: bool  # whether that axis comes first in the result


def parse(key: Any, shape: tuple[int, ...]) -> ParsedIndex:
    """Take an index apart.

    Raises
    ------
    IndexError
        As NumPy raises it (2**63 is an OverflowError there), and for index arrays along several axes at once.
    TypeError
        For a mask over several axes.
    """
    # NumPy's own rules and words, on an array without memory; without the other axes where rows are chosen by numbers,
    # since what is chosen gets memory.
    rows = type(key) is np.ndarray and key.dtype.kind in "iu" and 0 not in shape
    axes = 1 if rows else len(shape)
    result = (*placeholder(shape[:axes])[key].shape, *shape[axes:])
    parts = list(key) if isinstance(key, tuple) else [key]
    parts = [_part(part) for part in parts]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == 1 and arrays[0].dtype == bool and arrays[0].ndim > 1:
        raise TypeError(
            "a quantized array takes a mask along one axis, because what a larger one chooses shares no scales; "
            f"got a mask of shape {arrays[0].shape}: index q.dequantize()"
        )
    if len(arrays) > 1 or any(a.ndim == 0 for a in arrays):
        raise IndexError(
            "a quantized array takes one index array, along one axis, because scales must follow; got index arrays "
            f"along several: {shown(key)}; index in steps, or index q.dequantize()"
        )
    leading = _leading(parts)
    if leading and any(part is None for part in parts):
        raise IndexError(
            f"a quantized array takes new axes and an index array apart from integers in steps; got {shown(key)}"
        )
    given = sum(part is not None and part is not Ellipsis for part in parts)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = [FULL] * (len(shape) - given)
    chosen: list[AxisIndex] = []
    dropped: list[int] = []
    added: list[int] = []
    spread, at, place = None, 0, 0
    for part in parts:
        if part is None:
            added.append(place)
            place += 1
            continue
        if isinstance(part, int):
            start = part % shape[at]
            chosen.append(slice(start, start + 1))
            dropped.append(at)
        elif isinstance(part, slice):
            chosen.append(_normal(part, shape[at]))
            place += 1
        else:
            flat = np.flatnonzero(part) if part.dtype == bool else part.reshape(-1).astype(np.intp)
            chosen.append(np.where(flat < 0, flat + shape[at], flat))
            spread = at, (part.shape if part.dtype != bool else flat.shape)
            place += len(spread[1])
        at += 1
    return ParsedIndex(result, tuple(chosen), tuple(dropped), tuple(added), spread, leading)


def _part(part: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    if isinstance(part, np.ndarray) and part.ndim == 0 and part.dtype.kind in "iu":
        return int(part)
    if not isinstance(part, np.ndarray | list | tuple | bool | np.bool_) and hasattr(part, "__index__"):
        return part.__index__()
    array = np.asarray(part)
    return array.astype(np.intp) if array.size == 0 and array.dtype.kind == "f" else array


def _normal(part: slice, length: int) -> slice:
    """The same slice; FULL if it chooses all, so that no work is done for that axis."""
    start, stop, step = part.indices(length)
    if step == 1:
        stop = max(start, stop)
        return FULL if (start, stop) == (0, length) else slice(start, stop)
    return part


def _leading(parts: list[Any]) -> bool:
    """Whether index arrays and integers stand apart, so that their axes come first."""
    advanced = [i for i, part in enumerate(parts) if isinstance(part, int | np.ndarray)]
    if not any(isinstance(part, np.ndarray) for part in parts) or not advanced:
        return False
    return advanced[-1] - advanced[0] + 1 != len(advanced)
