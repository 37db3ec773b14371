"""MLX's affine quantization (mlx 0.32: mlx.core.quantize and dequantize; mlx-lm writes such files).

    weight          uint32 [..., N, K * bits / 32]   codes along K, a dense little-endian bit stream
    scales, biases  floats [..., N, K / group]       x = scale * code + bias

The configuration has ``"quantization": {"group_size": 64, "bits": 4, "mode": "affine"}``, and by the name of a module
what is different there. Modes other than affine are of floats of 4 and 8 bits.

Numbers are those of MLX's dequantize on the CPU in every bit: it computes in the type of the scales, so of float16 and
bfloat16 it rounds ``scale * code``, and then the sum (on GPUs, compilers may join the two). MLX's products by rows
(x @ w.T on the CPU, of 4 and 8 bits) compute ``scale * code + bias`` in float32, as products do here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastq.errors import shown
from fastq.formats.entries import Entry
from fastq.formats.module import FLOATS, Module, described
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

NAME = "MLX"
PARTS = ("weight", "scales", "biases")
BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


def entry(module: Module, config: Mapping[str, Any]) -> Entry:
    """The weight of a module, as its shapes and the configuration describe it."""
    own = config.get(module.prefix.removesuffix("."))
    settings = own if isinstance(own, dict) else config
    mode = settings.get("mode", "affine")
    if mode != "affine":
        module.fail(f"of MLX's modes, fastq reads affine; got {shown(mode)}")
    packed, shape = module.shape("weight", ("uint32",)), module.shape("scales", FLOATS)
    kind = module.tensors["scales"].kind
    biases = module.shape("biases", (kind,))
    if len(packed) < 2 or shape[:-1] != packed[:-1] or biases != shape:
        module.fail(
            f"scales and biases must have one entry per group of each row of weight, {packed}; got shapes {shape} and "
            f"{biases}"
        )
    bits, size = _widths(module, settings, packed[-1], shape[-1])
    whole = (*shape[:-1], shape[-1] * size)
    return module.entry(whole, described(bits, shape[-1], size), lambda: _read(module, bits, size, whole))


def _widths(module: Module, settings: Mapping[str, Any], words: int, groups: int) -> tuple[int, int]:
    """Bits and group size: one of them follows from the other, and both where only one pair fits."""
    bits, size = module.integer(settings, "bits"), module.integer(settings, "group_size")
    pairs = [
        (b, g)
        for b in (BITS if bits is None else (bits,))
        for g in (GROUPS if size is None else (size,))
        if b in BITS and 0 < g <= words * 32 and groups * g * b == words * 32
    ]
    if len(pairs) != 1:
        module.fail(
            f"bits and group_size must be those of {words} words with {groups} groups; got {shown(bits)} and "
            f"{shown(size)}, and {len(pairs)} pairs fit"
        )
    return pairs[0]


def _read(module: Module, bits: int, size: int, shape: tuple[int, ...]) -> QArray:
    codes, scale, offset = (module.read(part) for part in PARTS)
    group = size if scale.shape[-1] > 1 else None
    return from_parts(codes, scale, bits=bits, offset=offset, group_size=group, packed=True, shape=shape)
