"""QArray as a chunk of Dask arrays: what Dask wants to know of it."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.array.dispatch import concatenate_lookup, tensordot_lookup
from dask.base import normalize_token
from dask.sizeof import sizeof

from fastq import numpys
from fastq.interop.parts import apart, metadata_of
from fastq.machine import pool
from fastq.qarray.array import QArray

da.register_chunk_type(QArray)
concatenate_lookup.register(QArray, np.concatenate)
tensordot_lookup.register(QArray, pool.alone()(numpys.tensordot))


@sizeof.register(QArray)
def _sizeof(q: QArray) -> int:
    return q.nbytes


@normalize_token.register(QArray)
def _token(q: QArray) -> Any:
    """The same for equal arrays in every process, whether and however they are packed."""
    values = [(name, normalize_token(array)) for name, array in apart(q).items()]
    return "fastq.QArray", normalize_token(metadata_of(q, q.shape).attributes()), values
