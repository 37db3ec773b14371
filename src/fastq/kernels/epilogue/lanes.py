"""Vectors of floats in IR that look like arrays, so that activations are written once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.epilogue.activations import FUNCTIONS, NUMBERS
from fastq.kernels.floats import FLOATS, FloatType
from fastq.machine.ir import filled, float_function, shaped


class Lanes:
    """A vector of floats in IR, with the operators of an array."""

    def __init__(self, b: ir.IRBuilder, value: Any) -> None:
        self.b, self.value = b, value

    def of(self, other: Any) -> Any:
        """Another vector's value, or a number in every lane."""
        if isinstance(other, Lanes):
            return other.value
        return filled(self.value.type, float(other))

    def _join(self, operation: str, x: Any, y: Any) -> Lanes:
        return Lanes(self.b, getattr(self.b, operation)(self.of(x), self.of(y)))

    def __add__(self, other: Any) -> Lanes:
        return self._join("fadd", self, other)

    def __radd__(self, other: Any) -> Lanes:
        return self._join("fadd", other, self)

    def __sub__(self, other: Any) -> Lanes:
        return self._join("fsub", self, other)

    def __rsub__(self, other: Any) -> Lanes:
        return self._join("fsub", other, self)

    def __mul__(self, other: Any) -> Lanes:
        return self._join("fmul", self, other)

    def __rmul__(self, other: Any) -> Lanes:
        return self._join("fmul", other, self)

    def __truediv__(self, other: Any) -> Lanes:
        return self._join("fdiv", self, other)

    def __rtruediv__(self, other: Any) -> Lanes:
        return self._join("fdiv", other, self)

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
