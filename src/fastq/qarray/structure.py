"""Cutting, permuting, reshaping, joining and scaling quantized arrays, without changing a value.

A quantized array is codes and parameters. A parameter has one entry per run of elements along the array's axis. Each
function here changes codes and parameters alike. Where no such parameters fit the result (a cut through a group, say),
it raises ValueError rather than change values. All of it is NumPy on arrays; nothing here knows of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.operands import AxisIndex
from fastq.layout.tiles import QUARTER
from fastq.promotion import wide
from fastq.quant.spec import parameter_shape

Array = npt.NDArray[Any]


class ArrayParts(NamedTuple):
    """Codes and parameters of a quantized array; :func:`fastq.quant.spec.parameter_shape` has the parameters' shape.

    With integer group scales (`group_scale`), `scale` has length 1 along the axis and `zero` is None; their zero points
    are in `group_zero`.
    """

    codes: Array
    scale: Array
    zero: Array | None
    offset: Array | None
    group_scale: Array | None
    group_zero: Array | None
    balance: Array | None
    order: Array | None
    axis: int | None
    group: int | None
    rotation: int

    def mapped(self, arrange: Callable[[Array], Array], *names: str) -> ArrayParts:
        """A copy in which a function has been applied to the arrays of these names that are not None."""
        arrays = {name: p for name in names if (p := getattr(self, name)) is not None}
        arranged: dict[str, Any] = {name: arrange(p) for name, p in arrays.items()}
        return self._replace(**arranged)

    @property
    def with_float_scales(self) -> ArrayParts:
        """The same with float scales in place of integer ones, which are exact products."""
        if self.group_scale is None:
            return self
        zero = None if self.group_zero is None else self.group_zero.astype(np.int32)
        return self._replace(scale=self.scale * self.group_scale, zero=zero, group_scale=None, group_zero=None)

    @property
    def widened(self) -> ArrayParts:
        """The same with a scale and an offset that are not of 16 bits."""
        return self.mapped(wide, "scale", "offset")


BY_GROUP = ("scale", "zero", "offset", "group_scale", "group_zero")
BY_CHANNEL = ("balance", "order")
ARRAYS = ("codes", *BY_GROUP, *BY_CHANNEL)


_BYTE = b"\0"


def placeholder(shape: tuple[int, ...]) -> Array:
    """Codes that take no memory, for what is about shapes and parameters alone: all of them are one byte."""
    return np.ndarray(shape, np.int8, _BYTE, 0, (0,) * len(shape))


def _at(axis: int, index: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, index)


def runs(ids: npt.NDArray[np.intp]) -> tuple[int, npt.NDArray[np.intp]] | None:
    """The length of the runs in which ids repeat, and the id of each run, if all but the last have that length."""
    changes = np.flatnonzero(np.diff(ids))
    size = int(changes[0]) + 1 if changes.size else ids.size
    picks = ids[::size]
    return (size, picks) if np.array_equal(np.repeat(picks, size)[: ids.size], ids) else None


def cut(p: ArrayParts, axis: int, index: AxisIndex) -> ArrayParts:
    """Some of the elements along an axis; the axis stays."""
    at, length = _at(axis, index), p.codes.shape[axis]
    codes = _cut_codes(p.codes, axis, index)
    if axis != p.axis:
        p = p if p.axis is None else p.mapped(lambda values: values[at], *BY_GROUP)
        return p._replace(codes=codes)
    p = p.mapped(lambda values: values[at], *BY_CHANNEL)
    if p.order is not None and p.order.size:
        raise ValueError(
            f"a cut along axis {axis} must leave all elements or none, because the codes of an array with an order do "
            "not lie in that of its elements: cut q.dequantize()"
        )
    if p.rotation > 1:
        _check_rotation(index, length, p.rotation)
    if p.group is not None:
        p = _cut_groups(p, axis, index, length)
    return p._replace(codes=codes)


def _cut_codes(codes: Array, axis: int, index: AxisIndex) -> Array:
    """Some of the codes along an axis; a placeholder stays one (NumPy would give the chosen ones memory)."""
    memory: Any = codes.base
    if memory is not _BYTE:
        some: Array = codes[_at(axis, index)]
        return some
    count = len(range(*index.indices(codes.shape[axis]))) if isinstance(index, slice) else index.size
    return placeholder((*codes.shape[:axis], count, *codes.shape[axis + 1 :]))


def _cut_groups(p: ArrayParts, axis: int, index: AxisIndex, length: int) -> ArrayParts:
    """Parameters of some elements along the axis of groups."""
    assert p.group is not None
    ids = np.arange(length)[index] // p.group
    if not ids.size:
        return p.mapped(lambda values: values[_at(axis, slice(0, 1))], *BY_GROUP)
    groups = runs(ids)
    if groups is None:
        raise ValueError(
            f"a cut along axis {axis} must leave groups of one size, because each has its own scale; groups of "
            f"{p.group} would be cut unevenly: cut at multiples of {p.group}, or cut q.dequantize()"
        )
    size, picks = groups
    if len(picks) == 1 and ids.size <= p.group:
        size = p.group
    if size % QUARTER:
        p = p.with_float_scales

    def of_groups(values: Array) -> Array:
        return np.take(values, picks, axis=axis) if values.shape[axis] > 1 else values

    return p.mapped(of_groups, *BY_GROUP)._replace(group=size)


def _check_rotation(index: AxisIndex, length: int, block: int) -> None:
    whole = isinstance(index, slice)
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        whole = step == 1 and start % block == 0 and (stop % block == 0 or stop <= start)
    if not whole:
        raise ValueError(
            f"a cut along the axis of a rotated array must be a slice of whole blocks of {block}, because their "
            "elements are mixed: cut at multiples of that, or cut q.dequantize()"
        )


def dropped(p: ArrayParts, axis: int) -> ArrayParts:
    """Without an axis of length 1."""
    ndim = p.codes.ndim
    if p.axis is None:
        return p.mapped(lambda values: values.reshape(values.shape[:axis] + values.shape[axis + 1 :]), *ARRAYS)
    if axis != p.axis:
        p = p.mapped(lambda values: np.squeeze(values, axis), *ARRAYS)
        assert p.axis is not None
        return p._replace(axis=p.axis - (axis < p.axis))
    if p.rotation > 1 or (p.balance is not None and ndim == 1):
        raise ValueError("the axis along which an array is balanced or rotated must stay; use q.dequantize()")
    # Each element that is left has a scale of its own: groups of one.
    p = p._replace(order=None).with_float_scales.mapped(lambda values: np.squeeze(values, axis), *ARRAYS)
    if ndim == 1:
        return p._replace(axis=None, group=None)
    last, length = ndim - 2, p.codes.shape[-1]
    if length == 0:
        p = p.mapped(lambda values: np.zeros_like(values, shape=(*values.shape[:last], 1)), *BY_GROUP)
    spread = (*(1,) * last, length)
    return p.mapped(lambda values: np.broadcast_to(values.reshape((1,) * (last + 1)), spread), "balance")._replace(
        axis=last, group=1
    )


def expanded(p: ArrayParts, axis: int) -> ArrayParts:
    """With a new axis of length 1."""
    p = p.mapped(lambda values: np.expand_dims(values, axis), *ARRAYS)
    return p if p.axis is None else p._replace(axis=p.axis + (axis <= p.axis))


def permuted(p: ArrayParts, order: Sequence[int]) -> ArrayParts:
    """With its axes in another order."""
    p = p.mapped(lambda values: np.transpose(values, order), *ARRAYS)
    return p if p.axis is None else p._replace(axis=list(order).index(p.axis))


def reshaped(p: ArrayParts, shape: tuple[int, ...]) -> ArrayParts:
    """In another shape of the same size, elements in C order.

    In that order parameters repeat in runs along the axis: ``[outer * axis][inner]``. They can follow where one of the
    new axes has the same elements behind it, and holds whole runs or is held by one.
    """
    old = p.codes.shape
    codes = p.codes.reshape(shape)
    if p.axis is None:
        return p._replace(codes=codes).mapped(lambda values: values.reshape((1,) * len(shape)), *BY_GROUP)
    axis, length, inner = p.axis, old[p.axis], prod(old[p.axis + 1 :])
    ends = [i for i in range(len(shape)) if prod(shape[i + 1 :]) == inner]
    same = [i for i in ends if shape[i] == length and prod(shape[:i]) == prod(old[:axis])]
    if same:
        new = same[0]
        p = p._replace(codes=codes, axis=new)
        p = p.mapped(lambda values: values.reshape(*shape[:new], values.shape[axis], *shape[new + 1 :]), *BY_GROUP)
        return p.mapped(
            lambda values: values.reshape([length if i == new else 1 for i in range(len(shape))]), *BY_CHANNEL
        )
    free = p.balance is None and p.order is None
    if not codes.size and free:
        empty = p.with_float_scales.mapped(lambda values: np.ones_like(values, shape=(1,) * len(shape)), *BY_GROUP)
        return empty._replace(codes=codes, axis=None, group=None)
    run = length if p.group is None else min(p.group, length)
    whole = length % run == 0
    for new in ends:
        size = shape[new]
        if whole and free and (run % size == 0 or size % run == 0):
            return _in_runs(p.with_float_scales, codes, new, run, inner)
    runs_of = f"runs of {run}" if whole else f"groups of {run}, the last one shorter,"
    what = f"has scales for {runs_of} along" if free else "has a balance or an order along"
    raise ValueError(
        f"a new shape must keep runs that share a scale in one of its axes; got {shape} for an array of shape {old} "
        f"that {what} axis {axis}: keep that axis, or reshape q.dequantize()"
    )


def _in_runs(p: ArrayParts, codes: Array, axis: int, run: int, inner: int) -> ArrayParts:
    """Reshaped so that `axis` holds whole runs, or parts of one."""
    shape, size = codes.shape, codes.shape[axis]
    outer = prod(shape[:axis])
    group = run if size > run else None
    picks = np.arange(outer * max(1, size // run)) * min(size, run) // run

    def of_runs(values: Array) -> Array:
        rows: Array = values.reshape(-1, inner)[picks]
        return rows.reshape(*shape[:axis], max(1, size // run), *shape[axis + 1 :])

    return p.mapped(of_runs, *BY_GROUP)._replace(codes=codes, axis=axis, group=group)


def joined(parts: Sequence[ArrayParts], axis: int) -> ArrayParts:
    """Several arrays of one width and scheme, one after the other along an axis."""
    shared = _common(parts, axis)
    codes = np.concatenate([p.codes for p in parts], axis=axis)
    if shared is None:
        return parts[0]._replace(codes=codes)
    parts = [_spread(p, shared) for p in parts]
    first = parts[0]
    if shared == axis:
        return _joined_along(parts, axis)._replace(codes=codes)
    if len({p.group for p in parts}) > 1:
        raise ValueError(
            "arrays that are joined must have groups of one size; got groups of " + _listed([p.group for p in parts])
        )
    if not all(equal(p.balance, first.balance) for p in parts):
        raise ValueError("arrays that are joined beside their balance must have the same one; got different ones")
    if not all(equal(p.order, first.order) for p in parts):
        raise ValueError("arrays that are joined beside their order must have the same one; got different ones")
    if len({p.group_scale is None for p in parts}) > 1:
        parts = [p.with_float_scales for p in parts]
    parameters: dict[str, Any] = {n: _concatenated([getattr(p, n) for p in parts], axis) for n in BY_GROUP}
    return parts[0]._replace(**parameters, codes=codes)


def _common(parts: Sequence[ArrayParts], axis: int) -> int | None:
    """The axis along which the joined array shares scales; None if all arrays have one scale, and the same."""
    axes = {p.axis for p in parts}
    kinds = {p.scale.dtype for p in parts}
    if len(kinds) > 1 and any(kind.itemsize == 2 for kind in kinds):
        raise ValueError(
            "arrays that are joined must all have scales of one type if one has scales of 16 bits, because numbers are "
            f"computed in it; got {_listed([p.scale.dtype for p in parts])}: join what q.dequantize() gives"
        )
    if len({p.rotation for p in parts}) > 1:
        raise ValueError("arrays that are joined must be rotated in blocks of one size; got blocks of "
                         + _listed([p.rotation for p in parts]))  # fmt: skip
    if axes == {None}:
        names = ("scale", "zero", "offset")
        if all(equal(getattr(p, n), getattr(parts[0], n)) for p in parts for n in names):
            return None
        return axis
    axes -= {None}
    if len(axes) > 1:
        raise ValueError(f"arrays that are joined must share scales along one axis; got axes {_listed([*axes])}")
    return axes.pop()


def _spread(p: ArrayParts, axis: int) -> ArrayParts:
    """One scale, repeated along an axis."""
    if p.axis is not None:
        return p
    shape = parameter_shape(p.codes.shape, axis, None)
    return p.mapped(lambda values: np.broadcast_to(values, shape), *BY_GROUP)._replace(axis=axis)


def _joined_along(parts: Sequence[ArrayParts], axis: int) -> ArrayParts:
    """Parameters of arrays joined along the axis that shares them."""
    first = parts[0]
    if len({p.balance is None for p in parts}) > 1:
        raise ValueError("arrays that are joined must all be balanced, or none; got both")
    if any(p.order is not None for p in parts):
        raise ValueError(
            "arrays that are joined along the axis that shares scales must have their codes in the order of their "
            "elements; got one with an order: join what q.dequantize() gives"
        )
    balance = _concatenated([p.balance for p in parts], axis)
    if all(p.group is None and equal(getattr(p, n), getattr(first, n)) for p in parts for n in BY_GROUP):
        return first._replace(balance=balance)
    lengths = [p.codes.shape[axis] for p in parts]
    integer = all(
        p.group_scale is not None and p.group == first.group and np.array_equal(p.scale, first.scale) for p in parts
    )
    if not integer:
        parts = [p.with_float_scales for p in parts]
    ids, before = [], 0
    for p, length in zip(parts, lengths):
        ids.append(before + np.arange(length) // (p.group or max(1, length)))
        before += (p.group_scale if p.group_scale is not None else p.scale).shape[axis]
    groups = runs(np.concatenate(ids))
    if groups is None:
        raise ValueError(
            "arrays that are joined along the axis that shares scales must add up to groups of one size, but for the "
            f"last; got lengths {_listed(lengths)} with groups of {_listed([p.group for p in parts])}: quantize them "
            "as one, or join what q.dequantize() gives"
        )
    size, picks = groups
    names = ("group_scale", "group_zero") if integer else BY_GROUP
    parameters: dict[str, Any] = {n: _concatenated([getattr(p, n) for p in parts], axis) for n in names}
    result = parts[0]._replace(**parameters, balance=balance, group=size)
    result = result.mapped(lambda values: np.take(values, picks, axis=axis), *names)
    return result.with_float_scales if size % QUARTER else result


def scaled(p: ArrayParts, by: Array, divide: bool) -> ArrayParts:
    """Values times (or divided by) numbers that do not vary along the axis.

    `by` has the array's dimensions, and scale's type.
    """
    shape = p.codes.shape
    varying = [d for d in range(len(shape)) if by.shape[d] > 1]
    if p.axis is None and varying:
        free = [d for d in range(len(shape)) if d not in varying]
        if free:
            p = _spread(p, free[-1])
    if varying and (p.axis is None or p.axis in varying):
        raise ValueError(
            f"factors of a quantized array must not vary along the axis that shares a scale, because they are folded "
            f"into it; got shape {by.shape} for shape {shape} with axis={p.axis}: multiply q.dequantize()"
        )
    with np.errstate(over="ignore", under="ignore"):
        result = p.mapped(lambda values: values / by if divide else values * by, "scale", "offset")
    for name in ("scale", "offset"):
        values = getattr(result, name)
        if values is not None and not np.isfinite(values).all():
            raise ValueError(
                f"factors must leave {name} finite in {values.dtype}; got {values[~np.isfinite(values)].flat[0]}"
            )
    return result


def _concatenated(arrays: Sequence[Array | None], axis: int) -> Array | None:
    present = [a for a in arrays if a is not None]
    return np.concatenate(present, axis=axis) if present else None


def equal(a: Array | None, b: Array | None) -> bool:
    """Whether both are None, or arrays with the same elements."""
    return (a is None) == (b is None) and (a is None or np.array_equal(a, b))  # type: ignore[arg-type]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
