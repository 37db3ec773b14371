"""Files of GGUF, versions 2 and 3: what llama.cpp reads.

    4 bytes   "GGUF"
    uint32    version
    uint64    how many tensors
    uint64    how many values
    values    name, uint32 type, value; an array is uint32 type, uint64 count, values
    tensors   name, uint32 dimensions, that many uint64 (the fastest first: NumPy's order is the reverse), uint32 type,
              uint64 offset
    padding   to a multiple of the value "general.alignment", 32 by default
    data      where offsets count from

Integers are little-endian; names and strings are a uint64 length and as many bytes of UTF-8. A tensor of blocks
(:mod:`fastq.formats.ggml_blocks`) becomes a quantized array with groups along the last axis. What is wrong with one
tensor, or not read of it, is an error of that tensor alone.

Sources: docs/gguf.md of ggml; gguf_reader.py of gguf 0.19.0.
"""

from __future__ import annotations

from functools import partial
from math import prod
from struct import Struct, error
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array, Bytes, of_bfloat16
from fastq.formats.entries import Entry
from fastq.formats.ggml_blocks import BLOCK_TYPES, FACTORS, BlockType, decode
from fastq.formats.ggml_types import BFLOAT16, PLAIN_TYPES, other
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

MAGIC, VERSIONS = b"GGUF", (2, 3)
ALIGNMENT = "general.alignment"
MOST_DIMENSIONS = 4  # that ggml has
LONGEST_NAME = 2**16 - 1
MOST_VALUES, MOST_TENSORS = 2**16, 2**20  # far above those of any model; each takes a microsecond or two
DEEPEST, MOST_ARRAYS = 4, 2**16  # of arrays in arrays, likewise

_START, _TYPE, _COUNT = Struct("<IQQ"), Struct("<I"), Struct("<Q")
_NUMBERS = {
    number: Struct(f"<{form}") for number, form in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_STRING, _ARRAY = 8, 9
_PLACES = [Struct(f"<{n}QIQ") for n in range(MOST_DIMENSIONS + 1)]  # the end of what is said of a tensor


class Tensor(NamedTuple):
    """What the header says of a tensor."""

    shape: tuple[int, ...]
    type: int
    offset: int  # in the file


def recognizes(file: Bytes) -> bool:
    """Whether a file begins as one of GGUF does."""
    return file.data[:4].tobytes() == MAGIC


def entries(file: Bytes) -> dict[str, Entry]:
    """The tensors of a file; those of blocks become quantized arrays."""
    header = _Header(file)
    tensors, values = header.start()
    alignment = header.values(values, keep=False).get(ALIGNMENT, 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        file.fail(ALIGNMENT, f"it must be a power of two, got {shown(alignment)}")
    return {name: _entry(file, name, tensor) for name, tensor in header.tensors(tensors, alignment).items()}


def metadata(file: Bytes) -> dict[str, Any]:
    """The values of a file: numbers, texts, and arrays of them (texts, and arrays in arrays, as lists)."""
    header = _Header(file)
    _, values = header.start()
    return header.values(values, keep=True)


class _Header:
    """A header, read on and on; each read is held against the file's end."""

    def __init__(self, file: Bytes) -> None:
        self.file, self.at, self.arrays = file, 0, 0
        self.bytes = file.data.view(np.ndarray)
        self.view = self.bytes.data

    def fail(self, problem: str) -> NoReturn:
        self.file.fail(f"header, byte {self.at}", problem)

    def numbers(self, form: Struct) -> tuple[Any, ...]:
        if self.at + form.size > self.file.size:
            self.fail("the file ends within it")
        self.at += form.size
        return form.unpack_from(self.view, self.at - form.size)

    def count(self, what: str, least: int) -> int:
        """How many things follow, each of which takes some bytes at least."""
        count: int = self.numbers(_COUNT)[0]
        if count * least > self.file.size - self.at:
            self.fail(f"{count} {what} do not fit into the rest of the file")
        return count

    def raw(self) -> bytes:
        length = self.count("bytes of a text", 1)
        self.at += length
        return bytes(self.view[self.at - length : self.at])

    def name(self, known: dict[str, Any]) -> str:
        """A name that is not known yet."""
        raw = self.raw()
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self.fail(f"a name must be UTF-8, got {shown(raw)}")
        if len(raw) > LONGEST_NAME or name in known:
            self.fail(f"names must differ, and have {LONGEST_NAME} bytes at most; got {shown(name)}")
        return name

    def start(self) -> tuple[int, int]:
        """The numbers of tensors and values."""
        self.at = len(MAGIC)
        version, tensors, values = self.numbers(_START)
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = f"a big-endian file of version {swapped}" if swapped in VERSIONS else f"version {version}"
            self.fail(f"fastq reads versions 2 and 3 of GGUF, little-endian; this is {what}")
        if tensors > MOST_TENSORS or values > MOST_VALUES:
            self.fail(
                f"it must have {MOST_TENSORS} tensors and {MOST_VALUES} values at most, got {tensors} and {values}"
            )
        return tensors, values

    def values(self, count: int, keep: bool) -> dict[str, Any]:
        """All values by name; unless they are kept, texts and arrays are skipped, and None."""
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self.name(found)
            found[name] = self.value(self.numbers(_TYPE)[0], keep)
        return found

    def value(self, kind: int, keep: bool) -> Any:
        if kind in _NUMBERS:
            return self.numbers(_NUMBERS[kind])[0]
        if kind == _ARRAY:
            return self.array(keep, 1)
        if kind != _STRING:
            self.fail(f"values have the types 0 to 12, got {kind}")
        return self.text() if keep else self.skip(1)

    def text(self) -> str:
        return self.raw().decode(errors="backslashreplace")  # some vocabularies have pieces of characters

    def array(self, keep: bool, depth: int) -> Any:
        kind: int = self.numbers(_TYPE)[0]
        if kind in _NUMBERS:
            form = _NUMBERS[kind]
            count, start = self.count("numbers", form.size), self.at
            self.at += count * form.size
            array = self.file.array("header", start, "u1" if form.format == "<?" else form.format, (count,))
            return (array != 0 if form.format == "<?" else array) if keep else None
        if kind == _STRING:
            count = self.count("texts", _COUNT.size)
            return [self.text() for _ in range(count)] if keep else self.skip(count)
        if kind != _ARRAY or depth == DEEPEST:
            self.fail(f"arrays hold the types 0 to 12, and are {DEEPEST} deep at most; got {kind} at depth {depth}")
        count = self.count("arrays", _TYPE.size + _COUNT.size)
        self.arrays += count
        if self.arrays > MOST_ARRAYS:
            self.fail(f"there must be {MOST_ARRAYS} arrays in arrays at most, got {self.arrays}")
        return [self.array(keep, depth + 1) for _ in range(count)]

    def skip(self, count: int) -> None:
        """Pass over texts.

        A text is found by the length of the one before. A loop takes 60 ns for each, and a vocabulary has some 100,000.
        A length below 256 is a byte before seven zeros, so NumPy finds at once where such lengths may stand in a window
        of the file. As long as each leads to the next, they are those that the loop would have found.
        """
        at, window = self.at, 2**16
        try:
            while count:
                zero = self.bytes[at : at + window] == 0
                two = zero[:-1] & zero[1:]
                four = two[:-2] & two[2:]
                places = np.flatnonzero(four[1:-3] & four[4:])
                ends = places + 8 + self.bytes[at + places]
                wrong = np.flatnonzero(ends[:-1] != places[1:])
                found = min(count, int(wrong[0]) + 1 if wrong.size else places.size)
                if found and places[0] == 0:
                    at += int(ends[found - 1])
                    count -= found
                    if found > 256:
                        continue
                for _ in range(min(count, 1024)):  # so that the window is worth its time, whatever is in it
                    at += 8 + _COUNT.unpack_from(self.view, at)[0]
                    count -= 1
        except (error, OverflowError):
            self.fail("the file ends within an array of texts")
        self.at = at

    def tensors(self, count: int, alignment: int) -> dict[str, Tensor]:
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self.name(found)
            dimensions = self.numbers(_TYPE)[0]
            if dimensions > MOST_DIMENSIONS:
                self.fail(f"array {shown(name)} must have {MOST_DIMENSIONS} dimensions at most, got {dimensions}")
            *shape, kind, offset = self.numbers(_PLACES[dimensions])
            found[name] = Tensor(tuple(reversed(shape)), kind, offset)
        start = -(-self.at // alignment) * alignment
        return {name: tensor._replace(offset=start + tensor.offset) for name, tensor in found.items()}


def _entry(file: Bytes, name: str, tensor: Tensor) -> Entry:
    place, size = f"array {shown(name)}", prod(tensor.shape)
    if tensor.type in PLAIN_TYPES:
        kind = PLAIN_TYPES[tensor.type]
        held = np.dtype("<u2" if kind == BFLOAT16 else kind)
        read = partial(_read_plain, file, place, tensor, held)
        return Entry(tensor.shape, kind if kind == BFLOAT16 else held.name, size * held.itemsize, read)
    if tensor.type in BLOCK_TYPES:
        form = BLOCK_TYPES[tensor.type]
        kind = f"{form.bits} bits, groups of {form.group} ({form.name})"
        nbytes = size // form.size * form.layout.itemsize
        return Entry(tensor.shape, kind, nbytes, partial(_read_blocks, file, place, tensor, form))
    unread = other(tensor.type)
    return Entry(
        tensor.shape,
        unread.name,
        size // unread.size * unread.nbytes,
        partial(file.fail, place, f"fastq does not read {unread.name}: {unread.reason}"),
    )


def _read_plain(file: Bytes, place: str, tensor: Tensor, held: np.dtype[Any]) -> Array:
    array = np.require(file.array(place, tensor.offset, held, tensor.shape), requirements="A")
    return of_bfloat16(array) if PLAIN_TYPES[tensor.type] == BFLOAT16 else array


def _read_blocks(file: Bytes, place: str, tensor: Tensor, form: BlockType) -> QArray:
    *rows, length = tensor.shape or (1,)
    if length % form.size or not prod(tensor.shape):
        problem = f"{form.name} must have a multiple of {form.size} elements along the last axis, and some elements"
        file.fail(place, f"{problem}, got shape {shown(tensor.shape)}")
    blocks = file.array(place, tensor.offset, form.layout, (*rows, length // form.size))
    for field in set(FACTORS).intersection(form.layout.names or ()):
        finite = np.isfinite(blocks[field])
        if not finite.all():
            first = int(np.argmin(finite))
            file.fail(place, f"factors must be finite, but {field} of block {first} is {blocks[field].flat[first]}")
    codes, scale, offset = decode(form, blocks)
    return from_parts(codes, scale, offset=offset, bits=form.bits, group_size=form.group)
