"""Quantizing by a method: parameters first, integer group scales where they are wanted, then codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy.typing as npt

from fastq.quant import affine, groups, percentile, search
from fastq.quant.affine import Given, Quantized
from fastq.quant.gptq import Gptq, quantize_columns
from fastq.quant.methods import Method, Percentile
from fastq.quant.moment import SecondMoment

Array = npt.NDArray[Any]
Tell = Callable[[int, int], Any] | None


class QuantSpec(NamedTuple):
    """The form that an array is quantized to."""

    bits: int
    axis: int | None
    group: int | None
    scheme: str
    integer: bool = False  # integer group scales


def by_method(
    x: Array,
    form: QuantSpec,
    method: Method,
    moment: SecondMoment | None = None,
    name: str = "x",
    progress: Tell = None,
) -> Quantized:
    """Codes and parameters; `moment` is that of what the axis will be multiplied by.

    `progress` is called with steps done and steps to do, where there are many.
    """
    bits, axis, group, scheme, _ = form
    x = x if x.flags.aligned else x.copy()
    if isinstance(method, Gptq):
        assert moment is not None
        if moment.shrinkage < 1:
            return _compensated(x, form, method, moment, progress)
        method = "mse"  # no channel tells of another: nothing can be made up for
    weights = None if moment is None else moment.weights
    if method == "minmax":
        result = affine.quantize(x, bits, axis, group, scheme, name=name)
        if not form.integer or x.size == 0:
            return result
        own = Given(result.scale, result.zero)
    else:
        affine.check_finite(x, name)
        if isinstance(method, Percentile):
            own = percentile.parameters(x, bits, axis, group, scheme, method)
        else:
            own = search.search(x, bits, axis, group, scheme, weights)
        if not form.integer or x.size == 0:
            return affine.quantize(x, bits, axis, group, scheme, own, name)
    assert axis is not None
    assert group is not None
    if method == "mse":
        shared = groups.chosen(x, own, bits, axis, group, scheme, weights)
    else:
        shared = groups.widened(own, bits, axis)
    result = affine.quantize(x, bits, axis, group, scheme, shared.given, name)
    return result._replace(scale=shared.scale, factors=shared.factors)


def _compensated(x: Array, form: QuantSpec, method: Gptq, moment: SecondMoment, progress: Tell) -> Quantized:
    """Error-compensating rounding along either axis of a matrix."""
    columns = x if form.axis == 0 else x.T
    found = quantize_columns(columns, form.bits, form.group, form.scheme, moment, method, form.integer, progress)
    return found if form.axis == 0 else Quantized(*(None if p is None else p.T for p in found))  # type: ignore[arg-type]
