"""Files of safetensors: a header that names arrays, and their bytes.

    8 bytes   n, the length of the header, little-endian
    n bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
              "__metadata__": {"key": "text"}}, padded with spaces
    the rest  the arrays, C-contiguous and little-endian; offsets count from here

The arrays lie side by side, without holes, and fill the rest. This is the format of safetensors 0.8, whose library,
too, refuses files that break these rules. What it allows and fastq cannot read is an error of that array alone.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array, Bytes, of_bfloat16
from fastq.formats.documents import LARGEST, Pairs, parsed
from fastq.formats.entries import Entry

METADATA = "__metadata__"
FIELDS = ("dtype", "shape", "data_offsets")
TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
BFLOAT16 = "BF16"
FLOATS8 = {  # by their names in ml_dtypes
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
BITS = {  # of an element
    **{name: 8 * np.dtype(kind).itemsize for name, kind in TYPES.items()},
    **dict.fromkeys(FLOATS8, 8),
    BFLOAT16: 16,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
LARGEST_SIZE = 2**63 - 1  # of an axis, and of an array
MOST_AXES = 64  # that NumPy has


class Tensor(NamedTuple):
    """What the header says of an array."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # in the file
    end: int


def recognizes(file: Bytes) -> bool:
    """Whether a file begins as one of safetensors does, even if it is cut short."""
    return file.size > 8 and file.data[8] == ord("{") and file.integer("header", 0, 8) < 2**48


def entries(file: Bytes) -> dict[str, Entry]:
    """The arrays of a file; without a copy where they are not of bfloat16."""
    return contents(file)[0]


def contents(file: Bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """The arrays and the texts of a file."""
    tensors, texts = header(file)
    return {name: _entry(file, name, tensor) for name, tensor in tensors.items()}, texts


def header(file: Bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the header says of arrays, and the texts, checked."""
    place = "header"
    length = file.integer(place, 0, 8)
    if length > min(LARGEST, file.size - 8):
        file.fail(place, f"it should have {length} bytes; the file has {file.size}, and a header at most {LARGEST}")
    try:
        fields = parsed(file.raw(place, 8, length), _distinct)
    except ValueError as error:
        file.fail(place, f"it must be a JSON object: {error}")
    texts = {} if (given := fields.pop(METADATA, None)) is None else given  # MLX writes null
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        file.fail(METADATA, "it must hold texts by name")
    tensors = {name: _tensor(file, name, field, 8 + length) for name, field in fields.items()}
    _check_places(file, tensors, 8 + length)
    return tensors, texts


def _distinct(pairs: Pairs) -> dict[str, Any]:
    """An object, none of whose names occurs twice, or is half a character."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it has a name twice")
    for name in fields:
        name.encode()
    return fields


def _tensor(file: Bytes, name: str, field: Any, start: int) -> Tensor:
    place = f"array {shown(name)}"
    if not isinstance(field, dict) or not field.keys() >= set(FIELDS):
        file.fail(place, f"the header must give it {', '.join(FIELDS)}, got {shown(field)}")
    dtype, shape, offsets = map(field.__getitem__, FIELDS)
    if not isinstance(dtype, str):
        file.fail(place, f"dtype must be a text, got {shown(dtype)}")
    for word, lengths in (("shape", shape), ("data_offsets", offsets)):
        whole = isinstance(lengths, list) and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in lengths)
        if not whole:
            file.fail(
                place, f"{word} must be a list of integers, none negative or above 2**63 - 1, got {shown(lengths)}"
            )
    if len(shape) > MOST_AXES or prod(max(n, 1) for n in shape) * 8 > LARGEST_SIZE:
        file.fail(place, f"no array of NumPy has the shape {shown(shape)}")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= file.size - start:
        bounds = f"two, in order, up to {file.size - start}, where the file ends"
        file.fail(place, f"data_offsets must be {bounds}, got {shown(offsets)}")
    begin, end = offsets
    if dtype in BITS and prod(shape) * BITS[dtype] != (end - begin) * 8:
        file.fail(
            place, f"{dtype} of shape {shown(shape)} takes {prod(shape) * BITS[dtype]} bits, not {end - begin} bytes"
        )
    return Tensor(dtype, tuple(shape), start + begin, start + end)


def _check_places(file: Bytes, tensors: dict[str, Tensor], start: int) -> None:
    """That arrays lie side by side, up to the end of the file."""
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.begin != end:
            problem = "it must begin where the array before it ends"
            file.fail(f"array {shown(name)}", f"{problem}, at {end - start}, not at {tensor.begin - start}")
        end = tensor.end
    if end != file.size:
        file.fail("header", f"its arrays end at byte {end}, and the file at {file.size}")


def _entry(file: Bytes, name: str, tensor: Tensor) -> Entry:
    kind = np.dtype(TYPES[tensor.dtype]).name if tensor.dtype in TYPES else FLOATS8.get(tensor.dtype, tensor.dtype)
    kind = "bfloat16" if kind == BFLOAT16 else kind
    return Entry(tensor.shape, kind, tensor.end - tensor.begin, partial(_read, file, name, tensor))


def _read(file: Bytes, name: str, tensor: Tensor) -> Array:
    place = f"array {shown(name)}"
    if tensor.dtype in TYPES:
        return file.array(place, tensor.begin, TYPES[tensor.dtype], tensor.shape)
    if tensor.dtype == BFLOAT16:
        return of_bfloat16(file.array(place, tensor.begin, "<u2", tensor.shape))
    if tensor.dtype not in FLOATS8:
        file.fail(
            place, f"NumPy has no type for {shown(tensor.dtype)}: fastq reads {', '.join((*TYPES, BFLOAT16, *FLOATS8))}"
        )
    if not find_spec("ml_dtypes"):
        file.fail(place, f"{tensor.dtype} needs ml_dtypes: pip install ml_dtypes")
    import ml_dtypes

    kind = getattr(ml_dtypes, FLOATS8[tensor.dtype], None)
    if kind is None:
        file.fail(place, f"{tensor.dtype} needs a newer ml_dtypes, with {FLOATS8[tensor.dtype]}")
    return file.array(place, tensor.begin, kind, tensor.shape)
