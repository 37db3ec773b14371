"""Quantizing what is larger than memory: blocks of x come in, tiles go to their places.

A *piece* of x is complete along the axis that shares parameters, so its parameters depend on nothing else. It is read
in *chunks* of about :data:`BLOCK` elements. Where parameters cross chunks, a piece is read twice: for the extremes
first, then for the codes. The functions that quantize arrays in memory compute everything, so each bit is the same.

Methods that need all elements of a run at once (everything but minmax) take pieces of one chunk, whatever its size.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from math import lcm, prod
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import NotFiniteError
from fastq.layout.tiles import ceil_div
from fastq.promotion import is_float
from fastq.quant import affine, groups
from fastq.quant.by_method import Tell, by_method
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method
from fastq.quant.moment import SecondMoment
from fastq.quant.spec import QuantParams, QuantSpec
from fastq.storage.files import read
from fastq.storage.folder import Folder
from fastq.storage.maps import release
from fastq.storage.metadata import Box, Metadata
from fastq.storage.writer import BlockWriter, in_memory

Array = npt.NDArray[Any]
Chunk = tuple[Box, Box]  # as units of the writer, and as elements

IN_ONE_GO = 32 << 20  # bytes: a memory map that is smaller is quantized as other arrays are
BLOCK = 2 << 20  # elements of x in a chunk: 8 or 16 MiB in the type computed in
SETS = BLOCK // 8  # sets of parameters in a piece
SPAN = 8 << 20  # bytes of a map from which scattered elements are read at a time


class Source(NamedTuple):
    """An array that is read as blocks of floats, balanced and rotated."""

    array: Array
    map: mmap.mmap | None  # that the array lies in, if pages of it may go once they are read
    dtype: np.dtype[Any]  # of the floats
    spec: QuantSpec
    factors: Array | None  # of the balance
    name: str  # in messages

    def read(self, box: Box) -> Array:
        """A block."""
        part = self.array[box]
        low, high = np.lib.array_utils.byte_bounds(part)
        if self.map is not None and high - low > max(2 * part.nbytes, SPAN):
            values = np.empty(part.shape, self.dtype)
            self._copy(part, values)
        else:
            values = part.astype(self.dtype, copy=False)
        if self.factors is None:
            return values
        along = tuple(s if d == self.spec.axis else slice(None) for d, s in enumerate(box))
        return affine.balanced(values, self.spec.axis, self.factors[along], self.spec.rotation)

    def _copy(self, part: Array, into: Array) -> None:
        """Copy what lies scattered over many pages; few of them are in memory at any time."""
        low, high = np.lib.array_utils.byte_bounds(part)
        d = max(range(part.ndim), key=lambda d: abs(part.strides[d]) * (part.shape[d] - 1))
        if high - low <= SPAN or part.shape[d] < 2:
            into[...] = part
            release(self.map, part)
            return
        middle = part.shape[d] // 2
        for half in (slice(0, middle), slice(middle, None)):
            at = (*(slice(None),) * d, half)
            self._copy(part[at], into[at])

    def not_finite(self) -> NotFiniteError:
        """The error that tells how many values are not finite, and where the first is."""
        shape = self.array.shape
        count, first, value = 0, shape, None
        least = [self.spec.rotation if d == self.spec.axis else 1 for d in range(len(shape))]
        for box in _boxes(shape, _steps(shape, [1] * len(shape), least, range(len(shape)), BLOCK)):
            values = self.read(box)
            bad = ~np.isfinite(values)
            if bad.any():
                count += int(bad.sum())
                within = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), values.shape))
                index = tuple(s.start + i for s, i in zip(box, within))
                if index < first:
                    first, value = index, values[within]
            release(self.map, self.array[box])
        return affine.not_finite(self.name, count, self.array.size, first, value)


def is_large(x: Any) -> bool:
    """Whether an array is quantized block by block without being asked to: a large memory map."""
    return isinstance(x, np.memmap) and x.nbytes >= IN_ONE_GO


def quantize(
    x: Source,
    given: QuantParams | None,
    method: Method,
    moment: SecondMoment | None,
    out: str | os.PathLike[str] | None,
    tell: Tell,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Quantize block by block, into a new folder if `out` names one, else into packed tiles in memory.

    Gives the arrays, those in the folder mapped, and the attributes of :mod:`fastq.qarray.parts`.
    """
    logical = x.array.dtype if is_float(x.array.dtype) else x.dtype
    form = Metadata(x.array.shape, str(logical.newbyteorder("=")), x.spec).packed()
    if out is None:
        writer = BlockWriter(form, x.dtype, x.factors, in_memory)
        fill(x, given, method, moment, writer, tell)
        return writer.arrays, form.attributes()
    with Folder(out) as folder:
        fill(x, given, method, moment, BlockWriter(form, x.dtype, x.factors, folder.create), tell)
        folder.finish(form.attributes())
    return read(out)


def _steps(
    counts: Sequence[int], sizes: Sequence[int], least: Sequence[int], order: Sequence[int], limit: int
) -> list[int]:
    """Units along each axis of blocks of up to `limit` elements, cut in this order to multiples of `least`."""
    steps = list(counts)
    for d in order:
        rest = prod(step * size for e, (step, size) in enumerate(zip(steps, sizes)) if e != d) * sizes[d]
        steps[d] = min(steps[d], max(least[d], limit // max(rest, 1) // least[d] * least[d]))
    return steps


def _boxes(counts: Sequence[int], steps: Sequence[int]) -> Iterator[Box]:
    """All blocks of so many units along each axis; the last one may be shorter."""
    return product(*([slice(i, min(i + step, n)) for i in range(0, n, step)] for n, step in zip(counts, steps)))


def _cut(x: Source, whole: bool, limit: int, writer: BlockWriter) -> tuple[list[list[Chunk]], bool]:
    """The chunks of each piece, and whether a chunk along the axis holds whole groups.

    `whole`: a piece is one chunk. Otherwise groups, if there are some, are kept whole where a chunk has room for them.
    """
    counts, sizes, axis, group = writer.counts, writer.sizes, x.spec.axis, x.spec.group
    least = [1] * len(counts)
    order = sorted(range(len(counts)), key=lambda d: -abs(x.array.strides[d]))  # what lies together is read together
    whole_groups, piece, chunk = False, counts, counts
    if axis is not None:
        length = x.array.shape[axis]
        group = length if group is None else min(group, length)
        if x.spec.rotation > 1:
            least[axis] = min(counts[axis], writer.units_of(axis, x.spec.rotation))
        if whole:
            least[axis] = counts[axis]
        together = lcm(writer.units_of(axis, group), least[axis])
        rest = prod(size for d, size in enumerate(sizes) if d != axis) * sizes[axis]
        whole_groups = not whole and group < length and together * rest <= limit
        if whole_groups:
            least[axis] = min(counts[axis], together)
        piece = _steps(counts, sizes, least, order, limit)
        if not (whole or whole_groups):  # the parameters of a piece are held
            piece[axis] = 1
            sets = [ceil_div(length, group) if d == axis else size for d, size in enumerate(sizes)]
            piece = _steps(piece, sets, [1] * len(counts), [d for d in order if d != axis], SETS)
        piece[axis] = counts[axis]
        chunk = _steps(piece, sizes, least, [axis], limit)
    elif not whole:
        chunk = _steps(counts, sizes, least, order, limit)
    pieces = []
    for outer in _boxes(counts, piece):
        inner = _boxes([s.stop - s.start for s in outer], chunk)
        chunks = [tuple(slice(o.start + s.start, o.start + s.stop) for o, s in zip(outer, box)) for box in inner]
        pieces.append([(units, writer.box(units)) for units in chunks])
    return pieces, whole_groups


def fill(
    x: Source, given: QuantParams | None, method: Method, moment: SecondMoment | None, writer: BlockWriter, tell: Tell
) -> None:
    """Quantize, and give all codes and parameters to the writer."""
    spec = x.spec
    # A piece takes a factor of the moment anew, K x K: it is as large as that.
    limit = max(BLOCK, moment.matrix.size) if moment is not None and isinstance(method, Gptq) else BLOCK
    pieces, whole_groups = _cut(x, given is None and method != "minmax", limit, writer)
    apart = len(pieces[0]) == 1 or (whole_groups and not spec.integer)  # no chunk shares parameters with another
    total, done = x.array.nbytes * (1 if apart or given is not None else 2), 0

    def blocks(chunks: list[Chunk]) -> Iterator[tuple[Box, Box, Array]]:
        nonlocal done
        for units, box in chunks:
            yield units, box, x.read(box)
            release(x.map, x.array[box])
            done += x.array[box].nbytes
            if tell is not None:
                tell(done, total)

    try:
        for chunks in pieces:
            if given is None and apart:
                for units, box, values in blocks(chunks):
                    codes, params = by_method(values, spec, method, moment, x.name)
                    writer.parameters(box, params)
                    writer.codes(units, codes, params, box)
            elif given is None and whole_groups:
                needs = (groups.needed(_of_groups(values, spec), spec) for _, _, values in blocks(chunks))
                shared = groups.rounded_up(reduce(np.maximum, needs))
                for units, box, values in blocks(chunks):
                    params = groups.under(shared, _of_groups(values, spec), spec)
                    writer.parameters(box, params)
                    writer.codes(units, _codes(values, spec, params, box, box, x.name, True), params, box)
            else:
                piece = tuple(slice(a.start, b.stop) for a, b in zip(chunks[0][1], chunks[-1][1]))
                if given is None:
                    params = _of_extremes(blocks(chunks), spec, piece, x.dtype)
                else:
                    at = (s if spec.axis not in (None, d) else slice(None) for d, s in enumerate(piece))
                    params = given.mapped(itemgetter(tuple(at)))
                writer.parameters(piece, params)
                for units, box, values in blocks(chunks):
                    codes = _codes(values, spec, params, box, piece, x.name, given is None)
                    writer.codes(units, codes, params, piece)
    except NotFiniteError:
        raise x.not_finite() from None


def _of_groups(values: Array, spec: QuantSpec) -> QuantParams:
    """Float parameters of the groups of a chunk, each by itself."""
    ends = affine.find(values, spec)
    if ends is None:
        raise NotFiniteError
    return affine.chosen(*ends, spec)


def _of_extremes(
    blocks: Iterator[tuple[Box, Box, Array]], spec: QuantSpec, piece: Box, dtype: np.dtype[Any]
) -> QuantParams:
    """Parameters of a piece from the extremes of its chunks."""
    shape = spec.parameter_shape(tuple(s.stop - s.start for s in piece))
    low, high = np.full(shape, np.inf, dtype), np.full(shape, -np.inf, dtype)
    for _, box, values in blocks:
        for part, spec_of_part, sets in _by_group(values, spec, box, piece):
            ends = affine.find(part, spec_of_part)
            if ends is None:
                raise NotFiniteError
            np.minimum(low[sets], ends[0], out=low[sets])
            np.maximum(high[sets], ends[1], out=high[sets])
    params = affine.chosen(low, high, spec)
    return groups.widened(params, spec) if spec.integer else params


def _codes(
    values: Array, spec: QuantSpec, params: QuantParams, box: Box, around: Box, name: str, finite: bool
) -> Array:
    """The codes of a chunk, under parameters of a box around it; `finite`: it has been read before."""
    floats = params.by_group
    codes = [
        affine.quantize(part, spec_of_part, floats.mapped(itemgetter(sets)), name, finite).codes
        for part, spec_of_part, sets in _by_group(values, spec, box, around)
    ]
    return codes[0] if len(codes) == 1 else np.concatenate(codes, axis=spec.axis)


def _by_group(values: Array, spec: QuantSpec, box: Box, around: Box) -> Iterator[tuple[Array, QuantSpec, Box]]:
    """A chunk, cut where a group ends that began before it; the spec of each part, and the places of its groups."""
    axis, group = spec.axis, spec.group
    every = (slice(None),) * values.ndim
    if axis is None or group is None:
        yield values, spec, every
        return
    start, stop, origin = box[axis].start, box[axis].stop, around[axis].start
    middle = min(ceil_div(start, group) * group, stop)
    for first, last, size in ((start, middle, None), (middle, stop, group)):
        if first < last:
            part = (*every[:axis], slice(first - start, last - start), *every[axis + 1 :])
            sets = slice((first - origin) // group, ceil_div(last - origin, group))
            yield values[part], spec._replace(group=size), (*every[:axis], sets, *every[axis + 1 :])
