"""QArray as a chunk of Dask arrays: what Dask wants to know of it."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.array.dispatch import concatenate_lookup, tensordot_lookup
from dask.base import normalize_token
from dask.sizeof import sizeof

from fastq import numpys
from fastq.machine import pool
from fastq.qarray.apart import canonical_arrays
from fastq.qarray.array import QArray
from fastq.storage.metadata import Metadata

da.register_chunk_type(QArray)
concatenate_lookup.register(QArray, np.concatenate)
tensordot_lookup.register(QArray, pool.alone()(numpys.tensordot))


@sizeof.register(QArray)
def _sizeof(q: QArray) -> int:
    return q.nbytes


@normalize_token.register(QArray)
def _token(q: QArray) -> Any:
    """The same for equal arrays in every process, whether and however they are packed."""
    values = [(name, normalize_token(array)) for name, array in canonical_arrays(q).items()]
    return "fastq.QArray", normalize_token(Metadata.of(q).packed().attributes()), values
