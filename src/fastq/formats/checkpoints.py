"""Quantized weights in checkpoints of safetensors: the tensors that one consists of become one array.

The names of tensors tell the format, and ``config.json`` the rest. What a module m has:

    compressed-tensors  m.weight_packed (or m.weight of int8), m.weight_scale, and more
    GPTQ                m.qweight, m.qzeros, m.scales, m.g_idx
    AWQ                 m.qweight, m.qzeros, m.scales
    MLX                 m.weight of uint32, m.scales, m.biases

The array is named m.weight, and has the shape that torch's ``nn.Linear.weight`` has: ``x @ w.T`` is the layer. Its
logical type is that of the scales. Shapes are taken from the header; where they leave a setting open, the
configuration must have it, and where both tell one, they must agree. Tensors of other methods are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from fastq.errors import FileFormatError
from fastq.formats import awq, compressed_tensors, gptq, mlx
from fastq.formats.entries import Entry
from fastq.formats.module import Module

Config = Mapping[str, Any]


def quantized(tensors: dict[str, Entry], config: dict[str, Any], path: str) -> tuple[str, dict[str, Entry]]:
    """The method by which a checkpoint is quantized, or nothing; its arrays, each quantized one in one piece.

    Parameters
    ----------
    tensors : dict of str to Entry
        Those of the file, or the files.
    config : dict
        What ``config.json`` holds, with "quantization_config" or MLX's "quantization"; anything else is disregarded.
    path : str
        The file, for errors.
    """
    of_mlx, of_others = _object(config, "quantization"), _settings(config)
    settings = {gptq: of_others, awq: of_others, mlx: of_mlx or of_others,
                compressed_tensors: compressed_tensors.settings(of_others)}  # fmt: skip
    method = of_others.get("quant_method")
    name, found, taken = "", {}, set[str]()
    for tensor in tensors:
        form = _format(tensors, tensor, method, bool(of_mlx))
        if form:
            module = _module(tensors, tensor, form, path)
            taken.update(module.prefix + part for part in module.tensors)
            found[tensor] = module.weight, _entry(module, form, settings[form], tensors)
            name = name or form.NAME
    entries = {}
    for tensor, entry in tensors.items():
        if tensor in found:
            weight, whole = found[tensor]
            entries[weight] = whole
        elif tensor not in taken and tensor not in entries:
            entries[tensor] = entry
    return name, entries


def _object(config: Config, name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _settings(config: Config) -> dict[str, Any]:
    """The settings of the method; models with several parts may have them in that of text."""
    return _object(config, "quantization_config") or _object(_object(config, "text_config"), "quantization_config")


def _format(tensors: Mapping[str, Entry], tensor: str, method: Any, of_mlx: bool) -> ModuleType | None:
    """The format of a quantized weight, if this is its first tensor."""
    last = tensor.rpartition(".")[2]
    prefix = tensor.removesuffix(last)
    if last == "weight" and tensors[tensor].kind == "uint32" and prefix + "scales" in tensors:
        return mlx if of_mlx or method is None else None
    eight = last == "weight" and tensors[tensor].kind == "int8" and prefix + "weight_scale" in tensors
    if last == "weight_packed" or eight:
        return compressed_tensors if method in (None, "compressed-tensors") else None
    if last == "qweight" and method in (None, "gptq", "awq"):
        by_shape = gptq if gptq.fits(tensors, prefix) else awq
        return {"gptq": gptq, "awq": awq}.get(method, by_shape)
    return None


def _module(tensors: Mapping[str, Entry], tensor: str, form: ModuleType, path: str) -> Module:
    last = tensor.rpartition(".")[2]
    prefix = tensor.removesuffix(last)
    names = (last, *(part for part in form.PARTS if part != last))
    return Module(path, prefix, {part: tensors[prefix + part] for part in names if prefix + part in tensors})


def _entry(module: Module, form: ModuleType, settings: Any, tensors: Mapping[str, Entry]) -> Entry:
    """The whole weight; what is wrong with it is raised when it is read."""
    try:
        if "weight" not in module.tensors and module.weight in tensors:
            module.fail(f"there are two of it, one in {next(iter(module.tensors))}")
        entry: Entry = form.entry(module, settings)
    except FileFormatError as error:
        return module.refused(error)
    return entry
