"""A quantized array of numbers in memory, by a task whose arguments have been checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastq.engine.groups import GroupScales
from fastq.engine.store import Store
from fastq.promotion import float_type, is_float
from fastq.qarray.array import QArray
from fastq.quant import affine
from fastq.quant.by_method import Tell, by_method
from fastq.quant.spec import Quantized, QuantSpec
from fastq.quant.task import QuantTask
from fastq.typed import Array


def of_task(array: Array, task: QuantTask, name: str, tell: Tell = None) -> QArray:
    """Quantize an array in memory; `name` stands for it in messages."""
    floats = float_type(array.dtype, name)
    values = task.transform(array.astype(floats, copy=False))
    if task.given is not None:
        result = affine.quantize(values, task.spec, task.given, name)
    else:
        result = by_method(values, task.spec, task.method, task.transformed_moment(), name, tell)
    logical = array.dtype if is_float(array.dtype) else floats
    return as_qarray(result, task.spec, logical.newbyteorder("="), task.balance)


def as_qarray(result: Quantized, spec: QuantSpec, dtype: np.dtype[Any], balance: Array | None = None) -> QArray:
    """The quantized array that users see."""
    scale, zero, offset, group_scale = result.params
    scales = None
    if group_scale is not None and spec.group is not None:
        scales, zero = GroupScales(spec.group, group_scale, None if zero is None else zero.astype(np.uint8)), None
    store = Store(result.codes, spec.limits, spec.bits, scales)
    return QArray._make(store, False, spec, (scale, zero, offset, balance, None), dtype)
