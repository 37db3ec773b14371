"""Files of GGUF, written by the gguf package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter

from fastq.formats.ggml_blocks import BLOCK_TYPES, FACTORS, BlockType

Array = np.typing.NDArray[Any]


def random_blocks(rng: np.random.Generator, form: BlockType, rows: tuple[int, ...], count: int) -> Array:
    """Bytes of rows of blocks: any bytes are blocks, but for factors that are not finite."""
    raw = rng.integers(0, 256, (*rows, count * form.layout.itemsize), np.uint8)
    blocks = raw.view(form.layout)
    for name in set(FACTORS).intersection(blocks.dtype.names):
        blocks[name] = np.where(np.isfinite(blocks[name]), blocks[name], np.float16(-0.25))
    return raw


def write(
    path: Path,
    tensors: dict[str, Array | tuple[Array, int]],
    add: Callable[[GGUFWriter], None] = lambda writer: None,
    order: GGUFEndian = GGUFEndian.LITTLE,
) -> Path:
    """A file of arrays, of the bytes of tensors of other types with the numbers of these, and of what is added."""
    writer = GGUFWriter(path, "llama", False, order)
    add(writer)
    for name, given in tensors.items():
        array, number = given if isinstance(given, tuple) else (given, None)
        writer.add_tensor(name, array, raw_dtype=None if number is None else GGMLQuantizationType(number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def plain() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    kinds = np.float32, np.float16, np.float64, np.int8, np.int16, np.int32, np.int64
    return {np.dtype(kind).name: (rng.standard_normal((3, 5)) * 50).astype(kind) for kind in kinds}


def values(writer: GGUFWriter) -> None:
    """Values of all types."""
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        getattr(writer, f"add_{kind}")(kind, 100)
    writer.add_bool("bool", True)
    writer.add_string("string", "zwölf")
    writer.add_array("integers", [1, -2, 3])
    writer.add_array("floats", [0.5, -1.5])
    writer.add_array("bools", [True, False])
    writer.add_array("texts", ["a", "", "ß" * 200, "\0" * 9, "b"])


def of_blocks(folder: Path) -> Path:
    """One tensor of each type of blocks."""
    rng = np.random.default_rng(0)
    tensors = {form.name: (random_blocks(rng, form, (2,), 1), number) for number, form in BLOCK_TYPES.items()}
    return write(folder / "model", tensors)


def of_arrays(folder: Path) -> Path:
    """Plain tensors, and values of all types."""
    return write(folder / "model", plain(), add=values)
