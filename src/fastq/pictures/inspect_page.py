"""The page of a file of arrays: their sizes, bits against error, and how one of them lies about its codes.

An inspection is what ``fastq.models.inspection.Inspection`` is: `path`, `format`, `rows`, `forms` (bits and group
size), `nbytes`, `size`, and `quantized(form)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import PurePath
from statistics import median
from typing import Any

from fastq.errors import in_bytes
from fastq.pictures import svg
from fastq.pictures.axis import Axis
from fastq.pictures.compact import distribution, seen
from fastq.pictures.distribution import Distribution
from fastq.pictures.markup import Markup
from fastq.pictures.page import Cell, Section, cards, figure, page, table
from fastq.pictures.quantities import NONE, count, decibels, number

Inspection = Any
Row = Any
Form = tuple[int, int | None]
_LARGEST = 12  # arrays with a bar
_LINES = ("ours", "peer", "third", "fourth")


def inspect_page(
    found: Inspection, about: tuple[str, Distribution] | None = None, made_by: str = "fastq inspect"
) -> str:
    """The text of a file that shows an inspection; `about`: how an array, by its name, lies about its levels."""
    sections = [
        Section("Sizes", "", [cards(_sizes(found), two=True)] if found.rows else []),
        Section("Bits against error", _BITS, _bits(found)),
        Section("About the codes", _LEVELS, [_about(*about)] if about else []),
        Section("All arrays", "Press a heading to sort.", [_table(found)] if found.rows else []),
    ]
    weights = f"{number(8 * found.nbytes / found.size)} bits per weight" if found.size else ""
    size = ", ".join(filter(None, (in_bytes(found.nbytes), weights)))
    facts = {"File": found.path, "Format": found.format, "Arrays": count(len(found.rows)), "Size": size}
    return page(PurePath(found.path).name or found.path, sections, facts=facts, made_by=made_by)


_BITS = (
    "The median SQNR of the arrays that were tried; 20 dB is an error of a tenth of the signal, 40 dB of a hundredth."
)
_LEVELS = "The histogram of one array. Each mark below it is what a code stands for."


def in_words(form: Form) -> str:
    """A form as a column is headed."""
    return f"{form[0]} bits" + ("" if form[1] is None else f", groups of {form[1]}")


def _sizes(found: Inspection) -> list[Markup]:
    largest = sorted(found.rows, key=lambda row: -row.nbytes)
    bars = [_bar(row.name, row.nbytes, "ours") for row in largest[:_LARGEST]]
    if rest := largest[_LARGEST:]:
        bars.append(_bar(f"{count(len(rest))} others together", sum(row.nbytes for row in rest), "base"))
    pictures = [figure(svg.bars(bars, "Bytes of the largest arrays"), "The largest arrays" if rest else "Arrays")]
    if found.forms:
        whole = [_bar("now", found.nbytes, "base")]
        whole += [_bar(in_words(form), found.quantized(form), "ours") for form in found.forms]
        pictures.append(figure(svg.bars(whole, "Bytes of the whole in each form"), "The whole, once quantized"))
    return pictures


def _bar(name: str, nbytes: int, kind: str) -> svg.Bar:
    return svg.Bar(name, in_bytes(nbytes), [(float(nbytes), kind)])


def _bits(found: Inspection) -> list[Markup]:
    """A line for each group size."""
    lines: dict[int | None, list[svg.Point]] = {}
    for form in sorted(found.forms, key=lambda form: (form[1] or 0, form[0])):
        known = [row.sqnr[form] for row in found.rows if isfinite(row.sqnr.get(form, float("nan")))]
        if known:
            middle = median(known)
            name = f"{in_words(form)}: {decibels(middle)}, the lowest {decibels(min(known))}"
            lines.setdefault(form[1], []).append(svg.Point(float(form[0]), middle, name))
    sizes = ("no groups" if size is None else f"groups of {size}" for size in lines)
    series = [svg.Series(name, points, kind) for kind, name, points in zip(_LINES, sizes, lines.values())]
    if not series:
        return []
    widths = sorted({p.x for s in series for p in s.points})
    x = Axis(widths[0] - 0.5, widths[-1] + 0.5)
    y = Axis.over([p.y for s in series for p in s.points], margin=0.1, zero=True)
    picture = svg.plot(series, svg.Names("bits per code", "median SQNR in dB"), x, y, across=widths)
    return [figure(picture, legend={s.kind: s.name for s in series})]


def _about(name: str, found: Distribution) -> Markup:
    return figure(distribution(found), name, seen(found))


def _table(found: Inspection) -> Markup:
    columns = ["Name", "Shape", "Type", "Bits per weight", "Size"]
    measured = any(row.sqnr for row in found.rows)
    for form in found.forms:
        columns += [in_words(form), *(["SQNR"] if measured else [])]
    rows = [_cells(row, found.forms, measured) for row in found.rows]
    return table("All arrays", [*columns, "Remark"], rows)


def _cells(row: Row, forms: Sequence[Form], measured: bool) -> list[Cell]:
    cells = [
        Cell(row.name),
        Cell(" × ".join(map(str, row.shape)) or "1"),
        Cell(row.kind),
        Cell(number(row.bits_per_weight), row.bits_per_weight),
        Cell(in_bytes(row.nbytes), row.nbytes),
    ]
    for form in forms:
        cells.append(Cell(in_bytes(row.sizes[form]), row.sizes[form]) if form in row.sizes else Cell(NONE))
        sqnr = Cell(decibels(row.sqnr[form]), row.sqnr[form]) if form in row.sqnr else Cell(NONE)
        cells += [sqnr] if measured else []
    remarks = [f"cannot be read: {row.problem}" if row.problem else "", row.form, row.stays]
    return [*cells, Cell("; ".join(filter(None, remarks)), long=True)]
