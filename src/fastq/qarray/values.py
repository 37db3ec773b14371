"""The numbers that a quantized array stands for: to arrays, of another type, compared, and times factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from fastq.products.operands import Operand
from fastq.promotion import is_float
from fastq.qarray import structure
from fastq.qarray.rearrange import parameters_only, with_store
from fastq.quant import affine
from fastq.quant.spec import QuantParams, QuantSpec
from fastq.typed import Array, DType, Kind, Of, Out
from fastq.validation import data_type, real

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

# NumPy 2.0 exports no read-only array.
_NUMPY_KNOWS_NO_READ_ONLY = np.lib.NumpyVersion(np.__version__) < "2.1.0"


@overload
def dequantize(q: QArray, dtype: npt.DTypeLike | None = None, *, out: Out) -> Out: ...
@overload
def dequantize(q: QArray, dtype: DType[Kind], out: None = None) -> Of[Kind]: ...
@overload
def dequantize(q: QArray, dtype: npt.DTypeLike | None = None, out: Array | None = None) -> Array: ...
def dequantize(q: QArray, dtype: npt.DTypeLike | None = None, out: Array | None = None) -> Array:  # noqa: D417, a method
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
        ``scale * (codes - zero_point)`` or ``scale * codes + offset``, computed in scale's type as NumPy computes it;
        times `balance`, and put where `order` says.

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
    logical = _float_type(dtype if dtype is not None else q.dtype if out is None else out.dtype)
    if out is None:
        out = np.empty(q.shape, logical)
    elif out.dtype != logical:
        raise TypeError(f"out must be an array of {logical}, got {out.dtype}")
    elif out.shape != q.shape or not out.flags.writeable:
        state = "" if out.flags.writeable else " (read-only)"
        raise ValueError(f"out must be writeable and of shape {q.shape}, got shape {out.shape}{state}")
    spec = QuantSpec(q.bits, q.axis, q.group_size, q.scheme, rotation=q.rotation)
    order, axis = q.order, q.axis
    values = out if order is None else np.empty_like(out)
    affine.restore(q.codes, spec, QuantParams(q.scale, q.zero_point, q.offset), q.balance, values)
    if order is not None and axis is not None:
        np.moveaxis(out, axis, 0)[order.reshape(-1)] = np.moveaxis(values, axis, 0)
    return out


def _float_type(dtype: npt.DTypeLike) -> np.dtype[Any]:
    logical = data_type(dtype)
    if not is_float(logical):
        raise TypeError(f"dtype must be a float type that NumPy computes in, got {logical}; codes are in q.codes")
    return logical


def astype(q: QArray, dtype: npt.DTypeLike) -> QArray:
    """The same codes and scales, standing for numbers of another float type; products are of that type then.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> q = fq.quantize(np.eye(2, dtype=np.float32)).astype(np.float64)
    >>> (q @ q).dtype
    dtype('float64')
    """
    logical = _float_type(dtype)
    return q if logical == q.dtype else with_store(q, parameters_only(q).widened, q._store, q._transposed, logical)


def item(q: QArray) -> float:
    """The number that an array of one element stands for.

    Examples
    --------
    >>> import fastq as fq
    >>> fq.quantize([2.5]).item()
    2.5
    """
    if q.size != 1:
        raise ValueError("can only convert an array of size 1 to a Python scalar")
    return float(dequantize(q).item())


def dlpack(q: QArray, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
    """The codes, by DLPack: int8 or uint8, read-only where the consumer knows of that, otherwise a copy.

    The buffer protocol is left out on purpose: ``np.asarray(q)`` would take codes for numbers. There is
    ``memoryview(q.codes)``.
    """
    if copy or max_version is None or max_version < (1, 0) or _NUMPY_KNOWS_NO_READ_ONLY:
        return np.array(q.codes).__dlpack__(stream=stream)
    return q.codes.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)


def equals(q: QArray, other: Any) -> bool:
    """Whether the other array has the same codes, parameters, bits and types.

    ``==`` between arrays compares elements, which is refused here: ``np.array_equal(q, other)`` compares numbers.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> q = fq.quantize([1.0, 2.0])
    >>> q.equals(fq.quantize([1.0, 2.0])), q.equals(fq.quantize([1.0, 2.0], bits=4))
    (True, False)
    """
    if not isinstance(other, Operand):
        return False
    attributes = ("shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation")
    if _narrow(q) != _narrow(other):
        return False  # numbers are computed in another type
    arrays = ("scale", "zero_point", "offset", "group_scale", "balance", "order", "codes")
    return all(getattr(q, name) == getattr(other, name) for name in attributes) and all(
        structure.equal(getattr(q, name), getattr(other, name)) for name in arrays
    )


def _narrow(q: Any) -> bool:
    """Whether its numbers are computed in 16 bits, those of its logical type."""
    return bool(q.scale.dtype.itemsize == 2)


def times(q: QArray, factor: Any, divide: bool) -> QArray:
    """``q * factor`` or ``q / factor``, folded into the scale."""
    if isinstance(factor, int) and not isinstance(factor, bool):
        factor = real(factor, "factors", "numbers") if abs(factor) > 2**63 else factor  # infinity beyond floats
    by = factor if isinstance(factor, int | float) and not isinstance(factor, bool) else np.asarray(factor)
    if isinstance(by, np.ndarray) and not (by.dtype.kind in "biu" or is_float(by.dtype)):
        raise TypeError(f"factors of a quantized array must be real numbers up to 64 bits, got dtype {by.dtype}")
    dtype = np.result_type(q.dtype, by)
    if not is_float(dtype) or np.broadcast_shapes(np.shape(by), q.shape) != q.shape:
        raise ValueError(
            f"factors of a quantized array must broadcast to its shape {q.shape}, because they are folded into its "
            f"scale; got shape {np.shape(by)}: multiply q.dequantize()"
        )
    p = parameters_only(q).widened
    if dtype == np.float64:
        p = p.mapped(lambda values: values.astype(np.float64), "scale", "offset")
    with np.errstate(over="ignore"):
        values = np.asarray(by, p.scale.dtype)
    if divide and not values.all():
        raise ZeroDivisionError(
            "a quantized array must not be divided by 0, because its scale would be infinite; got 0"
        )
    values = values.reshape((1,) * (q.ndim - values.ndim) + values.shape)
    return with_store(q, structure.scaled(p, values, divide), q._store, q._transposed, dtype)
