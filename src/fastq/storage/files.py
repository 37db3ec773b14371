"""Quantized arrays in files: folders of .npy files, which are multiplied as they lie there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import aligned
from fastq.qarray.array import QArray
from fastq.rules import truth
from fastq.storage.folder import DOCUMENT, check_path, save
from fastq.storage.outline import NAMES
from fastq.storage.parts import put_together

__all__ = ["load", "save"]

Array = npt.NDArray[Any]


def load(path: str | os.PathLike[str], mmap: bool = True) -> QArray:
    """Open a quantized array that :meth:`fastq.QArray.save`, or ``fastq.quantize(..., out=path)``, has written.

    Parameters
    ----------
    path : path
        The folder.
    mmap : bool
        Map the files into memory: codes are then read as products need them, the system keeps them as long as there is
        room, and all processes that use them share that memory. The files must stay as they are in the meantime:
        cutting one short ends the process. False: read everything now.

    Returns
    -------
    QArray
        It is packed for ``x @ q``, or for ``x @ q.T`` where that was the use it was saved for.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file is missing in it.
    NotADirectoryError
        If it is a file, such as ``np.save`` writes.
    ValueError
        If a file is cut short or not of this form, or the files do not belong together.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> documents = np.random.default_rng(0).standard_normal((1000, 64), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fq.quantize(documents, bits=3, axis=-1, out=f"{folder}/documents")
    ...     q = fq.load(f"{folder}/documents")
    ...     (documents[:2] @ q.T).argmax(axis=1)
    QArray(shape=(1000, 64), 3 bits, symmetric, axis=1, dtype=float32, 31.5 KiB)
    array([0, 1])
    """
    folder, mapped = check_path(path), truth(mmap, "mmap")
    attributes = _document(folder / DOCUMENT)
    names = attributes.pop("arrays", None)
    if not isinstance(names, list) or not all(isinstance(name, str) and name in NAMES for name in names):
        raise ValueError(f"{folder / DOCUMENT} must list its arrays, of {', '.join(NAMES)}; got {names}")
    arrays = {name: _array(folder / f"{name}.npy") for name in names}
    try:
        return put_together(arrays if mapped else {n: _copy(a) for n, a in arrays.items()}, attributes)
    except ValueError as error:
        raise ValueError(f"{folder} holds no quantized array that is whole: {error}") from error


def _document(file: Path) -> dict[str, Any]:
    import json  # here, so that importing fastq stays fast

    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise type(error)(
            f"path must be a folder that fastq has saved, with a {DOCUMENT}; got {_described(file.parent)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be JSON; {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found


def _described(path: Path) -> str:
    """What was taken for a folder, and what to write if it is an array."""
    words = str(path)
    if not path.exists():
        words += ", which does not exist"
    elif not path.is_dir():
        words += ", a file"
    if path.suffix == ".npy" and not path.is_dir():
        words += f": an array in such a file is quantized by fastq.quantize(np.load({str(path)!r}), bits=8, axis=0)"
    return words


def _array(file: Path) -> Array:
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} must be there, because {DOCUMENT} lists it; it is missing") from None
    except Exception as error:  # of many kinds, for what is not a header
        raise ValueError(f"{file} must be a complete .npy file of numbers; {error}") from error


def _copy(array: Array) -> Array:
    """In memory, at the start of a cache line."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
