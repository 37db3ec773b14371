"""Codes, and the integer scales of their groups, in one form at a time: as arrays, or packed for multiplying."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from math import lcm, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import run
from fastq.engine.groups import Factors
from fastq.engine.prepack import Right
from fastq.layout.tiles import BLOCK, DEPTH, Segments, ceil_div
from fastq.scheme import CodeRange

Index = tuple[int, ...]
Cut = slice | npt.NDArray[np.intp]  # what is chosen along one axis

# Held while codes are packed, so that two threads do not pack the same ones; reading needs no lock. One for all stores:
# a forked child must be able to replace it, in case the thread that held it does not exist there. A signal's handler
# that multiplies may run in the thread that holds it.
_packing = threading.RLock()


def _after_fork() -> None:
    global _packing
    _packing = threading.RLock()


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


def _swapped(matrices: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return matrices.swapaxes(-1, -2)


class Cover(NamedTuple):
    """Pieces of an axis that hold some of its elements, where these are within, and whether that is all."""

    cover: Cut
    within: Cut
    exact: bool


def _cover(index: Cut, length: int, size: int, group: int = 0) -> Cover:
    """What covers the chosen elements of an axis in pieces of `size`; slices begin with a group, if there are some."""
    count = ceil_div(length, size)
    if isinstance(index, slice) and index.step in (None, 1):
        start, stop, _ = index.indices(length)
        step = lcm(size, group) // size if group else 1
        first = start // size // step * step
        exact = start == first * size and (stop == length or stop % size == 0)
        return Cover(slice(first, ceil_div(stop, size)), slice(start - first * size, stop - first * size), exact)
    places = np.arange(length)[index]
    if group:
        return Cover(slice(0, count), places, False)
    pieces = np.unique(places // size)
    return Cover(pieces, np.searchsorted(pieces, places // size) * size + places % size, False)


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

    Matrices may be packed as they are or transposed, whichever is asked for first; another orientation is
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

    @property
    def turned(self) -> bool:
        """Whether packed codes are those of the transposed matrices."""
        return self._form.flipped

    def codes(self) -> npt.NDArray[Any]:
        """The codes as an array: the one that is held, or a new one unpacked from tiles."""
        form = self._form
        if form.codes is not None:
            return form.codes
        result = np.empty(self._packed_shape(form), self._dtype)
        for index, right in form.packed.items():
            result[index] = self._unpacked(right)
        return _swapped(result) if form.flipped else result

    @property
    def _dtype(self) -> type[np.integer[Any]]:
        return np.int8 if self.limits.signed else np.uint8

    def _packed_shape(self, form: _Form) -> tuple[int, ...]:
        rows, columns = self.shape[-2:]
        return (*self.shape[:-2], columns, rows) if form.flipped else self.shape

    def _unpacked(self, right: Right) -> npt.NDArray[Any]:
        codes = right.stored()
        if (factors := right.factors(self.limits)) is not None:
            codes = factors.mirrored(codes, self.limits)
        return np.add(codes, self.limits.low, dtype=np.int16).astype(self._dtype)

    def part(self, key: tuple[Cut, ...], scales: Scales | None) -> Store:
        """Some of the codes, chosen along each axis; `scales` are the integer scales that they have then.

        Packed codes stay packed where whole tiles are chosen. All tiles along K then share their memory, as do arrays
        under slices; otherwise no more tiles are unpacked than hold what is chosen.
        """
        form = self._form
        if form.codes is not None:
            return Store(form.codes[key], self.limits, self.bits, scales)
        numbers = np.arange(prod(self.shape[:-2])).reshape(self.shape[:-2])[key[:-2]]
        old = {i: np.unravel_index(numbers[i], self.shape[:-2]) for i in np.ndindex(numbers.shape)}
        packed = {i: form.packed[tuple(map(int, at))] for i, at in old.items()}
        shape = tuple(np.arange(n)[k].size for n, k in zip(self.shape, key))
        across, down = key[-2:] if form.flipped else (key[-1], key[-2])
        k, n = self._packed_shape(form)[-2:]
        one = next(iter(form.packed.values()))
        blocks, tiles = _cover(across, n, BLOCK), _cover(down, k, DEPTH, one.group_size)
        if not one.cuts.gapless:
            tiles = Cover(slice(0, one.cuts.tiles), down, isinstance(down, slice) and down == slice(None))
        grouped = one.form.grouped
        if not prod(shape):
            return Store(np.empty(shape, self._dtype), self.limits, self.bits, scales)
        parts = {i: right.part(tiles.cover, blocks.cover) for i, right in packed.items()}
        if blocks.exact and tiles.exact and (scales is not None or not grouped):
            groups_shape = None if scales is None else scales.factors.shape
            return Store.of_packed(parts, shape, self.limits, form.flipped, None if grouped else scales, groups_shape)
        result = np.empty((*shape[:-2], shape[-1], shape[-2]) if form.flipped else shape, self._dtype)
        for i, right in parts.items():
            result[i] = self._unpacked(right)[tiles.within][:, blocks.within]
        return Store(_swapped(result) if form.flipped else result, self.limits, self.bits, scales)

    def dropped(self, axis: int) -> Store:
        """The same codes without a leading axis (not one of the matrices') of length 1."""

        def without(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.squeeze(values, axis)

        codes, packed, flipped, scales = self._form
        scales = None if scales is None else scales.arranged(without)
        if codes is not None:
            return Store(without(codes), self.limits, self.bits, scales)
        rest = {i[:axis] + i[axis + 1 :]: right for i, right in packed.items()}
        shape, groups = (None if s is None else s[:axis] + s[axis + 1 :] for s in (self.shape, self.groups_shape))
        assert shape is not None
        return Store.of_packed(rest, shape, self.limits, flipped, scales, groups)

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
        return scales.arranged(_swapped) if form.flipped else scales

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
                turned = _swapped(codes) if flipped else codes
                within = self._turned_scales(flipped) if grouped else None
                packed = {i: self._pack(turned[i], cuts, within, i) for i in np.ndindex(turned.shape[:-2])}
                self._form = _Form(None, packed, flipped, None if grouped else scales)
        found = self._find(index, flipped, cuts, grouped)
        if found is not None:
            return found
        codes = self.codes()
        within = self._turned_scales(flipped) if grouped else None
        return self._pack((_swapped(codes) if flipped else codes)[index], cuts, within, index)

    def operands(self, flipped: bool, cuts: Segments, grouped: bool) -> tuple[dict[Index, Right], bool, Scales | None]:
        """All matrices packed, whether they are flipped, and the integer scales that they do not hold.

        What is packed already is given as it is; what is not is packed as asked for, and that is not kept.
        """
        codes, packed, turned, scales = self._form
        if codes is None:
            return packed, turned, scales
        within = self._turned_scales(flipped) if grouped else None
        matrices = _swapped(codes) if flipped else codes
        packed = {i: self._pack(matrices[i], cuts, within, i) for i in np.ndindex(matrices.shape[:-2])}
        return packed, flipped, None if grouped else scales

    def _turned_scales(self, flipped: bool) -> Scales | None:
        scales = self.scales()
        return scales.arranged(_swapped) if flipped and scales is not None else scales

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
