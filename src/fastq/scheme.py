"""The words of quantization: schemes, code ranges, and the equation.

A quantized array stands for ::

    x = scale * (code - zero_point)        symmetric (zero_point = 0), asymmetric
    x = scale * code + offset              affine

(what torch calls affine has a zero point, and is asymmetric here; what MLX calls affine is affine), and codes are
``clip(rint(x / scale) + zero_point, low, high)``, for affine arrays ``clip(rint((x - offset) / scale), low, high)``;
rint rounds half to even, and the division is a true one. The product of A (parameters by row i) and B (parameters by
column j) is ::

    C_ij = sa_i * sb_j * (sum_k qa_ik*qb_kj - za_i * sum_k qb_kj - zb_j * sum_k qa_ik + K * za_i * zb_j)

where the parentheses hold integers only; they are exact.

The scalar functions below choose parameters from the extremes of the data. Kernels compile them as they stand, so they
use plain arithmetic on one float type; `tiny` is its smallest positive number, `high` the number of steps on the scale.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SCHEMES = ("symmetric", "asymmetric", "affine")
MIN_BITS, MAX_BITS = 2, 8

# How floats are quantized on the fly when they meet a quantized array ("activations"): a scale for each row; for each
# group of a row; or one for each row, with codes of two planes (a high and a low signed byte, `256 * high + low`).
ROW, GROUP, TWO_PLANE = ACTIVATIONS = ("row", "group", "two-plane")
ACTIVATION_GROUP = 32  # elements, where the array that they meet has no groups
TWO_PLANE_HIGH = 127 * 256 + 127


class CodeRange(NamedTuple):
    """The codes that a scheme has at a width."""

    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether codes are int8 rather than uint8."""
        return self.low < 0

    @property
    def reach(self) -> int:
        """The largest magnitude of a code."""
        return max(-self.low, self.high)


def code_range(bits: int, scheme: str) -> CodeRange:
    """Two's complement for symmetric codes, ``0 .. 2**bits - 1`` for the others."""
    if scheme == "symmetric":
        return CodeRange(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return CodeRange(0, 2**bits - 1)


def largest_factor(bits: int) -> int:
    """The largest integer group scale: times the lowest symmetric code, it is -128."""
    return int(2 ** (8 - bits))


def symmetric_scale(top: Any, high: Any, tiny: Any) -> Any:
    """``max|x| / high``, kept positive, and fit for numbers near the ends of the float type."""
    if top == 0:
        return top + 1
    scale = top / high
    if scale == 0:
        return tiny
    if top / scale > high + 0.5:  # a subnormal scale was rounded down by much
        return scale + tiny
    if scale * high > top and scale * high == math.inf:
        return scale - scale / 8388608  # one step of float32 down, so that the largest code stays finite
    return scale


def span_scale(low: Any, top: Any, high: Any, tiny: Any) -> Any:
    """``(max - min) / high``, likewise; asymmetric and affine arrays use it."""
    span = top - low
    if span == 0:
        return span + 1
    if span == math.inf:
        return top / high - low / high
    scale = span / high
    if scale == 0:
        return tiny
    if span / scale > high + 0.5:
        return scale + tiny
    return scale
