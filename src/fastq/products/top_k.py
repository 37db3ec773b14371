"""The best k of each row of a product: search, without the matrix of all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.engine import top
from fastq.engine.operands import longest_segment
from fastq.engine.plan import this_machine
from fastq.engine.prepared import NativeProduct, PreparedProduct
from fastq.errors import NotFiniteError, shown
from fastq.products import dispatch, repeated
from fastq.products.foreign import as_array
from fastq.products.operands import FloatOperand, Operand
from fastq.products.task import Extras, Task
from fastq.quant.affine import check_finite
from fastq.validation import axis_of, integer, truth

Array = npt.NDArray[Any]
Top = tuple[Array, npt.NDArray[np.int64]]

BAND = 64 << 20  # bytes of scores, or of rows that are scored again, that exist at a time


class Choice(NamedTuple):
    """What is wanted of each row."""

    k: int
    largest: bool
    where: npt.NDArray[np.bool_] | None  # which columns may be among the best


class Options(NamedTuple):
    """Arguments of :func:`fastq.top_k`, as they came."""

    axis: Any
    largest: Any
    rescore: Any
    oversample: Any
    bias: Any
    where: Any
    out: Any


def top_k(x: Any, q: Any, k: Any, options: Options) -> Top:
    """See :func:`fastq.top_k`."""
    axis, largest, rescore, oversample, bias, where, out = options
    x, database = _queries(x), _database(q, axis)
    width, n = database.shape
    if x.shape[-1] != width:
        raise ValueError(
            f"x must have as many elements along its last axis as q has along axis {axis}, {width}; got shape {x.shape}"
        )
    choice = _choice(k, largest, where, n)
    target = _checked_out(out, (*x.shape[:-1], choice.k))
    flat = x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), width)
    task = _task(flat, database, bias)
    if rescore is None:
        values, indices = _best(task, choice)
    else:
        rows = _rows_of(rescore, (n, width))
        oversample = integer(oversample, "oversample", "an integer of at least 1")
        if oversample < 1:
            raise ValueError(f"oversample must be an integer of at least 1, got {shown(oversample)}")
        many = choice._replace(k=min(choice.k * oversample, _count(choice.where, n)))
        values, indices = _rescored(task, rows, _best(task, many)[1], choice)
    values, indices = (a.reshape(*x.shape[:-1], choice.k) for a in (values, indices))
    if target is None:
        return values, indices
    np.copyto(target[0], values, casting="same_kind")
    target[1][...] = indices
    return target


def _queries(x: Any) -> Any:
    if not isinstance(x, Operand):
        x = as_array(x, "x")
    if len(x.shape) == 0 or (isinstance(x, Operand) and len(x.shape) > 2):
        raise ValueError(f"x must be a vector or rows of them, and two-dimensional if quantized; got shape {x.shape}")
    return x


def _database(q: Any, axis: int) -> Any:
    """The database as the right operand of a product, K x N."""
    if not isinstance(q, Operand):
        q = as_array(q, "q")
    if q.ndim != 2:
        raise ValueError(f"q must have two dimensions, items and their elements; got shape {q.shape}")
    along = axis_of(axis, 2)
    if isinstance(q, Operand) and (scaled := getattr(q, "axis", None)) is not None and scaled % 2 != along:
        raise ValueError(
            f"q must be quantized along the axis that is summed over, {along - 2}, so that each item has its scale; "
            f"got {q!r}: quantize with axis={along - 2}, or pass axis={scaled % 2 - 2} if items lie along the other one"
        )
    return q.T if along else q


def _choice(k: Any, largest: Any, where: Any, n: int) -> Choice:
    k = integer(k, "k", "an integer of at least 1")
    if k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {shown(k)}")
    if where is not None:
        where = np.asarray(where)
        if where.dtype != bool or where.shape != (n,):
            raise ValueError(
                f"where must be an array of bool with an element for each of the {n} items, got {where.dtype} of shape "
                f"{where.shape}"
            )
    if k > (count := _count(where, n)):
        items = f"of items, {n}" if where is None else f"of items that where lets pass, {count}"
        raise ValueError(f"k must be at most the number {items}; got {shown(k)}")
    return Choice(k, truth(largest, "largest"), where)


def _count(where: Array | None, n: int) -> int:
    return n if where is None else int(np.count_nonzero(where))


def _checked_out(out: Any, shape: tuple[int, ...]) -> Top | None:
    if out is None:
        return None
    good = isinstance(out, tuple) and len(out) == 2 and all(isinstance(part, np.ndarray) for part in out)
    if not good:
        raise TypeError(f"out must be a tuple of two arrays, values and indices; got {shown(out)}")
    for part, name in zip(out, ("values", "indices")):
        if part.shape != shape or not part.flags.writeable or (name == "indices" and part.dtype != np.int64):
            what = "int64 " if name == "indices" else ""
            raise ValueError(
                f"out must have writeable {what}{name} of shape {shape}; got {part.dtype} of shape {part.shape}"
                + ", read-only" * (not part.flags.writeable)
            )
    return out[0], out[1]


def _task(x: Any, database: Any, bias: Any) -> Task:
    natural = dispatch.natural_type(x, database)
    if natural is None:
        raise TypeError(
            f"x and q must be of floats or 8-bit integers, or quantized; got {x.dtype} and {database.dtype}"
        )
    return Task.of(x, database, Extras(8, bias), natural)


@contextmanager
def _named(task: Task) -> Iterator[None]:
    """Name what is not finite as :func:`top_k` does."""
    try:
        yield
    except NotFiniteError:
        for name, x in zip(("x", "q"), task.inputs):
            if isinstance(x, np.ndarray):
                check_finite(x, name)
        raise


def _best(task: Task, choice: Choice) -> Top:
    """The best of a product by its codes."""
    kind = np.dtype(task.output.type)
    with _named(task):
        a, b = task.left.lines((), "left"), task.right.lines((), "right")
        longest = longest_segment(a.reach, b.reach)
        if 0 in (task.m, task.k) or (kind.kind == "i" and task.k > longest):
            scores = np.empty(task.matrices, kind)
            task.fill(scores)
            return _chosen(scores[0], choice)
        held = task._replace(output=task.output._replace(top=True))
        product = _prepared(held, lambda: held.prepared(a, b, (), longest))
        native = isinstance(product, NativeProduct)
        most = top.rows_at_once(choice.k, this_machine().threads) if native else BAND // (kind.itemsize * task.n)
        wanted = top.Wanted(choice.k, not choice.largest, top.columns_to_keep(task.n, choice.where))
        parts = []
        for part, band, x, params in held.bands(product, a, (), max(1, min(product.rows_at_once, most))):
            if isinstance(band, NativeProduct):
                parts.append(top.best(band, x, params, task.bias, wanted))
            else:
                scores = np.empty((part.stop - part.start, task.n), kind)
                band(x, params, scores, task.bias)
                parts.append(_chosen(scores, choice))
    values, indices = parts[0] if len(parts) == 1 else (np.concatenate(some) for some in zip(*parts))
    return values.astype(kind, copy=False), indices


def _prepared(task: Task, make: Callable[[], PreparedProduct]) -> PreparedProduct:
    """The prepared product: the database keeps those of floats."""
    left = task.left
    if not isinstance(left, FloatOperand):
        return make()
    kind = "top", task.m, left.dtype, left.form._replace(balance=None), task.output  # the balance is the database's own
    return repeated.kept(task.right, kind, make)


def _chosen(scores: Array, choice: Choice) -> Top:
    """The best of each row of scores, by NumPy."""
    columns = None if choice.where is None else np.flatnonzero(choice.where)
    scores = scores if columns is None else scores[:, columns]
    order = _order(scores, choice)
    return np.take_along_axis(scores, order, 1), order if columns is None else columns[order]


def _order(scores: Array, choice: Choice) -> Array:
    """Where the best are, the first ones first among equals."""
    turned = scores if not choice.largest else -scores if scores.dtype.kind == "f" else ~scores
    return np.argsort(turned, axis=-1, kind="stable")[..., : choice.k]


def _rows_of(rescore: Any, shape: tuple[int, int]) -> Any:
    if isinstance(rescore, Operand):
        raise TypeError(
            f"rescore must be the float rows that q was quantized from; got {rescore!r}, whose scores are those of its "
            "codes: pass the array before it was quantized"
        )
    if not (hasattr(rescore, "__getitem__") and isinstance(getattr(rescore, "shape", None), tuple)):
        raise TypeError(f"rescore must have a shape and be indexed by rows, as an array is; got {shown(rescore)}")
    if rescore.shape != shape:
        raise ValueError(f"rescore must have a row for each item, shape {shape}; got {rescore.shape}")
    return rescore


def _rescored(task: Task, rows: Any, candidates: npt.NDArray[np.int64], choice: Choice) -> Top:
    """The best of some candidates for each row, by the products of floats."""
    x = task.inputs[0]
    x = x.dequantize() if isinstance(x, Operand) else np.asarray(x)  # type: ignore[attr-defined]
    candidates = np.sort(candidates, axis=1)  # equal scores: the lower index first
    kind: np.dtype[Any] | None = None
    bias = None if task.bias is None else np.asarray(task.bias)
    values, indices = [], []
    band = max(1, BAND // (8 * candidates.shape[1] * task.k))
    for start in range(0, task.m, band):
        some = candidates[start : start + band]
        unique, inverse = np.unique(some, return_inverse=True)  # in the order in which a file has them
        read = np.asarray(rows[unique])
        kind = np.result_type(x, read, np.float32)
        if kind.kind != "f":
            raise TypeError(f"rescore must hold real numbers, got {read.dtype}")
        queries = x[start : start + band].astype(kind, copy=False)
        scores = (read.astype(kind, copy=False)[inverse.reshape(some.shape)] @ queries[:, :, None])[..., 0]
        if bias is not None:
            scores = scores + bias.astype(kind)[some] if bias.size > 1 else scores + bias.astype(kind)
        order = _order(scores, choice)
        values.append(np.take_along_axis(scores, order, 1))
        indices.append(np.take_along_axis(some, order, 1))
    if not values:
        return np.empty((0, choice.k), np.float32), np.empty((0, choice.k), np.int64)
    return np.concatenate(values), np.concatenate(indices)


def merge_top_k(parts: Any, k: int, largest: bool) -> Top:
    """See :func:`fastq.merge_top_k`."""
    parts = _pairs(parts)
    for values, indices in parts:
        if values.shape != indices.shape or values.ndim == 0 or values.shape[:-1] != parts[0][0].shape[:-1]:
            raise ValueError(
                "parts must hold pairs of values and indices of one shape, alike but for the last axis; got shapes "
                f"{', '.join(f'{v.shape} and {i.shape}' for v, i in parts)}"
            )
    values, indices = (np.concatenate(some, axis=-1) for some in zip(*parts))
    choice = _choice(k, largest, None, values.shape[-1])
    by_index = np.argsort(indices, axis=-1, kind="stable")
    values, indices = (np.take_along_axis(a, by_index, -1) for a in (values, indices))
    order = _order(values, choice)
    return np.take_along_axis(values, order, -1), np.take_along_axis(indices, order, -1)


def _pairs(parts: Any) -> list[Top]:
    try:
        pairs = [(np.asarray(values), np.asarray(indices)) for values, indices in parts]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or any(values.dtype.kind not in "fiu" or indices.dtype.kind not in "iu" for values, indices in pairs):
        raise TypeError(f"parts must hold pairs of values and indices, numbers and integers; got {shown(parts)}")
    return pairs
