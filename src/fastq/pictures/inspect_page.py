"""The page of a file of arrays: their sizes, bits against error, and how one of them lies about its codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any

from fastq.errors import in_bytes
from fastq.pictures import svg
from fastq.pictures.axis import Axis
from fastq.pictures.compact import distribution, seen
from fastq.pictures.distribution import Distribution
from fastq.pictures.markup import Markup
from fastq.pictures.page import Cell, Section, figure, page, table
from fastq.pictures.quantities import NONE, count, decibels, number

Form = tuple[int, int | None]  # bits and group size
_LARGEST = 12  # arrays with a bar
_LINES = ("ours", "peer", "third", "fourth")


Row = Any  # an array of a file: its name, shape, kind, bits_per_weight, nbytes, and its sqnr by form


def inspect_page(
    title: str,
    rows: Sequence[Row],
    found: tuple[str, Distribution] | None = None,
    facts: Mapping[str, str] | None = None,
    made_by: str = "fastq inspect",
) -> str:
    """A file that shows arrays; `found` is how one of them, by its name, lies about its levels."""
    forms = sorted({form for row in rows for form in row.sqnr}, key=lambda form: (form[1] or 0, form[0]))
    sections = [
        Section("Sizes", _largest(rows), [figure(_sizes(rows))] if rows else []),
        Section("Bits against error", _BITS, _bits(rows, forms)),
        Section("About the codes", _LEVELS, [] if found is None else [_about(*found)]),
        Section("All arrays", "Press a heading to sort.", [_table(rows, forms)] if rows else []),
    ]
    whole = {"Arrays": count(len(rows)), "Size": in_bytes(sum(row.nbytes for row in rows)), **(facts or {})}
    return page(title, sections, facts=whole, made_by=made_by)


_BITS = (
    "The median SQNR of the arrays that were tried. 20 dB is an error of a tenth of the signal, 40 dB of a hundredth."
)
_LEVELS = "The histogram of one array. Each mark below it is a number that a code stands for."


def _largest(rows: Sequence[Row]) -> str:
    return f"The {_LARGEST} largest of {count(len(rows))} arrays." if len(rows) > _LARGEST else ""


def _sizes(rows: Sequence[Row]) -> Markup:
    largest = sorted(rows, key=lambda row: -row.nbytes)
    bars = [_bar(row.name, row.nbytes, "ours") for row in largest[:_LARGEST]]
    if rest := largest[_LARGEST:]:
        bars.append(_bar(f"{count(len(rest))} others together", sum(row.nbytes for row in rest), "base"))
    return svg.bars(bars, "Bytes of the largest arrays")


def _bar(name: str, nbytes: int, kind: str) -> svg.Bar:
    return svg.Bar(name, in_bytes(nbytes), [(float(nbytes), kind)])


def grouped(size: int | None) -> str:
    """A group size in words."""
    return "no groups" if size is None else f"groups of {size}"


def _bits(rows: Sequence[Row], forms: Sequence[Form]) -> list[Markup]:
    """A line for each group size."""
    lines: dict[int | None, list[svg.Point]] = {}
    for bits, size in forms:
        known = [row.sqnr[bits, size] for row in rows if not isnan(row.sqnr.get((bits, size), float("nan")))]
        if known:
            middle = median(known)
            name = f"{bits} bits, {grouped(size)}: {decibels(middle)}, the lowest {decibels(min(known))}"
            lines.setdefault(size, []).append(svg.Point(float(bits), middle, name))
    series = [svg.Series(grouped(size), points, kind) for kind, (size, points) in zip(_LINES, lines.items())]
    if not series:
        return []
    widths = sorted({p.x for s in series for p in s.points})
    x = Axis(widths[0] - 0.5, widths[-1] + 0.5)
    y = Axis.over([p.y for s in series for p in s.points], margin=0.1, zero=True)
    picture = svg.plot(series, svg.Names("bits per code", "median SQNR in dB"), x, y, across=widths)
    return [figure(picture, legend={s.kind: s.name for s in series})]


def _about(name: str, found: Distribution) -> Markup:
    return figure(distribution(found), name, seen(found))


def _table(rows: Sequence[Row], forms: Sequence[Form]) -> Markup:
    heads = [f"{bits} bits, {size}" if size else f"{bits} bits" for bits, size in forms]
    columns = ["Name", "Shape", "Type", "Bits per weight", "Size", *(f"SQNR, {head}" for head in heads)]
    return table("All arrays", columns, [_cells(row, forms) for row in rows])


def _cells(row: Row, forms: Sequence[Form]) -> list[Cell]:
    return [
        Cell(row.name),
        Cell(" × ".join(map(str, row.shape)) or "1"),
        Cell(row.kind),
        Cell(number(row.bits_per_weight), row.bits_per_weight),
        Cell(in_bytes(row.nbytes), row.nbytes),
        *(Cell(decibels(row.sqnr[form]), row.sqnr[form]) if form in row.sqnr else Cell(NONE) for form in forms),
    ]
