"""The fixed set of results has the hashes that are held, on each instruction set; and the command that tells so."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.errors import IsaError
from fastq.kernels.table import ISAS
from fastq.machine import cpu
from tests.kernels import fixed_cases, fixed_set

HAVE = cpu.available(ISAS)


@pytest.mark.parametrize(
    "isa", [isa if isa in (HAVE[0], "reference") else pytest.param(isa, marks=pytest.mark.exhaustive) for isa in HAVE]
)
def test_every_result_is_the_one_that_is_held(isa):
    found = fixed_set.digests(isa)
    assert fixed_set.differing(found) == []
    assert fixed_set.HELD.read_text().split()[1] == fixed_set.of_all(found)


def test_inputs_are_these():
    """So that a result that differs is not one of other inputs."""
    assert fixed_cases.words(0, (2,)).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
    ]  # published: splitmix64, seed 0
    assert fixed_cases.floats(1, (3,)).tolist() == [-0.4061279296875, 0.335479736328125, 0.223114013671875]
    assert fixed_cases.floats(1, (3,), np.float16).tolist() == [0.03125, -0.1171875, 1.1171875]
    assert fixed_cases.integers(1, (6,), np.int8).tolist() == [-58, 103, 25, -99, -128, 13]


def test_a_hash_tells_bytes_types_shapes_and_parts():
    x = np.array([[0.0, 1.0]], np.float32)
    results = (
        x, -x, x.T, x.astype(np.float64), x.view(np.int32), [x, x], [x, None], np.float32(1),
        fq.quantize(x), fq.quantize(x, 4), fq.quantize(x, scheme="affine"),
    )  # fmt: skip
    assert len({fixed_set.digest(result) for result in results}) == len(results)
    assert fixed_set.digest(x) == fixed_set.digest(x.astype(">f4"))


@pytest.fixture
def few(monkeypatch):
    """A set of two results, the second of which depends on the instruction set."""
    monkeypatch.setattr(
        fixed_set, "cases", lambda: {"same": lambda: np.arange(3), "other": lambda: np.array([cpu.chosen(ISAS)])}
    )


def test_the_command(few, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fixed_set, "HELD", tmp_path / "held.txt")
    assert fixed_set.main(["--write", "reference"]) == 0
    assert "all as held" in capsys.readouterr().out
    assert fixed_set.main([]) == 1
    assert capsys.readouterr().out.count("differs: other") == len(HAVE) - 1
    monkeypatch.setattr(fixed_set, "cases", lambda: {"new": lambda: np.arange(3)})
    assert fixed_set.differing(fixed_set.digests("reference")) == ["same", "other", "new"]
    with pytest.raises(IsaError, match="got sse"):
        fixed_set.main(["sse"])
