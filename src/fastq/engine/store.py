"""The codes of a quantized array, in one form at a time: as an array, or packed for multiplying."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.prepack import Right
from fastq.layout.tiles import Segments
from fastq.scheme import CodeRange

Index = tuple[int, ...]


class Store:
    """Holds codes (N-D) until they are first used as a right operand, and packed tiles from then on.

    A two-dimensional store may be packed as it is or transposed, whichever is asked for first; another orientation is
    then packed anew at each use, because weights are not kept twice.
    """

    def __init__(self, codes: npt.NDArray[Any], limits: CodeRange, bits: int) -> None:
        self.limits, self.bits = limits, bits
        self.shape = codes.shape
        self._codes: npt.NDArray[Any] | None = codes
        self._packed: dict[Index, Right] = {}  # by batch index
        self._flipped = False
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[Any, ...]:
        with self._lock:
            return self.limits, self.bits, self.shape, self._codes, dict(self._packed), self._flipped

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.limits, self.bits, self.shape, self._codes, self._packed, self._flipped = state
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the codes take now."""
        with self._lock:
            if self._codes is not None:
                return self._codes.nbytes
            return sum(r.tiles.nbytes + (0 if r.col_sum is None else r.col_sum.nbytes) for r in self._packed.values())

    @property
    def packed(self) -> bool:
        """Whether the codes are packed."""
        return self._codes is None

    def codes(self) -> npt.NDArray[Any]:
        """The codes as an array: the one that is held, or a new one unpacked from tiles."""
        with self._lock:
            if self._codes is not None:
                return self._codes
            dtype = np.int8 if self.limits.signed else np.uint8
            rows, columns = self.shape[-2:]
            shape = (*self.shape[:-2], columns, rows) if self._flipped else self.shape
            result = np.empty(shape, dtype)
            for index, right in self._packed.items():
                np.add(right.codes(), self.limits.low, out=result[index], dtype=np.int16, casting="unsafe")
            return result.T if self._flipped else result

    def right(self, index: Index, flipped: bool, cuts: Segments) -> Right:
        """One matrix of the store (transposed if `flipped`), packed so that `cuts` can be read."""
        with self._lock:
            found = self._packed.get(index)
            if found is not None and self._flipped == flipped and found.fits(cuts):
                return found
            if self._codes is not None:
                codes = self._codes.T if flipped else self._codes
                own = {i: self._pack(codes[i], cuts) for i in np.ndindex(codes.shape[:-2])}
                self._packed, self._flipped, self._codes = own, flipped, None
                return own[index]
        codes = self.codes()
        return self._pack((codes.T if flipped else codes)[index], cuts)

    def _pack(self, codes: npt.NDArray[Any], cuts: Segments) -> Right:
        right = run.pack_right(codes, self.limits.low, self.bits, cuts)
        if cuts.segments > 1:
            right.col_sum = None  # one int32 per group and column would be half a bit per weight at groups of 64
        return right
