"""QArray as a chunk of Dask arrays: what Dask wants to know of it."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.array.dispatch import concatenate_lookup, tensordot_lookup
from dask.base import normalize_token
from dask.sizeof import sizeof

from fastq.array import QArray
from fastq.machine import threads
from fastq.outline import Outline, take_apart

da.register_chunk_type(QArray)
concatenate_lookup.register(QArray, np.concatenate)
tensordot_lookup.register(QArray, threads.alone()(np.tensordot))


@sizeof.register(QArray)
def _sizeof(q: QArray) -> int:
    return q.nbytes


@normalize_token.register(QArray)
def _token(q: QArray) -> Any:
    """The same for equal arrays in every process, whether and however they are packed."""
    arrays, attributes = take_apart(q)
    form = q.shape, str(q.dtype), q.bits, q.scheme, q.axis, q.group_size, q.rotation
    usual = Outline(*form, q.axis_scale is not None).packed()
    if attributes != usual.attributes() or ("groups" in arrays) != usual.grouped:
        arrays, _ = take_apart(q._of(q._pieces()))
    values = [(name, normalize_token(array)) for name, array in arrays.items() if name != "sums"]
    return "fastq.QArray", form, values
