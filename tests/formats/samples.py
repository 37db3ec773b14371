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

import fastq as fq

from . import checkpoint_samples as checkpoints
from . import gguf_files, onnx_models

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


def quantized() -> dict[str, fq.QArray]:
    """One of each kind: schemes, groups, axes; layouts of compressed-tensors and of fastq."""
    x = np.random.default_rng(1).standard_normal((4, 64), np.float32)
    layer = fq.quantize(x, bits=4, axis=-1, group_size=32, scheme="asymmetric", group_scale="float")
    return {
        "layer.weight": layer,
        "rows.weight": fq.quantize(x.astype(np.float16), bits=3, axis=-1),
        "columns.weight": fq.quantize(x, bits=5, axis=0, scheme="asymmetric"),
        "whole.weight": fq.quantize(x[:, :7], bits=8),
        "groups": fq.quantize(x.T, bits=2, axis=0, group_size=16, scheme="asymmetric"),
        "affine": fq.quantize(x.reshape(2, 2, 64), bits=6, axis=1, scheme="affine"),
        "rotated": fq.quantize(x, bits=4, axis=-1, balance=np.arange(1, 65.0), rotate=True).with_activations("group"),
        "ordered": fq.from_parts(np.eye(4, 8, dtype=np.int8), [[0.5]], bits=3, order=np.arange(8)[::-1]),
        "number": fq.quantize(1.5, bits=4),
        "empty": fq.quantize(np.zeros((0, 3)), bits=7, axis=0),
    }


def own(folder: Path) -> Path:
    fq.save(folder / "model", {**quantized(), "bias": np.arange(3.0)})
    return folder / "model"


SAMPLES: dict[str, tuple[Callable[[Path], Path], ...]] = {
    "own": (own,),
    "safetensors": (one_file, with_bfloat16, sharded),
    "ONNX": (onnx_models.linear_sample, onnx_models.nbits_sample, onnx_models.external_sample),
    "GGUF": (gguf_files.of_blocks, gguf_files.of_arrays),
    "gptq": (checkpoints.gptq, checkpoints.gptq_with_act_order),
    "awq": (checkpoints.awq,),
    "mlx": (checkpoints.mlx,),
    "compressed-tensors": (checkpoints.compressed_tensors, checkpoints.compressed_tensors_of_many_kinds),
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
