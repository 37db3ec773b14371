"""A quantized array in one line: its ``repr``; and its form in notebooks."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from fastq.scheme import ROW
from fastq.storage.metadata import Metadata

if TYPE_CHECKING:
    from fastq.pictures.distribution import Distribution
    from fastq.pictures.markup import Markup
    from fastq.qarray.array import QArray


def summary(q: QArray) -> str:
    """Shape, form, logical type and size in memory."""
    size, packed = _readable_size(q.nbytes), _once_packed(q)
    if packed is not None:
        size += f", {_readable_size(packed)} once packed"
    return f"QArray(shape={q.shape}, {_form(q)}, dtype={q.dtype}, {size})"


def html(q: QArray) -> str | None:
    """The same with a picture: how often each code occurs, in a part of a large array."""
    from fastq.pictures.compact import shown

    return shown(_drawn, q)


def codes_seen(q: QArray) -> Distribution:
    """How often each code occurs, in a part of a large array: of a memory map, little more than that is read."""
    from fastq.engine.sample import sample
    from fastq.pictures.distribution import of_codes

    low, high = q._store.limits
    return of_codes(sample(q._store), low, high, q.size)


def _drawn(q: QArray) -> Markup:
    from fastq.pictures import compact

    found, packed = codes_seen(q), _once_packed(q)
    sizes = [("codes and parameters", q.nbytes)]
    sizes += [] if packed is None else [("once packed", packed)]
    sizes.append((f"as {q.dtype}", prod(q.shape) * q.dtype.itemsize))
    return compact.array(f"QArray {q.shape}", f"{_form(q)}, {q.dtype}", sizes, found)


def _form(q: QArray) -> str:
    if q.axis is None:
        sharing = "one scale"
    elif q.group_size is None:
        sharing = f"axis={q.axis}"
    else:
        sharing = f"axis={q.axis}, group_size={q.group_size}"
    form = f"{q.bits} bits, {q.scheme}, {sharing}" + (", balanced" if q.balance is not None else "")
    form += f", rotated by {q.rotation}" if q.rotation > 1 else ""
    form += ", reordered" if q.order is not None else ""
    form += f", activations={q.activations!r}" if q.activations != ROW else ""
    return form


def _once_packed(q: QArray) -> int | None:
    """Bytes that the array will take once it is packed; None if it is, or never will be, or as many."""
    if q.bits == 8 or q._store.packed or (packed := Metadata.of(q).packed()).k_segments is None:
        return None
    return q.nbytes - q._store.nbytes + packed.stored()


def _readable_size(nbytes: int) -> str:
    exponent = min((max(nbytes, 1).bit_length() - 1) // 10, 3)
    return f"{nbytes / 1024**exponent:.1f} {'KMG'[exponent - 1]}iB" if exponent else f"{nbytes} B"
