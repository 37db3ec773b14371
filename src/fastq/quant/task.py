"""A quantization whose arguments have been checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import shown
from fastq.promotion import check_real
from fastq.quant import affine, groups
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method, method_of
from fastq.quant.moment import SecondMoment
from fastq.quant.spec import LARGEST_BLOCK, QuantParams, QuantSpec
from fastq.scheme import SCHEMES
from fastq.validation import check_axis, check_bits, check_group, word

Array = npt.NDArray[Any]
MOST_INTEGER_BITS = 6  # with 7 bits two integers are left for scales


class QuantTask(NamedTuple):
    """The arguments of :func:`fastq.quantize`, checked: the code below trusts them."""

    spec: QuantSpec
    given: QuantParams | None  # the user's own scale and zero point
    method: Method
    moment: SecondMoment | None  # of the calibration rows as they came
    balance: Array | None  # factors that broadcast to x; 1 if channels are rotated only

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        bits: Any,
        *,
        axis: Any,
        group_size: Any,
        scheme: Any,
        group_scale: Any,
        method: Any,
        calibration: Any,
        scale: Any,
        zero_point: Any,
        balance: Any,
        rotate: Any,
    ) -> QuantTask:
        """Check the arguments for an array of this shape, whose scales will be of this float type."""
        bits, scheme, chosen = check_bits(bits), word(scheme, "scheme", SCHEMES), method_of(method)
        axis = check_axis(axis, len(shape))
        if group_size is not None:
            group_size = check_group(group_size)
            if axis is None:
                raise ValueError(
                    f"group_size needs an axis along which to cut groups; got group_size={group_size} with axis=None"
                )
        spec = QuantSpec(bits, axis, group_size, scheme)
        given = check_parameters(scale, zero_point, spec, shape, dtype)
        if given is not None and chosen != "minmax":
            raise ValueError(f"method={shown(method)} chooses the scale, so scale must be left out; got both")
        moment = _check_calibration(calibration, chosen, axis, shape)
        rotation = _check_rotation(rotate, axis, shape)
        if moment is not None and isinstance(chosen, Gptq) and rotation == 1:
            moment.tell_of_few_rows()  # a rotation makes use of channels' sizes
        factors = None if balance is None and rotation == 1 else _check_balance(balance, axis, shape)
        integer = _check_group_scale(group_scale, spec, given is not None)
        if integer or rotation > 1:
            spec = spec._replace(integer=integer, rotation=rotation)
        return cls(spec, given, chosen, moment, factors)

    @property
    def name(self) -> str:
        """What is quantized, in messages."""
        return "x" if self.balance is None else "x / balance" if self.spec.rotation == 1 else "x / balance, rotated,"

    def transform(self, x: Array) -> Array:
        """Balance and rotate the channels of x, if asked."""
        return x if self.balance is None else affine.balanced(x, self.spec.axis, self.balance, self.spec.rotation)

    def transformed_moment(self) -> SecondMoment | None:
        """The second moment of the rows that multiply the transformed channels."""
        moment, shrink = self.moment, isinstance(self.method, Gptq)
        return None if moment is None else moment.transformed(self.balance, self.spec.rotation, shrink)


def _check_group_scale(value: Any, spec: QuantSpec, given: bool) -> bool:
    """Whether groups get integer scales."""
    bits, group, scheme = spec.bits, spec.group, spec.scheme
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


def _check_balance(balance: npt.ArrayLike | None, axis: int | None, shape: tuple[int, ...]) -> Array:
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


def _check_rotation(rotate: Any, axis: int | None, shape: tuple[int, ...]) -> int:
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


def _check_calibration(
    calibration: Any, method: Method, axis: int | None, shape: tuple[int, ...]
) -> SecondMoment | None:
    """The second moment of the calibration data, if there are any."""
    compensating = isinstance(method, Gptq)
    if calibration is None:
        if compensating:
            raise ValueError("method='gptq' needs calibration, rows of real input to the product; got none")
        return None
    if not compensating and method != "mse":
        raise ValueError(f"calibration is for method 'mse' or 'gptq', which look at errors; got method={shown(method)}")
    if axis is None or (compensating and len(shape) != 2):
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
    scale: Any, zero_point: Any, spec: QuantSpec, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> QuantParams | None:
    """The user's own scale and zero point for an array of this shape; the scale in this float type."""
    if scale is None:
        if zero_point is not None:
            raise ValueError("zero_point must come with a scale; got zero_point alone")
        return None
    scheme, shape = spec.scheme, spec.parameter_shape(shape)
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
        return QuantParams(values)
    if zero_point is None:
        raise ValueError("scheme='asymmetric' with a scale of your own needs its zero_point too; got scale alone")
    zeros = np.asarray(zero_point)
    if zeros.dtype.kind not in "iu":
        raise TypeError(f"zero_point must be of integers, got dtype {zeros.dtype}")
    high = spec.limits.high
    if zeros.size and not (int(zeros.min()) >= 0 and int(zeros.max()) <= high):
        worst = int(zeros.min()) if int(zeros.min()) < 0 else int(zeros.max())
        raise ValueError(
            f"zero_point must be a code, from 0 to {high} for {spec.bits} bits, so that 0 has one; got {worst}"
        )
    return QuantParams(values, _broadcast(zeros.astype(np.int32), shape, "zero_point"))


def _broadcast(values: Array, shape: tuple[int, ...], name: str) -> Array:
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to shape {shape}, one entry per run of elements that share it; "
            f"got shape {values.shape}"
        ) from None
