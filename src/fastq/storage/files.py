"""Reading a folder of .npy files, mapped into memory or copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import aligned
from fastq.storage.folder import DOCUMENT, check_path
from fastq.storage.metadata import NAMES
from fastq.validation import truth

Array = npt.NDArray[Any]


def read(path: str | os.PathLike[str], mmap: bool = True) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the attributes that :func:`fastq.storage.folder.write` has written; see :func:`fastq.load`."""
    folder, mapped = check_path(path), truth(mmap, "mmap")
    attributes = _document(folder / DOCUMENT)
    names = attributes.pop("arrays", None)
    if not isinstance(names, list) or not all(isinstance(name, str) and name in NAMES for name in names):
        raise ValueError(f"{folder / DOCUMENT} must list its arrays, of {', '.join(NAMES)}; got {names}")
    arrays = {name: _array(folder / f"{name}.npy") for name in names}
    return arrays if mapped else {n: _copy(a) for n, a in arrays.items()}, attributes


def _document(file: Path) -> dict[str, Any]:
    import json  # here, so that importing fastq stays fast

    try:
        document = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise type(error)(
            f"path must be a folder that fastq has saved, with a {DOCUMENT}; got {_described(file.parent)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be JSON; {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(document).__name__}")
    return document


def _described(path: Path) -> str:
    """A path that is no folder of fastq's, and how to quantize the array if it is one."""
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
    except Exception as error:  # NumPy raises many kinds for a wrong header
        raise ValueError(f"{file} must be a complete .npy file of numbers; {error}") from error


def _copy(array: Array) -> Array:
    """In memory, at the start of a cache line."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
