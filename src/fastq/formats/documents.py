"""JSON objects in files, read with limits: a header, and what lies beside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastq.errors import FileFormatError

LARGEST = 100_000_000  # bytes, that safetensors, too, allows its header
Pairs = list[tuple[str, Any]]


def parsed(text: bytes, hook: Callable[[Pairs], dict[str, Any]] = dict) -> dict[str, Any]:
    """A JSON object; ValueError says why it is none. `hook` makes a dict of the pairs of each object in it."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds no object, but {type(value).__name__}")
    return value


def read(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        return parsed(file.read_bytes())
    except ValueError as error:
        raise FileFormatError(f"{file}: it must be JSON, an object: {error}") from None
