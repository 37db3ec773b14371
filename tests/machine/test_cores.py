"""How many cores a process may use, on machines of all kinds, made up of files."""

from __future__ import annotations

import ctypes
import math
import os
import sys

import pytest

from fastq.machine import cores, cpu, sysctl


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


class Kernel32:
    """Windows, where a process has these cores, of those."""

    def __init__(self, process, system, told=1):
        self.masks, self.told = (process, system), told

    def GetCurrentProcess(self):
        return -1

    def GetProcessAffinityMask(self, handle, *places):
        assert handle == -1
        for place, mask in zip(places, self.masks):
            ctypes.cast(place, ctypes.POINTER(ctypes.c_size_t))[0] = mask
        return self.told


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (Kernel32(0b0110, 0xFFF), 2),
        (Kernel32(0xFFF, 0xFFF), 12),
        (Kernel32(1 << 63 | 1, 2**64 - 1), 2),
        (Kernel32(0, 0), 12),  # threads in several processor groups, before Windows 11
        (Kernel32(0, 0xFFF), 12),
        (Kernel32(0b0110, 0xFFF, told=0), 12),
    ],
)
def test_affinity_of_windows(monkeypatch, system, expected):
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: None)
    monkeypatch.setattr(cores, "_kernel32", lambda: system)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 12)
    assert cores.available_cpus() == expected


def test_affinity_of_windows_above_64_cores(monkeypatch):
    """The mask of one processor group does not hide the others."""
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: None)
    monkeypatch.setattr(cores, "_kernel32", lambda: Kernel32(2**64 - 1, 2**64 - 1))
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 128)
    assert cores.available_cpus() == 128


@pytest.fixture
def told_by_macos(monkeypatch):
    """What sysctlbyname tells."""
    values = {}

    def function(name, room, length, new, new_length):
        value = values.get(name.decode())
        if value is None:
            return -1
        length = ctypes.cast(length, ctypes.POINTER(ctypes.c_size_t))
        assert length[0] >= len(value)
        ctypes.memmove(room, value, len(value))
        length[0] = len(value)
        return 0

    monkeypatch.setattr(sysctl, "_function", lambda: function)
    return values


@pytest.mark.parametrize("size", [4, 8])
def test_fast_cores_of_macos(monkeypatch, told_by_macos, size):
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: None)
    monkeypatch.setattr(cores, "_fast_cores", cores._fast_cores.__wrapped__)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 10)
    assert cores.available_cpus() == 10  # on Intel there are no levels
    told_by_macos["hw.perflevel0.logicalcpu"] = (6).to_bytes(size, sys.byteorder)
    assert cores.available_cpus() == 6


def test_the_name_of_the_cpu_on_macos(monkeypatch, told_by_macos):
    def none(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(cpu, "open", none, raising=False)
    monkeypatch.setattr(cpu.platform, "processor", lambda: "arm")
    assert cpu.cpu_name() == "arm"
    told_by_macos["machdep.cpu.brand_string"] = b"Apple M2 Pro\0"
    assert cpu.cpu_name() == "Apple M2 Pro"


def test_the_instruction_set_is_told_though_another_thread_asks_to_choose_anew(monkeypatch):
    class Cleared(cpu._Chosen):
        """What is looked up is cleared at once."""

        def __setattr__(self, name, value):
            super().__setattr__(name, None if name == "_isa" else value)

    monkeypatch.setattr(cpu, "_choose", lambda needs: "portable")
    assert Cleared()({}) == "portable"


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
