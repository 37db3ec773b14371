"""GPTQ's layout (AutoGPTQ 0.7.1 and GPTQModel 7: QuantLinear of qlinear_cuda.py and torch.py), 2, 3, 4 and 8 bits.

    qweight  int32  [ceil(K * bits / 32), N]   codes along K, a dense little-endian bit stream in each column
    qzeros   int32  [G, ceil(N * bits / 32)]   zero points along N, likewise
    scales   floats [G, N]                     x = scale * (code - zero_point); G groups along K
    g_idx    int32  [K]                        the group of each row; missing: one group after the other

In "gptq", the first format, 1 is subtracted from the zero points that are stored; in "gptq_v2" nothing is. So a zero
point may be ``2**bits``, which is no code; such an array is affine here, and the same in every bit. GPTQModel subtracts
from whole words, and adds to them again: where it wrote the file, a borrow of one zero point from the next is undone.

With act-order (desc_act), rows of one group are those of like activations. Here codes are sorted by their groups, and
the array keeps the permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array
from fastq.formats.entries import Entry
from fastq.formats.module import FLOATS, INTEGERS, WORDS, Module, described, unpacked
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

NAME = "GPTQ"
PARTS = ("qweight", "qzeros", "scales", "g_idx")
FIRST, SECOND, PLANAR = "gptq", "gptq_v2", "gptq_p"
BITS = (2, 3, 4, 8)
ONLY_PLANAR = (5, 6, 7)  # widths that GPTQModel stores in planes of bits


def fits(tensors: Mapping[str, Entry], prefix: str) -> bool:
    """Whether a qweight has a column per output, as GPTQ's has and AWQ's has not."""
    scales = tensors.get(prefix + "scales")
    return scales is None or tensors[prefix + "qweight"].shape[-1:] == scales.shape[-1:]


def entry(module: Module, config: Mapping[str, Any]) -> Entry:
    """The weight of a module, as its shapes and the configuration describe it."""
    layout = _layout(module, config)
    rows, columns = module.shape("qweight", WORDS, 2)
    groups, width = module.shape("qzeros", WORDS, 2)
    if module.shape("scales", FLOATS, 2) != (groups, columns):
        module.fail(
            f"scales must have a row for each of {groups} groups, and a column for each of {columns} outputs; got "
            f"shape {module.tensors['scales'].shape}"
        )
    sorted_by = _ordered(module)
    length = module.shape("g_idx", INTEGERS, 1)[0] if sorted_by else None
    bits = _bits(module, config, (rows, columns, width), length)
    if bits in ONLY_PLANAR or (bits == 3 and layout == PLANAR):
        module.fail(f"GPTQModel's planes of bits (gptq_p) are not read, nor their width of {bits} bits")
    length = rows * 32 // bits if length is None else length
    stated = None if config.get("dynamic") else module.integer(config, "group_size")
    size = module.group_size(stated, length, groups)
    by_words = layout == FIRST and _by_gptqmodel(config)
    start = 1 if layout == FIRST else 0

    def read() -> QArray:
        zeros = _zeros(module.read("qzeros"), bits, columns, start, by_words)
        return _array(module, bits, (columns, length), size, zeros)

    return module.entry((columns, length), described(bits, groups, size), read)


def _layout(module: Module, config: Mapping[str, Any]) -> str:
    layout = config.get("checkpoint_format") or config.get("format") or FIRST
    if config.get("is_marlin_format") is True:
        layout = "marlin"
    known = layout.lower() if isinstance(layout, str) else None
    if known not in (FIRST, SECOND, PLANAR):
        module.fail(f"of GPTQ's layouts, fastq reads gptq and gptq_v2; got {shown(layout)}")
    return known


def _ordered(module: Module) -> bool:
    """Whether there is a g_idx; some files have an empty one."""
    return "g_idx" in module.tensors and module.tensors["g_idx"].shape != (0,)


def _bits(module: Module, config: Mapping[str, Any], shape: tuple[int, int, int], length: int | None) -> int:
    """The width that fits the shapes; the stated one, if several do."""
    rows, columns, width = shape
    bits = [
        b
        for b in range(2, 9)
        if width == -(-columns * b // 32) and (rows * 32 % b == 0 if length is None else rows == -(-length * b // 32))
    ]
    stated = module.integer(config, "bits")
    if stated in bits:
        bits = [stated]
    elif stated is not None and not config.get("dynamic"):  # GPTQModel's settings by patterns of names
        bits = []
    if len(bits) != 1:
        module.fail(
            f"bits must fit qweight with {rows} rows for {length or 'all'} inputs, and qzeros with {width} words for "
            f"{columns} outputs; got bits={shown(stated)}"
        )
    return bits[0]


def _by_gptqmodel(config: Mapping[str, Any]) -> bool:
    meta = config.get("meta")
    tools = meta.get("quantizer") if isinstance(meta, dict) else None
    tools = tools[:8] if isinstance(tools, list) else [tools]
    return any(isinstance(tool, str) and tool.startswith("gptqmodel") for tool in tools)


def _zeros(words: Array, bits: int, count: int, start: int, by_words: bool) -> Array:
    """Zero points, from which `start` was subtracted: [G, N]."""
    if by_words and 32 % bits == 0:
        ones = np.uint32(sum(1 << at for at in range(0, 32, bits)))
        return unpacked(words.astype(np.uint32) + ones, bits, count).astype(np.int16)
    zeros = unpacked(words, bits, count).astype(np.int16) + np.int16(start)
    return zeros & np.int16(2**bits - 1) if by_words else zeros


def _array(module: Module, bits: int, shape: tuple[int, int], size: int, zeros: Array) -> QArray:
    codes = np.ascontiguousarray(module.read("qweight").T)
    order = None
    if _ordered(module):
        size, order = by_groups(module, module.read("g_idx"), len(zeros))
    scale = module.read("scales").T
    given: dict[str, Any] = {"bits": bits, "group_size": size if len(zeros) > 1 else None, "shape": shape}
    if (zeros == 2 ** (bits - 1)).all():
        signed = True
    elif zeros.max() < 2**bits:
        signed, given["zero_point"] = False, zeros.T
    else:  # products of float16 and bfloat16 with codes are exact in float32, those of float32 in float64
        signed, given["dtype"] = False, scale.dtype
        scale = scale.astype(np.float64 if scale.dtype == np.float32 else np.float32)
        given["offset"] = -scale * zeros.T
    if order is None:
        return from_parts(codes, scale, packed=True, **given)
    codes = np.take(unpacked(codes, bits, shape[1]), order, axis=1)
    if signed:
        codes = (codes - np.uint8(2 ** (bits - 1))).view(np.int8)
    return from_parts(codes, scale, order=order, **given)


def by_groups(module: Module, indices: Array, groups: int) -> tuple[int, Array | None]:
    """The size of groups, and the order in which rows lie in groups one after the other; None: they do already."""
    if int(indices.min()) < 0 or int(indices.max()) >= groups:
        module.fail(f"g_idx must be from 0 to {groups - 1}, got values from {indices.min()} to {indices.max()}")
    counts = np.bincount(indices, minlength=groups)
    size = int(counts[0])
    if (counts[:-1] != size).any() or not 0 < counts[-1] <= size:
        module.fail(
            f"g_idx must give all groups the same number of rows, but for the last; got from {counts.min()} to "
            f"{counts.max()}"
        )
    order = np.argsort(indices, kind="stable")
    return size, None if (order[1:] > order[:-1]).all() else order
