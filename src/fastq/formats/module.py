"""A module of a checkpoint whose weight lies in several tensors, and the entry that they make together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastq.errors import FileFormatError, shown
from fastq.formats.binary import Array
from fastq.formats.entries import Entry
from fastq.layout.bitstream import unpack_bits
from fastq.qarray.array import QArray

WORDS = ("int32", "uint32")
INTEGERS = (*WORDS, "int64")
FLOATS = ("float16", "bfloat16", "float32")


class Module(NamedTuple):
    """Tensors of a module, by what follows its name in theirs."""

    path: str
    prefix: str  # its name and a dot; empty for a checkpoint of one module
    tensors: Mapping[str, Entry]

    @property
    def weight(self) -> str:
        """The name of the weight, as torch has it."""
        return f"{self.prefix}weight"

    def fail(self, problem: str) -> NoReturn:
        """Raise FileFormatError."""
        raise FileFormatError(f"{self.path}: array {shown(self.weight)}: {problem}")

    def shape(self, part: str, kinds: tuple[str, ...], ndim: int | None = None) -> tuple[int, ...]:
        """The shape of a tensor, which must be there, hold something, and be of one of these types."""
        if part not in self.tensors:
            self.fail(f"it is quantized, but there is no tensor {shown(self.prefix + part)}")
        shape, kind = self.tensors[part][:2]
        if kind not in kinds or (ndim is not None and len(shape) != ndim) or 0 in shape:
            axes = "" if ndim is None else f" with {ndim} axes"
            self.fail(f"its {part} must be of {' or '.join(kinds)}{axes}, not empty; got {kind} of shape {shape}")
        return shape

    def read(self, part: str) -> Array:
        """A tensor."""
        array: Array = self.tensors[part].read()
        return array

    def integer(self, config: Mapping[str, Any], *names: str) -> int | None:
        """The integer that a configuration has by the first of these names that is there."""
        for name in names:
            value = config.get(name)
            if value is not None:
                return value if type(value) is int else self.fail(f"{name} must be an integer, got {shown(value)}")
        return None

    def group_size(self, stated: int | None, length: int, groups: int) -> int:
        """The size of so many groups along an axis; -1 is stated for one group."""
        size = length if stated == -1 else stated
        if size is None and length % groups == 0:
            size = length // groups
        if size is None or size < 1 or -(-length // size) != groups:
            self.fail(f"{groups} groups must cover {length} elements; got group_size={shown(stated)}")
        return min(size, length)

    def entry(self, shape: tuple[int, ...], kind: str, make: Callable[[], QArray]) -> Entry:
        """The weight; `make` may raise ValueError, which is of this array then."""
        return Entry(shape, kind, self.nbytes, partial(self._made, make))

    def refused(self, error: FileFormatError) -> Entry:
        """A weight that cannot be read, for this reason."""
        shape, kind = next(iter(self.tensors.values()))[:2]
        return Entry(shape, kind, self.nbytes, partial(_refuse, str(error)))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    def _made(self, make: Callable[[], QArray]) -> QArray:
        try:
            return make()
        except FileFormatError:
            raise
        except ValueError as error:
            self.fail(str(error))


def _refuse(reason: str) -> NoReturn:
    raise FileFormatError(reason)


def described(bits: int, groups: int, size: int) -> str:
    """Width and form of a quantized array."""
    return f"{bits} bits, groups of {size}" if groups > 1 else f"{bits} bits"


def unpacked(words: Array, bits: int, count: int) -> Array:
    """So many codes of the bit stream in words along the last axis, which must be long enough."""
    lines = np.ascontiguousarray(words, words.dtype.newbyteorder("<"))
    return unpack_bits(lines.view(np.uint8), bits, count)
