"""The exceptions of fastq. Wrong types and values are plain TypeError and ValueError."""

from __future__ import annotations


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
