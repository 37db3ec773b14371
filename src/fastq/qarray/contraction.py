"""NumPy's products of any number of axes, as matrix products: dot, inner, tensordot, einsum and their kin.

Each product names the axes of its operands by letters, as einsum does. Axes in both operands and in the result are
batch axes. Axes in both operands, but not in the result, are summed. The operands are arranged for a matrix product,
batch axes first, and the axes of the product are put into the order of the result.
"""

from __future__ import annotations

import operator
import string
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from fastq.errors import NotFiniteError, shown, with_type
from fastq.products import dispatch
from fastq.products.operands import Operand
from fastq.qarray.operand import check_summed


def _array(x: Any) -> Any:
    return x if isinstance(x, Operand) else np.asarray(x)


def contract(a: Any, b: Any, names: tuple[str, str, str], out: Any = None, dtype: Any = None) -> Any:
    """The sum over all axes that are in both operands and not in the result; `names` has a letter per axis of each."""
    a, b = _array(a), _array(b)
    left, right, result = names
    batch = [i for i in result if i in left and i in right]
    summed = [i for i in left if i in right and i not in result]
    kept = [[i for i in names if i not in other] for names, other in ((left, right), (right, left))]
    if len(set(left)) < len(left) or len(set(right)) < len(right) or any(i not in result for i in kept[0] + kept[1]):
        raise TypeError(
            "a product with a quantized array sums over axes that both operands have, each once; got "
            f"{left},{right}->{result}: sum or take diagonals of the other operand first, or use q.dequantize()"
        )
    sizes = {**dict(zip(right, b.shape)), **dict(zip(left, a.shape))}
    try:
        matrices = _matrices(a, left, batch, kept[0], summed), _matrices(b, right, batch, summed, kept[1])
        y = dispatch.matmul(*matrices, dtype=dtype)
    except NotFiniteError:
        raise
    except ValueError:  # of scales, most likely: told in terms of the axes as they came in
        _check_summed(a, [left.index(i) for i in summed], "left")
        _check_summed(b, [right.index(i) for i in summed], "right")
        raise
    order = [*batch, *kept[0], *kept[1]]
    y = np.reshape(y, (*y.shape[: len(batch)], *(sizes[i] for i in kept[0] + kept[1])))
    y = np.transpose(y, [order.index(i) for i in result])
    return _into(out, y if y.shape else y[()])


def _check_summed(x: Any, axes: Sequence[int], side: str) -> None:
    """Raise the error of a product whose scales vary along summed axes, in terms of the axes as they came in."""
    if not isinstance(x, np.ndarray):
        check_summed(x, axes, side)


def _matrices(x: Any, names: str, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> Any:
    """A stack of matrices, whose rows and columns may be several axes each."""
    order = [names.index(i) for i in (*batch, *rows, *columns)]
    x = np.transpose(x, order)
    sizes = [x.shape[len(batch) :][: len(rows)], x.shape[len(batch) + len(rows) :]]
    return np.reshape(x, (*x.shape[: len(batch)], *map(prod, sizes)))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """See :func:`numpy.tensordot`."""
    a, b = _array(a), _array(b)
    pairs = _pairs(axes, min(a.ndim, b.ndim))
    if len(pairs[0]) != len(pairs[1]) or any(
        not -x.ndim <= i < x.ndim for x, axes in zip((a, b), pairs) for i in axes
    ):  # fmt: skip
        raise ValueError("shape-mismatch for sum")
    left, right = string.ascii_letters[: a.ndim], list(string.ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(*pairs):
        if a.shape[i] != b.shape[j]:
            raise ValueError("shape-mismatch for sum")
        right[j] = left[i]
    kept = [i for i in left if i not in right] + [j for j in right if j not in left]
    return contract(a, b, (left, "".join(right), "".join(kept)))


def _pairs(axes: Any, most: int) -> tuple[list[int], list[int]]:
    """The axes of both operands that a tensordot sums over. `axes` may be a number of axes, at most `most`."""
    try:
        count = operator.index(axes)
    except TypeError:
        pass
    else:
        if count > most:
            raise ValueError("shape-mismatch for sum")
        return list(range(-count, 0)), list(range(count))
    try:
        first, second = axes
        left, right = ([operator.index(i) for i in (v if np.ndim(v) else [v])] for v in (first, second))
    except (TypeError, ValueError):
        raise TypeError(
            f"axes of a tensordot must be an integer or two sequences of them, got {with_type(axes)}"
        ) from None
    return left, right


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """See :func:`numpy.dot`."""
    a, b = _array(a), _array(b)
    if a.ndim == 0 or b.ndim == 0:
        return np.multiply(a, b) if out is None else np.multiply(a, b, out=out)
    if a.ndim <= 2 and b.ndim <= 2:
        return dispatch.matmul(a, b, out)
    return _into(out, tensordot(a, b, axes=(a.ndim - 1, max(b.ndim - 2, 0))))


def inner(a: Any, b: Any) -> Any:
    """See :func:`numpy.inner`."""
    a, b = _array(a), _array(b)
    return np.multiply(a, b) if a.ndim == 0 or b.ndim == 0 else tensordot(a, b, axes=(-1, -1))


def vdot(a: Any, b: Any) -> Any:
    """See :func:`numpy.vdot`."""
    return dispatch.matmul(np.reshape(_array(a), (-1,)), np.reshape(_array(b), (-1,)))


def einsum(*operands: Any, out: Any = None, dtype: Any = None, optimize: Any = False) -> Any:
    """See :func:`numpy.einsum`. It permutes the axes of one operand, or multiplies two."""
    names, arrays = _subscripts(operands)
    if (
        len(arrays) == 1
        and out is None
        and sorted(names[0]) == sorted(names[1])
        and len(set(names[0])) == len(names[0])
    ):
        return np.transpose(arrays[0], [names[0].index(i) for i in names[1]])
    if len(arrays) != 2:
        raise TypeError(
            "numpy.einsum takes one quantized array to permute its axes, or two operands; got "
            f"{','.join(names[:-1])}->{names[-1]}: contract two at a time, or use q.dequantize()"
        )
    return contract(arrays[0], arrays[1], (names[0], names[1], names[2]), out, dtype)


def _subscripts(operands: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """A string of letters per operand and for the result, without dots."""
    if operands and isinstance(operands[0], str | bytes):
        given = operands[0] if isinstance(operands[0], str) else operands[0].decode("latin-1")
        text, arrays = given.replace(" ", ""), [_array(x) for x in operands[1:]]
    else:
        arrays = [_array(x) for x in operands[: len(operands) // 2 * 2 : 2]]
        lists = [*operands[1::2], *(operands[-1:] if len(operands) % 2 else [])]
        parts = [_letters(one) for one in lists]
        text = ",".join(parts[: len(arrays)]) + ("->" + parts[-1] if len(operands) % 2 else "")
    inputs, arrow, output = text.partition("->")
    names = inputs.split(",")
    for part in (*names, output):
        letters = part.replace("...", "", 1)
        if not all(c in string.ascii_letters for c in letters):
            raise ValueError(
                f"einstein sum subscripts must be letters, and '...' once for each operand; got {shown(text)}"
            )
    output_letters = output.replace("...", "")
    if len(set(output_letters)) < len(output_letters) or not set(output_letters) <= set("".join(names)):
        raise ValueError(
            "einstein sum subscripts must have each output subscript once, and in an input too; got " + shown(text)
        )
    if len(names) != len(arrays):
        fewer = "more" if len(names) < len(arrays) else "fewer"
        raise ValueError(f"{fewer} operands provided to einstein sum function than specified in the subscripts string")
    free = [c for c in string.ascii_letters if c not in text]
    widest = 0
    for i, (subscripts, array) in enumerate(zip(names, arrays)):
        count = array.ndim - len(subscripts.replace("...", ""))
        if count < 0 or (count and "..." not in subscripts):
            raise ValueError(
                f"einstein sum subscripts string {subscripts!r} does not fit operand {i} with shape {array.shape}"
            )
        if "..." in subscripts:
            names[i] = subscripts.replace("...", "".join(free[:count][::-1]))
            widest = max(widest, count)
    dots = "".join(free[:widest][::-1])
    if not arrow:
        once = sorted(c for c in set("".join(names)) - set(dots) if "".join(names).count(c) == 1)
        output = dots + "".join(once)
    return [*names, output.replace("...", dots)], arrays


def _letters(subscripts: Any) -> str:
    """A list of subscripts, integers and dots, as einsum's string has it."""
    try:
        numbers = [i if i is Ellipsis else operator.index(i) for i in subscripts]
    except TypeError:
        raise TypeError(
            "einstein sum subscripts must be a string, or lists of integers after each operand; got "
            + shown(subscripts)
        ) from None
    if not all(i is Ellipsis or 0 <= i < len(string.ascii_letters) for i in numbers):
        raise ValueError(f"einstein sum subscripts must be within the valid range [0, 52), got {shown(subscripts)}")
    return "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in numbers)


def _with_axes(name: str, *operands: tuple[Any, int]) -> Iterator[Any]:
    """Operands as arrays; NumPy's error if one has fewer axes than the number beside it."""
    for number, (x, least) in enumerate(operands):
        array = _array(x)
        if len(array.shape) < least:
            raise ValueError(
                f"{name}: Input operand {number} does not have enough dimensions (has {len(array.shape)}, "
                f"requires {least})"
            )
        yield array


def vecdot(a: Any, b: Any) -> Any:
    """See :data:`numpy.vecdot`."""
    a, b = _with_axes("vecdot", (a, 1), (b, 1))
    if len(b.shape) == 1:
        return dispatch.matmul(a, b)
    if len(a.shape) == 1:
        return dispatch.matmul(b, a)
    _check_summed(a, (-1,), "left")
    _check_summed(b, (-1,), "right")
    return dispatch.matmul(np.expand_dims(a, -2), np.expand_dims(b, -1))[..., 0, 0]


def matvec(a: Any, v: Any) -> Any:
    """See :data:`numpy.matvec`."""
    a, v = _with_axes("matvec", (a, 2), (v, 1))
    if len(v.shape) == 1:
        return dispatch.matmul(a, v)
    _check_summed(a, (-1,), "left")
    _check_summed(v, (-1,), "right")
    if len(a.shape) == 2:
        return dispatch.matmul(v, np.matrix_transpose(a))
    return dispatch.matmul(a, np.expand_dims(v, -1))[..., 0]


def vecmat(v: Any, a: Any) -> Any:
    """See :data:`numpy.vecmat`."""
    v, a = _with_axes("vecmat", (v, 1), (a, 2))
    if len(v.shape) == 1 or len(a.shape) == 2:
        return dispatch.matmul(v, a)
    _check_summed(v, (-1,), "left")
    _check_summed(a, (-2,), "right")
    return dispatch.matmul(np.expand_dims(v, -2), a)[..., 0, :]


def _into(out: Any, y: Any) -> Any:
    if out is None:
        return y
    np.copyto(out, y, casting="same_kind")
    return out
