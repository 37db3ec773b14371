"""The second moment of a layer's inputs: which of their directions matter, and how much."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.errors import shown, with_type
from fastq.kernels import reference
from fastq.lock import Lock
from fastq.promotion import check_real
from fastq.quant.affine import check_finite
from fastq.quant.shrinkage import KeptRows, intensity
from fastq.validation import integer

Array = npt.NDArray[Any]
SMALLEST_PIVOT = 1e-9  # of R_ii**2, in units of H's mean diagonal: below it, all is rounding error
SMALLEST_DAMPING = 1e-6
LEAST_WEIGHT = 1e-6  # a channel that is always 0 must not leave a group without weight
ENOUGH = 4  # with so many rows per channel, correlations worth half a decibel would show
CHUNK = 2048  # rows at a time: fewer, and adding the K x K sum in float64 takes longer than the product


class SecondMoment:
    """The mean of ``x.T @ x`` over rows of real input: all that error-compensating rounding must know of them.

    An error e of the weights makes an error ``x @ e`` of the product ``x @ w``. Its mean square is ::

        mean((x @ e)**2) = e.T @ H @ e,   H = mean(x.T @ x)

    for x of shape (1, K), e (K, 1), H (K, K).

    Few rows show correlations that are mere chance. Rounding therefore uses Ledoit and Wolf's estimate,
    ``(1 - shrinkage) * matrix + shrinkage * diag(diagonal)``. The shrinkage is the one that does best on rows that are
    not in the matrix (:mod:`fastq.quant.shrinkage`); up to 256 rows are kept for this, spread evenly over all.

    Rows are read in chunks, so a memory map need not fit into memory. A chunk is scaled by a power of two, so that no
    square overflows, and multiplied in float32; chunks are added in float64. The last bits are those of NumPy's BLAS
    and may differ between machines. Several threads may update one moment.

    Parameters
    ----------
    k : int, optional
        Width of the rows; by default that of the first ones.

    Raises
    ------
    TypeError, ValueError
        If k is no integer, or negative, or its matrix does not fit into memory.

    Attributes
    ----------
    rows : int
        Rows so far.
    matrix : numpy.ndarray
        H, float64, K x K, read-only; the next update makes another one.
    diagonal : numpy.ndarray
        The mean square of each of the K channels.
    shrinkage : float
        From 0 (the rows are enough) to 1 (they show no correlations: there are none, or the rows are too few). It is
        found when it is first read, in time that grows with K**3, and kept until the next update.
    shrunk : numpy.ndarray
        The estimate that rounding uses, float64, K x K.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> moment = fq.SecondMoment.of(np.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> moment.rows, moment.matrix.tolist()
    (2, [[5.0, 1.0], [1.0, 2.0]])
    """

    def __init__(self, k: int | None = None) -> None:
        self._lock = Lock()  # for what follows, all of which belongs to the same rows
        self.rows = 0
        self._mean = None if k is None else _zeros(k)
        self._held = KeptRows()
        self._shrinkage: float | None = None
        self._told = False

    @classmethod
    def of(
        cls, calibration: SecondMoment | npt.NDArray[Any] | Iterable[Any], progress: Callable[[int], Any] | None = None
    ) -> SecondMoment:
        """The second moment of calibration data.

        Parameters
        ----------
        calibration : array_like, iterable of array_like, or SecondMoment
            Rows of real input to the product. Of an array with more than two dimensions the leading ones are rows. A
            SecondMoment is returned as it is.
        progress : callable, optional
            Called after each array with the number of rows so far.

        Raises
        ------
        TypeError
            If it holds anything but real numbers.
        ValueError
            If there are no rows, or rows of different widths. As :class:`fastq.NotFiniteError` for NaN and infinity.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.SecondMoment.of(np.full((100, 4), i) for i in range(3))
        SecondMoment(K=4, rows=300)
        """
        if isinstance(calibration, SecondMoment):
            moment = calibration
        else:
            moment = cls()
            parts = not hasattr(calibration, "__array__") and not isinstance(calibration, str)
            if progress is not None and not callable(progress):
                raise TypeError(f"progress must be a function, or None; got {with_type(progress)}")
            for part in calibration if parts and isinstance(calibration, Iterable) else [calibration]:
                moment.update(part)
                if progress is not None:
                    progress(moment.rows)
        if moment.rows == 0:
            raise ValueError("calibration must hold at least one row of input, because rounding follows it; got none")
        return moment

    def update(self, x: Any) -> None:
        """Take in more rows, of shape (..., K): all of them or, on an error, none.

        Examples
        --------
        >>> import fastq as fq
        >>> moment = fq.SecondMoment(2)
        >>> moment.update([[1.0, 2.0], [3.0, 0.0]])
        >>> moment.update([5.0, 0.0])
        >>> moment.rows, moment.diagonal.round(3).tolist()
        (3, [11.667, 1.333])
        """
        array = np.asarray(x)
        check_real(array, "calibration", advice="; convert it first")
        if array.ndim == 0:
            raise ValueError(f"calibration must be rows of input, of shape (..., K); got the number {array}")
        self._check_width(array.shape)
        k = array.shape[-1]
        rows = array.reshape(-1, k) if array.size else np.empty((0, k), np.float32)
        chunks = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
        if not all(np.isfinite(rows[chunk]).all() for chunk in chunks):
            check_finite(array, "calibration")
        with self._lock:
            self._check_width(array.shape)  # another thread may have come first
            if self._mean is None:
                self._mean = np.zeros((k, k))
        for chunk in chunks:
            self._add(rows[chunk])

    def _check_width(self, shape: tuple[int, ...]) -> None:
        mean = self._mean
        if mean is not None and shape[-1] != len(mean):
            raise ValueError(f"calibration must have rows of {len(mean)} elements, one per channel; got shape {shape}")

    def _add(self, rows: Array) -> None:
        wide = np.float64 if rows.dtype.kind in "iu" or rows.dtype == np.float64 else np.float32
        values = rows.astype(wide)
        exponent = int(np.frexp(np.abs(values).max(initial=0))[1])
        values = np.ldexp(values, -exponent).astype(np.float32)
        products = (values.T @ values).astype(np.float64)
        with self._lock:
            assert self._mean is not None
            total = self.rows + len(rows)
            self._held.add(rows, self.rows)
            self._shrinkage = None
            # Made anew, and never changed in place: another thread may be reading the one before.
            products *= np.ldexp(1 / total, 2 * exponent)
            mean = self._mean * (self.rows / total)
            mean += products
            self._mean, self.rows = mean, total

    def transformed(self, factors: Array | None, block: int, shrink: bool) -> SecondMoment:
        """The second moment of rows that are multiplied by factors, and rotated in blocks (1: not).

        With `shrink`, it is shrunk first, and the result never again: channels as they come may be uncorrelated, but a
        rotation makes a few large ones show in all.
        """
        if factors is None:
            return self
        d = factors.reshape(-1).astype(np.float64)
        result = SecondMoment()
        with self._lock:
            matrix, result.rows = self.shrunk if shrink else self._known(), self.rows
            result._shrinkage = 1.0 if shrink and block == 1 and self.shrinkage == 1 else 0.0  # still a diagonal
        result._mean = reference.rotated(reference.rotated(matrix * d * d[:, None], block).T, block)
        return result

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """``mean(x.T @ x)``."""
        view: npt.NDArray[np.float64] = self._known().view()
        view.flags.writeable = False
        return view

    @property
    def diagonal(self) -> npt.NDArray[np.float64]:
        """``mean(x * x)`` of each channel."""
        return np.diagonal(self._known()).copy()

    @property
    def shrinkage(self) -> float:
        """How far the matrix is shrunk towards its diagonal: :func:`fastq.quant.shrinkage.intensity`."""
        with self._lock:
            if self._shrinkage is None:
                self._shrinkage = intensity(self._known(), self.rows, self._held.rows)
            return self._shrinkage

    @property
    def shrunk(self) -> npt.NDArray[np.float64]:
        """``(1 - shrinkage) * matrix + shrinkage * diag(diagonal)``."""
        with self._lock:
            matrix, shrinkage = self._known(), self.shrinkage
        result: npt.NDArray[np.float64] = matrix * (1 - shrinkage)
        result[np.diag_indices(len(result))] = np.diagonal(matrix)
        return result

    def tell_of_few_rows(self) -> None:
        """Warn the caller of :func:`fastq.quantize`, once, if these rows show no correlations."""
        with self._lock:
            if self.shrinkage < 1 or self._told:
                return
            self._told = True
            k, rows = len(self._known()), self.rows
        why = "its rows are too few to tell, or " if rows < ENOUGH * k else ""
        cure = "give more rows, or use" if why else "use"
        warnings.warn(
            f"calibration must show which channels go together, or method='gptq' gains nothing on other rows; got "
            f"{rows} rows of {k} channels that do not: {why}channels are not correlated. The result is that of "
            f"method='mse'; {cure} that, with the same calibration",
            stacklevel=4,
        )

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weight of each channel's error: the diagonal, divided by its mean, and above 0."""
        diagonal = self.diagonal
        weights: npt.NDArray[np.float64] = np.maximum(diagonal / (float(diagonal.mean()) or 1.0), LEAST_WEIGHT)
        return weights

    def _known(self) -> npt.NDArray[np.float64]:
        if self._mean is None:
            raise ValueError("SecondMoment must know its width before it has a matrix: give k, or update it with rows")
        return self._mean

    def __repr__(self) -> str:
        return f"SecondMoment({'K unknown' if self._mean is None else f'K={len(self._mean)}'}, rows={self.rows})"


def of_matrix(matrix: Array) -> SecondMoment:
    """The second moment whose matrix somebody else has found, of enough rows as they say; it is not shrunk."""
    moment = SecondMoment()
    moment._mean = (matrix.astype(np.float64) + matrix.T) / 2
    moment.rows, moment._shrinkage = ENOUGH * len(matrix), 0.0
    return moment


def _zeros(k: Any) -> npt.NDArray[np.float64]:
    """A matrix of K x K."""
    width = integer(k, "k", "an integer, 0 or more, or None")
    try:
        if width >= 0:
            return np.zeros((width, width))
    except (MemoryError, ValueError):  # the latter where the size has no number
        raise ValueError(f"k must be a width whose matrix, K x K, fits into memory; got {shown(width)}") from None
    raise ValueError(f"k must be 0 or more, got {shown(width)}")


class Damped:
    """The shrunk, damped second moment, in units of its mean diagonal."""

    def __init__(self, moment: SecondMoment, damping: float, dtype: np.dtype[Any]) -> None:
        with moment._lock:
            self.matrix, shrinkage = moment.matrix, moment.shrinkage
        self.damping, self.dtype = damping, dtype
        diagonal = np.diagonal(self.matrix)
        mean = float(diagonal.mean()) or 1.0
        self.diagonal, self.off_diagonal = diagonal / mean, (1 - shrinkage) / mean

    def rows(self, a: int, b: int) -> Array:
        """Rows a to b in the data's type."""
        return self._finished(self.matrix[a:b].copy(), slice(a, b), a).astype(self.dtype, copy=False)

    def block(self, a: int, b: int) -> npt.NDArray[np.float64]:
        """Rows and columns a to b."""
        return self._finished(self.matrix[a:b, a:b].copy(), slice(a, b))

    def _finished(self, part: Array, channels: Any, first: int = 0) -> Array:
        """Rows of the matrix, shrunk and damped; their diagonal begins in column `first`."""
        part *= self.off_diagonal
        at = np.arange(len(part))
        part[at, first + at] = self.diagonal[channels] + self.damping
        return part

    def factor(self, order: Array) -> tuple[Array, Array]:
        """The :meth:`triangle` of the moment, rows and columns in this order; it raises damping until there is one."""
        while True:
            try:
                carry, weight = self.triangle(self._finished(self.matrix[np.ix_(order, order)], order))
                if weight.min() > SMALLEST_PIVOT:
                    return carry, weight
            except np.linalg.LinAlgError:
                pass
            if self.damping >= 1:
                raise ValueError(
                    "calibration must have a second moment without negative directions; this one has no Cholesky "
                    "factor even with damping=1, so it is not the mean of x.T @ x of any rows"
                )
            self.damping = min(max(10 * self.damping, SMALLEST_DAMPING), 1.0)

    def triangle(self, h: Array) -> tuple[Array, Array]:
        """``R_ji / R_ii`` and ``R_ii**2`` of ``h = R @ R.T``, R upper triangular."""
        upper = numpys.cholesky(h[::-1, ::-1])[::-1, ::-1]
        pivots = np.diagonal(upper).copy()
        carry = np.empty(h.shape, self.dtype)
        np.divide(upper, pivots, out=carry, casting="same_kind")
        return carry, (pivots * pivots).astype(self.dtype)
