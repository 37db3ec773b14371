"""fastq's own files: safetensors, in which quantized arrays are several plain ones, and a text says which.

A quantized array is written as the arguments of :func:`fastq.from_parts`, each under its name and a suffix.

=========== ====== ====================================================================================
suffix      type   is
=========== ====== ====================================================================================
codes       int32  the dense bit stream along the axis, or along the last one without an axis
scale       floats of the logical type where that is exact, else of float32 or float64 *
zero_point  uint8  of asymmetric arrays
offset      floats of affine arrays, and of scale's type
group_scale int8   integer scales of groups
balance     floats factors by channel
order       int64  the places of codes along the axis
=========== ====== ====================================================================================

(* Of affine arrays, the type that the equation is computed in.)

The suffix stands behind a dot. But an array that compressed-tensors' ``pack-quantized`` (version 0.20) has, too, has
the names of that library: ``*.weight_packed``, ``*.weight_scale``, ``*.weight_shape``, and ``*.weight_zero_point``,
which is the bit stream of int32 along N. That is a matrix called ``*.weight`` with scales along its last axis, in whole
groups, or with one scale, if symmetric; and with none of the last four rows. A 0-D array has a code of one byte.

Codes and zero points in bit streams count from 0. Code i takes the bits ``i * bits`` to ``i * bits + bits - 1`` of the
stream, and bit j of the stream is bit ``j % 32`` of word ``j // 32``. Symmetric codes are stored as
``code + 2**(bits - 1)``.

The text "fastq" in the metadata of the file is JSON: an object with "version", 1, and "arrays", which has an object for
each quantized array by name: "shape", "dtype" (the logical type), "bits", "scheme", "axis", "group_size", "rotation",
"activations", and "parts", the names in the file by suffix. Arrays of the file that are no parts are plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import FileFormatError, shown
from fastq.formats.documents import parsed
from fastq.formats.entries import Entry
from fastq.formats.writer import Tensor
from fastq.layout.bitstream import pack_bits, unpack_bits
from fastq.layout.tiles import ceil_div
from fastq.qarray.build import from_parts
from fastq.storage import metadata
from fastq.storage.metadata import Metadata

Array = npt.NDArray[Any]

KEY, VERSION = "fastq", 1  # of the text in the metadata; another version is another layout
WORD = 32  # bits
FLOATS = "float16", "bfloat16", "float32", "float64"
FIELDS = "shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation", "activations"
MOST_AXES, MOST = 64, 2**63 // 8 - 1  # that an array of float64 can have: axes, elements


class Form(NamedTuple):
    """What is known of a quantized array without its data, and so of its parts in a file."""

    metadata: Metadata
    floats: str  # the type of scale and offset
    balance: str | None = None  # that of balance, if there is one
    ordered: bool = False

    def of_others(self, name: str) -> bool:
        """Whether compressed-tensors has such an array."""
        shape, spec = self.metadata.shape, self.metadata.spec
        rare = spec.integer or spec.scheme == "affine" or self.balance is not None or self.ordered
        if not name.endswith(".weight") or len(shape) != 2 or 0 in shape or rare:
            return False
        return shape[1] % (spec.group or 1) == 0 if spec.axis == 1 else spec.axis is None and spec.scheme == "symmetric"

    def parts(self, name: str) -> dict[str, Tensor]:
        """Name, type and shape in the file of each part of an array of this name."""
        shape, spec, others = self.metadata.shape, self.metadata.spec, self.of_others(name)
        stored, by_group = self.metadata.arrays(), spec.parameter_shape(shape)
        words = words_shape(shape, spec.bits, -1 if spec.axis is None else spec.axis)
        found = {"codes": ("int32" if shape else "int8" if spec.limits.signed else "uint8", words)}
        found["scale"] = self.floats, (1,) if others and spec.axis is None else stored["scale"][0]
        if spec.scheme == "asymmetric":
            found["zero_point"] = ("int32", words_shape(by_group, spec.bits, 0)) if others else ("uint8", by_group)
        if spec.scheme == "affine":
            found["offset"] = self.floats, stored["offset"][0]
        if spec.integer:
            found["group_scale"] = "int8", by_group
        if self.balance is not None:
            found["balance"] = self.balance, stored["balance"][0]
        if self.ordered and spec.axis is not None:
            found["order"] = "int64", (shape[spec.axis],)
        if others:
            found["shape"] = "int64", (2,)
        sign, words_of = ("_", {"codes": "packed"}) if others else (".", {})
        return {
            part: Tensor(f"{name}{sign}{words_of.get(part, part)}", kind, lengths)
            for part, (kind, lengths) in found.items()
        }

    def nbytes(self, name: str) -> int:
        """Bytes of all parts."""
        return sum(tensor.nbytes for tensor in self.parts(name).values())

    def record(self, name: str) -> dict[str, Any]:
        """What the text of the file says of an array of this name."""
        known = {"activations": self.metadata.activations, **self.metadata.attributes()}
        return {field: known[field] for field in FIELDS} | {"parts": {k: t.name for k, t in self.parts(name).items()}}


def words_shape(shape: tuple[int, ...], bits: int, axis: int) -> tuple[int, ...]:
    """The shape of codes of this shape as words of their bit stream along an axis."""
    if not shape:
        return shape
    axis %= len(shape)
    return (*shape[:axis], ceil_div(shape[axis] * bits, WORD), *shape[axis + 1 :])


def entries(tensors: Mapping[str, Entry], text: str, path: str) -> dict[str, Entry]:
    """The arrays of a file, whose parts these tensors are and whose text "fastq" this is."""
    place = f"{path}: __metadata__.{KEY}"
    try:
        document = parsed(text.encode())
        version, records = document.get("version"), document.get("arrays")
        if version != VERSION:
            raise ValueError(f"version must be {VERSION}, which this fastq reads; got {shown(version)}")
        if not isinstance(records, dict):
            raise ValueError(f"arrays must be an object; got {shown(records)}")
    except ValueError as error:
        raise FileFormatError(f"{place}: {error}") from None
    found, left = dict[str, Entry](), dict(tensors)
    for name, record in records.items():
        try:
            form = _form(name, record, tensors)
            parts = {part: left.pop(tensor.name) for part, tensor in form.parts(name).items()}
        except KeyError as error:
            raise FileFormatError(f"{place}: array {shown(name)}: part {error} must be its own") from None
        except ValueError as error:
            raise FileFormatError(f"{place}: array {shown(name)}: {error}") from None
        found[name] = _entry(name, form, parts, path)
    for name in found.keys() & left.keys():
        raise FileFormatError(f"{place}: array {shown(name)}: there must be no plain array of this name, too")
    return left | found


def _form(name: str, record: Any, tensors: Mapping[str, Entry]) -> Form:
    """The form of an array; ValueError if the record is wrong."""
    if not isinstance(record, dict) or not record.keys() >= {*FIELDS, "parts"}:
        raise ValueError(f"it must have {', '.join(FIELDS)} and parts; got {shown(record)}")
    names = record["parts"]
    if not isinstance(names, dict) or not all(
        isinstance(tensor, str) and tensor in tensors for tensor in names.values()
    ):
        raise ValueError(f"parts must be names of arrays in this file; got {shown(names)}")
    stored = ["factors"] if "group_scale" in names else []
    meta = metadata.parsed({**record, "fastq": metadata.VERSION, "flipped": False, "cuts": None}, dict.fromkeys(stored))
    if len(meta.shape) > MOST_AXES or prod(max(1, n) for n in meta.shape) > MOST:
        raise ValueError(f"no array of NumPy has the shape {shown(meta.shape)}")
    kinds = [tensors[names[part]].kind if part in names else None for part in ("scale", "balance")]
    if not {*kinds} <= {None, *FLOATS}:
        raise ValueError(f"scale and balance must be floats; got {kinds}")
    form = Form(meta, kinds[0] or "float32", kinds[1], "order" in names)
    wanted = {part: tensor.name for part, tensor in form.parts(name).items()}
    if names != wanted:
        raise ValueError(f"parts must be {wanted} for this form; got {shown(names)}")
    return form


def _entry(name: str, form: Form, parts: dict[str, Entry], path: str) -> Entry:
    meta, group = form.metadata, form.metadata.spec.group
    kind = f"{meta.spec.bits} bits" + ("" if group is None else f", groups of {group}")
    nbytes = sum(entry.nbytes for entry in parts.values())
    return Entry(meta.shape, kind, nbytes, partial(_read, name, form, parts, f"{path}: array {shown(name)}"))


def _read(name: str, form: Form, parts: dict[str, Entry], place: str) -> Any:
    """Put an array together."""
    meta = form.metadata
    if "bfloat16" in (meta.dtype, form.floats, form.balance) and not find_spec("ml_dtypes"):
        raise FileFormatError(f"{place}: its bfloat16 needs ml_dtypes: pip install ml_dtypes")
    for part, tensor in form.parts(name).items():
        entry = parts[part]
        if (entry.kind, entry.shape) != (tensor.kind, tensor.shape):
            was = f"{entry.kind} {shown(entry.shape)}"
            raise FileFormatError(f"{place}: {part}: it must be {tensor.kind} {shown(tensor.shape)}; got {was}")
    arrays = {part: entry.read() for part, entry in parts.items()}
    spec, shape = meta.spec, meta.shape
    if "shape" in arrays and tuple(arrays.pop("shape").tolist()) != shape:
        raise FileFormatError(f"{place}: shape: it must be {shape}")
    if form.of_others(name):
        by_group = spec.parameter_shape(shape)
        arrays["scale"] = arrays["scale"].reshape(by_group)
        if "zero_point" in arrays:
            arrays["zero_point"] = from_words(arrays["zero_point"], spec.bits, by_group, 0)
    try:
        return from_parts(
            **arrays, bits=spec.bits, axis=spec.axis, group_size=spec.group, packed=bool(shape), shape=shape,
            rotation=spec.rotation, dtype=meta.dtype, activations=meta.activations,  # type: ignore[arg-type]
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{place}: {error}") from None


def to_words(codes: Array, bits: int, axis: int, lowest: int = 0) -> Array:
    """Codes as int32 words of their bit stream along an axis, counted from the lowest."""
    axis %= codes.ndim
    if axis < codes.ndim - 1:
        return _across(codes, bits, axis, lowest)
    words = np.zeros((*codes.shape[:-1], ceil_div(codes.shape[-1] * bits, WORD) * WORD // 8), np.uint8)
    from_zero, start = codes.view(np.uint8), np.uint8(-lowest)  # a sum wraps around: the lowest code is 0
    if bits == 8:
        np.add(from_zero, start, out=words[..., : codes.shape[-1]])
    else:
        streams = pack_bits(np.add(from_zero, start, order="C"), bits)
        words[..., : streams.shape[-1]] = streams
    return words.view("<i4")


def _across(codes: Array, bits: int, axis: int, lowest: int) -> Array:
    """The same along an axis that is not the last: words beside each other are made at once."""
    lines = np.moveaxis(codes, axis, 0)
    words = np.zeros((ceil_div(len(lines) * bits, WORD), *lines.shape[1:]), np.uint32)
    for code in range(min(WORD, len(lines))):  # as many codes as a word has bits are whole words
        some = lines[code::WORD].astype(np.uint32)
        some += np.uint32(-lowest)  # wraps around
        word, shift = divmod(code * bits, WORD)
        if shift + bits > WORD:
            words[word + 1 :: bits][: len(some)] |= some >> np.uint32(WORD - shift)
        some <<= np.uint32(shift)
        words[word::bits][: len(some)] |= some
    return np.moveaxis(words.view(np.int32).astype("<i4", copy=False), 0, axis)


def from_words(words: Array, bits: int, shape: tuple[int, ...], axis: int) -> Array:
    """Unsigned codes of this shape from their bit stream along an axis."""
    lines = np.ascontiguousarray(np.moveaxis(words, axis, -1))
    return np.moveaxis(unpack_bits(lines.view(np.uint8), bits, shape[axis]), -1, axis)
