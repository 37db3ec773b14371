"""The reference backend: what :mod:`fastq.engine.native` does, in NumPy; slow, and right by inspection.

The definitions are in :mod:`fastq.kernels.reference`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from fastq.engine.groups import GroupScales
from fastq.engine.memory import Workspace
from fastq.engine.operands import Array, Right, RowParams, column_sums, of_columns
from fastq.engine.pointers import strided
from fastq.engine.prepared import FUNCTION_RAISED, LEFT_NOT_FINITE, PreparedProduct
from fastq.engine.views import FlatParams, GroupedView
from fastq.errors import NotFiniteError
from fastq.kernels import reference
from fastq.kernels.epilogue import activations
from fastq.kernels.epilogue.outputs import Output
from fastq.kernels.jobs import CHOOSE, FIND, NOT_FINITE, SPAN_OVERFLOW, WRITE
from fastq.kernels.reference import compensate, search_runs, search_shared
from fastq.layout.tiles import Segments, TileFormat, pack_codes
from fastq.scheme import CodeRange, code_range, symmetric_scale

__all__ = [
    "ReferenceProduct",
    "activated",
    "compensate",
    "pack_right",
    "quantize",
    "quantize_right",
    "search",
    "search_shared",
    "unpack",
    "unpack_columns",
]

search = search_runs


def quantize(
    x: Array,
    codes: Array | None,
    view: GroupedView,
    params: FlatParams,
    limits: tuple[int, int],
    scheme: int,
    work: int,
) -> int:
    """See :func:`fastq.engine.native.quantize`."""
    shape, pitches = (view.outer, view.groups, view.n, view.inner), (view.outer_pitch, view.group_pitch, view.inner, 1)
    sets, between = (view.outer, view.groups, view.inner), (view.param_pitch, view.group_param, 1)

    def of_sets(*arrays: Array) -> list[Array]:
        return [strided(p, view.param_start, sets, between) for p in arrays]

    values, grid = strided(x, view.start, shape, pitches), CodeRange(*limits)
    if work & FIND:
        if not np.isfinite(values).all():
            return NOT_FINITE
        low, high = of_sets(params.minimum, params.maximum)
        low[...], high[...] = (end(values, axis=2) if view.n else 0 for end in (np.min, np.max))
    if work & CHOOSE:
        scale, zero, offset, low, high = of_sets(*params)
        with np.errstate(over="ignore"):
            if scheme == 2 and not np.isfinite(high - low).all():
                return SPAN_OVERFLOW
        scale[...], zero[...], offset[...] = reference.parameters(low, high, grid, scheme)
    if work & WRITE and codes is not None:
        scale, zero, offset = (p[:, :, None] for p in of_sets(*params[:3]))
        strided(codes, view.start, shape, pitches)[...] = reference.codes(values, scale, zero, offset, grid)
    return 0


def pack_right(codes: Array, low: int, bits: int, k_segments: Segments) -> Right:
    """See :func:`fastq.engine.native.pack_right`."""
    unsigned = (codes.astype(np.int16) - low).astype(np.uint8)
    right = Right(pack_codes(unsigned, k_segments, bits), k_segments, codes.shape[1], TileFormat(bits), None)
    right.col_sum = column_sums(unsigned, k_segments, right.width)
    return right


def quantize_right(x: Array, bits: int, k_segments: Segments) -> tuple[Right, Array] | None:
    """See :func:`fastq.engine.native.quantize_right`."""
    values, limits = x if x.dtype.itemsize > 2 else x.astype(np.float32), code_range(bits, "symmetric")
    if not np.isfinite(values).all():
        return None
    top = np.abs(values).max(axis=0, initial=0)
    scale, zero, _ = reference.parameters(-top, top, limits, 0)
    return pack_right(reference.codes(values, scale, zero, None, limits), limits.low, bits, k_segments), scale


def unpack(right: Right, limits: CodeRange) -> Array:
    """See :func:`fastq.engine.native.unpack`; any tiles."""
    unsigned = right.stored()
    if (scales := right.group_scales(limits)) is not None:
        unsigned = scales.mirrored(unsigned, limits)
    return np.add(unsigned, limits.low, dtype=np.int16).astype(np.int8 if limits.signed else np.uint8)


def unpack_columns(right: Right, limits: CodeRange, columns: Array) -> tuple[Array, GroupScales | None]:
    """See :func:`fastq.engine.native.unpack_columns`; any tiles."""
    return np.ascontiguousarray(unpack(right, limits).T[columns]), right.group_scales(limits, columns)


class ReferenceProduct(PreparedProduct):
    """A product in NumPy."""

    quantize = staticmethod(quantize)

    def packed(self, work: Workspace, x: Array, params: RowParams | None, bias: Array | None) -> Any:
        """See :class:`PreparedProduct`."""
        if params is None:
            x, params = self._quantized_rows(x)
        return x, params, bias

    def _quantized_rows(self, x: Array) -> tuple[Array, RowParams]:
        """Rows of floats under a symmetric scale each, or one per segment. Codes of two planes are left in one."""
        x = x.astype(self.computed, copy=False)
        if self.form.transform is not None:
            x = self.form.transform.apply(x)
        if not np.isfinite(x).all():
            raise NotFiniteError(LEFT_NOT_FINITE)
        high, tiny = self.form.high, np.finfo(x.dtype).smallest_subnormal
        starts = range(0, x.shape[1], self.k_segments.size) if self.form.groups > 1 else [0]
        tops = np.maximum.reduceat(np.abs(x), starts, axis=1)
        flat = [symmetric_scale(top, x.dtype.type(high), tiny) for top in tops.flat]
        scale = np.array(flat, x.dtype).reshape(tops.shape)
        by_k = np.repeat(scale, self.k_segments.size, axis=1)[:, : x.shape[1]] if self.form.groups > 1 else scale
        return np.clip(np.rint(x / by_k), -high, high).astype(np.int32), RowParams(scale, None, None)

    def _multiply(self, left: Any, out: Array, first: int) -> None:
        x, params, bias = left
        part = slice(first, first + len(out))
        params = RowParams(*(None if p is None else p[part] for p in params))  # type: ignore[arg-type]
        scales = params.scale, of_columns(self.columns.scale)[:, : self.right.n]
        several = self.k_segments.segments > 1
        outside = several and params.offset is None and self.form.groups == 1, self.columns.outside
        inside = [np.ones_like(scale) if out else scale for scale, out in zip(scales, outside)]
        total: Any = None
        for g in range(self.k_segments.segments):
            y = self._segment(x[part], params, inside[0], inside[1], g)
            with np.errstate(over="ignore", invalid="ignore"):  # kernels do not warn
                total = y if total is None else total + y
        if any(outside):
            row, col = (scale if out else np.ones_like(scale) for scale, out in zip(scales, outside))
            total = reference.scaled(total, row[:, 0], col[0], self.output.turned)
        out[...] = activated(total if bias is None else total + bias, self.output)

    def _segment(self, codes: Array, params: RowParams, row_scale: Array, col_scale: Array, g: int) -> Array:
        """One segment of K."""
        columns, n, size = self.columns, self.right.n, self.k_segments.size
        part = slice(g * size, (g + 1) * size)

        def of_columns_at(values: Array) -> Array:
            return of_columns(values)[g if values.shape[1] > 1 else 0, :n]

        row = g if self.form.groups > 1 else 0
        zero = 0 if params.zero is None else params.zero[:, row : row + 1].astype(np.int64)
        a = codes[:, part].astype(np.int64) - zero
        b = self._codes[part].astype(np.int64) - of_columns_at(columns.zero)
        if self.computed == np.int32:
            return reference.product(a, b)
        planes = reference.planes(a) if self.output.planes > 1 else [a]
        y = reference.as_float([reference.product(plane, b) for plane in planes], self.computed)
        scale, col_offsets, row_offsets = row_scale[:, row], None, None
        if columns.offset is not None and columns.term is not None:
            sums = reference.as_float([plane.sum(axis=1) for plane in planes], self.computed)
            col_offsets = scale * sums, of_columns_at(columns.offset)
            if params.offset is not None:
                row_offsets = params.offset[:, row], of_columns_at(columns.term)
        col = col_scale[g if len(col_scale) > 1 else 0]
        return reference.epilogue(y, scale, col, col_offsets, row_offsets, self.output.turned)

    @cached_property
    def _codes(self) -> Array:
        return self.right.codes()


def activated(values: Array, output: Output) -> Array:
    """``activation(values)`` in the output's type; the values have the type in which it is computed."""
    if output.function is not None:
        from fastq.kernels.epilogue.custom import compiled

        function = compiled(output.function, output.computed)
        try:
            values = np.array([function(v) for v in values.flat], values.dtype).reshape(values.shape)
        except Exception as error:
            raise RuntimeError(FUNCTION_RAISED) from error
    elif output.activation:
        values = activations.on_arrays(output.activation, values)
    with np.errstate(over="ignore"):
        return values.astype(output.type, copy=False)
