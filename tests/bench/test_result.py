"""Results: what follows from rows, and their JSON."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from fastq.bench.result import SCHEMA, BenchResult, BenchRow
from fastq.bench.run import by_group
from tests.bench.made import MACHINE, numpy, ours, result


def test_what_follows_from_rows():
    baseline, found = result().rows
    assert (baseline.library, baseline.times_faster, baseline.roof, baseline.share) == ("numpy", 1, None, None)
    assert (found.shape, found.size) == ((8, 16, 32), "8x16x32")
    assert (found.library, found.bits, found.group) == ("fastq", 8, None)
    assert (found.best, found.median, found.noise) == (0.002, 0.002, 0)
    assert (found.times_faster, found.usually_faster) == (pytest.approx(5), pytest.approx(5))
    assert (found.roof, found.share, found.sqnr_db) == ("compute", pytest.approx(0.5), 39.5)
    assert not found.unsteady
    assert not found.busy


def test_one_bad_round_of_numpy_decides_nothing():
    """A block of NumPy's that was disturbed from its first call to its last once made fastq 1,111 times faster."""
    outlier = numpy(rounds=(2.2, 0.010, 0.010, 0.010), median=0.010, drift=2.19)
    _, found = result(outlier, ours()).rows
    assert (found.times_faster, found.usually_faster) == (pytest.approx(5), pytest.approx(5))
    assert found.unsteady  # and is told
    assert repr(found) == "BenchRow(8x16x32 int8 weights: 2 ms, 5? times faster than NumPy, 50% of compute, 39.5 dB)"


@pytest.mark.parametrize(
    ("facts", "unsteady"),
    [
        ({}, False),
        ({"median": 0.0025}, False),
        ({"median": 0.0027}, True),
        ({"drift": 0.0005}, False),
        ({"drift": 0.0007}, True),
        ({"busy": "load 22 on 2 cores"}, True),
    ],
)
def test_what_is_marked(facts, unsteady):
    _, found = result(numpy(), ours(**facts)).rows
    assert found.unsteady == unsteady
    assert found.mark == "?" * unsteady
    assert found.busy == ("busy" in facts)


def test_only_products_on_all_threads_are_kept():
    """Contests with a shape in their name alone, and with a baseline."""
    from fastq.bench.run import Run

    one = numpy()
    groups = {"8x16x32": [one, ours()], "8x16x32, one thread": [one, ours()], "start": [ours(shape=())]}
    assert len(BenchResult.of_run(Run({}, groups), MACHINE, "").rows) == 2
    assert not BenchResult.of_run(Run({}, {"8x16x32": [ours()]}), MACHINE, "").rows


def test_the_baseline_comes_first():
    assert [row.name for row in by_group([ours(), numpy()])["8x16x32"]] == ["float32 np.matmul", "int8 weights"]


def test_json():
    """Programs read it: a field that changes its meaning or goes away needs a new number in the schema."""
    data = json.loads(result().json())
    assert next(iter(data)) == "schema"
    assert data["schema"] == SCHEMA == "fastq-bench/1"
    assert set(data) == {"schema", "machine", "rows", "roofs", "notes", "taken", "source"}
    assert set(data["rows"][1]) == {
        "shape", "name", "library", "kind", "bits", "group", "best", "median", "noise", "times_faster",
        "usually_faster", "roof", "share", "sqnr_db", "operations", "nbytes", "unsteady", "busy",
    }  # fmt: skip
    assert set(data["machine"]) == {
        "cpu", "system", "isa", "isas", "cores", "threads", "blas", "versions", "load", "busy",
    }  # fmt: skip
    assert data["rows"][1]["shape"] == [8, 16, 32]


def test_json_comes_back():
    there = result()
    assert BenchResult.of_json(there.json()) == there
    assert BenchResult.of_json(there.json().replace('"source"', '"of a later version": 1, "source"')) == there


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": "fastq-bench/2"}', "{"])
def test_json_of_something_else(text):
    with pytest.raises(ValueError, match=r"a result must have the schema|Expecting"):
        BenchResult.of_json(text)


def test_repr_is_one_line():
    assert repr(result()) == "BenchResult(A CPU (R), avx2, 2 threads: 1 product, 2 rows)"


def test_every_field_is_documented():
    for kind in (BenchRow, BenchResult, type(MACHINE)):
        told = kind.__doc__
        assert all(one.name in told for one in fields(kind)), kind
