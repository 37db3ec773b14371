"""Checks of arguments: each returns the value in the form that other code relies on, or raises an error."""

from __future__ import annotations

import math
import operator
import re
import sys
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.exceptions import AxisError

from fastq.errors import shown, with_type
from fastq.promotion import check_real, deliverable, is_float

Array = npt.NDArray[Any]


def check_bits(bits: Any) -> int:
    """A width of 2 to 8 bits."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise TypeError(f"bits must be an integer from 2 to 8, got {with_type(bits)}" + _bits_meant(bits))
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, got {shown(int(bits))}; codes are stored in that many bits")
    return int(bits)


def _bits_meant(given: Any) -> str:
    """The advice for bits given as the name of a type, or as a float."""
    name = ""
    if isinstance(given, str):
        name = given
    elif isinstance(given, type | np.dtype):
        with suppress(TypeError):
            name = np.dtype(given).name
    elif isinstance(given, float | np.floating):
        name = str(float(given))
    match = re.fullmatch(r"(u?)(?:int)?([2-8])(?:\.0)?", name)
    if match is None:
        return ""
    return f": write bits={match[2]}" + (", with scheme='asymmetric' if codes are to be unsigned" if match[1] else "")


def integer(value: Any, name: str, rule: str) -> int:
    """A Python integer from any kind of integer but bool; `rule` ends the sentence "name must be ..."."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {rule}, got {with_type(value)}") from None


def real(value: Any, name: str, rule: str) -> float:
    """A Python float from any kind of real number but bool; `rule` ends the sentence "name must be ..."."""
    decimal = sys.modules.get("decimal")  # a program that has such a number has imported it
    numbers = Real if decimal is None else (Real, decimal.Decimal)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise TypeError(f"{name} must be {rule}, got {with_type(value)}")
    try:
        return float(value)
    except OverflowError:  # of integers and fractions
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def as_str(value: Any) -> Any:
    """A string of a user's own class as a plain string; other values unchanged."""
    return str.__str__(value) if isinstance(value, str) else value


def word(value: Any, name: str, words: tuple[str, ...]) -> Any:
    """One of several words, as a plain string. Arrays, and objects that equal anything, are none of them."""
    text = as_str(value)
    if not isinstance(text, str) or text not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}; got {shown(value)}")
    return text


def truth(value: Any, name: str) -> bool:
    """Whether a value counts as true; one that cannot tell, such as an array, is refused."""
    if value is None or isinstance(value, int | float | np.bool_):  # a signal handler's exception must not be caught
        return bool(value)
    try:
        return bool(value)
    except Exception:
        raise TypeError(f"{name} must be True or False, got {with_type(value)}") from None


def data_type(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """A data type, from anything that NumPy takes as one."""
    if isinstance(value, np.dtype):
        return value
    if isinstance(value, type) and issubclass(
        value, np.generic | float | int
    ):  # a signal handler's exception must not be caught
        return np.dtype(value)
    try:
        dtype: np.dtype[Any] = np.dtype(value)
        return dtype
    except Exception as error:  # of many kinds, if the value looks like a description of fields
        if isinstance(error, TypeError) and "data type" in str(error):
            raise  # with NumPy's message
        raise TypeError(f"{name} must be a data type, got {shown(value)}; NumPy says: {error}") from None


def check_group(group_size: Any) -> int:
    """The size of groups along an axis."""
    size = integer(group_size, "group_size", "a positive integer or None")
    if size < 1:
        raise ValueError(f"group_size must be a positive integer or None, got {shown(size)}")
    if size > sys.maxsize:
        raise ValueError(f"group_size must be at most {sys.maxsize}, as any length is; got {shown(size)}")
    return size


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


def axis_of(axis: Any, ndim: int) -> int:
    """An axis counted from 0, or NumPy's error; NumPy's own function raises OverflowError beyond an int of C."""
    number = integer(axis, "axis", "an integer")
    if not -ndim <= number < ndim:
        raise AxisError(f"axis {shown(number)} is out of bounds for array of dimension {ndim}")
    return number % ndim


def axes_of(axes: Any, ndim: int) -> tuple[int, ...]:
    """Several axes counted from 0, each once, or NumPy's error."""
    try:
        several = (axes,) if hasattr(axes, "__index__") and np.ndim(axes) == 0 else tuple(axes)
    except TypeError:
        raise TypeError(f"axis must be an integer or several, got {with_type(axes)}") from None
    numbers = tuple(axis_of(axis, ndim) for axis in several)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"axis must name each axis once (repeated axis), got {shown(axes)}")
    return numbers


def check_bias(bias: Any, n: int, dtype: np.dtype[Any]) -> Array:
    """A bias as an array of n numbers of the product's type."""
    array = np.asarray(bias)
    if array.shape not in ((), (1,), (n,)):
        raise ValueError(f"bias must be a number or have one entry per column, shape ({n},); got shape {array.shape}")
    check_real(array, "bias", "biu")
    if dtype == np.int32 and is_float(array.dtype):
        raise TypeError(f"bias of an integer product must be of integers, got dtype {array.dtype}; it would be cut off")
    if dtype == np.int32 and array.size and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise ValueError(f"bias of an integer product must fit int32, got values from {array.min()} to {array.max()}")
    return np.broadcast_to(array.astype(dtype), (n,))


def check_dtype(dtype: Any, natural: np.dtype[Any]) -> np.dtype[Any]:
    """The type asked for, of a product whose own type is `natural`."""
    wanted, known = data_type(dtype), deliverable(natural)
    if wanted.name not in known:
        raise TypeError(
            f"dtype must be one of {', '.join(known)} for a product of type {natural}, or int8 or uint8 for a "
            f"quantized one; got {wanted}"
        )
    native: np.dtype[Any] = np.dtype(wanted.name)
    return native


def check_epilogue(epilogue: Any, dtype: np.dtype[Any], known: tuple[str, ...]) -> Any:
    """None, a name, or a function compiled by Numba."""
    if epilogue is None:
        return None
    epilogue = as_str(epilogue)
    # A program that has such a function has imported Numba.
    numba = sys.modules.get("numba")
    if isinstance(epilogue, str):
        if epilogue not in known:
            raise ValueError(
                f"epilogue must be one of {', '.join(map(repr, known))}, or a function compiled by numba.njit; "
                f"got {shown(epilogue)}"
            )
    elif numba is None or not isinstance(epilogue, numba.core.dispatcher.Dispatcher):
        raise TypeError(
            f"epilogue must be one of {', '.join(map(repr, known))}, or a scalar function compiled by numba.njit; "
            f"got {shown(epilogue)}" + (": decorate it with @numba.njit" if callable(epilogue) else "")
        )
    if dtype.kind == "i":
        raise TypeError(
            f"epilogue needs a product of floats, but that of two arrays of 8-bit integers is {dtype}; pass "
            "dtype=np.float32"
        )
    return epilogue
