"""NumPy's functions on quantized arrays: what each does where it has a quantized form, and a refusal by name elsewhere.

Handled are products, rearranging (indices, transposes, shapes, joining and splitting, none of which changes a value),
factors that fold into the scale, and questions about shape and type. Whatever needs the numbers themselves is refused
with a hint to ``q.dequantize()``, because that takes several times the memory and is better seen in a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any, NoReturn

import numpy as np

from fastq import numpys
from fastq.errors import shown
from fastq.products import dispatch
from fastq.products.operands import Operand
from fastq.qarray import contraction, structure
from fastq.qarray.contraction import dot
from fastq.qarray.rearrange import array_parts, expanded, reshape, transpose, with_parts, without
from fastq.qarray.values import astype, times
from fastq.validation import axes_of, axis_of, data_type, integer

HINTS = {
    **dict.fromkeys(("save", "savez", "savez_compressed"), "q.save(path) keeps a quantized array"),
    **dict.fromkeys(("equal", "not_equal"), "q.equals(other) compares two of them, and q.dequantize() has elements"),
}


_OURS = (Operand, np.ndarray, np.generic)


def refuse(name: str) -> NoReturn:
    """Say by name that a function has no quantized form."""
    hint = HINTS.get(name, "call it on q.dequantize()")
    raise TypeError(f"numpy.{name} has no form for quantized arrays, because it needs the numbers; {hint}")


def foreign(values: Sequence[Any]) -> bool:
    """Whether some operand is another library's array, which may know what to do."""
    for v in values:
        kind = type(v)
        if kind is not np.ndarray and hasattr(kind, "__array_ufunc__") and not issubclass(kind, _OURS):
            return True
    return False


# Ufuncs


def ufunc(function: Any, method: str, inputs: Sequence[Any], out: Any, kwargs: dict[str, Any]) -> Any:
    """What ``__array_ufunc__`` answers."""
    if foreign(inputs) or foreign(out or ()):
        return NotImplemented
    handler = UFUNCS.get(function)
    if handler is None or method != "__call__":
        refuse(function.__name__ if method == "__call__" else f"{function.__name__}.{method}")
    if kwargs:
        raise TypeError(
            f"numpy.{function.__name__} of quantized arrays takes no {', '.join(kwargs)}; call it on q.dequantize()"
        )
    target: Any = None if out is None else out[0]
    result: Any = None
    if not isinstance(target, Operand):  # else there may be none among the inputs
        arrays = [x if isinstance(x, Operand | int | float) else np.asarray(x) for x in inputs]
        result = handler(*arrays)
    if out is None:
        return result
    if isinstance(result, Operand) or isinstance(target, Operand):
        raise TypeError(
            f"out of numpy.{function.__name__} must be left out, because a quantized array is immutable; got out"
        )
    np.copyto(target, result, casting="same_kind")
    return target


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(b, Operand):
        a, b = b, a
    if isinstance(b, Operand):
        refuse("multiply of two quantized arrays")
    return times(a, b, False)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(b, Operand):
        refuse("divide by a quantized array")
    return times(a, b, True)


UFUNCS: dict[Any, Callable[..., Any]] = {
    np.multiply: _multiply,
    np.divide: _divide,
    np.negative: lambda q: times(q, -1, False),
    np.positive: lambda q: q,
    np.conjugate: lambda q: q,
}
UFUNCS.update({
    getattr(numpys, name): getattr(contraction, name)
    for name in ("vecdot", "matvec", "vecmat") if getattr(numpys, name) is not None
})  # fmt: skip


# Functions

FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def function(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """What ``__array_function__`` answers."""
    if not all(issubclass(t, Operand | np.ndarray) for t in types):
        return NotImplemented
    handler = FUNCTIONS.get(func)
    if handler is None:
        refuse(f"{func.__module__}.{func.__name__}".removeprefix("numpy."))
    try:
        return handler(*args, **kwargs)
    except (ArithmeticError, RecursionError) as error:  # of numbers that NumPy's own code trips over
        if isinstance(error, FloatingPointError):
            raise  # np.errstate asks for it
        listed = ", ".join(map(shown, (*args[1:], *kwargs.values())))
        raise ValueError(f"numpy.{func.__name__} takes arguments within bounds, got {listed}: {error}") from error


def _handles(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def _quantized(q: Any, name: str) -> Any:
    if not isinstance(q, Operand):
        raise TypeError(
            f"numpy.{name} takes quantized arrays together with quantized arrays only; got {type(q).__name__}"
        )
    return q


FUNCTIONS.update({
    numpys.dot: dot, numpys.inner: contraction.inner, numpys.vdot: contraction.vdot,
    numpys.tensordot: contraction.tensordot, numpys.linalg_tensordot: contraction.tensordot,
    numpys.einsum: contraction.einsum,
    numpys.linalg_matmul: lambda x1, x2, /: dispatch.matmul(x1, x2),
    numpys.multi_dot: lambda arrays, out=None: dot(reduce(dot, arrays[:-1]), arrays[-1], out),
    np.shape: lambda a: a.shape, np.ndim: lambda a: a.ndim,
    np.size: lambda a, axis=None: a.size if axis is None else prod(a.shape[i] for i in axes_of(axis, a.ndim)),
    np.iscomplexobj: lambda x: False, np.isrealobj: lambda x: True, np.real: lambda val: val,
    np.result_type: lambda *args: np.result_type(*map(_type_of, args)),
    np.can_cast: lambda from_, to, casting="safe": np.can_cast(_type_of(from_), _type_of(to), casting),
    np.min_scalar_type: lambda a: a.dtype,
    np.common_type: lambda *arrays: np.common_type(*(np.empty(0, a.dtype) for a in arrays)),
    np.array_repr: lambda arr, **kwargs: repr(arr), np.array_str: lambda a, **kwargs: repr(a),
    np.array2string: lambda a, **kwargs: repr(a),
    np.transpose: lambda a, axes=None: transpose(a, axes),
    np.matrix_transpose: lambda x, /: x.mT, np.linalg.matrix_transpose: lambda x, /: x.mT,
    np.swapaxes: lambda a, axis1, axis2: a.swapaxes(axis1, axis2),
    np.copy: lambda a, order="K", subok=False: a,
    np.flipud: lambda m: m[::-1], np.fliplr: lambda m: m[:, ::-1],
    numpys.linalg_vecdot:
        lambda x1, x2, /, *, axis=-1: contraction.vecdot(*(np.moveaxis(x, axis, -1) for x in (x1, x2))),
})  # fmt: skip
if hasattr(np, "astype"):
    FUNCTIONS[np.astype] = lambda x, dtype, /, **kwargs: astype(x, dtype)

# Functions of NumPy that are made of indices, transposes and joins, which a quantized array has.
for _name in ("moveaxis", "rollaxis", "flip", "split", "array_split", "hsplit", "vsplit", "dsplit", "unstack",
              "vstack", "hstack", "dstack"):  # fmt: skip
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = getattr(np, _name)._implementation


def _splitting(implementation: Any) -> Any:
    """What NumPy does with an array, of a list too: the sections alone may be quantized."""

    def split(ary: Any, indices_or_sections: Any, **options: Any) -> Any:
        return implementation(ary if isinstance(ary, Operand) else np.asarray(ary), indices_or_sections, **options)

    return split


for _name in ("hsplit", "vsplit", "dsplit"):
    FUNCTIONS[getattr(np, _name)] = _splitting(FUNCTIONS[getattr(np, _name)])


def _type_of(value: Any) -> Any:
    return value.dtype if isinstance(value, Operand) else value


def _by_rows(name: str, order: Any, *orders: str) -> None:
    """Refuse an order of elements other than these."""
    if not isinstance(order, str) or order not in orders:
        refuse(f"{name} with order={shown(order)}")


@_handles(np.ravel)
def _ravel(a: Any, order: str = "C") -> Any:
    _by_rows("ravel", order, "C", "A", "K")
    return reshape(a, -1)


@_handles(np.reshape)
def _reshape(a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None) -> Any:
    _by_rows("reshape", order, "C", "A")
    return reshape(a, shape if newshape is None else newshape)


@_handles(np.expand_dims)
def _expand_dims(a: Any, axis: Any) -> Any:
    places = axis if isinstance(axis, tuple | list) else (axis,)
    for place in sorted(axes_of(places, a.ndim + len(places))):
        a = expanded(a, place)
    return a


@_handles(np.squeeze)
def _squeeze(a: Any, axis: Any = None) -> Any:
    axes = [i for i, n in enumerate(a.shape) if n == 1] if axis is None else axes_of(axis, a.ndim)
    if any(a.shape[i] != 1 for i in axes):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    for i in sorted(axes, reverse=True):
        a = without(a, i)
    return a


def _at_least(ndim: int) -> Callable[..., Any]:
    def widened(a: Any) -> Any:
        a = _quantized(a, f"atleast_{ndim}d")
        while a.ndim < ndim:
            a = expanded(a, 2 if a.ndim == 2 else 0)  # a third axis comes last, others first
        return a

    return lambda *arrays: widened(arrays[0]) if len(arrays) == 1 else tuple(map(widened, arrays))


FUNCTIONS.update({np.atleast_1d: _at_least(1), np.atleast_2d: _at_least(2), np.atleast_3d: _at_least(3)})


@_handles(np.rot90)
def _rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    plane = axes_of(axes, m.ndim)
    if len(plane) != 2:
        raise ValueError(f"len(axes) must be 2, got {len(plane)}")
    first, second = plane
    for _ in range(integer(k, "k", "an integer") % 4):
        m = np.swapaxes(np.flip(m, second), first, second)
    return m


@_handles(np.take)
def _take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    if out is not None or not isinstance(mode, str) or mode != "raise":
        refuse("take with out or mode")
    if axis is None:
        a, axis = reshape(_quantized(a, "take"), -1), 0
    places = np.asarray(indices)
    if places.size and places.dtype.kind not in "iub":
        raise TypeError(f"numpy.take of quantized arrays takes indices that are integers, got dtype {places.dtype}")
    at = places if places.dtype.kind in "iu" else places.astype(np.intp)
    return _quantized(a, "take")[(*(slice(None),) * axis_of(axis, a.ndim), at)]


@_handles(np.compress)
def _compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    chosen = np.asarray(condition)
    if chosen.ndim != 1:
        raise ValueError(f"condition must be a 1-d array, got shape {chosen.shape}")
    return _take(a, np.flatnonzero(chosen), axis, out)


@_handles(np.concatenate)
def _concatenate(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    if out is not None:
        refuse("concatenate with out")
    arrays = [_quantized(a, "concatenate") for a in arrays]
    if axis is None:
        arrays, axis = [reshape(a, -1) for a in arrays], 0
    place = axis_of(axis, arrays[0].ndim) if arrays and arrays[0].ndim else 0
    empty = [np.empty([n if i != place else 0 for i, n in enumerate(a.shape)], np.int8) for a in arrays]
    np.concatenate(empty, axis=place)  # NumPy's own errors
    return _joined(arrays, place, np.result_type(*(a.dtype for a in arrays)) if dtype is None else data_type(dtype))


def _joined(arrays: Sequence[Any], axis: int, dtype: Any) -> Any:
    forms = {(a.bits, a.scheme) for a in arrays}
    if len(forms) > 1:
        listed = ", ".join(f"{bits} bits {scheme}" for bits, scheme in sorted(forms))
        raise TypeError(f"quantized arrays that are joined must have one width and scheme; got {listed}")
    arrays = [astype(a, dtype) for a in arrays]
    if len(arrays) == 1:
        return arrays[0]
    result = with_parts(arrays[0], structure.joined([array_parts(a) for a in arrays], axis))
    packed_transposed = {a._store.transposed != a._transposed if a._store.packed else None for a in arrays}
    matrices = result.axis is None or result.axis >= result.ndim - 2  # others, with scales along a stack, stay unpacked
    if len(packed_transposed) == 1 and None not in packed_transposed and matrices:
        (result.mT if packed_transposed.pop() else result).prepack()
    return result


@_handles(np.stack)
def _stack(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    arrays = [_quantized(a, "stack") for a in arrays]
    if len({a.shape for a in arrays}) > 1:
        raise ValueError("all input arrays must have the same shape")
    place = axis_of(axis, arrays[0].ndim + 1)
    return _concatenate([expanded(a, place) for a in arrays], place, out, dtype=dtype, casting=casting)


@_handles(np.column_stack)
def _column_stack(tup: Any) -> Any:
    arrays = [_quantized(a, "column_stack") for a in tup]
    return _concatenate([reshape(a, -1, 1) if a.ndim < 2 else a for a in arrays], 1)


def _numbers(x: Any) -> Any:
    return x.dequantize() if isinstance(x, Operand) else x  # type: ignore[attr-defined]


def _compared(func: Any) -> Callable[..., Any]:
    def compare(*args: Any, **kwargs: Any) -> Any:
        return func(*map(_numbers, args), **{name: _numbers(x) for name, x in kwargs.items()})

    return compare


FUNCTIONS.update({f: _compared(f) for f in (np.array_equal, np.array_equiv, np.allclose, np.isclose)})


def _like(func: Any) -> Callable[..., Any]:
    def made(a: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dtype") is not None:
            kwargs["dtype"] = data_type(kwargs["dtype"])
        return func(np.broadcast_to(np.empty((), _type_of(a)), a.shape), *args, **kwargs)

    return made


FUNCTIONS.update({f: _like(f) for f in (np.empty_like, np.zeros_like, np.ones_like, np.full_like)})
