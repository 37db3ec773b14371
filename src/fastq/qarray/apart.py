"""A quantized array taken apart into plain arrays and attributes, and saved; see :mod:`fastq.qarray.parts`."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastq.layout.bitstream import pack_bits
from fastq.promotion import wide
from fastq.qarray.rearrange import array_parts, group_scales, oriented, with_parts
from fastq.scheme import ROW
from fastq.storage.folder import write
from fastq.storage.metadata import NAMES, Metadata
from fastq.validation import truth

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

Array = npt.NDArray[Any]


def take_apart(q: QArray, pack: bool = True) -> tuple[dict[str, Array], dict[str, Any]]:
    """A quantized array as plain arrays and attributes; see :mod:`fastq.qarray.parts`.

    Codes that are not packed yet are packed for it, or, without `pack`, given as they are.
    """
    form = Metadata.of(q)
    if pack or q._store.packed:
        form = form.packed()
    scale, offset = wide(q._scale), wide(q._offset)
    arrays = {"scale": scale, "zero_point": q._zero, "offset": offset, "balance": q.balance, "order": q.order}
    scales = None
    if form.k_segments is None:
        arrays["codes"], scales = q.codes, group_scales(q)
    else:
        # Orientations are those of the store here, and of the array in the form.
        rights, transposed, scales = q._store.operands(form.transposed != q._transposed, form.k_segments, form.grouped)
        scales = oriented(scales, q._transposed)
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


def canonical_arrays(q: QArray) -> dict[str, Array]:
    """The arrays in canonical form: equal for equal quantized arrays, however each is packed. Sums are left out."""
    arrays, attributes = take_apart(q)
    form = Metadata.of(q).packed()
    if attributes != form.attributes() or ("groups" in arrays) != form.grouped:
        arrays, _ = take_apart(with_parts(q, array_parts(q)))
    return {name: array for name, array in arrays.items() if name != "sums"}


def parts(q: QArray, packed: bool = False) -> dict[str, Any]:  # noqa: D417, a method
    """The arguments of :func:`fastq.from_parts` that make the array anew: codes, parameters, and its form.

    Parameters
    ----------
    packed : bool
        Give the codes as the dense bit stream along the axis (the last one with ``axis=None``), in bytes. An array of
        no dimensions has none, and gives its code as it is.

    Returns
    -------
    dict of str to what the argument takes
        Arguments that would be left out are. Arrays are read-only, but for a stream.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> q = fq.quantize(np.eye(2), bits=4, axis=0)
    >>> q.parts()  # doctest: +NORMALIZE_WHITESPACE
    {'codes': array([[7, 0], [0, 7]], dtype=int8), 'scale': array([[0.14285714, 0.14285714]]), 'bits': 4, 'axis': 0,
     'dtype': 'float64'}
    >>> q.parts(packed=True)["codes"]
    array([[143, 248]], dtype=uint8)
    >>> fq.from_parts(**q.parts(packed=True)).equals(q)
    True
    """
    made: dict[str, Any] = {"codes": q.codes, "scale": q._scale, "bits": q.bits}
    if truth(packed, "packed") and q.ndim:
        axis = q.ndim - 1 if q.axis is None else q.axis
        # Symmetric codes wrap around to those that count from 0.
        unsigned = q.codes.view(np.uint8) - np.uint8(-q._store.limits.low)
        unsigned &= np.uint8(2**q.bits - 1)
        stream = np.moveaxis(pack_bits(np.moveaxis(unsigned, axis, -1), q.bits), -1, axis)
        made |= {"codes": np.ascontiguousarray(stream), "packed": True, "shape": q.shape}
    arrays = {name: getattr(q, name) for name in ("zero_point", "offset", "group_scale", "order", "balance")}
    made |= {name: array for name, array in arrays.items() if array is not None}
    made["axis"] = q.axis
    for name, usual in (("group_size", None), ("rotation", 1), ("activations", ROW)):
        if (value := getattr(q, name)) != usual:
            made[name] = value
    return {**made, "dtype": str(q.dtype)}


def save(q: QArray, path: str | PathLike[str], overwrite: bool = False) -> None:  # noqa: D417, a method
    """Write the array to a folder, packed, for :func:`fastq.load`.

    A matrix that is not packed yet is packed for ``x @ q``, or for ``x @ q.T`` if the last axis shares a scale.
    Arrays are written as .npy files (:mod:`fastq.qarray.parts`), into a folder that gets its name when all is
    there.

    Parameters
    ----------
    path : path
        The folder to make.
    overwrite : bool
        Put it in the place of one that was saved before. Arrays that were loaded from that one stay as they are;
        Windows refuses to replace it until they are gone, unless they were loaded with ``mmap=False``.

    Raises
    ------
    FileExistsError
        If there is something of that name which is not to be overwritten, or was not saved by fastq.
    OSError
        If it cannot be written; there is no folder of that name then, or the one that was there before.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> q = fq.quantize(np.eye(3), bits=3, axis=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     q.save(f"{folder}/q")
    ...     fq.load(f"{folder}/q").equals(q)
    True
    """
    write(path, *take_apart(q), overwrite)
