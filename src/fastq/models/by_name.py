"""What is said of arrays by name: patterns of names, or a function of the name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from fastq.errors import shown, with_type
from fastq.validation import as_str, truth

Check = Callable[[Any], Any]  # gives the value in the form that other code relies on, or raises


def fitting(pattern: Any, argument: str, names: Collection[str]) -> set[str]:
    """The names that a pattern fits, of which there must be one: what is misspelt is no pattern for nothing."""
    text = as_str(pattern)
    if not isinstance(text, str):
        raise TypeError(f"{argument} must have strings for patterns of names, got {with_type(pattern)}")
    if text in names:
        return {text}  # whatever signs it has
    found = {name for name in names if fnmatchcase(name, text)}
    if not found:
        close = get_close_matches(text, names, 3)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise ValueError(f"{argument} must fit names of arrays; {shown(text)} fits none of {len(names)}{hint}")
    return found


def _answer(function: Callable[[str], Any], argument: str, name: str) -> Any:
    try:
        return function(name)
    except Exception as error:
        raise ValueError(
            f"{argument} must be a function that has an answer for each name; for {shown(name)} it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def chosen(value: Any, argument: str, names: Collection[str]) -> set[str]:
    """The names that a function says yes to, or that one of several patterns fits."""
    if callable(value):
        return {name for name in names if truth(_answer(value, argument, name), f"the answer of {argument}")}
    if not isinstance(value, str) and not isinstance(value, Iterable):
        raise TypeError(f"{argument} must be a pattern, several, or a function of a name; got {with_type(value)}")
    return set[str]().union(*(fitting(p, argument, names) for p in ((value,) if isinstance(value, str) else value)))


class ByName:
    """A value for each array: one for all, one for each pattern, or what a function of the name gives.

    Of patterns, a name itself comes first, then the first that fits; where none fits, it is the default.
    """

    def __init__(self, value: Any, argument: str, names: Collection[str], check: Check, default: Any = None) -> None:
        self._value, self._argument, self._check, self._default = value, argument, check, check(default)
        self.named = set[str]()  # the names that patterns fit
        if isinstance(value, Mapping):
            places = {pattern: fitting(pattern, argument, names) for pattern in value}
            found = dict[str, Any]()
            for pattern in sorted(value, key=lambda pattern: pattern not in names):
                of_pattern = check(value[pattern])
                found |= dict.fromkeys(places[pattern] - found.keys(), of_pattern)
            self._value, self.named = found, set(found)
        elif not callable(value):
            self._value = check(value)

    def __call__(self, name: str) -> Any:
        """The value for an array."""
        if isinstance(self._value, dict):
            return self._value.get(name, self._default)
        if callable(self._value):
            return self._check(_answer(self._value, self._argument, name))
        return self._value
