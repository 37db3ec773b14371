"""Contenders: answers are checked before anything is timed, and peers that are not there do not matter."""

from __future__ import annotations

import pytest

from fastq.bench import contest, peers, problem


def off_by_one(library):
    """A contender whose answer is wrong."""
    right = contest.INT8_CODES.prepare

    def prepare(task, threads):
        run = right(task, threads).run
        return contest.Ready(lambda: run() + 1)

    return contest.INT8_CODES._replace(name="off by one", prepare=prepare, library=library)


@pytest.mark.exhaustive
def test_all_of_ours_pass_their_checks():
    task = problem.Problem(3, 64, 32)
    ours = (contest.MATMUL, contest.INT8_CODES, *contest.WEIGHTS.values(), contest.INT8, contest.TWO)
    for isa in contest.native_isas():
        entries, notes = contest.enter(task, ours, isa=isa, threads=1)
        assert len(entries) == len(ours)
        assert notes == []


def test_facts_for_the_report():
    ((numpy, int3), _) = contest.enter(problem.Problem(2, 64, 32), (contest.MATMUL, contest.WEIGHTS[3]), threads=1)
    assert numpy.facts["baseline"]
    assert numpy.facts["isa"] is None
    assert not int3.facts["baseline"]
    assert int3.facts["isa"] == contest.native_isas()[0]
    assert int3.facts["operations"] == 2 * 2 * 64 * 32
    assert int3.facts["nbytes"] == 4 * 2 * 64 + 64 * 32 * 3 / 8
    assert int3.facts["pack"] > 0


def test_a_wrong_answer_of_ours_is_an_error():
    with pytest.raises(AssertionError, match="96 of 96 sums are wrong"):
        contest.enter(problem.Problem(3, 64, 32), [off_by_one(None)])


def test_a_peer_with_a_wrong_answer_takes_no_part():
    task = problem.Problem(3, 64, 32)
    within = contest.MATMUL.within
    wrong = off_by_one("torch")._replace(within=within)
    entries, notes = contest.enter(task, [wrong, contest.MATMUL])
    assert [entry.name for entry in entries] == [contest.MATMUL.name]
    assert notes == ["off by one takes no part in 3x64x32: 96 of 96 sums are wrong"]


def test_peers_that_are_not_installed_are_named_and_left_out(monkeypatch):
    def nothing(package):
        raise peers.PackageNotFoundError

    monkeypatch.setattr(peers, "version", nothing)
    peers._version.cache_clear()
    assert peers.installed() == dict.fromkeys(peers.LIBRARIES, "not installed")
    assert peers.peers() == []
    peers._version.cache_clear()


def test_a_library_needs_all_its_packages(monkeypatch):
    def all_but_onnx(package):
        if package == "onnx":
            raise peers.PackageNotFoundError
        return "1"

    monkeypatch.setattr(peers, "version", all_but_onnx)
    peers._version.cache_clear()
    assert peers.installed() == {"onnxruntime": "not installed", "torch": "1", "numkong": "1", "mkl": "1"}
    peers._version.cache_clear()


def test_the_answers_of_installed_peers():
    rivals = peers.peers()
    if not rivals:
        pytest.skip("no peer is installed")
    for m in (1, 48):
        entries, notes = contest.enter(problem.Problem(m, 128, 64), rivals, threads=1)
        # Some saturate on CPUs without VNNI, and say so here; nothing else may go wrong.
        assert all("wrong" in note or "SQNR" in note for note in notes)
        assert len(entries) + len(notes) == len(rivals)
