"""Tables with rich and without, texts from files, and JSON."""

from __future__ import annotations

import json
import sys

import pytest

from fastq.cli import output

HEADS = ("name", "size")
ROWS = [["up", "1"], ["[bold]down", "1000"]]


def test_plain_lines(capsys):
    output.table(HEADS, ROWS, ["name"])
    assert capsys.readouterr().out == "name        size\nup             1\n[bold]down  1000\n"


def test_no_rows(capsys):
    output.table(HEADS, [])
    assert capsys.readouterr().out == "name  size\n"


def test_columns_of_wide_and_combining_signs(capsys):
    output.table(HEADS, [["重み", "1"], ["e\u0301", "2"]], ["name"])
    assert capsys.readouterr().out == "name  size\n重み     1\ne\u0301        2\n"


def at_a_terminal(monkeypatch):
    """A fixture would be too early: the test's standard output takes its place after that."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")


def test_rich_draws_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    at_a_terminal(monkeypatch)
    output.table(HEADS, ROWS, ["name"])
    out = capsys.readouterr().out
    assert "\x1b[1m" in out  # heads are bold
    assert "[bold]down" in out  # a name is no markup
    assert "1000" in out


def test_a_narrow_terminal_cuts_nothing_off(monkeypatch, capsys):
    pytest.importorskip("rich")
    at_a_terminal(monkeypatch)
    output.table(HEADS, [["layer." * 20, "123456789"]], ["name"])
    assert capsys.readouterr().out.splitlines()[1] == "layer." * 20 + "  123456789"


def test_a_terminal_without_rich(monkeypatch, capsys):
    at_a_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich", None)
    output.table(HEADS, ROWS, ["name"])
    assert capsys.readouterr().out == "name        size\nup             1\n[bold]down  1000\n"


def test_rich_is_not_imported_for_a_pipe(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    output.table(HEADS, ROWS)
    assert "rich" not in sys.modules


def test_pairs(capsys):
    output.pairs({"CPU": "one", "load": "\x1b[2J"})
    assert capsys.readouterr().out == "CPU:  one\nload: \\x1b[2J\n"


def test_a_document_is_strict_json(capsys):
    output.document({"a": float("inf"), "b": (1, [float("nan"), 2.5]), 3: {"c": None}, "d": "ż\x1b"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"a": None, "b": [1, [None, 2.5]], "3": {"c": None}, "d": "ż\x1b"}


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a\u202eb", "a\ud800b"])
def test_what_steers_a_terminal_is_written_out(text):
    assert output.visible(text).isprintable()
    assert output.visible("ż 重み") == "ż 重み"


def test_words():
    assert output.shape((2, 3)) == "2 x 3"
    assert output.shape(()) == "1"
    assert [output.decibels(value) for value in (None, float("inf"), 12.345)] == ["", "exact", "12.3 dB"]
