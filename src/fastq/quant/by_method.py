"""Quantizing by a method: parameters first, integer group scales where they are wanted, then codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from fastq.quant import affine, groups, percentile, search
from fastq.quant.affine import Given, Quantized
from fastq.quant.methods import Percentile

Array = npt.NDArray[Any]


class Wanted(NamedTuple):
    """The form that an array is quantized to."""

    bits: int
    axis: int | None
    group: int | None
    scheme: str
    integer: bool = False  # integer group scales


def by_method(
    x: Array, form: Wanted, method: str | Percentile, weights: Array | None = None, name: str = "x"
) -> Quantized:
    """Codes and parameters; `weights` along the axis are those of squared errors."""
    bits, axis, group, scheme, _ = form
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
