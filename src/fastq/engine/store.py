"""Codes, and the integer scales of their groups, in one form at a time: as arrays, or packed for multiplying."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.groups import Factors
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


class Scales(NamedTuple):
    """Integer scales of groups (see :mod:`fastq.engine.groups`), in the shape of an array's parameters."""

    size: int
    factors: npt.NDArray[np.int8]
    zeros: npt.NDArray[np.uint8] | None

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.factors.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    def arranged(self, arrange: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Scales:
        """The same with arrays turned or cut as the codes are."""
        return Scales(self.size, arrange(self.factors), None if self.zeros is None else arrange(self.zeros))

    def of_matrix(self, index: Index) -> Factors:
        """Those of one matrix whose groups go down its columns."""
        return Factors(self.size, self.factors[index], None if self.zeros is None else self.zeros[index])


class _Form(NamedTuple):
    """How codes are held: as an array, or packed by batch index, in the array's orientation or `flipped`.

    Scales are held as arrays unless the packed operands hold them.
    """

    codes: npt.NDArray[Any] | None
    packed: dict[Index, Right]
    flipped: bool
    scales: Scales | None


class Store:
    """Holds codes (N-D) until they are first used as a right operand, and packed tiles from then on.

    A two-dimensional store may be packed as it is or transposed, whichever is asked for first; another orientation is
    then packed anew at each use, because weights are not kept twice.
    """

    def __init__(self, codes: npt.NDArray[Any], limits: CodeRange, bits: int, scales: Scales | None = None) -> None:
        self.limits, self.bits = limits, bits
        self.shape = codes.shape
        self.groups_shape = None if scales is None else scales.factors.shape
        self._form = _Form(codes, {}, False, scales)  # replaced as a whole: other threads see the old or the new one

    @classmethod
    def of_packed(
        cls,
        packed: dict[Index, Right],
        shape: tuple[int, ...],
        limits: CodeRange,
        flipped: bool = False,
        scales: Scales | None = None,
        groups_shape: tuple[int, ...] | None = None,
    ) -> Store:
        """A store of operands that are packed already, each by its batch index.

        `shape` and `groups_shape` (of integer scales, if there are some) are the store's, of which the operands are the
        transpose where they are `flipped`. Scales are arrays, or, by default, held by the operands.
        """
        self = cls.__new__(cls)
        self.limits, self.bits = limits, (limits.high - limits.low).bit_length()
        self.shape, self.groups_shape = shape, groups_shape if scales is None else scales.factors.shape
        self._form = _Form(None, packed, flipped, scales)
        return self

    @property
    def nbytes(self) -> int:
        """Bytes that codes and integer scales take now."""
        codes, packed, _, scales = self._form
        own = 0 if scales is None else scales.nbytes
        return own + (codes.nbytes if codes is not None else sum(r.nbytes for r in packed.values()))

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
            codes = right.stored()
            if (factors := right.factors(self.limits)) is not None:
                codes = factors.mirrored(codes, self.limits)
            np.add(codes, self.limits.low, out=result[index], dtype=np.int16, casting="unsafe")
        return result.T if form.flipped else result

    def scales(self) -> Scales | None:
        """Integer scales of groups as arrays: those that are held, or new ones taken from packed operands."""
        form = self._form
        if form.scales is not None or self.groups_shape is None:
            return form.scales
        rows, columns = self.groups_shape[-2:]
        shape = (*self.groups_shape[:-2], columns, rows) if form.flipped else self.groups_shape
        scales = Scales(0, np.empty(shape, np.int8), None if self.limits.signed else np.empty(shape, np.uint8))
        for index, right in form.packed.items():
            found = right.factors(self.limits)
            assert found is not None
            scales.factors[index] = found.factors
            if scales.zeros is not None and found.zeros is not None:
                scales.zeros[index] = found.zeros
            scales = scales._replace(size=found.size)
        return scales.arranged(np.transpose) if form.flipped else scales

    def right(self, index: Index, flipped: bool, cuts: Segments, grouped: bool = False) -> Right:
        """One matrix of the store (transposed if `flipped`), packed so that `cuts` can be read.

        `grouped`: its integer scales belong to groups along K and are multiplied with the codes.
        """
        found = self._find(index, flipped, cuts, grouped)
        if found is not None:
            return found
        with _packing:
            codes, _, _, scales = self._form
            if codes is not None and (cuts.gapless or not grouped):
                turned = codes.T if flipped else codes
                within = self._turned_scales(flipped) if grouped else None
                packed = {i: self._pack(turned[i], cuts, within, i) for i in np.ndindex(turned.shape[:-2])}
                self._form = _Form(None, packed, flipped, None if grouped else scales)
        found = self._find(index, flipped, cuts, grouped)
        if found is not None:
            return found
        codes = self.codes()
        within = self._turned_scales(flipped) if grouped else None
        return self._pack((codes.T if flipped else codes)[index], cuts, within, index)

    def operands(self, flipped: bool, cuts: Segments, grouped: bool) -> tuple[dict[Index, Right], bool, Scales | None]:
        """All matrices packed, whether they are flipped, and the integer scales that they do not hold.

        What is packed already is given as it is; what is not is packed as asked for, and that is not kept.
        """
        codes, packed, turned, scales = self._form
        if codes is None:
            return packed, turned, scales
        within = self._turned_scales(flipped) if grouped else None
        matrices = codes.swapaxes(-1, -2) if flipped else codes
        packed = {i: self._pack(matrices[i], cuts, within, i) for i in np.ndindex(matrices.shape[:-2])}
        return packed, flipped, None if grouped else scales

    def _turned_scales(self, flipped: bool) -> Scales | None:
        scales = self.scales()
        return scales.arranged(np.transpose) if flipped and scales is not None else scales

    def _find(self, index: Index, flipped: bool, cuts: Segments, grouped: bool) -> Right | None:
        _, packed, turned, _ = self._form
        found = packed.get(index)
        if found is None or turned != flipped or found.form.grouped != grouped or not found.fits(cuts):
            return None
        return found

    def _pack(self, codes: npt.NDArray[Any], cuts: Segments, scales: Scales | None, index: Index) -> Right:
        if scales is not None and not cuts.gapless:
            # Groups of another operand leave gaps in the tiles, where the groups of this one would not be found.
            return run.pack_right(scales.of_matrix(index).multiplied(codes), -128, 8, cuts)
        factors = None if scales is None else scales.of_matrix(index)
        right = run.pack_right(codes, self.limits.low, self.bits, cuts, factors)
        if cuts.segments > 1:
            right.col_sum = None  # one int32 per group and column would be half a bit per weight at groups of 64
        return right
