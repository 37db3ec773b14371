"""A few mutated files of each format; `python -m tests.formats.mutations FORMAT --count 10000` makes many."""

from __future__ import annotations

import pytest

import fastq as fq
from fastq.formats import safetensors

from . import mutations
from .samples import SAMPLES


@pytest.mark.parametrize("make", [make for makes in SAMPLES.values() for make in makes])
def test_samples_are_right(make, tmp_path):
    """Otherwise the mutations would show nothing."""
    opened = fq.open(make(tmp_path))
    assert len(opened) > 1
    for name in opened:
        assert opened[name].shape == opened.entry(name).shape


@pytest.mark.parametrize("form", SAMPLES)
def test_mutated_files_are_refused_or_read(form):
    outcomes, findings = mutations.run(form, 200)
    assert not findings
    assert outcomes["read"] > 2
    assert outcomes["refused at opening"] > 2


@pytest.mark.parametrize("mistake", ["_check_places", "_distinct"])
def test_mistakes_are_found(mistake, monkeypatch):
    """The test above would pass if nothing were found ever."""
    planted = {
        "_check_places": lambda *_: None,
        "_distinct": lambda pairs: {name: field["dtype"] for name, field in pairs},
    }
    monkeypatch.setattr(safetensors, mistake, planted[mistake])
    assert mutations.run("safetensors", 200)[1]
