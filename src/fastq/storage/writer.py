"""Where the blocks of an array that is quantized block by block go: the arrays of :mod:`fastq.qarray.parts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd, lcm, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.backend import pack_right
from fastq.engine.groups import GroupScales
from fastq.engine.memory import aligned
from fastq.layout.tiles import BLOCK, DEPTH, STEP, STEPS, ceil_div, segments
from fastq.quant.spec import QuantParams
from fastq.storage.folder import NpyFile
from fastq.storage.metadata import Box, Metadata, Shape

Array = npt.NDArray[Any]
Create = Callable[[str, Shape, npt.DTypeLike], Array | NpyFile]  # makes the array of a name


def in_memory(name: str, shape: Shape, dtype: npt.DTypeLike) -> Array:
    """A new array in memory, as :meth:`fastq.storage.folder.Folder.create` makes one on disk."""
    array = aligned(prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    if name == "sums":  # which is added to; of others every element is written
        array[...] = 0
    return array


class BlockWriter:
    """Takes codes and parameters of boxes of x.

    Along each axis boxes are cut at *units*, which can be packed by themselves: a tile along K, a block along N, an
    element along other axes.
    """

    def __init__(self, form: Metadata, floats: np.dtype[Any], balance: Array | None, create: Create) -> None:
        self.form, self.arrays = form, dict[str, Any]()
        for name, (shape, types) in form.arrays().items():
            if name != "balance":
                self.arrays[name] = create(name, shape, floats if name in ("scale", "offset") else types[0])
        if balance is not None:
            self.arrays["balance"] = create("balance", balance.shape, balance.dtype)
            self.arrays["balance"][tuple(slice(0, n) for n in balance.shape)] = balance
        self.counts, self.sizes = list(form.shape), [1] * len(form.shape)  # units along each axis, elements per unit
        if form.k_segments is not None:
            self.counts[form.k_axis], self.sizes[form.k_axis] = form.k_segments.tiles, DEPTH
            self.counts[form.n_axis], self.sizes[form.n_axis] = ceil_div(form.shape[form.n_axis], BLOCK), BLOCK

    def box(self, units: Box) -> Box:
        """The elements of a range of units along each axis."""
        return tuple(slice(self._edge(d, s.start), self._edge(d, s.stop)) for d, s in enumerate(units))

    def _edge(self, axis: int, unit: int) -> int:
        """Where a unit begins."""
        k_segments, n = self.form.k_segments, self.form.shape[axis]
        if k_segments is None or axis != self.form.k_axis:
            return min(unit * self.sizes[axis], n)
        segment, rest = divmod(unit * DEPTH, k_segments.step_size * STEP)
        return min(segment * k_segments.size + min(rest, k_segments.size), n)

    def units_of(self, axis: int, run: int) -> int:
        """How many units make whole runs of elements along an axis."""
        k_segments = self.form.k_segments
        if k_segments is None or axis != self.form.k_axis or k_segments.gapless:
            return lcm(self.sizes[axis], run) // self.sizes[axis]
        return lcm(STEPS, k_segments.step_size) // STEPS if run == k_segments.size else k_segments.tiles

    def parameters(self, box: Box, params: QuantParams) -> None:
        """Write the parameters of a box that holds whole runs, or whole groups."""
        form, arrays = self.form, {"scale": params.scale, "offset": params.offset}
        if params.group_scale is None:
            arrays["zero_point"] = params.zero
        elif not form.grouped:
            arrays |= {"factors": params.group_scale, "zeros": params.zero}
        for name, values in arrays.items():
            if values is not None:
                self.arrays[name][form.place(name, box, values.shape)] = values
        if form.grouped:
            k = box[form.k_axis]
            for index, batch in _matrices(box):
                groups = self._group_scales(params, index).packed(form.spec.limits, segments(k.stop - k.start))
                place = form.place("groups", (*batch, *box[-2:]), (1,) * len(batch) + groups.shape)
                self.arrays["groups"][place] = groups

    def codes(self, units: Box, codes: Array, params: QuantParams, origin: Box) -> None:
        """Write the codes of a box; `params` are those of a box around it that begins at `origin`."""
        form, k_segments, box = self.form, self.form.k_segments, self.box(units)
        if k_segments is None:
            self.arrays["codes"][box] = codes
            return
        blocks, tiles, k = units[form.n_axis], units[form.k_axis], box[form.k_axis]
        for index, batch in _matrices(box):
            matrix, scales = self._oriented(codes[index]), None
            if form.grouped:
                scales = self._group_scales(params, index)
                fine = gcd(scales.size, DEPTH)  # a box may begin within a group
                groups = (np.arange(k.start, k.stop, fine) - origin[form.k_axis].start) // scales.size
                scales = scales.of_matrix((groups,))._replace(size=fine)
            elif not k_segments.gapless:
                matrix = self._spread(matrix, k, tiles)
            right = pack_right(matrix, form.spec.limits.low, form.spec.bits, segments(len(matrix)), scales)
            packed = right.tiles.reshape(blocks.stop - blocks.start, tiles.stop - tiles.start, -1)
            self.arrays["tiles"][(*batch, blocks, tiles, slice(0, packed.shape[-1]))] = packed
            if "sums" in self.arrays:
                assert right.col_sum is not None
                self.arrays["sums"][(*batch, slice(blocks.start * BLOCK, blocks.stop * BLOCK))] += right.col_sum[0]

    def _oriented(self, matrix: Array) -> Array:
        return matrix.T if self.form.transposed else matrix

    def _group_scales(self, params: QuantParams, index: tuple[int, ...]) -> GroupScales:
        """Integer scales of the groups along K of one matrix."""
        assert params.group_scale is not None
        assert self.form.spec.group is not None
        zero = None if params.zero is None else self._oriented(params.zero[index]).astype(np.uint8)
        return GroupScales(self.form.spec.group, self._oriented(params.group_scale[index]), zero)

    def _spread(self, codes: Array, k: slice, tiles: slice) -> Array:
        """Codes at their positions along the tiles, with the gaps between segments."""
        k_segments, limits = self.form.k_segments, self.form.spec.limits
        assert k_segments is not None
        result = np.full(((tiles.stop - tiles.start) * DEPTH, codes.shape[1]), limits.low, codes.dtype)
        segment, within = np.divmod(np.arange(k.start, k.stop), k_segments.size)
        result[segment * (k_segments.step_size * STEP) + within - tiles.start * DEPTH] = codes
        return result


def _matrices(box: Box) -> Iterator[tuple[tuple[int, ...], Box]]:
    """The batch index of each matrix of a box: within the box, and in the array."""
    for index in np.ndindex(*(s.stop - s.start for s in box[:-2])):
        yield index, tuple(slice(s.start + i, s.start + i + 1) for s, i in zip(box, index))
