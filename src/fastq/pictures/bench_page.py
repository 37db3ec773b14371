"""The page and the notebook's form of a benchmark: times faster than NumPy, below the roofs of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastq.pictures import svg
from fastq.pictures.compact import card
from fastq.pictures.markup import Markup, tag
from fastq.pictures.page import Cell, Section, cards, figure, legend_of, page, table
from fastq.pictures.quantities import NONE, decibels, number, seconds, share, times

_SMALL = 2 * 256**3  # operations: below, a product is all overhead, and no roof is near
_KINDS = {"ours": "fastq", "peer": "other libraries", "base": "NumPy, float32"}


Row = Any  # as fastq.bench.run.Row: a contender of a contest, with times in seconds
Run = Any  # as fastq.bench.run.Run: what a benchmark found


def bench_page(run: Run, made_by: str = "fastq bench") -> str:
    """A file that shows a run."""
    notes = [tag("p", note) for note in run.notes]
    sections = [
        Section("Times faster than NumPy", _LEAD, [legend_of(_KINDS), cards(_contests(run))]),
        Section("The roofs of this machine", _ROOFS, _roofline(run)),
        Section("All figures", "Press a heading to sort.", [_table(run)] if run.groups else []),
        Section("Not measured", "", notes),
    ]
    facts = {str(name): str(value) for name, value in run.machine.items() if not isinstance(value, Mapping | list)}
    return page("Products on this machine", sections, facts=facts, banner=_banner(run), made_by=made_by)


_LEAD = (
    "Float32 np.matmul on the same shape is 1. Bars compare best times; those of all shapes have one scale, and the "
    "dashed mark is NumPy."
)
_ROOFS = (
    "No product can be above these lines: the slope is reading its operands from memory, each level is what an "
    "instruction set multiplies out of registers. Small operands lie in caches, which are faster than memory."
)


def bench_card(run: Run) -> Markup:
    """The form of a run in a notebook."""
    told = busy(run)
    warned = [tag("p", tag("b", f"BUSY: {told}"))] if told else []
    return card("Products", "times faster than float32 np.matmul", *warned, legend_of(_KINDS), *_contests(run))


def _banner(run: Run) -> str:
    told = busy(run)
    return f"{told}. Other programs took cores while this ran, so do not rely on these figures." if told else ""


def busy(run: Run) -> str:
    """What took cores away while any contender ran; empty: nothing did."""
    return next((row.busy for rows in run.groups.values() for row in rows if row.busy), "")


def _kind(row: Row) -> str:
    return "base" if row.baseline else "ours" if row.library is None else "peer"


def _ratio(rows: Sequence[Row], row: Row) -> float:
    """How many times faster than the baseline of its contest."""
    base = next((one for one in rows if one.baseline), None)
    return float("nan") if base is None or not row.best > 0 else base.best / row.best


def _contests(run: Run) -> list[Markup]:
    """Bars of each contest, on one scale."""
    ratios = {group: [_ratio(rows, row) for row in rows] for group, rows in run.groups.items()}
    top = max((r for of_group in ratios.values() for r in of_group if r < float("inf")), default=1.0)
    found = []
    for group, rows in run.groups.items():
        bars = [
            svg.Bar(row.title, f"{times(ratio)} · {seconds(row.best)}", [(ratio, _kind(row))])
            for row, ratio in zip(rows, ratios[group])
        ]
        title = group.replace("x", " × ")
        found.append(figure(svg.bars(bars, f"{group}, times faster than NumPy", top=top, mark=1.0), title))
    return found


def _roofline(run: Run) -> list[Markup]:
    """The roofs, and the products that are large enough for them."""
    if not run.roofs:
        return []
    rows = [row for rows in run.groups.values() for row in rows if row.operations >= _SMALL and row.nbytes > 0]
    series = []
    for kind in ("base", "peer", "ours"):  # ours last, so that it lies on top
        points = [_point(row) for row in rows if _kind(row) == kind and row.best > 0]
        series.append(svg.Series(_KINDS[kind], points, kind, joined=False))
    if not any(s.points for s in series):
        return []
    peaks: dict[str, float] = {}
    for unit in run.roofs["peaks"].values():
        if 8 in unit["bits"]:
            peaks[unit["isa"]] = max(peaks.get(unit["isa"], 0.0), unit["all"])
    roofs = [svg.Roof(f"{isa} {number(peak, 2)}", peak) for isa, peak in peaks.items()]
    bandwidth = run.roofs["bandwidth"]["all"]
    picture = svg.roofline(
        roofs, bandwidth, series, svg.Names("operations per byte of the operands", "operations per second")
    )
    caption = f"The slope is reading {number(bandwidth / 1e9)} GB/s."
    return [figure(picture, legend=_KINDS, caption=caption)]


def _point(row: Row) -> svg.Point:
    rate = row.operations / row.best
    name = f"{row.group}, {row.title}: {number(rate)} operations per second"
    return svg.Point(row.operations / row.nbytes, rate, name)


def _table(run: Run) -> Markup:
    columns = ["Product", "Contender", "Bits", "Group", "Faster", "Best", "Median", "Of the roof", "SQNR"]
    marked = bool(busy(run))
    rows = [_cells(run, rows, row, marked) for rows in run.groups.values() for row in rows]
    return table("All figures", [*columns, *(["Busy"] if marked else [])], rows)


def _cells(run: Run, rows: Sequence[Row], row: Row, marked: bool) -> list[Cell]:
    ratio, roof = _ratio(rows, row), run.roof(row)
    reached = None if roof is None or not row.best > 0 else roof.seconds / row.best
    return [
        Cell(row.group),
        Cell(row.title),
        Cell("32", 32) if row.baseline else Cell(str(row.bits), row.bits),
        Cell(NONE) if row.size is None else Cell(str(row.size), row.size),
        Cell(times(ratio), ratio),
        Cell(seconds(row.best), row.best),
        Cell(seconds(row.median), row.median),
        Cell(NONE) if reached is None else Cell(f"{share(reached)} {roof.name}", reached),
        Cell(NONE) if row.sqnr is None else Cell(decibels(row.sqnr), row.sqnr),
        *([Cell(row.busy or NONE, long=True)] if marked else []),
    ]
