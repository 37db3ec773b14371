"""Rows, roofs and figures of a made run."""

from __future__ import annotations

import json

import pytest

from fastq.bench import contest, peers
from fastq.bench.run import Roof
from tests.benchmarks.made import ROWS, data, row


@pytest.fixture
def load(results, tmp_path):
    def load(*args, **facts):
        path = tmp_path / "run.json"
        path.write_text(json.dumps(data(*args, **facts)))
        return results.load(path)

    return load


def test_the_baseline_comes_first(load):
    names = [r.title for r in load().groups["10x10x10"]]
    assert names[:3] == ["float32 np.matmul", "int8 weights, avx512vnni", "int8 weights, avx2"]


def test_the_nearer_roof_takes_longer(load):
    product = {"kind": "floats", "operations": 4 * 10**9, "nbytes": 1e6}
    rows = [
        row("g", "far from memory", 1, 1, isa="avx512vnni", **product),  # 1 ms to multiply, 0.5 to read
        row("g", "close to memory", 1, 1, isa="avx512vnni", **product | {"nbytes": 1e9}),
        row("g", "one thread", 1, 1, isa="avx2", threads=1, **product),
        row("g", "narrow", 1, 1, isa="avx2", bits=3, **product),
        row("g", "a peer", 1, 1, library="torch", **product),
        row("g", "NumPy", 1, 1, library="numpy", **product),
        row("g", "no width like it", 1, 1, isa="avx512vnni", bits=5, **product),
    ]
    run = load(rows)
    assert [run.roof(found) for found in run.groups["g"]] == [
        Roof("compute", 0.001),
        Roof("reading", 0.5),
        Roof("compute", 0.008),
        Roof("compute", 0.002),
        Roof("compute", 0.001),
        None,
        None,
    ]
    assert load(rows, roofs={}).roof(run.groups["g"][0]) is None


def test_the_fastest_peer_is_of_the_same_kind(load):
    assert load().fastest_peer("10x10x10", "int8 weights").name == "quick"
    with pytest.raises(KeyError, match="10x10x10: a peer of int8 weights"):
        load(ROWS[:3]).fastest_peer("10x10x10", "int8 weights")
    with pytest.raises(KeyError, match="10x10x10: nobody"):
        load().fastest_peer("10x10x10", "nobody")


def test_figures_that_were_not_measured_are_left_out(figures, load):
    assert figures.figures(load()) == ""
    lines = figures.figures(load(measures={"memory": 3 << 20})).splitlines()
    assert len(lines) == 3
    assert "| 3.0 MiB |  | 8.0 MiB |" in lines[2]


def test_how_figures_are_found(figures, load):
    run = load(measures={"memory": 3 << 20})
    shape, ours = "10x10x10", "int8 weights"
    assert figures.faster(shape, ours, "float32 np.matmul")(run).number == 10
    assert figures.faster_than_peers(shape, ours)(run) == (2, "quick")
    assert figures.share_of_peak(shape, ours)(run) == (0.5, "avx512vnni")
    assert figures.share_of_peak(shape, ours, "avx2")(run) == (0.5, "avx2")
    assert figures.beyond(shape, "slow", "quick")(run).number == pytest.approx(0.001)
    assert figures.measure("memory")(run).number == 3 << 20
    with pytest.raises(KeyError, match="the peaks"):
        figures.share_of_peak(shape, ours)(load(roofs={}))
    beside = [row("g", name, best, median) for name, best, median in
              (("one thread", 1, 2), ("all threads, one core taken", 1, 3))]  # fmt: skip
    assert figures._slowdown("g")(load(beside)).number == 1.5


@pytest.mark.parametrize(
    ("unit", "bar", "stretch", "less", "numbers"),
    [
        ("times", 2, 3, False, {1.9: "**below**", 2: "bar", 3: "stretch"}),
        ("seconds", 2, 1, False, {2.1: "**below**", 2: "bar", 1: "stretch"}),
        ("times", 1.3, None, True, {1.4: "**below**", 1.3: "bar", 0.1: "bar"}),
    ],
)
def test_what_is_reached(figures, unit, bar, stretch, less, numbers):
    figure = figures.Figure("", unit, bar, stretch, figures.measure(""), less)
    assert {number: figure.reached(number) for number in numbers} == numbers


def test_figures_look_for_names_that_contenders_have(figures):
    """Figures name contenders as the report's tables do."""
    assert contest.MATMUL.name == figures.FLOAT32
    ours = [contest.INT8_CODES, contest.WEIGHTS[8], contest.WEIGHTS[4], contest.WEIGHTS[3], contest.TWO]
    assert [c.name for c in ours] == [figures.CODES, figures.INT8, figures.INT4, figures.INT3, figures.TWO]
    assert figures.NBITS in {peer.name for peer in peers.PEERS}
    assert {peer.library for peer in peers.PEERS} == set(peers.LIBRARIES)
