"""Blocks of GGML, the types of tensors in GGUF files: from bytes to codes, scales and offsets.

A row of a quantized tensor is a row of blocks, of 32 or 256 elements each. A block holds float16 factors ("d" for
scales, "m" or "dmin" for offsets), in the types K small integers that refine them by group, and codes ::

    x = scale * code             Q8_0, Q4_0, Q5_0   scale = d
                                 Q3_K, Q6_K         scale = d * integer
    x = scale * code + offset    Q4_1, Q5_1         scale = d,           offset = m
                                 Q2_K, Q4_K, Q5_K   scale = d * integer, offset = -(dmin * integer)

These products are exact in float32 (11 bits of a float16, at most 7 of an integer, at most 6 of a code), so their order
does not matter, nor whether an FMA takes part: only the sum is rounded.

The codes of a field stand in runs of bytes. A byte holds ``8 / bits`` of them, the first in its lowest bits; the first
codes of all bytes of a run come before their second codes. In types of 3, 5 and 6 bits, the low and the high bits of
codes are in two fields. Symmetric codes are stored as ``code + 2**(bits - 1)``, but for the int8 of Q8_0.

Sources: ggml-common.h and ggml-quants.c of ggml; constants.py and quants.py of gguf 0.19.0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Params = Callable[[Array], Array]  # of blocks, [blocks, groups of a block], or [blocks, 1]
FACTORS = ("d", "m", "dmin")
AT_ONCE = 1 << 18  # elements that are decoded at a time: temporary arrays stay in the cache


class Run(NamedTuple):
    """Some bits of each code of a block, in one field of it."""

    field: str
    length: int  # bytes of a run
    bits: int
    above: int = 0  # how many bits of the code are below these


class BlockType(NamedTuple):
    """A type whose blocks hold codes, scales, and perhaps offsets."""

    name: str
    bits: int
    group: int
    layout: np.dtype[Any]  # of a block
    runs: tuple[Run, ...]  # the lowest bits first
    scale: Params
    offset: Params | None = None

    @property
    def size(self) -> int:
        """The elements of a block."""
        return prod(self.layout[self.runs[0].field].shape) * 8 // self.runs[0].bits


class Decoded(NamedTuple):
    """Codes ``[..., K]`` with scales and offsets ``[..., K / group]``."""

    codes: Array
    scale: Array
    offset: Array | None


def decode(form: BlockType, blocks: Array) -> Decoded:
    """Codes and parameters of rows of blocks, ``[..., blocks of a row]``."""
    flat = blocks.reshape(-1)
    *rows, count = blocks.shape
    groups = form.size // form.group
    codes = np.empty((flat.size, form.size), np.uint8)
    scale = np.empty((flat.size, groups), np.float32)
    offset = np.empty_like(scale) if form.offset else None
    step = AT_ONCE // form.size
    for start in range(0, flat.size, step):
        part = slice(start, start + step)
        _codes(form, flat[part], codes[part])
        scale[part] = form.scale(flat[part])
        if form.offset and offset is not None:
            offset[part] = form.offset(flat[part])
    if offset is None:
        if form.bits < 8:
            codes -= 2 ** (form.bits - 1)  # wraps around below 0, where the same bits are negative as int8
        codes = codes.view(np.int8)
    whole, by_group = (*rows, count * form.size), (*rows, count * groups)
    return Decoded(codes.reshape(whole), scale.reshape(by_group), None if offset is None else offset.reshape(by_group))


def _codes(form: BlockType, blocks: Array, out: npt.NDArray[np.uint8]) -> None:
    first, *others = form.runs
    out[...] = _spread(blocks[first.field], first)
    for run in others:
        out |= _spread(blocks[run.field], run) << run.above


def _spread(field: npt.NDArray[np.uint8], run: Run) -> npt.NDArray[np.uint8]:
    """The bits of a run, an element a byte; shift by shift, which takes half the time of all shifts at once."""
    count, width = field.shape
    data = np.ascontiguousarray(field).reshape(count, width // run.length, run.length)
    out = np.empty((count, width // run.length, 8 // run.bits, run.length), np.uint8)
    for k in range(8 // run.bits):
        np.right_shift(data, k * run.bits, out=out[:, :, k])
    out &= 2**run.bits - 1
    return out.reshape(count, width * 8 // run.bits)


def _times(blocks: Array, factor: str, integers: Any) -> Array:
    """Factors of blocks by the integers of their groups."""
    product: Array = blocks[factor].astype(np.float32)[:, None] * integers
    return product


def _factor(name: str) -> Params:
    return lambda blocks: _times(blocks, name, 1)


def _q2_k(blocks: Array) -> Array:
    return _times(blocks, "d", blocks["scales"] & 15)


def _q2_k_offset(blocks: Array) -> Array:
    return -_times(blocks, "dmin", blocks["scales"] >> 4)


def _q3_k(blocks: Array) -> Array:
    """Sixteen integers of 6 bits, stored plus 32: the low 4 bits in 8 bytes, the high 2 in another 4."""
    scales = blocks["scales"]
    integers = _spread(scales[:, :8], Run("scales", 8, 4)) | _spread(scales[:, 8:], Run("scales", 4, 2)) << 4
    return _times(blocks, "d", integers.view(np.int8) - 32)


def _q4_k(blocks: Array) -> Array:
    return _times(blocks, "d", _integers(blocks["scales"], 0))


def _q4_k_offset(blocks: Array) -> Array:
    return -_times(blocks, "dmin", _integers(blocks["scales"], 1))


def _integers(scales: npt.NDArray[np.uint8], which: int) -> npt.NDArray[np.uint8]:
    """Eight integers of 6 bits, those of scales (0) or those of offsets (1).

    The first four are the low 6 bits of four bytes. The high 2 bits of these bytes belong to the last four, whose low 4
    are in bytes 8 to 11: those of scales in the low halves, those of offsets in the high ones.
    """
    first = scales[:, 4 * which : 4 * which + 4]
    last = (scales[:, 8:] >> 4 * which & 15) | first >> 6 << 4
    return np.concatenate([first & 63, last], axis=1)


def _q6_k(blocks: Array) -> Array:
    return _times(blocks, "d", blocks["scales"].view(np.int8))


def _type(name: str, bits: int, group: int, fields: str, runs: list[Run], *params: Params) -> BlockType:
    """A row of the table; fields in the order of a block: bytes, as "name:count", or one float16."""
    split = [field.partition(":") for field in fields.split()]
    layout = np.dtype([(name, "u1", int(count)) if count else (name, "<f2") for name, _, count in split])
    return BlockType(name, bits, group, layout, tuple(runs), *params)


_d, _m = _factor("d"), _factor("m")
BLOCK_TYPES = {  # by their numbers in enum ggml_type
    2: _type("Q4_0", 4, 32, "d qs:16", [Run("qs", 16, 4)], _d),
    3: _type("Q4_1", 4, 32, "d m qs:16", [Run("qs", 16, 4)], _d, _m),
    6: _type("Q5_0", 5, 32, "d qh:4 qs:16", [Run("qs", 16, 4), Run("qh", 1, 1, 4)], _d),
    7: _type("Q5_1", 5, 32, "d m qh:4 qs:16", [Run("qs", 16, 4), Run("qh", 1, 1, 4)], _d, _m),
    8: _type("Q8_0", 8, 32, "d qs:32", [Run("qs", 32, 8)], _d),
    10: _type("Q2_K", 2, 16, "scales:16 qs:64 d dmin", [Run("qs", 32, 2)], _q2_k, _q2_k_offset),
    11: _type("Q3_K", 3, 16, "hmask:32 qs:64 scales:12 d", [Run("qs", 32, 2), Run("hmask", 32, 1, 2)], _q3_k),
    12: _type("Q4_K", 4, 32, "d dmin scales:12 qs:128", [Run("qs", 32, 4)], _q4_k, _q4_k_offset),
    13: _type(
        "Q5_K", 5, 32, "d dmin scales:12 qh:32 qs:128", [Run("qs", 32, 4), Run("qh", 32, 1, 4)], _q4_k, _q4_k_offset
    ),
    14: _type("Q6_K", 6, 16, "ql:128 qh:64 scales:16 d", [Run("ql", 64, 4), Run("qh", 32, 2, 4)], _q6_k),
}
