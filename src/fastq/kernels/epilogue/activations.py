"""Activation functions, written once for NumPy arrays and for IR.

``relu(x, on)``, ``gelu(x, on)`` and ``silu(x, on)`` use arithmetic that is rounded correctly (+, -, *, /) and what `on`
provides: :class:`Arrays` computes, :class:`fastq.kernels.epilogue.lanes.Vectors` emits IR. So the kernels' results are
those of the lines below, bit for bit, on every instruction set, and no C library is called.

exp: Cody and Waite's reduction to ``|r| <= ln(2) / 2``, then the Taylor series, whose next term is below half a unit
in the last place. The normal distribution's tail: ``erfc(z) = t * exp(-z**2 + P(t))`` with ``t = 2 / (2 + z)``, the
form of Press et al., Numerical Recipes, section 6.2; the coefficients of P are our own Chebyshev fit of
``log(erfcx(z) / t)`` (relative error 1.0e-7 in float32, 2e-15 in float64).
"""

from __future__ import annotations

from math import factorial
from typing import Any, NamedTuple

import numpy as np


class Numbers(NamedTuple):
    """Constants of a float type."""

    lowest: float  # exp, and what is made of it, stays normal from here: subnormal numbers cost 150 cycles each
    highest: float  # to here
    ln2_high: float  # few bits, so that its multiples are exact
    ln2_low: float
    terms: int  # of the Taylor series
    tail: tuple[float, ...]  # P in powers of 2 t - 1


NUMBERS = {
    "f32": Numbers(-80.0, 88.0, 0.693359375, -2.12194440e-4, 8, (
        -0.67179406, 0.67264223, 0.047343105, -0.04687489, -0.009873768, 0.008703812, 0.0017765646,
        -0.0020487348, -0.00020790912, 0.0003337359,
    )),
    "f64": Numbers(-700.0, 709.0, 6.93147180369123816490e-01, 1.90821492927058770002e-10, 14, (
        -0.6717940840566922, 0.6726432239776587, 0.047343306841869395, -0.04689561023140056,
        -0.009872689364808411, 0.008824938563468514, 0.0017589335239742308, -0.0023458125790868155,
        -0.00014624648031248526, 0.0006736792979816675, -9.373765864392098e-05, -0.00017430472804210045,
        7.141279724448702e-05, 3.1748327973702045e-05, -3.022381551720266e-05, 1.3776992485977088e-07,
        8.638314364799604e-06, -2.9613540736208513e-06, -1.3822642545850577e-06, 1.2820321992975658e-06,
        -6.056740928801593e-08, -2.890552733181994e-07, 8.508765511898283e-08, 2.9720992028408244e-08,
        -1.4099793849626948e-08,
    )),
}  # fmt: skip


class Arrays:
    """Activation functions on NumPy arrays of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.numbers = NUMBERS["f32" if dtype == np.float32 else "f64"]

    where = staticmethod(np.where)
    rint = staticmethod(np.rint)

    def times_power(self, x: Any, n: Any) -> Any:
        """``x * 2**n`` for whole n and normal results."""
        return np.ldexp(x, n.astype(np.int32))


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme, lowest power first."""
    value: Any = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def exp(x: Any, on: Any) -> Any:
    """``e**x``, of x cut off where the result would not be a normal number; NaN gives anything."""
    c = on.numbers
    x = on.where(x > c.lowest, x, c.lowest)
    x = on.where(x < c.highest, x, c.highest)
    n = on.rint(x * 1.4426950408889634)
    r = (x - n * c.ln2_high) - n * c.ln2_low
    return on.times_power(_polynomial(r, tuple(1 / factorial(i) for i in range(c.terms))), n)


def relu(x: Any, on: Any) -> Any:
    """``max(x, 0)``."""
    return on.where(x < 0, 0.0, x)


def silu(x: Any, on: Any) -> Any:
    """``x / (1 + exp(-x))``."""
    # Below that the result is not a normal number, and minus infinity would be divided by a finite one.
    return on.where(x < -on.numbers.highest, 0.0, x) / (1.0 + exp(0.0 - x, on))


def gelu(x: Any, on: Any) -> Any:
    """``x * Phi(x)``, Phi being the normal distribution: the exact form, not the one with tanh."""
    size = on.where(x < 0, 0.0 - x, x)
    z = size * 0.7071067811865476
    t = 2.0 / (z + 2.0)
    tail = (t * 0.5) * exp(_polynomial(t * 2.0 - 1.0, on.numbers.tail) - z * z, on)
    # Of minus infinity the product with a tail of 0 would be NaN.
    return on.where(x < -40.0, 0.0, x) * on.where(x < 0, tail, 1.0 - tail)


FUNCTIONS = {"relu": relu, "gelu": gelu, "silu": silu}


def on_arrays(name: str, x: Any) -> Any:
    """An activation of a float32 or float64 array."""
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[name](x, Arrays(x.dtype)), x.dtype)
