"""The kernel cache: what is wrong with a file or folder costs a compilation and no more."""

from __future__ import annotations

import os

import pytest

from fastq.machine import cache
from fastq.machine.cache import Cache


def test_what_is_stored_is_loaded(tmp_path):
    kept = Cache(tmp_path / "deep" / "folder")
    kept.store("kernel_a", "symbol", b"code\nwith\nlines\0")
    assert Cache(tmp_path / "deep" / "folder").load("kernel_a") == ("symbol", b"code\nwith\nlines\0")
    assert kept.load("kernel_b") is None
    assert os.listdir(kept.folder) == ["kernel_a.kernel"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[:-1],
        lambda text: text[:40],
        lambda text: text[:-1] + bytes([text[-1] ^ 1]),
        lambda text: text.replace(b"symbol", b"symbal"),
        lambda text: b"another kind of file\n" + text,
    ],
)
def test_a_damaged_file_is_not_loaded(tmp_path, damage):
    kept = Cache(tmp_path)
    kept.store("kernel", "symbol", b"code")
    path = tmp_path / "kernel.kernel"
    path.write_bytes(damage(path.read_bytes()))
    assert kept.load("kernel") is None


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    none = Cache(tmp_path / "file" / "below")
    assert none.folder is None
    none.store("kernel", "symbol", b"code")
    assert none.load("kernel") is None


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path):
    tmp_path.chmod(0o777)
    assert Cache(tmp_path).folder is None


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    kept = Cache(tmp_path)
    monkeypatch.setattr(cache.os, "replace", full)
    kept.store("kernel", "symbol", b"code")
    assert os.listdir(tmp_path) == []


def test_the_stamp_tells_settings_and_facts_apart(monkeypatch):
    plain = cache.stamp("cpu a")
    assert plain == cache.stamp("cpu a")
    assert plain != cache.stamp("cpu b")
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert plain != cache.stamp("cpu a")


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTQ_CACHE_DIR", str(tmp_path))
    assert cache.root() == tmp_path
    for off in ("", "off"):
        monkeypatch.setenv("FASTQ_CACHE_DIR", off)
        assert cache.root() is None
