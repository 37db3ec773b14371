"""Charts: they are well-formed and on the canvas, whatever the numbers and names."""

from __future__ import annotations

import itertools
from math import inf, nan

import pytest

from fastq.pictures import svg
from fastq.pictures.axis import Axis
from fastq.pictures.markup import escape, tag
from fastq.pictures.quantities import count, decibels, fixed, number, seconds, share, shortened, times

from .parsing import SVG, Page, lengths, pictures

ODD = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, 5e-324, inf, -inf, nan]
NAMES = svg.Names("bits", "SQNR")


def widths(drawn):
    """The lengths of the bars, in percent, by list item."""
    found = [[float(r.get("width")[:-1]) for r in tree.iter(f"{SVG}rect") if "track" not in r.get("class")]
             for tree in pictures(drawn)]  # fmt: skip
    return [w[0] if len(w) == 1 else w for w in found]


def checked(drawn):
    """A chart whose markup is well-formed, and whose places are on it."""
    Page(drawn)
    trees = pictures(drawn)
    for tree in trees:
        assert all(0 <= place <= 100 for place in lengths(tree))
        assert "nan" not in svg.tag("p", *tree.itertext()).lower()
        for element in tree.iter():
            assert not {"nan", "inf", "-inf"} & set(element.attrib.values())
    return trees


def bar(value, kind="ours", **more):
    return svg.Bar("name", "told", [(value, kind)], **more)


def test_bars_have_their_lengths():
    assert widths(svg.bars([bar(1.0), bar(4.0), bar(0.5)], "three")) == [25, 100, 12.5]
    assert widths(svg.bars([bar(1.0)], "one")) == [100]
    assert widths(svg.bars([bar(1.0), bar(7.0)], "of ten", top=10.0)) == [10, 70]
    assert widths(svg.bars([svg.Bar("a", "", [(0.5, "ours"), (0.25, "peer")])], "parts", top=1.0)) == [[50, 25]]


def test_bars_without_a_length():
    """What is infinite fills the axis; what is not a number, or nothing, has no bar, but a name."""
    drawn = svg.bars([bar(inf), bar(2.0), bar(nan), bar(0.0), bar(-3.0)], "odd")
    assert widths(drawn) == [100, 100, [], [], []]
    assert drawn.count(">told<") == 5
    checked(drawn)
    assert "<li>" not in svg.bars([], "empty")


def test_parts_never_leave_the_bar():
    drawn = svg.bars([svg.Bar("a", "", [(0.8, "ours"), (0.7, "peer"), (inf, "third")])], "too much", top=1.0)
    assert widths(drawn) == [[80, 20]]


def test_a_mark():
    marks = [tree.find(f"{SVG}line") for tree in pictures(svg.bars([bar(4.0, mark=1.0), bar(2.0, mark=9.0)], "marks"))]
    assert marks[0].get("x1") == marks[0].get("x2") == "25%"
    assert marks[1] is None  # beyond the axis


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("values", [*itertools.combinations(ODD, 2), (1.0,), (), (2.0, 2.0)])
def test_plots_of_odd_numbers(values, joined):
    points = [svg.Point(i + 2.0, y, f"{y}") for i, y in enumerate(values)] + [svg.Point(y, 3.0) for y in values]
    for log in (False, True):
        x, y = (Axis.over([getattr(p, name) for p in points], log=log, margin=0.1) for name in "xy")
        checked(svg.plot([svg.Series("a", points, joined=joined)], NAMES, x, y))


def test_points_lie_where_they_belong():
    points = [svg.Point(0.0, 0.0), svg.Point(5.0, 20.0), svg.Point(10.0, nan)]
    (tree,) = pictures(svg.plot([svg.Series("a", points)], NAMES, Axis(0.0, 10.0), Axis(0.0, 40.0)))
    marks = [mark for mark in tree.findall(f"{SVG}svg") if mark.find(f"{SVG}path") is not None]
    assert [(mark.get("x"), mark.get("y")) for mark in marks] == [("0%", "230"), ("50%", "115")]
    assert [line.get("class") for line in tree.findall(f"{SVG}line")].count("ours joined") == 1


@pytest.mark.parametrize("rate", ODD)
@pytest.mark.parametrize("bandwidth", ODD)
def test_rooflines_of_odd_numbers(rate, bandwidth):
    series = [svg.Series("a", [svg.Point(rate, bandwidth), svg.Point(3.0, 2e9)], joined=False)]
    checked(svg.roofline([svg.Roof("amx", 1e12), svg.Roof("odd", rate)], bandwidth, series, NAMES))
    checked(svg.roofline([svg.Roof("odd", rate)], bandwidth, [], NAMES))


def test_roofs_meet_at_the_corner():
    """Where bytes per second times operations per byte are operations per second."""
    x = [svg.Point(1.0, 1e9), svg.Point(10_000.0, 1e12)]
    (tree,) = pictures(svg.roofline([svg.Roof("peak", 1e12)], 1e10, [svg.Series("a", x)], NAMES))
    flat, slope = (line for line in tree.findall(f"{SVG}line") if line.get("class") == "roof")
    assert (slope.get("x2"), slope.get("y2")) == (flat.get("x1"), flat.get("y1"))
    assert flat.get("y1") == flat.get("y2")


def test_histograms():
    drawn = svg.histogram([0.0, 1.0, 2.0, 3.0], [1, 0, 4], [0.5, 2.5], "two levels")
    bins, guides, levels = (path.get("d") for path in pictures(drawn)[0].iter(f"{SVG}path"))
    assert bins.count("z") == 2  # the empty one is left out
    assert guides == "M166.7 0V150M833.3 0V150"
    assert levels.count("M") == 2
    assert svg.histogram([0.0, 1.0], [1], range(256), "many").count("<path") == 2  # no guides: they would hide the bars


@pytest.mark.parametrize("edges", [[], [1.0], [1.0, 1.0], [-1e308, 1e308], [nan, 1.0], [-inf, inf]])
@pytest.mark.parametrize("counts", [[], [0], [3], [inf], [nan]])
def test_odd_histograms(edges, counts):
    checked(svg.histogram(edges, counts, [0.0, nan, inf], "odd"))


def test_axes():
    assert Axis(0.0, 10.0).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Axis(0.3, 0.7).ticks(4) == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert Axis(1.0, 1e6, True).ticks(4) == [1, 100, 1e4, 1e6]
    assert Axis(1.0, 30.0, True).ticks(5) == [1, 2, 5, 10, 20]
    assert Axis(1.0, 100.0, True).at(10.0) == 0.5
    assert (Axis(0.0, 4.0).at(1.0), Axis(0.0, 4.0).at(-1.0), Axis(0.0, 4.0).at(9.0)) == (0.25, 0, 1)
    assert Axis.over([3.0, 5.0], zero=True) == Axis(0.0, 5.0)
    for values in itertools.product(ODD, repeat=2):
        for log, zero in ((False, False), (False, True), (True, False)):
            axis = Axis.over(values, log=log, zero=zero, margin=0.05)
            assert axis.low < axis.high
            assert all(0 <= axis.at(v) <= 1 for v in (*ODD[:-1], *axis.ticks()))
            assert len(axis.ticks()) <= 12


def test_markup_from_outside_is_text():
    nasty = "<script>alert('&\"')</script>\x00\x1f\ud800"
    for drawn in (
        svg.bars([svg.Bar(nasty, nasty, [(1.0, "ours")])], nasty),
        svg.plot(
            [svg.Series(nasty, [svg.Point(1, 1, nasty)])], svg.Names(nasty, nasty), Axis(0.0, 2.0), Axis(0.0, 2.0)
        ),
        svg.roofline([svg.Roof(nasty, 1e9)], 1e9, [], NAMES),
        svg.histogram([0.0, 1.0], [1], [], nasty),
    ):
        checked(drawn)
        assert "<script" not in drawn
        assert drawn.encode()  # no half of a pair of surrogates
    assert tag("p", tag("b", "<"), a='"') == '<p a="&quot;"><b>&lt;</b></p>'
    assert escape("a\x01b") == "a\ufffdb"


def test_quantities():
    assert [number(v) for v in (0.0, 12.0, 1234.5, 0.05, 1e9, 2.5e13, -4e-7, inf, nan, 5e-324, 1.7e308)] == [
        "0", "12", "1230", "0.05", "10⁹", "2.5·10¹³", "-4·10⁻⁷", "∞", "–", "10⁻³²⁴", "1.7·10³⁰⁸",
    ]  # fmt: skip
    assert [fixed(v) for v in (1.0, 9.999, 99.96, 0.0123, 5e-5, nan)] == [
        "1.00",
        "10.0",
        "100",
        "0.0123",
        "5·10⁻⁵",
        "–",
    ]
    assert [times(v) for v in (0.437, 16.94, inf, nan)] == ["0.437×", "16.9×", "∞×", "–"]
    assert [share(v) for v in (0.0, 1e-5, 0.012, 0.5, 1.02, nan)] == ["0 %", "<0.1 %", "1.2 %", "50 %", "102 %", "–"]
    assert [seconds(v) for v in (2.0, 0.0045, 3e-6, 0.0, nan)] == ["2.00 s", "4.50 ms", "3.00 µs", "0 µs", "–"]
    assert [decibels(v) for v in (38.24, inf, -inf, nan)] == ["38.2 dB", "exact", "-∞ dB", "–"]
    assert count(1234567) == "1\u202f234\u202f567"
    assert shortened("short") == "short"
    assert len(shortened("x" * 1000)) == 46
    assert shortened("a" * 30 + "b" * 30) == "a" * 22 + "…" + "b" * 23


def test_odd_quantities():
    for value in ODD:
        for told in (number, fixed, times, share, seconds, decibels, count):
            assert told(value)
