"""A quantized array taken apart into plain arrays and attributes; :mod:`fastq.qarray.parts` has the form of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.qarray.coded import QArrayBase
from fastq.storage.metadata import NAMES, Metadata

Array = npt.NDArray[Any]


def take_apart(q: QArrayBase, pack: bool = True) -> tuple[dict[str, Array], dict[str, Any]]:
    """A quantized array as plain arrays and attributes; see :mod:`fastq.qarray.parts`.

    Codes that are not packed yet are packed for it, or, without `pack`, given as they are.
    """
    metadata = Metadata.of(q)
    if pack or q._store.packed:
        metadata = metadata.packed()
    arrays = {"scale": q._scale, "zero_point": q._zero, "offset": q._offset, "balance": q.balance}
    scales = None
    if metadata.k_segments is None:
        arrays["codes"], scales = q.codes, q._scales()
    else:
        # Orientations are those of the store here, and of the array in the metadata.
        rights, transposed, scales = q._store.operands(
            metadata.transposed != q._transposed, metadata.k_segments, metadata.grouped
        )
        if scales is not None and q._transposed:
            scales = scales.arranged(lambda values: values.mT)
        one = next(iter(rights.values()))
        metadata = metadata._replace(
            transposed=transposed != q._transposed, k_segments=one.k_segments, grouped=one.form.grouped
        )
        shapes = metadata.arrays()
        for name in ("tiles", "sums", "groups"):
            of_matrices = [getattr(right, "col_sum" if name == "sums" else name) for right in rights.values()]
            if name in shapes and not any(array is None for array in of_matrices):
                whole = of_matrices[0] if len(of_matrices) == 1 else np.stack(of_matrices)
                arrays[name] = whole.reshape(shapes[name][0])
    if scales is not None:
        arrays["factors"], arrays["zeros"] = scales.scale, scales.zero
    present = {name: np.ascontiguousarray(array) for name in NAMES if (array := arrays.get(name)) is not None}
    return {name: array.reshape(metadata.arrays()[name][0]) for name, array in present.items()}, metadata.attributes()
