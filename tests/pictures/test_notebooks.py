"""What notebooks show of arrays, errors and choices: a small picture, at a bounded cost, and never an error."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from math import inf, nan

import numpy as np
import pytest

import fastq as fq
from fastq.accuracy.error import Error
from fastq.pictures import compact, distribution
from fastq.pictures.bench_page import bench_card

from . import examples
from .parsing import Page, pictures


def shown(value):
    """What a notebook shows, read back."""
    text = value._repr_html_()
    assert isinstance(text, str)
    Page(text)
    assert pictures(text)
    assert "nan" not in text.lower().replace("nanda", "")
    assert len(text) < 20_000
    return text


def one_line(value):
    assert "\n" not in repr(value)
    assert len(repr(value)) < 200


@pytest.fixture
def arrays(rng):
    w = rng.standard_normal((256, 64)).astype(np.float32)
    forms = [{"bits": 3, "axis": 0, "group_size": 64}, {"bits": 8}, {"bits": 5, "scheme": "affine", "axis": 1},
             {"bits": 4, "scheme": "asymmetric", "axis": 0, "group_size": 32}, {"bits": 2, "axis": 0, "rotate": True},
             {"bits": 4, "axis": 0, "balance": np.full(256, 2.0)}]  # fmt: skip
    found = [fq.quantize(w, **form) for form in forms]
    found += [q.T for q in found] + [fq.quantize(w, 6, axis=0).prepack()]
    stacked = fq.quantize(rng.standard_normal((2, 3, 40, 20)), 4, axis=-1)
    others = [fq.quantize(x) for x in (1.5, [1.0, 2.0], np.zeros((0, 3)), np.zeros((3, 0, 2)))]
    return [*found, stacked, stacked[1], *others, fq.quantize(w)[::-1], fq.quantize(w, 3).astype(np.float64)]


def test_quantized_arrays(arrays):
    for q in arrays:
        text = shown(q)
        assert f"QArray {q.shape}" in text
        assert f"{q.bits} bits, {q.scheme}" in text
        assert ("elements, by code" in text) == (q.size > 0)
        one_line(q)


def test_a_quantized_array_stays_as_it_is(arrays):
    for q in arrays:
        form, cache = q._store._form, dict(q._cache)
        q._repr_html_()
        assert q._store._form is form
        assert q._cache == cache


def test_sizes_are_those_of_the_repr(rng):
    q = fq.quantize(rng.standard_normal((1024, 64)).astype(np.float32), 3, axis=0)
    for size in ("64.2 KiB", "24.5 KiB", "256.0 KiB"):
        assert size in shown(q)
    assert "24.5 KiB once packed" in repr(q)


@pytest.mark.parametrize("packed", [False, True])
def test_large_arrays_cost_little(tmp_path, packed):
    """A memory map of half a GiB with a hole: neither its numbers nor many of its pages are read."""
    k, n = 1 << 13, 1 << 16
    if packed:
        fq.quantize(np.ones((k, 16), np.float32), 8, axis=0).prepack().save(tmp_path / "small")
        q = fq.load(tmp_path / "small")
        n = 16
    else:
        codes = np.memmap(tmp_path / "codes", np.int8, "w+", shape=(k, n))
        q = fq.from_parts(codes, np.ones((1, n), np.float32), bits=8, axis=0)
    shown(q)
    tracemalloc.start()
    shown(q)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20, peak
    assert q.size == k * n


def test_errors(rng):
    x = rng.standard_normal((30, 40))
    q = fq.quantize(x, 4, axis=0)
    for error in (fq.error(x, q), fq.error(x, q, axis=0), fq.error(x, q, axis=0, group_size=8), fq.error(x, x),
                  fq.error(x, x, axis=1), fq.error([], []), fq.error(x[:, :0], x[:, :0], axis=0),
                  fq.error(x, -x), fq.error(x * 1e200, x), fq.error(np.abs(x), fq.quantize(np.abs(x), 2))):  # fmt: skip
        text = error._repr_html_()
        Page(text)
        assert text.startswith('<div class="fq">')
        one_line(error)
    assert "half of the symmetric codes are unused" in text
    assert f"{fq.error(x, q).sqnr_db:.1f} dB" in shown(fq.error(x, q))


@pytest.mark.parametrize("value", [nan, inf, -inf, 0.0, 1e-320, 1e308])
def test_odd_errors(value):
    Page(Error(*[value] * 6)._repr_html_())
    Page(Error(*[np.full(3, value)] * 6)._repr_html_())
    Page(Error(*[np.array([value, 1.0])] * 6)._repr_html_())


def test_errors_of_products(rng):
    x, w = rng.standard_normal((5, 64)), rng.standard_normal((64, 32))
    error = fq.error_matmul(x, w, fq.quantize(w, 3, axis=0))
    text = shown(error)
    assert all(f">{part}<" in text for part in ("weights", "activations", "rounding", "total"))
    one_line(error)
    exact = fq.error_matmul(np.eye(2), np.eye(2), fq.quantize(np.eye(2)))
    assert "exact" in shown(exact)


def test_choices(rng):
    w = rng.standard_normal((256, 64))
    for choice in (fq.choose_bits(w, budget=4.2), fq.choose_bits(w, sqnr=18)):
        text = shown(choice)
        assert f"{choice.bits} bits" in text
        assert (choice.bits, choice.group_size, choice.bits_per_weight, choice.sqnr_db) in choice.tried
        assert text.count("<title>") == len(choice.tried) + 1
        one_line(choice)
    Page(fq.Choice(3, None, 3.1, 15.0)._repr_html_())  # of which nothing is known but itself
    assert fq.Choice(3, None, 3.1, 15.0) == fq.Choice(3, None, 3.1, 15.0, tried=((3, None, 3.1, 15.0),))


def test_benchmarks():
    text = bench_card(examples.result(busy="load 22 on 2 cores"))
    Page(text)
    assert "BUSY: load 22 on 2 cores" in text
    assert text.count('class="bars"') == len(examples.TIMES)
    assert "BUSY" not in bench_card(examples.result())


def test_what_cannot_be_drawn_is_left_to_the_repr(monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(distribution, "of_codes", broken)
    assert fq.quantize([1.0])._repr_html_() is None
    monkeypatch.setattr(compact, "card", broken)
    assert fq.error([1.0], [1.0])._repr_html_() is None
    assert fq.Choice(3, None, 3.1, 15.0)._repr_html_() is None


def test_pictures_are_imported_when_one_is_wanted():
    code = """
import sys, fastq as fq
q = fq.quantize([1.0, 2.0])
repr(q), repr(fq.error([1.0], [2.0]))
print(sorted(m for m in sys.modules if m.startswith("fastq.pictures")))
q._repr_html_()
print("fastq.pictures.svg" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_the_style_stays_within_the_cell(rng):
    """Every rule is about what is inside the form, so that it changes nothing else of a notebook."""
    text = shown(fq.quantize(rng.standard_normal(9)))
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    selectors = [s for rule in style.split("}")[:-1] for s in rule.split("{")[0].split(",")]
    assert len(selectors) > 20
    assert all(s.startswith(".fq") for s in selectors)
