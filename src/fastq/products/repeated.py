"""Products that repeat: the right operand keeps what the first one has prepared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastq.engine.operands import Array
from fastq.engine.plan import this_machine
from fastq.engine.prepared import NativeProduct, PreparedProduct
from fastq.products.operands import FloatOperand, Operand
from fastq.products.task import Task

KEPT = 64  # kinds of products that one operand remembers


def again(a: Any, b: Any, out: Any, bias: Any, kind: tuple[Any, ...]) -> Array | None:
    """The product, if one of its kind has been prepared and its arguments are the usual ones; else None.

    `kind` is the epilogue, the type and the activations asked for.
    """
    turned = bias is None and type(b) is np.ndarray and b.ndim == 1 and isinstance(a, Operand) and len(a.shape) == 2
    if turned:
        a, b = b, a.mT
    if not isinstance(b, Operand) or not b.ready:
        return None
    if type(a) is np.ndarray:
        x, scale = a, None
    elif isinstance(a, Operand) and (pair := a.rows()) is not None:
        x, scale = pair
    else:
        return None
    try:
        prepared = b.ready.get((a.shape, a.dtype, scale is None, turned, *kind))
    except TypeError:  # an epilogue that cannot be hashed
        return None
    if prepared is None or prepared.machine != this_machine():
        return None
    return prepared.again(x, scale, bias, out)


def kept(right: Operand, kind: tuple[Any, ...], make: Callable[[], PreparedProduct]) -> PreparedProduct:
    """The prepared product that an operand keeps under a key, or a new one, which it keeps from now on."""
    if right.ready is None:
        return make()
    prepared = right.ready.get(kind)
    if prepared is None or prepared.machine != this_machine():
        made = make()
        if not isinstance(made, NativeProduct):
            return made
        prepared = _kept(right.ready, kind, made)
    return prepared


def _kept(ready: dict[Any, NativeProduct], kind: tuple[Any, ...], prepared: NativeProduct) -> NativeProduct:
    if len(ready) >= KEPT:
        ready.clear()
    ready[kind] = prepared
    return prepared


def keep(task: Task, prepared: PreparedProduct, kind: tuple[Any, ...]) -> None:
    """Let the next product of this kind find what this one has prepared."""
    (a, b), left = task.inputs, task.left
    if task.turned:
        if b.ndim > 1:  # the result is computed as a transpose
            return
        a, b = b, a.mT
    if getattr(b, "ready", None) is None or len(b.shape) != 2:
        return
    if not (isinstance(prepared, NativeProduct) and prepared.repeats(this_machine())):
        return
    floats = not isinstance(a, Operand)
    if floats and (not isinstance(left, FloatOperand) or left.dtype != a.dtype or not a.dtype.isnative):
        return
    if not floats and a.rows() is None:
        return
    # The key has the logical type of a QArray, which decides the product's type; its codes are int8 in any case.
    prepared.expect(a.shape, b.order_along("right"))
    try:
        _kept(b.ready, (a.shape, a.dtype, floats, task.turned, *kind), prepared)
    except TypeError:  # an epilogue or a description of a type that cannot be hashed
        return
