"""Vectors of floats in IR that look like arrays, so that activations are written once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.epilogue.activations import FUNCTIONS, NUMBERS
from fastq.kernels.floats import FLOATS, FloatType
from fastq.machine.ir import filled, float_function, shaped


def _operators(operation: str) -> tuple[Any, Any]:
    """Methods of :class:`Lanes` for an operator, with the vector on its left and on its right."""

    def forward(lanes: Lanes, other: Any) -> Lanes:
        return Lanes(lanes.b, getattr(lanes.b, operation)(lanes.value, lanes.of(other)))

    def reflected(lanes: Lanes, other: Any) -> Lanes:
        return Lanes(lanes.b, getattr(lanes.b, operation)(lanes.of(other), lanes.value))

    return forward, reflected


class Lanes:
    """A vector of floats in IR, with the operators of an array."""

    def __init__(self, b: ir.IRBuilder, value: Any) -> None:
        self.b, self.value = b, value

    def of(self, other: Any) -> Any:
        """Another vector's value, or a number in every lane."""
        if isinstance(other, Lanes):
            return other.value
        return filled(self.value.type, float(other))

    __add__, __radd__ = _operators("fadd")
    __sub__, __rsub__ = _operators("fsub")
    __mul__, __rmul__ = _operators("fmul")
    __truediv__, __rtruediv__ = _operators("fdiv")

    def __lt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered("<", self.value, self.of(other))

    def __gt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered(">", self.value, self.of(other))


class Vectors:
    """Activation functions as IR."""

    def __init__(self, b: ir.IRBuilder, kind: FloatType) -> None:
        self.b, self.kind, self.numbers = b, kind, NUMBERS[kind.name]

    def where(self, condition: Any, x: Any, y: Any) -> Lanes:
        """``x`` where the condition holds, ``y`` elsewhere; one of them is a vector."""
        like = x if isinstance(x, Lanes) else y
        return Lanes(self.b, self.b.select(condition, like.of(x), like.of(y)))

    def rint(self, x: Lanes) -> Lanes:
        """Round half to even."""
        return Lanes(self.b, float_function(self.b, "rint", x.value))

    def times_power(self, x: Lanes, n: Lanes) -> Lanes:
        """``x * 2**n``: n is added to the exponent."""
        ints = shaped(self.kind.ints, x.value.type)
        power = self.b.shl(self.b.fptosi(n.value, ints), filled(ints, self.kind.mantissa))
        return Lanes(self.b, self.b.bitcast(self.b.add(self.b.bitcast(x.value, ints), power), x.value.type))


def activated(name: str, b: ir.IRBuilder, value: Any) -> Any:
    """An activation (:mod:`fastq.kernels.epilogue.activations`) of a vector."""
    kind = next(kind for kind in FLOATS.values() if kind.stored == value.type.element)
    return FUNCTIONS[name](Lanes(b, value), Vectors(b, kind)).value
