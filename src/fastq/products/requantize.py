"""Products in codes of 8 bits."""

from __future__ import annotations

import numpy as np

from fastq.engine.memory import empty
from fastq.engine.prepared import Grid
from fastq.engine.views import FlatParams
from fastq.errors import NotFiniteError
from fastq.products.task import Task
from fastq.quant.affine import quantize as quantize_array
from fastq.quant.spec import Quantized, QuantParams, QuantSpec


def requantized(task: Task, spec: QuantSpec, given: QuantParams | None) -> Quantized:
    """The product as codes of 8 bits, with the given parameters (one, or one per row) or those of its rows.

    Only a band of rows at a time exists as floats.
    """
    columns = len(task.inputs[1].shape) > 1  # else the last axis is that of rows, which share no scale
    if not columns or len(task.shape) < 2 or 0 in (*task.shape, task.k):
        floats = empty(task.matrices, np.dtype(task.output.type))
        task.fill(floats)
        floats = floats.reshape(task.shape)
        return quantize_array(floats, spec, given, "a @ b")
    codes = np.empty(task.matrices, np.int8 if spec.limits.signed else np.uint8)
    params = _parameters(task, given)
    status = 0
    with task.named_errors():
        for number, left_at, right_at in task.each():
            chosen = params if spec.axis is None else FlatParams(*(p[number] for p in params))
            grid = Grid(chosen, spec.limits, spec.number)
            status |= task.one(codes[number], left_at, right_at, grid)[1]
    if status:
        raise NotFiniteError("a @ b must be finite, because NaN and infinity have no code; it overflows its float type")
    shape = (1,) * len(task.shape) if spec.axis is None else (*task.shape[:-1], 1)
    scale, zero = params.scale.reshape(shape), params.zero.reshape(shape)
    return Quantized(codes.reshape(task.shape), QuantParams.of_scheme(spec.scheme, scale, zero, params.offset))


def _parameters(task: Task, given: QuantParams | None) -> FlatParams:
    """Room for the parameters of a requantized product, by matrix and row; 0 where they are to be chosen."""
    dtype = np.dtype(task.output.type)
    if given is not None and given.scale.size == 1:
        scale, zero = (np.full(1, 0 if p is None else p, dtype) for p in given[:2])
        return FlatParams(scale, zero, np.zeros(1, dtype), np.empty(1, dtype), np.empty(1, dtype))
    rows = task.matrices[:2]
    parts = (None, None) if given is None else given[:2]
    shape = (*task.shape[:-1], 1)
    scale, zero = (np.broadcast_to(0 if p is None else p, shape).astype(dtype).reshape(rows) for p in parts)
    return FlatParams(scale, zero, *(np.zeros(rows, dtype) for _ in range(3)))
