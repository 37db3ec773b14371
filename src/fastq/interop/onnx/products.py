"""MatMulInteger, QLinearMatMul, MatMulNBits: products of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq import numpys
from fastq.formats.onnx import nbits
from fastq.formats.onnx.rounding import saturated
from fastq.interop.onnx.arguments import Array, along_lines, codes, floats, zero_point

EIGHT_BITS = ("int8", "uint8")
INT32 = np.iinfo(np.int32)
LONGEST = INT32.max // 255**2  # K up to which every product of 8-bit integers fits int32
INT8_ACTIVATIONS = 4  # the accuracy_level of MatMulNBits that lets a be quantized


def matmul_integer(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    a_zero_point: npt.ArrayLike | None = None,
    b_zero_point: npt.ArrayLike | None = None,
) -> Array:
    """MatMulInteger: ``(a - a_zero_point) @ (b - b_zero_point)``, exact, in int32.

    Parameters
    ----------
    a, b : array_like
        int8 or uint8; shapes follow ``np.matmul``.
    a_zero_point : array_like, optional
        Of the type of `a`: a number, or one per row, of shape (M,) for a matrix or (..., M, 1).
    b_zero_point : array_like, optional
        Of the type of `b`: a number, or one per column, of shape (N,) for a matrix or (..., 1, N).

    Returns
    -------
    numpy.ndarray
        int32.

    Raises
    ------
    OverflowError
        If a number does not fit int32 (possible for K above 33,025).

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import matmul_integer
    >>> a, b = np.array([[11, 7, 3]], np.uint8), np.array([[1], [4], [2]], np.uint8)
    >>> matmul_integer(a, b, np.uint8(12))
    array([[-39]], dtype=int32)
    """
    product, _ = _product(Matrix(a, "a", a_zero_point, -2), Matrix(b, "b", b_zero_point, -1))
    if product.dtype != np.int32:
        if product.size and not INT32.min <= product.min() <= product.max() <= INT32.max:
            worst = max(int(product.max()), int(product.min()), key=abs)
            raise OverflowError(f"MatMulInteger must give int32, but a product is {worst}")
        product = product.astype(np.int32)
    return product


def qlinear_matmul(
    a: npt.ArrayLike,
    a_scale: npt.ArrayLike,
    a_zero_point: npt.ArrayLike,
    b: npt.ArrayLike,
    b_scale: npt.ArrayLike,
    b_zero_point: npt.ArrayLike,
    y_scale: npt.ArrayLike,
    y_zero_point: npt.ArrayLike,
) -> Array:
    """QLinearMatMul: the product of quantized matrices, quantized.

    The product of the integers is exact, as in :func:`matmul_integer`. It is multiplied in float64 by
    ``a_scale * b_scale / y_scale``, which is computed in the type of the scales, as onnx.reference does; then it is
    rounded (halves to even numbers), y_zero_point is added, and the sum saturates.

    Parameters
    ----------
    a, b : array_like
        int8 or uint8; shapes follow ``np.matmul``.
    a_scale, a_zero_point, b_scale, b_zero_point : array_like
        A number, or one per row of `a` and column of `b`, as in :func:`matmul_integer`.
    y_scale, y_zero_point : array_like
        A number each.

    Returns
    -------
    numpy.ndarray
        Codes of the type of `y_zero_point`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import qlinear_matmul
    >>> one = np.array([[10, 20]], np.int8)
    >>> qlinear_matmul(one, 0.5, 0, one.T, 0.5, 0, 2.0, np.int8(1))
    array([[63]], dtype=int8)
    """
    left, right = Matrix(a, "a", a_zero_point, -2), Matrix(b, "b", b_zero_point, -1)
    zero, kind = codes(y_zero_point, "y_zero_point", EIGHT_BITS)
    scales = [
        along_lines(floats(a_scale, "a_scale"), left.array.shape, -2, "a_scale"),
        along_lines(floats(b_scale, "b_scale"), right.array.shape, -1, "b_scale"),
    ]
    out = floats(y_scale, "y_scale")
    if out.size != 1 or zero.size != 1:
        raise ValueError(f"y_scale and y_zero_point must be a number each, got shapes {out.shape} and {zero.shape}")
    product, single = _product(left, right, squeeze=False)
    with np.errstate(all="ignore"):
        quotient = product * (scales[0] * scales[1] / out.reshape(())).astype(np.float64)
    y: Array = saturated(quotient, zero.reshape(()), kind)[single]
    return y


def matmul_nbits(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    scales: npt.ArrayLike,
    zero_points: npt.ArrayLike | None = None,
    g_idx: None = None,
    bias: npt.ArrayLike | None = None,
    *,
    K: int,  # noqa: N803, the operator's name
    N: int,  # noqa: N803
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
) -> Array:
    """MatMulNBits (com.microsoft): ``a @ w.T + bias`` with weights ``w = (code - zero_point) * scale``.

    It unpacks the weights at each call. To use them again, open the model with :func:`fastq.open`, which keeps them
    packed, and multiply ``x @ w.T``.

    Parameters
    ----------
    a : array_like
        Floats of shape (..., K).
    b : array_like
        uint8 of shape (N, blocks, block_size * bits / 8), with ``blocks = ceil(K / block_size)``: codes along K, the
        lowest bits first.
    scales : array_like
        Floats of shape (N, blocks).
    zero_points : array_like, optional
        uint8 of shape (N, ceil(blocks * bits / 8)), packed as `b` is; or floats of shape (N, blocks). By default
        ``2**(bits-1)``.
    g_idx
        Deprecated by the operator, and refused.
    bias : array_like, optional
        Floats of shape (N,).
    K, N : int
        The lengths of a row and a column of ``w.T``.
    bits : {2, 4, 8}
        Bits per code.
    block_size : int
        A power of two, 16 or more.
    accuracy_level : int
        4: `a` is quantized to int8, a scale for each block of a row, and multiplied by fastq's kernels. Others: it is
        multiplied by float32 weights.

    Returns
    -------
    numpy.ndarray
        Of the type of `a` and shape (..., N).

    Examples
    --------
    >>> import numpy as np
    >>> from fastq.interop.onnx import matmul_nbits
    >>> a, scales = np.ones((1, 16), np.float32), np.array([[0.5]], np.float32)
    >>> b = np.full((1, 1, 8), 0x9A, np.uint8)  # codes 10, 9, 10, 9, ...
    >>> matmul_nbits(a, b, scales, K=16, N=1, block_size=16)
    array([[12.]], dtype=float32)
    """
    numbers = floats(a, "a")
    if g_idx is not None:
        raise ValueError("g_idx must be left out, because the operator has deprecated it; got one")
    form = nbits.Form(K, N, bits, block_size)
    parts = np.asarray(b), floats(scales, "scales"), None if zero_points is None else np.asarray(zero_points)
    if numbers.shape[-1:] != (K,):
        raise ValueError(f"a must have K={K} numbers along its last axis, got shape {numbers.shape}")
    added = None if bias is None else floats(bias, "bias").astype(np.float32)
    if added is not None and added.shape != (N,):
        raise ValueError(f"bias must have N={N} numbers, got shape {added.shape}")
    if accuracy_level == INT8_ACTIVATIONS:
        weights = nbits.qarray(*parts, form)
        product = fq.matmul(numbers, weights.T, bias=added, activations="group", dtype=np.float32)
    else:
        product = numpys.matmul(numbers.astype(np.float32, copy=False), nbits.dequantized(*parts, form).T)
        if added is not None:
            product += added
    with np.errstate(over="ignore"):
        return np.asarray(product.astype(numbers.dtype, copy=False))


class Matrix:
    """A checked operand: int8 or uint8 of at least two dimensions, and its zero point."""

    def __init__(self, given: Any, name: str, zero: Any, axis: int) -> None:
        self.array, kind = codes(given, name, EIGHT_BITS)
        if not self.array.ndim:
            raise ValueError(f"{name} must have a dimension, got a number")
        self.vector = self.array.ndim == 1
        if self.vector:
            self.array = self.array[None] if axis == -2 else self.array[:, None]
        self.zero = None
        if zero is not None:
            point = zero_point(zero, kind, f"{name}_zero_point")
            self.zero = along_lines(point, self.array.shape, axis, f"{name}_zero_point")
            if not self.zero.any():
                self.zero = None


def _product(a: Matrix, b: Matrix, squeeze: bool = True) -> tuple[Array, Any]:
    """``(a - za) @ (b - zb)`` in int32, or in int64 where K is long; and the index that takes single axes away.

    It is ``a @ b - za * (columns of b - K * zb) - zb * (rows of a)``. Terms may wrap around in int32, the sum does not.
    """
    k = a.array.shape[-1]
    kind = np.dtype(np.int32 if k <= LONGEST else np.int64)
    product: Array = fq.matmul(a.array, b.array, dtype=kind)
    if a.zero is not None:
        columns = b.array.sum(-2, kind, keepdims=True)
        if b.zero is not None:
            columns -= b.zero.astype(kind) * k
        product -= a.zero * columns
    if b.zero is not None:
        product -= a.array.sum(-1, kind, keepdims=True) * b.zero
    single = (..., *(0 if vector else slice(None) for vector in (a.vector, b.vector)))
    return (product[single] if squeeze else product), single
