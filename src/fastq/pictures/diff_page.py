"""The page of the differences of two files: error by layer, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from fastq.pictures import svg
from fastq.pictures.axis import Axis
from fastq.pictures.compact import GOOD, sqnr_bar
from fastq.pictures.markup import Markup
from fastq.pictures.page import Cell, Section, cards, figure, page, table
from fastq.pictures.quantities import NONE, count, decibels, share

_WORST = 20  # arrays with a bar
_PROFILE = 12  # so many arrays are worth a look at them in their order
_SOURCES = {"ours": "rounding", "peer": "scales", "third": "clipping"}


Row = Any  # an array in two files: its name, sqnr_db, and the shares of rounding, scales and clipping in the noise


def diff_page(
    title: str, rows: Sequence[Row], facts: Mapping[str, str] | None = None, made_by: str = "fastq diff"
) -> str:
    """A file that shows differences."""
    worst = sorted((row for row in rows if not isnan(row.sqnr_db)), key=lambda row: row.sqnr_db)[:_WORST]
    some = f"The {_WORST} worst of {count(len(rows))} arrays; the table has all." if len(rows) > _WORST else ""
    sections = [
        Section("Error by layer", " ".join(filter(None, (some, _ERROR))), _errors(rows, worst)),
        Section("All arrays", "Press a heading to sort.", [_table(rows)] if rows else []),
    ]
    return page(title, sections, facts={"Arrays": count(len(rows)), **(facts or {})}, made_by=made_by)


_ERROR = "A short bar is a large error. The other bars are the shares of rounding, scales and clipping in the noise."


def _errors(rows: Sequence[Row], worst: Sequence[Row]) -> list[Markup]:
    noisy = [row for row in worst if isfinite(row.sqnr_db)]
    found = []
    if worst:
        full = {"": f"a full bar is {GOOD:.0f} dB"}
        bars = [sqnr_bar(row.sqnr_db, row.name) for row in worst]
        beside = [
            figure(
                svg.bars(bars, "SQNR by array, the worst first", top=GOOD),
                "SQNR, and the error as a share of the signal",
                legend=full,
            )
        ]
        beside += [figure(_shares(noisy), "Where the error comes from", legend=_SOURCES)] if noisy else []
        found.append(cards(beside, two=True))
    if len(rows) > _PROFILE:
        points = [svg.Point(i + 1.0, row.sqnr_db, f"{row.name}: {decibels(row.sqnr_db)}") for i, row in enumerate(rows)]
        x, y = Axis(0.0, len(rows) + 1.0), Axis.over([row.sqnr_db for row in rows], margin=0.1)
        across = [v for v in x.ticks(5) if 1 <= v <= len(rows) and v == int(v)]
        series = [svg.Series("SQNR", points, joined=False)]
        found.append(
            figure(svg.plot(series, svg.Names("array", "SQNR in dB"), x, y, across), "All arrays in their order")
        )
    return found


def _shares(rows: Sequence[Row]) -> Markup:
    bars = []
    for row in rows:
        parts = [(row.rounding, "ours"), (row.scales, "peer"), (row.clipping, "third")]
        bars.append(svg.Bar(row.name, " · ".join(share(value) for value, _ in parts), parts))
    return svg.bars(bars, "Shares of rounding, scales and clipping", top=1.0)


def _table(rows: Sequence[Row]) -> Markup:
    columns = ["Name", "SQNR", "Rounding", "Scales", "Clipping"]
    return table("All arrays", columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    shares = (row.rounding, row.scales, row.clipping)
    return [
        Cell(row.name),
        Cell(decibels(row.sqnr_db), row.sqnr_db),
        *(Cell(NONE if isnan(v) else share(v), v) for v in shares),
    ]
