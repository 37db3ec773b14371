"""Checkpoints for tests, written from the written layout, slowly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

Array = np.typing.NDArray[Any]
NAMES = {"int8": "I8", "uint8": "U8", "int32": "I32", "uint32": "U32", "int64": "I64", "float16": "F16",
         "bfloat16": "BF16", "float32": "F32", "float64": "F64"}  # fmt: skip
FLOATS = np.float16, ml_dtypes.bfloat16, np.float32


def with_library(module: str, cases: Sequence[Any]) -> list[Any]:
    """Cases that need a library; without it a single one, which is skipped."""
    if find_spec(module):
        return list(cases)
    return [pytest.param(*cases[0], marks=pytest.mark.skip(f"{module} is not installed: {len(cases)} cases less"))]


def write(folder: Path, tensors: Mapping[str, Array], config: Mapping[str, Any] | None = None) -> Path:
    """A folder with a file of safetensors, and a configuration."""
    header, end = {}, 0
    for name, array in tensors.items():
        place = [end, end := end + array.nbytes]
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": place}
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def stream(codes: Array, bits: int) -> Array:
    """Words of int32 with a stream of codes for each row, by arithmetic of long integers."""
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        whole = sum(code << (bits * place) for place, code in enumerate(row))
        rows.append(np.frombuffer(whole.to_bytes(4 * -(-len(row) * bits // 32), "little"), "<i4"))
    return np.array(rows).reshape(*codes.shape[:-1], -1)


def padded(codes: Array, bits: int) -> Array:
    """The same with 32 // bits codes in a word, of which the highest bits may be empty."""
    each, count = 32 // bits, codes.shape[-1]
    words = [stream(np.atleast_2d(codes)[:, at : at + each], bits)[:, :1] for at in range(0, count, each)]
    return np.concatenate(words, axis=1)


def values(codes: Array, zeros: Array, scale: Array) -> Array:
    """scale * (code - zero), rounded once to the type of the scales: exact before that for all types here."""
    with np.errstate(over="ignore"):
        return ((codes.astype(np.float64) - zeros) * scale.astype(np.float64)).astype(scale.dtype)


def some_scales(rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Array:
    return (rng.uniform(0.001, 0.2, shape)).astype(kind)
