"""Quantizing what is larger than memory: blocks of x come in, tiles go to their places.

A *piece* of x is complete along the axis that shares parameters, so these depend on nothing else. It is read in
*chunks* of about :data:`BLOCK` elements. Where parameters cross chunks, it is read twice: for the extremes first, then
for the codes. Everything is computed by the functions that quantize arrays in memory, so it is the same bit for bit.

Methods that need all elements of a run at once (everything but minmax) take pieces of one chunk, whatever its size.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
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
from fastq.quant.by_method import by_method
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method
from fastq.quant.moment import SecondMoment
from fastq.quant.spec import QuantParams, QuantSpec
from fastq.storage.files import read
from fastq.storage.folder import Box, Folder
from fastq.storage.metadata import Metadata
from fastq.storage.writer import BlockWriter, MemoryArrays

Array = npt.NDArray[Any]

IN_ONE_GO = 32 << 20  # bytes: a memory map that is smaller is quantized as other arrays are
BLOCK = 2 << 20  # elements of x in a chunk: 8 or 16 MiB in the type computed in
SETS = BLOCK // 8  # sets of parameters in a piece
SPAN = 8 << 20  # bytes of a map from which scattered elements are read at a time


class Source(NamedTuple):
    """An array as blocks of floats, balanced and rotated."""

    array: Array
    map: mmap.mmap | None  # that the array lies in, if what has been read of it may go
    dtype: np.dtype[Any]  # of the floats
    axis: int | None
    factors: Array | None
    rotation: int
    name: str

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
        own = tuple(s if d == self.axis else slice(None) for d, s in enumerate(box))
        return affine.balanced(values, self.axis, self.factors[own], self.rotation)

    def _copy(self, part: Array, into: Array) -> None:
        """Copy what lies scattered over many pages, few of which are in memory at any time."""
        low, high = np.lib.array_utils.byte_bounds(part)
        d = max(range(part.ndim), key=lambda d: abs(part.strides[d]) * (part.shape[d] - 1))
        if high - low <= SPAN or part.shape[d] < 2:
            into[...] = part
            self.release(part)
            return
        half = part.shape[d] // 2
        for half_of in (slice(0, half), slice(half, None)):
            at = (*(slice(None),) * d, half_of)
            self._copy(part[at], into[at])

    def release(self, part: Array) -> None:
        """Give the pages of a part of the array back to the system, which has them in the file."""
        if self.map is None:
            return
        low, high = np.lib.array_utils.byte_bounds(part)
        base = np.frombuffer(self.map, np.uint8).ctypes.data
        start = (low - base) // mmap.PAGESIZE * mmap.PAGESIZE
        self.map.madvise(mmap.MADV_DONTNEED, start, min(high - base, len(self.map)) - start)

    def not_finite(self) -> NotFiniteError:
        """The error that tells how many values are not finite, and where the first is."""
        shape = self.array.shape
        count, first, value = 0, shape, None
        least = [self.rotation if d == self.axis else 1 for d in range(len(shape))]
        for box in _boxes(shape, _steps(shape, [1] * len(shape), least, range(len(shape)), BLOCK)):
            values = self.read(box)
            bad = ~np.isfinite(values)
            if bad.any():
                count += int(bad.sum())
                here = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), values.shape))
                at = tuple(s.start + i for s, i in zip(box, here))
                if at < first:
                    first, value = at, values[here]
            self.release(self.array[box])
        return affine.not_finite(self.name, count, self.array.size, first, value)


def map_of(x: Any) -> mmap.mmap | None:
    """The map that a memory-mapped array lies in; None where pages that were read must stay, or cannot go."""
    if not isinstance(x, np.memmap) or x.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None  # in a private copy ("c"), pages that were written to are nowhere else
    base: Any = x
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def is_large(x: Any) -> bool:
    """Whether an array is quantized block by block without being asked to: a large memory map."""
    return isinstance(x, np.memmap) and x.nbytes >= IN_ONE_GO


def quantize(
    x: Source,
    spec: QuantSpec,
    given: QuantParams | None,
    method: Method,
    moment: SecondMoment | None,
    out: str | os.PathLike[str] | None,
    tell: Callable[[int, int], Any] | None,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Quantize block by block, into a new folder if `out` names one, else into packed tiles in memory.

    Gives the arrays, those in the folder mapped, and the attributes of :mod:`fastq.qarray.parts`.
    """
    logical = x.array.dtype if is_float(x.array.dtype) else x.dtype
    shape = x.array.shape
    parts = spec.bits, spec.scheme, spec.axis, spec.group, x.rotation, spec.integer
    metadata = Metadata(shape, str(logical.newbyteorder("=")), *parts).packed()
    if out is None:
        held = MemoryArrays()
        _fill(x, spec, given, method, moment, BlockWriter(metadata, x.dtype, x.factors, held.create), tell)
        return held.arrays, metadata.attributes()
    with Folder(out) as folder:
        _fill(x, spec, given, method, moment, BlockWriter(metadata, x.dtype, x.factors, folder.create), tell)
        folder.finish(metadata.attributes())
    return read(out)


def _steps(
    counts: Sequence[int], sizes: Sequence[int], least: Sequence[int], order: Sequence[int] | range, limit: int
) -> list[int]:
    """Units along each axis of blocks of up to `limit` elements, cut in this order to multiples of `least`."""
    steps = list(counts)
    for d in order:
        rest = prod(step * size for e, (step, size) in enumerate(zip(steps, sizes)) if e != d) * sizes[d]
        steps[d] = min(steps[d], max(least[d], limit // max(rest, 1) // least[d] * least[d]))
    return steps


def _boxes(counts: Sequence[int], steps: Sequence[int], axes: Sequence[int] | None = None) -> Iterator[Box]:
    """All blocks of so many units; only the given axes are cut."""
    cut = range(len(counts)) if axes is None else axes
    starts = [range(0, n, max(1, step)) if d in cut else (0,) for d, (n, step) in enumerate(zip(counts, steps))]
    for at in product(*starts):
        ends = (min(s + step, n) if d in cut else n for d, (s, step, n) in enumerate(zip(at, steps, counts)))
        yield tuple(slice(s, e) for s, e in zip(at, ends))


class _Cuts:
    """How x is cut into pieces, and these into chunks; `groups`: where groups are, at multiples of their size only."""

    def __init__(self, x: Source, spec: QuantSpec, whole: bool, limit: int, sink: BlockWriter) -> None:
        self.spec, self.sink = spec, sink
        counts, sizes, axis, ndim = sink.counts, sink.sizes, spec.axis, len(sink.counts)
        strides = x.array.strides
        order = sorted(range(ndim), key=lambda d: -abs(strides[d]))  # what lies together is read together
        least = [1] * ndim
        length = x.array.shape[axis] if axis is not None else x.array.size
        group = length if spec.group is None else min(spec.group, length)
        if axis is None:
            self.outer, self.groups = list(counts), False
            self.inner = self.outer if whole else _steps(counts, sizes, least, order, limit)
            return
        if x.rotation > 1:
            least[axis] = min(counts[axis], sink.units_of(axis, x.rotation))
        if whole:
            least[axis] = counts[axis]
        together = lcm(sink.units_of(axis, group), least[axis])
        rest = prod(size for d, size in enumerate(sizes) if d != axis) * sizes[axis]
        self.groups = not whole and group < length and together * rest <= limit
        if self.groups:
            least[axis] = min(counts[axis], together)
        self.outer = _steps(counts, sizes, least, order, limit)
        if not (whole or self.groups):  # the parameters of a piece are held
            self.outer[axis] = 1
            lines = [ceil_div(length, group) if d == axis else size for d, size in enumerate(sizes)]
            self.outer = _steps(self.outer, lines, [1] * ndim, [d for d in order if d != axis], SETS)
        self.outer[axis] = counts[axis]
        self.inner = _steps(self.outer, sizes, least, [axis], limit)

    def pieces(self) -> Iterator[list[tuple[Box, Box]]]:
        """The chunks of each piece, as units and as elements."""
        counts, axis = self.sink.counts, self.spec.axis
        for piece in _boxes(counts, self.outer):
            lengths = [s.stop - s.start for s in piece]
            chunks = _boxes(lengths, self.inner, None if axis is None else [axis])
            moved = [tuple(slice(p.start + s.start, p.start + s.stop) for p, s in zip(piece, c)) for c in chunks]
            yield [(units, self.sink.box(units)) for units in moved]


def _fill(
    x: Source,
    spec: QuantSpec,
    given: QuantParams | None,
    method: Method,
    moment: SecondMoment | None,
    sink: BlockWriter,
    tell: Callable[[int, int], Any] | None,
) -> None:
    """Write all codes and parameters."""
    # A piece takes a factor of the moment anew, K x K: it is as large as that.
    limit = max(BLOCK, moment.matrix.size) if moment is not None and isinstance(method, Gptq) else BLOCK
    plan = _Cuts(x, spec, given is None and method != "minmax", limit, sink)
    pieces = list(plan.pieces())
    several = len(pieces[0]) > 1
    apart = not several or (plan.groups and not spec.integer)  # parameters of a chunk are its own
    twice = given is None and not apart
    size = x.array.itemsize
    total, done = x.array.nbytes * (2 if twice else 1), 0

    def each(chunks: list[tuple[Box, Box]]) -> Iterator[tuple[Box, Box, Array]]:
        nonlocal done
        for units, box in chunks:
            yield units, box, x.read(box)
            x.release(x.array[box])
            done += prod(s.stop - s.start for s in box) * size
            if tell is not None:
                tell(done, total)

    try:
        for chunks in pieces:
            if given is None and apart:
                for units, box, values in each(chunks):
                    codes, params = by_method(values, spec, method, moment, x.name)
                    sink.parameters(box, params)
                    sink.codes(units, codes, params, box)
                continue
            if given is None and plan.groups:
                needs = (groups.needed(_own(values, spec), spec) for _, _, values in each(chunks))
                shared = groups.rounded_up(reduce(np.maximum, needs))
                for units, box, values in each(chunks):
                    params = groups.under(shared, _own(values, spec), spec)
                    sink.parameters(box, params)
                    sink.codes(units, _codes(values, spec, params, box, box, x.name), params, box)
                continue
            hull = tuple(slice(a.start, b.stop) for a, b in zip(chunks[0][1], chunks[-1][1]))
            whole = given is not None and _of_piece(given, spec, hull)
            params = whole or _of_extremes(each(chunks), spec, hull, x.dtype)
            sink.parameters(hull, params)
            for units, box, values in each(chunks):
                sink.codes(units, _codes(values, spec, params, box, hull, x.name), params, hull)
    except NotFiniteError:
        raise x.not_finite() from None


def _own(values: Array, spec: QuantSpec) -> QuantParams:
    """Parameters of groups by themselves."""
    ends = affine.find(values, spec)
    if ends is None:
        raise NotFiniteError
    return affine.chosen(*ends, spec)


def _of_piece(given: QuantParams, spec: QuantSpec, piece: Box) -> QuantParams:
    """Parameters of a piece from those that are given for the whole array."""
    at = tuple(s if spec.axis not in (None, d) else slice(None) for d, s in enumerate(piece))
    return given.mapped(lambda p: p[at])


def _of_extremes(
    blocks: Iterator[tuple[Box, Box, Array]], spec: QuantSpec, piece: Box, dtype: np.dtype[Any]
) -> QuantParams:
    """Parameters of a piece from the extremes of its chunks."""
    shape = spec.parameter_shape(tuple(s.stop - s.start for s in piece))
    low, high = np.full(shape, np.inf, dtype), np.full(shape, -np.inf, dtype)
    for _, box, values in blocks:
        for part, group, sets in _by_group(values, spec, box, piece):
            ends = affine.find(part, spec._replace(group=group))
            if ends is None:
                raise NotFiniteError
            np.minimum(low[sets], ends[0], out=low[sets])
            np.maximum(high[sets], ends[1], out=high[sets])
    own = affine.chosen(low, high, spec)
    return groups.widened(own, spec) if spec.integer else own


def _codes(values: Array, spec: QuantSpec, params: QuantParams, box: Box, around: Box, name: str) -> Array:
    """The codes of a chunk, under parameters of a box around it."""
    own, parts = params.by_group, []
    for part, group, sets in _by_group(values, spec, box, around):
        parts.append(affine.quantize(part, spec._replace(group=group), own.mapped(itemgetter(sets)), name).codes)
    return parts[0] if spec.axis is None or len(parts) == 1 else np.concatenate(parts, axis=spec.axis)


def _by_group(values: Array, spec: QuantSpec, box: Box, around: Box) -> Iterator[tuple[Array, int | None, Box]]:
    """A chunk, cut where a group ends that began before it; the size of groups in each part, and their places."""
    axis, group = spec.axis, spec.group
    every = (slice(None),) * values.ndim
    if axis is None or group is None:
        yield values, None, every
        return
    start, stop = box[axis].start, box[axis].stop
    middle = min(ceil_div(start, group) * group, stop)
    for first, last, size in ((start, middle, None), (middle, stop, group)):
        if first < last:
            at = (*every[:axis], slice(first - start, last - start), *every[axis + 1 :])
            origin = around[axis].start
            sets = slice((first - origin) // group, ceil_div(last - origin, group))
            yield values[at], size, (*every[:axis], sets, *every[axis + 1 :])
