"""The progress of a long task, shown on a line of stderr or told to a user's function."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """The progress of a task."""

    done: int  # in units
    total: int | None
    seconds: float
    task: str = "calibrating"
    unit: str = "batches"

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds to go at this rate; None if not known."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate else None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        to_go = "" if self.remaining is None else f", {max(0.0, self.remaining):.0f} s to go"
        return f"{self.task}: {self.done}{of} {self.unit}, {self.rate:.1f} per second{to_go}"


class Line:
    """On a terminal, one line of stderr that is overwritten; in a file, a new line every ten seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.told: Progress | None = None
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show it, if it is time."""
        self.told = progress
        if progress.seconds - self.last >= (0.2 if self.terminal else 10):
            self.last = progress.seconds
            self._write("\r" if self.terminal else "\n")

    def _write(self, end: str) -> None:
        sys.stderr.write(f"{self.told!s:<78}{end}" if self.terminal else f"{self.told}{end}")
        sys.stderr.flush()

    def close(self) -> None:
        """End the line."""
        if self.told is not None:
            self._write("\n")


def by_share(tell: Callable[[int, int], Any] | None, whole: int) -> Callable[[int, int], Any] | None:
    """A function of (steps done, all steps) that tells the same share of `whole`; the caller tells the last step."""
    if tell is None:
        return None

    def told(done: int, total: int) -> None:
        if done < total:
            tell(whole * done // total, whole)

    return told


def by_part(
    tell: Callable[[int, int], Any] | None, start: int, whole: int, total: int
) -> Callable[[int, int], Any] | None:
    """The same for a part of `total` that begins at `start` and has size `whole`."""
    return by_share(None if tell is None else lambda done, _: tell(start + done, total), whole)


class Mebibytes:
    """A line of the bytes that are done."""

    def __init__(self, task: str) -> None:
        self.task, self.line, self.begin = task, Line(), time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        """Show it, if it is time."""
        self.line(Progress(done >> 20, total >> 20, time.perf_counter() - self.begin, self.task, "MiB"))
        if done == total:
            self.line.close()


class Notice:
    """Why a call takes long: a line on stderr, if that is a terminal, from half a second on until the end.

    Nothing is written to a file, a pipe or a notebook's output, nor while pytest runs a test.
    """

    AFTER = 0.5  # seconds
    wanted = True  # warmup says itself what it compiles

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.shown = ""

    def __call__(self, text: str) -> None:
        """Show it, if it is time."""
        late = time.perf_counter() - self.begin >= self.AFTER
        if late and text != self.shown and self.wanted and watched():
            self._write(f"{text:<{len(self.shown)}}")
            self.shown = text

    def close(self) -> None:
        """Leave an empty line, at its begin."""
        if self.shown:
            self._write(" " * len(self.shown) + "\r")
            self.shown = ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):  # whatever stderr is, what it tells about goes on
            sys.stderr.write("\r" + text)
            sys.stderr.flush()


def watched() -> bool:
    """Whether somebody reads stderr at a terminal."""
    try:
        return sys.stderr.isatty() and "PYTEST_CURRENT_TEST" not in os.environ
    except (AttributeError, ValueError):  # None, a user's own object, or closed
        return False
