"""The form that equal quantized arrays have in common, whether and however each is packed."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from fastq.qarray.apart import take_apart
from fastq.qarray.array import QArray
from fastq.qarray.rearrange import array_parts, with_parts
from fastq.storage.metadata import Metadata

Array = npt.NDArray[Any]


def metadata_of(q: QArray, shape: tuple[int, ...]) -> Metadata:
    """The form of an array like q, of another shape perhaps, packed along the axis that shares its scale."""
    rest = str(q.dtype), q.bits, q.scheme, q.axis, q.group_size, q.rotation
    return Metadata(shape, *rest, q.axis_scale is not None).packed()


def apart(q: QArray) -> dict[str, Array]:
    """The arrays of :mod:`fastq.qarray.parts` in that form, but for the sums, which are not needed."""
    arrays, attributes = take_apart(q)
    usual = metadata_of(q, q.shape)
    if attributes != usual.attributes() or ("groups" in arrays) != usual.grouped:
        arrays, _ = take_apart(with_parts(q, array_parts(q)))
    return {name: array for name, array in arrays.items() if name != "sums"}
