"""How many cores a process may use, on machines of all kinds, made up of files."""

from __future__ import annotations

import math
import os

import pytest

from fastq.machine import cores


@pytest.fixture
def machine(tmp_path):
    """The quota on a machine with these control groups: ``machine("0::/a", {"a/cpu.max": "100000 50000"})``."""

    def quota(membership, files):
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (tmp_path / "cgroup").write_text("".join(line + "\n" for line in membership.split()))
        return cores.quota(tmp_path / "cgroup", tmp_path / "mount")

    return quota


V1 = "9:name=systemd:/d 4:memory:/elsewhere 2:cpu,cpuacct:/docker/abc 0::/d"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),  # set for the group above
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "300000 100000"}, 0.5),
        ("0::/a/b", {"a/c/cpu.max": "50000 100000"}, None),  # a neighbour's
        ("0::/host/path", {"cpu.max": "200000 100000"}, 2),  # a container that sees its group as the root
        ("", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "75000", "cpu/docker/abc/cpu.cfs_period_us": "50000"}, 1.5),
        (V1, {"cpu/docker/cpu.cfs_quota_us": "75000", "cpu/docker/cpu.cfs_period_us": "50000"}, 1.5),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "75000"}, None),
        (V1, {"cpu/elsewhere/cpu.cfs_quota_us": "75000", "cpu/elsewhere/cpu.cfs_period_us": "50000"}, None),
    ],
)
def test_quota(machine, membership, files, expected):
    assert machine(membership, files) == expected


def test_no_control_groups(tmp_path):
    assert cores.quota(tmp_path / "none", tmp_path / "none") is None


def test_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5}, raising=False)
    for quota, expected in ((None, 6), (2.5, 3), (0.1, 1), (64.0, 6)):
        monkeypatch.setattr(cores, "_quota", lambda q=quota: q)
        assert cores.available_cpus() == expected


def test_a_system_without_affinity(monkeypatch):
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: None)
    for count, expected in ((12, 12), (None, 1)):
        monkeypatch.setattr(cores.os, "cpu_count", lambda c=count: c)
        assert cores.available_cpus() == expected


if hasattr(os, "sched_setaffinity"):

    def test_affinity_may_change():
        own = os.sched_getaffinity(0)
        most = cores.available_cpus()
        try:
            os.sched_setaffinity(0, {min(own)})
            assert cores.available_cpus() == 1
        finally:
            os.sched_setaffinity(0, own)
        assert cores.available_cpus() == most == min(len(own), math.ceil(cores._quota() or len(own)))
