"""The parts of a product's error: from weights, from activations, and from the rounding of the output."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.accuracy.error import Error, Sums
from fastq.kernels import reference
from fastq.products import dispatch
from fastq.products.operands import FloatForm, Operand, aligned
from fastq.promotion import EIGHT_BIT
from fastq.quant.affine import finite_numbers, quantize, unbalance
from fastq.quant.spec import QuantSpec, expand
from fastq.scheme import ACTIVATIONS, CodeRange
from fastq.typed import Activations
from fastq.validation import word

Array = npt.NDArray[Any]
PARTS = ("weights", "activations", "rounding", "total")
_BLOCK = 1 << 20  # elements of x, of w and of the product that are held in float64 at a time


@dataclass(frozen=True)
class MatmulError:
    """The error of ``x @ q`` and its three parts, each measured against the exact product ``x @ w``.

    Element by element, the parts add up to the total; their squares do so if the parts are not correlated.

    Attributes
    ----------
    weights : Error
        ``x @ (w_hat - w)``: from quantizing the weights.
    activations : Error
        ``(x_hat - x) @ w_hat``: from quantizing x.
    rounding : Error
        ``x @ q - x_hat @ w_hat``: from computing and writing the product in floats.
    total : Error
        ``x @ q - x @ w``.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> x, w = np.eye(2), np.array([[0.4, 4.0], [0.4, -8.0]])
    >>> q = fq.quantize(w, bits=3)  # a scale of 8 / 3
    >>> print(fq.error_matmul(x, w, q))  # x is exact
    part             SQNR        rmse         max
    weights       15.8 dB       0.724        1.33
    activations    inf dB           0           0
    rounding       inf dB           0           0
    total         15.8 dB       0.724        1.33
    >>> fq.error_matmul(x, w, q)
    MatmulError(weights 15.8 dB, activations inf dB, rounding inf dB, total 15.8 dB)
    """

    weights: Error[float]
    activations: Error[float]
    rounding: Error[float]
    total: Error[float]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name).sqnr_db:.1f} dB" for name in PARTS)
        return f"MatmulError({parts})"

    def __str__(self) -> str:
        lines = [f"{'part':<12}{'SQNR':>9}{'rmse':>12}{'max':>12}"]
        for name in PARTS:
            part = getattr(self, name)
            lines.append(f"{name:<12}{part.sqnr_db:>6.1f} dB{part.rmse:>12.3g}{part.max_abs:>12.3g}")
        return "\n".join(lines)

    def _repr_html_(self) -> str | None:
        from fastq.pictures.compact import parts, shown

        return shown(lambda e: parts([(name, getattr(e, name).sqnr_db, getattr(e, name).rmse) for name in PARTS]), self)


def error_matmul(
    x: npt.ArrayLike | Operand, w: npt.ArrayLike, q: Operand, *, activations: Activations | None = None
) -> MatmulError:
    """Tell which part of the error of ``x @ q`` comes from the weights, from x, and from rounding.

    With ``x_hat``, the numbers that x is quantized to, and ``w_hat``, those of q, in float64 ::

        x @ q - x @ w  =  x @ (w_hat - w)            weights
            total         + (x_hat - x) @ w_hat      activations
                          + x @ q - x_hat @ w_hat    rounding

    Parameters
    ----------
    x : array_like or QArray
        Rows (M, K), or stacks of them. Floats are quantized as ``x @ q`` does (symmetric, 8 bits, one scale per row,
        unless `activations` says otherwise). A QArray and arrays of int8 or uint8 are multiplied as they are, so their
        part, activations, is 0.
    w : array_like
        The exact weights (K, N).
    q : QArray
        The quantized weights (K, N).
    activations : {"row", "group", "two-plane"}, optional
        As in :func:`fastq.matmul`: how x is quantized. By default as q says.

    Returns
    -------
    MatmulError
        Printing it shows a small table.

    Raises
    ------
    TypeError
        If q is not a QArray, or x or w not of real numbers.
    ValueError
        If the shapes do not fit. As :class:`fastq.NotFiniteError` if x or w holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((9, 64)), rng.standard_normal((64, 32))
    >>> e = fq.error_matmul(x, w, fq.quantize(w, bits=3, axis=0))
    >>> e.weights.sqnr_db < e.activations.sqnr_db < e.rounding.sqnr_db
    True
    """
    if not isinstance(q, Operand):
        raise TypeError(f"q must be a QArray, the quantized weights; got {type(q).__name__}")
    exact = finite_numbers(w, "w")
    if len(q.shape) != 2 or exact.shape != q.shape:
        raise ValueError(f"w and q must be matrices of the same shape, got {exact.shape} and {q.shape}")
    k, n = q.shape
    quantized = isinstance(x, Operand)
    array: Any = x if quantized else finite_numbers(x, "x")
    shape = array.shape
    if not shape or shape[-1] != k:
        raise ValueError(f"x must have K = {k} columns, as w has rows; got shape {shape}")
    if quantized and len(shape) != 2:
        raise ValueError(f"x must be a matrix if it is quantized, got shape {shape}")
    array, q, order = _in_one_order(array, q)
    exact = exact if order is None else exact[order]
    extra = None if activations is None else word(activations, "activations", ACTIVATIONS)
    way = q.activations if extra is None else extra
    rows: Any = _Values(array) if quantized else array.reshape(prod(shape[:-1]), k)
    whole = dispatch.matmul(array, q, activations=extra) if quantized else None  # a QArray is not cut into rows
    weights = _Values(q)
    parts = [Sums(1) for _ in PARTS]
    high, wide = (max(1, _BLOCK // max(1, n)) for n in (max(k, n), k))
    for top in range(0, len(rows), high):
        block = slice(top, top + high)
        product = dispatch.matmul(rows[block], q, activations=extra) if whole is None else whole[block]
        true, hat = (rows[block, :],) * 2 if quantized else _left(rows[block], product.dtype, q, way)
        for left in range(0, n, wide):
            columns = slice(left, left + wide)
            w_hat, w_true = weights[:, columns], exact[:, columns].astype(np.float64)
            y = (true @ w_true).reshape(1, -1)
            by_weights = (true @ (w_hat - w_true)).reshape(1, -1)
            by_x = ((hat - true) @ w_hat).reshape(1, -1)
            rounding = product[:, columns].astype(np.float64).reshape(1, -1) - (hat @ w_hat).reshape(1, -1)
            for part, noise in zip(parts, (by_weights, by_x, rounding, by_weights + by_x + rounding)):
                part.add(y, y + noise, noise)
    return MatmulError(*(Error(*(float(v[0]) for v in part.measures())) for part in parts))


def _in_one_order(x: Any, q: Operand) -> tuple[Any, Operand, Array | None]:
    """Rows and weights with their elements along K where the codes lie, and which of K these are."""
    if isinstance(x, Operand):
        left, right = aligned(x, q)
        order = q.order_along("right") if right is q else x.order_along("left")
        return left.in_codes_order(), right.in_codes_order(), order
    order = q.order_along("right")
    return (x if order is None else np.take(x, order, axis=-1)), q.in_codes_order(), order


def _left(x: Array, dtype: np.dtype[Any], q: Any, activations: str) -> tuple[Array, Array]:
    """Rows of x, and the numbers that they are quantized to for a product in `dtype` with q; both in float64."""
    true = x.astype(np.float64)
    if q.balance is None or q.axis != 0:  # a balance along the other axis concerns the weights alone
        if x.dtype in EIGHT_BIT:
            return true, true
        return true, _rounded(x.astype(dtype, copy=False), q, activations)
    # The balance and the rotation come before the rounding; they are undone after it.
    factors = q.balance.reshape(-1)
    balanced = np.ascontiguousarray(reference.rotated(x.astype(dtype) * factors, q.rotation))
    back = reference.rotated(_rounded(balanced, q, activations), q.rotation)
    return true, back / (q.rotation * factors.astype(np.float64))


def _rounded(x: Array, q: Any, activations: str) -> Array:
    """The numbers that codes of rows of x stand for, in float64."""
    form = FloatForm(8).like(activations, q.group_along("right"))
    if form.planes == 1:
        spec = QuantSpec(8, 1, form.group, "symmetric")  # as products quantize their left operand
        codes, params = quantize(x, spec)
        scale = expand(params.scale, x.shape, 1, form.group)
    else:
        tops = np.abs(x).max(axis=1, keepdims=True, initial=0)
        scale = reference.parameters(-tops, tops, CodeRange(-form.high, form.high), 0)[0]
        codes = np.clip(np.rint(x / scale), -form.high, form.high)
    result: Array = codes.astype(np.float64) * scale.astype(np.float64)
    return result


class _Values:
    """The numbers of a quantized matrix, a block at a time, in float64, where scale times code is exact.

    A block holds all of the axis that a balance lies along.
    """

    def __init__(self, q: Any) -> None:
        self.q, self.codes = q, q.codes

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, part: tuple[slice, slice]) -> Array:
        values: Array = self.codes[part].astype(np.float64)
        if self.q.zero_point is not None:
            values -= self._spread(self.q.zero_point, part)
        values *= self._spread(self.q.scale, part)
        if self.q.offset is not None:
            values += self._spread(self.q.offset, part)
        if self.q.balance is not None:
            factors = self.q.balance[tuple(p if n > 1 else slice(None) for p, n in zip(part, self.q.balance.shape))]
            unbalance(values, self.q.axis, factors, self.q.rotation)
        return values

    def _spread(self, parameter: Array, part: tuple[slice, slice]) -> Array:
        """A parameter in a shape that broadcasts to a block."""
        q = self.q
        for d, elements in enumerate(part):
            if parameter.shape[d] > 1:
                at = np.arange(q.shape[d])[elements]
                parameter = parameter.take(at // (q.group_size or 1) if d == q.axis else at, axis=d)
        return parameter
