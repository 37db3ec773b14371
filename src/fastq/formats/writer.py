"""Writing a file of safetensors that is there when it is complete, and not before.

It is written under a temporary name beside its own, which it gets at the end; after an error it is deleted. The header
comes first, since shapes and types are known before the data are: so arrays need not be in memory together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.errors import shown
from fastq.formats.documents import LARGEST
from fastq.formats.safetensors import BITS, FLOATS8, METADATA, TYPES
from fastq.storage.folder import check_path

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


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[Tensor],
    texts: Mapping[str, str],
    arrays: Iterable[tuple[str, Array]],
) -> None:
    """Write a file: what arrays it has, its texts, and then the arrays by name, in any order, one after the other."""
    place = Path(os.path.abspath(check_path(path)))
    if place.is_dir():
        raise IsADirectoryError(f"path must be that of a file; {place} is a folder")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder; there is no {place.parent}")
    # Large elements first, so that all begin at multiples of their size.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.itemsize, tensor.name))
    head = _header(ordered, texts)
    ends = np.cumsum([len(head), *(tensor.nbytes for tensor in ordered)], dtype=np.int64).tolist()
    places = {tensor.name: (start, tensor) for start, tensor in zip(ends, ordered)}
    part = place.with_name(f".{place.name[:32]}.{os.urandom(4).hex()}.part")
    try:
        with open(part, "xb") as file:
            file.write(head)
            for name, array in arrays:
                start, tensor = places.pop(name)
                if (array.dtype.name, array.shape) != (tensor.kind, tensor.shape):
                    then, now = f"{tensor.kind} {tensor.shape}", f"{array.dtype} {array.shape}"
                    raise ValueError(
                        f"array {shown(name)} must stay as it is while it is saved; it was {then}, is {now}"
                    )
                file.seek(start)
                _write(file, array)
            if places:
                raise ValueError(f"array {shown(next(iter(places)))} was there at first, and is missing now")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
    rows = array if array.ndim else array.reshape(1)
    step = max(1, AT_ONCE // max(1, rows[:1].nbytes))
    if rows.flags.c_contiguous and little(rows.dtype) == rows.dtype:
        step = len(rows)
    for first in range(0, len(rows), max(1, step)):
        some = np.ascontiguousarray(rows[first : first + step], little(rows.dtype))
        file.write(some.reshape(-1).view(np.uint8).data)
