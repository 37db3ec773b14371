"""Quantized arrays in zarr (version 3) stores: packed bytes, scales and a few attributes, read and written by chunks.

A stored array is a group. It holds the arrays of :mod:`fastq.qarray.parts`, but for the sums, and the attributes that
are described there. The attribute ``chunks`` has the lengths of the chunks along each axis: whole tiles, groups and
rotated blocks. Packed codes are uint8, uncompressed, because codes look random. Products read them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from math import lcm
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from fastq.layout.tiles import BLOCK, DEPTH, ceil_div, tile_bytes
from fastq.promotion import wide
from fastq.qarray.apart import canonical_arrays
from fastq.qarray.array import QArray
from fastq.qarray.parts import naming, put_together
from fastq.storage.metadata import NAMES, Box, Metadata, must, parsed

Lengths = Sequence[int]

__all__ = ["open", "open_dask", "save"]

CHUNK_BYTES = 8 << 20  # of codes, unless chunks are given


def save(store: Any, q: Any, *, chunks: Lengths | None = None, overwrite: bool = False) -> None:
    """Write a quantized array, or a Dask array of them, to a zarr store.

    A Dask array is computed chunk by chunk, by the scheduler in use, and each chunk is written where it belongs as soon
    as it is there.

    Parameters
    ----------
    store : path or zarr store
        Anything that ``zarr.open_group`` takes; workers in other processes need one that they can reach, as a path.
    q : QArray or DaskQArray
        Any Dask array of QArrays will do.
    chunks : sequence of int, optional
        Lengths of the stored chunks along each axis. They are rounded up to whole tiles (64 along the axis that shares
        a scale, which products sum over, and 16 along the other one of a matrix) and whole groups. By default those of
        a Dask array, or columns of about 8 MiB.
    overwrite : bool
        Replace an array that was saved there before.

    Raises
    ------
    TypeError
        If q is no quantized array.
    FileExistsError
        If the store holds an array already and `overwrite` is False, or holds something else.
    ValueError
        If chunks of a Dask array that should share a scale do not. The store holds no complete array then.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> from fastq.interop import zarr as fz
    >>> q = fq.quantize(np.eye(64), bits=3, axis=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fz.save(f"{folder}/eye.zarr", q)
    ...     fz.open(f"{folder}/eye.zarr").equals(q)
    True
    """
    meta = q if isinstance(q, QArray) else getattr(q, "_meta", None)
    if not isinstance(meta, QArray):
        raise TypeError(f"q must be a QArray, or a Dask array of them; got {type(q).__name__}")
    form = Metadata.of(meta).packed(q.shape)
    if chunks is None:
        chunks = [max(c, default=1) for c in q.chunks] if meta is not q else _columns(form)
    if len(chunks) != q.ndim or any(length < 1 for length in chunks):
        raise ValueError(f"chunks must be {q.ndim} positive lengths, one per axis; got {tuple(chunks)}")
    lengths = _whole(form, chunks)
    group = _new_group(store, overwrite)
    write = partial(_write, _create(group, form, lengths, meta), form, lengths)
    if meta is q:
        blocks = np.ndindex(*(max(1, ceil_div(n, length)) for n, length in zip(q.shape, lengths)))
        digests = [write(block, q[_box(block, lengths, q.shape)] if block else q) for block in blocks]
    else:
        import dask

        parts = q.rechunk(tuple(lengths)).to_delayed()
        digests = dask.compute(*(dask.delayed(write)(block, parts[block]) for block in np.ndindex(parts.shape)))
    _check_shared(digests)
    group.update_attributes({**form.attributes(), "chunks": lengths})


def open(store: Any) -> QArray:  # as zarr names it
    """Read a whole array that :func:`save` has written.

    Raises
    ------
    FileNotFoundError
        If there is no zarr group.
    ValueError
        If it holds no quantized array, or not all of one.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> from fastq.interop import zarr as fz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fz.save(f"{folder}/eye.zarr", fq.quantize(np.eye(64), bits=3, axis=0))
    ...     fz.open(f"{folder}/eye.zarr").bits
    3
    """
    group, form, _ = _opened(store)
    return _read(group, form, tuple(slice(0, n) for n in form.shape))


def open_dask(store: Any, chunks: Any = None) -> Any:
    """Open an array that :func:`save` has written as a Dask array, whose chunks are read when they are needed.

    Parameters
    ----------
    store : path or zarr store
        As :func:`save` took it.
    chunks : as of ``dask.array.from_array``, optional
        Rounded up to whole tiles and groups, as those of :func:`save`; by default the chunks that were stored.

    Returns
    -------
    fastq.interop.dask.DaskQArray

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`open`. Wrong bytes of a chunk are found when it is read.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> from fastq.interop import zarr as fz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     eye = fq.quantize(np.eye(64), axis=0)
    ...     fz.save(f"{folder}/eye.zarr", eye, chunks=(64, 16))
    ...     lazy = fz.open_dask(f"{folder}/eye.zarr")
    ...     lazy.chunks, (np.ones((1, 64)) @ lazy).compute().shape
    (((64,), (16, 16, 16, 16)), (1, 64))
    """
    import dask.array as da

    from fastq.interop.collection import kept, whole

    group, form, stored = _opened(store)
    units = _whole(form, [1] * len(form.shape))
    cuts = da.core.normalize_chunks(stored if chunks is None else chunks, form.shape, dtype=np.int8)
    cuts = tuple(map(whole, cuts, units))
    ends = [(0, *np.cumsum(c).tolist()) for c in cuts]
    meta = _read(group, form, _box([0] * len(units), units, form.shape))
    name = f"zarr-qarray-{uuid4().hex}"  # the store may hold another array the next time
    work = partial(_read_block, group, form, ends)
    return kept(da.map_blocks(work, chunks=cuts, dtype=meta.dtype, meta=meta, name=name))


# Chunks


def _whole(form: Metadata, lengths: Lengths) -> list[int]:
    """Lengths rounded up to whole tiles, groups and rotated blocks, and no longer than the array."""
    units = [1] * len(form.shape)
    if form.k_segments is not None:
        units[form.k_axis], units[form.n_axis] = DEPTH if form.k_segments.gapless else form.k_segments.k, BLOCK
    if (axis := form.spec.axis) is not None:
        units[axis] = lcm(units[axis], form.spec.group or 1, form.spec.rotation)
        if form.ordered:
            units[axis] = max(1, form.shape[axis])
    return [min(ceil_div(length, unit) * unit, max(1, n)) for length, unit, n in zip(lengths, units, form.shape)]


def _columns(form: Metadata) -> list[int]:
    """Chunks that hold K, and as much of N as :data:`CHUNK_BYTES` of packed codes are."""
    lengths = [max(1, n) for n in form.shape]
    if form.k_segments is not None:
        lengths[:-2] = [1] * (len(lengths) - 2)
        block_bytes = form.k_segments.tiles * tile_bytes(form.spec.bits)
        lengths[form.n_axis] = max(1, CHUNK_BYTES // block_bytes) * BLOCK
    return lengths


def _box(block: Lengths, lengths: Lengths, shape: Lengths) -> Box:
    """The elements of a chunk."""
    return tuple(slice(i * length, min((i + 1) * length, n)) for i, length, n in zip(block, lengths, shape))


# Writing


def _new_group(store: Any, overwrite: bool) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="w-")
    except (ContainsArrayError, ContainsGroupError, FileExistsError):
        pass
    if not overwrite:
        raise FileExistsError(f"store must not exist yet, or be overwritten with overwrite=True; got {store}")
    if "fastq" not in zarr.open(store, mode="r").attrs:
        raise FileExistsError(
            f"store must be free, or hold what fastq has saved, which alone is overwritten; got {store}"
        )
    return zarr.open_group(store, mode="w")


def _create(group: zarr.Group, form: Metadata, lengths: Lengths, q: QArray) -> dict[str, Any]:
    """Make the arrays; a stored chunk belongs to one chunk of the quantized array, so writers never meet."""
    arrays, floats = {}, wide(q.scale).dtype
    for name, (shape, types) in form.arrays().items():
        if name == "sums" or (name == "balance" and q.balance is None):
            continue
        cuts = [max(1, n) for n in shape]
        for i, (axis, step) in enumerate(form.entries(name)):
            if lengths[axis] < form.shape[axis]:
                cuts[i] = ceil_div(lengths[axis], step)
        arrays[name] = group.create_array(
            name, shape=shape, dtype=floats if name in ("scale", "offset") else types[0], chunks=tuple(cuts),
            compressors=None, filters=None, fill_value=0,
            config={"write_empty_chunks": True},  # a chunk that is not there is missing
        )  # fmt: skip
    return arrays


def _write(
    arrays: Mapping[str, Any], form: Metadata, lengths: Lengths, block: tuple[int, ...], part: QArray
) -> dict[Any, str]:
    """Write the arrays of a chunk. What several chunks share is written by the first; all give its digest."""
    digests = {}
    cut = {axis for axis, length in enumerate(lengths) if length < form.shape[axis]}
    for name, values in canonical_arrays(part).items():
        shared = cut - {axis for axis, step in form.entries(name) if step < form.shape[axis]}
        first = tuple(0 if axis in shared else i for axis, i in enumerate(block))
        if first == block:
            arrays[name][form.place(name, _box(block, lengths, form.shape), values.shape)] = values
        if shared:
            digests[name, first] = blake2b(values.tobytes(), digest_size=16).hexdigest()
    return digests


def _check_shared(chunks: Sequence[Mapping[Any, str]]) -> None:
    """That the digests of chunks agree about what they share."""
    known: dict[Any, str] = {}
    for digests in chunks:
        for key, digest in digests.items():
            if known.setdefault(key, digest) != digest:
                raise ValueError(
                    f"chunks along an axis that shares {key[0]} must have the same, because it is stored once; got "
                    "different ones, as of arrays that were quantized apart: quantize them as one"
                )


# Reading


def _opened(store: Any) -> tuple[zarr.Group, Metadata, tuple[int, ...]]:
    """A stored array, its form, and the lengths of its chunks; all but the bytes is checked."""
    try:
        group = zarr.open(store, mode="r")
    except FileNotFoundError:
        raise FileNotFoundError(f"store must hold a zarr group that fastq has saved; got nothing at {store}") from None
    if not isinstance(group, zarr.Group):
        raise ValueError(f"store must hold a zarr group that fastq has saved; got an array at {store}")
    attributes = dict(group.attrs)
    if "fastq" not in attributes:
        raise ValueError(
            f"store must hold an array that fastq has saved, whose attributes are written last; got {store} without: "
            "it is another group, or not complete"
        )
    with naming(store):
        arrays = {name: array for name, array in group.arrays() if name in NAMES}
        form = parsed(attributes, arrays)
        stored = attributes.get("chunks")
        lengths = stored if isinstance(stored, list) and all(type(n) is int for n in stored) else []
        usual = form == form.packed() and len(lengths) == len(form.shape) and lengths == _whole(form, lengths)
        must(usual, "flipped, cuts and chunks must be as fastq writes them", str(attributes))
        _check_arrays(arrays, form)
    return group, form, tuple(lengths)


def _check_arrays(arrays: Mapping[str, Any], form: Metadata) -> None:
    """That all arrays are there, with all their chunks: zarr would fill missing ones with zeros."""
    for name, (shape, _) in form.arrays().items():
        if name not in arrays:
            if name == "sums" or (name == "balance" and form.spec.rotation == 1):
                continue
            raise ValueError(f"{name} must be there; it is missing")
        array = arrays[name]
        must(array.shape == shape, f"{name} must have shape {shape}", str(array.shape))
        if missing := array.nchunks - array.nchunks_initialized:
            raise ValueError(f"{name} must have all its chunks; {missing} of {array.nchunks} are missing")


def _read(group: zarr.Group, form: Metadata, box: Box) -> QArray:
    """The elements of a box."""
    part = form.packed(tuple(s.stop - s.start for s in box))
    with naming(group.store_path):
        arrays = {
            name: np.asarray(group[name][form.place(name, box, shape)])
            for name, (shape, _) in part.arrays().items()
            if name != "sums" and name in group
        }
        return put_together(arrays, part.attributes())


def _read_block(group: zarr.Group, form: Metadata, ends: Sequence[Lengths], block_id: tuple[int, ...]) -> QArray:
    """A chunk."""
    return _read(group, form, tuple(slice(e[i], e[i + 1]) for e, i in zip(ends, block_id)))
