"""A bound of a product's error: half a step of each quantized element, and the roundings of the epilogue."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine.operands import ChannelTransform, longest_segment
from fastq.products import dispatch
from fastq.products.operands import CodeOperand, FloatForm, FloatOperand
from fastq.products.task import Extras, Task, segment_k
from fastq.promotion import result_shape
from fastq.qarray.array import QArray
from fastq.quant.affine import check_finite
from fastq.quant.spec import expand
from fastq.typed import Activations, Float64

Array = npt.NDArray[Any]


def matmul_error_bound(a: Any, b: Any, *, bits: int = 8, activations: Activations | None = None) -> Float64:
    """How far ``fq.matmul(a, b, bits=bits)`` may be from the exact product, element by element.

    The exact product is that of the numbers that the operands hold; a :class:`fastq.QArray` holds those of its codes
    and parameters. (:func:`fastq.error` tells how far they are from the numbers that were quantized.) ::

        |fq.matmul(a, b) - a @ b|  <=  ea_i * sum_k |b_kj|  +  eb_j * sum_k |a_ik|
                                       +  K * ea_i * eb_j  +  rounding_ij

    Here ea_i is half a step of row i, ``max_k |a_ik| / (2**(bits-1) - 1) / 2``, if `a` is quantized on the fly, and 0
    otherwise; eb_j likewise, of column j of `b`. If `a` is quantized by group, each group has its own ea, and the first
    and third term are sums over groups; of two planes, ea_i is ``max_k |a_ik| / 32639 / 2``. The rounding is that of
    the epilogue: in float32, about 1e-6 times the lengths of row and column.

    Parameters
    ----------
    a, b : array_like or QArray
        Operands of a product, as for :func:`fastq.matmul`.
    bits : int
        Bits for operands that are quantized on the fly.
    activations : {"row", "group", "two-plane"}, optional
        As in :func:`fastq.matmul`.

    Returns
    -------
    numpy.ndarray or scalar
        float64, of the shape of the product. 0 for two arrays of 8-bit integers, whose product is exact. Infinity where
        the product may overflow its float type on the way. Of products that NumPy computes: 0 for integers and bool
        (NumPy's result is the definition), and the bound of a sum of K rounded products for longdouble and complex.

    Raises
    ------
    TypeError, ValueError
        For operands that cannot be multiplied, and arrays of objects, which may hold anything.

    Notes
    -----
    The bound is that of the worst case: it grows with K, whereas a typical error grows with the square root of K. The
    function needs memory for each operand in float64.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> a, b = np.array([[1.0, 0.5]]), np.array([[0.25], [1.0]])
    >>> bound = fq.matmul_error_bound(a, b)
    >>> abs(fq.matmul(a, b) - 0.75) <= bound
    array([[ True]])
    >>> print(bound.round(4))
    [[0.0109]]
    """
    a, b = dispatch.arrays(a, b)
    natural = dispatch.natural_type(a, b)
    if natural is None:
        known: Float64 = _of_numpy(a, b)
        return known
    extras = Extras(bits, activations=activations)
    turned = dispatch.needs_turning(a, b, activations)
    task = (Task.turned_of if turned else Task.of)(a, b, extras, natural)
    if natural.kind == "i" or 0 in (task.k, *task.shape):
        bound = np.zeros(task.shape)
    else:
        with np.errstate(all="ignore"):
            bound = _bound(task, natural).reshape(task.shape)
    if turned and b.ndim > 1:
        bound = np.swapaxes(bound, -1, -2)
    return bound if bound.shape else bound[()]


class Side(NamedTuple):
    """Figures of the lines of an operand (rows on the left, columns on the right), one value for each line.

    Steps of the left operand and sums of the right one are by group, if floats on the left are quantized so.
    """

    step: Array  # how far an element may be from the number that is multiplied in its place
    sum: Array  # of magnitudes along K
    length: Array  # Euclidean
    top: Array  # the largest number: an element, a scale, an offset


# The epilogue rounds the terms of a segment, each time by a factor of 1 + u at most:
#
#     float(v) * sa * sb                      3 roundings, 4 with two planes
#     (sa * float(r)) * ob                    3
#     oa * (sb * float(c) + float(k) * ob)    4
#     their sum                               2, 2 and 1
#     the sum of segments                     segments - 1
#
# (a scale outside the sum of the segments rounds a term once, as it would inside)
# and parameters are rounded themselves, if they come in a wider type or a balance is multiplied into them. So no term
# is rounded more than segments + 6 times. A term is at most the product of |s * c| + |o| of both sides, and the sum of
# these along K is at most the product of the lengths of row and column.
ROUNDINGS = 6
# An underflow in a product, a transform or an epilogue makes an error of at most so many of the smallest numbers per k,
# times whatever is multiplied with it later.
UNDERFLOWS = 4096


def _bound(task: Task, computed: np.dtype[Any]) -> Array:
    info = np.finfo(computed)
    unit, k = float(info.eps) / 2, task.k
    form = task.left.form if isinstance(task.left, FloatOperand) else FloatForm(8)
    starts = np.arange(0, k, form.group or k)  # of the groups that have steps of their own
    counts = np.diff(starts, append=k)[:, None]
    left, right = (_side(task, side, starts, computed) for side in ("left", "right"))
    # Steps (M, groups) times sums (groups, N). One group is the rule, and then they are a column and a row.
    quantized = left.step @ (right.sum + counts * right.step) + left.sum * right.step
    # The number multiplied in place of an element is larger by a step at most.
    step, total = left.step.max(axis=-1, keepdims=True, initial=0), right.sum.sum(axis=-2, keepdims=True)
    sums = left.sum + k * step, total + k * right.step
    if form.planes > 1:  # |256 * high| + |low| is up to 256 codes, or 512 steps, more than the code
        step = 1024 * step
    lengths = (left.length + step * np.sqrt(k)) * (right.length + right.step * np.sqrt(k))
    count = _segments(task)
    rounded = _gamma(count + ROUNDINGS + form.planes - 1, unit) * lengths
    underflow = float(info.smallest_subnormal) * UNDERFLOWS * k * (1 + left.top) * (1 + right.top)
    # All this is computed in float64, in sums of K.
    bound: Array = (quantized + rounded + underflow) * (1 + (k + 64) * 2.0**-52)
    largest = np.maximum(np.maximum(256 * sums[0], sums[1]), lengths)  # of the numbers in the epilogue
    if count > 1:  # the scale of rows may come after the sum of segments
        largest = np.maximum(largest, 256 * sums[1])
    return np.where(largest < float(info.max) / 4, bound, np.inf)


def _gamma(count: int, unit: float) -> float:
    """The largest relative error of so many roundings."""
    return count * unit / (1 - count * unit) if count * unit < 1 else np.inf


def _segments(task: Task) -> int:
    """The largest number of segments of K, whose products are added up as floats."""
    pairs = ((task.left.lines(i, "left"), task.right.lines(j, "right")) for _, i, j in task.each())
    return max((segment_k(task.k, a, b, longest_segment(a.reach, b.reach)).segments for a, b in pairs), default=1)


def _side(task: Task, side: str, starts: Array, computed: np.dtype[Any]) -> Side:
    """The figures of an operand's lines; arrays have length 1 in place of K, or one entry per group."""
    along = -1 if side == "left" else -2
    operand, other = (task.left, task.right) if side == "left" else (task.right, task.left)
    if isinstance(operand, FloatOperand):
        balance = other.balance_along("right" if side == "left" else "left")
        came = (side == "right") != task.turned  # as the second one
        return _of_floats(task.inputs[came], operand, "ab"[came], (along, starts), balance, computed)
    if isinstance(operand, CodeOperand):
        magnitudes, largest = np.abs(operand.array.astype(np.float64)), 1.0
    else:
        assert isinstance(operand, QArray)
        magnitudes, largest = _of_codes(operand, operand.ndim + along)
    total, length, top = _along(magnitudes, along)
    if side == "right":
        total = np.add.reduceat(magnitudes, starts, axis=along)
    return Side(np.zeros_like(top), total, length, np.maximum(top, largest))


def _along(magnitudes: Array, axis: int) -> tuple[Array, Array, Array]:
    """Sum, length and largest of magnitudes along an axis."""
    top = magnitudes.max(axis=axis, keepdims=True, initial=0)
    shares = magnitudes / np.where(top == 0, 1, top)  # whose squares do not overflow
    length = top * np.sqrt((shares * shares).sum(axis=axis, keepdims=True))
    return magnitudes.sum(axis=axis, keepdims=True), length, top


def _of_floats(
    array: Array,
    operand: FloatOperand,
    name: str,
    cut: tuple[int, Array],
    balance: ChannelTransform | None,
    computed: np.dtype[Any],
) -> Side:
    """The figures of floats, times the other operand's balance if it has one, under the scales that they will get.

    They are cut along an axis, at those places; on the left, each part has a scale.
    """
    along, starts = cut
    check_finite(array, name)
    values = operand.array.astype(computed, copy=False)
    if operand.form.balance is not None:
        values = operand.form.balance.apply(values)
        check_finite(values, "a, balanced as b is,")
    magnitudes = np.abs(values.astype(np.float64))
    total, length, largest = _along(magnitudes, along)
    top = np.maximum.reduceat(magnitudes, starts, axis=along) if along == -1 else largest
    if along == -2:
        total = np.add.reduceat(magnitudes, starts, axis=along)
    info = np.finfo(computed)
    unit, high = float(info.eps) / 2, operand.form.high
    # The scale is rounded; a subnormal one may also grow by two of the smallest numbers. The quotient, at most `high`,
    # is rounded before it is rounded to an integer.
    step = (top / high * (1 + 4 * unit) + 2 * float(info.smallest_subnormal)) / 2 * (1 + 2 * (high + 2) * unit)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        step += unit * top  # such integers are rounded to float64
    if balance is not None and balance.block == 1:
        step += 2 * unit * top
    elif balance is not None:
        # Each result is a sum of a block's elements x, which are rounded when they are multiplied, and log2(block)
        # times as they are added. The sum of |x| is at most the length of the results.
        step += _gamma(balance.block.bit_length() + 4, unit) * length
    return Side(step, total, length, largest + step.max(axis=along, keepdims=True, initial=0))


def _of_codes(q: QArray, summed: int) -> tuple[Array, float]:
    """Magnitudes |scale * (code - zero)| + |offset|, and the largest scale or offset.

    A balance along the summed axis is the other operand's.
    """
    parts = [None if p is None else p.astype(np.float64) for p in (q.scale, q.zero_point, q.offset)]
    scale, zero, offset = (None if p is None else expand(p, q.shape, q.axis, q.group_size) for p in parts)
    assert scale is not None
    if q.balance is not None and q.axis != summed:
        scale, offset = scale * q.balance, None if offset is None else offset * q.balance
    magnitudes = np.abs(scale * (q.codes - (0.0 if zero is None else zero)))
    if offset is not None:
        magnitudes += np.abs(offset)
    return magnitudes, max(float(np.abs(p).max(initial=0)) for p in (scale, offset) if p is not None)


def _of_numpy(a: Any, b: Any) -> Any:
    """The bound of products that NumPy computes."""
    k, shape = result_shape(a.shape, b.shape)[2:5:2]
    kind = np.result_type(a.dtype, b.dtype)
    if kind.kind not in "biufc":
        raise TypeError(f"a and b must be of numbers, so that their product has a bound; got {a.dtype} and {b.dtype}")
    if kind.kind in "biu":
        return np.zeros(shape) if shape else np.float64(0)
    info = np.finfo(kind)
    # Operands are converted; sums of K products, of 2 K for complex numbers, are rounded in any order.
    count, factor = (2 * k + 6, 2) if kind.kind == "c" else (k + 3, 1)
    with np.errstate(all="ignore"):
        magnitudes = numpys.matmul(*(np.abs(x.astype(kind)) for x in (a, b)))
        bound = factor * _gamma(count, float(info.eps)) * magnitudes + 8 * k * info.smallest_subnormal
        wide = np.asarray(bound).astype(np.float64) * (1 + 2.0**-50)
    return np.where(np.isnan(wide), np.inf, wide)[()]
