"""Types of GGML that have no scales: plain ones, and those that fastq does not read, with the reason.

They are numbered as in enum ggml_type. Blocks with scales are in :mod:`fastq.formats.ggml_blocks`. Sources: ggml.h and
ggml-common.h of ggml; constants.py of gguf 0.19.0.
"""

from __future__ import annotations

from typing import NamedTuple

BFLOAT16 = "bfloat16"
PLAIN_TYPES = {  # F32, F16, I8, I16, I32, I64, F64, BF16
    0: "<f4",
    1: "<f2",
    24: "i1",
    25: "<i2",
    26: "<i4",
    27: "<i8",
    28: "<f8",
    30: BFLOAT16,
}


class OtherType(NamedTuple):
    """A type that is not read."""

    name: str
    size: int  # elements of a block
    nbytes: int  # of a block
    reason: str


_OPERAND = "it is for operands within a product, not for tensors in files"
_VECTORS = "its codes number the vectors of a table, and are no multiples of a scale"
_VALUES = "its codes number the values of a table, and are no multiples of a scale"
_NARROW = "fastq has no codes of fewer than 2 bits"
_FLOATS = "its codes are floats of 4 bits, and fastq's are integers"
_GONE = "ggml has removed it"

OTHER_TYPES = {
    **{number: OtherType(f"type {number}", 1, 0, _GONE) for number in (4, 5, 31, 32, 33, 36, 37, 38)},
    9: OtherType("Q8_1", 32, 36, _OPERAND),
    15: OtherType("Q8_K", 256, 292, _OPERAND),
    16: OtherType("IQ2_XXS", 256, 66, _VECTORS),
    17: OtherType("IQ2_XS", 256, 74, _VECTORS),
    18: OtherType("IQ3_XXS", 256, 98, _VECTORS),
    19: OtherType("IQ1_S", 256, 50, _VECTORS),
    20: OtherType("IQ4_NL", 32, 18, _VALUES),
    21: OtherType("IQ3_S", 256, 110, _VECTORS),
    22: OtherType("IQ2_S", 256, 82, _VECTORS),
    23: OtherType("IQ4_XS", 256, 136, _VALUES),
    29: OtherType("IQ1_M", 256, 56, _VECTORS),
    34: OtherType("TQ1_0", 256, 54, _NARROW),
    35: OtherType("TQ2_0", 256, 66, "fastq reads no ternary blocks"),
    39: OtherType("MXFP4", 32, 17, _FLOATS),
    40: OtherType("NVFP4", 64, 36, _FLOATS),
    41: OtherType("Q1_0", 128, 18, _NARROW),
}


def other(number: int) -> OtherType:
    """A type that is not read, be it known or not."""
    return OTHER_TYPES.get(number) or OtherType(f"type {number}", 1, 0, "it is none that fastq knows")
