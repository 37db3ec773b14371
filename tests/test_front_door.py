"""README runs, and its picture shows what the pages say; lessons and names become pages."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
from pathlib import Path

import pytest

import fastq as fq
from fastq.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def made(monkeypatch):
    """Imports what makes pages."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def test_the_code_of_readme_runs():
    blocks = re.findall("^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec("".join(blocks), {})
    assert " sqnr_db 38" in output.getvalue()


def test_what_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert "docs/static/faster.svg" in links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_picture_is_drawn_from_its_figures(made):
    data = json.loads((DOCS / "static" / "faster.json").read_text())
    assert made("faster").draw(data) == (DOCS / "static" / "faster.svg").read_text()


def cells(page, first):
    """A row of a table of the guide."""
    row = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", (DOCS / "guide" / page).read_text(), re.MULTILINE)
    return [cell.strip() for cell in row[1].split("|")]


def test_the_figures_of_the_picture_stand_in_the_guide():
    *products, search = json.loads((DOCS / "static" / "faster.json").read_text())["groups"]
    for group in products:
        row = cells("benchmark.md", f"{group['task'].split()[0]}x4096x4096")
        ratios = [float(re.search(r"\((.*)\)", cell)[1]) for cell in (row[1], row[5], row[2])]
        assert [group["fastq8"], group["fastq3"], group["other"]] == ratios
        assert group["name"] in row[2]
    rows = ("`top_k`, 8 bits", '`top_k`, 3 bits, `method="mse"`, rescored', "NumKong, int8, `argpartition`")
    numpy, *ours = (float(cells("search.md", row)[2]) for row in ("NumPy, float32, `argpartition`", *rows))
    assert [search["fastq8"], search["fastq3"], search["other"]] == [
        pytest.approx(numpy / time, abs=0.1) for time in ours
    ]


LESSON = '''"""Lesson 1: one_two.

Of x*y, and `x*y`.
"""

x = 1


def f():
    a = 1

    return a


print("1. First: f")
print(f())
# What follows
# is prose.
y = 2

print("last", __file__)
print("The picture is pictures/a.png")
raise SystemExit("no more")
print("never")
'''


def test_a_lesson_becomes_a_page(made, tmp_path):
    lessons = made("lessons")
    program = tmp_path / "01_a.py"
    program.write_text(LESSON)
    outputs = lessons.run(program, tmp_path)
    picture = "The picture is pictures/a.png\n"
    assert outputs == ["", "", "1. First: f\n1\n", "", f"last {program}\n{picture}no more"]
    page = lessons.to_page("01_a", LESSON, outputs)
    assert page.startswith("# 1. One\\_two\n\nOf x\\*y, and `x*y`.\n")
    assert "x = 1\n\ndef f():\n    a = 1\n\n    return a\n```\n\n## First\n" in page
    assert ":::\n\nWhat follows\nis prose.\n\n```{code-block} python\ny = 2\n\nprint(" in page
    assert f"```text\nlast {program}\n\nno more\n```" in page
    assert "](pictures/a.png)" in page


def test_a_lesson_that_fails_fails_the_build(made, tmp_path):
    (tmp_path / "01_a.py").write_text('"""Lesson 1: a."""\n\n1 / 0\n')
    with pytest.raises(RuntimeError, match=r"01_a\.py ended with 1:\n(.|\n)*ZeroDivisionError"):
        made("lessons").write_all(tmp_path, tmp_path / "pages")


def test_lessons_run_again_only_if_they_changed(made, tmp_path, monkeypatch):
    lessons, ran = made("lessons"), []
    monkeypatch.setattr(lessons, "run", lambda program, folder: [ran.append(program.stem) or "out"])
    for name in ("01_a", "02_b"):
        (tmp_path / f"{name}.py").write_text('"""Lesson 1: a."""\n\nprint()\n')
    for _ in range(2):
        lessons.write_all(tmp_path, tmp_path / "pages")
    assert sorted(ran) == ["01_a", "02_b"]
    (tmp_path / "02_b.py").write_text('"""Lesson 1: a."""\n\nprint("new")\n')
    lessons.write_all(tmp_path, tmp_path / "pages")
    assert ran[2:] == ["02_b"]


def test_every_lesson_has_its_page():
    listed = re.findall(r"^\d\d_\w+$", (DOCS / "lessons" / "index.md").read_text(), re.MULTILINE)
    assert listed == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def test_the_table_of_names(made, tmp_path):
    made("names").write(tmp_path / "names.inc")
    page = (tmp_path / "names.inc").read_text()
    assert set(re.findall(r"<fastq\.(\w+)>", page)) == set(fq.__all__)
    assert "| {py:obj}`save <fastq.save>` | Write arrays, quantized and plain, to one file" in page
    assert "for `fastq.open`. |" in page
    assert "<fastq.interop.onnx.quantize_linear>" in page


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_commands_that_pages_name_are_there(path):
    named = set(re.findall(r"(?:python -m |\$ |`)fastq ([a-z]\w*)\b", path.read_text()))
    assert named <= set(COMMANDS)
