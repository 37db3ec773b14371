"""What arrays a quantized array is taken apart into, and their shapes: all that is known of it but for its data."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import groups_of
from fastq.layout.tiles import BLOCK, Segments, ceil_div, segments, tile_bytes
from fastq.qarray.coded import Coded
from fastq.quant.affine import parameter_shape
from fastq.scheme import CodeRange, code_range

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

VERSION = 1  # of the form; another one is another set of arrays
NAMES = ("tiles", "sums", "groups", "codes", "factors", "zeros", "scale", "zero_point", "offset", "balance")
FLOATS = "float32", "float64"


class Outline(NamedTuple):
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
    flipped: bool = False
    cuts: Segments | None = None  # of K; None: not packed
    grouped: bool = False  # integer group scales are packed beside the tiles

    @classmethod
    def of(cls, q: Coded) -> Outline:
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
        return self.shape[-2 if self.flipped else -1]

    @property
    def blocks(self) -> int:
        """Blocks of columns as packed."""
        return ceil_div(self.n, BLOCK)

    def packed(self) -> Outline:
        """The same, packed along the axis that shares a scale, if it can be."""
        if len(self.shape) < 2 or 0 in self.shape:
            return self
        flipped = self.axis == len(self.shape) - 1
        k, summed = self.shape[-1 if flipped else -2], len(self.shape) - (1 if flipped else 2)
        along = self.axis == summed
        cuts = segments(k, self.group if along and not self.integer else None)
        return self._replace(flipped=flipped, cuts=cuts, grouped=self.integer and along)

    def arrays(self) -> dict[str, tuple[Shape, tuple[str, ...]]]:
        """Shapes and types of all arrays that there may be."""
        scale = parameter_shape(self.shape, self.axis, None if self.integer else self.group)
        found: dict[str, tuple[Shape, tuple[str, ...]]] = {"scale": (scale, FLOATS)}
        asymmetric = self.scheme == "asymmetric"
        if self.cuts is None:
            found["codes"] = self.shape, ("int8" if self.limits.signed else "uint8",)
        else:
            batch, blocks, cuts = self.shape[:-2], self.blocks, self.cuts
            found["tiles"] = (*batch, blocks, cuts.tiles, tile_bytes(self.bits)), ("uint8",)
            if cuts.segments == 1:
                found["sums"] = (*batch, blocks * BLOCK), ("int32",)
            if self.grouped and self.group is not None:
                found["groups"] = (*batch, blocks, groups_of(cuts, self.group), 2, BLOCK), ("uint8",)
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
            "flipped": self.flipped,
            "cuts": None if self.cuts is None else self.cuts.size,
        }


def take_apart(q: Coded, pack: bool = True) -> tuple[dict[str, Array], dict[str, Any]]:
    """A quantized array as plain arrays and attributes; see :mod:`fastq.storage.parts`.

    Codes that are not packed yet are packed for it, or, without `pack`, given as they are.
    """
    outline = Outline.of(q)
    if pack or q._store.packed:
        outline = outline.packed()
    arrays = {"scale": q._scale, "zero_point": q._zero, "offset": q._offset, "balance": q.balance}
    scales = None
    if outline.cuts is None:
        arrays["codes"], scales = q.codes, q._scales()
    else:
        # Orientations are those of the store here, and of the array in the outline.
        rights, turned, scales = q._store.operands(outline.flipped != q._flipped, outline.cuts, outline.grouped)
        if scales is not None and q._flipped:
            scales = scales.arranged(lambda values: values.swapaxes(-1, -2))
        one = next(iter(rights.values()))
        outline = outline._replace(flipped=turned != q._flipped, cuts=one.cuts, grouped=one.form.grouped)
        shapes = outline.arrays()
        for name in ("tiles", "sums", "groups"):
            own = [getattr(right, "col_sum" if name == "sums" else name) for right in rights.values()]
            if name in shapes and not any(array is None for array in own):
                whole = own[0] if len(own) == 1 else np.stack(own)
                arrays[name] = whole.reshape(shapes[name][0])
    if scales is not None:
        arrays["factors"], arrays["zeros"] = scales.factors, scales.zeros
    found = {name: np.ascontiguousarray(array) for name in NAMES if (array := arrays.get(name)) is not None}
    return {name: array.reshape(outline.arrays()[name][0]) for name, array in found.items()}, outline.attributes()
