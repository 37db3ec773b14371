"""What the operators of ONNX take: types by number or name, numbers, and parameters that are spread along an axis."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastq.errors import shown, with_type
from fastq.formats.onnx.types import FLOATS, NAMES, CodeType

Array = npt.NDArray[Any]
Kind = TypeVar("Kind")


def type_name(given: Any, argument: str) -> str:
    """The name that ONNX has for a type, which is given by its number, or as NumPy takes types."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        if int(given) not in NAMES:
            raise ValueError(f"{argument} must be a type of ONNX, by number from 1 to {max(NAMES)}, got {given}")
        return NAMES[int(given)]
    if isinstance(given, str) and given in NAMES.values():
        return given
    try:
        return str(np.dtype(given).name).replace("_", "")  # float8_e4m3fn is float8e4m3fn in ONNX
    except TypeError:
        raise TypeError(f"{argument} must be a type, got {with_type(given)}") from None


def code_type(name: str, argument: str) -> CodeType:
    """A type of 2, 4, 8 or 16 bits."""
    kind = CodeType.of(name)
    if kind is None:
        reason = "floats of 8 bits or fewer are no integers, and fastq has none" if name.startswith("float") else ""
        raise TypeError(
            f"{argument} must be of int or uint of 2, 4, 8 or 16 bits, got {name}{': ' if reason else ''}{reason}"
        )
    return kind


def float_type(name: str, argument: str) -> np.dtype[Any]:
    """A type of floats."""
    if name not in FLOATS:
        raise TypeError(f"{argument} must be one of {', '.join(sorted(FLOATS))}, got {name}")
    if name == "bfloat16":
        if not find_spec("ml_dtypes"):
            raise TypeError(f"{argument} bfloat16 needs ml_dtypes: pip install ml_dtypes")
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def floats(given: Any, argument: str, others: str = "") -> Array:
    """Floats; a number of Python is float32, as all are in ONNX. `others` names a further type that will do."""
    array = np.asarray(given, np.float32) if isinstance(given, float | int) else np.asarray(given)
    if array.dtype.name not in (*FLOATS, others):
        raise TypeError(f"{argument} must be of floats, got dtype {array.dtype}")
    return array


def codes(given: Any, argument: str, allowed: tuple[str, ...] = ()) -> tuple[Array, CodeType]:
    """Codes in a type that NumPy computes in, and their own."""
    array = np.asarray(given)
    kind = code_type(type_name(array.dtype, argument), argument)
    if allowed and kind.name not in allowed:
        raise TypeError(f"{argument} must be of {' or '.join(allowed)}, got {kind.name}")
    return array.astype(kind.held, copy=False), kind


def zero_point(given: Any, kind: CodeType, argument: str) -> Array:
    """A zero point of this type; a number of Python is one."""
    if isinstance(given, int) and not isinstance(given, bool):
        low, high = kind.limits
        if not low <= given <= high:
            raise ValueError(f"{argument} must be from {low} to {high}, as {kind.name} is, got {shown(given)}")
        return np.asarray(given, kind.held)
    array, own = codes(given, argument)
    if own != kind:
        raise TypeError(f"{argument} must be of the type of the codes, {kind.name}, got {own.name}")
    return array


def along_lines(values: Array, shape: tuple[int, ...], axis: int, argument: str) -> Array:
    """Parameters of a matrix or a stack of them: one, or one per row (axis -2) or column (axis -1)."""
    if values.size == 1:
        return values.reshape(())
    lines = shape[axis]
    if values.shape == (lines,) and len(shape) == 2:
        return values[:, None] if axis == -2 else values[None]
    stack = (*shape[:-2], lines, 1) if axis == -2 else (*shape[:-2], 1, lines)
    if values.shape != stack:
        word = "row" if axis == -2 else "column"
        raise ValueError(
            f"{argument} must be a number, or one per {word}: of shape {stack}, or of a matrix ({lines},); got shape "
            f"{values.shape}"
        )
    return values


def block_size_of(given: Any) -> int:
    """A block size, or 0."""
    if not isinstance(given, int | np.integer) or given < 0:
        raise ValueError(f"block_size must be an integer that is not negative, got {with_type(given)}")
    return int(given)
