"""Who took the cores: this process, others, or nobody."""

from __future__ import annotations

import os

import pytest

from fastq.bench import busy


def counted(monkeypatch, *times):
    """Let the system have counted this at each look: working, own and passed seconds."""
    looks = iter(times)
    monkeypatch.setattr(busy, "_taken", lambda: next(looks))
    monkeypatch.setattr(busy, "_cores", lambda: {0, 1})


def loaded(monkeypatch, average, cores=2):
    monkeypatch.setattr(os, "getloadavg", lambda: (average, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)


NOTHING = busy._Time(100.0, 10.0, 50.0)


@pytest.mark.parametrize(
    ("working", "own", "threads", "words"),
    [
        (2.0, 2.0, 2, ""),  # both cores are ours
        (2.0, 1.0, 2, "other programs take 1.0 of 2 cores"),
        (0.2, 0.0, 2, ""),  # a tenth of a core is what a system does by itself
        (0.4, 0.0, 2, "other programs take 0.4 of 2 cores"),
        (1.9, 1.0, 1, ""),  # one thread has the other core
        (2.0, 0.7, 1, "other programs take 1.3 of 2 cores"),
        (0.0, 0.1, 2, ""),  # the two are not counted at the same instant
    ],
)
def test_what_others_take(monkeypatch, working, own, threads, words):
    loaded(monkeypatch, 0.1)
    counted(monkeypatch, NOTHING, busy._Time(100.0 + working, 10.0 + own, 51.0))
    assert busy.Watch().busy(threads) == words


def test_a_high_load_has_the_word(monkeypatch):
    loaded(monkeypatch, 22.0)
    counted(monkeypatch, NOTHING, busy._Time(102.0, 10.5, 51.0))
    assert busy.Watch().busy(2) == "load 22 on 2 cores"


def test_the_load_of_a_minute_ago_is_no_matter(monkeypatch):
    loaded(monkeypatch, 22.0)
    counted(monkeypatch, NOTHING, busy._Time(102.0, 12.0, 51.0))
    assert busy.Watch().busy(2) == ""


@pytest.mark.parametrize(("average", "words"), [(22.0, "load 22 on 2 cores"), (3.0, ""), (None, "")])
def test_where_the_system_counts_nothing(monkeypatch, average, words):
    """Then the load has to do; contests alone bring it to the number of cores and above."""
    loaded(monkeypatch, average)
    if average is None:
        monkeypatch.delattr(os, "getloadavg")
    counted(monkeypatch, None, None)
    watch = busy.Watch()
    assert watch.others() is None
    counted(monkeypatch, None)
    assert watch.busy(2) == words


def test_this_system():
    watch = busy.Watch()
    others = watch.others()
    assert others is None or others >= 0
    assert isinstance(watch.busy(1), str)
    assert str(busy.load()).startswith("load ")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows has no clock ticks")
def test_what_is_read(monkeypatch, tmp_path):
    """Cores of this process alone. Idle cores and those that wait for a disk do not work; all other time is work."""
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  900 900 900 900 900 900 900 900 0 0\n"
        "cpu0 100 10 30 1000 200 1 2 7 50 0\n"
        "cpu1 900 900 900 900 900 900 900 900 0 0\n"
        "cpu2 200 0 0 1150 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    monkeypatch.setattr(busy, "STAT", str(stat))
    monkeypatch.setattr(busy, "_cores", lambda: {0, 2})
    ticks = os.sysconf("SC_CLK_TCK")
    found = busy._taken()
    assert found.working == pytest.approx((150 + 200) / ticks)
    assert found.passed == pytest.approx(1350 / ticks)
    assert found.own > 0
    monkeypatch.setattr(busy, "STAT", str(tmp_path / "none"))
    assert busy._taken() is None


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux alone tells")
def test_linux_counts_this_process():
    """A tenth of a second of work is work of this process, and of a core."""
    before = busy._taken()
    while os.times().user - before.own < 0.1 and busy._taken().passed - before.passed < 30:
        sum(range(10_000))
    after = busy._taken()
    assert after.own - before.own > 0.05
    assert after.working - before.working > 0.05
    assert after.passed > before.passed
