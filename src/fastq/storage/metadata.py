"""What arrays a quantized array is taken apart into, and their shapes: all that is known of it but for its data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import groups_of
from fastq.errors import shown
from fastq.layout.tiles import BLOCK, Segments, ceil_div, segments, tile_bytes
from fastq.quant import groups
from fastq.quant.spec import LARGEST_BLOCK, parameter_shape
from fastq.scheme import MAX_BITS, MIN_BITS, SCHEMES, CodeRange, code_range

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

VERSION = 1  # of the form; another one is another set of arrays
NAMES = ("tiles", "sums", "groups", "codes", "factors", "zeros", "scale", "zero_point", "offset", "balance")
FLOATS = "float32", "float64"
LOGICAL = ("float16", "bfloat16", *FLOATS)


class Metadata(NamedTuple):
    """The form of a quantized array.

    Matrices, the last two axes, are packed as K x N for ``x @ q``, or `flipped`, as their transpose, for ``x @ q.mT``.
    """

    shape: Shape
    dtype: str
    bits: int
    scheme: str
    axis: int | None
    group: int | None
    rotation: int
    integer: bool  # integer group scales
    transposed: bool = False
    k_segments: Segments | None = None  # of K; None: not packed
    grouped: bool = False  # integer group scales are packed beside the tiles

    @classmethod
    def of(cls, q: Any) -> Metadata:
        """That of an array whose codes are not packed."""
        integer = q.axis_scale is not None
        return cls(q.shape, str(q.dtype), q.bits, q.scheme, q.axis, q.group_size, q.rotation, integer)

    @property
    def limits(self) -> CodeRange:
        """What the codes may be."""
        return code_range(self.bits, self.scheme)

    @property
    def n(self) -> int:
        """Columns as packed."""
        return self.shape[-2 if self.transposed else -1]

    @property
    def blocks(self) -> int:
        """Blocks of columns as packed."""
        return ceil_div(self.n, BLOCK)

    def packed(self) -> Metadata:
        """The same, packed along the axis that shares a scale, if it can be."""
        if len(self.shape) < 2 or 0 in self.shape:
            return self
        transposed = self.axis == len(self.shape) - 1
        k, summed = self.shape[-1 if transposed else -2], len(self.shape) - (1 if transposed else 2)
        along = self.axis == summed
        k_segments = segments(k, self.group if along and not self.integer else None)
        return self._replace(transposed=transposed, k_segments=k_segments, grouped=self.integer and along)

    def arrays(self) -> dict[str, tuple[Shape, tuple[str, ...]]]:
        """Shapes and types of all arrays that there may be."""
        scale = parameter_shape(self.shape, self.axis, None if self.integer else self.group)
        found: dict[str, tuple[Shape, tuple[str, ...]]] = {"scale": (scale, FLOATS)}
        asymmetric = self.scheme == "asymmetric"
        if self.k_segments is None:
            found["codes"] = self.shape, ("int8" if self.limits.signed else "uint8",)
        else:
            batch, blocks, k_segments = self.shape[:-2], self.blocks, self.k_segments
            found["tiles"] = (*batch, blocks, k_segments.tiles, tile_bytes(self.bits)), ("uint8",)
            if k_segments.segments == 1:
                found["sums"] = (*batch, blocks * BLOCK), ("int32",)
            if self.grouped and self.group is not None:
                found["groups"] = (*batch, blocks, groups_of(k_segments, self.group), 2, BLOCK), ("uint8",)
        if self.integer and not self.grouped:
            factors = parameter_shape(self.shape, self.axis, self.group)
            found["factors"] = factors, ("int8",)
            if asymmetric:
                found["zeros"] = factors, ("uint8",)
        if asymmetric and not self.integer:
            found["zero_point"] = scale, ("int32",)
        if self.scheme == "affine":
            found["offset"] = scale, FLOATS
        if self.axis is not None:
            found["balance"] = tuple(n if i == self.axis else 1 for i, n in enumerate(self.shape)), FLOATS
        return found

    def stored(self) -> int:
        """Bytes of codes and integer scales, as :attr:`fastq.engine.store.Store.nbytes` counts them."""
        found = self.arrays()
        own = [found[name] for name in ("codes", "tiles", "sums", "groups", "factors", "zeros") if name in found]
        return sum(prod(shape) * np.dtype(kind).itemsize for shape, (kind, *_) in own)

    def attributes(self) -> dict[str, Any]:
        """What the arrays do not say, as JSON holds it."""
        return {
            "fastq": VERSION,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "bits": self.bits,
            "scheme": self.scheme,
            "axis": self.axis,
            "group_size": self.group,
            "rotation": self.rotation,
            "flipped": self.transposed,
            "cuts": None if self.k_segments is None else self.k_segments.size,
        }


def parsed(attributes: Mapping[str, Any], names: Mapping[str, Array]) -> Metadata:
    """The form that attributes tell of, checked."""
    wanted = Metadata((), "", 8, "", None, None, 1, False).attributes()
    must(
        isinstance(attributes, Mapping) and wanted.keys() <= attributes.keys(),
        f"attributes must be a mapping with {', '.join(wanted)}",
        ", ".join(map(str, attributes)) if isinstance(attributes, Mapping) else type(attributes).__name__,
    )
    get = attributes.__getitem__
    version = get("fastq")
    must(_whole(version) and version == VERSION, f"attribute fastq must be {VERSION}, the form known here", version)
    shape, axis, bits, group, k_segments = (get(n) for n in ("shape", "axis", "bits", "group_size", "cuts"))
    must(
        isinstance(shape, list | tuple) and all(_whole(n) and n >= 0 for n in shape),
        "attribute shape must be a list of lengths",
        shape,
    )
    must(_one_of(get("dtype"), LOGICAL), f"attribute dtype must be one of {', '.join(LOGICAL)}", get("dtype"))
    must(_whole(bits) and MIN_BITS <= bits <= MAX_BITS, "attribute bits must be from 2 to 8", bits)
    must(_one_of(get("scheme"), SCHEMES), f"attribute scheme must be one of {', '.join(SCHEMES)}", get("scheme"))
    ndim = len(shape)
    must(axis is None or (_whole(axis) and 0 <= axis < ndim), f"attribute axis must be null or below {ndim}", axis)
    must(
        group is None or (_whole(group) and 0 < group <= sys.maxsize and axis is not None),
        "attribute group_size must be null, or positive with an axis that is not",
        group,
    )
    rotation, transposed = get("rotation"), get("flipped")
    turns = _whole(rotation) and 0 < rotation <= LARGEST_BLOCK and rotation & (rotation - 1) == 0
    must(
        turns and (rotation == 1 or (axis is not None and shape[axis] % rotation == 0)),
        f"attribute rotation must be a power of two that divides the axis, up to {LARGEST_BLOCK}",
        rotation,
    )
    must(isinstance(transposed, bool), "attribute flipped must be true or false", transposed)
    integer, packed = "groups" in names or "factors" in names, "tiles" in names
    must(
        not integer or groups.possible(bits, group, get("scheme")),
        "integer group scales need a group_size that is a multiple of 16, 2 to 7 bits, and no affine scheme",
        f"group_size={group}, bits={bits}, scheme={get('scheme')!r}",
    )
    found = Metadata(tuple(shape), get("dtype"), bits, get("scheme"), axis, group, rotation, integer)
    must(
        packed == (k_segments is not None) and not (packed and (ndim < 2 or 0 in shape)),
        "tiles and cuts must come together, for arrays of two dimensions or more that are not empty",
        f"cuts={shown(k_segments)} with {', '.join(names)} for shape {shape}",
    )
    if not packed:
        return found
    k = shape[-1 if transposed else -2]
    must(
        _whole(k_segments) and 0 < k_segments <= k, f"attribute cuts must be from 1 to {k}, the length of K", k_segments
    )
    grouped = "groups" in names
    must(
        not grouped or (axis == ndim - (1 if transposed else 2) and k_segments == k),
        "packed groups must lie along K, which is then not cut",
        f"axis={axis}, flipped={transposed}, cuts={k_segments}",
    )
    return found._replace(transposed=transposed, k_segments=segments(k, k_segments), grouped=grouped)


def must(holds: Any, rule: str, got: Any) -> None:
    """Raise ValueError unless a rule holds."""
    if not holds:
        raise ValueError(f"{rule}; got {got if isinstance(got, str | np.dtype | np.generic) else shown(got)}")


def _one_of(value: Any, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
