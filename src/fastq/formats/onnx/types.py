"""The types of tensors that ONNX has, by name and by number (``TensorProto.DataType``, onnx 1.23)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from fastq.formats.binary import Array
from fastq.layout.bitstream import unpack_bits
from fastq.scheme import CodeRange, code_range

NAMES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2", 27: "float6e2m3", 28: "float6e3m2",
}  # fmt: skip
PLAIN = {name for number, name in NAMES.items() if number <= 15 and name != "string"}  # NumPy has them
FLOATS = {"float16", "bfloat16", "float32", "float64"}


class CodeType(NamedTuple):
    """An integer type that values are quantized to."""

    name: str
    bits: int
    signed: bool

    @classmethod
    def of(cls, name: str) -> CodeType | None:
        """The type of this name, if it is one of 2, 4, 8 or 16 bits."""
        found = re.fullmatch("(u?)int(2|4|8|16)", name)
        return cls(name, int(found[2]), not found[1]) if found else None

    @property
    def limits(self) -> CodeRange:
        """The lowest and the highest code."""
        return code_range(self.bits, "symmetric" if self.signed else "asymmetric")

    @property
    def held(self) -> np.dtype[Any]:
        """The type that NumPy holds them in."""
        return np.dtype(f"{'' if self.signed else 'u'}int{max(8, self.bits)}")


def own_type(codes: Array, kind: CodeType) -> Array:
    """Codes in the type of their name: of 2 and 4 bits in that of ml_dtypes, where it is installed and has it."""
    if kind.bits < 8 and find_spec("ml_dtypes"):
        import ml_dtypes

        small = getattr(ml_dtypes, kind.name, None)
        return codes if small is None else codes.astype(small)
    return codes


def unpacked(stream: Array, kind: CodeType, count: int) -> Array:
    """Codes of 2 or 4 bits, which lie in bytes one after the other, lowest bits first."""
    codes = unpack_bits(stream, kind.bits, count)
    if kind.signed:
        half = np.uint8(1 << kind.bits - 1)
        codes = ((codes ^ half) - half).view(np.int8)  # wraps around: the sign goes into the bits above
    return codes
