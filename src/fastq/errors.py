"""The exceptions of fastq, and how messages show what was received.

Wrong types and values are plain TypeError and ValueError.
"""

from __future__ import annotations

import reprlib
from typing import Any


class IsaError(RuntimeError):
    """``FASTQ_ISA`` names an instruction set that this CPU does not have, or that fastq does not know.

    It is raised at the first use of a kernel, not by ``import fastq``; the message has the names to choose from.

    Examples
    --------
    >>> import fastq as fq
    >>> issubclass(fq.IsaError, RuntimeError)
    True
    """


class NotFiniteError(ValueError):
    """The input holds NaN or infinity, for which no code exists; the message counts and locates them.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> fq.quantize([1.0, np.nan, 2.0])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fastq.errors.NotFiniteError: x must be finite, ...; 1 of 3 values is not, the first at index (1,) (nan)
    """


class FileFormatError(ValueError):
    """A file is not what its format says, or holds what fastq cannot read; the message names the file and the place.

    Examples
    --------
    >>> import fastq as fq
    >>> issubclass(fq.FileFormatError, ValueError)
    True
    """


class _Short(reprlib.Repr):
    """A ``repr`` that is neither deep nor long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 80


_SHORT = _Short()


def shown(value: Any) -> str:
    """A value in one short line, whatever it is.

    ``repr`` itself may recurse without end (lists in lists), raise (it is the user's method; integers of many digits
    have none), or take pages.
    """
    try:
        return " ".join(_SHORT.repr(value).split())
    except Exception:
        return f"an object of type {type(value).__name__}"


def with_type(value: Any) -> str:
    """The same, followed by its type."""
    return f"{shown(value)} of type {type(value).__name__}"


def in_bytes(count: int) -> str:
    """So many bytes."""
    number, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{count} bytes" if units[0] == "bytes" else f"{number:.1f} {units[0]}"
