"""The code of pages runs and prints what stands there, and the reference has every public name."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import fastq as fq
from fastq.engine import memory, plan
from fastq.machine import cache
from fastq.products.operands import Operand
from fastq.storage import out_of_core

from .test_floors import FLOORS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# What pages need beside the tests' own requirements.
GUESTS = {"cluster": ("dask", "zarr"), "models": ("safetensors",), "porting": ("sklearn",)}
PAGES = [
    page
    for page in (*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("start/*.md")), *sorted(DOCS.glob("guide/*.md")))
    if all(map(importlib.util.find_spec, GUESTS.get(page.stem, ())))
]
LANGUAGES = {"python", "pycon", "py"}
WITH_CODE = [page for page in PAGES if re.search("^>>> ", page.read_text(), re.MULTILINE)]


def session(text):
    """What stands in the Python blocks of a page, on the lines where it stands."""
    lines, kept = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        if fence:
            kept = not kept and line.strip("`") in LANGUAGES
        lines.append(line if kept and not fence else "")
    return "\n".join(lines)


def failures(text, name):
    """What is wrong with the examples of a page, and how many there are."""
    test = doctest.DocTestParser().get_doctest(session(text), {}, name, name, 0)
    told = []
    with np.printoptions(legacy=False):
        doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    return told, len(test.examples)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
@pytest.mark.exhaustive
def test_blocks_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, tried = failures(page.read_text(), page.name)
    assert not told, "".join(told)
    assert tried


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_a_session(page):
    """A block without a prompt would not be run; lines of more than 88 characters would be cut off on the page."""
    blocks = re.findall(rf"^```(?:{'|'.join(LANGUAGES)})\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert all(block.startswith(">>> ") for block in blocks)
    assert all(len(line) <= 88 for block in blocks for line in block.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_read_and_not_run_is_python(page):
    """Blocks that need a library or a file that tests do not have."""
    for block in re.findall(r"^```{code-block} python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        compile(block, page.name, "exec")
        assert max(map(len, block.splitlines())) <= 88


def test_a_wrong_result_is_told():
    told, tried = failures("```pycon\n>>> a = 1\n```\n\n>>> not looked at\n\n```pycon\n>>> a + 1\n3\n```\n", "page")
    assert tried == 2
    assert 'File "page", line 8' in told[0]


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("docs/guide/porting.md", f"more than {1e6 * plan.WORTH_SHARING:.0f} µs of work"),
        ("docs/guide/large.md", f"more than {out_of_core.IN_ONE_GO >> 20} MiB"),
        ("docs/faq.md", f"results above {memory.LARGE >> 20} MiB"),
        ("docs/faq.md", f"to {memory.SPARE_SMALL >> 20} MiB of it"),
        ("docs/faq.md", f"results above {memory.ADVISED >> 20} MiB, too, up to {memory.SPARE >> 20} MiB"),
        ("docs/faq.md", f"no process has used for {cache.UNUSED // cache.DAY} days"),
        ("docs/reference/settings.md", f"no process has used for {cache.UNUSED // cache.DAY} days"),
        ("CHANGELOG.md", f"no process has used for {cache.UNUSED // cache.DAY} days"),
        ("CHANGELOG.md", f"`Gptq.damping` is {fq.Gptq().damping} by default"),
    ],
)
def test_figures_are_those_of_the_code(page, sentence):
    assert sentence in " ".join((ROOT / page).read_text().split())


def test_the_architecture_shows_every_room():
    """In the drawing, and on the floor where test_floors.py has it."""
    drawing = (ROOT / "ARCHITECTURE.md").read_text().split("\n## ")[0]
    rows = [set(re.findall(r"^    (\w+)(?:/|\.py) ", row, re.MULTILINE)) for row in re.split(r"\n    -+\n", drawing)]
    assert rows == FLOORS[::-1]


def test_the_reference_has_every_public_name():
    reference = "".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    told = set(re.findall(r"^\.\. auto(?:function|class|exception):: fastq\.(\w+)(?:\(\))?$", reference, re.MULTILINE))
    assert told == set(fq.__all__)


def documented():
    """Every object whose docstring is in the reference, by its name; of classes the listed members, too."""
    reference = "".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    told = re.findall(r"^\.\. auto\w+:: ([\w.]+)(?:\(\))?\n(?:   :members: (.*)\n)?", reference, re.MULTILINE)
    for name, members in told:
        if not all(map(importlib.util.find_spec, {"dask", "zarr"} & set(name.split(".")))):
            continue
        value = pkgutil.resolve_name(name)
        yield name, value
        yield from ((f"{name}.{m}", getattr(value, m)) for m in members.split(", ") if m)


def code_in(docstring):
    """The lines of its literal blocks and sessions, as they stand on the page."""
    lines, inside = inspect.cleandoc(docstring).splitlines(), None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if inside is not None and line.strip() and indent <= inside:
            inside = None
        if inside is not None or line.lstrip().startswith((">>> ", "... ")):
            yield line.strip()
        elif line.endswith("::"):
            inside = indent


def test_equations_of_the_reference_fit_on_the_page():
    """More than 80 characters are cut off there."""
    wide = [(name, line) for name, value in documented() for line in code_in(value.__doc__) if len(line) > 80]
    assert not wide


@pytest.mark.parametrize("place", [fq.quantize.__doc__, fq.QArray.__doc__, (DOCS / "guide" / "schemes.md").read_text()])
def test_words_of_other_libraries_are_explained(place):
    """torch's affine is "asymmetric" here, and "affine" is MLX's."""
    assert "per_channel_affine" in place
    assert "MLX" in place


@pytest.mark.parametrize("name", ["onnx", *(name for name in ("dask", "zarr") if importlib.util.find_spec(name))])
def test_the_reference_has_every_name_of_interop(name):
    module = importlib.import_module(f"fastq.interop.{name}")
    reference = (DOCS / "reference" / "interop.md").read_text()
    told = re.findall(rf"^\.\. auto(?:function|class):: fastq\.interop\.{name}\.(\w+)", reference, re.MULTILINE)
    assert sorted(told) == sorted(module.__all__)
    assert all(">>> " in getattr(module, public).__doc__ for public in told)


def test_the_reference_has_every_member_of_quantized_arrays():
    """In the class's own table of attributes, or as a member with a docstring of its own."""
    members = re.search(r"fastq\.QArray\(\)\n   :members: (.*)", (DOCS / "reference" / "arrays.md").read_text())[1]
    listed = re.findall(r"^([a-z_, ]+) : ", inspect.getdoc(fq.QArray), re.MULTILINE)
    told = set(members.split(", ")) | {name for line in listed for name in line.split(", ")}
    of_the_engine = set(dir(Operand)) - {"shape", "dtype", "activations"}
    assert {name for name in dir(fq.QArray) if not name.startswith("_")} - of_the_engine == told
