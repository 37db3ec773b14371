"""The page and the notebook's form of a benchmark: times faster than NumPy, below the roofs of the machine.

A result is what ``fastq.bench.result.BenchResult`` is: `machine`, `rows`, `roofs`, `notes`, and `by_shape()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from fastq.pictures import svg
from fastq.pictures.compact import card
from fastq.pictures.markup import Markup, tag
from fastq.pictures.page import Cell, Section, cards, figure, legend_of, page, table
from fastq.pictures.quantities import NONE, decibels, number, seconds, share, times

Result = Any
Row = Any
_SMALL = 2 * 256**3  # operations: below, a product is all overhead, and no roof is near
_KINDS = {"ours": "fastq", "peer": "other libraries", "base": "NumPy, float32"}


def bench_page(result: Result, made_by: str = "fastq bench") -> str:
    """The text of a file that shows a benchmark."""
    when = f"Measured {result.taken}." if result.taken else ""
    notes = tag("ul", *(tag("li", note) for note in result.notes))
    sections = [
        Section("Times faster than NumPy", _LEAD, [legend_of(_KINDS), cards(_contests(result))]),
        Section("The roofs of this machine", _ROOFS, _roofline(result)),
        Section("All figures", "Press a heading to sort.", [_table(result.rows)] if result.rows else []),
        Section("Notes", "", [notes] if result.notes else []),
    ]
    facts = _facts(result.machine)
    return page("Products on this machine", sections, lead=when, facts=facts, banner=_banner(result), made_by=made_by)


_LEAD = (
    "float32 np.matmul of the same shape is 1. Bars compare the best times, all on one scale; the mark in each is "
    "NumPy. A ratio with a question mark says little, because its times varied too much."
)
_ROOFS = (
    "The slope is reading the operands from memory, and each level is what an instruction set multiplies out of "
    "registers. Only small operands, which lie in caches, can be above the slope."
)


def bench_card(result: Result) -> Markup:
    """The form of a benchmark in a notebook."""
    told = _busy(result)
    warned = [tag("p", tag("b", f"BUSY: {told}"))] if told else []
    return card("BenchResult", "times faster than float32 NumPy", *warned, legend_of(_KINDS), *_contests(result))


def _facts(machine: Any) -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return {
        "CPU": machine.cpu, "System": machine.system, "Instruction set": machine.isa, "Threads": str(machine.threads),
        "BLAS": machine.blas, "Versions": versions,
    }  # fmt: skip


def _busy(result: Result) -> str:
    """What took cores away; empty: nothing did."""
    marked = sum(row.busy for row in result.rows)
    return result.machine.busy or (f"{marked} of {len(result.rows)} figures" if marked else "")


def _banner(result: Result) -> str:
    told = _busy(result)
    return f"{told}. Other programs took cores while this ran, so figures with a ? say little." if told else ""


def _kind(row: Row) -> str:
    return {"numpy": "base", "fastq": "ours"}.get(row.library, "peer")


def _faster(row: Row) -> str:
    return times(row.times_faster) + "?" * bool(row.unsteady and row.library != "numpy")


def _contests(result: Result) -> list[Markup]:
    """Bars of each product, all on one scale."""
    top = max((row.times_faster for row in result.rows if row.times_faster < inf), default=1.0)
    found = []
    for shape, rows in result.by_shape().items():
        bars = [
            svg.Bar(row.name, f"{_faster(row)} · {seconds(row.best)}", [(row.times_faster, _kind(row))], mark=1.0)
            for row in rows
        ]
        title = shape.replace("x", " × ")
        found.append(figure(svg.bars(bars, f"{title}: times faster than NumPy", top=top), title))
    return found


def _roofline(result: Result) -> list[Markup]:
    """The roofs, and the products that are large enough for them."""
    rows = [row for row in result.rows if row.operations >= _SMALL and row.nbytes > 0 and row.best > 0]
    if not (rows and result.roofs):
        return []
    series = [  # ours last, so that it lies on top
        svg.Series(_KINDS[kind], [_point(row) for row in rows if _kind(row) == kind], kind, joined=False)
        for kind in ("base", "peer", "ours")
    ]
    roofs = [svg.Roof(f"{isa} {number(peak, 2)}", peak) for isa, peak in _peaks(result.roofs).items()]
    bandwidth = result.roofs["bandwidth"]["all"]
    names = svg.Names("operations per byte of the operands", "operations per second")
    caption = f"Reading from memory: {number(bandwidth / 1e9)} GB/s."
    return [figure(svg.roofline(roofs, bandwidth, series, names), legend=_KINDS, caption=caption)]


def _peaks(roofs: Mapping[str, Any]) -> dict[str, float]:
    """The best peak of each instruction set with 8-bit weights."""
    peaks: dict[str, float] = {}
    for unit in roofs["peaks"].values():
        if 8 in unit["bits"]:
            peaks[unit["isa"]] = max(peaks.get(unit["isa"], 0.0), unit["all"])
    return peaks


def _point(row: Row) -> svg.Point:
    rate = row.operations / row.best
    return svg.Point(row.operations / row.nbytes, rate, f"{row.size}, {row.name}: {number(rate)} operations per second")


def _table(rows: Sequence[Row]) -> Markup:
    columns = ["Product", "Contender", "Bits", "Group", "Faster", "Best", "Median", "Of the roof", "SQNR"]
    return table("All figures", columns, map(_cells, rows))


def _cells(row: Row) -> list[Cell]:
    return [
        Cell(row.size.replace("x", " × ")),
        Cell(row.name),
        Cell(str(row.bits), row.bits),
        Cell(NONE) if row.group is None else Cell(str(row.group), row.group),
        Cell(_faster(row), row.times_faster),
        Cell(seconds(row.best), row.best),
        Cell(NONE) if row.median is None else Cell(seconds(row.median), row.median),
        Cell(NONE) if row.share is None else Cell(f"{share(row.share)} {row.roof}", row.share),
        Cell(NONE) if row.sqnr_db is None else Cell(decibels(row.sqnr_db), row.sqnr_db),
    ]
