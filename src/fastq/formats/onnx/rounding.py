"""Numbers to codes as QuantizeLinear rounds them; and initializers of floats that the graph rounds so."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastq.errors import NotFiniteError
from fastq.formats.binary import Array
from fastq.formats.onnx.tensors import Tensor
from fastq.formats.onnx.types import CodeType
from fastq.layout.tiles import ceil_div


class Grain(NamedTuple):
    """Where parameters differ: along an axis, or by blocks along it (0: there are none)."""

    axis: int
    block: int

    def spread(self, values: Array, shape: tuple[int, ...], name: str) -> Array:
        """Parameters in a shape that broadcasts to `shape`: one for all, or one per index of the axis, or per block."""
        if values.size == 1:
            return values.reshape(())
        axis, block = self
        if block < 0:
            raise ValueError(f"block_size must not be negative, got {block}")
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis must be one of the {len(shape)} axes, got {axis}")
        axis %= len(shape)
        if not block:
            if values.shape != shape[axis : axis + 1]:
                raise ValueError(
                    f"{name} must be a number, or one per index of axis {axis}, shape ({shape[axis]},); got shape "
                    f"{values.shape}"
                )
            return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        needed = (*shape[:axis], ceil_div(shape[axis], block), *shape[axis + 1 :])
        if values.shape != needed:
            raise ValueError(
                f"{name} must have one entry per block of {block} along axis {axis}, shape {needed}; got shape "
                f"{values.shape}"
            )
        return np.repeat(values, min(block, shape[axis]), axis)[(slice(None),) * axis + (slice(shape[axis]),)]


def rounded(x: Array, scale: Array, zero: Array | None, kind: CodeType, grain: Grain, work: np.dtype[Any]) -> Array:
    """``saturate(round(x / scale) + zero)``, divided in the type `work`."""
    divisor = grain.spread(scale.astype(work), x.shape, "y_scale")
    with np.errstate(all="ignore"):
        quotient = np.asarray(x.astype(work) / divisor)
    return saturated(quotient, None if zero is None else grain.spread(zero, x.shape, "y_zero_point"), kind)


def saturated(quotient: Array, zero: Array | None, kind: CodeType) -> Array:
    """Rounded, halves to even numbers, then moved by the zero point, then brought into the range."""
    work = np.float64 if quotient.dtype == np.float64 else np.float32
    values = np.rint(quotient.astype(work, copy=False))
    if np.isnan(values).any():
        raise NotFiniteError("x divided by its scale must be a number or infinite, because NaN has no code; got NaN")
    if zero is not None:
        values = values + zero.astype(work)
    codes: Array = np.clip(values, *kind.limits).astype(kind.held)
    return codes


class Rounded(NamedTuple):
    """An initializer of floats that QuantizeLinear rounds; it stands where a tensor of codes may stand."""

    numbers: Tensor
    scale: Tensor
    zero: Tensor | None
    codes: CodeType
    grain: Grain

    @property
    def name(self) -> str:
        """That of the initializer."""
        return self.numbers.name

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return self.numbers.place

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.numbers.shape

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the file."""
        return self.numbers.nbytes

    def held(self) -> Array:
        """The codes."""
        zero, scale = None if self.zero is None else self.zero.held(), self.scale.held()
        if scale.dtype.name != self.scale.kind:
            raise ValueError("its scale is of bfloat16, so rounding needs ml_dtypes: pip install ml_dtypes")
        return rounded(self.numbers.held(), scale, zero, self.codes, self.grain, scale.dtype)
