"""The choice between two backends of one interface: native kernels, and the reference in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastq.engine import native, reference
from fastq.engine.groups import GroupScales, by_column
from fastq.engine.operands import Array, Right
from fastq.engine.prepared import NativeProduct, PreparedProduct
from fastq.errors import NotFiniteError
from fastq.kernels.table import ISAS
from fastq.layout.tiles import Segments, TileFormat, segments
from fastq.machine import cpu
from fastq.scheme import CodeRange

RIGHT_NOT_FINITE = "b must be finite, because NaN and infinity have no code"


class Backend(NamedTuple):
    """The functions of a backend; :mod:`fastq.engine.native` documents their arguments."""

    quantize: Callable[..., int]
    search: Callable[..., None]
    search_shared: Callable[..., None]
    compensate: Callable[..., None]
    pack: Callable[[Array, int, int, Segments], Right]
    quantize_right: Callable[[Array, int, Segments], tuple[Right, Array] | None]
    unpack: Callable[[Right, CodeRange], Array]
    unpack_columns: Callable[[Right, CodeRange, Array], tuple[Array, GroupScales | None]]
    prepare: Callable[..., PreparedProduct]


NATIVE, REFERENCE = (
    Backend(
        b.quantize,
        b.search,
        b.search_shared,
        b.compensate,
        b.pack_right,
        b.quantize_right,
        b.unpack,
        b.unpack_columns,
        product,
    )
    for b, product in ((native, NativeProduct), (reference, reference.ReferenceProduct))
)


def backend(size: Any = 1) -> Backend:
    """The backend in use. It is the reference for empty arrays, which kernels do not take."""
    return REFERENCE if size == 0 or cpu.chosen(ISAS) == "reference" else NATIVE


def pack_right(codes: Array, low: int, bits: int, k_segments: Segments, scales: GroupScales | None = None) -> Right:
    """Pack a matrix of codes (K x N, any strides), relative to the lowest code.

    Integer group `scales` go with one segment of K only. The sums are then those of the codes as multiplied.
    """
    pack = backend().pack
    if scales is None:
        return pack(codes, low, bits, k_segments)
    (k, n), limits = codes.shape, CodeRange(low, low + 2**bits - 1)
    if (scales.scale < 0).any():
        codes, low = scales.mirrored(np.subtract(codes, low, dtype=np.int16).astype(np.uint8), limits), 0
    # With a segment per group, the tiles are the same, and the sums are by group.
    right = pack(codes, low, bits, segments(k, scales.size))
    packed = scales.packed(limits, k_segments)
    factor, shift = by_column(packed)[:, : len(scales.scale)]
    counts = np.full((len(factor), 1), scales.size, np.int32)
    counts[-1] = k - (len(counts) - 1) * scales.size
    assert right.col_sum is not None
    sums = (factor * right.col_sum + shift * counts).sum(axis=0, dtype=np.int32, keepdims=True)
    return Right(right.tiles, segments(k), n, TileFormat(bits, grouped=True), sums, packed, scales.size)


def quantize_right(x: Array, bits: int, k_segments: Segments) -> tuple[Right, Array]:
    """Quantize a matrix of floats (contiguous by rows or columns) by column, symmetric by max|x|, and pack it.

    Gives the scales, too. Raises NotFiniteError.
    """
    packed = backend(x.size).quantize_right(x, bits, k_segments)
    if packed is None:
        raise NotFiniteError(RIGHT_NOT_FINITE)
    return packed


def unpack(right: Right, limits: CodeRange) -> Array:
    """The codes of a packed matrix, K x N."""
    return _unpacking(right).unpack(right, limits)


def unpack_columns(right: Right, limits: CodeRange, columns: Array) -> tuple[Array, GroupScales | None]:
    """The codes of some columns of a packed matrix, ``[columns][K]``, and the integer scales of their groups."""
    columns = np.ascontiguousarray(columns, np.int64)
    return _unpacking(right, columns.size).unpack_columns(right, limits, columns)


def _unpacking(right: Right, count: int = 1) -> Backend:
    """Who unpacks so many columns, or all of them."""
    return backend(int(right.k_segments.gapless and min(right.k_segments.k, right.n, count) > 0))
