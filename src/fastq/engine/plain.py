"""Products in plain NumPy, from the definitions in :mod:`fastq.kernels.reference`: slow, and right by inspection."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine.prepack import Balance, Columns, Right
from fastq.kernels import activations, reference
from fastq.kernels.outputs import Output
from fastq.layout.tiles import Segments
from fastq.scheme import symmetric_scale

FUNCTION_RAISED = (
    "the function given as epilogue must not raise an exception, but for some element it did; what the product's "
    "output holds is undefined"
)


class Rows(NamedTuple):
    """A left operand: int codes (M x K), parameters ``[m][groups]``."""

    codes: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    zero: npt.NDArray[Any]
    offset: npt.NDArray[Any] | None

    def rows(self, first: int, count: int) -> Rows:
        """Some of the rows."""
        return Rows(*(None if p is None else p[first : first + count] for p in self))  # type: ignore[arg-type]


def quantized_rows(x: npt.NDArray[Any], high: int, balance: Balance | None = None) -> Rows | None:
    """Rows of floats (balanced, if they are to be) under a symmetric scale each; None if one is not finite."""
    x = x.astype(np.result_type(x.dtype, np.float32) if x.dtype.kind == "f" else np.float32, copy=False)
    if balance is not None:
        x = balance.on(x)
    if not np.isfinite(x).all():
        return None
    tiny = np.finfo(x.dtype).smallest_subnormal
    tops = np.abs(x).max(axis=1, initial=0)
    scale = np.array([symmetric_scale(top, x.dtype.type(high), tiny) for top in tops], x.dtype).reshape(-1, 1)
    codes = np.clip(np.rint(x / scale), -high, high).astype(np.int8)
    return Rows(codes, scale, np.zeros((len(x), 1), np.int64), None)


def product(
    left: Rows, right: Right, columns: Columns, cuts: Segments, output: Output, bias: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    """``left @ right + bias`` in plain NumPy."""
    codes, n, dtype = right.codes(), right.n, np.dtype(output.computed)
    total: Any = None
    for g in range(cuts.segments):
        part = slice(g * cuts.size, (g + 1) * cuts.size)
        lg, cg, zg = (g if size > 1 else 0 for size in (left.scale.shape[1], len(columns.scale), len(columns.zero)))
        a = left.codes[:, part].astype(np.int64) - left.zero[:, lg : lg + 1]
        b = codes[part].astype(np.int64) - columns.zero[zg, :n]
        y: Any = reference.product(a, b)
        if dtype != np.int32:
            row_affine = col_affine = None
            if columns.offset is not None and columns.term is not None:
                scale = left.scale[:, lg]
                shift = np.zeros_like(scale) if left.offset is None else left.offset[:, lg]
                row_affine = np.stack([scale * a.sum(axis=1).astype(dtype), shift])
                col_affine = np.stack([columns.offset[cg, :n], columns.term[g, :n]])
            y = reference.epilogue(y, left.scale[:, lg], columns.scale[cg, :n], row_affine, col_affine)
        total = y if total is None else total + y
    return activated(total if bias is None else total + bias, output)


def activated(values: npt.NDArray[Any], output: Output) -> npt.NDArray[Any]:
    """What an output's activation makes of values of the type in which it is computed, in the type of the output."""
    if output.function is not None:
        from fastq.kernels.custom import compiled

        function = compiled(output.function, output.computed)
        try:
            values = np.array([function(v) for v in values.flat], values.dtype).reshape(values.shape)
        except Exception as error:
            raise RuntimeError(FUNCTION_RAISED) from error
    elif output.activation:
        values = activations.on_arrays(output.activation, values)
    with np.errstate(over="ignore"):
        return values.astype(output.type, copy=False)
