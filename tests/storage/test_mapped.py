"""Folders and files that are mapped, on an invented system that, as Windows, neither renames nor removes them."""

from __future__ import annotations

import doctest
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fastq as fq

REAL_RENAME, REAL_REPLACE, REAL_RMTREE = Path.rename, os.replace, shutil.rmtree


def refused(number=5):
    error = PermissionError(13, "Access is denied")
    error.winerror = number
    return error


@pytest.fixture
def mapped(monkeypatch):
    """Paths that are in use: what is in one of them, or is one, stays where it is."""
    paths = set()

    def check(path):
        if any(Path(path) in (used, *used.parents) for used in paths):
            raise refused()

    def rename(self, target):
        check(self)
        return REAL_RENAME(self, target)

    def replace(source, target):
        check(source)
        check(target)
        REAL_REPLACE(source, target)

    def rmtree(folder, ignore_errors=False):
        try:
            check(folder)
        except OSError:
            if not ignore_errors:
                raise
        else:
            REAL_RMTREE(folder, ignore_errors)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    return paths


@pytest.fixture
def two():
    return fq.quantize(np.eye(4), 3, axis=0), fq.quantize(2 * np.eye(4), 3, axis=0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_in_use_is_not_replaced(tmp_path, mapped, two):
    old, new = two
    place = tmp_path / "q"
    old.save(place)
    mapped.add(place / "tiles.npy")
    with pytest.raises(
        PermissionError, match=r"q must not be in use while it is replaced; .*load the folder with mmap=False"
    ):
        new.save(place, overwrite=True)
    assert names(tmp_path) == ["q"]
    assert fq.load(place, mmap=False).equals(old)
    mapped.clear()
    new.save(place, overwrite=True)
    assert names(tmp_path) == ["q"]
    assert fq.load(place).equals(new)


def test_a_save_that_succeeded_raises_nothing(tmp_path, mapped, two, monkeypatch):
    """Another program maps the old folder while it is on its way out."""
    old, new = two
    place = tmp_path / "q"
    old.save(place)
    rmtree = shutil.rmtree

    def in_use(folder, ignore_errors=False):
        if Path(folder).suffix == ".old":
            mapped.add(Path(folder))
        rmtree(folder, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", in_use)
    new.save(place, overwrite=True)
    assert fq.load(place).equals(new)
    assert mapped
    assert {path.name for path in mapped} | {"q"} == set(names(tmp_path))


@pytest.mark.parametrize("error", [refused(), refused(32), OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_the_old_folder_comes_back(tmp_path, two, monkeypatch, error):
    """It is out of the way, and the new one cannot take its name."""
    old, new = two
    place = tmp_path / "q"
    old.save(place)

    def rename(self, target):
        if self.suffix == ".part":
            raise error
        return REAL_RENAME(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(type(error)) as caught:
        new.save(place, overwrite=True)
    assert ("must not be in use" in str(caught.value)) == hasattr(error, "winerror")
    assert names(tmp_path) == ["q"]
    assert fq.load(place).equals(old)


def test_a_file_in_use_is_not_replaced(tmp_path, mapped):
    place = tmp_path / "model"
    fq.save(place, {"x": [1.0]})
    mapped.add(place)
    with pytest.raises(PermissionError, match=r"model must not be in use while it is replaced; Windows says .*delete"):
        fq.save(place, {"x": [2.0]})
    assert names(tmp_path) == ["model"]
    assert fq.open(place)["x"] == 1


def test_other_systems_say_what_they_say(tmp_path, monkeypatch):
    error = PermissionError(13, "Permission denied")

    def replace(source, target):
        raise error

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError) as caught:
        fq.save(tmp_path / "model", {"x": [1.0]})
    assert caught.value is error


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("name", ["qarray.parts", "qarray.apart", "formats.opening", "formats.saving"])
def test_examples_remove_no_folder_that_is_mapped(name, monkeypatch):
    """What an interactive session shows, it keeps; so an example must not show an array of a file and remove that."""
    removed = []

    class Folder(tempfile.TemporaryDirectory):
        def cleanup(self):
            removed.append(self.name in Path("/proc/self/maps").read_text())
            super().cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Folder)
    assert doctest.testmod(importlib.import_module(f"fastq.{name}")).failed == 0
    assert removed == [False] * len(removed) != []
