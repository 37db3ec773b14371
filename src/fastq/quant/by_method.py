"""Quantizing by a method: parameters first, then integer group scales if asked for, then codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.quant import affine, groups, percentile
from fastq.quant.gptq import Gptq, quantize_columns
from fastq.quant.methods import Method, Percentile
from fastq.quant.moment import SecondMoment
from fastq.quant.search import search
from fastq.quant.spec import Quantized, QuantSpec

Array = npt.NDArray[Any]
Tell = Callable[[int, int], Any] | None


def by_method(
    x: Array,
    spec: QuantSpec,
    method: Method,
    moment: SecondMoment | None = None,
    name: str = "x",
    progress: Tell = None,
) -> Quantized:
    """Codes and parameters; `moment` is the second moment of what is multiplied with the axis.

    `progress` is called with (steps done, steps to do), if there are many.
    """
    x = x if x.flags.aligned else x.copy()
    if isinstance(method, Gptq):
        assert moment is not None
        if moment.shrinkage < 1:
            return _compensated(x, spec, method, moment, progress)
        method = "mse"  # channels are not correlated: no error can be compensated
    weights = None if moment is None else moment.weights
    integer = spec.integer and x.size > 0
    if method == "minmax":
        result = affine.quantize(x, spec, name=name)
        if not integer:
            return result
        params = result.params
    else:
        affine.check_finite(x, name)
        params = percentile.parameters(x, spec, method) if isinstance(method, Percentile) else search(x, spec, weights)
    if integer:
        params = groups.chosen(x, params, spec, weights) if method == "mse" else groups.widened(params, spec)
    return Quantized(affine.quantize(x, spec, params.by_group, name).codes, params)


def _compensated(x: Array, spec: QuantSpec, method: Gptq, moment: SecondMoment, progress: Tell) -> Quantized:
    """Rounding that compensates its errors, along either axis of a matrix."""
    if spec.axis == 0:
        return quantize_columns(x, spec, moment, method, progress)
    codes, params = quantize_columns(x.T, spec._replace(axis=0), moment, method, progress)
    return Quantized(codes.T, params.mapped(np.transpose))
