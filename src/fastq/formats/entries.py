"""What is in a file: arrays by name, read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from fastq.errors import shown
from fastq.typed import Array

if TYPE_CHECKING:
    from fastq.qarray.array import QArray


class Entry(NamedTuple):
    """An array of a file, as its header describes it."""

    shape: tuple[int, ...]
    kind: str  # the type of an array; of a quantized one its width and form, as "4 bits, groups of 32"
    nbytes: int  # that it takes in the file
    read: Callable[[], Any]  # the ndarray or QArray; raises FileFormatError

    def __repr__(self) -> str:
        return f"Entry(shape={self.shape}, kind={self.kind!r}, nbytes={self.nbytes})"


class Opened(Mapping[str, "QArray | Array"]):
    """The arrays of a file, by name; each is read when it is asked for, and again when it is asked for again.

    Attributes
    ----------
    path : str
    format : str
        What the file is, as "safetensors, GPTQ".
    """

    def __init__(self, path: str, form: str, entries: Mapping[str, Entry]) -> None:
        self.path, self.format, self._entries = path, form, dict(entries)

    def __getitem__(self, name: str) -> QArray | Array:
        array: QArray | Array = self.entry(name).read()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def entry(self, name: str) -> Entry:
        """Shape, type and size of an array, without reading it."""
        try:
            return self._entries[name]
        except KeyError:
            close = get_close_matches(str(name), self._entries, 3)
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise KeyError(f"{self.path} has no array {shown(name)}, but {len(self)} others{hint}") from None

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing is to be closed: an array keeps the memory map that it lies in."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the path, by which another process opens the file."""
        return _reopened, (os.path.abspath(self.path),)

    def __repr__(self) -> str:
        return f"<{self.format} {self.path}: {len(self)} arrays, {sum(e.nbytes for e in self._entries.values())} bytes>"


def _reopened(path: str) -> Any:
    return import_module("fastq.formats.opening").open(path)
