"""Quantized arrays in other shapes and parts, and times factors; codes are shared wherever they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastq.errors import with_type
from fastq.promotion import is_float
from fastq.qarray import indexing, structure
from fastq.qarray.coded import QArrayBase
from fastq.validation import axes_of, data_type, real

Q = TypeVar("Q", bound=QArrayBase)


def transposed(q: Q, axes: Sequence[Any]) -> Q:
    """With axes permuted; as ``ndarray.transpose`` takes them."""
    if len(axes) == 1 and not isinstance(axes[0], int | np.integer):
        axes = axes[0]
    order = tuple(range(q.ndim))[::-1] if axes is None else _several(axes, "axes") or tuple(range(q.ndim))[::-1]
    if len(order) != q.ndim:
        raise ValueError("axes don't match array")
    order = axes_of(order, q.ndim)
    if order == tuple(range(q.ndim)):
        return q
    if order == (*range(q.ndim - 2), q.ndim - 1, q.ndim - 2):
        return q._swapped_matrices()
    return q._of(structure.permuted(q._pieces(), order))


def reshaped(q: Q, shape: Sequence[Any]) -> Q:
    """In another shape; as ``ndarray.reshape`` takes it."""
    if len(shape) == 1 and not isinstance(shape[0], int | np.integer):
        shape = _several(shape[0], "shape")
    new_shape = np.broadcast_to(np.int8(0), q.shape).reshape(shape).shape
    return q if new_shape == q.shape else q._of(structure.reshaped(q._pieces(), new_shape))


def _several(values: Any, name: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be integers, got {with_type(values)}") from None


def with_dtype(q: Q, dtype: npt.DTypeLike) -> Q:
    """The same array, of another logical type."""
    logical = data_type(dtype)
    if not is_float(logical):
        raise TypeError(f"dtype must be a float type that NumPy computes in, got {logical}; codes are in q.codes")
    return q if logical == q.dtype else q._placed(q._form_only(), q._store, q._transposed, logical)


def without(q: Q, axis: int) -> Q:
    """Without an axis of length 1."""
    if axis < q.ndim - 2 and axis != q.axis:
        return q._without_batch_axis(axis)
    return q._of(structure.dropped(q._pieces(), axis))


def expanded(q: Q, axis: int) -> Q:
    """With a new axis of length 1."""
    return q._of(structure.expanded(q._pieces(), axis))


def indexed(q: Q, key: Any) -> Any:
    """``q[key]``: a quantized array, or a number where an integer is given for each axis."""
    if isinstance(key, bool | np.bool_) or (isinstance(key, np.ndarray) and key.shape == () and key.dtype == bool):
        whole = expanded(q, 0)  # as in NumPy: a new axis, of no element where it is False
        return whole if key else indexed(whole, slice(0))
    parsed = indexing.parse(key, q.shape)
    part = q if all(isinstance(k, slice) and k == indexing.FULL for k in parsed.key) else q._part(parsed.key)
    if parsed.shape == () and key is not Ellipsis:
        return part.dequantize().reshape(())[()]  # type: ignore[attr-defined]
    for axis in reversed(parsed.dropped):
        part = without(part, axis)
    if parsed.spread is not None:
        axis, shape = parsed.spread
        axis -= sum(d < axis for d in parsed.dropped)
        part = reshaped(part, (*part.shape[:axis], *shape, *part.shape[axis + 1 :]))
        if parsed.leading:
            moved = range(axis, axis + len(shape))
            part = transposed(part, (*moved, *(d for d in range(part.ndim) if d not in moved)))
    for axis in parsed.added:
        part = expanded(part, axis)
    assert part.shape == parsed.shape
    return part


def times(q: Q, factor: Any, divide: bool) -> Q:
    """``q * factor`` or ``q / factor``, folded into the scale."""
    if isinstance(factor, int) and not isinstance(factor, bool):
        factor = real(factor, "factors", "numbers") if abs(factor) > 2**63 else factor  # infinity beyond floats
    by = factor if isinstance(factor, int | float) and not isinstance(factor, bool) else np.asarray(factor)
    if isinstance(by, np.ndarray) and not (by.dtype.kind in "biu" or is_float(by.dtype)):
        raise TypeError(f"factors of a quantized array must be real numbers up to 64 bits, got dtype {by.dtype}")
    dtype = np.result_type(q.dtype, by)
    if not is_float(dtype) or np.broadcast_shapes(np.shape(by), q.shape) != q.shape:
        raise ValueError(
            f"factors of a quantized array must broadcast to its shape {q.shape}, because they are folded into its "
            f"scale; got shape {np.shape(by)}: multiply q.dequantize()"
        )
    p = q._form_only()
    if dtype == np.float64:
        p = p.mapped(lambda values: values.astype(np.float64), "scale", "offset")
    with np.errstate(over="ignore"):
        values = np.asarray(by, p.scale.dtype)
    if divide and not values.all():
        raise ZeroDivisionError(
            "a quantized array must not be divided by 0, because its scale would be infinite; got 0"
        )
    values = values.reshape((1,) * (q.ndim - values.ndim) + values.shape)
    return q._placed(structure.scaled(p, values, divide), q._store, q._transposed, dtype)
