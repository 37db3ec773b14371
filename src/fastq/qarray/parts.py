"""A quantized array as plain arrays and a few attributes, and back: for files, for other stores, for pickles.

Matrices are stored packed, in the form that products read. So they are multiplied where they lie, in memory or in a
memory map. :mod:`fastq.layout.tiles` says what K, N and tiles are. A matrix that is not packed yet is packed along the
axis that shares a scale: for ``x @ q.mT`` (`flipped`) if that is the last axis, else for ``x @ q``. Only a pickle keeps
the codes of such a matrix as they are.

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
order      1, but for the axis                          int64    arrays whose codes lie in an order of their own
========== ============================================ ======== ====================================================

(* uint8, unless symmetric; floats are float32 or float64.) Attributes are JSON values: `fastq` (the version of this
form, 1), `shape`, `dtype`, `bits`, `scheme`, `axis`, `group_size`, `rotation`, `flipped`, and `cuts`, the length of the
segments that K is cut into (:class:`fastq.layout.tiles.Segments`), null where nothing is packed; and `activations`,
where they are not "row"; and `narrow`, true for affine arrays whose scale and offset are of the logical type, if that
has 16 bits: numbers are computed in it.
"""

from __future__ import annotations

import copyreg
import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.groups import GroupScales, by_column
from fastq.engine.memory import aligned_copy
from fastq.engine.operands import INT32_MAX, Right
from fastq.engine.store import Store
from fastq.layout.tiles import BLOCK, TileFormat, ceil_div
from fastq.qarray.apart import take_apart
from fastq.qarray.array import QArray
from fastq.scheme import CodeRange, largest_factor
from fastq.storage.files import read
from fastq.storage.metadata import NAMES, Metadata, must, parsed

__all__ = ["load", "put_together", "take_apart"]

Array = npt.NDArray[Any]
CHECKED = 1 << 20  # bytes of groups that are checked at a time


def put_together(arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> QArray:
    """A quantized array from the arrays and attributes that :func:`take_apart` gives.

    Arrays are not copied, be they memory maps or read-only; but tiles are, if they do not begin at a cache line (64
    bytes). Everything is checked but the tiles, which are not read: any bytes are codes.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        By the names in :mod:`fastq.qarray.parts`; all but codes C-contiguous. They must not change as long as the
        result is in use.
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
    form = parsed(attributes, arrays)
    spec, shapes = form.spec, form.arrays()
    needed = set(shapes) - {"sums"} - (set() if spec.rotation > 1 else {"balance"})
    must(
        needed <= set(arrays) <= set(shapes),
        f"arrays must be those of this form, {', '.join(n for n in NAMES if n in shapes)}",
        ", ".join(map(str, arrays)),
    )
    parts = {name: _checked(name, arrays[name], *shapes[name]) for name in arrays}
    _check_values(parts, form)
    scales = None
    if "factors" in parts:
        assert spec.group is not None
        scales = GroupScales(spec.group, parts["factors"], parts.get("zeros"))
    if form.k_segments is None:
        store = Store(parts["codes"], spec.limits, spec.bits, scales)
    else:
        groups_shape = spec.parameter_shape(form.shape) if form.grouped else None
        rights = _rights(parts, form)
        store = Store.of_packed(rights, form.shape, spec.limits, form.transposed, scales, groups_shape)
    order = parts.get("order")
    if order is not None and order.size and np.array_equal(order.reshape(-1), np.arange(order.size)):
        order = None  # products are spared a copy
    # NumPy knows bfloat16 once its package is imported.
    dtype = importlib.import_module("ml_dtypes").bfloat16 if form.dtype == "bfloat16" else form.dtype
    if form.narrow:
        parts |= {name: _narrowed(name, parts[name], dtype) for name in ("scale", "offset")}
    parameters = parts["scale"], *map(parts.get, ("zero_point", "offset", "balance")), order
    return QArray._make(store, False, spec, parameters, dtype, form.activations)


# A pickle holds the parts, which are checked when they are put together again.
copyreg.pickle(QArray, lambda q: (put_together, take_apart(q, pack=False)))


def _checked(name: str, array: Any, shape: tuple[int, ...], types: tuple[str, ...]) -> Array:
    """An array of this shape and type that kernels can read."""
    described = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    of = isinstance(array, np.ndarray) and array.shape == shape and array.dtype in [np.dtype(t) for t in types]
    must(of, f"{name} must be an array of {' or '.join(types)} and shape {shape}", described)
    free = name == "codes"  # of any strides: kernels read them as they lie
    must(free or array.flags.c_contiguous, f"{name} must be C-contiguous", f"strides {array.strides} for {described}")
    base: Array = array.view(np.ndarray)  # without what a subclass does
    if name == "tiles":
        return aligned_copy(base)  # vectors would straddle cache lines
    return base if base.flags.aligned else base.copy()


def _check_values(parts: dict[str, Array], form: Metadata) -> None:
    """That parameters are finite, and integers in their ranges."""
    limits, factor = form.spec.limits, largest_factor(form.spec.bits)
    zeros = (0, limits.high)
    ranges = {"zero_point": zeros, "zeros": zeros, "codes": limits, "factors": (-factor, factor)}
    if form.k_segments is not None and form.k_segments.k * 255 <= INT32_MAX:
        ranges["sums"] = (0, form.k_segments.k * 255)
    for name, array in parts.items():
        if name in ("scale", "offset", "balance"):
            must(np.isfinite(array).all(), f"{name} must be finite", "NaN or infinity")
        if name == "balance":
            must((array > 0).all(), "balance must be positive", array.min(initial=1))
        if name == "order":
            whole = np.array_equal(np.sort(array, axis=None), np.arange(array.size))
            must(whole, f"order must be a permutation, each number below {array.size} once", array.reshape(-1))
        if name in ranges and array.size:
            low, high = ranges[name]
            extremes = int(array.min()), int(array.max())
            must(low <= extremes[0] and extremes[1] <= high, f"{name} must be from {low} to {high}", extremes)
    if "factors" in parts:
        _check_factors(parts["factors"], limits)
    if "offset" in parts:
        must(parts["offset"].dtype == parts["scale"].dtype, "offset must be of scale's type", parts["offset"].dtype)


def _narrowed(name: str, values: Array, dtype: Any) -> Array:
    """Parameters in the logical type."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    must(np.array_equal(narrow.astype(values.dtype), values), f"{name} must be exact in {np.dtype(dtype)}", "others")
    return narrow


def _check_factors(factors: Array, limits: CodeRange) -> None:
    """That integer scales times symmetric codes fit int8; of others, not all codes can occur under all zero points."""
    must((factors != 0).all(), "factors must not be 0", 0)
    lowest = int(factors.min(initial=1)) * limits.low  # codes reach one further down than up
    must(lowest <= 127, "factors times codes must fit int8", lowest)


def _rights(parts: dict[str, Array], form: Metadata) -> dict[tuple[int, ...], Right]:
    """The packed matrices by batch index."""
    assert form.k_segments is not None
    tile_format, size = TileFormat(form.spec.bits, form.grouped), form.spec.group or 0 if form.grouped else 0
    rights = {}
    for index in np.ndindex(form.shape[:-2]):
        sums = parts["sums"][index][None] if "sums" in parts else None
        groups = parts["groups"][index] if form.grouped else None
        if groups is not None:
            _check_groups(groups, form)
        tiles = parts["tiles"][index].reshape(-1)
        rights[index] = Right(tiles, form.k_segments, form.shape[form.n_axis], tile_format, sums, groups, size)
    return rights


def _check_groups(packed: Array, form: Metadata) -> None:
    """That factors and shifts are those of some integer scales and zero points."""
    assert form.k_segments is not None
    assert form.spec.group is not None
    size, limits, most = form.spec.group, form.spec.limits, largest_factor(form.spec.bits)
    count = ceil_div(form.k_segments.k, size)
    step = max(1, CHECKED // packed[0].nbytes)
    for first in range(0, len(packed), step):
        part = packed[first : first + step]
        columns = min(BLOCK * len(part), form.shape[form.n_axis] - BLOCK * first)
        within = by_column(part)[:, :count, :columns]
        lowest, highest = int(within[0].min()), int(within[0].max())
        must(lowest > 0 and highest <= most, f"factors in groups must be from 1 to {most}", (lowest, highest))
        scales = GroupScales.unpacked(within, size, limits)
        whole = scales.zero is None or int(scales.zero.max()) <= limits.high
        _check_factors(scales.scale, limits)
        must(
            whole and np.array_equal(scales.packed(limits, form.k_segments), part),
            "shifts in groups must be 128 - factor * zero point, and 0 beyond the matrix",
            "others",
        )


@contextmanager
def naming(place: Any) -> Iterator[None]:
    """Say in a ValueError where the arrays came from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place} holds no quantized array that is whole: {error}") from error


def load(path: str | os.PathLike[str], mmap: bool = True) -> QArray:
    """Open a quantized array that :meth:`fastq.QArray.save`, or ``fastq.quantize(..., out=path)``, has written.

    Parameters
    ----------
    path : path
        The folder.
    mmap : bool
        Map the files into memory: codes are then read as products need them, the system keeps them as long as there is
        room, and all processes that use them share that memory. The files must stay as they are in the meantime:
        cutting one short ends the process. Windows does not replace or remove them. False: read everything now.

    Returns
    -------
    QArray
        Packed for ``x @ q``, or for ``x @ q.T`` if it was saved so.

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
    ...     del q  # Windows removes no file that is mapped
    QArray(shape=(1000, 64), 3 bits, symmetric, axis=1, dtype=float32, 31.5 KiB)
    array([0, 1])
    """
    arrays, attributes = read(path, mmap)
    with naming(Path(path)):
        return put_together(arrays, attributes)
