"""A quantized array as plain arrays and a few attributes, and back: for files, for other stores, for pickles.

Matrices are taken apart packed, in the form that products read. So an array that is put together again is multiplied
where it lies, in memory or in a memory map. :mod:`fastq.layout.tiles` says what K, N and tiles are. A matrix that is
not packed yet is packed along the axis that shares a scale: for ``x @ q.mT`` (`flipped`) if that is the last axis, else
for ``x @ q``. A pickle comes back as it was, so it holds the codes of such an array instead.

========== ============================================ ======== ====================================================
array      shape                                        type     is there
========== ============================================ ======== ====================================================
tiles      ``[*batch, blocks of N, tiles of K, bytes]`` uint8    with two dimensions or more; ``128 * bits`` bytes
sums       ``[*batch, blocks * 16]``                    int32    sums of what is multiplied, by column; may be missing
groups     ``[*batch, blocks, groups of K, 2, 16]``     uint8    factors and shifts of integer group scales along K
codes      that of the array                            int8 *   where nothing is packed: 0-D, 1-D, empty, pickles
factors    one per group                                int8     integer group scales that are not in `groups`
zeros      one per group                                uint8    their zero points, if asymmetric
scale      ``np.max(x, axis, keepdims=True)``, or one   floats   always
           per group; with integer scales the former
zero_point that of scale                                int32    asymmetric, but for integer group scales
offset     that of scale                                floats   affine
balance    1, but for the axis                          floats   balanced or rotated arrays
========== ============================================ ======== ====================================================

(* uint8, unless symmetric; floats are float32 or float64.) Attributes are JSON values: `fastq` (the version of this
form, 1), `shape`, `dtype`, `bits`, `scheme`, `axis`, `group_size`, `rotation`, `flipped`, and `cuts`, the length of the
segments that K is cut into (:class:`fastq.layout.tiles.Segments`), null where nothing is packed.
"""

from __future__ import annotations

import copyreg
import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import GroupScales
from fastq.engine.memory import aligned_copy
from fastq.engine.operands import INT32_MAX, Right
from fastq.engine.store import Store
from fastq.layout.tiles import TileFormat
from fastq.qarray.apart import take_apart
from fastq.qarray.array import QArray
from fastq.scheme import largest_factor
from fastq.storage.files import read
from fastq.storage.metadata import NAMES, Metadata, must, parsed

__all__ = ["load", "put_together", "take_apart"]

Array = npt.NDArray[Any]
CHECKED = 1 << 20  # bytes of groups that are checked at a time


def put_together(arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> QArray:
    """A quantized array from what :func:`take_apart` made of one.

    Arrays are used as they are, memory maps and read-only ones included, but for tiles that do not begin at a cache
    line (64 bytes): those are copied. Everything is checked but the tiles, which are not read: any bytes are codes.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        By the names in :mod:`fastq.qarray.parts`; C-contiguous. They must not change as long as the result is in use.
    attributes : mapping
        Those that came with the arrays.

    Returns
    -------
    QArray

    Raises
    ------
    ValueError
        If arrays and attributes are not those of one quantized array.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> from fastq.qarray.parts import put_together, take_apart
    >>> q = fq.quantize(np.eye(3), bits=3, axis=0)
    >>> arrays, attributes = take_apart(q)
    >>> {name: array.shape for name, array in arrays.items()}
    {'tiles': (1, 1, 384), 'sums': (16,), 'scale': (1, 3)}
    >>> put_together(arrays, attributes).equals(q)
    True
    """
    must(isinstance(arrays, Mapping), "arrays must be a mapping of names to arrays", type(arrays).__name__)
    metadata = parsed(attributes, arrays)
    shapes = metadata.arrays()
    needed = set(shapes) - {"sums"} - (set() if metadata.rotation > 1 else {"balance"})
    must(
        needed <= set(arrays) <= set(shapes),
        f"arrays must be those of this form, {', '.join(n for n in NAMES if n in shapes)}",
        ", ".join(map(str, arrays)),
    )
    parts = {name: _checked(name, arrays[name], *shapes[name]) for name in arrays}
    _check_values(parts, metadata)
    scales = None
    if "factors" in parts:
        assert metadata.group is not None
        scales = GroupScales(metadata.group, parts["factors"], parts.get("zeros"))
    if metadata.k_segments is None:
        store = Store(parts["codes"], metadata.limits, metadata.bits, scales)
    else:
        rights = _rights(parts, metadata)
        groups_shape = metadata._replace(grouped=False).arrays()["factors"][0] if metadata.grouped else None
        store = Store.of_packed(rights, metadata.shape, metadata.limits, metadata.transposed, scales, groups_shape)
    parameters = parts["scale"], parts.get("zero_point"), parts.get("offset")
    rest = metadata.scheme, metadata.axis, metadata.group, parameters, _dtype(metadata.dtype), parts.get("balance")
    return QArray._make(store, False, *rest, metadata.rotation)


def _reduced(q: QArray) -> tuple[Any, ...]:
    """What pickle keeps of an array: its parts, which are checked when they are put together again."""
    return put_together, take_apart(q, pack=False)


copyreg.pickle(QArray, _reduced)


def _checked(name: str, array: Any, shape: tuple[int, ...], types: tuple[str, ...]) -> Array:
    """An array of this shape and type that kernels can read."""
    described = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    of = isinstance(array, np.ndarray) and array.shape == shape and array.dtype in [np.dtype(t) for t in types]
    must(of, f"{name} must be an array of {' or '.join(types)} and shape {shape}", described)
    must(array.flags.c_contiguous, f"{name} must be C-contiguous", f"strides {array.strides} for {described}")
    base: Array = array.view(np.ndarray)  # without what a subclass does
    if name == "tiles":
        return aligned_copy(base)  # vectors would straddle cache lines
    return base if base.flags.aligned else base.copy()


def _check_values(parts: dict[str, Array], metadata: Metadata) -> None:
    """That parameters are numbers, and integers in their ranges."""
    zeros, most = (0, metadata.limits.high), largest_factor(metadata.bits)
    ranges = {"zero_point": zeros, "zeros": zeros, "codes": metadata.limits, "factors": (-most, most)}
    if metadata.k_segments is not None and metadata.k_segments.k * 255 <= INT32_MAX:
        ranges["sums"] = (0, metadata.k_segments.k * 255)
    for name, array in parts.items():
        if name in ("scale", "offset", "balance"):
            must(np.isfinite(array).all(), f"{name} must be finite", "NaN or infinity")
        if name == "balance":
            must((array > 0).all(), "balance must be positive", array.min(initial=1))
        if name in ranges and array.size:
            low, top = ranges[name]
            extremes = int(array.min()), int(array.max())
            must(low <= extremes[0] and extremes[1] <= top, f"{name} must be from {low} to {top}", extremes)
    if "factors" in parts:
        _check_factors(parts["factors"], metadata)
    if "offset" in parts:
        must(parts["offset"].dtype == parts["scale"].dtype, "offset must be of scale's type", parts["offset"].dtype)


def _check_factors(factors: Array, metadata: Metadata) -> None:
    """That integer scales times symmetric codes fit int8; of others, not all codes can occur under all zero points."""
    must((factors != 0).all(), "factors must not be 0", 0)
    lowest = int(factors.min(initial=1)) * metadata.limits.low  # codes reach one further down than up
    must(lowest <= 127, "factors times codes must fit int8", lowest)


def _rights(parts: dict[str, Array], metadata: Metadata) -> dict[tuple[int, ...], Right]:
    """The packed matrices by batch index."""
    assert metadata.k_segments is not None
    tiles, sums, beside = parts["tiles"], parts.get("sums"), parts.get("groups")
    form = TileFormat(metadata.bits, metadata.grouped)
    rights = {}
    for index in np.ndindex(metadata.shape[:-2]):
        groups = None if beside is None else beside[index]
        if groups is not None:
            _check_groups(groups, metadata)
        total = None if sums is None else sums[index][None]
        size = metadata.group or 0 if metadata.grouped else 0
        rights[index] = Right(tiles[index].reshape(-1), metadata.k_segments, metadata.n, form, total, groups, size)
    return rights


def _check_groups(packed: Array, metadata: Metadata) -> None:
    """That factors and shifts are those of some integer scales and zero points."""
    assert metadata.k_segments is not None
    assert metadata.group is not None
    k, n, size, limits = metadata.k_segments.k, metadata.n, metadata.group, metadata.limits
    count = -(-k // size)
    for first, part in _by_bytes(packed):
        columns = min(16 * len(part), n - 16 * first)
        factors = part[:, :count, 0].swapaxes(0, 1).reshape(count, -1)[:, :columns]
        lowest, highest = int(factors.min()), int(factors.max())
        most = largest_factor(metadata.bits)
        must(lowest > 0 and highest <= most, f"factors in groups must be from 1 to {most}", (lowest, highest))
        scales = GroupScales.unpacked(part, size, count, columns, limits)
        whole = scales.zero is None or int(scales.zero.max()) <= limits.high
        _check_factors(scales.scale, metadata)
        must(
            whole and np.array_equal(scales.packed(limits, metadata.k_segments), part),
            "shifts in groups must be 128 - factor * zero point, and 0 beyond the matrix",
            "others",
        )


def _by_bytes(packed: Array) -> Iterator[tuple[int, Array]]:
    """Blocks in runs of about :data:`CHECKED` bytes, and the number of the first."""
    step = max(1, CHECKED // max(1, packed[0].nbytes))
    for first in range(0, len(packed), step):
        yield first, packed[first : first + step]


def _dtype(name: str) -> np.dtype[Any]:
    """The logical type; bfloat16 is known to NumPy once its package is imported."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def load(path: str | os.PathLike[str], mmap: bool = True) -> QArray:
    """Open a quantized array that :meth:`fastq.QArray.save`, or ``fastq.quantize(..., out=path)``, has written.

    Parameters
    ----------
    path : path
        The folder.
    mmap : bool
        Map the files into memory: codes are then read as products need them, the system keeps them as long as there is
        room, and all processes that use them share that memory. The files must stay as they are in the meantime:
        cutting one short ends the process. False: read everything now.

    Returns
    -------
    QArray
        It is packed for ``x @ q``, or for ``x @ q.T`` where that was the use it was saved for.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file is missing in it.
    NotADirectoryError
        If it is a file, such as ``np.save`` writes.
    ValueError
        If a file is cut short or not of this form, or the files do not belong together.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> documents = np.random.default_rng(0).standard_normal((1000, 64), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fq.quantize(documents, bits=3, axis=-1, out=f"{folder}/documents")
    ...     q = fq.load(f"{folder}/documents")
    ...     (documents[:2] @ q.T).argmax(axis=1)
    QArray(shape=(1000, 64), 3 bits, symmetric, axis=1, dtype=float32, 31.5 KiB)
    array([0, 1])
    """
    arrays, attributes = read(path, mmap)
    try:
        return put_together(arrays, attributes)
    except ValueError as error:
        raise ValueError(f"{Path(path)} holds no quantized array that is whole: {error}") from error
