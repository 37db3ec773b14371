"""Elements of HTML and SVG, written so that text from outside can never become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# XML has no way to write these characters, and UTF-8 none for halves of surrogate pairs (odd names of files have them).
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = {"meta", "link", "wbr"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Text as markup that shows it; markup itself is left as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_UNWRITABLE.sub("\ufffd", str(text))))


def join(parts: Iterable[object]) -> Markup:
    """One after the other."""
    return Markup("".join(escape(part) for part in parts))


def tag(name: str, /, *inside: object, **attributes: object) -> Markup:
    """An element; ``class_`` is class, ``text_anchor`` is text-anchor, and attributes that are None are left out.

    Examples
    --------
    >>> from fastq.pictures.markup import tag
    >>> tag("b", "1 < 2", class_="big", x=0.5, y=None)
    '<b class="big" x="0.5">1 &lt; 2</b>'
    """
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    start = name + "".join(f' {key}="{escape(_written(value))}"' for key, value in given)
    if name in _VOID:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(inside)}</{name}>")


def percent(share: float) -> str:
    """A place along an axis from 0 to 1, as a length of SVG."""
    return f"{_written(100 * share)}%"


def _written(value: object) -> object:
    """Floats in two decimals at most, so that files stay small."""
    return (
        f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0") if value == 0 or isinstance(value, float) else value
    )
