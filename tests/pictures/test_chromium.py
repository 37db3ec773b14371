"""Pages in a real browser: nothing is complained of or fetched, phones need no scrolling sideways, tables sort."""

from __future__ import annotations

import pytest

from . import chromium, examples

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed")
PAGES = ("bench", "inspect", "diff")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    running = chromium.Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    broken = "<!doctype html><meta name='viewport' content='width=device-width'><p style='width:900px'>wide</p>"
    broken += "<img src='http://localhost:1/x.png'><script>console.error('no')</script>"
    texts = {**examples.pages(), "broken": broken}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def sideways(browser):
    """Pixels that the page is wider than the window."""
    return browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390, 320])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_in_order(browser, files, name, width, dark):
    browser.open(files[name], width, dark)
    assert browser.complaints() == []
    assert browser.requests() == [files[name].as_uri()]
    assert browser.value("innerWidth") == width
    assert sideways(browser) == 0
    page = browser.value("getComputedStyle(document.body).backgroundColor")
    assert page == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
    outside = """[...document.querySelectorAll("main svg text, main h1, main h2, main p, main li")].filter(e => {
        const r = e.getBoundingClientRect(); return !e.closest(".scroll") && (r.left < -1 || r.right > innerWidth + 1)
    }).map(e => e.textContent)"""
    assert browser.value(outside) == []


def test_wide_tables_scroll_by_themselves(browser, files):
    browser.open(files["inspect"], 390)
    assert browser.value("(d => d.scrollWidth > d.clientWidth)(document.querySelector('.scroll'))")


def test_names_and_what_is_told_do_not_overlap(browser, files):
    overlap = """[...document.querySelectorAll(".bars li")].filter(li =>
        li.querySelector(".name").getBoundingClientRect().right > li.querySelector(".told").getBoundingClientRect().left
    ).length"""
    for name in PAGES:
        browser.open(files[name], 390)
        assert browser.value("document.querySelectorAll('.bars li').length") > 10
        assert browser.value(overlap) == 0


def test_a_broken_page_would_be_seen(browser, files):
    browser.open(files["broken"], 390)
    assert len(browser.complaints()) >= 1
    assert "http://localhost:1/x.png" in browser.requests()
    assert sideways(browser) > 0 or browser.value("innerWidth") > 390


def column(browser, number):
    return browser.value(f"[...document.querySelectorAll('tbody tr')].map(r => r.cells[{number}].textContent)")


def sorts(browser):
    return browser.value("[...document.querySelectorAll('thead th')].map(h => h.getAttribute('aria-sort'))")


def test_tables_sort(browser, files):
    """By numbers, whatever their units; empty cells are always last; by names, as people count."""
    browser.open(files["bench"])
    times = "document.querySelectorAll('thead button')[5]"
    browser.value(f"{times}.click()")
    rising = column(browser, 5)
    assert (rising[0], rising[-1]) == ("4.07 µs", "115 ms")
    assert sorts(browser) == ["none"] * 5 + ["ascending"] + ["none"] * 3
    browser.value(f"{times}.click()")
    assert column(browser, 5) == rising[::-1]
    assert sorts(browser)[5] == "descending"
    browser.value("document.querySelectorAll('thead button')[0].click()")
    assert sorts(browser) == ["ascending"] + ["none"] * 8
    products = column(browser, 0)
    assert products == sorted(products, key=lambda text: [int(n) for n in text.split(" × ")])
    for _ in range(2):
        browser.value("document.querySelectorAll('thead button')[7].click()")  # NumPy has no roof here
        assert column(browser, 7)[-5:] == ["–"] * 5


def test_keys_sort_too(browser, files):
    browser.open(files["diff"])
    assert sorted(column(browser, 0)) == sorted(examples.layer_names(40))
    browser.value("document.querySelectorAll('thead button')[3].focus()")
    browser.press("Tab")
    assert browser.value("document.activeElement.textContent") == "SQNR"
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = column(browser, 4)
    browser.press("Enter")
    browser.press("Enter")
    assert sorts(browser)[4] == "descending"
    assert column(browser, 4) != before
    assert column(browser, 4)[0] == "exact"
