"""How messages show what was received."""

from __future__ import annotations

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    """A ``repr`` that goes neither deep nor far."""

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
    """The same, and of what type it is."""
    return f"{shown(value)} of type {type(value).__name__}"
