"""The page "Results": its tables are made of the files in docs/results, when the documentation is built."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fastq.bench import folder
from fastq.bench.run import CODES
from fastq.kernels.table import ISAS
from tests.bench.made import MACHINE, numpy, ours, result, row

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def machines():
    spec = spec_from_file_location("machines", DOCS / "machines.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def search(name, best, **facts):
    return row(name, best, (best,), kind="search", **facts)


def peer(name, best, **facts):
    return row(name, best, (best,), **{"library": "torch", "isa": None, **facts})


def test_a_file_more_is_a_line_more(machines, tmp_path):
    page = tmp_path / "tables.inc"
    folder.save(result(), tmp_path)
    machines.write(tmp_path, page)
    one = page.read_text()
    lines = [
        "| CPU | instruction set | threads | 8 bits | fewer bits | search | measured |",
        "| --- | --- | --: | --: | --: | --: | --: |",
        "| A CPU (R) | avx2 | 2 | 5.00 |  |  | 2026-01-02 |",
    ]
    assert one.splitlines()[:3] == lines
    other = MACHINE.__class__(**{**vars(MACHINE), "cpu": "Another"})
    folder.save(result(machine=other), tmp_path)
    machines.write(tmp_path, page)
    assert page.read_text().splitlines()[3] == lines[2].replace("A CPU (R)", "Another")
    assert page.read_text().count("\n### ") == 2


def test_the_tables_of_a_machine(machines):
    """After fastq's contenders of a kind stands the fastest peer of it, and only of it."""
    rows = [
        numpy(), ours(), row("int8 codes", 0.001, (0.001,), kind=CODES),
        peer("slow", 0.005), peer("quick", 0.004, drift=0.004), peer("of codes", 0.0005, kind=CODES),
    ]  # fmt: skip
    (table,) = machines.tables(result(*rows))
    assert table.splitlines() == [
        "| times faster than float32 | NumPy, ms | int8 weights | fastest peer | int8 codes | fastest peer |",
        "| --- | --: | --: | --: | --: | --: |",
        "| 8x16x32 | 10.0 | 5.00 | 2.50? torch (oneDNN) | 10.0 | 20.0 torch (oneDNN) |",
    ]


def test_searches_stand_apart(machines):
    found = result(numpy(), search("top_k, int8", 0.001), search("another's", 0.002, library="faiss", isa=None))
    (table,) = machines.tables(found)
    assert table.splitlines()[-1] == "| 8x16x32 | 10.0 | 10.0 | 5.00 faiss |"
    assert machines.overview([found]).splitlines()[-1] == "| A CPU (R) | avx2 | 2 |  |  | 10.0 | 2026-01-02 |"


def test_a_picture_for_each_machine(machines, tmp_path):
    """Where something draws one."""
    folder.save(result(), tmp_path)
    page = tmp_path / "tables.inc"
    machines.write(tmp_path, page)
    assert "<details>" not in page.read_text()
    machines.write(tmp_path, page, lambda found: f"<svg>{found.machine.isa}</svg>")
    assert page.read_text().count("<svg>avx2</svg></details>") == 1


def test_a_busy_machine_is_told(machines):
    busy = MACHINE.__class__(**{**vars(MACHINE), "busy": "load 22 on 2 cores"})
    assert machines.about(result(machine=busy)).endswith("**BUSY: load 22 on 2 cores.**")


def test_the_files_that_are_there(machines):
    """Their names are those that they would be saved by, and every ratio is that of its times."""
    files = sorted((DOCS / "results").iterdir())
    assert len(files) >= 2
    for path in files:
        found = folder.load(path)
        assert path.name == folder.name_of(found)
        assert found.machine.isa in ISAS
        for rows in found.by_shape().values():
            numpy, *others = rows
            assert numpy.library == "numpy"
            for one in others:
                assert one.times_faster == pytest.approx(numpy.best / one.best, rel=0.02)


def test_what_to_expect_names_every_row():
    """Those of the kernel table, best first, but for the reference."""
    expected = (DOCS / "results.md").read_text().split("## What was measured")[0]
    assert re.findall(r"^\| `(\w+)` \|", expected, re.MULTILINE) == [isa for isa in ISAS if isa != "reference"]


def test_every_field_of_the_format_is_told():
    told = (DOCS / "results.md").read_text().split("## The format")[1]
    names = {*vars(result()), *vars(result().rows[0]), *vars(MACHINE)}
    assert all(f"`{name}`" in told for name in names)
