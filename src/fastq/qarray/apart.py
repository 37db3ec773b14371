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
    form = Metadata.of(q)
    if pack or q._store.packed:
        form = form.packed()
    arrays = {"scale": q._scale, "zero_point": q._zero, "offset": q._offset, "balance": q.balance}
    if form.k_segments is None:
        arrays["codes"], scales = q.codes, q._scales()
    else:
        # Orientations are those of the store here, and of the array in the form.
        rights, transposed, scales = q._store.operands(form.transposed != q._transposed, form.k_segments, form.grouped)
        if scales is not None and q._transposed:
            scales = scales.arranged(lambda values: values.mT)
        one = next(iter(rights.values()))
        form = form._replace(
            transposed=transposed != q._transposed, k_segments=one.k_segments, grouped=one.form.grouped
        )
        for name, attribute in (("tiles", "tiles"), ("sums", "col_sum"), ("groups", "groups")):
            of_matrices = [getattr(right, attribute) for right in rights.values()]
            if name in form.arrays() and not any(array is None for array in of_matrices):
                arrays[name] = of_matrices[0] if len(of_matrices) == 1 else np.stack(of_matrices)
    if scales is not None:
        arrays["factors"], arrays["zeros"] = scales.scale, scales.zero
    shapes = form.arrays()
    present = {name: array for name in NAMES if (array := arrays.get(name)) is not None}
    contiguous = {name: np.ascontiguousarray(array).reshape(shapes[name][0]) for name, array in present.items()}
    return contiguous, form.attributes()


def canonical_arrays(q: QArrayBase) -> dict[str, Array]:
    """The arrays in canonical form: equal for equal quantized arrays, however each is packed. Sums are left out."""
    arrays, attributes = take_apart(q)
    form = Metadata.of(q).packed()
    if attributes != form.attributes() or ("groups" in arrays) != form.grouped:
        arrays, _ = take_apart(q._of(q._pieces()))
    return {name: array for name, array in arrays.items() if name != "sums"}
