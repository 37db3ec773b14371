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

da.register_chunk_type(QArray)
concatenate_lookup.register(QArray, np.concatenate)
tensordot_lookup.register(QArray, threads.alone()(np.tensordot))


@sizeof.register(QArray)
def _sizeof(q: QArray) -> int:
    return q.nbytes


@normalize_token.register(QArray)
def _token(q: QArray) -> Any:
    """Equal for equal arrays, whether they are packed or not, in every process."""
    arrays, attributes = take_apart(q)
    return (
        "fastq.QArray",
        sorted(attributes.items()),
        [(name, normalize_token(a)) for name, a in sorted(arrays.items())],
    )
