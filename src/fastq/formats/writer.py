"""Writing a file of safetensors that is there when it is complete, and not before.

It is written under a temporary name beside its own, which it gets at the end; after an error it is deleted. The header
comes first, since shapes and types are known before the data are: so arrays need not be in memory together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import shown
from fastq.formats.documents import LARGEST
from fastq.formats.safetensors import BITS, FLOATS8, METADATA, TYPES
from fastq.storage.folder import Boxes, check_path, replacing
from fastq.storage.maps import map_of, release

Array = npt.NDArray[Any]

NAMES = {np.dtype(kind).name: name for name, kind in TYPES.items()} | {"bfloat16": "BF16"}
NAMES |= {kind: name for name, kind in FLOATS8.items()}
AT_ONCE = 1 << 24  # bytes of an array that is not contiguous, or of another byte order, that are copied at a time


class Tensor(NamedTuple):
    """An array of the file, before its data are there."""

    name: str
    kind: str  # the name of its type in NumPy
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return BITS[NAMES[self.kind]] // 8

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return prod(self.shape) * self.itemsize


class NewFile:
    """A file that is being written: arrays in any order, each whole or by boxes."""

    def __init__(self, file: IO[bytes], places: dict[str, tuple[int, Tensor]]) -> None:
        self._file, self._places = file, places

    def write(self, name: str, array: Array) -> None:
        """Write an array."""
        start, tensor = self._places.pop(name)
        if (array.dtype.name, array.shape) != (tensor.kind, tensor.shape):
            then, now = f"{tensor.kind} {tensor.shape}", f"{array.dtype} {array.shape}"
            raise ValueError(f"array {shown(name)} must stay as it is while it is saved; it was {then}, is {now}")
        self._file.seek(start)
        _write(self._file, array)

    def boxes(self, name: str) -> Boxes:
        """The place of an array, which the caller fills box by box."""
        start, tensor = self._places.pop(name)
        return Boxes(self._file, start, tensor.shape, tensor.kind)

    def check(self) -> None:
        """That no array is missing."""
        if self._places:
            raise ValueError(f"array {shown(next(iter(self._places)))} was there at first, and is missing now")


@contextmanager
def new_file(
    path: str | os.PathLike[str], tensors: Iterable[Tensor], texts: Mapping[str, str]
) -> Generator[NewFile, None, None]:
    """A new file of these arrays, which the caller writes, and texts; it appears at the end."""
    place = Path(os.path.abspath(check_path(path)))
    if place.is_dir():
        raise IsADirectoryError(f"path must be that of a file; {place} is a folder")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder; there is no {place.parent}")
    # Large elements first, so that all begin at multiples of their size.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.itemsize, tensor.name))
    head = _header(ordered, texts)
    ends = np.cumsum([len(head), *(tensor.nbytes for tensor in ordered)], dtype=np.int64).tolist()
    part = place.with_name(f".{place.name[:32]}.{os.urandom(4).hex()}.part")
    try:
        with open(part, "xb") as file:
            file.write(head)
            new = NewFile(file, {tensor.name: (start, tensor) for start, tensor in zip(ends, ordered)})
            yield new
            new.check()
            file.flush()
            os.fsync(file.fileno())
        with replacing(place):
            os.replace(part, place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[Tensor],
    texts: Mapping[str, str],
    arrays: Iterable[tuple[str, Array]],
) -> None:
    """Write a file: what arrays it has, its texts, and then the arrays by name, in any order, one after the other."""
    with new_file(path, tensors, texts) as file:
        for name, array in arrays:
            file.write(name, array)


def little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same type in the byte order of the format."""
    return dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype


def _header(tensors: list[Tensor], texts: Mapping[str, str]) -> bytes:
    """The start of the file, up to the arrays."""
    fields: dict[str, Any] = {METADATA: dict(texts)} if texts else {}
    end = 0
    for tensor in tensors:
        offsets = [end, end := end + tensor.nbytes]
        fields[tensor.name] = {"dtype": NAMES[tensor.kind], "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST:
        raise ValueError(f"a header has at most {LARGEST} bytes; that of these arrays takes {len(text)}: save fewer")
    return len(text).to_bytes(8, "little") + text


def _write(file: IO[bytes], array: Array) -> None:
    """The bytes of an array, in C order."""
    pages, straight = map_of(array), array.flags.c_contiguous and little(array.dtype) == array.dtype
    rows = array.reshape(-1) if straight or not array.ndim else array
    step = max(1, AT_ONCE // max(1, rows[:1].nbytes))
    if straight and pages is None:
        step = max(1, len(rows))
    for first in range(0, len(rows), step):
        some = np.ascontiguousarray(rows[first : first + step], little(rows.dtype))
        file.write(some.reshape(-1).view(np.uint8).data)
        release(pages, rows[first : first + step])
