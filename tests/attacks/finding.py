"""What an attack reports, and comparisons that report it."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastq as fq


class Finding(AssertionError):
    """Something that must not be. Its first words tell the kind; numbers in it may differ from case to case."""


# What fastq documents to raise for arguments that it does not take.
REFUSALS = (TypeError, ValueError, OverflowError)


def must(holds: Any, message: str) -> None:
    """Report it, unless it holds."""
    if not holds:
        raise Finding(message)


def must_equal(got: Any, want: Any, what: str) -> None:
    """Report arrays that are not the same, bit for bit but for the payload of NaN, and quantized arrays likewise."""
    if isinstance(want, fq.QArray):
        _must_equal_by_parts(got, want, what)
        return
    form = f"{want.dtype} {want.shape}"
    must((got.shape, got.dtype) == (want.shape, want.dtype), f"{what}: {got.dtype} {got.shape}, not {form}")
    other = ~((got == want) & (np.signbit(got) == np.signbit(want)) | (np.isnan(got) & np.isnan(want)))
    if other.any():
        at = tuple(map(int, np.unravel_index(int(np.argmax(other)), got.shape)))
        count = f"{int(other.sum())} of {got.size} differ"
        raise Finding(f"{what}: {count}, at {at} {got[at]!r}, not {want[at]!r}")


def _must_equal_by_parts(got: Any, want: fq.QArray, what: str) -> None:
    for name in ("shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation"):
        mine, other = getattr(got, name), getattr(want, name)
        must(mine == other, f"{what}: {name} is {mine}, not {other}")
    for name in ("codes", "scale", "group_scale", "zero_point", "offset", "balance"):
        mine, other = getattr(got, name), getattr(want, name)
        must((mine is None) == (other is None), f"{what}: {name} is {mine}, not {other}")
        if other is not None:
            must_equal(mine, other, f"{what}: {name} of {want!r}")
    must(got.equals(want), f"{what}: {got!r} is not {want!r}")
