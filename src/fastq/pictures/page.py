"""A page of HTML in one file: it loads nothing, and says so to the browser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan

from fastq.pictures import style
from fastq.pictures.markup import Markup, join, tag
from fastq.pictures.svg import key

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says what is seen, and what is seen."""

    title: str
    lead: str
    body: Sequence[Markup]


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number it is sorted by; None: it is sorted by its text."""

    told: str
    value: float | None = None
    long: bool = field(default=False, kw_only=True)  # may break into lines


def page(
    title: str, sections: Iterable[Section], *, lead: str = "", facts: Mapping[str, str] | None = None,
    banner: str = "", made_by: str = "",
) -> str:  # fmt: skip
    """The text of a file."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style.PAGE)),
    ]
    body = [tag("h1", title)]
    body += [tag("p", lead, class_="muted")] if lead else []
    body += [tag("p", tag("strong", "BUSY"), f": {banner}", class_="banner", role="note")] if banner else []
    body += [_facts(facts)] if facts else []
    body += [_section(section) for section in sections if section.body]
    body += [tag("footer", made_by)] if made_by else []
    main = tag("main", *body, class_="fq")
    html = tag("html", tag("head", *head), tag("body", main, tag("script", Markup(style.SORTING))), lang="en")
    return f"<!doctype html>\n{html}\n"


def _section(section: Section) -> Markup:
    lead = [tag("p", section.lead, class_="muted")] if section.lead else []
    return tag("section", tag("h2", section.title), *lead, *section.body)


def _facts(facts: Mapping[str, str]) -> Markup:
    return tag("dl", *(tag(name, text) for fact in facts.items() for name, text in zip(("dt", "dd"), fact)))


def figure(picture: Markup, title: str = "", caption: str = "", legend: Mapping[str, str] | None = None) -> Markup:
    """A picture with a title, a caption, and a legend from kinds to names."""
    inside = [tag("h3", title)] if title else []
    inside += [legend_of(legend)] if legend else []
    inside += [picture, *([tag("figcaption", caption)] if caption else [])]
    return tag("figure", *inside)


def legend_of(legend: Mapping[str, str]) -> Markup:
    """A list of marks and what they stand for."""
    items = (tag("li", *([key(kind)] if kind else []), tag("span", name)) for kind, name in legend.items())
    return tag("ul", *items, class_="legend")


def cards(figures: Iterable[Markup], two: bool = False) -> Markup:
    """Figures side by side, as many as there is room for, or wide ones in two columns at most."""
    return tag("div", join(figures), class_="cards two" if two else "cards")


def table(label: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """A table that sorts; its first column names the rows. It scrolls by itself where it is wider than the page."""
    rows = [list(row) for row in rows]
    numeric = [any(row[i].value is not None for row in rows) for i in range(len(columns))]
    heads = (
        tag("th", tag("button", name, type="button"), scope="col", aria_sort="none", class_="n" if number else None)
        for name, number in zip(columns, numeric)
    )
    body = (tag("tr", *(_cell(cell, i, numeric[i]) for i, cell in enumerate(row))) for row in rows)
    inside = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), aria_label=label)
    return tag("div", inside, class_="scroll", tabindex="0", role="region", aria_label=label)


def breakable(name: str) -> Markup:
    """A name that may be broken between its parts."""
    parts = re.split(r"(?<=[./_-])(?=[^./_-])", name)
    return join(join((tag("wbr"), part)) if i else part for i, part in enumerate(parts))


def _cell(cell: Cell, column: int, numeric: bool) -> Markup:
    key = None
    if numeric:
        value = float("nan") if cell.value is None else cell.value
        key = "" if isnan(value) else repr(float(value)) if isfinite(value) else f"{'-' * (value < 0)}Infinity"
    kind = "n" if numeric else "long" if cell.long else None
    if column == 0:
        return tag("th", tag("span", breakable(cell.told)), scope="row", data_v=key, class_="n" if numeric else None)
    return tag("td", cell.told, data_v=key, class_=kind)
