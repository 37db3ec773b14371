"""The kernel cache: what is wrong with a file or folder costs a compilation and no more."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastq.machine import cache, jit
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


def test_no_part_of_a_file_may_be_missing_or_other(tmp_path):
    """Every truncation, and every bit."""
    kept = Cache(tmp_path)
    kept.store("kernel", "symbol", b"co\nde")
    path = tmp_path / "kernel.kernel"
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert kept.load("kernel") is None
    for bit in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert kept.load("kernel") is None
    path.write_bytes(text)
    assert kept.load("kernel") == ("symbol", b"co\nde")


def test_a_file_under_the_name_of_another_kernel_is_not_loaded(tmp_path):
    kept = Cache(tmp_path)
    kept.store("one", "symbol", b"code")
    (tmp_path / "other.kernel").write_bytes((tmp_path / "one.kernel").read_bytes())
    assert kept.load("other") is None
    assert kept.load("one") is not None


def test_a_folder_that_vanishes_costs_nothing_else(tmp_path):
    kept = Cache(tmp_path / "cache")
    kept.folder.rmdir()
    kept.store("kernel", "symbol", b"code")
    assert kept.load("kernel") is None
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    none = Cache(tmp_path / "file" / "below")
    assert none.folder is None
    none.store("kernel", "symbol", b"code")
    assert none.load("kernel") is None


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path):
    tmp_path.chmod(0o777)
    assert Cache(tmp_path).folder is None


def fails(error):
    def fail(*args, **options):
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = Cache(tmp_path)
    monkeypatch.setattr(cache.os, "replace", fails(FULL))
    kept.store("kernel", "symbol", b"code")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fails_in_all_ways_is_left_alone(tmp_path, monkeypatch):
    kept = Cache(tmp_path)
    monkeypatch.setattr(cache.os, "replace", fails(FULL))
    monkeypatch.setattr(cache.os, "unlink", fails(OSError(errno.EROFS, "Read-only file system")))
    kept.store("kernel", "symbol", b"code")
    assert kept.load("kernel") is None


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = Cache(tmp_path)
    monkeypatch.setattr(cache.os, "replace", fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        kept.store("kernel", "symbol", b"code")
    assert os.listdir(tmp_path) == []


def makes_kernels(path):
    """Whether a file declares a job, or emits code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            if {module + alias.name for alias in node.names} & {
                "fastq.machine.ir",
                "fastq.machine.job.job",
                "llvmlite.ir",
            }:
                return True
            if module == "fastq.machine.ir.":
                return True
    return False


def test_the_stamp_covers_what_kernels_depend_on(monkeypatch, tmp_path):
    """A file that declares a job, or emits code, makes another cache when it changes."""
    makers = [path.relative_to(cache.PACKAGE) for path in cache.PACKAGE.rglob("*.py") if makes_kernels(path)]
    assert len(makers) > 10
    before = cache.stamp("cpu")
    shutil.copytree(cache.PACKAGE, tmp_path / "fastq", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "PACKAGE", tmp_path / "fastq")
    assert cache.stamp("cpu") == before
    for path in (*makers, "layout/tiles.py", "scheme.py", "version.py"):
        whole = (cache.PACKAGE / path).read_bytes()
        (cache.PACKAGE / path).write_bytes(whole + b"\n")
        assert cache.stamp("cpu") != before, path
        (cache.PACKAGE / path).write_bytes(whole)


def test_the_stamp_tells_settings_and_facts_apart(monkeypatch):
    plain = cache.stamp("cpu a")
    assert plain == cache.stamp("cpu a")
    assert plain != cache.stamp("cpu b")
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert plain != cache.stamp("cpu a")


# Folders of other versions


NOW = 2_000_000_000  # seconds


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Makes folders of a cache that were last used so many seconds ago; :func:`left` tells which are left."""
    monkeypatch.setattr(cache.time, "time", lambda: NOW)

    def make(name, age, *files):
        folder = tmp_path / (name * cache.STAMP_LENGTH)[: cache.STAMP_LENGTH]
        folder.mkdir(0o700)
        for file in files or ("one.kernel", "two.kernel"):
            (folder / file).write_bytes(b"")
        os.utime(folder, (NOW - age, NOW - age))
        return folder

    return make


def fill(folder, environment=""):
    """A process fills a folder, now."""
    filled = Cache(folder, environment)
    filled.store("kernel", "symbol", b"code")
    os.utime(folder, (NOW, NOW))
    filled.remove_unused()


OLD = cache.UNUSED + 1


def test_folders_that_nobody_uses_are_removed(tmp_path, folders):
    unused, used = folders("a", OLD, "one.kernel", ".tmp_1234"), folders("b", cache.UNUSED - 1)
    fill(tmp_path / "cache")
    assert not unused.exists()
    assert sorted(os.listdir(used)) == ["one.kernel", "two.kernel"]
    assert os.listdir(tmp_path / "cache") == ["kernel.kernel"]


def test_opening_a_folder_counts_as_a_use(tmp_path, folders):
    """Another version that only loads kernels keeps them."""
    folder, recent = folders("a", OLD), folders("b", cache.DAY - 1)
    Cache(folder)
    Cache(recent)
    assert abs(folder.stat().st_mtime - os.stat(tmp_path).st_mtime) < 60
    assert recent.stat().st_mtime == NOW - cache.DAY + 1  # renewed once a day at most
    os.utime(folder, (NOW, NOW))
    fill(tmp_path / "cache")
    assert folder.exists()


HERE, THERE = "0" * 16, "1" * 16  # environments


def test_an_upgrade_removes_the_folder_of_the_version_before(tmp_path, folders):
    """At once; the folders of other environments, and of fastq before there were markers, stay."""
    before, shared, other, unmarked = (folders(name, 0) for name in "abcd")
    for folder, environment in (before, HERE), (shared, HERE), (shared, THERE), (other, THERE):
        Cache(folder, environment)
        os.utime(folder, (NOW, NOW))
    loading = Cache(before, HERE)
    new = tmp_path / ("e" * cache.STAMP_LENGTH)
    fill(new, HERE)
    assert sorted(os.listdir(tmp_path)) == sorted(folder.name for folder in (shared, other, unmarked, new))
    assert sorted(os.listdir(shared)) == [f"{THERE}.environment", "one.kernel", "two.kernel"]
    assert sorted(os.listdir(new)) == [f"{HERE}.environment", "kernel.kernel"]
    # A process that still uses the folder compiles, and disturbs nobody.
    assert loading.load("one") is None
    loading.store("one", "symbol", b"code")
    loading.remove_unused()
    assert not before.exists()
    os.utime(shared, (NOW, NOW))
    fill(tmp_path / ("f" * cache.STAMP_LENGTH), THERE)
    assert not shared.exists()
    assert not other.exists()
    assert new.exists()


def test_an_environment_is_where_fastq_is_and_on_what_cpu(monkeypatch, tmp_path):
    here = cache.environment("cpu a")
    assert cache.re.fullmatch(cache._MARKER, f"{here}.environment")
    assert here == cache.environment("cpu a") != cache.environment("cpu b")
    with monkeypatch.context() as context:
        context.setattr(cache, "PACKAGE", tmp_path)
        assert here != cache.environment("cpu a")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert here != cache.environment("cpu a")


@pytest.mark.parametrize(
    "odd", ["another name", "another file", "a folder", "a link inside", "open to others", "empty"]
)
def test_what_fastq_did_not_write_stays(tmp_path, folders, odd):
    target = tmp_path / "target"
    target.write_text("precious")
    folder = folders("z" if odd == "another name" else "a", OLD)
    if odd == "another file":
        (folder / "notes.txt").write_text("")
    elif odd == "a folder":
        (folder / "three.kernel").mkdir()
    elif odd == "a link inside":
        (folder / "three.kernel").symlink_to(target)
    elif odd == "open to others":
        folder.chmod(0o777)
    elif odd == "empty":  # what a removal leaves that was interrupted
        for file in folder.iterdir():
            file.unlink()
    os.utime(folder, (NOW - OLD, NOW - OLD))
    before = sorted(os.listdir(folder))
    fill(tmp_path / "cache")
    assert target.read_text() == "precious"
    assert folder.exists() == (odd != "empty")
    assert odd == "empty" or sorted(os.listdir(folder)) == before


def test_links_are_not_followed(tmp_path, folders):
    outside = tmp_path / "outside"
    folders("a", OLD).rename(outside)
    (tmp_path / "cache").mkdir(0o700)
    link = tmp_path / "cache" / ("a" * cache.STAMP_LENGTH)
    link.symlink_to(outside, target_is_directory=True)
    fill(tmp_path / "cache" / "filled")
    assert link.is_symlink()
    assert sorted(os.listdir(outside)) == ["one.kernel", "two.kernel"]


def test_a_removal_that_fails_costs_nothing(tmp_path, folders, monkeypatch):
    first, second = folders("a", OLD), folders("b", OLD)
    usual = Path.unlink
    monkeypatch.setattr(
        cache.pathlib.Path, "unlink", lambda path: fails(FULL)() if path.parent == first else usual(path)
    )
    fill(tmp_path / "cache")
    assert first.exists()
    assert not second.exists()
    Cache(None).remove_unused()


def test_a_process_that_compiles_cleans_up_once(tmp_path, monkeypatch):
    cleaned = []
    monkeypatch.setattr(jit, "_compiler", jit._Compiler())
    done = SimpleNamespace(name="symbol", wait=lambda: None, result=lambda: (b"code", set()))
    monkeypatch.setattr(jit, "_begin", lambda function, job: done)
    monkeypatch.setattr(jit._Compiler, "load", lambda self, name, *entry: name)
    monkeypatch.setattr(Cache, "remove_unused", lambda self: cleaned.append(os.listdir(self.folder)))
    jit._compiler.cache = Cache(tmp_path)
    jit.kernel("unkept", lambda: (None, None), keep=False)
    assert cleaned == []
    jit.kernel("first", lambda: (None, None))
    jit.kernel("second", lambda: (None, None))
    assert cleaned == [["first.kernel"]]
    jit._compiler.kernels.clear()
    jit._compiler.cleaned = False
    jit.kernel("first", lambda: (None, None))  # loaded: no other folder is looked at
    assert len(cleaned) == 1


def test_the_stamp_is_recognized():
    assert cache.re.fullmatch(cache._STAMP, cache.stamp("cpu"))


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTQ_CACHE_DIR", str(tmp_path))
    assert cache.root() == tmp_path
    for off in ("", "off"):
        monkeypatch.setenv("FASTQ_CACHE_DIR", off)
        assert cache.root() is None


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these systems have places of their own")
@pytest.mark.parametrize(
    ("home", "cache_home", "expected"),
    [
        ("/home/me", None, "/home/me/.cache/fastq"),
        ("/home/me", "/var/me", "/var/me/fastq"),
        ("/home/me", "relative", "/home/me/.cache/fastq"),
        (None, "/var/me", "/var/me/fastq"),
        (None, None, None),  # not "~" in the working folder
    ],
)
def test_the_folder_of_a_user(monkeypatch, home, cache_home, expected):
    monkeypatch.delenv("FASTQ_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: home or path)  # a user id without a name has no home
    if cache_home is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache_home)
    assert cache.root() == (expected and Path(expected))
