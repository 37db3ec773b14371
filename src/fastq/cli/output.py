"""What commands print: results on standard output, as text or as JSON, and messages for people on standard error.

Where `rich` is installed and standard output is a terminal, tables are drawn by it; elsewhere they are aligned lines.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

GAP = "  "  # between columns


class WrongArgumentsError(Exception):
    """Arguments that do not go together; the message says which."""


def note(text: str) -> None:
    """A message for people, on standard error."""
    if sys.stderr is not None:  # a program without a console has none
        print(text, file=sys.stderr, flush=True)


def document(value: Mapping[str, Any]) -> None:
    """The result as one JSON document."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """A value as JSON has it: infinity and NaN, which it lacks, are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pairs(rows: Mapping[str, str]) -> None:
    """A line for each name and value."""
    width = max(map(_width, rows), default=0) + 1
    for name, value in rows.items():
        print(_padded(f"{name}:", width), visible(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> None:
    """Rows under their heads; columns are right-aligned, but for those named in `left`."""
    cells = [[visible(cell) for cell in row] for row in rows]
    lefts = [head in set(left) for head in heads]
    widths = [max(map(_width, column)) for column in zip(heads, *cells)]
    if sys.stdout.isatty() and find_spec("rich"):
        _rich_table(heads, cells, lefts, sum(widths) + len(GAP) * (len(widths) - 1))
        return
    for row in (heads, *cells):
        line = (_padded(cell, width, at_left) for cell, width, at_left in zip(row, widths, lefts))
        print(GAP.join(line).rstrip())


def _rich_table(heads: Sequence[str], cells: Sequence[Sequence[str]], lefts: Sequence[bool], width: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    for head, at_left in zip(heads, lefts):
        drawn.add_column(head, justify="left" if at_left else "right", no_wrap=True)
    for row in cells:
        drawn.add_row(*map(Text, row))  # names are no markup
    console = Console(file=sys.stdout)
    console.width = max(console.width, width)  # a narrow terminal breaks lines, where rich would leave letters out
    console.print(drawn, soft_wrap=True)


def visible(text: str) -> str:
    """A text from a file, in one line: signs that would steer the terminal are written out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: Chinese signs take two, accents that are added to letters none."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)


def _padded(text: str, width: int, at_left: bool = True) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if at_left else blanks + text


def shape(lengths: Sequence[int]) -> str:
    """The lengths of an array's axes."""
    return " x ".join(map(str, lengths)) or "1"


def decibels(value: float | None) -> str:
    """An SQNR, which is infinite where nothing differs."""
    return "" if value is None else "exact" if value == math.inf else f"{value:.1f} dB"
