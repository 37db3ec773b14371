"""``--html FILE``: what a command found as a report to look at, in one file."""

from __future__ import annotations

import argparse
import os
from typing import Any

TRIED = 5  # of the largest arrays: the first one that has codes is drawn


def add(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--html", metavar="FILE", help="write a report to look at, too: one file of HTML")


def check(path: str | None) -> None:
    """Raise OSError where a report cannot be written, before anything else takes its time."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"--html needs a folder that is there; got {path!r}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"--html must be a file, got the folder {path!r}")


def write(path: str, text: str) -> None:
    """Write a report; who reads the file meanwhile sees the old one, or none."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def about(model: Any, found: Any, bits: int = 4, group: int | None = None, **options: Any) -> Any:
    """The name of the largest array that has codes, or would have, and how it lies about them; None without one.

    `model` is what :func:`fastq.open` gives, `found` its inspection, and the rest as in :func:`fastq.quantize`.
    """
    from fastq.models.levels import levels

    quantized = [row for row in found.rows if row.sizes or row.form or not found.forms]
    for row in sorted(quantized, key=lambda row: -row.nbytes)[:TRIED]:
        try:
            drawn = levels(model[row.name], bits, group, **options)
        except (ValueError, TypeError, OSError, MemoryError):
            continue  # its row says why it cannot be read
        if drawn is not None:
            return row.name, drawn
    return None
