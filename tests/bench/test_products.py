"""The benchmark of products, in small: who takes part, what is checked, how long it takes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq.bench import contest, peers, problem, products, rounds
from fastq.bench.products import Wanted
from fastq.bench.roofs import Roofs
from fastq.bench.rounds import Pace
from fastq.bench.shapes import Shape
from fastq.machine import pool

SMALL = Shape(3, 64, 32)
SHORT = Pace(rounds=2, rest=0.0, seconds=0.0, least=2, dropped=1)
ROOFS = {"threads": 1, "bandwidth": {"one": 1e9, "all": 1e9}, "peaks": {}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(products, "LOOK", 0.0)

    def look(roofs):
        roofs.known.update(ROOFS)

    monkeypatch.setattr(Roofs, "look", look)


@pytest.fixture
def alone(monkeypatch):
    """No other library is installed."""
    monkeypatch.setattr(products, "peers", list)


def names(result):
    return [row.name for row in result.rows]


def test_no_peer_is_installed(alone):
    told, began = [], []
    wanted = Wanted(bits=(8, 4, 3, 4), group=16)
    result = products.bench([SMALL, Shape(1, 64, 16), SMALL], wanted, began.append, lambda *a: told.append(a), SHORT)
    ours = ["int8 weights", "int4 weights, group 16", "int3 weights, group 16"]
    assert names(result) == ["float32 np.matmul", *ours] * 2
    assert list(result.by_shape()) == ["3x64x32", "1x64x16"]
    assert began == [result.machine]
    assert [row for rows, _ in told for row in rows] == list(result.rows)
    assert [(row.bits, row.group) for row in result.rows[:4]] == [(32, None), (8, None), (4, 16), (3, 16)]
    decibels = [row.sqnr_db for row in result.rows[:4]]
    assert decibels == sorted(decibels, reverse=True)
    assert decibels[0] > 100
    assert 30 < decibels[1] < 50
    assert result.roofs == ROOFS


def test_numbers_of_threads(alone, monkeypatch):
    seen = []
    monkeypatch.setattr(products, "_contest", lambda *a: ([seen.append((pool.num_threads(), a[2]))] * 0, []))
    products.bench([SMALL], Wanted(threads=1))
    assert seen == [(1, 1)]


def test_who_takes_part(monkeypatch):
    monkeypatch.setattr(products, "peers", lambda: list(peers.PEERS))
    kinds = [c.kind for c in Wanted(bits=(8,)).contenders()]
    assert set(kinds) == {contest.FLOAT32, contest.FLOATS}
    assert {c.kind for c in Wanted(bits=(3,)).contenders()} == {contest.FLOAT32, contest.LOW_BITS}
    with_codes = Wanted(bits=(8,), codes=True).contenders()
    assert {c.kind for c in with_codes} == {contest.FLOAT32, contest.FLOATS, contest.CODES}
    assert "MKL gemm_s8u8s32_compute" in [c.name for c in with_codes]


def peer(prepare, name="a peer"):
    return contest.WEIGHTS[8]._replace(name=name, prepare=prepare, library="torch", within=contest.MATMUL.within)


def raising(task, threads):
    raise RuntimeError("no kernel\nfor this CPU")


def wrong(task, threads):
    return contest.Ready(lambda: -(task.x @ task.w))


def right(task, threads):
    return contest.Ready(lambda: task.x @ task.weights(8)[0])


def test_peers_that_raise_and_peers_that_are_wrong(monkeypatch):
    rivals = [peer(raising, "broken"), peer(wrong, "wrong"), peer(right, "right")]
    monkeypatch.setattr(products, "peers", lambda: rivals)
    result = products.bench([SMALL], Wanted(bits=(8,)), pace=SHORT)
    assert names(result) == ["float32 np.matmul", "int8 weights", "right"]
    first, second = result.notes[:2]
    assert first == "broken takes no part in 3x64x32: RuntimeError: no kernel for this CPU"
    assert second.startswith("wrong takes no part in 3x64x32: ")
    assert "bound" in second


def test_a_peer_that_is_too_slow(monkeypatch):
    monkeypatch.setattr(products, "peers", lambda: [peer(right)])
    monkeypatch.setattr(products, "ALWAYS", 10.0)  # short calls take part, whatever the time is
    assert "a peer" in names(products.bench([SMALL], Wanted(bits=(8,), seconds=1e-9), pace=SHORT))
    monkeypatch.setattr(products, "ALWAYS", 0.0)
    result = products.bench([SMALL], Wanted(bits=(8,), seconds=1e-9), pace=SHORT)
    assert names(result) == ["float32 np.matmul", "int8 weights"]
    assert result.notes[0].startswith("a peer takes no part in 3x64x32: a call takes ")
    assert result.notes[0].endswith(" s, for which the time is too short")


def test_our_own_mistakes_are_errors(alone, monkeypatch):
    monkeypatch.setattr(fq.QArray, "with_activations", lambda q, way: q)
    monkeypatch.setattr(contest, "weights", None)
    off = contest.WEIGHTS[8]._replace(prepare=wrong)
    with pytest.raises(problem.WrongAnswerError, match=r"elements are beyond their bound"):
        contest.enter(problem.Problem(*SMALL), [off])


def test_an_answer_within_decibels_and_beyond_its_bound():
    """One element of a thousand that is wrong is no matter to a mean, and is to the bound."""
    task = problem.Problem(16, 64, 64)
    q = task.weights(8)[0]
    y = task.x @ q
    task.check_bound(q, y)
    y[0, 0] += 1
    contest.close(task.weights(8)[2], y, 25)
    with pytest.raises(problem.WrongAnswerError, match="1 of 256 elements are beyond their bound"):
        task.check_bound(q, y)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 1, 3), (5, 16, 1)])
def test_the_smallest_products(alone, shape):
    result = products.bench([Shape(*shape)], Wanted(bits=(8, 2)), pace=SHORT)
    assert len(result.rows) == 3
    assert result.json()  # no infinity, no NaN


def test_a_busy_machine_is_told(alone, monkeypatch):
    monkeypatch.setattr(products.Watch, "busy", lambda watch, threads: "load 22 on 2 cores")
    result = products.bench([SMALL], Wanted(bits=(8,)), pace=SHORT)
    assert result.machine.busy == "load 22 on 2 cores"
    assert all(row.unsteady and row.busy for row in result.rows)
    assert "BUSY: load 22 on 2 cores" in repr(result)


def test_a_machine_that_becomes_busy(alone, monkeypatch):
    words = iter(["", "load 22 on 2 cores"])
    monkeypatch.setattr(products.Watch, "busy", lambda watch, threads: next(words))
    result = products.bench([SMALL], Wanted(bits=(8,)), pace=SHORT)
    assert result.machine.busy == ""
    assert result.notes == ("the machine became busy: 2 of 2 figures are marked",)


def test_the_time_is_shared(alone, monkeypatch):
    """What one shape leaves of its share is there for the others."""
    clock = [0.0]
    monkeypatch.setattr(products, "time", SimpleNamespace(perf_counter=lambda: clock[0], sleep=lambda seconds: None))
    limits = []

    def hold(group, entries, pace):
        limits.append(pace.limit)
        clock[0] += 10
        return rounds.hold(group, entries, SHORT)

    monkeypatch.setattr(products, "hold", hold)
    products.bench([Shape(1, 16, n) for n in (16, 32, 48)], Wanted(bits=(8,), seconds=60), pace=SHORT)
    assert limits == [20, 25, 40]


def test_blocks_of_32_do_not_fit():
    """What MatMulNBits needs, said in a line."""
    with pytest.raises(ValueError, match="K must be a multiple of 32"):
        peers._blockwise(problem.Problem(1, 48, 2))


def test_more_than_the_machine_has_is_told_before():
    with pytest.raises(MemoryError, match=r"^1000000x1000000x1000000 takes about .* GB; this machine has .* GB$"):
        products.check_memory([SMALL, Shape(*[10**6] * 3)])
    products.check_memory([SMALL])


@pytest.mark.parametrize("group", [1, 7, 100])
def test_groups_of_any_size(alone, group):
    assert len(products.bench([SMALL], Wanted(bits=(4,), group=group), pace=SHORT).rows) == 2


def test_float64_in_blocks(monkeypatch):
    monkeypatch.setattr(problem, "BLOCK", 100)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 30)), rng.standard_normal((30, 17))
    assert np.allclose(problem.exact(a, b, np.float64), a @ b, rtol=1e-14, atol=1e-14)


def test_some_rows_of_a_large_product(monkeypatch):
    monkeypatch.setattr(problem, "COMPARED", 100)
    task = problem.Problem(50, 16, 32)
    assert task.rows.tolist() == [0, 24, 49]
    assert task.true_rows.shape == (3, 32)
    assert task.sqnr(task.float_product) > 100
