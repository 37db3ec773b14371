"""The codes of a quantized array, in one form at a time: as an array, or packed for multiplying."""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.prepack import Right
from fastq.layout.tiles import Segments
from fastq.scheme import CodeRange

Index = tuple[int, ...]

# Held while codes are packed, so that two threads do not pack the same ones; reading needs no lock. One for all stores:
# a forked child must be able to replace it, in case the thread that held it does not exist there.
_packing = threading.Lock()


def _after_fork() -> None:
    global _packing
    _packing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Form(NamedTuple):
    """How codes are held: as an array, or packed by batch index, in the array's orientation or `flipped`."""

    codes: npt.NDArray[Any] | None
    packed: dict[Index, Right]
    flipped: bool


class Store:
    """Holds codes (N-D) until they are first used as a right operand, and packed tiles from then on.

    A two-dimensional store may be packed as it is or transposed, whichever is asked for first; another orientation is
    then packed anew at each use, because weights are not kept twice.
    """

    def __init__(self, codes: npt.NDArray[Any], limits: CodeRange, bits: int) -> None:
        self.limits, self.bits = limits, bits
        self.shape = codes.shape
        self._form = _Form(codes, {}, False)  # replaced as a whole: other threads see the old one or the new one

    @property
    def nbytes(self) -> int:
        """Bytes that the codes take now."""
        codes, packed, _ = self._form
        if codes is not None:
            return codes.nbytes
        return sum(r.tiles.nbytes + (0 if r.col_sum is None else r.col_sum.nbytes) for r in packed.values())

    @property
    def packed(self) -> bool:
        """Whether the codes are packed."""
        return self._form.codes is None

    def codes(self) -> npt.NDArray[Any]:
        """The codes as an array: the one that is held, or a new one unpacked from tiles."""
        form = self._form
        if form.codes is not None:
            return form.codes
        rows, columns = self.shape[-2:]
        shape = (*self.shape[:-2], columns, rows) if form.flipped else self.shape
        result = np.empty(shape, np.int8 if self.limits.signed else np.uint8)
        for index, right in form.packed.items():
            np.add(right.codes(), self.limits.low, out=result[index], dtype=np.int16, casting="unsafe")
        return result.T if form.flipped else result

    def right(self, index: Index, flipped: bool, cuts: Segments) -> Right:
        """One matrix of the store (transposed if `flipped`), packed so that `cuts` can be read."""
        found = self._find(index, flipped, cuts)
        if found is not None:
            return found
        with _packing:
            codes = self._form.codes
            if codes is not None:
                turned = codes.T if flipped else codes
                packed = {i: self._pack(turned[i], cuts) for i in np.ndindex(turned.shape[:-2])}
                self._form = _Form(None, packed, flipped)
        found = self._find(index, flipped, cuts)
        if found is not None:
            return found
        codes = self.codes()
        return self._pack((codes.T if flipped else codes)[index], cuts)

    def _find(self, index: Index, flipped: bool, cuts: Segments) -> Right | None:
        _, packed, turned = self._form
        found = packed.get(index)
        return found if found is not None and turned == flipped and found.fits(cuts) else None

    def _pack(self, codes: npt.NDArray[Any], cuts: Segments) -> Right:
        right = run.pack_right(codes, self.limits.low, self.bits, cuts)
        if cuts.segments > 1:
            right.col_sum = None  # one int32 per group and column would be half a bit per weight at groups of 64
        return right
