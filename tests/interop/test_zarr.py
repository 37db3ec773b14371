"""Quantized arrays in zarr stores: what comes back is what was saved, or a clear error."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import fastq as fq

zarr = pytest.importorskip("zarr", minversion="3")

from fastq.interop import zarr as fz  # noqa: E402

K, N = 320, 70

FORMS = {
    "column": {"axis": 0},
    "row": {"axis": 1, "bits": 5},
    "whole": {"bits": 2},
    "whole, asymmetric": {"scheme": "asymmetric"},
    "affine": {"axis": 0, "scheme": "affine"},
    "groups, integer": {"axis": 0, "group_size": 64, "bits": 3},
    "groups of 48, integer, asymmetric": {"axis": 0, "group_size": 48, "bits": 3, "scheme": "asymmetric"},
    "groups along rows": {"axis": 1, "group_size": 16, "bits": 4},
    "groups, float": {"axis": 0, "group_size": 32},
    "groups of 10": {"axis": 0, "group_size": 10},
    "balanced": {"axis": 0, "bits": 3, "balance": np.linspace(1, 2, K)},
    "rotated": {"axis": 0, "bits": 3, "rotate": True},
}  # fmt: skip


@pytest.fixture
def w(rng):
    return rng.standard_normal((K, N), np.float32)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "q.zarr"


@pytest.mark.parametrize("name", FORMS)
def test_round_trip(w, store, name):
    q = fq.quantize(w, **FORMS[name])
    fz.save(store, q)
    assert fz.open(store).equals(q)
    fz.save(str(store), q, chunks=(100, 20), overwrite=True)
    assert fz.open(str(store)).equals(q)
    group = zarr.open_group(store, mode="r")
    assert dict(group.attrs)["shape"] == [K, N]
    assert group["tiles"].dtype == np.uint8
    assert 128 * q.bits == group["tiles"].shape[-1]


@pytest.mark.parametrize("way", ["group", "two-plane"])
@pytest.mark.parametrize("name", ["column", "groups, integer", "affine"])
def test_activations_are_kept(rng, w, store, name, way):
    q, x = fq.quantize(w, **FORMS[name]).with_activations(way), rng.standard_normal((9, K), np.float32)
    fz.save(store, q)
    opened = fz.open(store)
    assert opened.activations == way
    assert (x @ opened == x @ q).all()
    assert (opened.T @ x.T == q.T @ x.T).all()
    fz.save(store, opened.with_activations("row"), overwrite=True)
    assert "activations" not in dict(zarr.open_group(store, mode="r").attrs)  # as before there were others
    assert fz.open(store).activations == "row"


def test_round_trip_of_other_shapes(rng, w, store):
    deep = rng.standard_normal((3, 4, 70, 20))
    arrays = [fq.quantize(w[0]), fq.quantize(w[:0]), fq.quantize(np.float32(3)), fq.quantize(w[:1, :1], 3, axis=0),
              fq.quantize(deep, 3, axis=2, group_size=16), fq.quantize(deep, 3, axis=1), fq.quantize(deep[0], axis=-1),
              fq.quantize(w.astype(np.float16), axis=0), fq.quantize(w[:, :3].T, 3, axis=0).T,
              fq.quantize(np.zeros_like(w), 3, axis=0, scheme="asymmetric")]  # fmt: skip
    for number, q in enumerate(arrays):
        fz.save(store, q, overwrite=number > 0)
        assert fz.open(store).equals(q), number


def test_what_was_opened_is_multiplied_as_it_lies_there(w, store):
    q = fq.quantize(w, 3, axis=0, group_size=64)
    fz.save(store, q)
    found = fz.open(store)
    assert found._store.packed
    x = w[:, :5].T
    assert np.array_equal(x @ found, x @ q)


def test_bytes_are_packed(w, store):
    fz.save(store, fq.quantize(np.tile(w, (4, 16)), 3, axis=0))
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert size < 3.2 / 8 * 4 * K * 16 * N


def test_memory_store(w):
    store = zarr.storage.MemoryStore()
    q = fq.quantize(w, 3, axis=0)
    fz.save(store, q)
    assert fz.open(store).equals(q)


# Lazily


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.exhaustive
def test_dask(w, store, name):
    da = pytest.importorskip("dask.array")
    from fastq.interop.dask import DaskQArray, quantize

    q = fq.quantize(w, **FORMS[name])
    fz.save(store, quantize(da.from_array(w, chunks=(128, 32)), **FORMS[name]))
    assert fz.open(store).equals(q)
    x = w[:, :9].T
    for chunks in (None, (100, 40), (-1, 16)):
        d = fz.open_dask(store, chunks)
        assert type(d) is DaskQArray
        assert d.compute().equals(q)
        if name not in ("row", "groups along rows"):
            y = (da.from_array(x, chunks=(4, 64)) @ d).compute()
            exact = np.array_equal(y, x @ q)
            assert exact or (name in ("affine", "groups, float", "groups of 10", "balanced", "rotated") and
                             fq.error(x @ q, y).sqnr_db > 30)  # fmt: skip
    assert fz.open_dask(store).chunks[1] == ((32, 32, 6) if "along rows" not in name and name != "row" else (64, 6))


class Watched(zarr.storage.MemoryStore):
    """A store that notes what is read, in copies of it, too."""

    read: ClassVar[list[str]] = []

    async def get(self, key, *args, **kwargs):
        self.read.append(key)
        return await super().get(key, *args, **kwargs)


def test_dask_reads_and_writes_chunk_by_chunk(w):
    da = pytest.importorskip("dask.array")
    from fastq.interop.dask import quantize

    store = Watched()
    fz.save(store, quantize(da.from_array(w, chunks=(64, 16)), 3, axis=0, scale=0.1))
    group = zarr.open_group(store, mode="r")
    assert group["tiles"].chunks == (1, 1, 384)  # a chunk of the array is one of the store, so writers do not meet
    assert group["scale"].chunks == (1, 16)
    opened = fz.open_dask(store)
    store.read.clear()
    part = opened[70:100, 5:10].compute()
    chunks = sorted(key for key in store.read if "/c/" in key)
    assert chunks == ["scale/c/0/0", "tiles/c/0/1/0"]  # 16 columns, and of their tiles the second
    assert part.equals(fq.quantize(w, 3, axis=0, scale=0.1)[70:100, 5:10])


def test_dask_of_stacks(rng, store):
    da = pytest.importorskip("dask.array")
    from fastq.interop.dask import quantize

    deep = rng.standard_normal((4, 70, 20))
    for axis in (0, 1, 2, None):
        q = fq.quantize(deep, 3, axis=axis)
        fz.save(store, quantize(da.from_array(deep, chunks=(3, 64, 16)), 3, axis=axis), overwrite=axis != 0)
        assert fz.open(store).equals(q)
        assert fz.open_dask(store).compute().equals(q)


def test_chunks_that_do_not_agree(w, store):
    """Arrays that were quantized apart cannot share one scale; what was written is no array."""
    da = pytest.importorskip("dask.array")
    from fastq.interop.dask import from_qarray

    parts = [from_qarray(fq.quantize(part, axis=0)) for part in (w[:128], 2 * w[128:256])]
    with pytest.raises(
        ValueError, match=r"^chunks along an axis that shares scale must have the same, .* quantize them"
    ):
        fz.save(store, da.concatenate(parts))
    with pytest.raises(ValueError, match=r"whose attributes are written last; got .* or not complete$"):
        fz.open(store)
    other = [from_qarray(fq.quantize(w[:, :64], axis=0, balance=np.full(K, n))) for n in (1, 2)]
    with pytest.raises(ValueError, match=r"^chunks along an axis that shares balance must have the same"):
        fz.save(store.with_name("other"), da.concatenate(other, axis=1))


# Errors


def test_nothing_is_overwritten_by_chance(w, store):
    q = fq.quantize(w, axis=0)
    fz.save(store, q)
    with pytest.raises(FileExistsError, match=r"^store must not exist yet, or be overwritten with overwrite=True; got"):
        fz.save(store, q)
    fz.save(store, -q, overwrite=True)
    assert fz.open(store).equals(-q)
    for number, make in enumerate((zarr.create_group, lambda path: zarr.create_array(path, shape=3, dtype="i4"))):
        path = store.with_name(f"other{number}")
        make(path)
        with pytest.raises(FileExistsError, match=r"^store must be free, or hold what fastq has saved, which alone is"):
            fz.save(path, q, overwrite=True)


def test_other_things_are_not_saved(w, store):
    with pytest.raises(TypeError, match=r"^q must be a QArray, or a Dask array of them; got ndarray$"):
        fz.save(store, w)
    for chunks in ((64,), (64, 0)):
        with pytest.raises(ValueError, match=r"^chunks must be 2 positive lengths, one per axis; got \(64"):
            fz.save(store, fq.quantize(w), chunks=chunks)
    assert not store.exists()


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^store must hold a zarr group that fastq has saved; got nothing at"):
        fz.open(tmp_path / "nothing")
    zarr.create_group(tmp_path / "group")
    with pytest.raises(ValueError, match=r"^store must hold an array that fastq has saved, whose .* or not complete$"):
        fz.open(tmp_path / "group")
    zarr.create_array(tmp_path / "array", shape=3, dtype="i4")
    with pytest.raises(ValueError, match=r"^store must hold a zarr group that fastq has saved; got an array at"):
        fz.open(tmp_path / "array")


def attributes(**changes):
    def change(store):
        file = store / "zarr.json"
        document = json.loads(file.read_text())
        document["attributes"] |= changes
        file.write_text(json.dumps(document))

    return change


def cut_short(name):
    def change(store):
        file = next(f for f in sorted((store / name).rglob("*")) if f.is_file() and f.name != "zarr.json")
        file.write_bytes(file.read_bytes()[:-1])

    return change


def replaced(name, shape):
    def change(store):
        zarr.open_group(store).create_array(name, shape=shape, dtype="f4", overwrite=True, fill_value=1)

    return change


DAMAGE = {
    "a form of the future": (attributes(fastq=2), r"attribute fastq must be 1"),
    "another shape": (attributes(shape=[K, N + 16]), r"scale must have shape \(1, 86\); got \(1, 70\)"),
    "shape of text": (attributes(shape="x"), r"attribute shape must be a list of lengths"),
    "other bits": (attributes(bits=4), r"tiles must have shape"),
    "flipped": (attributes(flipped=True), r"must"),
    "other chunks": (attributes(chunks=[10, 16]), r"flipped, cuts and chunks must be as fastq writes them"),
    "no chunks": (attributes(chunks=None), r"flipped, cuts and chunks must be as fastq writes them"),
    "an array is gone": (lambda store: shutil.rmtree(store / "scale"), r"scale must be there; it is missing"),
    "the tiles are gone": (lambda store: shutil.rmtree(store / "tiles"), r"tiles and cuts must come together"),
    "a scale of another shape": (replaced("scale", (1, 3)), r"scale must have shape \(1, 70\); got \(1, 3\)"),
    "a chunk is gone": (lambda store: shutil.rmtree(store / "tiles" / "c"), r"tiles must have all its chunks; 5 of 5 "),
    "a chunk is cut short": (cut_short("tiles"), r"cannot reshape"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error(w, store, name):
    change, words = DAMAGE[name]
    fz.save(store, fq.quantize(w, 3, axis=0), chunks=(K, 16))
    change(store)
    with pytest.raises(ValueError, match=r"holds no quantized array that is whole: .*" + words):
        fz.open(store)


def test_dask_is_not_needed(tmp_path):
    code = f"""
import sys, numpy as np, fastq as fq
from fastq.interop import zarr as fz
q = fq.quantize(np.eye(70), 3, axis=0)
fz.save({str(tmp_path / "q")!r}, q)
assert fz.open({str(tmp_path / "q")!r}).equals(q)
assert "dask" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_examples_in_docstrings():
    failures, tried = doctest.testmod(fz)
    assert failures == 0 < tried
