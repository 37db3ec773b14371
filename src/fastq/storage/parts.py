"""A quantized array as plain arrays and a few attributes, and back: for files, for other stores, for pickles.

Matrices are taken apart packed, as products read them, so that what is put together again, from a memory map as well as
from memory, is multiplied as it lies there. What K, N and tiles are is said in :mod:`fastq.layout.tiles`; one that is
not packed yet is packed along the axis that shares a scale: for ``x @ q.mT`` (`flipped`) if that is the last one, else
for ``x @ q``. Pickles, which are made to come back as they were, hold the codes of such an array instead.

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
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.arguments import LARGEST_BLOCK
from fastq.engine.groups import Factors
from fastq.engine.memory import aligned_copy
from fastq.engine.prepack import INT32_MAX, Right
from fastq.engine.store import Scales, Store
from fastq.layout.tiles import Form, segments
from fastq.messages import shown
from fastq.qarray.array import QArray
from fastq.quant import groups
from fastq.scheme import MAX_BITS, MIN_BITS, SCHEMES, largest_factor
from fastq.storage.outline import FLOATS, NAMES, VERSION, Outline, take_apart

__all__ = ["put_together", "take_apart"]

Array = npt.NDArray[Any]
LOGICAL = ("float16", "bfloat16", *FLOATS)
CHECKED = 1 << 20  # bytes of groups that are looked at at a time


def put_together(arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> QArray:
    """A quantized array from what :func:`take_apart` made of one.

    Arrays are used as they are, memory maps and read-only ones included, but for tiles that do not begin at a cache
    line (64 bytes): those are copied. Everything is checked but the tiles, which are not read: any bytes are codes.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        By the names in :mod:`fastq.storage.parts`; C-contiguous. They must not change as long as the result is in use.
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
    >>> from fastq.storage.parts import put_together, take_apart
    >>> q = fq.quantize(np.eye(3), bits=3, axis=0)
    >>> arrays, attributes = take_apart(q)
    >>> {name: array.shape for name, array in arrays.items()}
    {'tiles': (1, 1, 384), 'sums': (16,), 'scale': (1, 3)}
    >>> put_together(arrays, attributes).equals(q)
    True
    """
    _must(isinstance(arrays, Mapping), "arrays must be a mapping of names to arrays", type(arrays).__name__)
    outline = _outline(attributes, arrays)
    wanted = outline.arrays()
    needed = set(wanted) - {"sums"} - (set() if outline.rotation > 1 else {"balance"})
    _must(
        needed <= set(arrays) <= set(wanted),
        f"arrays must be those of this form, {', '.join(n for n in NAMES if n in wanted)}",
        ", ".join(map(str, arrays)),
    )
    parts = {name: _checked(name, arrays[name], *wanted[name]) for name in arrays}
    _check_values(parts, outline)
    scales = None
    if "factors" in parts:
        assert outline.group is not None
        scales = Scales(outline.group, parts["factors"], parts.get("zeros"))
    if outline.cuts is None:
        store = Store(parts["codes"], outline.limits, outline.bits, scales)
    else:
        rights = _rights(parts, outline)
        grid = groups_shape = None
        if outline.grouped:
            grid = outline._replace(grouped=False).arrays()["factors"][0]
            groups_shape = grid
        store = Store.of_packed(rights, outline.shape, outline.limits, outline.flipped, scales, groups_shape)
    parameters = parts["scale"], parts.get("zero_point"), parts.get("offset")
    rest = outline.scheme, outline.axis, outline.group, parameters, _dtype(outline.dtype), parts.get("balance")
    return QArray._make(store, False, *rest, outline.rotation)


def _reduced(q: QArray) -> tuple[Any, ...]:
    """What pickle keeps of an array: its parts, which are checked when they are put together again."""
    return put_together, take_apart(q, pack=False)


copyreg.pickle(QArray, _reduced)


def _must(holds: Any, rule: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {got if isinstance(got, str | np.dtype | np.generic) else shown(got)}")


def _one_of(value: Any, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _outline(attributes: Mapping[str, Any], names: Mapping[str, Array]) -> Outline:
    """The form that attributes tell of, checked."""
    wanted = Outline((), "", 8, "", None, None, 1, False).attributes()
    _must(
        isinstance(attributes, Mapping) and wanted.keys() <= attributes.keys(),
        f"attributes must be a mapping with {', '.join(wanted)}",
        ", ".join(map(str, attributes)) if isinstance(attributes, Mapping) else type(attributes).__name__,
    )
    get = attributes.__getitem__
    version = get("fastq")
    _must(_whole(version) and version == VERSION, f"attribute fastq must be {VERSION}, the form known here", version)
    shape, axis, bits, group, cuts = (get(n) for n in ("shape", "axis", "bits", "group_size", "cuts"))
    _must(
        isinstance(shape, list | tuple) and all(_whole(n) and n >= 0 for n in shape),
        "attribute shape must be a list of lengths",
        shape,
    )
    _must(_one_of(get("dtype"), LOGICAL), f"attribute dtype must be one of {', '.join(LOGICAL)}", get("dtype"))
    _must(_whole(bits) and MIN_BITS <= bits <= MAX_BITS, "attribute bits must be from 2 to 8", bits)
    _must(_one_of(get("scheme"), SCHEMES), f"attribute scheme must be one of {', '.join(SCHEMES)}", get("scheme"))
    ndim = len(shape)
    _must(axis is None or (_whole(axis) and 0 <= axis < ndim), f"attribute axis must be null or below {ndim}", axis)
    _must(
        group is None or (_whole(group) and 0 < group <= sys.maxsize and axis is not None),
        "attribute group_size must be null, or positive with an axis that is not",
        group,
    )
    rotation, flipped = get("rotation"), get("flipped")
    turns = _whole(rotation) and 0 < rotation <= LARGEST_BLOCK and rotation & (rotation - 1) == 0
    _must(
        turns and (rotation == 1 or (axis is not None and shape[axis] % rotation == 0)),
        f"attribute rotation must be a power of two that divides the axis, up to {LARGEST_BLOCK}",
        rotation,
    )
    _must(isinstance(flipped, bool), "attribute flipped must be true or false", flipped)
    integer, packed = "groups" in names or "factors" in names, "tiles" in names
    _must(
        not integer or groups.possible(bits, group, get("scheme")),
        "integer group scales need a group_size that is a multiple of 16, 2 to 7 bits, and no affine scheme",
        f"group_size={group}, bits={bits}, scheme={get('scheme')!r}",
    )
    found = Outline(tuple(shape), get("dtype"), bits, get("scheme"), axis, group, rotation, integer)
    _must(
        packed == (cuts is not None) and not (packed and (ndim < 2 or 0 in shape)),
        "tiles and cuts must come together, for arrays of two dimensions or more that are not empty",
        f"cuts={shown(cuts)} with {', '.join(names)} for shape {shape}",
    )
    if not packed:
        return found
    k = shape[-1 if flipped else -2]
    _must(_whole(cuts) and 0 < cuts <= k, f"attribute cuts must be from 1 to {k}, the length of K", cuts)
    grouped = "groups" in names
    _must(
        not grouped or (axis == ndim - (1 if flipped else 2) and cuts == k),
        "packed groups must lie along K, which is then not cut",
        f"axis={axis}, flipped={flipped}, cuts={cuts}",
    )
    return found._replace(flipped=flipped, cuts=segments(k, cuts), grouped=grouped)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked(name: str, array: Any, shape: tuple[int, ...], types: tuple[str, ...]) -> Array:
    """An array of this shape and type that kernels can read."""
    described = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    of = isinstance(array, np.ndarray) and array.shape == shape and array.dtype in [np.dtype(t) for t in types]
    _must(of, f"{name} must be an array of {' or '.join(types)} and shape {shape}", described)
    _must(array.flags.c_contiguous, f"{name} must be C-contiguous", f"strides {array.strides} for {described}")
    plain: Array = array.view(np.ndarray)  # without what a subclass does
    if name == "tiles":
        return aligned_copy(plain)  # vectors would straddle cache lines
    return plain if plain.flags.aligned else plain.copy()


def _check_values(parts: dict[str, Array], outline: Outline) -> None:
    """That parameters are numbers, and integers in their ranges."""
    high, most = outline.limits.high, largest_factor(outline.bits)
    zeros = (0, high)
    ranges = {"zero_point": zeros, "zeros": zeros, "codes": outline.limits, "factors": (-most, most)}
    if outline.cuts is not None and outline.cuts.k * 255 <= INT32_MAX:
        ranges["sums"] = (0, outline.cuts.k * 255)
    for name, array in parts.items():
        if name in ("scale", "offset", "balance"):
            _must(np.isfinite(array).all(), f"{name} must be finite", "NaN or infinity")
        if name == "balance":
            _must((array > 0).all(), "balance must be positive", array.min(initial=1))
        if name in ranges and array.size:
            low, top = ranges[name]
            found = int(array.min()), int(array.max())
            _must(low <= found[0] and found[1] <= top, f"{name} must be from {low} to {top}", found)
    if "factors" in parts:
        _check_factors(parts["factors"], outline)
    if "offset" in parts:
        _must(parts["offset"].dtype == parts["scale"].dtype, "offset must be of scale's type", parts["offset"].dtype)


def _check_factors(factors: Array, outline: Outline) -> None:
    """That integer scales times symmetric codes fit int8; of others, not all codes can occur under all zero points."""
    _must((factors != 0).all(), "factors must not be 0", 0)
    lowest = int(factors.min(initial=1)) * outline.limits.low  # codes reach one further down than up
    _must(lowest <= 127, "factors times codes must fit int8", lowest)


def _rights(parts: dict[str, Array], outline: Outline) -> dict[tuple[int, ...], Right]:
    """The packed matrices by batch index."""
    assert outline.cuts is not None
    tiles, sums, beside = parts["tiles"], parts.get("sums"), parts.get("groups")
    form = Form(outline.bits, outline.grouped)
    found = {}
    for index in np.ndindex(outline.shape[:-2]):
        mine = None if beside is None else beside[index]
        if mine is not None:
            _check_groups(mine, outline)
        total = None if sums is None else sums[index][None]
        size = outline.group or 0 if outline.grouped else 0
        found[index] = Right(tiles[index].reshape(-1), outline.cuts, outline.n, form, total, mine, size)
    return found


def _check_groups(packed: Array, outline: Outline) -> None:
    """That factors and shifts are those of some integer scales and zero points."""
    assert outline.cuts is not None
    assert outline.group is not None
    k, n, size, limits = outline.cuts.k, outline.n, outline.group, outline.limits
    count = -(-k // size)
    for first, part in _by_bytes(packed):
        columns = min(16 * len(part), n - 16 * first)
        factors = part[:, :count, 0].swapaxes(0, 1).reshape(count, -1)[:, :columns]
        lowest, highest = int(factors.min()), int(factors.max())
        most = largest_factor(outline.bits)
        _must(lowest > 0 and highest <= most, f"factors in groups must be from 1 to {most}", (lowest, highest))
        found = Factors.unpacked(part, size, count, columns, limits)
        whole = found.zeros is None or int(found.zeros.max()) <= limits.high
        _check_factors(found.factors, outline)
        _must(
            whole and np.array_equal(found.packed(limits, outline.cuts), part),
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
