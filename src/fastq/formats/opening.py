"""One function for files of all formats, which are told apart by what is in them."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from fastq.errors import FileFormatError, shown
from fastq.formats import documents, safetensors
from fastq.formats.binary import Bytes
from fastq.formats.entries import Entry, Opened
from fastq.storage.folder import DOCUMENT, check_path

OTHERS = {"GGUF": "gguf", "ONNX": "onnx"}  # modules by the names of their formats; what is told apart best comes first
KNOWN = "safetensors (one file, or a folder of them), GGUF, ONNX"
INDEX = "model.safetensors.index.json"
HINTS = {  # of files that are not opened here, by their first bytes
    b"\x93NUMPY": "an array in a .npy file is read by numpy.load({path!r})",
    b"PK\x03\x04": "a .npz file is read by numpy.load({path!r}), and torch.load reads its own, which may run code",
    b"\x89HDF\r\n": "an HDF5 file is read by h5py",
}


def open(path: str | os.PathLike[str]) -> Opened:
    """Open a file of weights, whatever tool wrote it: safetensors, GGUF, ONNX or fastq.

    The format is told by what is in the file, not by its name. Only the header is read now; an array is read when it is
    asked for, where possible as a memory map. What a file says of quantization becomes quantized arrays.

    Parameters
    ----------
    path : path
        A file, or the folder of a checkpoint in safetensors, with ``model.safetensors.index.json`` or without. Beside
        the file, ``config.json`` and ``quantize_config.json`` tell how it is quantized. The files must stay as they
        are in the meantime: cutting one short ends the process.

    Returns
    -------
    Opened
        A mapping of names to arrays: ``numpy.ndarray``, read-only, or :class:`fastq.QArray`. Numbers of bfloat16
        keep their type where ml_dtypes is installed, and are float32 without. ``opened.entry(name)`` tells shape and
        type without reading.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If the file is of no known format, or not what its format says; the message names the place. What is wrong
        with one array alone is raised when that array is asked for.

    Examples
    --------
    >>> import numpy as np, fastq as fq, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fq.save(f"{folder}/model", {"bias": np.ones(3, np.float32)})
    ...     model = fq.open(f"{folder}/model")
    ...     print(model.format, list(model), model["bias"])
    ...     del model  # Windows removes no file that is mapped
    fastq ['bias'] [1. 1. 1.]
    """
    place = check_path(path)
    if not place.exists():
        raise FileNotFoundError(f"path must be a file or a folder of weights; there is no {place}")
    return _folder(place) if place.is_dir() else _file(place)


def _module(name: str) -> Any:
    """A module of this room, imported when a file needs it."""
    return import_module(f"fastq.formats.{name}")


def _file(path: Path) -> Opened:
    file = Bytes(path)
    if safetensors.recognizes(file):
        tensors, texts = safetensors.contents(file)
        if "fastq" in texts:
            return Opened(file.path, "fastq", _module("own").entries(tensors, texts["fastq"], file.path))
        return _checkpoint(file.path, tensors, path.parent)
    for start, hint in HINTS.items():
        if file.data[: len(start)].tobytes() == start:
            raise FileFormatError(f"{path}: fastq.open reads {KNOWN}; {hint.format(path=file.path)}")
    for name, module in OTHERS.items():
        form = _module(module)
        if form.recognizes(file):
            return Opened(file.path, name, form.entries(file))
    start = file.data[:8].tobytes()
    raise FileFormatError(
        f"{path}: the format must be {KNOWN}; this file has {file.size} bytes and begins with {start!r}"
    )


def _folder(path: Path) -> Opened:
    if (path / DOCUMENT).is_file():
        raise FileFormatError(f"{path}: a folder that q.save has written is opened by fastq.load({str(path)!r})")
    if (path / INDEX).is_file():
        return _checkpoint(str(path), _indexed(path), path)
    shards = sorted(path.glob("*.safetensors"))
    if len(shards) == 1:
        return _file(shards[0])
    tensors: dict[str, Entry] = {}
    for shard in shards:
        found = _shard(shard)
        for name in found.keys() & tensors.keys():
            raise FileFormatError(
                f"{shard}: array {shown(name)}: another file of the folder has it, too; open one by name"
            )
        tensors |= found
    if not shards:
        raise FileFormatError(
            f"{path}: a folder must hold files *.safetensors; files of other formats are opened by name"
        )
    return _checkpoint(str(path), tensors, path)


def _indexed(folder: Path) -> dict[str, Entry]:
    """The arrays of the files of a folder, as its index assigns them."""
    index, place = documents.read(folder / INDEX).get("weight_map"), folder / INDEX
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise FileFormatError(f"{place}: weight_map: it must name a file for each array")
    shards = {}
    for name in set(index.values()):
        if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
            raise FileFormatError(f"{place}: weight_map: a file must lie in this folder, got {shown(name)}")
        if not (folder / name).is_file():
            raise FileFormatError(f"{place}: weight_map: the folder lacks the file {shown(name)}")
        shards[name] = _shard(folder / name)
    for array, name in index.items():
        if array not in shards[name]:
            raise FileFormatError(f"{folder / name}: array {shown(array)}: {INDEX} says it is here, but it is not")
    return {array: shards[name][array] for array, name in index.items()}


def _shard(path: Path) -> dict[str, Entry]:
    file = Bytes(path)
    if not safetensors.recognizes(file):
        file.fail("header", "it must be a file of safetensors")
    return safetensors.entries(file)


def _checkpoint(path: str, tensors: dict[str, Entry], folder: Path) -> Opened:
    """Arrays of safetensors, those that are parts of quantized ones put together as the files beside them say."""
    config: dict[str, Any] = {}
    if (folder / "config.json").is_file():
        config = documents.read(folder / "config.json")
    if "quantization_config" not in config and (folder / "quantize_config.json").is_file():
        config["quantization_config"] = {"quant_method": "gptq", **documents.read(folder / "quantize_config.json")}
    scheme, entries = _module("checkpoints").quantized(tensors, config, path)
    return Opened(path, f"safetensors, {scheme}" if scheme else "safetensors", entries)
