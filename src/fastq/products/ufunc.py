"""The arguments that ``np.matmul`` has as a ufunc: the axes of operands and result, `out`, and the type of the result.

Errors are NumPy's. When a check fails here, ``np.matmul`` is called with the same arguments, but with operands that
take no memory; it raises before it computes anything, and its error is passed on (:func:`_numpys_error`).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from fastq import numpys
from fastq.errors import shown
from fastq.promotion import result_shape
from fastq.typed import Activations, Epilogue
from fastq.validation import axes_of

Array = npt.NDArray[Any]


class UfuncOptions(TypedDict, total=False):
    """Keywords of ``np.matmul`` that say how it is called, rather than what is computed."""

    axes: list[Any]
    casting: Literal["no", "equiv", "safe", "same_kind", "unsafe"]
    order: Literal["K", "A", "C", "F"]
    subok: bool


class Fused(TypedDict, total=False):
    """Keywords of :func:`fastq.matmul` that say what is computed, whatever the type of the product."""

    bits: int
    bias: npt.ArrayLike | None
    epilogue: Epilogue
    activations: Activations | None


class Options(Fused, UfuncOptions, total=False):
    """All keywords on which the type of the product does not depend."""


class Call(NamedTuple):
    """A call that NumPy would accept."""

    a: Any  # the operands; the axes that are multiplied come last, here and in what follows
    b: Any
    shape: tuple[int, ...]  # of the product
    target: Array | None  # the product is broadcast to its shape and written to it
    permutation: tuple[int, ...] | None  # from the caller's order of the result's axes to this one; None: the same
    casting: Any

    def restored(self, product: Array) -> Array:
        """The product with its axes where the caller wants them."""
        return product if self.permutation is None else product.transpose(np.argsort(self.permutation))


def call(a: Any, b: Any, out: Any, natural: np.dtype[Any], wanted: np.dtype[Any], options: UfuncOptions) -> Call:
    """Check the arguments of a product of type `natural`, asked for in the type `wanted`."""
    try:
        return _checked(a, b, out, natural, wanted, options)
    except (TypeError, ValueError) as error:
        raise _numpys_error(a, b, out, natural, wanted, options) or error from None


def _checked(a: Any, b: Any, out: Any, natural: np.dtype[Any], wanted: np.dtype[Any], options: UfuncOptions) -> Call:
    if unknown := options.keys() - UfuncOptions.__annotations__:
        raise TypeError(f"matmul() got an unexpected keyword argument {min(unknown)!r}")
    if out is None and not options and wanted == natural:
        return Call(a, b, result_shape(a.shape, b.shape)[-1], None, None, "same_kind")
    casting, order = options.get("casting", "same_kind"), options.get("order") or "K"
    if not np.can_cast(natural, wanted, casting):
        raise TypeError(f"dtype must be one to which casting={shown(casting)} lets {natural} become; got {wanted}")
    if not isinstance(options.get("subok", True), bool):
        raise TypeError(f"subok must be True or False, got {shown(options['subok'])}")
    if not isinstance(order, str) or order.upper() not in ("K", "A", "C", "F"):
        raise ValueError(f"order must be one of 'C', 'F', 'A', or 'K' (got {shown(order)})")
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an array, got {type(out).__name__}")
    by_columns = order.upper() == "F" or (order.upper() == "A" and all(_lies_by_columns(x) for x in (a, b)))
    axes = _axes(options)
    if axes is not None:
        a, b = (x.transpose(*_core_last(len(x.shape), min(2, len(x.shape)), at)) for x, at in zip((a, b), axes))
    shape = result_shape(a.shape, b.shape)[-1]
    core = (len(a.shape) > 1) + (len(b.shape) > 1)
    permutation = None if axes is None else _core_last(len(shape) if out is None else out.ndim, core, axes[2])
    target = None if out is None else np.asarray(out)
    if target is None and by_columns and shape:
        back = range(len(shape)) if permutation is None else np.argsort(permutation)
        target = np.empty([shape[i] for i in back], wanted, order="F")
    if target is not None:
        target = target if permutation is None else target.transpose(permutation)
        missing = len(shape) - target.ndim
        if missing > 0 and target.ndim >= core - (len(a.shape) > 1) and set(shape[:missing]) == {1}:
            target = target[(None,) * missing]  # NumPy lets axes of length 1 be left out, down to that of one row
        _check_target(target, shape, core, wanted, casting)
    return Call(a, b, shape, target, permutation, casting)


def _lies_by_columns(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.flags.f_contiguous and not x.flags.c_contiguous


def _axes(options: UfuncOptions) -> list[Any] | None:
    if "axes" not in options:
        return None
    axes = options["axes"]
    if not isinstance(axes, list) or len(axes) != 3:
        raise TypeError(f"axes must be a list of three, for a, b and the product; got {shown(axes)}")
    return axes


def _core_last(ndim: int, core: int, entry: Any) -> tuple[int, ...]:
    """The order of axes in which those of an entry of `axes`, which must be `core` many, come last."""
    places = (entry,) if core == 1 and not isinstance(entry, tuple) else entry
    if not isinstance(places, tuple) or len(places) != core or any(isinstance(place, bool) for place in places):
        raise TypeError(f"axes must hold a tuple of {core} for what has {ndim} dimensions, got {shown(entry)}")
    last = axes_of(places, ndim)
    return (*(i for i in range(ndim) if i not in last), *last)


def _check_target(target: Array, shape: tuple[int, ...], core: int, wanted: np.dtype[Any], casting: Any) -> None:
    """Whether a product of this shape, whose last `core` axes are its own, can be written there."""
    batch, whole = len(shape) - core, target.ndim - core
    fits = target.shape[whole:] == shape[batch:] and target.shape[:whole] == _broadcast(
        target.shape[:whole], shape[:batch]
    )
    if not fits:
        raise ValueError(f"out must have the shape of the product, {shape}, or further axes before; got {target.shape}")
    if not target.flags.writeable:
        raise ValueError("out must be writeable; the array given is read-only")
    if not np.can_cast(wanted, target.dtype, casting):
        raise TypeError(f"out must be able to hold {wanted} (casting={shown(casting)}), got dtype {target.dtype}")


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _numpys_error(
    a: Any, b: Any, out: Any, natural: np.dtype[Any], wanted: np.dtype[Any], options: UfuncOptions
) -> Exception | None:
    """What NumPy raises for such arguments."""
    inputs = [np.broadcast_to(np.zeros((), natural), x.shape) for x in (a, b)]
    if isinstance(out, np.ndarray):
        one = np.zeros((), out.dtype)
        out = as_strided(one, out.shape, (0,) * out.ndim, writeable=out.flags.writeable)
    elif out is not None:  # not the object itself, which may be one that ufuncs leave the call to
        out = (0,) * len(out) if isinstance(out, tuple) else 0
    kind = {} if wanted == natural else {"dtype": wanted}
    try:
        numpys.matmul(*inputs, out=out, **kind, **options)  # type: ignore[call-overload]
    except Exception as error:
        return error.with_traceback(None)
    return None


def wrapped(result: Array, inputs: tuple[Any, Any], out: Any, subok: bool) -> Any:
    """What ``np.matmul`` returns for an array of results: a number, or what ``__array_wrap__`` makes of the array.

    That method is looked for as NumPy does it: in `out` if there is one, else in the input of the highest priority.
    """
    wrap = None
    if out is not None:
        wrap = None if type(out) is np.ndarray else getattr(out, "__array_wrap__", None)
        result, inputs = out, (*inputs, out)  # type: ignore[assignment]
    elif subok:
        wrap = _highest_wrap(inputs)
    as_number = out is None and result.ndim == 0
    if wrap is None:
        return result[()] if as_number else result
    context = numpys.matmul, inputs, 0
    refusals = []
    for arguments in ((result, context, as_number), (result, context), (result,)):  # newest signature first
        try:
            return wrap(*arguments)
        except TypeError as error:
            refusals.append(error)
    raise refusals[0]


def _highest_wrap(inputs: tuple[Any, Any]) -> Any:
    method, highest = None, -np.inf
    for x in inputs:
        is_base = type(x) is np.ndarray
        wrap = None if is_base else getattr(x, "__array_wrap__", None)
        if not is_base and wrap is None:
            continue
        priority = 0.0 if is_base else getattr(x, "__array_priority__", 0.0)
        if priority > highest or (priority == 0 and highest == 0 and method is None):
            method, highest = wrap, priority
    return method
