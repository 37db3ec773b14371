"""How an array of a model lies about the codes that it has, or would have."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.api import quantize
from fastq.pictures.distribution import LIMIT, Distribution, of_numbers, places
from fastq.promotion import is_float
from fastq.qarray.array import QArray
from fastq.qarray.summary import codes_seen
from fastq.quant.spec import expand
from fastq.scheme import code_range


def levels(
    value: Any, bits: int = 4, group_size: int | None = None, *, axis: int | None = -1, **options: Any
) -> Distribution | None:
    """The histogram of about 100,000 elements, in steps of their codes.

    Parameters
    ----------
    value : QArray or array
        Whose codes are counted, or whose numbers are held against the codes that they would have.
    bits, group_size, axis : int
        As in :func:`fastq.quantize`, for an array of numbers.
    **options
        The scheme and the method.

    Returns
    -------
    Distribution or None
        None for what has no codes: empty arrays, integers, and numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.models.levels import levels
    >>> found = levels(np.linspace(-1, 1, 1000), bits=2)
    >>> found.levels, found.seen
    ((-2.0, -1.0, 0.0, 1.0), 1000)
    """
    if isinstance(value, QArray):
        return codes_seen(value) if value.size else None
    if value.size == 0 or not is_float(value.dtype):
        return None
    lines = [_in_steps(np.array(value[box]), bits, group_size, axis, options) for box in _boxes(value.shape, axis)]
    if any(line is None for line in lines):
        return None
    limits = code_range(bits, options.get("scheme", "symmetric"))
    marks = np.arange(limits.low, limits.high + 1)
    return of_numbers([line for line in lines if line is not None], marks, value.size, "value in steps of its code")


def _boxes(shape: tuple[int, ...], axis: int | None) -> list[tuple[slice, ...]]:
    """Parts with whole lines along an axis, unless one is longer than the limit: then with the beginning of lines."""
    if axis is None or not shape:
        return list(places(shape))
    at = axis % len(shape)
    length = min(shape[at], LIMIT)
    others = places((*shape[:at], *shape[at + 1 :]), max(1, LIMIT // length))
    return [(*box[:at], slice(0, length), *box[at:]) for box in others]


def _in_steps(
    part: npt.NDArray[Any], bits: int, group_size: int | None, axis: int | None, options: dict[str, Any]
) -> npt.NDArray[Any] | None:
    """Numbers over their scales, from their zero points or offsets on: the nearest integer is their code."""
    if not np.isfinite(part).all() or not prod(part.shape):
        return None
    q = quantize(part, bits, axis=axis, group_size=group_size, **options)
    scale, zero, offset = (
        0.0 if p is None else expand(p, part.shape, q.axis, q.group_size).astype(np.float64)
        for p in (q.scale, q.zero_point, q.offset)
    )
    return (part.astype(np.float64) - offset) / scale + zero
