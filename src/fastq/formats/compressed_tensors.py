"""The formats pack-quantized and int-quantized of compressed-tensors (0.20.1: compressors/pack_quantized, and
naive_quantized; quantization/lifecycle/forward.py).

    weight_packed      int32  [..., N, ceil(K * bits / 32)]   codes along K, a dense little-endian bit stream
    weight             int8   [..., N, K]                     or codes as they are (int-quantized)
    weight_scale       floats [..., N, G], or [..., N, 1], or of one element
    weight_zero_point  int32  [..., ceil(N * bits / 32), G]   zero points along N, likewise; int8 as they are
    weight_shape       int64  [.., N, K]
    weight_g_idx       int32  [K]                             the group of each column (actorder, up to 0.18)

``x = scale * (code - zero_point)``; codes and zero points are signed, and ``2**(bits-1)`` is added to packed ones.
Before version 0.17, a word held ``32 // bits`` codes, and the bits left over stayed empty; of 3, 5, 6 and 7 bits, all
but the shortest rows took more words then.

The configuration has settings by groups of modules. Which group a module is of follows from its shapes, so its patterns
of names are not run: one of the groups must fit, and all that fit must tell the same width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array
from fastq.formats.entries import Entry
from fastq.formats.gptq import by_groups
from fastq.formats.module import FLOATS, INTEGERS, Module, described, unpacked
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

NAME = "compressed-tensors"
PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_global_scale")
FORMATS = ("pack-quantized", "int-quantized", "naive-quantized", "mixed-precision")
BITS = range(2, 9)
DENSE_SINCE = (0, 17)
MOST = 64  # kinds of weights in a checkpoint
Shape = tuple[int, ...]


class Weights(NamedTuple):
    """What a configuration says of the weights of a group of modules."""

    bits: int
    symmetric: bool
    strategy: str | None
    group_size: int | None

    def fit(self, length: int, groups: int | None) -> bool:
        """Whether rows of this length can have so many groups; None: the whole array has one scale."""
        if self.strategy == "tensor" or groups is None:
            return groups is None and self.strategy in ("tensor", None)
        if self.strategy == "channel" or self.group_size == -1:
            return groups == 1
        return self.group_size is not None and groups * self.group_size == length


class Packing(NamedTuple):
    """How codes lie in words."""

    bits: int
    dense: bool

    def words(self, count: int) -> int:
        """Words that so many codes take."""
        return -(-count * self.bits // 32) if self.dense else -(-count // (32 // self.bits))

    def unpacked(self, words: Array, count: int) -> Array:
        """So many codes along the last axis."""
        if self.dense:
            return unpacked(words, self.bits, count)
        each = 32 // self.bits
        shifts = np.arange(each, dtype=np.uint32) * np.uint32(self.bits)
        codes = np.empty((*words.shape, each), np.uint8)
        np.bitwise_and(words.astype(np.uint32)[..., None] >> shifts, 2**self.bits - 1, out=codes, casting="unsafe")
        return codes.reshape(*words.shape[:-1], -1)[..., :count]


class Settings(NamedTuple):
    """What a configuration says."""

    form: Any
    version: Any
    weights: tuple[Weights, ...]  # empty: of any kind


def settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a checkpoint; what is none is passed over."""
    kinds = dict.fromkeys(_weights(config))
    return Settings(config.get("format", FORMATS[0]), config.get("version"), tuple(islice(kinds, MOST)))


def _weights(config: Mapping[str, Any]) -> Iterator[Weights]:
    """Settings of weights that are integers."""
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and weights.get("type", "int") == "int":
            bits, strategy, size = weights.get("num_bits", 8), weights.get("strategy"), weights.get("group_size")
            right = type(bits) is int and isinstance(strategy, str | None) and type(size) in (int, type(None))
            if right:
                yield Weights(bits, weights.get("symmetric") is not False, strategy, size)


def entry(module: Module, settings: Settings) -> Entry:
    """The weight of a module, as its shapes and the configuration describe it."""
    if settings.form not in FORMATS or "weight_global_scale" in module.tensors:
        problem = f"of the formats of compressed-tensors, fastq reads {', '.join(FORMATS)}; got {shown(settings.form)}"
        module.fail(problem)
    groups, known = _groups(module), settings.weights
    if "weight" in module.tensors:
        shape = module.shape("weight", ("int8",))
        _check_scale(module, shape, known)
        return module.entry(shape, _described(8, shape, groups), lambda: _array(module, shape, None))
    shape = _shape(module, known, groups)
    _check_scale(module, shape, known)
    fit = [w for w in known if w.fit(shape[-1], groups)]
    packing = _packing(module, shape, {w.bits for w in fit} if known else set(BITS), settings.version)
    if "weight_zero_point" not in module.tensors and fit and not any(w.symmetric for w in fit):
        module.fail("it is asymmetric, and needs a tensor weight_zero_point")
    return module.entry(shape, _described(packing.bits, shape, groups), lambda: _array(module, shape, packing))


def _groups(module: Module) -> int | None:
    """Scales of a row; None: there is but one scale for the whole array."""
    shape = module.shape("weight_scale", FLOATS)
    return None if len(shape) < 2 and prod(shape) == 1 else shape[-1] if shape else None


def _described(bits: int, shape: Shape, groups: int | None) -> str:
    return described(bits, groups or 1, shape[-1] // (groups or 1))


def _shape(module: Module, known: tuple[Weights, ...], groups: int | None) -> Shape:
    """The shape of a packed weight: from the header, where groups have one size; else what the file says of it."""
    packed = module.shape("weight_packed", ("int32",))
    sizes = {w.group_size for w in known}
    size = sizes.pop() if len(sizes) == 1 else None
    if groups is not None and size is not None and size > 0 and all(w.strategy == "group" for w in known):
        return (*packed[:-1], groups * size)
    return _stored_shape(module)


def _stored_shape(module: Module) -> Shape:
    packed = module.shape("weight_packed", ("int32",))
    if module.shape("weight_shape", INTEGERS, 1) != (len(packed),):
        module.fail(f"weight_shape must have an entry per axis of weight_packed, {len(packed)}")
    return tuple(map(int, module.read("weight_shape")))


def _check_scale(module: Module, shape: Shape, known: tuple[Weights, ...]) -> None:
    """That scales fit a weight, and one of the settings."""
    scale, groups = module.shape("weight_scale", FLOATS), _groups(module)
    rows = scale[:-1] == shape[:-1] or scale[:-1] == (1,) * (len(shape) - 1)
    if len(shape) < 2 or min(shape) < 1 or (groups is not None and not (rows and shape[-1] % groups == 0)):
        module.fail(f"weight_scale must have one entry, or one per row or group of {shape}; got shape {scale}")
    if known and not any(w.fit(shape[-1], groups) for w in known):
        module.fail(f"the configuration has no settings for {shape} with weight_scale of shape {scale}")


def _packing(module: Module, shape: Shape, bits: set[int], version: Any) -> Packing:
    """The packing that fits the numbers of words; where both kinds do, that of the version."""
    packed, zeros = module.shape("weight_packed", ("int32",)), module.tensors.get("weight_zero_point")
    rows, length = shape[-2:]
    fit: list[Packing] = []
    for dense in (False, True) if _padded(version) else (True, False):
        fit = fit or [
            packing
            for packing in (Packing(b, dense) for b in sorted(bits & set(BITS)))
            if packed == (*shape[:-1], packing.words(length))
            and (zeros is None or zeros.kind != "int32" or zeros.shape[-2:-1] == (packing.words(rows),))
        ]
    if len(fit) != 1:
        widths = ", ".join(map(str, sorted(bits)))
        module.fail(
            f"weight_packed must be of shape {shape} in one of the widths stated, {widths} bits; got {packed}, which "
            f"fits {len(fit)} of them"
        )
    return fit[0]


def _padded(version: Any) -> bool:
    """Whether the version of compressed-tensors that wrote a file padded words."""
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < DENSE_SINCE


def _array(module: Module, shape: Shape, packing: Packing | None) -> QArray:
    groups, zeros = _groups(module), _zeros(module, shape, packing)
    given: dict[str, Any] = {"bits": packing.bits if packing else 8, "axis": None if groups is None else -1}
    codes = module.read("weight") if packing is None else _codes(module, shape, packing)
    if zeros is not None and zeros.any():
        given["zero_point"] = zeros
    size = shape[-1] // (groups or 1)
    if "weight_g_idx" in module.tensors and groups:
        size, order = _act_order(module, shape, groups)
        if order is not None:
            codes, given["order"] = np.take(codes, order, axis=-1), order
    if groups and groups > 1:
        given["group_size"] = size
    return from_parts(codes, module.read("weight_scale"), **given)


def _codes(module: Module, shape: Shape, packing: Packing) -> Array:
    """Packed codes, signed again."""
    if "weight_shape" in module.tensors and (stored := _stored_shape(module)) != shape:
        module.fail(f"weight_shape must be {shape}, as the configuration has it; got {stored}")
    codes = packing.unpacked(module.read("weight_packed"), shape[-1])
    codes -= np.uint8(2 ** (packing.bits - 1))
    return codes.view(np.int8)


def _zeros(module: Module, shape: Shape, packing: Packing | None) -> Array | None:
    """Signed zero points, one for each scale."""
    if "weight_zero_point" not in module.tensors:
        return None
    module.shape("weight_zero_point", ("int8",) if packing is None else ("int8", "int32"))
    zeros = module.read("weight_zero_point")
    if packing is None or zeros.dtype == np.int8:
        return zeros
    unsigned = packing.unpacked(np.ascontiguousarray(zeros.swapaxes(-1, -2)), shape[-2]).swapaxes(-1, -2)
    return unsigned.astype(np.int16) - np.int16(2 ** (packing.bits - 1))


def _act_order(module: Module, shape: Shape, groups: int) -> tuple[int, Array | None]:
    """Size and order of groups; -1 stands for columns whose order was not changed."""
    if module.shape("weight_g_idx", INTEGERS, 1) != shape[-1:]:
        module.fail(f"weight_g_idx must have an entry for each of {shape[-1]} columns")
    indices = module.read("weight_g_idx")
    return (shape[-1] // groups, None) if (indices == -1).any() else by_groups(module, indices, groups)
