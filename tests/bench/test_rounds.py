"""Contests: who runs when, how often, and in what."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from fastq.bench import rounds


@pytest.fixture
def pace():
    return rounds.Pace(rounds=2, rest=0.0, seconds=0.0, least=3, dropped=2)


def test_contenders_take_turns_in_blocks(pace):
    turns = []
    entries = [rounds.Entry(name, lambda name=name: turns.append(name)) for name in "ab"]
    rows = rounds.hold("g", entries, pace)
    assert "".join(turns) == ("a" * 5 + "b" * 5) * 2
    assert [(row["group"], row["name"]) for row in rows] == [("g", "a"), ("g", "b")]
    assert all(0 <= row["best"] <= row["median"] for row in rows)


def test_first_calls_do_not_count(pace, monkeypatch):
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    clock = [0.0]
    lengths = iter([100, 50, 3, 1, 2] + [100, 50, 3, 4, 2])

    def run():
        clock[0] += next(lengths)

    (row,) = rounds.hold("g", [rounds.Entry("a", run)], pace)
    assert (row["best"], row["median"], row["drift"]) == (1, 2.5, 1)


@pytest.mark.parametrize(("changes", "calls"), [({"seconds": 5.0}, 5), ({"seconds": 1e9, "most": 7}, 7), ({}, 3)])
def test_how_long_a_block_is(pace, monkeypatch, changes, calls):
    clock = [0.0]
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    count = []

    def run():
        clock[0] += 1.0
        count.append(clock)

    rounds.hold("g", [rounds.Entry("a", run)], pace._replace(rounds=1, **changes))
    assert len(count) == pace.dropped + calls


@pytest.mark.parametrize(("limit", "held"), [(100.0, 4), (35.0, 3), (29.0, 2), (0.0, 2)])
def test_rounds_end_before_the_limit(pace, monkeypatch, limit, held):
    """The next round would take as long as those before; without a second one, nobody knows whether they agree."""
    clock, count = [0.0], []
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])

    def run():
        clock[0] += 2.0
        count.append(clock)

    (row,) = rounds.hold("g", [rounds.Entry("a", run)], pace._replace(rounds=4, limit=limit))
    assert len(count) == held * 5
    assert len(row["rounds"]) == held


def test_what_others_took_meanwhile(pace, monkeypatch):
    """Of threads, as many count as the widest contender has."""
    asked = []
    monkeypatch.setattr(rounds.Watch, "busy", lambda watch, threads: asked.append(threads) or "load 22 on 2 cores")
    entries = [rounds.Entry(name, lambda: None, {"threads": threads}) for name, threads in (("a", 1), ("b", 7))]
    assert [row["busy"] for row in rounds.hold("g", entries, pace)] == ["load 22 on 2 cores"] * 2
    assert asked == [7]


def test_fresh_arguments_surroundings_and_fewer_rounds(pace):
    seen = []
    numbers = iter(range(100))

    @contextmanager
    def within():
        seen.append("in")
        yield
        seen.append("out")

    entry = rounds.Entry("a", seen.append, {"threads": 1}, within, lambda: next(numbers), rounds=1)
    (row,) = rounds.hold("g", [entry], pace)
    assert seen == ["in", 0, 1, 2, 3, 4, "out"]
    assert row["threads"] == 1
