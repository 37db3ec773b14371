"""The form of a quantized array (:class:`QuantSpec`), its parameters (:class:`QuantParams`), and its runs.

A run is a set of elements that share parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.layout.tiles import ceil_div
from fastq.scheme import SCHEMES, CodeRange, code_range

Array = npt.NDArray[Any]
LARGEST_BLOCK = 4096  # channels that are rotated together: a row of so many stays in the fastest cache


class QuantSpec(NamedTuple):
    """The form that is asked for, checked."""

    bits: int
    axis: int | None  # along which elements share parameters; None: all do
    group: int | None  # elements along the axis that share them; None: all
    scheme: str
    integer: bool = False  # groups have integer scales
    rotation: int = 1  # channels along the axis that are mixed, a power of two up to LARGEST_BLOCK; 1: none

    @property
    def limits(self) -> CodeRange:
        """The range of codes."""
        return code_range(self.bits, self.scheme)

    @property
    def number(self) -> int:
        """The scheme as kernels number it."""
        return SCHEMES.index(self.scheme)

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See :func:`parameter_shape`."""
        return parameter_shape(shape, self.axis, self.group)


def parameter_shape(shape: tuple[int, ...], axis: int | None, group: int | None) -> tuple[int, ...]:
    """The shape of scale: ``np.max(x, axis, keepdims=True).shape``, or one entry per group along the axis."""
    if axis is None:
        return (1,) * len(shape)
    along = 1 if group is None else max(1, ceil_div(shape[axis], group))
    return (*shape[:axis], along, *shape[axis + 1 :])


def expand(values: Array, shape: tuple[int, ...], axis: int | None, group: int | None) -> Array:
    """Parameters in a shape that broadcasts to that of the array."""
    if axis is None or group is None or values.shape[axis] == 1:
        return values
    return np.take(values, np.arange(shape[axis]) // group, axis=axis)


def cut(n: int, group: int | None) -> list[tuple[int, int, int, int]]:
    """Whole groups along an axis of length n, then the ragged last one: first element, first group, groups, length."""
    size = group or max(1, n)
    whole, rest = divmod(n, size)
    parts = [(0, 0, whole, size)] if whole else []
    if rest or n == 0:
        parts.append((whole * size, whole, 1, rest))
    return parts


def lines(x: Array, axis: int | None) -> Array:
    """An array, or its parameters, with the axis of the spec last (a view, if x is C-contiguous)."""
    return x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, -1)


def runs(x: Array, axis: int | None, group: int | None) -> Iterator[tuple[Array, slice, slice]]:
    """Runs as rows of matrices; and their places along the last axis of :func:`lines`, of x and of the parameters."""
    by_line = lines(x, axis)
    for start, first, count, length in cut(by_line.shape[-1], group):
        elements = slice(start, start + count * length)
        rows = by_line[..., elements].reshape(prod(by_line.shape[:-1]) * count, length)
        yield rows, elements, slice(first, first + count)


class QuantParams(NamedTuple):
    """The parameters that are chosen: arrays of :func:`parameter_shape`, or that broadcast to it.

    With integer scales of groups, `scale` has length 1 along the axis.
    """

    scale: Array
    zero: Array | None = None  # asymmetric: an integer code
    offset: Array | None = None  # affine
    group_scale: npt.NDArray[np.int8] | None = None

    @classmethod
    def of_scheme(cls, scheme: str, scale: Array, zero: Array, offset: Array) -> QuantParams:
        """The parameters that a scheme has, of these three."""
        return cls(
            scale, zero.astype(np.int32) if scheme == "asymmetric" else None, offset if scheme == "affine" else None
        )

    @property
    def by_group(self) -> QuantParams:
        """The same with a float scale for each group: the product of both scales, which is exact."""
        if self.group_scale is None:
            return self
        return QuantParams(self.scale * self.group_scale, self.zero, self.offset)

    def mapped(self, arrange: Callable[[Array], Array]) -> QuantParams:
        """The same with a function applied to each array."""
        return QuantParams(*(None if p is None else arrange(p) for p in self))  # type: ignore[arg-type]


class Quantized(NamedTuple):
    """Codes, and the parameters that turn them back into numbers."""

    codes: Array
    params: QuantParams
