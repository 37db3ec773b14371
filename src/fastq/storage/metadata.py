"""The arrays that a quantized array is stored as, and their shapes: all that is known of it but for its data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import zip_longest
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import groups_of
from fastq.errors import shown
from fastq.layout.tiles import BLOCK, DEPTH, Segments, ceil_div, segments, tile_bytes
from fastq.quant import groups
from fastq.quant.spec import LARGEST_BLOCK, QuantSpec, parameter_shape
from fastq.scheme import ACTIVATIONS, MAX_BITS, MIN_BITS, ROW, SCHEMES

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Box = tuple[slice, ...]  # with a start and a stop for each axis

VERSION = 1  # of the form; another one is another set of arrays
IN_STORE = ("tiles", "sums", "groups", "codes", "factors", "zeros")  # what fastq.engine.store.Store holds
NAMES = (*IN_STORE, "scale", "zero_point", "offset", "balance", "order")
ATTRIBUTES = ("fastq", "shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation", "flipped", "cuts")
NARROW = "narrow"  # the attribute; left out where it is false, as "activations" where they are "row"
FLOATS = "float32", "float64"
LOGICAL = ("float16", "bfloat16", *FLOATS)


class Metadata(NamedTuple):
    """The form of a quantized array.

    Matrices, the last two axes, are packed as K x N for ``x @ q``, or transposed, for ``x @ q.mT``.
    """

    shape: Shape
    dtype: str  # the logical type
    spec: QuantSpec
    transposed: bool = False
    k_segments: Segments | None = None  # None: not packed
    grouped: bool = False  # integer group scales are packed beside the tiles
    activations: str = ROW  # how products quantize the floats that they meet
    ordered: bool = False  # its codes lie in an order of their own along the axis
    narrow: bool = False  # scale and offset are of the logical type, of 16 bits, and the equation is computed in it

    @classmethod
    def of(cls, q: Any) -> Metadata:
        """That of a QArray, not packed."""
        spec = QuantSpec(q.bits, q.axis, q.group_size, q.scheme, q.axis_scale is not None, q.rotation)
        narrow = q.scheme == "affine" and q.scale.dtype.itemsize == 2
        return cls(q.shape, str(q.dtype), spec, activations=q.activations, ordered=q.order is not None, narrow=narrow)

    @property
    def k_axis(self) -> int:
        """The axis of K, as packed."""
        return len(self.shape) - (1 if self.transposed else 2)

    @property
    def n_axis(self) -> int:
        """The axis of N, as packed."""
        return len(self.shape) - (2 if self.transposed else 1)

    def packed(self, shape: Shape | None = None) -> Metadata:
        """The form packed along the axis that shares a scale, if it can be; of an array of another shape, if given."""
        spec, shape = self.spec, self.shape if shape is None else shape
        form = Metadata(shape, self.dtype, spec, spec.axis == len(shape) - 1)
        form = form._replace(activations=self.activations, ordered=self.ordered, narrow=self.narrow)
        if len(shape) < 2 or 0 in shape:
            return form._replace(transposed=False)
        along_k = spec.axis == form.k_axis
        k_segments = segments(shape[form.k_axis], spec.group if along_k and not spec.integer else None)
        return form._replace(k_segments=k_segments, grouped=along_k and spec.integer)

    def arrays(self) -> dict[str, tuple[Shape, tuple[str, ...]]]:
        """The shape, and the possible types, of each array that this form may have."""
        shape, spec, k_segments = self.shape, self.spec, self.k_segments
        by_group = spec.parameter_shape(shape)
        scale = parameter_shape(shape, spec.axis, None) if spec.integer else by_group
        arrays: dict[str, tuple[Shape, tuple[str, ...]]] = {"scale": (scale, FLOATS)}
        if k_segments is None:
            arrays["codes"] = shape, ("int8" if spec.limits.signed else "uint8",)
        else:
            batch, blocks = shape[:-2], ceil_div(shape[self.n_axis], BLOCK)
            arrays["tiles"] = (*batch, blocks, k_segments.tiles, tile_bytes(spec.bits)), ("uint8",)
            if k_segments.segments == 1:
                arrays["sums"] = (*batch, blocks * BLOCK), ("int32",)
            if self.grouped and spec.group is not None:
                arrays["groups"] = (*batch, blocks, groups_of(k_segments, spec.group), 2, BLOCK), ("uint8",)
        if spec.integer and not self.grouped:
            arrays["factors"] = by_group, ("int8",)
        if spec.scheme == "asymmetric":
            if not spec.integer:
                arrays["zero_point"] = scale, ("int32",)
            elif not self.grouped:
                arrays["zeros"] = by_group, ("uint8",)
        if spec.scheme == "affine":
            arrays["offset"] = scale, FLOATS
        if spec.axis is not None:
            by_channel = tuple(n if i == spec.axis else 1 for i, n in enumerate(shape))
            arrays["balance"] = by_channel, FLOATS
            if self.ordered:
                arrays["order"] = by_channel, ("int64",)
        return arrays

    def entries(self, name: str) -> list[tuple[int, int]]:
        """For each leading axis of a stored array, the axis of the quantized array that it follows, and its step.

        The step is the number of elements per entry; all, where one entry serves the whole axis. Tiles along K are as
        here if K is not cut, or into segments without gaps.
        """
        spec, batch = self.spec, [(axis, 1) for axis in range(len(self.shape) - 2)]
        if name == "tiles":
            return [*batch, (self.n_axis, BLOCK), (self.k_axis, DEPTH)]
        if name == "groups":
            return [*batch, (self.n_axis, BLOCK), (self.k_axis, spec.group or 1)]
        group = 1 if name in ("codes", "balance", "order") else spec.group or 1
        lengths = enumerate(zip(self.shape, self.arrays()[name][0]))
        return [(d, max(1, n) if count == 1 else group if d == spec.axis else 1) for d, (n, count) in lengths]

    def place(self, name: str, box: Box, shape: Shape) -> Box:
        """Where in a stored array the entries of a box of elements lie, themselves an array of this shape."""
        starts = (box[axis].start // step for axis, step in self.entries(name))
        return tuple(slice(start, start + n) for start, n in zip_longest(starts, shape, fillvalue=0))

    def stored(self) -> int:
        """Bytes of codes and integer scales, as :attr:`fastq.engine.store.Store.nbytes` counts them."""
        arrays = self.arrays().items()
        return sum(prod(shape) * np.dtype(types[0]).itemsize for name, (shape, types) in arrays if name in IN_STORE)

    def attributes(self) -> dict[str, Any]:
        """What the arrays do not say, as JSON holds it."""
        spec, size = self.spec, None if self.k_segments is None else self.k_segments.size
        of_spec = spec.bits, spec.scheme, spec.axis, spec.group, spec.rotation
        common = dict(zip(ATTRIBUTES, (VERSION, list(self.shape), self.dtype, *of_spec, self.transposed, size)))
        # Left out where they are the usual ones, as in what was written before there were others.
        rare = {"activations": self.activations} if self.activations != ROW else {}
        return {**common, **rare, **({NARROW: True} if self.narrow else {})}


def parsed(attributes: Mapping[str, Any], names: Mapping[str, Any]) -> Metadata:
    """The form that attributes and the names of arrays tell of, checked."""
    must(
        isinstance(attributes, Mapping) and attributes.keys() >= set(ATTRIBUTES),
        f"attributes must be a mapping with {', '.join(ATTRIBUTES)}",
        ", ".join(map(str, attributes)) if isinstance(attributes, Mapping) else type(attributes).__name__,
    )
    version, shape, dtype, bits, scheme, axis, group, rotation, transposed, size = map(
        attributes.__getitem__, ATTRIBUTES
    )
    must(_whole(version) and version == VERSION, f"attribute fastq must be {VERSION}, the form known here", version)
    lengths = isinstance(shape, list | tuple) and all(_whole(n) and n >= 0 for n in shape)
    must(lengths, "attribute shape must be a list of lengths", shape)
    must(_one_of(dtype, LOGICAL), f"attribute dtype must be one of {', '.join(LOGICAL)}", dtype)
    must(_whole(bits) and MIN_BITS <= bits <= MAX_BITS, "attribute bits must be from 2 to 8", bits)
    must(_one_of(scheme, SCHEMES), f"attribute scheme must be one of {', '.join(SCHEMES)}", scheme)
    ndim = len(shape)
    must(axis is None or (_whole(axis) and 0 <= axis < ndim), f"attribute axis must be null or below {ndim}", axis)
    grouping = group is None or (_whole(group) and 0 < group <= sys.maxsize and axis is not None)
    must(grouping, "attribute group_size must be null, or positive with an axis that is not", group)
    power = _whole(rotation) and rotation > 0 and rotation & (rotation - 1) == 0
    block = power and axis is not None and 16 <= rotation <= LARGEST_BLOCK and shape[axis] % rotation == 0
    must(  # kernels mix no fewer channels than 16: products of such arrays would be wrong
        block or (power and rotation == 1),
        f"attribute rotation must be a power of two that divides the axis, from 16 to {LARGEST_BLOCK}, or 1",
        rotation,
    )
    must(isinstance(transposed, bool), "attribute flipped must be true or false", transposed)
    grouped = "groups" in names
    integer = grouped or "factors" in names
    must(
        not integer or groups.possible(bits, group, scheme),
        "integer group scales need a group_size that is a multiple of 16, 2 to 7 bits, and no affine scheme",
        f"group_size={group}, bits={bits}, scheme={scheme!r}",
    )
    packed = "tiles" in names
    must(
        packed == (size is not None) and not (packed and (ndim < 2 or 0 in shape)),
        "tiles and cuts must come together, for arrays of two dimensions or more that are not empty",
        f"cuts={shown(size)} with {', '.join(names)} for shape {shape}",
    )
    activations = attributes.get("activations", ROW)
    must(
        _one_of(activations, ACTIVATIONS), f"attribute activations must be one of {', '.join(ACTIVATIONS)}", activations
    )
    narrow = attributes.get(NARROW, False)
    must(isinstance(narrow, bool), f"attribute {NARROW} must be true or false", narrow)
    must(
        not narrow or (scheme == "affine" and dtype in LOGICAL[:2] and "balance" not in names),
        f"attribute {NARROW} is for affine arrays of 16 bits without a balance",
        f"scheme={scheme!r}, dtype={dtype!r}, arrays {', '.join(names)}",
    )
    spec = QuantSpec(bits, axis, group, scheme, integer, rotation)
    metadata = Metadata(tuple(shape), dtype, spec, activations=activations, ordered="order" in names, narrow=narrow)
    if not packed:
        return metadata
    metadata = metadata._replace(transposed=transposed, grouped=grouped)
    k = shape[metadata.k_axis]
    must(_whole(size) and 0 < size <= k, f"attribute cuts must be from 1 to {k}, the length of K", size)
    must(
        not grouped or (axis == metadata.k_axis and size == k),
        "packed groups must lie along K, which is then not cut",
        f"axis={axis}, flipped={transposed}, cuts={size}",
    )
    return metadata._replace(k_segments=segments(k, size))


def must(holds: Any, rule: str, got: Any) -> None:
    """Raise ValueError unless a rule holds."""
    if not holds:
        raise ValueError(f"{rule}; got {got if isinstance(got, str | np.dtype | np.generic) else shown(got)}")


def _one_of(value: Any, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
