"""Weights of the operator MatMulNBits (domain com.microsoft): N rows of K codes of 2, 4 or 8 bits, in blocks along K.

=========== ================================ ===========================================================================
input       shape                            what it holds
=========== ================================ ===========================================================================
B           [N, blocks, block_size*bits/8]   codes as a dense bit stream along K; the last block is filled up
scales      [N, blocks]                      floats, negative ones, too
zero_points [N, ceil(blocks*bits/8)] uint8,  codes, packed as those of B are,
            or [N, blocks] floats            or numbers of the type of scales; ``2**(bits-1)`` where they are left out
=========== ================================ ===========================================================================

``w = (code - zero_point) * scale``, computed in float32; with zero points that are floats ``code * scale - zero_point *
scale``, each product rounded. Source: ContribOperators.md of onnxruntime 1.32, and what its CPU kernels compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array
from fastq.layout.bitstream import stream_bytes, unpack_bits
from fastq.layout.tiles import ceil_div
from fastq.promotion import is_float
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

BITS, SMALLEST_BLOCK = (2, 4, 8), 16


class Form(NamedTuple):
    """The attributes of the operator."""

    k: int
    n: int
    bits: int
    block: int

    def check(self) -> None:
        """Raise ValueError unless they describe a matrix."""
        if self.k < 1 or self.n < 1:
            raise ValueError(f"K and N must be positive, got {shown(self.k)} and {shown(self.n)}")
        if self.bits not in BITS:
            raise ValueError(f"bits must be 2, 4 or 8, which onnxruntime computes with, got {shown(self.bits)}")
        if self.block < SMALLEST_BLOCK or self.block & (self.block - 1):
            raise ValueError(f"block_size must be a power of two, 16 or more, got {shown(self.block)}")

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return ceil_div(self.k, self.block)


def stream(b: Array, form: Form) -> Array:
    """The bit stream of each row, up to K."""
    row = form.blocks * form.block * form.bits // 8
    if b.dtype != np.uint8 or b.size != form.n * row:
        raise ValueError(
            f"B must be uint8 of shape {(form.n, form.blocks, row // form.blocks)}, got {b.dtype} of shape {b.shape}"
        )
    return b.reshape(form.n, row)[:, : stream_bytes(form.k, form.bits)]


def by_block(scales: Array, form: Form, name: str = "scales") -> Array:
    """Floats, one per block."""
    if not is_float(scales.dtype) or scales.size != form.n * form.blocks:
        raise ValueError(
            f"{name} must be floats of shape {(form.n, form.blocks)}, got {scales.dtype} of shape {scales.shape}"
        )
    return scales.reshape(form.n, form.blocks)


def zeros(given: Array, form: Form) -> Array:
    """Zero points that are packed, one per block."""
    row = stream_bytes(form.blocks, form.bits)
    if given.size != form.n * row:
        raise ValueError(f"zero_points of uint8 must have the shape {(form.n, row)}, got {given.shape}")
    return unpack_bits(given.reshape(form.n, row), form.bits, form.blocks)


def offsets(scales: Array, given: Array, form: Form) -> Array:
    """Zero points that are floats, as offsets."""
    points = by_block(given, form, "zero_points, if not of uint8,").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return -scales.astype(np.float32) * points


def dequantized(b: Array, scales: Array, zero_points: Array | None, form: Form) -> Array:
    """The weights, float32 of shape (N, K)."""
    form.check()
    w = unpack_bits(stream(b, form), form.bits, form.k).astype(np.float32)
    scale = by_block(scales, form).astype(np.float32)
    floats = zero_points is not None and zero_points.dtype != np.uint8
    if not floats:
        w -= 2 ** (form.bits - 1) if zero_points is None else _spread(zeros(zero_points, form), form)
    w *= _spread(scale, form)
    if zero_points is not None and floats:
        w += _spread(offsets(scale, zero_points, form), form)
    return w


def qarray(b: Array, scales: Array, zero_points: Array | None, form: Form) -> QArray:
    """The weights as a quantized array of shape (N, K)."""
    form.check()
    scale, rows = by_block(scales, form), stream(b, form)
    zero = offset = None
    if zero_points is not None and zero_points.dtype != np.uint8:
        offset = offsets(scale, zero_points, form)
    elif zero_points is not None:
        zero = zeros(zero_points, form)
        if np.all(zero == 2 ** (form.bits - 1)):
            zero = None  # the same as if it were left out: symmetric arrays multiply faster
    group = form.block if form.blocks > 1 else None
    return from_parts(
        rows, scale, bits=form.bits, zero_point=zero, offset=offset, group_size=group, packed=True,
        shape=(form.n, form.k),
    )  # fmt: skip


def _spread(parameters: Array, form: Form) -> Array:
    return np.repeat(parameters, form.block, axis=1)[:, : form.k]
