"""Static scales for activations, from batches of examples."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sized
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.api import quantize
from fastq.calibration.histogram import Histogram, parameters, range_of_least_error, range_of_share
from fastq.errors import shown, with_type
from fastq.lock import Lock
from fastq.progress import Line, Progress
from fastq.promotion import as_floats
from fastq.qarray.array import QArray
from fastq.quant.affine import check_finite
from fastq.quant.methods import Percentile, scale_method
from fastq.validation import as_str, check_bits, integer, truth

Array = npt.NDArray[Any]


class Static(NamedTuple):
    """Parameters for later arrays, as fq.quantize takes them: numbers, or arrays of shape (1, C) by channel."""

    scale: float | Array
    zero_point: int | Array | None


class Calibrator:
    """Finds a static scale from batches of activations.

    With ``method="minmax"`` the result is, bit for bit, that of :func:`fastq.quantize` on all batches at once.
    Percentile and mse use a histogram of 65,536 bins, for any amount of data. Its bins, and so the result, do not
    depend on how the data are cut into batches. An end of a percentile's range is within half a bin's width of the
    exact one; the root mean squared error of an mse scale is within one width of the smallest that the search could
    find. A width is at most ``max|x| / 16384``. Several threads may update one calibrator.

    Parameters
    ----------
    bits : int
        Bits per code, 2 to 8.
    scheme : {"symmetric", "asymmetric"}
        As in :func:`fastq.quantize`; "asymmetric" is what torch calls affine, with an integer zero point.
    axis : {None, 0}
        The axis along which elements share a scale. None: one scale for everything. 0: batches are rows of C channels
        ``(..., C)``, and each channel has its own scale, in shape (1, C); for "minmax" only. A scale per row (-1)
        cannot be static, because later rows are not known.
    method : {"minmax", "mse", "percentile"} or Percentile
        As in :func:`fastq.quantize`.

    Attributes
    ----------
    channel_max : numpy.ndarray
        ``max|x|`` of each channel of the last axis.
    values : int
        The number of elements seen.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type or out of range.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> c = fq.Calibrator().update([[1.0, -2.0]]).update([[63.5, 0.5]])
    >>> c.parameters()
    Static(scale=0.5, zero_point=None)
    >>> c.quantize([[1.0, 3.0]]).codes
    array([[2, 6]], dtype=int8)
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        scheme: Literal["symmetric", "asymmetric"] = "symmetric",
        axis: int | None = None,
        method: Literal["minmax", "mse", "percentile"] | Percentile = "minmax",
    ) -> None:
        self.bits = check_bits(bits)
        scheme = as_str(scheme)
        if not isinstance(scheme, str) or scheme not in ("symmetric", "asymmetric"):
            raise ValueError(f"scheme of a static scale must be 'symmetric' or 'asymmetric', got {shown(scheme)}")
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int | np.integer) or axis != 0):
            raise ValueError(
                "axis must be None (one scale) or 0 (all rows share, each channel has its own scale), got "
                f"{shown(axis)}; a scale per row cannot be known before the rows are"
            )
        self.scheme: Literal["symmetric", "asymmetric"] = scheme
        self.axis = axis
        self.method = scale_method(method)
        if axis == 0 and self.method != "minmax":
            raise ValueError(
                f"axis=0 needs method='minmax', since a histogram is kept of all channels; got {shown(method)}"
            )
        self._lock = Lock()  # for what follows, all of which belongs to the same batches
        self.values = 0
        self._seen = Histogram()
        self._ends: tuple[Array, Array] | None = None  # minimum and maximum of each channel
        self._dtype: np.dtype[Any] | None = None

    def __repr__(self) -> str:
        about = f"bits={self.bits}, scheme={self.scheme!r}, axis={self.axis}, method={self.method!r}"
        return f"Calibrator({about}; {self.values} values seen)"

    def update(self, batch: npt.ArrayLike) -> Calibrator:
        """Take in a batch.

        Parameters
        ----------
        batch : array_like
            Of shape (..., C), real numbers; the width C is that of the first batch.

        Returns
        -------
        Calibrator
            Itself.

        Raises
        ------
        TypeError
            If the batch is not of real numbers.
        ValueError
            If it has another width, or no axis. As :class:`fastq.NotFiniteError` if it holds NaN or infinity.
            The calibrator is then unchanged.

        Examples
        --------
        >>> import fastq as fq
        >>> fq.Calibrator(axis=0).update([[1.0, -2.0], [3.0, 1.0]]).channel_max
        array([3., 2.])
        """
        x = as_floats(np.asarray(batch), "batch")
        if x.ndim == 0:
            raise ValueError("batch must have one axis or more, the last of which holds the channels; got one number")
        self._check_width(x.shape)
        check_finite(x, "batch")
        if x.size == 0:
            return self
        rows = x.reshape(-1, x.shape[-1])
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        with self._lock:
            self._check_width(x.shape)  # another thread may have come first
            if self.method != "minmax":
                self._seen.add(rows)
            if self._ends is not None:
                low, high = np.minimum(self._ends[0], low), np.maximum(self._ends[1], high)
            self._ends = low, high
            self._dtype = x.dtype if self._dtype is None else np.result_type(self._dtype, x.dtype)
            self.values += x.size
        return self

    def _check_width(self, shape: tuple[int, ...]) -> None:
        ends = self._ends
        if ends is not None and shape[-1] != (width := len(ends[0])):
            raise ValueError(
                f"batch must have {width} channels along its last axis, as those before; got shape {shape}"
            )

    def run(
        self,
        batches: Iterable[npt.ArrayLike],
        *,
        progress: bool | Callable[[Progress], Any] = True,
        total: int | None = None,
    ) -> Calibrator:
        """Take in many batches, and show the progress.

        Parameters
        ----------
        batches : iterable of array_like
            As for :meth:`update`. If a batch raises, those before it have been taken in.
        progress : bool or callable
            True: a line on stderr, with the rate and the remaining time. A function is called after each batch, with an
            object that has `done`, `total`, `seconds`, `rate`, `remaining`, and prints as that line.
        total : int, optional
            The number of batches; by default their ``len``, if they have one.

        Returns
        -------
        Calibrator
            Itself.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> told = []
        >>> batches = (np.full((2, 3), float(i)) for i in range(5))
        >>> fq.Calibrator().run(batches, progress=told.append, total=5)
        Calibrator(bits=8, scheme='symmetric', axis=None, method='minmax'; 30 values seen)
        >>> [(p.done, p.total) for p in told][-1]
        (5, 5)
        """
        count = None if total is None else integer(total, "total", "an integer or None")
        if count is not None and not 0 <= count <= sys.maxsize:
            raise ValueError(f"total must be from 0 to {sys.maxsize}, got {shown(count)}")
        tell = progress if callable(progress) else Line() if truth(progress, "progress") else None
        try:
            several = iter(batches)
        except TypeError:
            raise TypeError(f"batches must be several arrays, got {with_type(batches)}") from None
        if count is None and isinstance(batches, Sized):
            count = len(batches)
        begin = time.perf_counter()
        done = 0
        try:
            for done, batch in enumerate(several, 1):
                self.update(batch)
                if tell is not None:
                    tell(Progress(done, count, time.perf_counter() - begin))
        finally:
            if isinstance(tell, Line):
                tell.close()
        return self

    @property
    def channel_max(self) -> Array:
        """``max|x|`` of each channel of the last axis."""
        with self._lock:
            low, high = self._extremes()
            return np.maximum(-low, high).astype(self._dtype)

    def _extremes(self) -> tuple[Array, Array]:
        if self._ends is None:
            raise ValueError("a calibrator must have seen data before it knows a scale; call update(batch) first")
        return self._ends

    def parameters(self) -> Static:
        """The scale and zero point for the data seen.

        Returns
        -------
        Static
            A named tuple of `scale` and `zero_point` (None for symmetric), for :func:`fastq.quantize`, or for
            :func:`fastq.matmul` with ``dtype=np.int8`` or ``np.uint8``.

        Raises
        ------
        ValueError
            If no data were seen.

        Examples
        --------
        >>> import fastq as fq
        >>> fq.Calibrator(scheme="asymmetric").update([-1.0, 254.0]).parameters()
        Static(scale=1.0, zero_point=1)
        """
        with self._lock:
            return self._parameters()

    def _parameters(self) -> Static:
        low, high = self._extremes()
        if self.axis is None:
            ends = float(low.min()), float(high.max())
            if isinstance(self.method, Percentile):
                ends = range_of_share(self._seen, *ends, self.scheme, self.method)
            elif self.method == "mse":
                ends = range_of_least_error(self._seen, *ends, self.bits, self.scheme)
            low, high = np.array([[ends[0]], [ends[1]]])
        low, high = low.astype(self._dtype), high.astype(self._dtype)
        scale, zero = parameters(low, high, self.bits, self.scheme)
        if self.axis is None:
            return Static(float(scale[0]), None if zero is None else int(zero[0]))
        return Static(scale[None], None if zero is None else zero[None])

    def quantize(self, x: npt.ArrayLike) -> QArray:
        """``fq.quantize`` with these bits, scheme, axis and parameters; with ``axis=0``, x must be a matrix.

        Examples
        --------
        >>> import fastq as fq
        >>> c = fq.Calibrator().update([127.0, -5.0])
        >>> c.quantize([3.0, 500.0]).codes  # numbers outside of the range seen are clipped
        array([  3, 127], dtype=int8)
        """
        if self.axis == 0 and np.ndim(x) != 2:
            raise ValueError(
                f"x must be a matrix for axis=0, because a QArray shares scales along one axis; got shape {np.shape(x)}"
            )
        scale, zero = self.parameters()
        return quantize(x, self.bits, axis=self.axis, scheme=self.scheme, scale=scale, zero_point=zero)
