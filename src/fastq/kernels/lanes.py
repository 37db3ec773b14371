"""Vectors of floats in IR that look like arrays, and conversions between them and their 16-bit forms."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.activations import FUNCTIONS, NUMBERS
from fastq.machine.dialect import F32, FLOATS, I16, I32, I64, declare

MANTISSA = {"f32": 23, "f64": 52}  # bits


class Lanes:
    """A vector of floats in IR, with the operators of an array."""

    def __init__(self, b: ir.IRBuilder, value: Any) -> None:
        self.b, self.value = b, value

    def of(self, other: Any) -> Any:
        """Another vector's value, or a number in every lane."""
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(self.value.type, [float(other)] * self.value.type.count)

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

    def __init__(self, b: ir.IRBuilder, kind: str) -> None:
        self.b, self.kind, self.numbers = b, kind, NUMBERS[kind]

    def where(self, condition: Any, x: Any, y: Any) -> Lanes:
        """``x`` where the condition holds, ``y`` elsewhere; one of them is a vector."""
        like = x if isinstance(x, Lanes) else y
        return Lanes(self.b, self.b.select(condition, like.of(x), like.of(y)))

    def rint(self, x: Lanes) -> Lanes:
        """Round half to even."""
        name = f"llvm.rint.v{x.value.type.count}{self.kind}"
        return Lanes(self.b, self.b.call(declare(self.b, name, x.value.type, [x.value.type]), [x.value]))

    def times_power(self, x: Lanes, n: Lanes) -> Lanes:
        """``x * 2**n``: n is added to the exponent."""
        ints = ir.VectorType(I32 if self.kind == "f32" else I64, x.value.type.count)
        shift = ir.Constant(ints, [MANTISSA[self.kind]] * ints.count)
        power = self.b.shl(self.b.fptosi(n.value, ints), shift)
        return Lanes(self.b, self.b.bitcast(self.b.add(self.b.bitcast(x.value, ints), power), x.value.type))


def activated(name: str, b: ir.IRBuilder, value: Any) -> Any:
    """An activation (:mod:`fastq.kernels.activations`) of a vector."""
    kind = next(k for k, element in FLOATS.items() if element == value.type.element)
    return FUNCTIONS[name](Lanes(b, value), Vectors(b, kind)).value


# Conversions in integer arithmetic: what LLVM makes of its own half type is an instruction on most CPUs, but on others
# a call of a function that the process may lack.


def _shaped(value: Any, element: ir.Type) -> Any:
    """The type of as many elements as the value has, vector or scalar."""
    return ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element


def _filled(value_type: Any, number: float) -> ir.Constant:
    vector = isinstance(value_type, ir.VectorType)
    return ir.Constant(value_type, [number] * value_type.count if vector else number)


def from_bfloat16(b: ir.IRBuilder, value: Any) -> Any:
    """float32 of the bits of a bfloat16 (exact)."""
    words = _shaped(value, I32)
    return b.bitcast(b.shl(b.zext(value, words), _filled(words, 16)), _shaped(value, F32))


def from_float16(b: ir.IRBuilder, value: Any) -> Any:
    """float32 of the bits of a float16 (exact); infinity and NaN become infinity."""
    words, floats = _shaped(value, I32), _shaped(value, F32)
    wide = b.zext(value, words)
    size = b.shl(b.and_(wide, _filled(words, 0x7FFF)), _filled(words, 13))
    # The exponent's bias differs by 112, and a multiplication makes subnormal numbers right as well.
    number = b.bitcast(b.fmul(b.bitcast(size, floats), _filled(floats, 2.0**112)), words)
    finite = b.icmp_unsigned("<", size, _filled(words, 0x7C00 << 13))
    number = b.select(finite, number, _filled(words, 0x7F800000))
    sign = b.shl(b.and_(wide, _filled(words, 0x8000)), _filled(words, 16))
    return b.bitcast(b.or_(number, sign), floats)


def to_float16(b: ir.IRBuilder, value: Any) -> Any:
    """The bits of float32 rounded to float16, ties to even; beyond 65,520 infinity."""
    words, floats, halves = _shaped(value, I32), _shaped(value, F32), _shaped(value, I16)

    def number(n):
        return _filled(words, n)

    bits = b.bitcast(value, words)
    size = b.and_(bits, number(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, number(13)), number(1))
    normal = b.lshr(b.add(b.add(size, number(0xFFF - (112 << 23))), odd), number(13))
    # Added to 0.5, whose last bit is worth as much as that of a subnormal float16, a number is rounded there.
    half = b.bitcast(b.fadd(b.bitcast(size, floats), _filled(floats, 0.5)), words)
    small = b.icmp_unsigned("<", size, number(0x38800000))
    result = b.select(small, b.sub(half, number(0x3F000000)), normal)
    result = b.select(b.icmp_unsigned(">=", size, number(0x47800000)), number(0x7C00), result)
    result = b.select(b.icmp_unsigned(">", size, number(0x7F800000)), number(0x7E00), result)
    sign = b.and_(b.lshr(bits, number(16)), number(0x8000))
    return b.trunc(b.or_(result, sign), halves)
