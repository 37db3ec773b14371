"""Where the error of a product comes from: weights, activations, or the rounding of the output."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.accuracy.error import Error, Sums
from fastq.kernels import reference
from fastq.products import dispatch
from fastq.products.operands import Operand
from fastq.promotion import EIGHT_BIT, check_real, is_float
from fastq.quant.affine import check_finite, quantize, unbalance
from fastq.quant.spec import QuantSpec

Array = npt.NDArray[Any]
PARTS = ("weights", "activations", "rounding", "total")
_BY_ROW = QuantSpec(8, 1, None, "symmetric")  # as products quantize their left operand
_BLOCK = 1 << 20  # elements of x, of w and of the product that are held in float64 at a time


@dataclass(frozen=True)
class MatmulError:
    """The error of ``x @ q`` and its three parts, each measured against the exact product ``x @ w``.

    The parts add up to the total element by element; their squares do so but for their correlations.

    Attributes
    ----------
    weights : Error
        Of ``x @ (w_hat - w)``: what quantizing the weights costs.
    activations : Error
        Of ``(x_hat - x) @ w_hat``: what quantizing x costs.
    rounding : Error
        Of ``x @ q - x_hat @ w_hat``: the product is computed and written in floats.
    total : Error
        Of ``x @ q - x @ w``.

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


def error_matmul(x: npt.ArrayLike | Operand, w: npt.ArrayLike, q: Operand) -> MatmulError:
    """Tell which part of the error of ``x @ q`` comes from the weights, from x, and from rounding.

    With ``x_hat`` what x is after quantization and ``w_hat`` what q stands for, computed in float64 ::

        x @ q - x @ w  =  x @ (w_hat - w)            weights
            total         + (x_hat - x) @ w_hat      activations
                          + x @ q - x_hat @ w_hat    rounding

    Parameters
    ----------
    x : array_like or QArray
        Rows (M, K), or stacks of them. Floats are quantized as ``x @ q`` does (symmetric, 8 bits, one scale per row).
        A QArray and arrays of int8 or uint8 are taken as they are, so their activations part is 0.
    w : array_like
        The exact weights (K, N).
    q : QArray
        The quantized weights (K, N).

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
    >>> found = fq.error_matmul(x, w, fq.quantize(w, bits=3, axis=0))
    >>> found.weights.sqnr_db < found.activations.sqnr_db < found.rounding.sqnr_db
    True
    """
    if not isinstance(q, Operand):
        raise TypeError(f"q must be a QArray, the quantized weights; got {type(q).__name__}")
    exact = _numbers(w, "w")
    if len(q.shape) != 2 or exact.shape != q.shape:
        raise ValueError(f"w and q must be matrices of the same shape, got {exact.shape} and {q.shape}")
    k, n = q.shape
    quantized = isinstance(x, Operand)
    given: Any = x if quantized else _numbers(x, "x")
    shape = given.shape
    if not shape or shape[-1] != k:
        raise ValueError(f"x must have K = {k} columns, as w has rows; got shape {shape}")
    if quantized and len(shape) != 2:
        raise ValueError(f"x must be a matrix if it is quantized, got shape {shape}")
    rows: Any = _Values(x) if quantized else given.reshape(prod(shape[:-1]), k)
    whole = dispatch.matmul(x, q) if quantized else None  # a QArray is not cut into rows
    weights = _Values(q)
    parts = [Sums(1) for _ in range(4)]
    high = max(1, min(_BLOCK // max(1, k), _BLOCK // max(1, n)))
    wide = max(1, _BLOCK // max(1, k))
    for top in range(0, len(rows), high):
        here = slice(top, top + high)
        found = dispatch.matmul(rows[here], q) if whole is None else whole[here]
        true, hat = (rows[here, :],) * 2 if isinstance(rows, _Values) else _left(rows[here], found.dtype, q)
        for left in range(0, n, wide):
            columns = slice(left, left + wide)
            w_hat, w_true = weights[:, columns], exact[:, columns].astype(np.float64)
            y = (true @ w_true).reshape(1, -1)
            by_weights = (true @ (w_hat - w_true)).reshape(1, -1)
            by_x = ((hat - true) @ w_hat).reshape(1, -1)
            rounding = found[:, columns].astype(np.float64).reshape(1, -1) - (hat @ w_hat).reshape(1, -1)
            for part, noise in zip(parts, (by_weights, by_x, rounding, by_weights + by_x + rounding)):
                part.add(y, y + noise, noise)
    return MatmulError(*(Error(*(float(v[0]) for v in part.measures())) for part in parts))


def _numbers(x: Any, name: str) -> Array:
    """An array of finite real numbers."""
    array = np.asarray(x)
    check_real(array, name)
    if is_float(array.dtype):
        check_finite(array, name)
    return array


def _left(x: Array, dtype: np.dtype[Any], q: Any) -> tuple[Array, Array]:
    """Rows as they are, and as their product with q, computed in `dtype`, sees them; both in float64."""
    true = x.astype(np.float64)
    if q.balance is None or q.axis != 0:  # along the other axis it is the weights' alone
        if x.dtype in EIGHT_BIT:
            return true, true
        seen = quantize(x.astype(dtype, copy=False), _BY_ROW)
        return true, seen.codes * seen.params.scale.astype(np.float64)
    # They are multiplied by the balance and rotated before they are rounded; here they are brought back after that.
    factors = q.balance.reshape(-1)
    turned = reference.rotated(x.astype(dtype) * factors, q.rotation)
    seen = quantize(np.ascontiguousarray(turned), _BY_ROW)
    back = reference.rotated(seen.codes * seen.params.scale.astype(np.float64), q.rotation)
    return true, back / (q.rotation * factors.astype(np.float64))


class _Values:
    """What a quantized matrix stands for, in float64, where scale times code is exact; some of it at a time (all
    along the axis that a balance lies along).
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
        """A parameter as it broadcasts to some of the elements."""
        q = self.q
        for d, elements in enumerate(part):
            if parameter.shape[d] > 1:
                at = np.arange(q.shape[d])[elements]
                grouped = d == q.axis and q.group_size is not None
                parameter = np.take(parameter, at // q.group_size if grouped else at, axis=d)
        return parameter
