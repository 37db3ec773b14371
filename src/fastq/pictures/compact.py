"""Forms for notebooks: a small picture with its numbers, of what has a `_repr_html_`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TypeVar

from fastq.errors import in_bytes
from fastq.pictures import style, svg
from fastq.pictures.axis import Axis
from fastq.pictures.distribution import Distribution
from fastq.pictures.markup import Markup, tag
from fastq.pictures.page import figure
from fastq.pictures.quantities import count, decibels, number, share

Value = TypeVar("Value")
GOOD = 60.0  # dB: a full bar; the error is a thousandth of the signal


def shown(draw: Callable[[Value], Markup], value: Value) -> str | None:
    """A form of a value, or None, which has a notebook show its `repr`: what only shows a value must not fail."""
    try:
        return draw(value)
    except Exception:
        return None


def card(title: str, form: str, *body: Markup) -> Markup:
    """A title, what is to be said of it, and pictures; with its own style, for a cell knows of no other."""
    head = tag("p", tag("b", title), " ", tag("span", form, class_="muted"))
    return tag("div", tag("style", Markup(style.NOTEBOOK)), head, *body, class_="fq")


def array(title: str, form: str, sizes: Sequence[tuple[str, int]], found: Distribution | None) -> Markup:
    """A quantized array: its sizes, and how often each code occurs."""
    kinds = ["ours"] * (len(sizes) - 1) + ["base"]
    rows = [svg.Bar(name, in_bytes(n), [(float(n), kind)]) for (name, n), kind in zip(sizes, kinds)]
    pictures = [svg.bars(rows, "Bytes")]
    if found is not None and found.seen:
        pictures.append(figure(distribution(found), caption=seen(found)))
    return card(title, form, *pictures)


def distribution(found: Distribution) -> Markup:
    """The histogram of an array about its levels."""
    label = f"Histogram of {count(found.seen)} elements by {found.unit}, with {len(found.levels)} levels of codes"
    return svg.histogram(found.edges, found.counts, found.levels, label)


def seen(found: Distribution) -> str:
    """How much of an array was looked at, and how much of that lies at the ends."""
    of = f"{count(found.seen)} of " * (found.seen < found.size) + f"{count(found.size)} elements"
    return f"{of}, by {found.unit}; {share(found.ends)} have the lowest or highest code"


def sqnr_bar(sqnr: float, name: str) -> svg.Bar:
    """A bar that is full at 60 dB, with the error as a share of the signal."""
    told = decibels(sqnr) + (f", {share(10 ** (-sqnr / 20))}" if isfinite(sqnr) and sqnr > -200 else "")
    return svg.Bar(name, told, [(min(sqnr, GOOD) if sqnr > 0 else 0.0, "ours")])


def measures(values: Mapping[str, float], sqnr: float, hint: str = "") -> Markup:
    """An error in one number each."""
    told = " · ".join(f"{name} {number(value, 4)}" for name, value in values.items())
    body = [
        svg.bars([sqnr_bar(sqnr, "SQNR, and the error as a share of the signal")], "SQNR", top=GOOD),
        tag("p", told),
    ]
    return card("Error", "", *body, *([tag("p", f"hint: {hint}", class_="muted")] if hint else []))


def many_measures(form: str, found: Distribution, ranges: Mapping[str, tuple[float, float]], hint: str = "") -> Markup:
    """An error by axis or group: how its SQNR is distributed, and the range of each measure."""
    told = " · ".join(f"{name} {number(low)} to {number(high)}" for name, (low, high) in ranges.items())
    body = [figure(distribution(found), caption="how many have so much SQNR, in dB")] if found.seen else []
    return card("Error", form, *body, tag("p", told), *([tag("p", f"hint: {hint}", class_="muted")] if hint else []))


def parts(rows: Sequence[tuple[str, float, float]]) -> Markup:
    """An error in parts, each with its SQNR and its root mean square; the last one is the total."""
    kinds = ["ours"] * (len(rows) - 1) + ["base"]
    drawn = [
        svg.Bar(name, f"{decibels(sqnr)}, rmse {number(rmse)}", [(rmse, kind)])
        for (name, sqnr, rmse), kind in zip(rows, kinds)
    ]
    return card("MatmulError", "root mean square of each part", svg.bars(drawn, "Parts of the error"))


def choice(tried: Sequence[tuple[str, float, float]], chosen: tuple[str, float, float]) -> Markup:
    """A chosen form among those that were tried, each with bits per weight and SQNR."""
    return card("Choice", _trial(*chosen), *([trials(tried, chosen)] if tried else []))


def trials(tried: Sequence[tuple[str, float, float]], chosen: tuple[str, float, float]) -> Markup:
    """Bits against error: forms, and the one that was chosen."""
    others = [svg.Point(bits, sqnr, _trial(name, bits, sqnr)) for name, bits, sqnr in tried]
    mine = svg.Point(chosen[1], chosen[2], _trial(*chosen))
    series = [svg.Series("tried", others, "base", joined=False), svg.Series("chosen", [mine], "ours", joined=False)]
    points = [p for s in series for p in s.points]
    x = Axis.over([p.x for p in points], margin=0.08)
    y = Axis.over([p.y for p in points], margin=0.12)
    picture = svg.plot(series, svg.Names("bits per weight", "SQNR in dB"), x, y)
    return figure(picture, legend={"base": "tried", "ours": "chosen"})


def _trial(name: str, bits: float, sqnr: float) -> str:
    return f"{name}: {number(bits, 4)} bits per weight, {decibels(sqnr)}"
