"""The commands take files of every format that fastq opens."""

from __future__ import annotations

import json

import pytest

import fastq as fq
from fastq.cli.main import main

from ..formats.samples import SAMPLES

WAYS = [make for makes in SAMPLES.values() for make in makes]


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_every_format(make, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    path = str(make(tmp_path / "in"))
    model = fq.open(path)
    assert main(["inspect", path, "--bits", "8", "--group", "32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told["arrays"] if row["problem"]] == []
    assert {row["name"]: row["shape"] for row in told["arrays"]} == {n: list(model[n].shape) for n in model}
    assert main(["inspect", path, "--bits", "8", "--dry-run"]) == 0
    capsys.readouterr()
    assert main(["diff", path, path, "--json"]) == 0
    for row in json.loads(capsys.readouterr().out)["arrays"]:
        assert row["exact"] or row["problem"], row
    assert main(["quantize", path, str(tmp_path / "out")]) == 0
    assert sorted(fq.open(tmp_path / "out")) == sorted(model)
