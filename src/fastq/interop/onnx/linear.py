"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: numbers to codes and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.errors import NotFiniteError
from fastq.formats.onnx.rounding import Grain, rounded, saturated
from fastq.formats.onnx.types import CodeType, own_type
from fastq.interop.onnx.arguments import (
    Array,
    block_size_of,
    code_type,
    codes,
    float_type,
    floats,
    type_name,
    zero_point,
)


def quantize_linear(
    x: npt.ArrayLike,
    y_scale: npt.ArrayLike,
    y_zero_point: npt.ArrayLike | None = None,
    *,
    axis: int = 1,
    saturate: bool = True,
    block_size: int = 0,
    output_dtype: Any = None,
    precision: Any = None,
) -> Array:
    """QuantizeLinear: ``saturate(round(x / y_scale) + y_zero_point)``; halves are rounded to even numbers.

    Parameters
    ----------
    x : array_like
        Floats or int32.
    y_scale : array_like
        Floats or int32: a number, one per index of `axis`, or one per block along it.
    y_zero_point : array_like, optional
        Of the shape of `y_scale`; its type is that of the result.
    axis : int
        Where scales differ.
    saturate : bool
        Means floats of 8 bits only, and so nothing here: codes always saturate.
    block_size : int
        How many neighbours along the axis share a scale; the last block may be smaller. 0: there are no blocks.
    output_dtype : type, optional
        The type of the codes where there is no zero point, by default uint8.
    precision : type, optional
        The type of floats in which to divide; by default that of `y_scale`, and float64 for int32.

    Returns
    -------
    numpy.ndarray
        Codes of 2, 4, 8 or 16 bits. Infinity saturates.

    Raises
    ------
    TypeError, ValueError
        For types, shapes and values that do not fit; as :class:`fastq.NotFiniteError` where ``x / y_scale`` is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import quantize_linear
    >>> quantize_linear(np.array([-5, 1, 3, 5], np.float32), 2.0, np.uint8(1))
    array([0, 1, 3, 3], dtype=uint8)
    """
    numbers, scale = floats(x, "x", "int32"), floats(y_scale, "y_scale", "int32")
    kind = _wanted(output_dtype, y_zero_point)
    work = scale.dtype if scale.dtype.name != "int32" else np.dtype(np.float64)
    if precision:
        work = float_type(type_name(precision, "precision"), "precision")
    zero = None
    if y_zero_point is not None:
        zero = zero_point(y_zero_point, kind, "y_zero_point")
        _check_alike(zero, scale, "y_zero_point", "y_scale")
    grain = Grain(axis, block_size_of(block_size))
    return own_type(rounded(numbers, scale, zero, kind, grain, work), kind)


def dequantize_linear(
    x: npt.ArrayLike,
    x_scale: npt.ArrayLike,
    x_zero_point: npt.ArrayLike | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: Any = None,
) -> Array:
    """DequantizeLinear: ``(x - x_zero_point) * x_scale``, computed in float32 and rounded once.

    Parameters
    ----------
    x : array_like
        Codes of 2, 4, 8 or 16 bits, or int32 without a zero point.
    x_scale : array_like
        Floats: a number, one per index of `axis`, or one per block along it.
    x_zero_point : array_like, optional
        Of the type of `x` and the shape of `x_scale`.
    axis, block_size : int
        As in :func:`quantize_linear`.
    output_dtype : type, optional
        The type of the result; by default that of `x_scale`.

    Returns
    -------
    numpy.ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import dequantize_linear
    >>> dequantize_linear(np.array([0, 1, 3], np.uint8), 2.0, np.uint8(1))
    array([-2.,  0.,  4.], dtype=float32)
    """
    scale, grain = floats(x_scale, "x_scale"), Grain(axis, block_size_of(block_size))
    wanted = float_type(type_name(output_dtype, "output_dtype"), "output_dtype") if output_dtype else scale.dtype
    work = np.dtype(np.float64 if scale.dtype == np.float64 else np.float32)
    given = np.asarray(x)
    if given.dtype == np.int32:
        if x_zero_point is not None and np.any(x_zero_point):
            raise ValueError("x_zero_point must be left out, or 0, with x of int32; got others")
        values = given.astype(work)
    else:
        held, kind = codes(x, "x")
        values = held.astype(work)
        if x_zero_point is not None:
            zero = zero_point(x_zero_point, kind, "x_zero_point")
            _check_alike(zero, scale, "x_zero_point", "x_scale")
            values = values - grain.spread(zero, values.shape, "x_zero_point").astype(work)
    with np.errstate(over="ignore", invalid="ignore"):
        product = values * grain.spread(scale, values.shape, "x_scale").astype(work)
        return np.asarray(product.astype(wanted, copy=False))


def dynamic_quantize_linear(x: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """DynamicQuantizeLinear: codes of uint8 with a scale and a zero point that the range of x, and 0, just fit.

    Parameters
    ----------
    x : array_like
        Floats, which are taken as float32.

    Returns
    -------
    y : numpy.ndarray
        Codes of uint8.
    y_scale, y_zero_point : numpy.ndarray
        Of no dimensions, float32 and uint8.

    Raises
    ------
    ValueError
        If x is empty, or its range does not fit float32; as :class:`fastq.NotFiniteError` if it is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import dynamic_quantize_linear
    >>> dynamic_quantize_linear(np.array([0, 2, -3, -2.5, 1.34, 0.5], np.float32))
    (array([153, 255,   0,  26, 221, 179], dtype=uint8), array(0.01960784, dtype=float32), array(153, dtype=uint8))
    """
    numbers = floats(x, "x").astype(np.float32, copy=False)
    if not numbers.size:
        raise ValueError("x must have a smallest and a largest number, got none")
    if not np.isfinite(numbers).all():
        raise NotFiniteError("x must be finite, because its range sets the scale; it holds NaN or infinity")
    low, high = np.minimum(numbers.min(), np.float32(0)), np.maximum(numbers.max(), np.float32(0))
    with np.errstate(over="ignore", under="ignore"):
        scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1) / np.float32(255)
        if not 0 < scale < np.inf:
            raise ValueError(f"the range of x must have a scale in float32, got {low} to {high}")
        zero = np.rint(np.clip(-low / scale, 0, 255))
        quotient = np.asarray(numbers / scale)
    kind = CodeType("uint8", 8, False)
    return saturated(quotient, np.asarray(zero), kind), np.asarray(scale), np.asarray(zero, np.uint8)


def _wanted(output_dtype: Any, zero: Any) -> CodeType:
    """The type of codes that is asked for."""
    named = type_name(output_dtype, "output_dtype") if output_dtype else None
    if zero is None or isinstance(zero, int):
        return code_type(named or "uint8", "output_dtype")
    own = type_name(np.asarray(zero).dtype, "y_zero_point")
    if named and named != own:
        raise TypeError(f"output_dtype must be the type of y_zero_point, {own}, got {named}")
    return code_type(own, "y_zero_point")


def _check_alike(zero: Array, scale: Array, name: str, other: str) -> None:
    if zero.shape != scale.shape and not zero.size == scale.size == 1:
        raise ValueError(f"{name} must have the shape of {other}, {scale.shape}, got {zero.shape}")
