"""The one door through which an array's memory reaches a kernel.

A kernel trusts its job: it reads and writes as many elements as the job says, one after the other, of the type that it
was compiled for. So every address in a job comes from here (or from a :class:`~fastq.engine.memory.Workspace`, which
makes the memory), and the array is compared with what the job says. A test makes sure that no other module asks an
array for its address.

The arrays of users have been checked and converted before. So an array that does not fit here is a mistake in fastq. It
raises, rather than give wrong numbers or end the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from fastq.engine.memory import address_of

Array = npt.NDArray[Any]


def address_if(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int | None:
    """The address of an array, if it has this shape and type and is contiguous; otherwise None."""
    if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
        return None
    flags = array.flags
    return address_of(array) if flags.c_contiguous and flags.aligned else None


def flat(array: Array, dtype: npt.DTypeLike, count: int) -> int:
    """The address of at least `count` elements that follow each other in memory."""
    flags = array.flags
    if array.dtype != dtype or not (flags.c_contiguous and flags.aligned) or array.size < count:
        raise _mistake(array, f"{count} contiguous elements of {np.dtype(dtype)}")
    return address_of(array)


def written(array: Array, dtype: npt.DTypeLike, count: int) -> int:
    """Like :func:`flat`, for a kernel that writes there."""
    if not array.flags.writeable:
        raise _mistake(array, "memory that may be written")
    return flat(array, dtype, count)


def rows(array: Array, dtype: npt.DTypeLike, shape: tuple[int, int]) -> tuple[int, int]:
    """The address of a matrix of contiguous rows, and the distance between two rows in elements."""
    if array.dtype != dtype or array.shape != shape or not array.flags.aligned:
        raise _mistake(array, f"a matrix of {np.dtype(dtype)} and shape {shape}")
    pitch, step = array.strides
    if (step != array.itemsize and shape[1] > 1) or pitch % array.itemsize:
        raise _mistake(array, "contiguous rows, whole elements apart")
    return address_of(array), pitch // array.itemsize


def strided(array: Array, start: int, shape: tuple[int, ...], pitches: tuple[int, ...]) -> Array:
    """A view for the reference, with the `pitches` of a kernel: distances along each axis, in elements."""
    last = start + sum((n - 1) * pitch for n, pitch in zip(shape, pitches))
    if not array.flags.c_contiguous or (0 not in shape and last >= array.size):
        raise _mistake(array, f"{last + 1} contiguous elements")
    return as_strided(array.reshape(-1)[start:], shape, [pitch * array.itemsize for pitch in pitches])


def of_bytes(array: Array, shape: tuple[int, int]) -> tuple[int, int, int]:
    """The address of a matrix of bytes, and the distances between its rows and between its columns."""
    if array.itemsize != 1 or array.shape != shape:
        raise _mistake(array, f"a matrix of bytes and shape {shape}")
    k_pitch, n_pitch = array.strides
    return address_of(array), k_pitch, n_pitch


def of_floats(array: Array, dtype: npt.DTypeLike, shape: tuple[int, int]) -> tuple[int, int, int]:
    """The address of a matrix of floats, contiguous by rows or columns, and the distances between these in elements."""
    flags = array.flags
    if array.dtype != dtype or array.shape != shape or not (flags.forc and flags.aligned):
        raise _mistake(array, f"a contiguous matrix of {np.dtype(dtype)} and shape {shape}")
    return address_of(array), *((shape[1], 1) if flags.c_contiguous else (1, shape[0]))


def _mistake(array: Array, needed: str) -> RuntimeError:
    return RuntimeError(
        f"a kernel needs {needed}, but was to be given an array of {array.dtype}, shape {array.shape} and strides "
        f"{array.strides}; nothing was computed. This is a mistake in fastq: please report it"
    )
