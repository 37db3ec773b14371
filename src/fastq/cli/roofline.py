"""Measure how fast this machine can multiply and read memory, which no product can exceed; takes three seconds."""

from __future__ import annotations

import argparse

from fastq.cli import output


def arguments(parser: argparse.ArgumentParser) -> None:
    """There are no arguments."""


def run(given: argparse.Namespace) -> None:
    """Measure, and print one row per kind of kernel, and one for memory."""
    from fastq.engine.roofline import roofline
    from fastq.machine import cpu

    limits = roofline()
    if given.json:
        peaks = {name: rate._asdict() for name, rate in limits.peaks.items()}
        output.document(
            {
                "cpu": cpu.cpu_name(),
                "threads": limits.threads,
                "operations_per_second": peaks,
                "bytes_per_second": limits.bandwidth._asdict(),
            }
        )
        return
    heads = ("1 thread", f"{limits.threads} thread" + "s" * (limits.threads > 1))
    print(cpu.cpu_name())
    _row("10^9 multiplications and additions per second", *heads)
    for name, rate in limits.peaks.items():
        _row(f"  {name}", *(f"{figure / 1e9:,.0f}" for figure in rate))
    _row("GB per second", *heads)
    _row("  read from memory", *(f"{figure / 1e9:.1f}" for figure in limits.bandwidth))


def _row(name: str, one: str, many: str) -> None:
    print(f"{name:<46}{one:>12}{many:>12}")
