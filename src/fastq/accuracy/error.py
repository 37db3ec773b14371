"""Measures of the error of an approximation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.errors import shown
from fastq.products.operands import Operand
from fastq.promotion import check_real
from fastq.qarray.array import QArray
from fastq.quant.spec import lines, parameter_shape, runs
from fastq.validation import check_group

if TYPE_CHECKING:
    from fastq.pictures.markup import Markup

Array = npt.NDArray[Any]
Value = TypeVar("Value", float, npt.NDArray[np.float64])
Numbers = npt.ArrayLike | Operand
NAMES = ("mse", "rmse", "l2", "max_abs", "sqnr_db", "cosine")
_BLOCK = 1 << 20  # elements compared at a time, so that no float64 copy of a large array is made


@dataclass(frozen=True)
class Error(Generic[Value]):
    """Measures of the difference between x and its approximation y; floats, or arrays where an axis was given.

    Attributes
    ----------
    mse
        The mean of ``(x - y)**2``.
    rmse
        Its square root.
    l2
        ``sqrt(sum((x - y)**2))``, the norm of the difference.
    max_abs
        ``max(|x - y|)``.
    sqnr_db
        Signal to quantization noise ratio, ``10 * log10(sum(x**2) / sum((x - y)**2))`` in dB; inf if y = x.
    cosine
        ``sum(x * y) / (|x| * |y|)``; 1 if both are zero, 0 if one is.
    hint : str
        What would make the error smaller, if :func:`fastq.error` knows; else "". It is printed, too.

    Examples
    --------
    >>> import fastq as fq
    >>> e = fq.error([3.0, 4.0], [3.0, 4.5])
    >>> e.max_abs, e.sqnr_db
    (0.5, 20.0)
    >>> e
    Error(mse=0.125, rmse=0.3536, l2=0.5, max_abs=0.5, sqnr_db=20, cosine=0.9985)
    >>> x, y = [[3.0, 4.0], [0.0, 0.0]], [[3.0, 4.5], [0.0, 0.0]]
    >>> print(fq.error(x, y, axis=-1).rmse)
    [0.35355339 0.        ]
    """

    mse: Value
    rmse: Value
    l2: Value
    max_abs: Value
    sqnr_db: Value
    cosine: Value
    hint: ClassVar[str] = ""  # an instance may have its own; it is no measure, so it is no field and not compared

    def __repr__(self) -> str:
        shape = np.shape(self.mse)
        names = ("mse", "max_abs", "sqnr_db", "cosine") if shape else NAMES  # the others follow from mse
        words = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in names)
        return f"Error({f'shape={shape}, ' if shape else ''}{words}{'; see .hint' if self.hint else ''})"

    def __str__(self) -> str:
        words = ", ".join(f"{name} {_shown(getattr(self, name))}" for name in NAMES)
        words += f" ({np.size(self.mse)} values each)" if np.ndim(self.mse) else ""
        return f"{words}\nhint: {self.hint}" if self.hint else words

    def _repr_html_(self) -> str | None:
        from fastq.pictures.compact import shown

        return shown(_drawn, self)


def _drawn(error: Error[Any]) -> Markup:
    from fastq.pictures import compact, distribution

    shape = np.shape(error.mse)
    values = {name: getattr(error, name) for name in NAMES if name != "sqnr_db"}
    if not shape:
        return compact.measures(values, error.sqnr_db, error.hint)
    found = distribution.of_numbers(distribution.parts_of(error.sqnr_db), (), np.size(error.sqnr_db), "SQNR in dB")
    ranges = {name: (np.min(v), np.max(v)) for name, v in values.items() if np.size(v)}
    return compact.many_measures(f"{np.size(error.mse)} values each, shape {shape}", found, ranges, error.hint)


def _shown(value: Any) -> str:
    """A number in four digits; for an array, its smallest and largest."""
    if np.ndim(value) == 0:
        return f"{value:.4g}"
    return f"{np.min(value):.4g} .. {np.max(value):.4g}" if np.size(value) else "none"


class Sums:
    """The sums from which all measures follow, one entry per row, added up in blocks."""

    def __init__(self, rows: int) -> None:
        self.count = 0
        self.noise, self.signal, self.other, self.inner, self.largest = (np.zeros(rows) for _ in range(5))

    def add(self, exact: Array, other: Array, difference: Array) -> None:
        """Add columns of x, y and their difference; the caller may know that more exactly than x - y."""
        self.count += exact.shape[1]
        self.signal += numpys.einsum("ij,ij->i", exact, exact)
        self.other += numpys.einsum("ij,ij->i", other, other)
        self.inner += numpys.einsum("ij,ij->i", exact, other)
        self.noise += numpys.einsum("ij,ij->i", difference, difference)
        np.maximum(self.largest, np.abs(difference).max(axis=1, initial=0), out=self.largest)

    def measures(self, exponent: int = 0) -> tuple[Array, ...]:
        """The fields of an Error of numbers that were multiplied by ``2**-exponent``."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sqnr = np.where(self.noise == 0, np.inf, 10 * np.log10(self.signal / self.noise))
            norms = np.sqrt(self.signal) * np.sqrt(self.other)
            cosine = np.where(norms > 0, self.inner / norms, np.where(self.signal == self.other, 1.0, 0.0))
            mean = self.noise / max(1, self.count)
            return (
                np.ldexp(mean, 2 * exponent),
                np.ldexp(np.sqrt(mean), exponent),
                np.ldexp(np.sqrt(self.noise), exponent),
                np.ldexp(self.largest, exponent),
                sqnr,
                np.clip(cosine, -1, 1),
            )


@overload
def error(x: Numbers, y: Numbers, axis: None = None, *, group_size: None = None) -> Error[float]: ...
@overload
def error(
    x: Numbers, y: Numbers, axis: SupportsIndex | tuple[SupportsIndex, ...], *, group_size: int | None = None
) -> Error[npt.NDArray[np.float64]]: ...
def error(
    x: Numbers,
    y: Numbers,
    axis: SupportsIndex | tuple[SupportsIndex, ...] | None = None,
    *,
    group_size: int | None = None,
) -> Error[Any]:
    """Measure how far an approximation is from an array.

    Parameters
    ----------
    x : array_like or QArray
        The exact numbers.
    y : QArray or array_like
        The approximation, of the same shape.
    axis : int or tuple of ints, optional
        The axis or axes to sum over, as in ``np.sum``: 0 gives one value per column of a matrix. None: all axes.
    group_size : int, optional
        Measure groups of this many elements along the axis, which is then one integer; the last group may be shorter.
        The shape is that of the scale of ``fq.quantize(x, axis=axis, group_size=group_size)``.

    Returns
    -------
    Error
        Computed in float64. The error of no elements is 0, its sqnr_db inf, its cosine 1. The `hint` is set if y is a
        symmetric QArray, and x is on one side of zero, so that half of the codes are unused.

    Raises
    ------
    TypeError
        If x or y is not of real numbers, or `axis` or `group_size` not of integers.
    ValueError
        If the shapes differ, the axis does not exist, or groups come without one axis.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> x = np.linspace(-1, 1, 101)
    >>> bool(fq.error(x, fq.quantize(x, bits=8)).sqnr_db > 45)
    True
    """
    exact = _numbers(x)
    other = _numbers(y, np.float64 if exact.dtype == np.float64 else None)
    check_real(exact, "x", "biu")
    check_real(other, "y", "biu")
    if exact.shape != other.shape:
        raise ValueError(f"x and y must have the same shape, got {exact.shape} and {other.shape}")
    axes = _axes(axis, exact.ndim)
    if group_size is not None:
        result = _by_group(exact, other, axis, check_group(group_size))
    else:
        kept = tuple(n for i, n in enumerate(exact.shape) if i not in axes)
        order = [i for i in range(exact.ndim) if i not in axes] + list(axes)
        summed = prod(exact.shape[i] for i in axes)
        values = _measured(*(v.transpose(order).reshape(prod(kept), summed) for v in (exact, other)))
        result = Error(*(float(v[0]) if axis is None else v.reshape(kept) for v in values))
    if isinstance(y, QArray) and _coarse(y, result):
        object.__setattr__(result, "hint", one_sided(exact, "x"))
    return result


def _coarse(q: QArray, error: Error[Any]) -> bool:
    """Whether an array is symmetric, and the asymmetric scheme, whose step is half, would have a smaller error."""
    symmetric = q.scheme == "symmetric" and q.balance is None and q.size > 0
    return symmetric and bool(np.max(error.max_abs) > np.abs(q.scale).max() / 4)


def one_sided(x: Array, name: str) -> str:
    """The advice for numbers on one side of zero under the symmetric scheme; "" for others."""
    low, high = (x.min(), x.max()) if x.size else (0, 0)
    if not (low >= 0 or high <= 0) or low == high == 0:
        return ""
    side = "negative" if low >= 0 else "positive"
    return f"{name} is never {side}, so half of the symmetric codes are unused: scheme='asymmetric' halves the step"


def _measured(exact: Array, other: Array) -> tuple[Array, ...]:
    """The measures of each row of two matrices."""
    # A power of two brings the numbers near 1, so that squares neither overflow nor vanish.
    top = max((float(np.abs(v.astype(np.float64)).max(initial=0)) for v in (exact, other)), default=0.0)
    exponent = int(np.frexp(top)[1]) if np.isfinite(top) else 0
    sums = Sums(exact.shape[0])
    step = max(1, _BLOCK // max(1, exact.shape[0]))
    for start in range(0, exact.shape[1], step):
        a, b = (np.ldexp(v[:, start : start + step].astype(np.float64), -exponent) for v in (exact, other))
        sums.add(a, b, a - b)
    return sums.measures(exponent)


def _by_group(exact: Array, other: Array, axis: Any, size: int) -> Error[Any]:
    """The measures of each group."""
    if axis is None or isinstance(axis, tuple):
        raise ValueError(f"group_size needs one axis along which to cut groups; got axis={shown(axis)}")
    (at,) = _axes(axis, exact.ndim)
    fields = [np.empty(parameter_shape(exact.shape, at, size)) for _ in NAMES]
    for (x, _, groups), (y, _, _) in zip(runs(exact, at, size), runs(other, at, size)):
        for field, values in zip(fields, _measured(x, y)):
            place = lines(field, at)[..., groups]
            place[...] = values.reshape(place.shape)
    return Error(*fields)


def _numbers(value: Any, dtype: npt.DTypeLike | None = None) -> Array:
    array: Array = np.asarray(value) if not isinstance(value, Operand) else value.dequantize(dtype)  # type: ignore[attr-defined]
    return array


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if isinstance(a, bool) or not isinstance(a, int | np.integer):
            raise TypeError(f"axis must be an integer, a tuple of them or None, got {shown(axis)}")
        if not -ndim <= a < ndim:
            raise ValueError(
                f"axis must be from {-ndim} to {ndim - 1} for arrays of {ndim} dimensions, got {shown(int(a))}"
            )
    wrapped = tuple(int(a) % ndim for a in axes)
    if len(set(wrapped)) != len(wrapped):
        raise ValueError(f"axis must name each axis once, got {shown(axis)}")
    return wrapped
