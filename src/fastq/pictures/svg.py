"""Charts as SVG.

Places along x are percentages and all else is in pixels. So a chart is as wide as its column, on a phone and on a
desk, and its letters keep their size. Numbers that are not finite are drawn at the end of the axis or not at all, and
the text beside them says what they are. Styles are those of :mod:`fastq.pictures.style`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, isnan
from typing import NamedTuple

from fastq.pictures.axis import Axis
from fastq.pictures.markup import Markup, join, percent, tag
from fastq.pictures.quantities import number, shortened

_LEFT = 48  # room for the numbers of an axis
_WIDE = 1000
_FEW = 32  # levels
KINDS = ("ours", "peer", "third", "fourth", "base")  # classes of colours
_XMLNS = "http://www.w3.org/2000/svg"
_SHAPES = {
    "ours": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "peer": "M-4-4h8v8h-8z",
    "third": "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "fourth": "M0-5L5.2 4.2H-5.2z",
    "base": "M-5-1.6h3.4V-5h3.2v3.4H5v3.2H1.6V5h-3.2V1.6H-5z",
}  # one form for each colour, for those who do not tell colours apart


@dataclass(frozen=True)
class Bar:
    """A bar of one or several parts, each a length and a kind; what is told stands at its right end."""

    name: str
    told: str
    parts: Sequence[tuple[float, str]]
    mark: float | None = None  # a value to compare with


@dataclass(frozen=True)
class Point:
    """A mark in a chart; its name is shown when it is pointed at."""

    x: float
    y: float
    name: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind, joined by a line or not."""

    name: str
    points: Sequence[Point]
    kind: str = "ours"
    joined: bool = True


class Names(NamedTuple):
    """What is along the axes of a chart."""

    x: str
    y: str


@dataclass(frozen=True)
class Roof:
    """What a machine can do at most: operations per second, whatever the bytes."""

    name: str
    rate: float


def bars(rows: Sequence[Bar], label: str, top: float | None = None) -> Markup:
    """A list of horizontal bars, each below its name; `top` is the length of the axis.

    Names are text of the page, which knows how to shorten what has no room.
    """
    lengths = [sum(_length(value) for value, _ in row.parts) for row in rows]
    axis = Axis(0.0, top if top is not None and top > 0 else max(lengths, default=0.0) or 1.0)
    items = [_bar(row, axis) for row in rows]
    return tag("ul", *items, class_="bars", aria_label=label)


def _bar(row: Bar, axis: Axis) -> Markup:
    drawn, at = [tag("rect", x=0, y=3, width="100%", height=8, class_="track")], 0.0
    for value, kind in row.parts:
        width = min(1.0 - at, 1.0 if value == float("inf") else axis.at(_length(value)))
        if width > 0:
            drawn.append(tag("rect", x=percent(at), y=3, width=percent(width), height=8, class_=kind))
        at += width
    if row.mark is not None and 0 < (place := axis.at(row.mark)) < 1:
        drawn.append(_line(place, 0, place, 14, "mark"))
    name, told = tag("span", shortened(row.name), class_="name", title=row.name), tag("span", row.told, class_="told")
    bar = tag("svg", *drawn, xmlns=_XMLNS, width="100%", height=14, aria_hidden="true")
    return tag("li", name, told, bar)


def plot(series: Sequence[Series], names: Names, x: Axis, y: Axis, across: Sequence[float] = ()) -> Markup:
    """Lines and points over two axes; `across` are the values of x to mark, by default round ones."""
    height = 230
    drawn = _frame(x, y, height, names, across)
    for of_kind in series:
        seen = [p for p in of_kind.points if _drawable(p.x, x) and _drawable(p.y, y)]
        places = [(x.at(p.x), height * (1 - y.at(p.y))) for p in seen]
        if of_kind.joined:
            drawn += [_line(*a, *b, f"{of_kind.kind} joined") for a, b in pairwise(places)]
        drawn += [_marker(at, place, of_kind.kind, p.name) for (at, place), p in zip(places, seen)]
    return _chart(drawn, height, f"{names.y} over {names.x}")


def roofline(roofs: Sequence[Roof], bandwidth: float, series: Sequence[Series], names: Names) -> Markup:
    """Rates over operations per byte, both logarithmic, below what the machine can do."""
    points = [p for of_kind in series for p in of_kind.points]
    peaks = [r for r in roofs if isfinite(r.rate) and r.rate > 0]
    slope = bandwidth if isfinite(bandwidth) and bandwidth > 0 else 0.0
    corners = [r.rate / slope for r in peaks if slope]
    x = Axis.over([*(p.x for p in points), *corners], log=True, margin=0.06)
    y = Axis.over([*(p.y for p in points), *(r.rate for r in peaks)], log=True, margin=0.08)
    height = 300
    drawn = _frame(x, y, height, names)
    for roof in peaks:
        corner = x.at(roof.rate / slope) if slope else 0.0
        level = height * (1 - y.at(roof.rate))
        drawn += [_line(corner, level, 1, level, "roof")] if corner < 1 else []
    if slope:
        left, right = max(x.low, y.low / slope), min(x.high, max([r.rate for r in peaks], default=y.high) / slope)
        if right > left:
            ends = [(x.at(v), height * (1 - y.at(v * slope))) for v in (left, right)]
            drawn.append(_line(*ends[0], *ends[1], "roof"))
    drawn += [
        _marker(x.at(p.x), height * (1 - y.at(p.y)), of_kind.kind, p.name)
        for of_kind in series
        for p in of_kind.points
        if _drawable(p.x, x) and _drawable(p.y, y)
    ]
    drawn += [_text(r.name, "100%", height * (1 - y.at(r.rate)) - 4, "end", "small halo") for r in peaks]
    return _chart(drawn, height, f"{names.y} over {names.x}")


def histogram(edges: Sequence[float], counts: Sequence[float], levels: Sequence[float], label: str) -> Markup:
    """How often values occur, and below it a tick at each level that a code stands for."""
    x = Axis.over([*edges, *levels])
    top = max([c for c in counts if isfinite(c)], default=0) or 1
    height = 150
    steps = []
    for low, high, count in zip(edges, edges[1:], counts):
        if isfinite(count) and count > 0 and isfinite(low) and isfinite(high):
            left, right = _WIDE * x.at(low), _WIDE * x.at(high)
            steps.append(f"M{left:.1f} {height}V{height * (1 - min(count, top) / top):.1f}H{right:.1f}V{height}z")
    marks = [_WIDE * x.at(v) for v in levels if isfinite(v)]
    drawn = [_stretched("".join(steps), height, "base bin")]
    kind = "level" if len(marks) <= _FEW else "level dense"
    if len(marks) <= _FEW:  # more lines would hide the bars
        drawn.append(_stretched("".join(f"M{at:.1f} 0V{height}" for at in marks), height, "guide"))
    drawn.append(_stretched("".join(f"M{at:.1f} {height + 2}v9" for at in marks), height, kind))
    drawn.append(_line(0, height, 1, height, "axis"))
    drawn += [_text(number(v), percent(x.at(v)), height + 26, _anchor(x.at(v)), "small") for v in x.ticks(5)]
    return _chart(drawn, height + 31, label, plain=True)


def _frame(x: Axis, y: Axis, height: float, names: Names, across: Sequence[float] = ()) -> list[Markup]:
    """Grid lines, their numbers, and what these are."""
    drawn = [_text(names.y, -_LEFT, -14, None, "small"), _text(names.x, "100%", height + 34, "end", "small")]
    for value in y.ticks(5):
        level = height * (1 - y.at(value))
        drawn += [_line(0, level, 1, level, "grid"), _text(number(value), -8, level + 4, "end", "small")]
    for value in across or x.ticks(5):
        at = x.at(value)
        drawn += [
            _line(at, height, at, height + 4, "axis"),
            _text(number(value), percent(at), height + 18, "middle", "small"),
        ]
    return [*drawn, _line(0, height, 1, height, "axis")]


def _chart(drawn: Iterable[Markup], height: float, label: str, plain: bool = False) -> Markup:
    """`plain`: without room at the left for the numbers of an axis."""
    kind = "chart" if plain else "chart framed"
    size = {"width": "100%", "height": max(1, height if plain else height + 40)}
    return tag("svg", join(drawn), xmlns=_XMLNS, class_=kind, **size, role="img", aria_label=label)


def _text(
    text: str, x: object, y: float, anchor: str | None = None, kind: str | None = None, title: str = ""
) -> Markup:
    whole = [tag("title", title)] if title and title != text else []
    return tag("text", *whole, text, x=x, y=y, text_anchor=anchor, class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=percent(x1), y1=float(y1), x2=percent(x2), y2=float(y2), class_=kind)


def _marker(x: float, y: float, kind: str, name: str) -> Markup:
    """A form at a place; it has a viewport of its own, because paths know no percentages."""
    inside = [tag("title", name)] if name else []
    path = tag("path", *inside, d=_SHAPES[kind], class_=kind)
    return tag("svg", path, x=percent(x), y=float(y), overflow="visible", width=1, height=1)


def _stretched(path: str, height: float, kind: str) -> Markup:
    """Many small forms as one path, whose x goes from 0 to 1000 and is stretched to the width of the chart."""
    size = {"width": "100%", "height": height, "viewBox": f"0 0 {_WIDE} {height:.0f}"}
    drawn = tag("path", d=path, class_=kind, vector_effect="non-scaling-stroke")
    return tag("svg", drawn, **size, preserveAspectRatio="none", overflow="visible")


def key(kind: str) -> Markup:
    """The mark of a kind, for a legend."""
    shape = tag("path", d=_SHAPES[kind], class_=kind)
    return tag("svg", shape, viewBox="-7 -7 14 14", width=14, height=14, aria_hidden="true")


def _length(value: float) -> float:
    return value if isfinite(value) and value > 0 else 0.0


def _drawable(value: float, axis: Axis) -> bool:
    return not isnan(value) and isfinite(value) and (value > 0 or not axis.log)


def _anchor(at: float) -> str:
    """Numbers at an end of the axis stay within the chart."""
    return "start" if at < 0.03 else "end" if at > 0.97 else "middle"
