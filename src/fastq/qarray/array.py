"""The quantized array."""

from __future__ import annotations

import copy
from os import PathLike
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastq import numpys
from fastq.layout.tiles import segments
from fastq.products import dispatch
from fastq.products.operands import Operand
from fastq.promotion import is_float
from fastq.qarray import functions
from fastq.qarray.apart import take_apart
from fastq.qarray.coded import Scheme
from fastq.qarray.ndarray import ArrayMethods
from fastq.quant import affine
from fastq.quant.spec import QuantParams, QuantSpec
from fastq.storage.folder import write
from fastq.storage.metadata import Metadata
from fastq.validation import data_type

Array = npt.NDArray[Any]
# Members that the engine calls, and no user: they are those of Operand.
_OF_PRODUCTS = {name for name in (*vars(Operand), "ready") if not name.startswith("_")}

__all__ = ["QArray", "Scheme"]


class QArray(ArrayMethods, NDArrayOperatorsMixin):
    """A quantized array: codes of 2 to 8 bits and the parameters that turn them back into numbers.

    ``x = scale * (code - zero_point)``, or for affine arrays ``x = scale * code + offset``. Make one with
    :func:`fastq.quantize`. It is immutable; ``@`` multiplies it with arrays and other quantized arrays on either side.

    Attributes
    ----------
    shape, ndim, size : as of an array
    dtype : numpy.dtype
        The logical type: what :meth:`dequantize` gives.
    bits : int
        Bits per code.
    scheme : {"symmetric", "asymmetric", "affine"}
        torch's per_channel_affine is "asymmetric", MLX's affine is "affine".
    axis : int or None
        The axis along which elements share a scale; None where the whole array does.
    group_size : int or None
        How many neighbours along the axis share it; None: all.
    scale : numpy.ndarray
        Of shape ``np.max(x, axis=axis, keepdims=True).shape``; with groups, one entry per group along the axis.
    group_scale, axis_scale : numpy.ndarray or None
        Groups may have small integer scales under one float scale, as fast matrix products want them;
        ``scale == axis_scale * group_scale`` then: exactly as quantized, rounded once after ``q * s``.
    zero_point : numpy.ndarray or None
        int32, of scale's shape, for asymmetric arrays.
    offset : numpy.ndarray or None
        Of scale's shape, for affine arrays.
    balance : numpy.ndarray or None
        Factors by channel, of what the codes give (:func:`fastq.balance`); they broadcast to the array's shape.
    rotation : int
        Size of the blocks of channels that are rotated; 1: they are not.
    device : str
        "cpu", as the array API standard has it.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((128, 64), np.float32)
    >>> q = fq.quantize(w, bits=3, axis=0)
    >>> q  # doctest: +NORMALIZE_WHITESPACE
    QArray(shape=(128, 64), 3 bits, symmetric, axis=0, dtype=float32,
           8.2 KiB, 3.5 KiB once packed)
    >>> q.shape, q.dtype, q.scale.shape
    ((128, 64), dtype('float32'), (1, 64))
    >>> (np.ones((5, 128)) @ q).shape
    (5, 64)

    Notes
    -----
    ``np.asarray(q)`` raises TypeError. NumPy converts operands silently in many places, and a conversion here
    multiplies the memory by up to 16; so it is written out: ``q.dequantize()``.

    When it is first used as a right operand, a matrix is packed for the CPU, in `bits` bits per code; from then on
    :attr:`codes` is unpacked anew at each access, and :attr:`nbytes` tells the packed size.
    """

    __slots__ = ()
    __array_priority__ = 10.0  # libraries that go by it take a quantized array for more than an ndarray
    __hash__ = None  # type: ignore[assignment]  # as an ndarray's

    def __dir__(self) -> list[str]:
        """Public attributes and methods; what only products call is left out."""
        return [n for n in super().__dir__() if n not in _OF_PRODUCTS and (n[0] != "_" or n.startswith("__"))]

    def __repr__(self) -> str:
        if self.axis is None:
            sharing = "one scale"
        elif self.group_size is None:
            sharing = f"axis={self.axis}"
        else:
            sharing = f"axis={self.axis}, group_size={self.group_size}"
        form = f"{self.bits} bits, {self.scheme}, {sharing}" + (", balanced" if self.balance is not None else "")
        form += f", rotated by {self.rotation}" if self.rotation > 1 else ""
        size = _readable_size(self.nbytes)
        if self.bits < 8 and not self._store.packed and (packed := Metadata.of(self).packed()).k_segments is not None:
            size += f", {_readable_size(self.nbytes - self._store.nbytes + packed.stored())} once packed"
        return f"QArray(shape={self.shape}, {form}, dtype={self.dtype}, {size})"

    # Back to numbers

    def dequantize(self, dtype: npt.DTypeLike | None = None, out: Array | None = None) -> Array:
        """Turn the codes back into numbers.

        Parameters
        ----------
        dtype : data type, optional
            A float type; by default the logical type, or that of `out`.
        out : numpy.ndarray, optional
            Where to write them.

        Returns
        -------
        numpy.ndarray
            ``scale * (codes - zero_point)`` or ``scale * codes + offset``, computed in scale's type; times `balance`.

        Raises
        ------
        TypeError
            If `dtype` is not a float type, or `out` not an array of it.
        ValueError
            If `out` has another shape or is read-only.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.array([0.5, -1.0, 1.4], np.float32), bits=3)
        >>> q.codes, q.scale
        (array([ 1, -2,  3], dtype=int8), array([0.46666667], dtype=float32))
        >>> q.dequantize()
        array([ 0.46666667, -0.93333334,  1.4       ], dtype=float32)
        """
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(f"out must be an array, got {type(out).__name__}")
        logical = data_type(dtype) if dtype is not None else self.dtype if out is None else out.dtype
        if not is_float(logical):
            raise TypeError(f"dtype must be a float type that NumPy computes in, got {logical}; codes are in q.codes")
        if out is not None:
            if out.dtype != logical:
                raise TypeError(f"out must be an array of {logical}, got {out.dtype}")
            if out.shape != self.shape or not out.flags.writeable:
                state = "" if out.flags.writeable else " (read-only)"
                raise ValueError(f"out must be writeable and of shape {self.shape}, got shape {out.shape}{state}")
        target = out if out is not None else np.empty(self.shape, logical)
        spec = QuantSpec(self.bits, self.axis, self.group_size, self.scheme, rotation=self.rotation)
        params = QuantParams(self.scale, self.zero_point, self.offset)
        affine.restore(self.codes, spec, params, self.balance, target)
        return target

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "a QArray is not converted to an ndarray silently, because that takes up to 16 times its memory; "
            "call q.dequantize()"
        )

    # Multiplying

    def __matmul__(self, other: Any) -> Any:
        return numpys.matmul(self, other) if functions.foreign((other,)) else dispatch.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return numpys.matmul(other, self) if functions.foreign((other,)) else dispatch.matmul(other, self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if ufunc is numpys.matmul and method == "__call__" and not functions.foreign(inputs):
            return dispatch.matmul(inputs[0], inputs[1], None if out is None else out[0], **kwargs)
        return functions.ufunc(ufunc, method, inputs, out, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return functions.function(func, types, args, kwargs)

    def prepack(self) -> QArray:
        """Pack the codes now, rather than at the first ``x @ q``; returns the array itself.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.ones((1024, 512), np.float32), bits=2, axis=0)
        >>> before = q.nbytes
        >>> q.prepack().nbytes < before / 3
        True
        """
        if self.ndim < 2 or self.size == 0:
            return self
        k = self.shape[-2]
        first = (0,) * (self.ndim - 2)
        self.right(first, segments(k, self.lines(first, "right").group))
        return self

    # Files and copies

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the array to a folder, packed, for :func:`fastq.load`.

        A matrix that is not packed yet is packed for ``x @ q``, or for ``x @ q.T`` if the last axis shares a scale.
        Arrays are written as .npy files (:mod:`fastq.qarray.parts`), into a folder that gets its name when all is
        there.

        Parameters
        ----------
        path : path
            The folder to make.
        overwrite : bool
            Put it in the place of one that was saved before. Arrays that were loaded from that one stay as they are.

        Raises
        ------
        FileExistsError
            If there is something of that name which is not to be overwritten, or was not saved by fastq.
        OSError
            If it cannot be written; there is no folder of that name then, or the one that was there before.

        Examples
        --------
        >>> import numpy as np, fastq as fq, tempfile
        >>> q = fq.quantize(np.eye(3), bits=3, axis=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     q.save(f"{folder}/q")
        ...     fq.load(f"{folder}/q").equals(q)
        True
        """
        write(path, *take_apart(self), overwrite)

    def __copy__(self) -> QArray:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QArray:
        return self

    def copy(self) -> QArray:
        """The array itself, since it cannot change.

        Examples
        --------
        >>> import fastq as fq
        >>> q = fq.quantize([1.0, 2.0])
        >>> q.copy() is q
        True
        """
        return copy.copy(self)

    def equals(self, other: Any) -> bool:
        """Whether the other array has the same codes, parameters, bits and types.

        ``==`` between arrays compares elements, which is refused here: ``np.array_equal(q, other)`` compares numbers.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize([1.0, 2.0])
        >>> q.equals(fq.quantize([1.0, 2.0])), q.equals(fq.quantize([1.0, 2.0], bits=4))
        (True, False)
        """
        if not isinstance(other, QArray):
            return False
        facts = ("shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation")
        if any(getattr(self, f) != getattr(other, f) for f in facts):
            return False
        names = ("scale", "zero_point", "offset", "group_scale", "balance")
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        same = all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in pairs)
        return same and np.array_equal(self.codes, other.codes)


def _readable_size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024  # type: ignore[assignment]
    raise AssertionError
