"""The exceptions of fastq. Wrong types and values are plain TypeError and ValueError."""

from __future__ import annotations


class IsaError(RuntimeError):
    """``FASTQ_ISA`` names an instruction set that this CPU does not have, or that fastq does not know."""


class NotFiniteError(ValueError):
    """The input holds NaN or infinity, for which no code exists."""
