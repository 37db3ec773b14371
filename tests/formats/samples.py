"""Valid files of each format, small ones, of which the mutations are made.

To add a format, write a function that puts files into an empty folder and returns the path for ``fastq.open``, and add
it to SAMPLES. READERS may have a function that gives the arrays that another library reads from such files, by name, or
None where that library refuses the file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Array = np.typing.NDArray[Any]


def arrays() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "layer.weight": rng.standard_normal((4, 12), np.float32),
        "layer.bias": rng.standard_normal(4).astype(np.float16),
        "steps": np.arange(3, dtype=np.int64),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((0, 4), np.uint8),
        "one": np.array(1.5),
    }


def one_file(folder: Path) -> Path:
    save_file(arrays(), folder / "model", {"format": "np", "note": 'of "tests"'})
    return folder / "model"


def with_bfloat16(folder: Path) -> Path:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    kinds = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
    write(folder / "model", {str(np.dtype(kind)): values.astype(kind) for kind in kinds})
    return folder / "model"


def write(path: Path, tensors: dict[str, Array]) -> None:
    """A file by the written layout: what the library does not take from NumPy."""
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
    header, end = {}, 0
    for name, array in tensors.items():
        place = [end, end := end + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": array.shape, "data_offsets": place}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values()))


def sharded(folder: Path) -> Path:
    every = arrays()
    parts = {"model-1.safetensors": ["layer.weight", "one"], "model-2.safetensors": ["layer.bias", "steps"]}
    for file, names in parts.items():
        save_file({name: every[name] for name in names}, folder / file)
    index = {
        "metadata": {"total_size": 232},
        "weight_map": {name: file for file, names in parts.items() for name in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps({"model_type": "test", "hidden_size": 12, "tie": None}))
    return folder


SAMPLES: dict[str, tuple[Callable[[Path], Path], ...]] = {
    "safetensors": (one_file, with_bfloat16, sharded),
}


def by_safetensors(path: Path) -> dict[str, Array] | None:
    """What the format's library reads; it has no bfloat16 for NumPy."""
    found = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118, it is no mapping
                with contextlib.suppress(KeyError, TypeError, AttributeError):
                    found[name] = file.get_tensor(name)
    except SafetensorError:
        return None
    return found


READERS: dict[Callable[[Path], Path], Callable[[Path], dict[str, Array] | None]] = {
    one_file: by_safetensors,
    with_bfloat16: by_safetensors,
}
