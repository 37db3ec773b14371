"""Pages: what a file holds, in which form, and that it asks for nothing."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from math import inf, nan

import pytest

from fastq.pictures import page, style
from fastq.pictures.bench_page import bench_page
from fastq.pictures.diff_page import diff_page
from fastq.pictures.inspect_page import inspect_page
from fastq.pictures.markup import tag

from . import examples
from .parsing import Page, pictures

NASTY = "<img src=x onerror=alert(1)>\"'&\x00"
PAGES = examples.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(name):
    text = PAGES[name]
    assert text.startswith("<!doctype html>\n<html")
    read = Page(text)
    assert read.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
    assert {"charset": "utf-8"} in read.all("meta")
    assert len(read.all("h1")) == 1
    assert read.text["title"][:1] == read.text["h1"]  # those that follow are of points in pictures
    assert len(read.all("h2")) >= 3
    assert len(pictures(text)) > 10


@pytest.mark.parametrize("name", PAGES)
def test_everything_has_a_name_for_who_does_not_see_it(name):
    read = Page(PAGES[name])
    assert all(p.get("aria-label") or p.get("aria-hidden") == "true" for p in read.all("svg") if "class" in p)
    assert all(p["role"] == "img" for p in read.all("svg") if "aria-label" in p)
    assert all(list_of["aria-label"] for list_of in read.all("ul") if list_of.get("class") == "bars")
    for scroller in (d for d in read.all("div") if d.get("class") == "scroll"):
        assert scroller["tabindex"] == "0"  # so that keys scroll it
        assert scroller["aria-label"]
    heads = [h for h in read.all("th") if h["scope"] == "col"]
    assert len(heads) == len(read.all("button"))
    assert {h["aria-sort"] for h in heads} == {"none"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing(name):
    """There is no address in it but the name of SVG, and a rule that has the browser load nothing."""
    text = PAGES[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    policy = next(m["content"] for m in Page(text).all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert not {"img", "iframe", "object", "embed"} & {name for name, _ in Page(text).elements}


def test_pages_are_the_same_each_time():
    assert examples.pages() == PAGES


def test_pages_are_small():
    assert all(len(text) < 80_000 for text in PAGES.values())
    assert len(style.PAGE) + len(style.SORTING) < 7_000


def odd_result(name=NASTY):
    result = examples.result(busy=name)
    for row, value in zip(result.rows, itertools.cycle((0.0, inf, nan, 1e-300, 1e300))):
        row.name = row.library = name
        row.best, row.times_faster, row.sqnr_db, row.share, row.median = value, value, value, value, None
    for field in ("cpu", "system", "isa", "blas"):
        setattr(result.machine, field, name)
    result.machine.versions, result.notes = {name: name}, (name,)
    result.roofs["peaks"]["amx"]["isa"] = name
    return bench_page(result, name)


def odd_inspection(name=NASTY):
    found = examples.inspection(5)
    for row, value in zip(found.rows, (0.0, inf, nan, -inf, 1e300)):
        row.name = row.kind = row.stays = row.problem = row.form = name
        row.sqnr, row.bits_per_weight, row.shape = dict.fromkeys(row.sqnr, value), value, ()
    found.path = found.format = name
    return inspect_page(found, (name, replace(examples.weights(), unit=name)), name)


def odd_difference(name=NASTY):
    found = examples.difference(30)
    for row, value in zip(found.rows, itertools.cycle((0.0, inf, nan, -inf, 1e300, -1e300))):
        row.name = row.kind = row.other = row.problem = name
        row.sqnr_db = value
        if row.error is not None:
            row.error.sqnr_db = row.error.max_abs = value
        if row.shares is not None:
            row.shares.rounding = row.shares.clipping = row.shares.scales = value
    found.only_first = found.only_second = (name,)
    return diff_page(found, name, name, name)


@pytest.mark.parametrize("made", [odd_result, odd_inspection, odd_difference])
def test_odd_names_and_numbers(made):
    """Text stays text, with the same elements as that of harmless names."""
    text = made()
    assert [name for name, _ in Page(text).elements] == [name for name, _ in Page(made("plain")).elements]
    assert "<img" not in text
    assert "\x00" not in text
    assert pictures(text)


def test_pages_of_nothing():
    nothing = examples.result(times={})
    assert "<table" not in bench_page(nothing)
    assert "<table" not in inspect_page(examples.inspection(0, forms=()))
    assert "<table" not in diff_page(examples.difference(0), "a", "b")
    assert "About the codes" not in inspect_page(examples.inspection(3))


def test_pages_of_one_and_of_many():
    one = bench_page(examples.result(times={"2x3x4": (1.0, 0.5, 0.5, 0.5, 0.5)}))
    assert "2 × 3 × 4" in one
    assert "roofs of this machine" not in one  # a product so small is all overhead
    many = diff_page(examples.difference(200), "a", "b")
    assert "The 20 worst of 199 arrays" in many
    assert many.count("<tr>") == 201
    assert len(pictures(many)) < 60
    assert "188 others together" in inspect_page(examples.inspection(200))
    assert "once quantized" not in inspect_page(examples.inspection(3, forms=()))


def test_a_busy_machine_is_told_first():
    text = PAGES["bench"]
    assert text.index("BUSY") < text.index("<h2>")
    assert "load 22 on 2 cores" in text
    assert "16.9×?" in text
    calm = bench_page(examples.result())
    assert "BUSY" not in calm
    assert "×?" not in calm
    later = examples.result()
    later.rows[3].busy = True  # while it ran
    assert "BUSY" in bench_page(later)


def test_what_is_not_measured_is_not_drawn():
    assert "roofs of this machine" not in bench_page(examples.result(roofs=False))
    assert "Bits against error" not in inspect_page(examples.inspection(1, forms=()))


def test_arrays_are_in_the_order_of_their_numbers():
    names = re.findall(r"<title>(model[^:]+): ", diff_page(examples.difference(60), "a", "b"))
    layers = [int(name.split(".")[2]) for name in names]
    assert layers == sorted(layers)
    assert max(layers) > 9


def test_names_may_break_between_their_parts():
    assert page.breakable("a.b_c-<d>") == "a.<wbr>b_<wbr>c-<wbr>&lt;d&gt;"
    assert page.breakable("..__a") == "..__<wbr>a"
    assert page.breakable("plain") == "plain"


def cell_keys(cells):
    return [td.get("data-v") for td in Page(page.table("t", ["a", "b"], cells)).all("td")]


def test_cells_are_sorted_by_what_they_mean():
    rows = [[page.Cell("x"), page.Cell("12 ms", 0.012)], [page.Cell("y"), page.Cell("–")],
            [page.Cell("z"), page.Cell("exact", inf)], [page.Cell("w"), page.Cell("–", nan)]]  # fmt: skip
    assert cell_keys(rows) == ["0.012", "", "Infinity", ""]
    assert cell_keys([[page.Cell("x"), page.Cell("text")]]) == [None]


def light(colour):
    """Relative luminance, as WCAG 2 has it."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts)
    )


def contrast(one, other):
    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_colours_can_be_told_from_what_they_are_on(theme):
    """WCAG AA: 4.5 for text, 3 for what is drawn."""
    assert all(contrast(theme[ink], theme["page"]) >= 4.5 for ink in ("ink", "muted"))
    assert contrast(theme["warn-ink"], theme["warn"]) >= 4.5
    for kind in ("ours", "peer", "third", "fourth", "base"):
        assert contrast(theme[kind], theme["page"]) >= 3
        assert contrast(theme[kind], theme["track"]) >= 3
    assert theme.keys() == style.LIGHT.keys()


@pytest.mark.parametrize("paper", ["#ffffff", "#111111", "#1e1e1e"])
def test_colours_of_notebooks_fit_both_themes(paper):
    assert all(contrast(style.ANYWHERE[kind], paper) >= 3 for kind in ("ours", "peer", "third", "fourth", "base"))


def seen_as(colour, kind):
    """A colour as people see it who lack the receptors for red or green (Viénot, Brettel and Mollon, 1999)."""
    r, g, b = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    mixed = 0.11238 * r + 0.88762 * g if kind == "red" else 0.29275 * r + 0.70725 * g
    blue = 0.00401 * r - 0.00401 * g + b if kind == "red" else -0.02234 * r + 0.02234 * g + b
    return mixed, mixed, blue


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK, style.ANYWHERE], ids=["light", "dark", "notebook"])
@pytest.mark.parametrize("kind", ["red", "green"])
def test_colours_can_be_told_apart_without_red_or_green(theme, kind):
    """Those of fastq, of peers and of NumPy, which stand beside each other."""
    for one, other in itertools.combinations(("ours", "peer", "base"), 2):
        a, b = seen_as(theme[one], kind), seen_as(theme[other], kind)
        assert max(abs(x - y) for x, y in zip(a, b)) > 0.1, (one, other)


def test_a_script_cannot_be_ended_from_outside():
    assert tag("p", "</script>") == "<p>&lt;/script&gt;</p>"
    assert "</" not in style.SORTING + style.PAGE
