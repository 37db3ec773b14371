"""What Dask must know of a QArray, so that it can be a chunk of Dask arrays."""

from __future__ import annotations

from operator import attrgetter
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
sizeof.register(QArray, attrgetter("nbytes"))


@normalize_token.register(QArray)
def _token(q: QArray) -> Any:
    """Equal for equal arrays, in every process and however they are packed."""
    values = [(name, normalize_token(array)) for name, array in canonical_arrays(q).items()]
    return "fastq.QArray", normalize_token(Metadata.of(q).packed().attributes()), values
