"""What several commands have in common: arguments, and the line that shows progress."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from fastq.progress import Mebibytes
from fastq.scheme import MAX_BITS, MIN_BITS, SCHEMES

LARGE = 32 << 20  # bytes of a file, from which on it takes so long that somebody wants to know


def bits(text: str) -> int:
    """A width."""
    number = _number(text)
    if number is None or not MIN_BITS <= number <= MAX_BITS:
        raise argparse.ArgumentTypeError(f"it must be from {MIN_BITS} to {MAX_BITS}, got {text!r}")
    return number


def group(text: str) -> int | None:
    """The size of groups; None: there are none."""
    number = _number(text)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(f"it must be a number of elements, or 0 for no groups; got {text!r}")
    return number or None


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def add_form(parser: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    """How an array is quantized, besides bits and groups."""
    axis = "the axis that shares scales: -1 for weights (N, K) of x @ w.T (default), 0 for (K, N) of x @ w"
    parser.add_argument("--axis", type=int, default=-1, help=axis)
    parser.add_argument("--method", choices=methods, default="minmax", help="how scales are chosen (default: minmax)")
    parser.add_argument("--scheme", choices=SCHEMES, default="symmetric", help="the kind of codes (default: symmetric)")


@contextmanager
def progress(task: str) -> Generator[Callable[[int, int], None], None, None]:
    """What is told of bytes done, and shows them on a line of stderr with rate and time left; not of small files."""
    line = Mebibytes(task)

    def tell(done: int, total: int) -> None:
        if total >= LARGE:
            line(done, total)

    try:
        yield tell
    except BaseException:
        line.line.close()
        raise
