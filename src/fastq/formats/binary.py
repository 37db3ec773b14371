"""The bytes of a file in memory, each read of which is held against the file's end."""

from __future__ import annotations

import os
from importlib.util import find_spec
from math import prod
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fastq.errors import FileFormatError, shown

Array = npt.NDArray[Any]


class Bytes:
    """A file, mapped into memory. It must stay as it is in the meantime: cutting it short ends the process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.size = os.path.getsize(self.path)
        self.data: npt.NDArray[np.uint8] = (
            np.memmap(self.path, np.uint8, mode="r") if self.size else np.empty(0, np.uint8)
        )

    def fail(self, place: str, problem: str) -> NoReturn:
        """Raise FileFormatError."""
        raise FileFormatError(f"{self.path}: {place}: {problem}")

    def array(self, place: str, offset: int, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        """An array that lies in the file, as a read-only view; `place` says in an error what it was to be."""
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        if len(shape) > 64 or prod(max(n, 1) for n in shape) * kind.itemsize >= 2**63:
            self.fail(place, f"no array of NumPy has the shape {shown(shape)}")
        if offset < 0 or min(shape, default=0) < 0 or offset + nbytes > self.size:
            self.fail(place, f"{nbytes} bytes at offset {offset} do not lie in the file, which has {self.size}")
        array: Array = self.data[offset : offset + nbytes].view(np.ndarray).view(kind).reshape(shape)
        return array

    def integer(self, place: str, offset: int, size: int, signed: bool = False) -> int:
        """An integer of some bytes, little-endian."""
        return int.from_bytes(self.raw(place, offset, size), "little", signed=signed)

    def raw(self, place: str, offset: int, size: int) -> bytes:
        """Some bytes, copied."""
        return self.array(place, offset, np.uint8, (size,)).tobytes()


def of_bfloat16(bits: npt.NDArray[np.uint16]) -> Array:
    """Numbers of which these are the bits: of bfloat16 where ml_dtypes is installed, else the same as float32."""
    if find_spec("ml_dtypes"):
        import ml_dtypes

        return bits.view(ml_dtypes.bfloat16)
    return (bits.astype(np.uint32) << 16).view(np.float32)
