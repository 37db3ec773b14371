"""The limits of every kernel on this machine, measured and printed."""

from __future__ import annotations

from fastq.engine.roofline import roofline
from fastq.machine import cpu


def run() -> None:
    """Measure for about three seconds and print one row per kind of kernel, and one for memory."""
    limits = roofline()
    heads = ("1 thread", f"{limits.threads} thread" + "s" * (limits.threads > 1))
    print(cpu.cpu_name())
    _row("10^9 multiplications and additions per second", *heads)
    for name, rate in limits.peaks.items():
        _row(f"  {name}", *(f"{figure / 1e9:,.0f}" for figure in rate))
    _row("GB per second", *heads)
    _row("  read from memory", *(f"{figure / 1e9:.1f}" for figure in limits.bandwidth))


def _row(name: str, one: str, many: str) -> None:
    print(f"{name:<46}{one:>12}{many:>12}")
