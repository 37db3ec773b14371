"""What is asked of a quantized array (:class:`QuantSpec`), and what is chosen for it (:class:`QuantParams`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.layout.tiles import ceil_div
from fastq.scheme import SCHEMES, CodeRange, code_range

Array = npt.NDArray[Any]


class QuantSpec(NamedTuple):
    """What is asked for; the arguments of :func:`fastq.quantize`, checked."""

    bits: int
    axis: int | None  # along which elements share parameters; None: all do
    group: int | None  # elements along the axis that share them; None: all
    scheme: str
    integer: bool = False  # groups have integer scales
    rotation: int = 1  # channels along the axis that are mixed; 1: none

    @property
    def limits(self) -> CodeRange:
        """The codes that there are."""
        return code_range(self.bits, self.scheme)

    @property
    def number(self) -> int:
        """The scheme, as kernels know it."""
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
    """Parameters in a form that broadcasts to the array."""
    if axis is None or group is None or values.shape[axis] == 1:
        return values
    return np.take(values, np.arange(shape[axis]) // group, axis=axis)


class QuantParams(NamedTuple):
    """What is chosen; arrays of :func:`parameter_shape`, or that broadcast to it.

    With integer scales of groups, `scale` has length 1 along the axis.
    """

    scale: Array
    zero: Array | None = None  # asymmetric: an integer code
    offset: Array | None = None  # affine
    group_scale: npt.NDArray[np.int8] | None = None

    @classmethod
    def of_scheme(cls, scheme: str, scale: Array, zero: Array, offset: Array) -> QuantParams:
        """Those of the three that a scheme has."""
        return cls(
            scale, zero.astype(np.int32) if scheme == "asymmetric" else None, offset if scheme == "affine" else None
        )

    @property
    def by_group(self) -> QuantParams:
        """The same with a float scale for each group, which is the exact product."""
        if self.group_scale is None:
            return self
        return QuantParams(self.scale * self.group_scale, self.zero, self.offset)

    def mapped(self, arrange: Callable[[Array], Array]) -> QuantParams:
        """With each array, where there is one, put through a function."""
        return QuantParams(*(None if p is None else arrange(p) for p in self))  # type: ignore[arg-type]


class Quantized(NamedTuple):
    """Codes, and the parameters that turn them back into numbers."""

    codes: Array
    params: QuantParams
