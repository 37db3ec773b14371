"""Codes, and the integer scales of their groups, in one form at a time: as arrays, or packed for multiplying."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from math import lcm, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import pack_right, unpack, unpack_columns
from fastq.engine.groups import GroupScales
from fastq.engine.operands import Array, AxisIndex, BatchIndex, Right
from fastq.layout.tiles import BLOCK, DEPTH, Segments, ceil_div
from fastq.scheme import CodeRange

# Held while codes are packed, so that two threads do not pack the same ones; reading needs no lock. One for all stores:
# a forked child must be able to replace it, in case the thread that held it does not exist there. A signal's handler
# that multiplies may run in the thread that holds it.
_packing = threading.RLock()


def _after_fork() -> None:
    global _packing
    _packing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _oriented(matrices: Array, transposed: bool) -> Array:
    """Matrices as they are, or each transposed."""
    return matrices.mT if transposed else matrices


def _places(index: AxisIndex, length: int) -> npt.NDArray[np.intp]:
    """The numbers of the chosen elements of an axis; an array has them already, from 0 on."""
    return np.arange(*index.indices(length)) if isinstance(index, slice) else index


def _count(index: AxisIndex, length: int) -> int:
    """How many elements of an axis are chosen."""
    return len(range(*index.indices(length))) if isinstance(index, slice) else index.size


class Cover(NamedTuple):
    """Whole pieces of an axis (tiles, or blocks) that hold the elements chosen along it."""

    cover: slice  # the pieces
    within: AxisIndex  # the places of the chosen elements in the pieces
    exact: bool  # whether the pieces hold nothing else


def _cover(index: AxisIndex, length: int, size: int, group: int = 0) -> Cover:
    """Pieces of `size` that cover the chosen elements of an axis, beginning with a group, if there are some."""
    if not isinstance(index, slice) or index.step not in (None, 1):
        return Cover(slice(0, ceil_div(length, size)), index, False)
    start, stop, _ = index.indices(length)
    step = lcm(size, group) // size if group else 1
    first = start // size // step * step
    exact = start == first * size and (stop == length or stop % size == 0)
    return Cover(slice(first, ceil_div(stop, size)), slice(start - first * size, stop - first * size), exact)


class _State(NamedTuple):
    """How codes are held: as an array, or packed."""

    codes: Array | None
    packed: dict[BatchIndex, Right]  # empty while there is an array
    transposed: bool  # whether the packed matrices are the transposed ones
    scales: GroupScales | None  # None, too, where the packed operands hold them


class Store:
    """Holds codes (N-D) until they are first used as a right operand, and packed tiles from then on.

    Matrices may be packed as they are or transposed, whichever is asked for first; another orientation is
    then packed anew at each use, because weights are not kept twice.
    """

    def __init__(self, codes: Array, limits: CodeRange, bits: int, scales: GroupScales | None = None) -> None:
        self.limits, self.bits = limits, bits
        self.shape = codes.shape
        self.groups_shape = None if scales is None else scales.scale.shape
        self._form = _State(codes, {}, False, scales)  # replaced as a whole: other threads see the old or the new one

    @classmethod
    def of_packed(
        cls,
        packed: dict[BatchIndex, Right],
        shape: tuple[int, ...],
        limits: CodeRange,
        transposed: bool = False,
        scales: GroupScales | None = None,
        groups_shape: tuple[int, ...] | None = None,
    ) -> Store:
        """A store of operands that are packed already, each by its batch index.

        `shape` and `groups_shape` (of the group scales, if there are some) are those of the store. The operands are its
        matrices, `transposed` if so. Without `scales`, the operands hold the group scales.
        """
        self = cls.__new__(cls)
        self.limits, self.bits = limits, (limits.high - limits.low).bit_length()
        self.shape, self.groups_shape = shape, groups_shape if scales is None else scales.scale.shape
        self._form = _State(None, packed, transposed, scales)
        return self

    @property
    def nbytes(self) -> int:
        """Bytes that codes and integer scales take now."""
        codes, packed, _, scales = self._form
        beside = 0 if scales is None else scales.nbytes
        return beside + (codes.nbytes if codes is not None else sum(r.nbytes for r in packed.values()))

    @property
    def packed(self) -> bool:
        """Whether the codes are packed."""
        return self._form.codes is None

    @property
    def transposed(self) -> bool:
        """Whether packed codes are those of the transposed matrices."""
        return self._form.transposed

    def codes(self) -> Array:
        """The codes as an array: the one that is held, or a new one unpacked from tiles."""
        form = self._form
        if form.codes is not None:
            return form.codes
        result = np.empty(self.shape, self._dtype)
        for index, right in form.packed.items():
            # Columns of transposed matrices are rows of these.
            if form.transposed:
                result[index] = unpack_columns(right, self.limits, np.arange(right.n))[0]
            else:
                result[index] = unpack(right, self.limits)
        return result

    @property
    def _dtype(self) -> type[np.integer[Any]]:
        return np.int8 if self.limits.signed else np.uint8

    def _packed_shape(self, form: _State) -> tuple[int, ...]:
        rows, columns = self.shape[-2:]
        return (*self.shape[:-2], columns, rows) if form.transposed else self.shape

    def part(self, key: tuple[AxisIndex, ...], scales: GroupScales | None) -> Store:
        """Some of the codes, chosen along each axis; `scales` are the group scales of these.

        Where whole tiles are chosen, the codes stay packed; with all tiles along K, they share the memory. Otherwise
        only the chosen columns of tiles are unpacked. Slices of an array share its memory.
        """
        form = self._form
        if form.codes is not None:
            return Store(form.codes[key], self.limits, self.bits, scales)
        packed = form.packed if len(key) == 2 else self._chosen(form.packed, key[:-2])
        shape = tuple(_count(k, n) for n, k in zip(self.shape, key))
        if not prod(shape):
            return Store(np.empty(shape, self._dtype), self.limits, self.bits, scales)
        across, down = key[-2:] if form.transposed else (key[-1], key[-2])
        k, n = self._packed_shape(form)[-2:]
        one = next(iter(packed.values()))
        blocks, tiles = _cover(across, n, BLOCK), _cover(down, k, DEPTH, one.group_size)
        if not one.k_segments.gapless:
            tiles = Cover(slice(0, one.k_segments.tiles), down, isinstance(down, slice) and down == slice(None))
        grouped = one.form.grouped
        parts = {i: right.part(tiles.cover, blocks.cover) for i, right in packed.items()}
        if blocks.exact and tiles.exact and (scales is not None or not grouped):
            groups_shape = None if scales is None else scales.scale.shape
            return Store.of_packed(
                parts, shape, self.limits, form.transposed, None if grouped else scales, groups_shape
            )
        columns = _places(blocks.within, next(iter(parts.values())).n)
        return self._unpacked(parts, columns, tiles.within, shape, scales)

    def _unpacked(
        self,
        packed: dict[BatchIndex, Right],
        columns: npt.NDArray[np.intp],
        down: AxisIndex,
        shape: tuple[int, ...],
        scales: GroupScales | None,
    ) -> Store:
        """Codes of this shape: some columns of packed matrices, and what is chosen down these."""
        codes = [unpack_columns(right, self.limits, columns)[0][:, down] for right in packed.values()]
        by_column = codes[0] if len(shape) == 2 else np.stack(codes).reshape(*shape[:-2], *codes[0].shape)
        return Store(_oriented(by_column, not self.transposed), self.limits, self.bits, scales)

    def lines(self, index: npt.NDArray[np.intp], axis: int) -> Store | None:
        """Some lines along an axis, -1 or -2, by their numbers, with their group scales.

        Only of a matrix that is packed, its group scales too, whose tiles hold such lines; None otherwise, and where
        nothing is chosen.
        """
        form = self._form
        if form.codes is not None or form.scales is not None or len(self.shape) > 2 or not index.size:
            return None
        if form.transposed != (axis == -2):
            return None
        codes, scales = unpack_columns(form.packed[()], self.limits, index)
        if scales is not None:
            scales = scales.arranged(lambda values: _oriented(values, form.transposed))
        return Store(_oriented(codes, not form.transposed), self.limits, self.bits, scales)

    def _chosen(self, packed: dict[BatchIndex, Right], key: tuple[AxisIndex, ...]) -> dict[BatchIndex, Right]:
        """Some matrices of a stack, by their new index."""
        batch = self.shape[:-2]
        numbers = np.arange(prod(batch)).reshape(batch)[key]
        old = {i: np.unravel_index(numbers[i], batch) for i in np.ndindex(numbers.shape)}
        return {i: packed[tuple(map(int, at))] for i, at in old.items()}

    def dropped(self, axis: int) -> Store:
        """The same codes without a leading axis (not one of the matrices') of length 1."""

        def without(values: Array) -> Array:
            return np.squeeze(values, axis)

        codes, packed, transposed, scales = self._form
        scales = None if scales is None else scales.arranged(without)
        if codes is not None:
            return Store(without(codes), self.limits, self.bits, scales)
        rest = {i[:axis] + i[axis + 1 :]: right for i, right in packed.items()}
        shape, groups = (None if s is None else s[:axis] + s[axis + 1 :] for s in (self.shape, self.groups_shape))
        assert shape is not None
        return Store.of_packed(rest, shape, self.limits, transposed, scales, groups)

    def scales(self, index: AxisIndex | None = None, axis: int = -1) -> GroupScales | None:
        """The group scales as arrays: those that are held, or new ones taken from the packed operands.

        All of them, or those of some elements along one axis, -1 or -2, of the matrices.
        """
        form = self._form
        if self.groups_shape is None:
            return None
        index = slice(None) if index is None else index
        at = (..., index) if axis == -1 else (..., index, slice(None))
        if form.scales is not None:
            return form.scales.arranged(lambda values: values[at])
        # Along the columns of the packed matrices, no more are unpacked than are asked for.
        by_column = (axis == -2) == form.transposed
        picks = _places(index, self._packed_shape(form)[-1]) if by_column else None
        first, *others = (right.group_scales(self.limits, picks) for right in form.packed.values())
        assert first is not None
        batch = self.groups_shape[:-2]

        def whole(name: str) -> Array:
            matrices = [getattr(of_matrix, name) for of_matrix in (first, *others)]
            stack = np.stack(matrices).reshape(*batch, *matrices[0].shape) if batch else matrices[0]
            values = _oriented(stack, form.transposed)
            return values if by_column else values[at]

        return GroupScales(first.size, whole("scale"), None if first.zero is None else whole("zero"))

    def right(self, index: BatchIndex, transposed: bool, k_segments: Segments, grouped: bool = False) -> Right:
        """One matrix of the store (`transposed`, if so), packed so that `k_segments` can be read.

        `grouped`: its group scales go along K, and are multiplied with the codes.
        """
        right = self._find(index, transposed, k_segments, grouped)
        if right is not None:
            return right
        with _packing:
            form = self._form
            if form.codes is not None and (k_segments.gapless or not grouped):
                self._form = self._packed_form(form, k_segments, transposed, grouped)
        right = self._find(index, transposed, k_segments, grouped)
        if right is not None:
            return right
        scales = self.scales() if grouped else None
        return self._pack(self.codes(), scales, [index], k_segments, transposed)[index]

    def operands(
        self, transposed: bool, k_segments: Segments, grouped: bool
    ) -> tuple[dict[BatchIndex, Right], bool, GroupScales | None]:
        """All matrices packed, whether they are transposed, and the group scales that they do not hold.

        A packed store gives its operands as they are. Otherwise they are packed as asked for, and are not kept.
        """
        form = self._form
        if form.codes is not None:
            form = self._packed_form(form, k_segments, transposed, grouped)
        return form.packed, form.transposed, form.scales

    def _packed_form(self, form: _State, k_segments: Segments, transposed: bool, grouped: bool) -> _State:
        """All matrices of a form that holds an array, packed. Another thread may have packed them by now."""
        codes, _, _, scales = form
        assert codes is not None
        inside, beside = (scales, None) if grouped else (None, scales)
        packed = self._pack(codes, inside, np.ndindex(codes.shape[:-2]), k_segments, transposed)
        return _State(None, packed, transposed, beside)

    def _find(self, index: BatchIndex, transposed: bool, k_segments: Segments, grouped: bool) -> Right | None:
        form = self._form
        right = form.packed.get(index)
        if right is None or (form.transposed, right.form.grouped) != (transposed, grouped):
            return None
        return right if right.fits(k_segments) else None

    def _pack(
        self,
        codes: Array,
        scales: GroupScales | None,
        indices: Iterable[BatchIndex],
        k_segments: Segments,
        transposed: bool,
    ) -> dict[BatchIndex, Right]:
        """Some matrices packed, by index; the `scales` of their groups, if given, are packed with them."""
        codes = _oriented(codes, transposed)
        if scales is not None:
            scales = scales.arranged(lambda values: _oriented(values, transposed))
        packed = {}
        for index in indices:
            matrix, of_matrix = codes[index], None if scales is None else scales.of_matrix(index)
            if of_matrix is not None and not k_segments.gapless:
                # Groups of another operand leave gaps in the tiles, where the groups of this one would not be found.
                packed[index] = pack_right(of_matrix.multiplied(matrix), -128, 8, k_segments)
                continue
            packed[index] = pack_right(matrix, self.limits.low, self.bits, k_segments, of_matrix)
            if k_segments.segments > 1:
                # One int32 per group and column would be half a bit per weight at groups of 64.
                packed[index].col_sum = None
        return packed
