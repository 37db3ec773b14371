"""A quantized array as an operand of products: what :class:`fastq.products.operands.Operand` asks for.

The class body of :class:`fastq.QArray` makes these functions its methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastq.engine.operands import BatchIndex, ChannelTransform, ColumnParams, LineParams, Right
from fastq.layout.tiles import Segments, segments
from fastq.products.operands import Operand
from fastq.promotion import wide
from fastq.qarray.rearrange import expanded, group_scales, in_codes_order, part, swapped_matrices
from fastq.quant.spec import QuantSpec
from fastq.scheme import ACTIVATIONS, code_range
from fastq.typed import Activations
from fastq.validation import word

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

Array = npt.NDArray[Any]


def promoted(q: QArray, side: str) -> QArray:
    """A vector as a row (side "left") or a column ("right")."""
    return q if q.ndim != 1 else expanded(q, 0 if side == "left" else 1)


def balance_along(q: QArray, side: str) -> ChannelTransform | None:
    """The transform that the other operand needs along the summed axis, if this one is balanced there."""
    if q._balance is None or q.axis != q.ndim - (1 if side == "left" else 2):
        return None
    return ChannelTransform(q._balance.reshape(-1), q.rotation)


def order_along(q: QArray, side: str) -> npt.NDArray[np.int64] | None:
    """The order in which its codes lie along the summed axis, if it is another than that of its elements."""
    if q._order is None or q.axis != q.ndim - (1 if side == "left" else 2):
        return None
    return q._order.reshape(-1)


def taken(q: QArray, side: str, places: npt.NDArray[np.int64]) -> QArray:
    """The array with its codes along the summed axis in this order of theirs, and no order of its own.

    ValueError, if groups or rotated blocks would be torn.
    """
    plain, rest = in_codes_order(q), (slice(None),) * (q.ndim - 2)
    result = part(plain, (*rest, slice(None), places) if side == "left" else (*rest, places, slice(None)))
    if result.group_size != q.group_size:  # groups of one, say: a product would be as slow as one of floats
        raise ValueError(f"groups must stay together; got groups of {result.group_size} for {q.group_size}")
    return result


def group_along(q: QArray, side: str) -> int | None:
    """The size of its groups along the summed axis, if there are some."""
    return q.group_size if q.axis == q.ndim - (1 if side == "left" else 2) else None


def lines(q: QArray, index: BatchIndex, side: str) -> LineParams:
    """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
    key = (index, side)
    kept: LineParams | None = q._cache.get(key)
    if kept is None:
        kept = q._cache[key] = _lines(q, index, side)
    return kept


def _lines(q: QArray, index: BatchIndex, side: str) -> LineParams:
    summed, kept = (q.ndim - 1, q.ndim - 2) if side == "left" else (q.ndim - 2, q.ndim - 1)
    check_summed(q, (summed,), side)
    at = index
    if q.axis is not None and q.axis < q.ndim - 2 and q.group_size is not None:
        at = (*index[: q.axis], index[q.axis] // q.group_size, *index[q.axis + 1 :])

    def of_matrix(p: Array | None) -> Array | None:
        if p is None:
            return None
        p = wide(p)
        if q.axis == kept and q.group_size is not None:
            p = np.take(p, np.arange(q.shape[kept]) // q.group_size, axis=kept)
        return _entry(p, at)

    if _integer_scales_along(q, summed):
        return LineParams(code_range(8, "symmetric"), q.bits, of_matrix(q._scale))
    if q.axis != summed and (q.rotation > 1 or q.order is not None):
        what = "rotated" if q.rotation > 1 else "reordered"
        raise ValueError(
            f"a {what} array must be summed over the axis along which it is; got shape {q.shape}, {what} along axis "
            f"{q.axis}, as the {side} operand: multiply q.dequantize()"
        )
    scale, zero, offset = of_matrix(q.scale), of_matrix(q.zero_point), of_matrix(q.offset)
    if q.balance is not None and q.axis != summed:  # the balance multiplies the scale, by line or by matrix
        # In float64, where products of two float32 are exact: a product in float64 must not see them rounded.
        factor = _entry(q.balance, index).astype(float)
        scale, offset = (None if p is None else p * factor for p in (scale, offset))
    group = q.group_size if q.axis == summed else None
    return LineParams(code_range(q.bits, q.scheme), q.bits, scale, zero, offset, group)


def _entry(p: Array, index: BatchIndex) -> Array:
    """The parameters of one matrix; a batch axis of length 1 stands for all matrices along it."""
    entry: Array = p[tuple(0 if n == 1 else i for n, i in zip(p.shape, index))]
    return entry


def _integer_scales_along(q: QArray, axis: int) -> bool:
    """Whether groups along an axis have integer scales."""
    return q.axis == axis and q._store.groups_shape is not None


def matrix(q: QArray, index: BatchIndex) -> Array:
    """Codes of one matrix as a left operand: times the integer scales of groups along its rows."""
    codes: Array = q.codes[index]
    if _integer_scales_along(q, q.ndim - 1) and (scales := group_scales(q)) is not None:
        transposed = scales.arranged(lambda values: values.mT)
        codes = transposed.of_matrix(index).multiplied(codes.T).T
    return codes


def rows_of(q: QArray, index: BatchIndex, rows: slice) -> Array:
    """Some rows of one matrix; no more codes are unpacked than they need."""
    if rows == slice(0, q.shape[-2]):
        return matrix(q, index)
    few = part(q, (*(slice(i, i + 1) for i in index), rows, slice(None)))
    return matrix(few, (0,) * len(index))


def rows(q: QArray) -> tuple[Array, Array] | None:
    """Codes and scales, if it is a matrix of int8 with one scale per row, no zero points, and not packed."""
    usual = q.scheme == "symmetric" and q.bits == 8 and q.axis == 1 and q.group_size is None
    if not usual or q._transposed or len(q.shape) != 2 or q._store.packed or q._balance is not None:
        return None
    if q._order is not None:
        return None
    return q._store.codes(), q._scale


def right(q: QArray, index: BatchIndex, k_segments: Segments) -> Right:
    """One matrix, packed."""
    return q._store.right(index, q._transposed, k_segments, _integer_scales_along(q, q.ndim - 2))


def columns(
    q: QArray, index: BatchIndex, packed: Right, k_segments: Segments, dtype: np.dtype[Any], affine: bool
) -> ColumnParams:
    """Column parameters of one packed matrix, kept for the next product."""
    key = (index, k_segments, dtype, affine)
    kept: ColumnParams | None = q._cache.get(key)
    if kept is None:
        kept = q._cache[key] = Operand.columns(q, index, packed, k_segments, dtype, affine)
    return kept


def prepack(q: QArray) -> QArray:
    """Pack the codes now, rather than at the first product; returns the array itself.

    They are packed for ``x @ q``, or, if the last axis shares a scale, for ``x @ q.mT`` and ``q @ x``.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> q = fq.quantize(np.ones((1024, 512), np.float32), bits=2, axis=0)
    >>> before = q.nbytes
    >>> q.prepack().nbytes < before / 3
    True
    """
    if q.ndim >= 2 and q.size:
        first, summed = (0,) * (q.ndim - 2), swapped_matrices(q) if q.axis == q.ndim - 1 else q
        right(summed, first, segments(summed.shape[-2], lines(summed, first, "right").group))
    return q


def with_activations(q: QArray, activations: Activations) -> QArray:  # noqa: D417, a method
    """The same array, with another way of quantizing the floats that are multiplied with it.

    Codes and parameters are shared. ``x @ q`` and NumPy's functions quantize rows of x in this way (columns, in
    ``q @ x``), and so does :func:`fastq.matmul`, unless it is told another one. Files keep it.

    Parameters
    ----------
    activations : {"row", "group", "two-plane"}
        ``"row"``: 8-bit codes, ``scale = max|x| / 127`` of each row. ``"group"``: a scale for each group of k, of the
        size of the array's groups along K, or 32 if it has none. ``"two-plane"``: codes of 16 bits,
        ``scale = max|x| / 32639``, of which a high and a low byte are multiplied one beside the other
        (``code = 256 * high + low``), in twice the time.

    Returns
    -------
    QArray

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((64, 256)), rng.standard_normal((256, 8))
    >>> x[:, 7] *= 20  # an outlier, as activations have them
    >>> q = fq.quantize(w, axis=0)
    >>> exact = x @ q.dequantize()
    >>> for way in ("row", "group", "two-plane"):
    ...     finer = q.with_activations(way)
    ...     print(f"{fq.error(exact, x @ finer).sqnr_db:.0f} dB")
    32 dB
    41 dB
    80 dB
    """
    activations = word(activations, "activations", ACTIVATIONS)
    if activations == q.activations:
        return q
    spec = QuantSpec(q.bits, q.axis, q.group_size, q.scheme, rotation=q.rotation)
    parameters = q._scale, q._zero, q._offset, q._balance, q._order
    return type(q)._make(q._store, q._transposed, spec, parameters, q.dtype, activations)


def check_summed(q: QArray, axes: Sequence[int], side: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise ValueError if scales vary along axes that a product sums over, other than in groups.

    `side` is that of the operand. If `q` is a block of a larger array, `shape` is that of the larger array.
    """
    shape = q.shape if shape is None else shape
    long = [axis % len(shape) for axis in axes if shape[axis] > 1]
    if q.axis is None or all(axis == q.axis for axis in long):
        return
    square = side == "right" and len(shape) == 2 and shape[0] == shape[1] and not q._transposed
    rows = "; if a row of it is an output (N x K, as torch has weights), multiply q.T" if square else ""
    sharing = f"axis={q.axis}" + (f" and group_size={q.group_size}" if q.group_size is not None else "")
    raise ValueError(
        f"the scale of the {side} operand must be constant along the axis that is summed over, or in groups along "
        f"it; got shape {shape} with {sharing}, whose scale varies there: {_hint(long, len(shape), q._transposed)}, or "
        f"multiply q.dequantize(){rows}"
    )


def _hint(summed: list[int], ndim: int, transposed: bool) -> str:
    """How to quantize an array that is summed over these axes; of a transposed one, how to quantize the original."""
    if len(summed) > 1:
        return "quantize it with axis=None"
    fix = summed[0] - ndim
    if not transposed or fix < -2:
        return f"quantize it with axis={fix} or axis=None"
    original, one_per = (-1, "row") if fix == -2 else (-2, "column")
    return f"it is a transpose; quantize the original with axis={original}, one scale per {one_per}, or axis=None"
