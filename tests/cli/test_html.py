"""--html: where reports can be written, and which array they draw."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq.cli import html


def test_the_option():
    parser = argparse.ArgumentParser()
    html.add(parser)
    assert parser.parse_args([]).html is None
    assert parser.parse_args(["--html", "x.html"]).html == "x.html"


def test_where_a_report_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for fine in (None, "x.html", str(tmp_path / "x.html")):
        html.check(fine)
    with pytest.raises(FileNotFoundError, match="--html needs a folder that is there; got"):
        html.check("no/x.html")
    with pytest.raises(IsADirectoryError, match="--html must be a file"):
        html.check(str(tmp_path))


def test_a_report_is_there_as_a_whole(tmp_path):
    path = tmp_path / "x.html"
    html.write(str(path), "µ\n")
    assert path.read_bytes() == "µ\n".encode()
    with pytest.raises(UnicodeEncodeError):
        html.write(str(path), "half\ud800")
    assert path.read_bytes() == "µ\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def found(model, forms=((3, None),)):
    rows = [
        SimpleNamespace(name=n, nbytes=a.nbytes, form="3 bits" * isinstance(a, fq.QArray), sizes={(3, None): 9})
        for n, a in model.items()
    ]
    return SimpleNamespace(rows=rows, forms=forms)


def test_the_largest_array_with_codes_is_drawn(rng):
    model = {
        "small": rng.standard_normal((4, 4)),
        "nan": np.full((300, 300), np.nan),
        "middle": rng.standard_normal((40, 40)),
        "integers": np.arange(9000),
    }
    name, drawn = html.about(model, found(model), 3)
    assert (name, drawn.seen, len(drawn.levels)) == ("middle", 1600, 8)
    model["codes"] = fq.quantize(rng.standard_normal((200, 200)), 2)
    assert html.about(model, found(model))[0] == "codes"
    assert html.about({}, found({})) is None
    assert html.about({"nan": model["nan"]}, found({"nan": model["nan"]}), 3, axis=7) is None
