"""Quantizing what is larger than memory: blocks of x come in, tiles go to their places.

Along the axis that shares parameters, a *piece* of x is complete: its parameters depend on nothing else. A piece is read
in *chunks* of about :data:`BLOCK` elements. Where parameters cross chunks, it is read twice: for the extremes first, then
for the codes. Everything is computed by the functions that quantize arrays in memory, so it is the same bit for bit.

Methods that need all elements of a run at once (everything but minmax) take pieces of one chunk, whatever its size.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.array import QArray
from fastq.engine import run
from fastq.engine.groups import Factors
from fastq.engine.memory import aligned
from fastq.errors import NotFiniteError
from fastq.files import load
from fastq.folder import Box, Folder, Target
from fastq.layout.tiles import BLOCK as COLUMNS
from fastq.layout.tiles import DEPTH, STEP, STEPS, ceil_div, segments
from fastq.outline import Outline
from fastq.parts import put_together
from fastq.quant import affine, groups
from fastq.quant.affine import Given, Quantized
from fastq.quant.by_method import Wanted, by_method
from fastq.quant.gptq import Gptq
from fastq.quant.methods import Method
from fastq.quant.moment import SecondMoment
from fastq.rules import is_float

Array = npt.NDArray[Any]

IN_ONE_GO = 32 << 20  # bytes: a memory map that is smaller is quantized as other arrays are
BLOCK = 2 << 20  # elements of x in a chunk: 8 or 16 MiB in the type computed in
SETS = BLOCK // 8  # sets of parameters in a piece


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
        values = self.array[box].astype(self.dtype, copy=False)
        if self.factors is None:
            return values
        own = tuple(s if d == self.axis else slice(None) for d, s in enumerate(box))
        return affine.balanced(values, self.axis, self.factors[own], self.rotation)

    def release(self, box: Box) -> None:
        """Give pages that a block was read from back to the system, which has them in the file."""
        if self.map is None:
            return
        low, high = np.lib.array_utils.byte_bounds(self.array[box])
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
            self.release(box)
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
    form: Wanted,
    given: Given | None,
    method: Method,
    moment: SecondMoment | None,
    out: str | os.PathLike[str] | None,
    tell: Callable[[int, int], Any] | None,
) -> QArray:
    """Quantize block by block, into a new folder if `out` names one, else into packed tiles in memory."""
    logical = x.array.dtype if is_float(x.array.dtype) else x.dtype
    shape = x.array.shape
    parts = form.bits, form.scheme, form.axis, form.group, x.rotation, form.integer
    outline = Outline(shape, str(logical.newbyteorder("=")), *parts).packed()
    if out is None:
        held = _Memory()
        _fill(x, form, given, method, moment, _Sink(outline, x, held.create), tell)
        return put_together(held.arrays, outline.attributes())
    with Folder(out) as folder:
        _fill(x, form, given, method, moment, _Sink(outline, x, folder.create), tell)
        folder.finish(outline.attributes())
    return load(out)


class _Held(NamedTuple):
    """An array in memory as a target."""

    array: Array

    def put(self, box: Box, values: Array) -> None:
        self.array[box] = values

    def add(self, box: Box, values: Array) -> None:
        self.array[box] += values


class _Memory:
    """What a :class:`Folder` is on disk."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def create(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Target:
        kind = np.dtype(dtype)
        self.arrays[name] = aligned(prod(shape) * kind.itemsize).view(kind).reshape(shape)
        if name == "sums":
            self.arrays[name][...] = 0
        return _Held(self.arrays[name])


class _Sink:
    """Where codes and parameters go: the arrays of :mod:`fastq.parts`."""

    def __init__(
        self, form: Outline, x: Source, create: Callable[[str, tuple[int, ...], npt.DTypeLike], Target]
    ) -> None:
        self.form, ndim = form, len(form.shape)
        shapes = form.arrays()
        if x.factors is None:
            shapes.pop("balance", None)
        floats = {"scale": x.dtype, "offset": x.dtype}
        self.targets = {
            name: create(name, shape, floats.get(name, types[0])) for name, (shape, types) in shapes.items()
        }
        if x.factors is not None:
            self.targets["balance"].put(tuple(slice(0, n) for n in x.factors.shape), x.factors)
        self.k_axis, self.n_axis = (ndim - 1, ndim - 2) if form.flipped else (ndim - 2, ndim - 1)
        self.sizes = [1] * ndim  # elements per unit along each axis; units are what can be packed by itself
        if form.cuts is not None:
            self.sizes[self.k_axis], self.sizes[self.n_axis] = DEPTH, COLUMNS
        self.counts = [ceil_div(n, size) for n, size in zip(form.shape, self.sizes)]
        if form.cuts is not None:
            self.counts[self.k_axis] = form.cuts.tiles

    def box(self, units: Box) -> Box:
        """The elements of a range of units along each axis."""
        return tuple(slice(self._edge(d, s.start), self._edge(d, s.stop)) for d, s in enumerate(units))

    def _edge(self, axis: int, unit: int) -> int:
        """Where a unit begins."""
        cuts, n = self.form.cuts, self.form.shape[axis]
        if cuts is None or axis != self.k_axis:
            return min(unit * self.sizes[axis], n)
        segment, rest = divmod(unit * DEPTH, cuts.step_size * STEP)
        return min(segment * cuts.size + min(rest, cuts.size), n)

    def units_per(self, axis: int, length: int) -> int:
        """The fewest units along an axis that begin with a run of this length, if each of so many units does."""
        cuts = self.form.cuts
        if cuts is None or axis != self.k_axis:
            return lcm(self.sizes[axis], length) // self.sizes[axis]
        if cuts.gapless:
            return lcm(DEPTH, length) // DEPTH
        return lcm(STEPS, cuts.step_size) // STEPS if length == cuts.size else cuts.tiles

    def parameters(self, box: Box, found: Quantized) -> None:
        """Write the parameters of a box of x that holds whole runs."""
        plain = {"scale": found.scale, "offset": found.offset}
        zeros = None if found.zero is None or found.factors is None else found.zero.astype(np.uint8)
        if found.factors is None:
            plain["zero_point"] = found.zero
        elif not self.form.grouped:
            plain |= {"factors": found.factors, "zeros": zeros}
        for name, values in plain.items():
            if values is not None:
                self.targets[name].put(self._grid(box, values.shape), values)
        if found.factors is None or not self.form.grouped:
            return
        assert self.form.cuts is not None
        blocks = self._blocks(box)
        for at, factors in self._matrices(box, found.factors):
            own = None if zeros is None else self._turn(zeros)[tuple(i.start - b.start for i, b in zip(at, box))]
            packed = Factors(self._size, factors, own).packed(self.form.limits, self.form.cuts)
            whole = (slice(0, n) for n in packed.shape[1:])
            self.targets["groups"].put((*at, blocks, *whole), packed.reshape((1,) * len(at) + packed.shape))

    def _grid(self, box: Box, shape: tuple[int, ...]) -> Box:
        """Where the parameters of a box are: one, one per group, or one per element along each axis."""
        axis, group = self.form.axis, self.form.group
        found = []
        for d, (s, n) in enumerate(zip(box, shape)):
            first = s.start if axis is not None and d != axis else 0 if group is None else s.start // group
            found.append(slice(first, first + n))
        return tuple(found)

    @property
    def _size(self) -> int:
        assert self.form.group is not None
        return self.form.group

    def _blocks(self, box: Box) -> slice:
        return slice(box[self.n_axis].start // COLUMNS, ceil_div(box[self.n_axis].stop, COLUMNS))

    def _turn(self, values: Array) -> Array:
        return values.swapaxes(-1, -2) if self.form.flipped else values

    def _matrices(self, box: Box, values: Array) -> Iterator[tuple[Box, Array]]:
        """Each matrix of a box in the orientation that it is packed in, and its batch index."""
        for index in np.ndindex(values.shape[:-2]):
            yield tuple(slice(s.start + i, s.start + i + 1) for s, i in zip(box, index)), self._turn(values[index])

    def codes(self, box: Box, units: Box, codes: Array, found: Quantized | None = None) -> None:
        """Write the codes of a box, which has these units; `found` are the parameters of the groups from 0 on."""
        form, cuts = self.form, self.form.cuts
        if cuts is None:
            self.targets["codes"].put(box, codes)
            return
        down = units[self.k_axis]
        blocks, k = self._blocks(box), box[self.k_axis]
        for at, matrix in self._matrices(box, codes):
            factors = None
            if form.grouped:
                assert found is not None
                assert found.factors is not None
                fine = gcd(self._size, DEPTH)  # a chunk may begin within a group
                inside = np.arange(k.start, k.stop, fine) // self._size
                own = (
                    None if p is None else self._turn(p)[tuple(i.start - b.start for i, b in zip(at, box))][inside]
                    for p in (found.factors, None if found.zero is None else found.zero.astype(np.uint8))
                )
                factors = Factors(fine, *own)
            elif not cuts.gapless:
                matrix = self._spread(matrix, k, down)
            right = run.pack_right(matrix, form.limits.low, form.bits, segments(len(matrix)), factors)
            tiles = right.tiles.reshape((1,) * len(at) + (blocks.stop - blocks.start, down.stop - down.start, -1))
            self.targets["tiles"].put((*at, blocks, down, slice(0, tiles.shape[-1])), tiles)
            if "sums" in self.targets:
                assert right.col_sum is not None
                place = slice(blocks.start * COLUMNS, blocks.stop * COLUMNS)
                self.targets["sums"].add((*at, place), right.col_sum.reshape((1,) * len(at) + (-1,)))

    def _spread(self, codes: Array, k: slice, down: slice) -> Array:
        """Codes at their positions along the tiles, with the gaps between segments."""
        cuts = self.form.cuts
        assert cuts is not None
        result = np.full(((down.stop - down.start) * DEPTH, codes.shape[1]), self.form.limits.low, codes.dtype)
        index = np.arange(k.start, k.stop)
        result[index // cuts.size * (cuts.step_size * STEP) + index % cuts.size - down.start * DEPTH] = codes
        return result


def _steps(
    counts: Sequence[int], sizes: Sequence[int], least: Sequence[int], order: Sequence[int] | range, limit: int
) -> list[int]:
    """Units along each axis of blocks of up to `limit` elements; axes are cut in this order, to multiples of `least`."""
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


class _Pass:
    """How x is cut, and what is done to the pieces."""

    def __init__(self, x: Source, form: Wanted, whole: bool, limit: int, sink: _Sink) -> None:
        self.x, self.form, self.sink = x, form, sink
        counts, sizes, axis, ndim = sink.counts, sink.sizes, form.axis, len(sink.counts)
        strides = x.array.strides
        order = sorted(range(ndim), key=lambda d: -abs(strides[d]))  # what lies together is read together
        least = [1] * ndim
        length = x.array.shape[axis] if axis is not None else x.array.size
        group = length if form.group is None else min(form.group, length)
        if axis is None:
            self.outer = self.inner = list(counts)
            if not whole:
                self.inner = _steps(counts, sizes, least, order, limit)
            self.groups = False
            return
        if x.rotation > 1:
            least[axis] = min(counts[axis], sink.units_per(axis, x.rotation))
        if whole:
            least[axis] = counts[axis]
        aligned_to = sink.units_per(axis, group)
        rest = prod(size for d, size in enumerate(sizes) if d != axis) * sizes[axis]
        # Groups with scales of their own are complete in a chunk that begins and ends with one.
        self.groups = not (whole or form.integer) and group < length and lcm(aligned_to, least[axis]) * rest <= limit
        if self.groups:
            least[axis] = min(counts[axis], lcm(aligned_to, least[axis]))
        first = _steps(counts, sizes, least, order, limit)
        # A piece is complete along the axis, and holds a limited number of parameters.
        first[axis] = 1
        per_line = [ceil_div(length, group) if d == axis else size for d, size in enumerate(sizes)]
        self.outer = _steps(first, per_line, [1] * ndim, [d for d in order if d != axis], SETS)
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
    form: Wanted,
    given: Given | None,
    method: Method,
    moment: SecondMoment | None,
    sink: _Sink,
    tell: Callable[[int, int], Any] | None,
) -> None:
    """Write all codes and parameters."""
    # A piece takes a factor of the moment anew, K x K: it is as large as that.
    limit = max(BLOCK, moment.matrix.size) if moment is not None and isinstance(method, Gptq) else BLOCK
    plan = _Pass(x, form, given is None and method != "minmax", limit, sink)
    pieces = list(plan.pieces())
    twice = given is None and not plan.groups and len(pieces[0]) > 1
    size = x.array.itemsize
    total, done = x.array.nbytes * (2 if twice else 1), 0

    def each(chunks: list[tuple[Box, Box]]) -> Iterator[tuple[Box, Box, Array]]:
        nonlocal done
        for units, box in chunks:
            yield units, box, x.read(box)
            x.release(box)
            done += prod(s.stop - s.start for s in box) * size
            if tell is not None:
                tell(done, total)

    try:
        for chunks in pieces:
            if given is None and (plan.groups or len(chunks) == 1):
                for units, box, values in each(chunks):
                    found = by_method(values, form, method, moment, x.name)
                    sink.parameters(box, found)
                    sink.codes(box, units, found.codes, found)
                continue
            if given is not None:
                found, own = _given(given, form, chunks)
            else:
                found, own = _found(each(chunks), chunks, form, x.dtype)
            sink.parameters(_hull(chunks), found)
            for units, box, values in each(chunks):
                sink.codes(box, units, _codes(values, form, own, box, x.name), found)
    except NotFiniteError:
        raise x.not_finite() from None


_NONE = np.empty(0, np.int8)


def _hull(chunks: list[tuple[Box, Box]]) -> Box:
    """The elements of a whole piece."""
    return tuple(slice(a.start, b.stop) for a, b in zip(chunks[0][1], chunks[-1][1]))


def _given(given: Given, form: Wanted, chunks: list[tuple[Box, Box]]) -> tuple[Quantized, Given]:
    """Parameters of a piece from those that are given for the whole array."""
    box = _hull(chunks)
    at = tuple(s if form.axis not in (None, d) else slice(None) for d, s in enumerate(box))
    scale, zero = (None if p is None else p[at] for p in given[:2])
    assert scale is not None
    return Quantized(_NONE, scale, zero, None), Given(scale, zero)


def _found(
    blocks: Iterator[tuple[Box, Box, Array]], chunks: list[tuple[Box, Box]], form: Wanted, dtype: np.dtype[Any]
) -> tuple[Quantized, Given]:
    """Parameters of a piece from the extremes of its chunks."""
    shape = affine.parameter_shape(tuple(s.stop - s.start for s in _hull(chunks)), form.axis, form.group)
    low, high = np.full(shape, np.inf, dtype), np.full(shape, -np.inf, dtype)
    for _, box, values in blocks:
        for part, group, sets in _by_group(values, form, box):
            ends = affine.find(part, form.axis, group, form.scheme)
            if ends is None:
                raise NotFiniteError
            np.minimum(low[sets], ends[0], out=low[sets])
            np.maximum(high[sets], ends[1], out=high[sets])
    own = affine.chosen(low, high, form.bits, form.scheme)
    if not form.integer:
        return Quantized(_NONE, *own), own
    assert form.axis is not None
    shared = groups.widened(own, form.bits, form.axis)
    return Quantized(_NONE, shared.scale, shared.zero, None, shared.factors), shared.given


def _codes(values: Array, form: Wanted, own: Given, box: Box, name: str) -> Array:
    """The codes of a chunk, under parameters of its piece."""
    found = []
    for part, group, sets in _by_group(values, form, box):
        mine = Given(*(None if p is None else p[sets] for p in own))  # type: ignore[arg-type]
        found.append(affine.quantize(part, form.bits, form.axis, group, form.scheme, mine, name).codes)
    return found[0] if len(found) == 1 else np.concatenate(found, axis=form.axis)


def _by_group(values: Array, form: Wanted, box: Box) -> Iterator[tuple[Array, int | None, Box]]:
    """A chunk, cut where a group ends that began before it; the groups in each part, and their parameters' places."""
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
            sets = slice(first // group, ceil_div(last, group))
            yield values[at], size, (*every[:axis], sets, *every[axis + 1 :])
