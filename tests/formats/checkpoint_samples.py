"""Small quantized checkpoints, to be mutated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from . import test_awq, test_compressed_tensors, test_gptq, test_mlx
from .checkpoint_files import padded, write


def gptq(folder: Path) -> Path:
    return write(folder, test_gptq.layer(3)[0], test_gptq.config(3))


def gptq_with_act_order(folder: Path) -> Path:
    """Configured as AutoGPTQ does it, in a file of its own; a zero point is no code."""
    zeros = np.random.default_rng(0).integers(1, 17, (3, test_gptq.N))
    write(folder, test_gptq.layer(4, g_idx=test_gptq.shuffled(), zeros=zeros)[0])
    settings = {"bits": 4, "group_size": 32, "desc_act": True, "sym": False, "model_file_base_name": "model"}
    (folder / "quantize_config.json").write_text(json.dumps(settings))
    return folder


def awq(folder: Path) -> Path:
    return write(folder, test_awq.layer()[0], test_awq.config())


def mlx(folder: Path) -> Path:
    settings = test_mlx.config(3, 32, mode="affine", other={"bits": 4, "group_size": 64})
    tensors = test_mlx.layer(3, 32)[0]
    other = {name.replace("m.", "other."): values for name, values in test_mlx.layer(4, 64, np.float16)[0].items()}
    return write(folder, tensors | other, settings)


def compressed_tensors(folder: Path) -> Path:
    return write(folder, test_compressed_tensors.layer(symmetric=False)[0], test_compressed_tensors.config(4, False))


def compressed_tensors_of_many_kinds(folder: Path) -> Path:
    """Words of older releases, act-order, codes that are not packed, and a shape that stands in the file alone."""
    make = test_compressed_tensors.layer
    index = np.random.default_rng(0).permutation(np.arange(160) // 32).astype(np.int32)
    tensors = make(3, symmetric=False, pack=padded, index=index)[0] | {"up.weight_g_idx": index}
    tensors |= {f"down.{name[3:]}": values for name, values in make(5, 1, shape=(4, 33))[0].items() if "up" in name}
    tensors |= {"k.weight": np.arange(96, dtype=np.int8).reshape(2, 48), "k.weight_scale": np.ones((2, 1), np.float32)}
    settings = test_compressed_tensors.config(3, False, version="0.14.0")
    groups = settings["quantization_config"]["config_groups"]
    groups["group_1"] = {"targets": ["down"], "weights": {"num_bits": 5, "strategy": "channel"}}
    return write(folder, tensors, settings)
