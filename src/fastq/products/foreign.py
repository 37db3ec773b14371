"""Arrays of other libraries: read as ndarrays, or multiplied by their own library."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def as_array(x: Any, name: str) -> Array:
    """Anything like an array as one: what ``np.asarray`` makes of it, and tensors that have DLPack alone.

    No data are copied where they lie in the CPU's memory. What its own library refuses to convert (a tensor on a
    device, or one that keeps gradients) is refused in the words of that library.
    """
    array = np.asarray(x)
    if array.dtype != object or array.ndim or not hasattr(type(x), "__dlpack__"):
        return array
    try:
        return np.from_dlpack(x)
    except Exception as error:  # BufferError, RuntimeError, TypeError, or the library's own
        raise TypeError(
            f"{name} must lie in the CPU's memory, in a type that NumPy has; DLPack of {type(x).__name__} says: {error}"
        ) from error


def has_own_products(x: Any) -> bool:
    """Whether ``np.matmul`` would leave the product to x, which has an ``__array_ufunc__`` of its own."""
    usual = np.ndarray.__array_ufunc__
    return getattr(type(x), "__array_ufunc__", usual) is not usual


def is_dask(x: Any) -> bool:
    """Whether it is an array of Dask, which then has been imported."""
    dask = sys.modules.get("dask.array")
    return dask is not None and isinstance(x, dask.Array)
