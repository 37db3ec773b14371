"""NumPy's rules of shapes and types, as they hold for a product. Pure: nothing here touches the machine.

Messages are NumPy's own where NumPy has one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fastq.scheme import CodeRange, code_range

Array = npt.NDArray[Any]

EIGHT_BIT: dict[np.dtype[Any], CodeRange] = {
    np.dtype(np.int8): code_range(8, "symmetric"),
    np.dtype(np.uint8): code_range(8, "asymmetric"),
}


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is a float type that fastq takes: float16, float32, float64, or ml_dtypes' bfloat16."""
    return (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16"


def check_real(array: Array, name: str, kinds: str = "iu", advice: str = "") -> None:
    """Raise TypeError unless the array is of a float type that fastq takes, or of one of these other kinds."""
    if not (is_float(array.dtype) or array.dtype.kind in kinds):
        raise TypeError(f"{name} must be of real numbers, got dtype {array.dtype}{advice}")


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
    """The array in the type that arrays are quantized in."""
    return array.astype(float_type(array.dtype, name), copy=False)


@overload
def wide(values: Array) -> Array: ...
@overload
def wide(values: Array | None) -> Array | None: ...
def wide(values: Array | None) -> Array | None:
    """Parameters as kernels and stores take them: those of float16 and bfloat16 in float32, which is exact."""
    return values if values is None or values.dtype.itemsize != 2 else values.astype(np.float32)


@lru_cache(maxsize=256)
def output_type(a: np.dtype[Any], b: np.dtype[Any], quantized: tuple[bool, bool]) -> np.dtype[Any] | None:
    """The type of the product of arrays of types a and b, each `quantized` or not; None if NumPy multiplies them."""
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


def deliverable(natural: np.dtype[Any]) -> tuple[str, ...]:
    """The types that a product can have if its own type is `natural`."""
    return ("float16", "float32", "float64") + (("int32", "int64") if natural.kind == "i" else ())


def in_place(target: Array, shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether kernels can write an output of this shape into the target's own memory."""
    if target.dtype != dtype or not target.flags.aligned:
        return False
    if target.flags.c_contiguous:
        return True
    rows, step = target.strides if target.shape == shape else (0, 0)
    return step == dtype.itemsize and rows % dtype.itemsize == 0
