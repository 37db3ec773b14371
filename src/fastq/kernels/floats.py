"""Float types: a row for each, and the conversions between float32 and the types of 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from fastq.kernels.jobs import LANES
from fastq.machine import cpu
from fastq.machine.ir import F32, F64, I16, I32, I64, filled, load_at, shaped, store_vector

# Bytes of vectors that a loop may hold where 32 registers have 16 each, so that none is spilled.
NARROW = 256

# Conversions in integer arithmetic: what LLVM makes of its own half type is an instruction on most CPUs, but on others
# a call of a function that the process may lack.


def from_bfloat16(b: ir.IRBuilder, value: Any) -> Any:
    """float32 of the bits of a bfloat16 (exact)."""
    words = shaped(I32, value.type)
    return b.bitcast(b.shl(b.zext(value, words), filled(words, 16)), shaped(F32, value.type))


def from_float16(b: ir.IRBuilder, value: Any) -> Any:
    """float32 of the bits of a float16 (exact); infinity and NaN become infinity."""
    words, floats = shaped(I32, value.type), shaped(F32, value.type)
    wide = b.zext(value, words)
    size = b.shl(b.and_(wide, filled(words, 0x7FFF)), filled(words, 13))
    # The exponent's bias differs by 112, and a multiplication makes subnormal numbers right as well.
    number = b.bitcast(b.fmul(b.bitcast(size, floats), filled(floats, 2.0**112)), words)
    finite = b.icmp_unsigned("<", size, filled(words, 0x7C00 << 13))
    number = b.select(finite, number, filled(words, 0x7F800000))
    sign = b.shl(b.and_(wide, filled(words, 0x8000)), filled(words, 16))
    return b.bitcast(b.or_(number, sign), floats)


def to_float16(b: ir.IRBuilder, value: Any) -> Any:
    """The bits of float32 rounded to float16, ties to even; beyond 65,520 infinity."""
    words, floats, halves = (shaped(element, value.type) for element in (I32, F32, I16))

    def number(n):
        return filled(words, n)

    bits = b.bitcast(value, words)
    size = b.and_(bits, number(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, number(13)), number(1))
    normal = b.lshr(b.add(b.add(size, number(0xFFF - (112 << 23))), odd), number(13))
    # Added to 0.5, whose last bit is worth as much as that of a subnormal float16, a number is rounded there.
    half = b.bitcast(b.fadd(b.bitcast(size, floats), filled(floats, 0.5)), words)
    small = b.icmp_unsigned("<", size, number(0x38800000))
    result = b.select(small, b.sub(half, number(0x3F000000)), normal)
    result = b.select(b.icmp_unsigned(">=", size, number(0x47800000)), number(0x7C00), result)
    result = b.select(b.icmp_unsigned(">", size, number(0x7F800000)), number(0x7E00), result)
    sign = b.and_(b.lshr(bits, number(16)), number(0x8000))
    return b.trunc(b.or_(result, sign), halves)


class FloatType(NamedTuple):
    """A float type in memory, and the type that it is computed in: float32 for those of 16 bits."""

    # In memory.
    name: str
    pointer: str  # kind of a pointer to it, as in machine.ir.ELEMENTS
    size: int  # bytes
    stored: ir.Type
    # Computed in; the integers and numbers are of that type.
    computed: str
    type: ir.Type
    ints: ir.IntType
    mantissa: int  # bits
    magnitude: int  # the bits of all but the sign
    infinity: int  # its bits; NaN has larger ones
    tiny: float  # the smallest positive number
    largest: float
    magic: float  # added to a small number, it leaves that rounded to an integer in the lowest bits
    smallest_scale: float  # whose reciprocal is finite, and rounded as others are
    widen: Callable[[ir.IRBuilder, Any], Any] | None = None  # from memory to the computed type

    @property
    def vector(self) -> ir.VectorType:
        """A vector of :data:`~fastq.kernels.jobs.LANES` in the computed type."""
        return ir.VectorType(self.type, LANES)

    def lanes(self, vectors: int) -> int:
        """How many lanes, 16 at most, vectors have of which a loop keeps so many in registers.

        Registers of AVX2 hold as many bytes in all as NEON's. But fewer lanes made columns of float64 take 1.4 times as
        long there: operands come from memory at no cost.
        """
        if not cpu.short_vectors():
            return LANES
        # Conversions take registers, too, and so do comparisons of 64-bit integers on NEON.
        most = NARROW // (vectors * 4 * (1 if self.name == "f32" else 2 * self.ints.width // 32))
        return min(LANES, 1 << max(1, most.bit_length() - 1))

    def load(self, b: ir.IRBuilder, pointer: Any, index: Any, like: ir.Type) -> Any:
        """One element or a vector of them, as `like` is, in the computed type."""
        value = load_at(b, pointer, index, shaped(self.stored, like))
        return self.widen(b, value) if self.widen else value

    def store(self, b: ir.IRBuilder, value: Any, pointer: Any, index: Any) -> None:
        """Store one element or a vector of them, of float32 or float64."""
        store_vector(b, value, b.gep(b.bitcast(pointer, self.stored.as_pointer()), [index]))


_F32 = FloatType(
    "f32", "f32*", 4, F32, "f32", F32, I32, 23, 0x7FFFFFFF, 0x7F800000,
    2.0**-149, 3.4028234663852886e38, 1.5 * 2.0**23, 2.0**-126,
)  # fmt: skip
_F64 = FloatType(
    "f64", "f64*", 8, F64, "f64", F64, I64, 52, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000,
    5e-324, 1.7976931348623157e308, 1.5 * 2.0**52, 2.0**-1022,
)  # fmt: skip
_HALF = _F32._replace(pointer="u16*", size=2, stored=I16)
FLOATS = {
    "f16": _HALF._replace(name="f16", widen=from_float16),
    "bf16": _HALF._replace(name="bf16", widen=from_bfloat16),
    "f32": _F32,
    "f64": _F64,
}
