"""Quantized arrays in other shapes and parts; codes are shared wherever they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import GroupScales
from fastq.engine.operands import AxisIndex
from fastq.engine.store import Store
from fastq.errors import with_type
from fastq.qarray import indexing, structure
from fastq.qarray.structure import ArrayParts
from fastq.quant.spec import QuantSpec
from fastq.validation import axes_of, axis_of

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

Array = npt.NDArray[Any]

# The methods of QArray


def transpose(q: QArray, *axes: SupportsIndex | Sequence[SupportsIndex] | None) -> QArray:
    """The array with its axes permuted, as ``ndarray.transpose`` does it.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> fq.quantize(np.zeros((5, 2, 3))).transpose(1, 0, 2).shape
    (2, 5, 3)
    """
    given: Any = axes[0] if len(axes) == 1 and not isinstance(axes[0], int | np.integer) else axes
    reverse = tuple(range(q.ndim))[::-1]
    order = reverse if given is None else _several(given, "axes") or reverse
    if len(order) != q.ndim:
        raise ValueError("axes don't match array")
    order = axes_of(order, q.ndim)
    if order == tuple(range(q.ndim)):
        return q
    if order == (*range(q.ndim - 2), q.ndim - 1, q.ndim - 2):
        return swapped_matrices(q)
    return with_parts(q, structure.permuted(array_parts(q), order))


def swapaxes(q: QArray, axis1: SupportsIndex, axis2: SupportsIndex) -> QArray:
    """The array with two axes interchanged.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> fq.quantize(np.zeros((5, 2, 3))).swapaxes(0, -1).shape
    (3, 2, 5)
    """
    order = list(range(q.ndim))
    first, second = axis_of(axis1, q.ndim), axis_of(axis2, q.ndim)
    order[first], order[second] = order[second], order[first]
    return transpose(q, order)


def reshape(q: QArray, *shape: SupportsIndex | Sequence[SupportsIndex]) -> QArray:
    """The array in another shape, elements in C order.

    Runs of elements that share a scale must stay together in one axis of the new shape.

    Raises
    ------
    ValueError
        If the sizes differ, or runs that share a scale would be torn.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> q = fq.quantize(np.arange(24.0).reshape(4, 6), axis=-1)
    >>> q.reshape(2, 2, 6).scale.shape
    (2, 2, 1)
    """
    one = len(shape) == 1 and not isinstance(shape[0], int | np.integer)
    lengths: Any = _several(shape[0], "shape") if one else shape
    new_shape = structure.placeholder(q.shape).reshape(lengths).shape
    return q if new_shape == q.shape else with_parts(q, structure.reshaped(array_parts(q), new_shape))


def _several(values: Any, name: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be integers, got {with_type(values)}") from None


# What arrays are made of


def array_parts(q: QArray) -> ArrayParts:
    """Codes and parameters."""
    return _parts(q, q.codes, group_scales(q))


def parameters_only(q: QArray) -> ArrayParts:
    """The parts with codes that take no memory: for changes of the parameters alone."""
    return _parts(q, structure.placeholder(q.shape), group_scales(q))


def _parts(q: QArray, codes: Array, scales: GroupScales | None) -> ArrayParts:
    group_scale, group_zero = (None, None) if scales is None else scales[1:]
    arrays = (q._scale, q._zero, q._offset, group_scale, group_zero, q._balance, q._order)
    return ArrayParts(codes, *arrays, q.axis, q.group_size, q.rotation)


def group_scales(q: QArray) -> GroupScales | None:
    """The integer scales of groups."""
    return oriented(q._store.scales(), q._transposed)


def oriented(scales: GroupScales | None, transposed: bool) -> GroupScales | None:
    """Group scales from the orientation of the store into that of the array, or back."""
    return scales.arranged(lambda values: values.mT) if transposed and scales is not None else scales


def with_parts(q: QArray, p: ArrayParts) -> QArray:
    """An array of the same width, scheme and type, of other parts."""
    return with_store(q, p, Store(p.codes, q._store.limits, q.bits, _scales_of(p)), False)


def with_store(q: QArray, p: ArrayParts, store: Store, transposed: bool, dtype: np.dtype[Any] | None = None) -> QArray:
    """An array of the same width and scheme; codes and group scales are those of a store, the rest is of `p`."""
    parameters = (p.scale, p.zero, p.offset, p.balance, p.order)
    dtype = q.dtype if dtype is None else dtype
    spec = QuantSpec(q.bits, p.axis, p.group, q.scheme, rotation=p.rotation)
    return type(q)._make(store, transposed, spec, parameters, dtype, q.activations)


def _scales_of(p: ArrayParts) -> GroupScales | None:
    return None if p.group_scale is None or p.group is None else GroupScales(p.group, p.group_scale, p.group_zero)


def in_codes_order(q: QArray) -> QArray:
    """The array with its elements where the codes lie: without its order."""
    return q if q._order is None else with_store(q, parameters_only(q)._replace(order=None), q._store, q._transposed)


def unpacked(q: QArray) -> QArray:
    """The array with codes as an array, so that they are not unpacked at each access."""
    return with_parts(q, array_parts(q)) if q._store.packed else q


# Views and parts


def swapped_matrices(q: QArray) -> QArray:
    """Each matrix transposed; codes are shared. The array keeps the result, and thus its prepared products."""
    swapped: QArray | None = q._cache.get("swapped")
    if swapped is None:
        order = (*range(q.ndim - 2), q.ndim - 1, q.ndim - 2)
        parts = structure.permuted(parameters_only(q), order)
        swapped = q._cache["swapped"] = with_store(q, parts, q._store, not q._transposed)
    return swapped


def _stored_axis(q: QArray, axis: int) -> int:
    """Which axis of the store's matrices, -1 or -2, one of the last two axes is."""
    return -2 if (axis == q.ndim - 1) == q._transposed else -1


def part(q: QArray, key: tuple[AxisIndex, ...]) -> QArray:
    """Some of the elements along each axis; codes are shared where they can be."""
    across = q.ndim - 1 - (q._store.transposed != q._transposed)
    index = key[across]
    if q.ndim == 2 and across != q.axis and isinstance(index, np.ndarray) and key[1 - across] == indexing.FULL:
        # Rows of embeddings, say: this way takes two thirds of the time.
        lines = q._store.lines(index, _stored_axis(q, across))
        if lines is not None:
            p = structure.cut(_parts(q, structure.placeholder(q.shape), None), across, index)
            return with_store(q, p, lines, q._transposed)
    # Integer scales lie packed beside the codes: only those of the chosen columns are unpacked.
    few = q._store.groups_shape is not None and across != q.axis
    p = _parts(q, structure.placeholder(q.shape), None if few else group_scales(q))
    for axis in sorted(range(q.ndim), key=lambda axis: axis != across):
        index = key[axis]
        if not (isinstance(index, slice) and index == indexing.FULL):
            p = structure.cut(p, axis, index)
        if few and axis == across:
            scales = oriented(q._store.scales(index, _stored_axis(q, axis)), q._transposed)
            assert scales is not None
            p = p._replace(group_scale=scales.scale, group_zero=scales.zero)
    if q._transposed:
        key = (*key[:-2], key[-1], key[-2])
    return with_store(q, p, q._store.part(key, oriented(_scales_of(p), q._transposed)), q._transposed)


def without(q: QArray, axis: int) -> QArray:
    """Without an axis of length 1."""
    if axis < q.ndim - 2 and axis != q.axis:
        return with_store(q, structure.dropped(parameters_only(q), axis), q._store.dropped(axis), q._transposed)
    return with_parts(q, structure.dropped(array_parts(q), axis))


def expanded(q: QArray, axis: int) -> QArray:
    """With a new axis of length 1."""
    return with_parts(q, structure.expanded(array_parts(q), axis))


def indexed(q: QArray, key: Any) -> Any:
    """``q[key]``: a quantized array, or a number where an integer is given for each axis."""
    if isinstance(key, bool | np.bool_) or (isinstance(key, np.ndarray) and key.shape == () and key.dtype == bool):
        whole = expanded(q, 0)  # as in NumPy: a new axis, of no element where it is False
        return whole if key else indexed(whole, slice(0))
    parsed = indexing.parse(key, q.shape)
    result = q if all(isinstance(k, slice) and k == indexing.FULL for k in parsed.key) else part(q, parsed.key)
    if parsed.shape == () and key is not Ellipsis:
        return result.dequantize().reshape(())[()]
    for axis in reversed(parsed.dropped):
        result = without(result, axis)
    if parsed.spread is not None:
        axis, shape = parsed.spread
        axis -= sum(d < axis for d in parsed.dropped)
        if len(shape) != 1:
            result = reshape(result, *result.shape[:axis], *shape, *result.shape[axis + 1 :])
        if parsed.leading:
            moved = range(axis, axis + len(shape))
            result = transpose(result, *moved, *(d for d in range(result.ndim) if d not in moved))
    for axis in parsed.added:
        result = expanded(result, axis)
    assert result.shape == parsed.shape
    return result
