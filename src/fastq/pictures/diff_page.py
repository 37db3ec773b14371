"""The page of the differences of two files: error by layer, and where it comes from.

A difference is what ``fastq.models.difference.Difference`` is: `rows`, `only_first` and `only_second`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan, nan
from typing import Any

from fastq.errors import in_bytes
from fastq.pictures import svg
from fastq.pictures.axis import Axis
from fastq.pictures.compact import GOOD, sqnr_bar
from fastq.pictures.markup import Markup, tag
from fastq.pictures.page import Cell, Section, cards, figure, page, table
from fastq.pictures.quantities import NONE, count, decibels, number, share

Difference = Any
Row = Any
_WORST = 20  # arrays with a bar
_MANY = 12  # more than so many arrays are shown all at once, too


def diff_page(found: Difference, first: str, second: str, made_by: str = "fastq diff") -> str:
    """The text of a file that shows how far the second file is from the first."""
    compared = [row for row in found.rows if row.sqnr_db is not None and not isnan(row.sqnr_db)]
    some = f"The {_WORST} worst of {count(len(compared))} arrays; the table has all. " * (len(compared) > _WORST)
    sections = [
        Section("Error by layer", some + _ERROR, _errors(compared)),
        Section("All arrays", "Press a heading to sort.", [_table(found.rows)] if found.rows else []),
        Section("In one file only", "", _lonely(found, first, second)),
    ]
    facts = {
        "Exact": first,
        "Compared": second,
        "Arrays": f"{count(len(compared))} of {count(len(found.rows))} compared",
    }
    return page("What quantizing changed", sections, facts=facts, made_by=made_by)


_ERROR = (
    "A short bar is a large error. It comes from clipping, in elements beyond the first or last code, and from "
    "rounding. The mark is the part that the best scales would take away, with codes as they are."
)


def _errors(rows: Sequence[Row]) -> list[Markup]:
    """The worst arrays, and all in their order."""
    worst = sorted(rows, key=lambda row: row.sqnr_db)[:_WORST]
    if not worst:
        return []
    bars = [sqnr_bar(row.sqnr_db, row.name) for row in worst]
    full = {"": f"a full bar is {GOOD:.0f} dB"}
    beside = [
        figure(svg.bars(bars, "SQNR by array, the worst first", top=GOOD), "SQNR, and error over signal", "", full)
    ]
    causes = [_causes(row) for row in worst if row.shares is not None]
    if causes:
        legend = {"ours": "rounding", "peer": "clipping", "": "mark: what scales would take away"}
        beside.append(
            figure(svg.bars(causes, "Shares of the error", top=1.0), "Where the error comes from", "", legend)
        )
    return [cards(beside, two=True), *([_all(rows)] if len(rows) > _MANY else [])]


def _causes(row: Row) -> svg.Bar:
    rounding, clipping, scales = row.shares.rounding, row.shares.clipping, row.shares.scales
    told = f"{share(rounding)} · {share(clipping)} · {share(scales)}"
    return svg.Bar(row.name, told, [(rounding, "ours"), (clipping, "peer")], mark=scales)


def _all(rows: Sequence[Row]) -> Markup:
    """In the order of names, where layer 10 follows layer 9."""
    rows = sorted(rows, key=lambda row: _natural(row.name))
    points = [svg.Point(i + 1.0, row.sqnr_db, f"{row.name}: {decibels(row.sqnr_db)}") for i, row in enumerate(rows)]
    x, y = Axis(0.0, len(rows) + 1.0), Axis.over([row.sqnr_db for row in rows], margin=0.1)
    across = [v for v in x.ticks(5) if 1 <= v <= len(rows) and v == int(v)]
    series = [svg.Series("SQNR", points, joined=False)]
    return figure(svg.plot(series, svg.Names("number of the array", "SQNR in dB"), x, y, across), "All arrays, by name")


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which numbers within names are in their order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def _table(rows: Sequence[Row]) -> Markup:
    columns = ["Name", "Shape", "Types", "Size", "SQNR", "Largest error", "Rounding", "Clipping", "Scales"]
    remarks = any(row.problem for row in rows)
    return table("All arrays", [*columns, *["Remark"] * remarks], [_cells(row, remarks) for row in rows])


def _cells(row: Row, remarks: bool) -> list[Cell]:
    sqnr, largest = (nan, nan) if row.error is None else (row.error.sqnr_db, row.error.max_abs)
    shares = (nan,) * 3 if row.shares is None else (row.shares.rounding, row.shares.clipping, row.shares.scales)
    return [
        Cell(row.name),
        Cell(" × ".join(map(str, row.shape)) or "1"),
        Cell(f"{row.kind} → {row.other}"),
        Cell(in_bytes(row.nbytes), row.nbytes),
        Cell(decibels(sqnr), sqnr),
        Cell(number(largest), largest),
        *(Cell(NONE if isnan(value) else share(value), value) for value in shares),
        *([Cell(row.problem, long=True)] if remarks else []),
    ]


def _lonely(found: Difference, first: str, second: str) -> list[Markup]:
    """Names without a counterpart."""
    files = ((first, found.only_first), (second, found.only_second))
    return [tag("p", tag("b", f"{path}: "), ", ".join(names)) for path, names in files if names]
