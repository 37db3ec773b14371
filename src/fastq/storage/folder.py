"""Writing a quantized array to a folder that is there when it is complete, and not before.

A folder holds one .npy file per array of :mod:`fastq.qarray.parts`, and :data:`DOCUMENT`: the attributes and the names
of the arrays, as JSON. The folder is written under a temporary name beside its own, the document last, and renamed at
the end; after an error it is deleted. Files are written rather than mapped into memory: a full disk is then an OSError,
not a signal that ends the process, and the files take no memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fastq.errors import shown, with_type
from fastq.storage.metadata import Box, Shape
from fastq.validation import truth

Array = npt.NDArray[Any]

DOCUMENT = "qarray.json"


class Boxes:
    """An array in a file, in C order from a place on, that is read and written by boxes."""

    def __init__(self, file: IO[bytes], start: int, shape: Shape, dtype: npt.DTypeLike) -> None:
        self.file, self.start, self.shape, self.dtype = file, start, shape, np.dtype(dtype)

    def _runs(self, box: Box) -> list[tuple[int, Shape]]:
        """Where each contiguous run of a box begins in the file, and its index in the box."""
        whole = len(box)  # axes from here on are complete: one run holds them and the axis before
        while whole and box[whole - 1] == slice(0, self.shape[whole - 1]):
            whole -= 1
        outer = max(whole - 1, 0)
        pitches = [prod(self.shape[d + 1 :]) * self.dtype.itemsize for d in range(len(box))]
        first = self.start + sum(s.start * p for s, p in zip(box, pitches))
        counts = [s.stop - s.start for s in box[:outer]]
        return [(first + sum(i * p for i, p in zip(at, pitches)), at) for at in np.ndindex(*counts)]

    def __getitem__(self, box: Box) -> Array:
        """Read a box."""
        values = np.empty([s.stop - s.start for s in box], self.dtype)
        for start, index in self._runs(box):
            self.file.seek(start)
            run = np.frombuffer(self.file.read(values[index].nbytes), self.dtype)
            values[index] = run.reshape(values[index].shape)
        return values

    def __setitem__(self, box: Box, values: Array) -> None:
        """Write a box."""
        values = np.ascontiguousarray(np.broadcast_to(values, [s.stop - s.start for s in box]), self.dtype)
        for start, index in self._runs(box):
            self.file.seek(start)
            self.file.write(values[index].reshape(-1).view(np.uint8).data)

    def hand_on(self, box: Box) -> None:
        """Have the system begin to write a box to the disk, so that less is left for the end.

        Linux does so for pages that it is told are not needed: those that are not on the disk yet stay in memory.
        """
        runs, nbytes = self._runs(box), prod(s.stop - s.start for s in box) * self.dtype.itemsize
        if nbytes and hasattr(os, "posix_fadvise"):
            self.file.flush()
            begin, end = runs[0][0], runs[-1][0] + nbytes // len(runs)
            os.posix_fadvise(self.file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)


class NpyFile(Boxes):
    """A .npy file, read and written by boxes as an array is; it starts as zeros."""

    def __init__(self, file: IO[bytes], shape: Shape, dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        form = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, form)
        super().__init__(file, file.tell(), shape, kind)
        file.truncate(self.start + prod(shape) * kind.itemsize)


def _remove(folder: Path, ignore_errors: bool = False) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors)


def check_path(path: Any) -> Path:
    """A path that the system could have."""
    try:
        text = os.fspath(path)
        if isinstance(text, bytes):
            raise TypeError
    except TypeError:
        raise TypeError(f"path must be a string or a path, got {with_type(path)}") from None
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"path must be one that the file system can hold, got {shown(text)}")
    return Path(text)


# How Windows says that a file is in use: access denied, a sharing violation, a section that is mapped.
_IN_USE = (5, 32, 1224)


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Say why Windows refuses to replace a file or folder that is in use; other systems replace it."""
    try:
        yield
    except OSError as error:
        if getattr(error, "winerror", None) not in _IN_USE:
            raise
        raise PermissionError(
            f"{path} must not be in use while it is replaced; Windows says {error}. What was there is still there. An "
            "array or a model that was opened from it keeps it mapped into memory: delete that first (or load the "
            "folder with mmap=False), or save elsewhere"
        ) from error


class Folder:
    """A new folder, as a context manager: it appears when :meth:`finish` is called, or not at all."""

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = Path(os.path.abspath(check_path(path)))
        self.overwrite = truth(overwrite, "overwrite")
        self._check()
        self.place = self._sibling("part")
        self._files: dict[str, IO[bytes]] = {}

    def _sibling(self, kind: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}.{kind}")

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.overwrite:
            raise FileExistsError(f"path must not exist yet, or be overwritten with overwrite=True; got {self.path}")
        if not (self.path / DOCUMENT).is_file():
            raise FileExistsError(
                f"path must be free, or a folder that fastq has saved, which alone is overwritten; got {self.path}"
            )

    def __enter__(self) -> Folder:
        self.place.mkdir()
        return self

    def create(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> NpyFile:
        """A new array in the folder."""
        file = self._files[name] = open(self.place / f"{name}.npy", "w+b")  # noqa: SIM115
        return NpyFile(file, shape, dtype)

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the document, and give the folder its name."""
        import json  # here, so that importing fastq stays fast

        text = json.dumps({**attributes, "arrays": sorted(self._files)}, indent=1) + "\n"
        document = self._files[DOCUMENT] = open(self.place / DOCUMENT, "wb")  # noqa: SIM115
        document.write(text.encode())
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._check()
        if not os.path.lexists(self.path):
            self.place.rename(self.path)
            return
        # Between these two there is nothing under the name; both folders are complete, though.
        old = self._sibling("old")
        with replacing(self.path):
            self.path.rename(old)
            try:
                self.place.rename(self.path)
            except BaseException:
                if not os.path.lexists(self.path):
                    old.rename(self.path)
                raise
        # The new folder is there. What is left of the old one, which a program on Windows may still read, does no harm.
        _remove(old, ignore_errors=True)

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # what is buffered may still not fit; the error that led here says so
                file.close()
        _remove(self.place, ignore_errors=True)


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], attributes: dict[str, Any], overwrite: bool = False
) -> None:
    """Write arrays and attributes to a folder; see :meth:`fastq.QArray.save`."""
    with Folder(path, overwrite) as folder:
        for name, array in arrays.items():
            folder.create(name, array.shape, array.dtype)[tuple(slice(0, n) for n in array.shape)] = array
        folder.finish(attributes)
