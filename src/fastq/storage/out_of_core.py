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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import NotFiniteError
from fastq.layout.tiles import ceil_div
from fastq.promotion import is_float
from fastq.quant import affine, groups
from fastq.quant.affine import Given, Quantized
from fastq.quant.by_method import QuantSpec, by_method
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method
from fastq.quant.moment import SecondMoment
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
    form: QuantSpec,
    given: Given | None,
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
    parts = form.bits, form.scheme, form.axis, form.group, x.rotation, form.integer
    metadata = Metadata(shape, str(logical.newbyteorder("=")), *parts).packed()
    if out is None:
        held = MemoryArrays()
        _fill(x, form, given, method, moment, BlockWriter(metadata, x.dtype, x.factors, held.create), tell)
        return held.arrays, metadata.attributes()
    with Folder(out) as folder:
        _fill(x, form, given, method, moment, BlockWriter(metadata, x.dtype, x.factors, folder.create), tell)
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

    def __init__(self, x: Source, form: QuantSpec, whole: bool, limit: int, sink: BlockWriter) -> None:
        self.form, self.sink = form, sink
        counts, sizes, axis, ndim = sink.counts, sink.sizes, form.axis, len(sink.counts)
        strides = x.array.strides
        order = sorted(range(ndim), key=lambda d: -abs(strides[d]))  # what lies together is read together
        least = [1] * ndim
        length = x.array.shape[axis] if axis is not None else x.array.size
        group = length if form.group is None else min(form.group, length)
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
        counts, axis = self.sink.counts, self.form.axis
        for piece in _boxes(counts, self.outer):
            lengths = [s.stop - s.start for s in piece]
            chunks = _boxes(lengths, self.inner, None if axis is None else [axis])
            moved = [tuple(slice(p.start + s.start, p.start + s.stop) for p, s in zip(piece, c)) for c in chunks]
            yield [(units, self.sink.box(units)) for units in moved]


def _fill(
    x: Source,
    form: QuantSpec,
    given: Given | None,
    method: Method,
    moment: SecondMoment | None,
    sink: BlockWriter,
    tell: Callable[[int, int], Any] | None,
) -> None:
    """Write all codes and parameters."""
    # A piece takes a factor of the moment anew, K x K: it is as large as that.
    limit = max(BLOCK, moment.matrix.size) if moment is not None and isinstance(method, Gptq) else BLOCK
    plan = _Cuts(x, form, given is None and method != "minmax", limit, sink)
    pieces = list(plan.pieces())
    several = len(pieces[0]) > 1
    apart = not several or (plan.groups and not form.integer)  # parameters of a chunk are its own
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
                    found = by_method(values, form, method, moment, x.name)
                    sink.parameters(box, found)
                    sink.codes(units, found.codes, found, box)
                continue
            if given is None and plan.groups:
                shared = reduce(np.maximum, (_needed(values, form) for _, _, values in each(chunks)))
                for units, box, values in each(chunks):
                    found, own = _under(groups.rounded_up(shared), values, form)
                    sink.parameters(box, found)
                    sink.codes(units, _codes(values, form, own, box, box, x.name), found, box)
                continue
            hull = tuple(slice(a.start, b.stop) for a, b in zip(chunks[0][1], chunks[-1][1]))
            if given is not None:
                found, own = _given(given, form, hull)
            else:
                found, own = _found(each(chunks), form, hull, x.dtype)
            sink.parameters(hull, found)
            for units, box, values in each(chunks):
                sink.codes(units, _codes(values, form, own, box, hull, x.name), found, hull)
    except NotFiniteError:
        raise x.not_finite() from None


_NONE = np.empty(0, np.int8)


def _own(values: Array, form: QuantSpec) -> Given:
    """Parameters of groups by themselves."""
    ends = affine.find(values, form.axis, form.group, form.scheme)
    if ends is None:
        raise NotFiniteError
    return affine.chosen(*ends, form.bits, form.scheme)


def _needed(values: Array, form: QuantSpec) -> Array:
    assert form.axis is not None
    return groups.needed(_own(values, form), form.bits, form.axis)


def _under(shared: Array, values: Array, form: QuantSpec) -> tuple[Quantized, Given]:
    """Integer scales of the groups of a chunk, under one that all groups share."""
    assert form.axis is not None
    return _integers(groups.under(shared, _own(values, form), form.bits, form.axis))


def _integers(shared: groups.Shared) -> tuple[Quantized, Given]:
    return Quantized(_NONE, shared.scale, shared.zero, None, shared.factors), shared.given


def _given(given: Given, form: QuantSpec, piece: Box) -> tuple[Quantized, Given]:
    """Parameters of a piece from those that are given for the whole array."""
    at = tuple(s if form.axis not in (None, d) else slice(None) for d, s in enumerate(piece))
    scale, zero = (None if p is None else p[at] for p in given[:2])
    assert scale is not None
    return Quantized(_NONE, scale, zero, None), Given(scale, zero)


def _found(
    blocks: Iterator[tuple[Box, Box, Array]], form: QuantSpec, piece: Box, dtype: np.dtype[Any]
) -> tuple[Quantized, Given]:
    """Parameters of a piece from the extremes of its chunks."""
    shape = affine.parameter_shape(tuple(s.stop - s.start for s in piece), form.axis, form.group)
    low, high = np.full(shape, np.inf, dtype), np.full(shape, -np.inf, dtype)
    for _, box, values in blocks:
        for part, group, sets in _by_group(values, form, box, piece):
            ends = affine.find(part, form.axis, group, form.scheme)
            if ends is None:
                raise NotFiniteError
            np.minimum(low[sets], ends[0], out=low[sets])
            np.maximum(high[sets], ends[1], out=high[sets])
    own = affine.chosen(low, high, form.bits, form.scheme)
    if not form.integer:
        return Quantized(_NONE, *own), own
    assert form.axis is not None
    return _integers(groups.widened(own, form.bits, form.axis))


def _codes(values: Array, form: QuantSpec, own: Given, box: Box, around: Box, name: str) -> Array:
    """The codes of a chunk, under parameters of a box around it."""
    found = []
    for part, group, sets in _by_group(values, form, box, around):
        mine = Given(*(None if p is None else p[sets] for p in own))  # type: ignore[arg-type]
        found.append(affine.quantize(part, form.bits, form.axis, group, form.scheme, mine, name).codes)
    return found[0] if len(found) == 1 else np.concatenate(found, axis=form.axis)


def _by_group(values: Array, form: QuantSpec, box: Box, around: Box) -> Iterator[tuple[Array, int | None, Box]]:
    """A chunk, cut where a group ends that began before it; the size of groups in each part, and their places."""
    axis, group = form.axis, form.group
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
