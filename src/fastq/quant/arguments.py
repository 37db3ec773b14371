"""Checks of what :func:`fastq.quantize` is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.errors import shown
from fastq.promotion import check_real
from fastq.quant import groups
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method
from fastq.quant.moment import SecondMoment
from fastq.scheme import code_range
from fastq.validation import check_group, integer

Array = npt.NDArray[Any]
LARGEST_BLOCK = 4096  # channels that are rotated together: a row of so many stays in the fastest cache
MOST_INTEGER_BITS = 6  # with 7 bits two integers are left for scales


def check_axis(axis: Any, ndim: int) -> int | None:
    """An axis counted from 0, or None."""
    if axis is None:
        return None
    number = integer(axis, "axis", "an integer or None")
    if not -ndim <= number < ndim:
        raise ValueError(
            f"axis must be from {-ndim} to {ndim - 1} for an array of {ndim} dimensions, got {shown(number)}"
        )
    return number % ndim


def check_grouping(group_size: Any, axis: int | None) -> int | None:
    """A group size that has an axis to be cut, or None."""
    if group_size is None:
        return None
    size = check_group(group_size)
    if axis is None:
        raise ValueError(f"group_size needs an axis along which to cut groups; got group_size={size} with axis=None")
    return size


def check_group_scale(value: Any, bits: int, group: int | None, scheme: str, given: bool) -> bool:
    """Whether groups get integer scales."""
    if value is not None and not (isinstance(value, str) and value in ("integer", "float")):
        raise ValueError(f"group_scale must be 'integer', 'float' or None, got {shown(value)}")
    possible = groups.possible(bits, group, scheme) and not given
    if value == "integer" and not possible:
        raise ValueError(
            "group_scale='integer' needs a group_size that is a multiple of 16, 2 to 7 bits, scheme 'symmetric' or "
            f"'asymmetric' and no scale of your own; got group_size={group}, bits={bits}, scheme={shown(scheme)}"
            + (" and a scale" if given else "")
        )
    return possible and (value == "integer" or (value is None and bits <= MOST_INTEGER_BITS))


def check_balance(balance: npt.ArrayLike | None, axis: int | None, shape: tuple[int, ...]) -> Array:
    """Factors of x along the axis, in a shape that broadcasts to its shape; None stands for factors of 1."""
    if axis is None:
        raise ValueError("balance needs the axis along which its factors lie; got balance with axis=None")
    given = np.ones(shape[axis]) if balance is None else np.asarray(balance)
    check_real(given, "balance")
    broadcast = tuple(n if i == axis else 1 for i, n in enumerate(shape))
    if given.shape not in ((shape[axis],), broadcast):
        raise ValueError(
            f"balance must have one factor per element of axis {axis}, shape ({shape[axis]},); got shape {given.shape}"
        )
    with np.errstate(over="ignore", under="ignore"):
        factors = given.astype(np.float32).reshape(broadcast)
    usable = np.isfinite(factors) & (factors > 0)
    if not usable.all():
        raise ValueError(f"balance must be positive and finite in float32, got {factors[~usable].flat[0]}")
    return factors


def check_rotation(rotate: Any, axis: int | None, shape: tuple[int, ...]) -> int:
    """The size of the blocks along the axis that are rotated."""
    if not isinstance(rotate, bool | np.bool_):
        raise TypeError(f"rotate must be True or False, got {shown(rotate)}")
    if not rotate:
        return 1
    if axis is None:
        raise ValueError("rotate needs the axis along which elements are mixed; got rotate=True with axis=None")
    block = min(shape[axis] & -shape[axis], LARGEST_BLOCK)
    if block < 16:
        raise ValueError(
            f"rotate needs a multiple of 16 elements, better one of a large power of two, along its axis; got shape "
            f"{shape} with axis={axis}"
        )
    return block


def check_calibration(
    calibration: Any, method: Method, axis: int | None, shape: tuple[int, ...]
) -> SecondMoment | None:
    """The second moment of calibration data, where the method takes one."""
    led = isinstance(method, Gptq)
    if calibration is None:
        if led:
            raise ValueError("method='gptq' needs calibration, rows of real input to the product; got none")
        return None
    if not led and method != "mse":
        raise ValueError(f"calibration is for method 'mse' or 'gptq', which look at errors; got method={shown(method)}")
    if axis is None or (led and len(shape) != 2):
        raise ValueError(
            "calibration is about a product along the axis of a matrix, so it needs "
            + (f"an axis; got shape {shape} with axis=None" if axis is None else f"two dimensions; got shape {shape}")
        )
    moment = SecondMoment.of(calibration)
    if len(moment.matrix) != shape[axis]:
        raise ValueError(
            f"calibration must have rows of {shape[axis]} elements, one per element of axis {axis}; got rows of "
            f"{len(moment.matrix)}"
        )
    return moment


def check_parameters(
    scale: Any, zero_point: Any, shape: tuple[int, ...], bits: int, scheme: str, dtype: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Own scale and zero point, in the shape and types that the kernels take."""
    if scale is None:
        if zero_point is not None:
            raise ValueError("zero_point must come with a scale; got zero_point alone")
        return None, None
    if scheme == "affine":
        raise ValueError(
            "scheme='affine' takes scale and offset from the data; for a scale of your own use 'asymmetric'"
        )
    given = np.asarray(scale)
    check_real(given, "scale")
    with np.errstate(over="ignore"):
        values = _broadcast(given.astype(dtype), shape, "scale")
    if not np.isfinite(values).all() or (values == 0).any():
        bad = values[~np.isfinite(values) | (values == 0)].flat[0]
        raise ValueError(f"scale must be finite and not 0 in {dtype}, because x is divided by it; got {bad}")
    if scheme == "asymmetric" and (values < 0).any():
        raise ValueError(f"scale must be positive for scheme='asymmetric', got {values[values < 0].flat[0]}")
    if scheme == "symmetric":
        if zero_point is not None and np.any(np.asarray(zero_point) != 0):
            raise ValueError("zero_point must be left out (or 0) for scheme='symmetric'; use 'asymmetric' for others")
        return values, None
    if zero_point is None:
        raise ValueError("scheme='asymmetric' with a scale of your own needs its zero_point too; got scale alone")
    zeros = np.asarray(zero_point)
    if zeros.dtype.kind not in "iu":
        raise TypeError(f"zero_point must be of integers, got dtype {zeros.dtype}")
    high = code_range(bits, scheme).high
    if zeros.size and not (int(zeros.min()) >= 0 and int(zeros.max()) <= high):
        worst = int(zeros.min()) if int(zeros.min()) < 0 else int(zeros.max())
        raise ValueError(f"zero_point must be a code, from 0 to {high} for {bits} bits, so that 0 has one; got {worst}")
    return values, _broadcast(zeros.astype(np.int32), shape, "zero_point")


def _broadcast(values: Array, shape: tuple[int, ...], name: str) -> Array:
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to shape {shape}, one entry per run of elements that share it; "
            f"got shape {values.shape}"
        ) from None
