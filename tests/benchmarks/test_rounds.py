"""Contests: who runs when, how often, and in what."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@pytest.fixture
def pace(rounds):
    return rounds.Pace(rounds=2, rest=0.0, seconds=0.0, least=3, dropped=2)


def test_contenders_take_turns_in_blocks(rounds, pace):
    turns = []
    entries = [rounds.Entry(name, lambda name=name: turns.append(name)) for name in "ab"]
    rows = rounds.hold("g", entries, pace)
    assert "".join(turns) == ("a" * 5 + "b" * 5) * 2
    assert [(row["group"], row["name"]) for row in rows] == [("g", "a"), ("g", "b")]
    assert all(0 <= row["best"] <= row["median"] for row in rows)


def test_first_calls_do_not_count(rounds, pace, monkeypatch):
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    clock = [0.0]
    lengths = iter([100, 50, 3, 1, 2] + [100, 50, 3, 4, 2])

    def run():
        clock[0] += next(lengths)

    (row,) = rounds.hold("g", [rounds.Entry("a", run)], pace)
    assert (row["best"], row["median"], row["drift"]) == (1, 2.5, 1)


@pytest.mark.parametrize(("changes", "calls"), [({"seconds": 5.0}, 5), ({"seconds": 1e9, "most": 7}, 7), ({}, 3)])
def test_how_long_a_block_is(rounds, pace, monkeypatch, changes, calls):
    clock = [0.0]
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    count = []

    def run():
        clock[0] += 1.0
        count.append(clock)

    rounds.hold("g", [rounds.Entry("a", run)], pace._replace(rounds=1, **changes))
    assert len(count) == pace.dropped + calls


def test_fresh_arguments_surroundings_and_fewer_rounds(rounds, pace):
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
