"""Where the blocks of an array that is quantized piece by piece go: the arrays of :mod:`fastq.qarray.parts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import pack_right
from fastq.engine.groups import GroupScales
from fastq.engine.memory import aligned
from fastq.layout.tiles import BLOCK, DEPTH, STEP, STEPS, ceil_div, segments
from fastq.quant.spec import QuantParams
from fastq.storage.folder import ArrayWriter, Box
from fastq.storage.metadata import Metadata

Array = npt.NDArray[Any]


class MemoryArray(NamedTuple):
    """An array in memory as a target."""

    array: Array

    def put(self, box: Box, values: Array) -> None:
        """See :class:`fastq.storage.folder.ArrayWriter`."""
        self.array[box] = values

    def add(self, box: Box, values: Array) -> None:
        """See :class:`fastq.storage.folder.ArrayWriter`."""
        self.array[box] += values


class MemoryArrays:
    """Makes targets in memory, as a :class:`fastq.storage.folder.Folder` makes them on disk."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def create(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ArrayWriter:
        """A new array."""
        kind = np.dtype(dtype)
        array = aligned(prod(shape) * kind.itemsize).view(kind).reshape(shape)
        if name == "sums":  # which is added to; of others every element is written
            array[...] = 0
        self.arrays[name] = array
        return MemoryArray(array)


class BlockWriter:
    """Takes codes and parameters of boxes of x.

    Boxes go by *units* along each axis: what can be packed by itself, a tile along K, a block along N, an element along
    others.
    """

    def __init__(
        self,
        form: Metadata,
        floats: np.dtype[Any],
        balance: Array | None,
        create: Callable[[str, tuple[int, ...], npt.DTypeLike], ArrayWriter],
    ) -> None:
        self.form, ndim = form, len(form.shape)
        arrays = form.arrays()
        if balance is None:
            arrays.pop("balance", None)
        types = {"scale": floats, "offset": floats}
        self.shapes = {name: shape for name, (shape, _) in arrays.items()}
        self.targets = {name: create(name, shape, types.get(name, own[0])) for name, (shape, own) in arrays.items()}
        if balance is not None:
            self.targets["balance"].put(tuple(slice(0, n) for n in balance.shape), balance)
        self.k_axis, self.n_axis = (ndim - 1, ndim - 2) if form.transposed else (ndim - 2, ndim - 1)
        self.sizes = [1] * ndim  # elements per unit
        if form.k_segments is not None:
            self.sizes[self.k_axis], self.sizes[self.n_axis] = DEPTH, BLOCK
        self.counts = [ceil_div(n, size) for n, size in zip(form.shape, self.sizes)]
        if form.k_segments is not None:
            self.counts[self.k_axis] = form.k_segments.tiles

    def box(self, units: Box) -> Box:
        """The elements of a range of units along each axis."""
        return tuple(slice(self._edge(d, s.start), self._edge(d, s.stop)) for d, s in enumerate(units))

    def _edge(self, axis: int, unit: int) -> int:
        """Where a unit begins."""
        k_segments, n = self.form.k_segments, self.form.shape[axis]
        if k_segments is None or axis != self.k_axis:
            return min(unit * self.sizes[axis], n)
        segment, rest = divmod(unit * DEPTH, k_segments.step_size * STEP)
        return min(segment * k_segments.size + min(rest, k_segments.size), n)

    def units_of(self, axis: int, run: int) -> int:
        """How many units make whole runs of elements along an axis."""
        k_segments = self.form.k_segments
        if k_segments is None or axis != self.k_axis or k_segments.gapless:
            return lcm(self.sizes[axis], run) // self.sizes[axis]
        return lcm(STEPS, k_segments.step_size) // STEPS if run == k_segments.size else k_segments.tiles

    def parameters(self, box: Box, params: QuantParams) -> None:
        """Write the parameters of a box that holds whole runs, or whole groups."""
        arrays = {"scale": params.scale, "offset": params.offset}
        if params.group_scale is None:
            arrays["zero_point"] = params.zero
        elif not self.form.grouped:
            arrays |= {"factors": params.group_scale, "zeros": params.zero}
        for name, values in arrays.items():
            if values is not None:
                self.targets[name].put(self._grid(name, box, values.shape), values)
        if self.form.grouped:
            k = box[self.k_axis]
            for index, at in self._matrices(box):
                scales = self._group_scales(params, index)
                packed = scales.packed(self.form.limits, segments(k.stop - k.start))
                first = k.start // scales.size
                place = (slice(first, first + packed.shape[1]), slice(0, 2), slice(0, BLOCK))
                self.targets["groups"].put((*at, self._blocks(box), *place), _lifted(packed, at))

    def codes(self, units: Box, codes: Array, params: QuantParams, origin: Box) -> None:
        """Write the codes of a box; `params` are those of a box around it that begins at `origin`."""
        form, k_segments, box = self.form, self.form.k_segments, self.box(units)
        if k_segments is None:
            self.targets["codes"].put(box, codes)
            return
        blocks, down, k = self._blocks(box), units[self.k_axis], box[self.k_axis]
        for index, at in self._matrices(box):
            matrix, scales = self._oriented(codes[index]), None
            if form.grouped:
                scales = self._group_scales(params, index)
                fine = gcd(scales.size, DEPTH)  # a box may begin within a group
                groups = (np.arange(k.start, k.stop, fine) - origin[self.k_axis].start) // scales.size
                scales = scales.of_matrix((groups,))._replace(size=fine)
            elif not k_segments.gapless:
                matrix = self._spread(matrix, k, down)
            right = pack_right(matrix, form.limits.low, form.bits, segments(len(matrix)), scales)
            tiles = right.tiles.reshape(blocks.stop - blocks.start, down.stop - down.start, -1)
            self.targets["tiles"].put((*at, blocks, down, slice(0, tiles.shape[-1])), _lifted(tiles, at))
            if "sums" in self.targets:
                assert right.col_sum is not None
                place = slice(blocks.start * BLOCK, blocks.stop * BLOCK)
                self.targets["sums"].add((*at, place), _lifted(right.col_sum[0], at))

    def _grid(self, name: str, box: Box, shape: tuple[int, ...]) -> Box:
        """Where the parameters of a box, of this shape, are among all."""
        axis, group = self.form.axis, self.form.group
        first = [0 if axis is None else s.start for s in box]
        if axis is not None:  # the scale that groups share is one
            first[axis] = 0 if group is None or self.shapes[name][axis] == 1 else box[axis].start // group
        return tuple(slice(f, f + n) for f, n in zip(first, shape))

    def _blocks(self, box: Box) -> slice:
        return slice(box[self.n_axis].start // BLOCK, ceil_div(box[self.n_axis].stop, BLOCK))

    def _oriented(self, matrix: Array) -> Array:
        return matrix.T if self.form.transposed else matrix

    @staticmethod
    def _matrices(box: Box) -> Iterator[tuple[tuple[int, ...], Box]]:
        """The batch index of each matrix of a box, within it and in the array."""
        for index in np.ndindex(*(s.stop - s.start for s in box[:-2])):
            yield index, tuple(slice(s.start + i, s.start + i + 1) for s, i in zip(box, index))

    def _group_scales(self, params: QuantParams, index: tuple[int, ...]) -> GroupScales:
        """Integer scales of the groups along K of one matrix."""
        assert params.group_scale is not None
        assert self.form.group is not None
        zero = None if params.zero is None else self._oriented(params.zero[index]).astype(np.uint8)
        return GroupScales(self.form.group, self._oriented(params.group_scale[index]), zero)

    def _spread(self, codes: Array, k: slice, down: slice) -> Array:
        """Codes at their positions along the tiles, with the gaps between segments."""
        k_segments = self.form.k_segments
        assert k_segments is not None
        result = np.full(((down.stop - down.start) * DEPTH, codes.shape[1]), self.form.limits.low, codes.dtype)
        index = np.arange(k.start, k.stop)
        result[
            index // k_segments.size * (k_segments.step_size * STEP) + index % k_segments.size - down.start * DEPTH
        ] = codes
        return result


def _lifted(values: Array, at: Box) -> Array:
    """With an axis of length 1 for each of the batch."""
    return values.reshape((1,) * len(at) + values.shape)
