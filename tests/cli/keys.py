"""The keys of documents, which the page of the command line has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "commands.md").read_text()
BY_NAME = {"operations_per_second"}  # whose own keys are names of kernels


def section(command: str) -> str:
    """What the page says of a command."""
    return PAGE.split(f"\n## {command}\n")[1].split("\n## ")[0]


def keys(value: Any) -> set[str]:
    """All keys of a document, but names of kernels."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    inner = (keys(list(one.values()) if name in BY_NAME else one) for name, one in value.items())
    return set(value).union(*inner)


def undocumented(command: str, document: Any) -> set[str]:
    """Keys of a document that the command's section lacks."""
    told = section(command)
    return {key for key in keys(document) if f"`{key}`" not in told}
