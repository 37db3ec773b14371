"""A quantized array in one line: its ``repr``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastq.scheme import ROW
from fastq.storage.metadata import Metadata

if TYPE_CHECKING:
    from fastq.qarray.array import QArray


def summary(q: QArray) -> str:
    """Shape, form, logical type and size in memory."""
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
    size = _readable_size(q.nbytes)
    if q.bits < 8 and not q._store.packed and (packed := Metadata.of(q).packed()).k_segments is not None:
        size += f", {_readable_size(q.nbytes - q._store.nbytes + packed.stored())} once packed"
    return f"QArray(shape={q.shape}, {form}, dtype={q.dtype}, {size})"


def _readable_size(nbytes: int) -> str:
    exponent = min((max(nbytes, 1).bit_length() - 1) // 10, 3)
    return f"{nbytes / 1024**exponent:.1f} {'KMG'[exponent - 1]}iB" if exponent else f"{nbytes} B"
