"""NumPy's rules of shapes and types, as they hold for a product, and the checks of arguments.

Pure: nothing here touches the machine. Messages are NumPy's own where NumPy has one.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from contextlib import suppress
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.exceptions import AxisError

from fastq.messages import shown, with_type
from fastq.scheme import CodeRange, code_range

Array = npt.NDArray[Any]

EIGHT_BIT: dict[np.dtype[Any], CodeRange] = {
    np.dtype(np.int8): code_range(8, "symmetric"),
    np.dtype(np.uint8): code_range(8, "asymmetric"),
}


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is a float type that fastq takes: float16, float32, float64, or ml_dtypes' bfloat16."""
    return (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16"


def float_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The type that arrays are quantized in: float32, or float64 for what float32 cannot hold."""
    if is_float(dtype) or dtype.kind in "iu":
        wide = dtype.itemsize == 8 if dtype.kind == "f" else dtype.kind in "iu" and dtype.itemsize > 2
        return np.dtype(np.float64 if wide else np.float32)
    raise TypeError(
        f"{name} must be of real numbers (float16, float32, float64, bfloat16 or integers), got dtype {dtype}; "
        "convert it first"
    )


def as_floats(array: Array, name: str) -> Array:
    """The array in that type."""
    return array.astype(float_type(array.dtype, name), copy=False)


@lru_cache(maxsize=256)
def output_type(a: np.dtype[Any], b: np.dtype[Any], quantized: tuple[bool, bool]) -> np.dtype[Any] | None:
    """The type of the product of arrays of types a and b, either `quantized` or not; None where NumPy is asked."""
    if any(quantized):
        for dtype, is_quantized in zip((a, b), quantized):
            if not (is_quantized or dtype.kind in "biu" or is_float(dtype)):
                raise TypeError(
                    f"a quantized array multiplies arrays of real numbers up to 64 bits, got dtype {dtype}; "
                    "call dequantize() for a product in that type"
                )
    elif a in EIGHT_BIT and b in EIGHT_BIT:
        return np.dtype(np.int32)
    elif not (is_float(a) or is_float(b)) or not all(is_float(d) or d.kind in "iu" for d in (a, b)):
        return None
    # Eight-bit arrays are exact in any float; a float16 or bfloat16 product comes in float32, as it is accumulated.
    kinds = [np.dtype(np.float32) if d.name == "bfloat16" or d in EIGHT_BIT else d for d in (a, b)]
    return np.result_type(np.float32, *kinds)


def check_bits(bits: Any) -> int:
    """A width of 2 to 8 bits."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise TypeError(f"bits must be an integer from 2 to 8, got {with_type(bits)}" + _bits_meant(bits))
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, got {shown(int(bits))}; codes are stored in that many bits")
    return int(bits)


def _bits_meant(given: Any) -> str:
    """What to write instead, of the name of a type or of a number that is not an integer."""
    name = ""
    if isinstance(given, str):
        name = given
    elif isinstance(given, type | np.dtype):
        with suppress(TypeError):
            name = np.dtype(given).name
    elif isinstance(given, float | np.floating):
        name = str(float(given))
    found = re.fullmatch(r"(u?)(?:int)?([2-8])(?:\.0)?", name)
    if found is None:
        return ""
    return f": write bits={found[2]}" + (", with scheme='asymmetric' if codes are to be unsigned" if found[1] else "")


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
    decimal = sys.modules.get("decimal")  # who has such a number has imported it
    numbers = Real if decimal is None else (Real, decimal.Decimal)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise TypeError(f"{name} must be {rule}, got {with_type(value)}")
    try:
        return float(value)
    except OverflowError:  # of integers and fractions
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def plain(value: Any) -> Any:
    """A string of a user's own class as a plain one, which is what is kept and shown; others as they are."""
    return str.__str__(value) if isinstance(value, str) else value


def word(value: Any, name: str, words: tuple[str, ...]) -> Any:
    """One of several words, as a plain string; arrays, which compare by element, and what equals anything are none."""
    text = plain(value)
    if not isinstance(text, str) or text not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}; got {shown(value)}")
    return text


def truth(value: Any, name: str) -> bool:
    """Whether a value counts as true; what cannot tell, such as an array, is refused."""
    if value is None or isinstance(value, int | float | np.bool_):  # outside of what a signal's handler may break into
        return bool(value)
    try:
        return bool(value)
    except Exception:
        raise TypeError(f"{name} must be True or False, got {with_type(value)}") from None


def data_type(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """A data type, from whatever NumPy takes for one."""
    if isinstance(value, np.dtype):
        return value
    if isinstance(value, type) and issubclass(value, np.generic | float | int):  # no handler's exception is caught
        return np.dtype(value)
    try:
        found: np.dtype[Any] = np.dtype(value)
        return found
    except Exception as error:  # of many kinds, for what looks like a description of fields
        if isinstance(error, TypeError) and "data type" in str(error):
            raise  # in NumPy's words
        raise TypeError(f"{name} must be a data type, got {shown(value)}; NumPy says: {error}") from None


def check_group(group_size: Any) -> int:
    """A size of groups along an axis."""
    size = integer(group_size, "group_size", "a positive integer or None")
    if size < 1:
        raise ValueError(f"group_size must be a positive integer or None, got {shown(size)}")
    if size > sys.maxsize:
        raise ValueError(f"group_size must be at most {sys.maxsize}, as any length is; got {shown(size)}")
    return size


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
    found = tuple(axis_of(axis, ndim) for axis in several)
    if len(set(found)) < len(found):
        raise ValueError(f"axis must name each axis once (repeated axis), got {shown(axes)}")
    return found


def result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], int, int, int, tuple[int, ...]]:
    """Batch shape, m, k, n and the result's shape by NumPy's rules, with NumPy's words where they are broken."""
    for number, shape in enumerate((a, b)):
        if not shape:
            raise ValueError(
                f"matmul: Input operand {number} does not have enough dimensions (has 0, gufunc core with signature "
                "(n?,k),(k,m?)->(n?,m?) requires 1)"
            )
    a2 = (1, *a) if len(a) == 1 else a
    b2 = (*b, 1) if len(b) == 1 else b
    (m, k), (k2, n) = a2[-2:], b2[-2:]
    if k != k2:
        raise ValueError(
            f"matmul: Input operand 1 has a mismatch in its core dimension 0, with gufunc signature "
            f"(n?,k),(k,m?)->(n?,m?) (size {k2} is different from {k})"
        )
    if len(a2) == len(b2) == 2:
        batch: tuple[int, ...] = ()
        return batch, m, k, n, a[:-1] + b[1:]
    try:
        batch = np.broadcast_shapes(a2[:-2], b2[:-2])
    except ValueError:
        raise ValueError(
            f"operands could not be broadcast together with remapped shapes [original->remapped]: {_shape(a)} and "
            f"{_shape(b)}: the batch dimensions {_shape(a2[:-2])} and {_shape(b2[:-2])} differ"
        ) from None
    shape = batch + ((m,) if len(a) > 1 else ()) + ((n,) if len(b) > 1 else ())
    return batch, m, k, n, shape


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def check_bias(bias: Any, n: int, dtype: np.dtype[Any]) -> Array:
    """A bias as an array of n numbers of the product's type."""
    array = np.asarray(bias)
    if array.shape not in ((), (1,), (n,)):
        raise ValueError(f"bias must be a number or have one entry per column, shape ({n},); got shape {array.shape}")
    if not (array.dtype.kind in "biu" or is_float(array.dtype)):
        raise TypeError(f"bias must be of real numbers, got dtype {array.dtype}")
    if dtype == np.int32 and is_float(array.dtype):
        raise TypeError(f"bias of an integer product must be of integers, got dtype {array.dtype}; it would be cut off")
    if dtype == np.int32 and array.size and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise ValueError(f"bias of an integer product must fit int32, got values from {array.min()} to {array.max()}")
    return np.broadcast_to(array.astype(dtype), (n,))


def deliverable(natural: np.dtype[Any]) -> tuple[str, ...]:
    """The types in which a product, by nature of another type, can be had."""
    return ("float16", "float32", "float64") + (("int32", "int64") if natural.kind == "i" else ())


def check_dtype(dtype: Any, natural: np.dtype[Any]) -> np.dtype[Any]:
    """The type that a product, by nature of another type, is asked for."""
    wanted = data_type(dtype)
    known = deliverable(natural)
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
    epilogue = plain(epilogue)
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


def in_place(target: Array, shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether kernels can write an output of this shape into the target's own memory."""
    if target.dtype != dtype or not target.flags.aligned:
        return False
    if target.flags.c_contiguous:
        return True
    rows, step = target.strides if target.shape == shape else (0, 0)
    return step == dtype.itemsize and rows % dtype.itemsize == 0
