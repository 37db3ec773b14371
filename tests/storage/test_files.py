"""Quantized arrays as plain arrays and attributes, and in folders that are multiplied as they lie there."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import random
import sys
from mmap import PAGESIZE

import numpy as np
import pytest

import fastq as fq
from fastq.engine.memory import aligned
from fastq.qarray.parts import load, put_together, take_apart
from fastq.storage import folder as folders

SCHEMES = ("symmetric", "asymmetric", "affine")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and limits of Linux")


def arrays_of(rng, shape):
    """Quantized arrays of all forms, as they are made, packed, turned, cut and scaled."""
    x = (100 * rng.standard_normal(shape)).astype(np.float32)
    for axis in (None, *range(len(shape))):
        for group in (None,) if axis is None else (None, 16, 6):
            for bits, scheme in ((3, "symmetric"), (4, "asymmetric"), (8, "affine"), (8, "symmetric")):
                yield fq.quantize(x, bits, axis=axis, group_size=group, scheme=scheme)


def same(a, b):
    return a.equals(b) and a.scale.dtype == b.scale.dtype and a.codes.dtype == b.codes.dtype


# Parts


@pytest.mark.parametrize("shape", [(), (5,), (70, 40), (0, 4), (4, 0), (3, 20, 33), (2, 0, 3)])
def test_parts(rng, shape):
    for made in arrays_of(rng, shape):
        for q in (made, made.T, -made):
            arrays, attributes = take_apart(q)
            assert all(a.flags.c_contiguous and type(a) is np.ndarray for a in arrays.values())
            assert ("tiles" in arrays) == (len(shape) > 1 and 0 not in shape)
            assert same(put_together(arrays, json.loads(json.dumps(attributes))), q)


def test_parts_of_an_array_in_use(rng):
    """What is packed is given as it lies, whichever way; what is not packed is not packed by being looked at."""
    w = rng.standard_normal((96, 64))
    x = rng.standard_normal((2, 96))
    for group, axis in ((None, None), (16, 0), (16, 1)):
        for turned in (False, True):
            q = fq.quantize(w, 3, axis=axis, group_size=group)
            take_apart(q)
            assert not q._store.packed
            operand = q.T if turned else q
            if axis == 0 and turned:
                continue  # its scales vary along the sum
            if axis == 1 and not turned:
                continue
            (x[:, : operand.shape[0]]) @ operand
            assert q._store.packed
            for view in (q, q.T, q[:64], q[:, 16:32], q[16:48].T):
                arrays, attributes = take_apart(view)
                assert same(put_together(arrays, attributes), view)
            arrays, attributes = take_apart(q)
            assert np.shares_memory(arrays["tiles"], q._store._form.packed[()].tiles)
            assert attributes["flipped"] == turned


def test_balance_rotation_and_types(rng):
    d = rng.uniform(0.5, 2, 64)
    for dtype in (np.float16, np.float32, np.float64, "bfloat16"):
        x = rng.standard_normal((64, 48))
        x = x.astype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
        for axis, factors in ((0, d), (1, d[:48])):
            q = fq.quantize(x, 4, axis=axis, group_size=16, balance=factors, rotate=True)
            found = put_together(*take_apart(q))
            assert same(found, q)
            assert (found.rotation, found.dtype) == (q.rotation, q.dtype)
            assert np.array_equal(found.balance, q.balance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_serve_zero_points_on_the_left(rng, isa, dtype, monkeypatch):
    """They are those of the codes, and kept: the tiles are not gone through for them."""
    a = fq.quantize(rng.standard_normal((5, 96)).astype(dtype), 8, axis=1, scheme="asymmetric")
    for form in ({"axis": 0}, {"axis": 0, "group_size": 16}, {"axis": None}):
        q = fq.quantize(rng.standard_normal((96, 40)).astype(dtype), 3, **form)
        want = a @ q
        arrays, attributes = take_apart(q)
        found = put_together(arrays, attributes)
        with monkeypatch.context() as patch:
            if isa != "reference":  # which unpacks everything
                patch.setattr("fastq.engine.operands.unpack_codes", None)
            assert np.array_equal(a @ found, want)
        del arrays["sums"]
        assert np.array_equal(a @ put_together(arrays, attributes), want)


def test_tiles_are_used_where_they_lie(rng):
    arrays, attributes = take_apart(fq.quantize(rng.standard_normal((64, 40)), 3, axis=0))
    tiles = aligned(arrays["tiles"].nbytes + 64)
    for offset in (0, 1, 16, 64):
        moved = tiles[offset : offset + arrays["tiles"].nbytes].reshape(arrays["tiles"].shape)
        moved[...] = arrays["tiles"]
        moved.flags.writeable = False
        q = put_together({**arrays, "tiles": moved}, attributes)
        assert np.shares_memory(q._store._form.packed[()].tiles, tiles) == (offset % 64 == 0)
        assert q._store._form.packed[()].address % 64 == 0
        assert np.array_equal(q.codes, put_together(arrays, attributes).codes)
    odd = np.zeros(arrays["scale"].nbytes + 1, np.uint8)[1:].view(arrays["scale"].dtype).reshape(arrays["scale"].shape)
    odd[...] = arrays["scale"]
    assert np.array_equal(put_together({**arrays, "scale": odd}, attributes).scale, arrays["scale"])


def parts(bits=3, axis=0, group=None, scheme="symmetric", shape=(96, 40), **form):
    x = np.random.default_rng(1).standard_normal(shape)
    return take_apart(fq.quantize(x, bits, axis=axis, group_size=group, scheme=scheme, **form))


def broken(change, **form):
    arrays, attributes = parts(**form)
    arrays, attributes = {n: a.copy() for n, a in arrays.items()}, copy.deepcopy(attributes)
    change(arrays, attributes)
    return put_together(arrays, attributes)


def put(name, **items):
    """Attributes, or elements of an array, that are changed."""
    if name == "attributes":
        return lambda arrays, attributes: attributes.update(items)
    return lambda arrays, attributes: arrays[name].__setitem__(*items["at"])


def array(name, change):
    return lambda arrays, attributes: arrays.__setitem__(name, change(arrays[name]))


GROUPED = {"group": 16}
SCALED = {"group": 16, "shape": (4, 32, 40), "axis": 0}
ASYMMETRIC = {"scheme": "asymmetric"}
BALANCED = {"balance": np.ones(96)}
BROKEN = {
    "no version": (lambda arrays, attributes: attributes.pop("fastq"), {}, r"attributes must be a mapping with fastq"),
    "version": (put("attributes", fastq=2), {}, r"attribute fastq must be 1, the form known here; got 2"),
    "version of truth": (put("attributes", fastq=True), {}, r"fastq must be 1"),
    "shape of text": (put("attributes", shape="ab"), {}, r"shape must be a list of lengths; got ab"),
    "shape of floats": (put("attributes", shape=[96.0, 40]), {}, r"shape must be a list of lengths"),
    "shape below zero": (put("attributes", shape=[-96, 40]), {}, r"shape must be a list of lengths"),
    "another shape": (put("attributes", shape=[96, 60]), {}, r"tiles must be .* shape \(4, 2, 384\)"),
    "a shape of the same tiles": (put("attributes", shape=[96, 41]), {}, r"scale must be .* shape \(1, 41\)"),
    "a vast shape": (put("attributes", shape=[10**30, 40], cuts=10**30), {}, r"tiles must be an array of uint8"),
    "a vector": (put("attributes", shape=[96]), {}, r"tiles and cuts must come together, for arrays of two dimensions"),
    "an empty matrix": (put("attributes", shape=[96, 0]), {}, r"for arrays .* that are not empty"),
    "dtype": (put("attributes", dtype="int8"), {}, r"dtype must be one of float16, bfloat16, .*; got int8"),
    "bits": (put("attributes", bits=9), {}, r"bits must be from 2 to 8; got 9"),
    "other bits": (put("attributes", bits=4), {}, r"tiles must be an array of uint8 and shape \(3, 2, 512\)"),
    "scheme": (put("attributes", scheme="odd"), {}, r"scheme must be one of symmetric, asymmetric, affine; got odd"),
    "another scheme": (put("attributes", scheme="affine"), {}, r"arrays must be those of this form, tiles, .*offset"),
    "axis": (put("attributes", axis=2), {}, r"axis must be null or below 2; got 2"),
    "axis from the end": (put("attributes", axis=-1), {}, r"axis must be null or below 2"),
    "another axis": (put("attributes", axis=1), {}, r"scale must be .* shape \(96, 1\)"),
    "group": (put("attributes", group_size=0), {}, r"group_size must be null, or positive .*; got 0"),
    "group without an axis": (put("attributes", axis=None, group_size=4), {}, r"with an axis that is not; got 4"),
    "another group": (put("attributes", group_size=8), {}, r"scale must be .* shape \(12, 40\)"),
    "rotation": (put("attributes", rotation=24), BALANCED, r"rotation must be a power of two that divides .*; got 24"),
    "rotation of few": (put("attributes", rotation=8), BALANCED, r"rotation must .* from 16 to 4096, or 1; got 8"),
    "rotation beyond the axis": (put("attributes", rotation=64), BALANCED, r"rotation must .* divides the axis"),
    "rotation without factors": (put("attributes", rotation=32), {}, r"arrays must be those of this form"),
    "flipped": (put("attributes", flipped=0), {}, r"flipped must be true or false; got 0"),
    "flipped the other way": (put("attributes", flipped=True, cuts=40), {}, r"tiles must be .* shape \(6, 1, 384\)"),
    "no cuts": (put("attributes", cuts=None), {}, r"tiles and cuts must come together"),
    "cuts": (put("attributes", cuts=0), {}, r"cuts must be from 1 to 96, the length of K; got 0"),
    "cuts of text": (put("attributes", cuts="96"), {}, r"cuts must be from 1 to 96"),
    "gaps": (put("attributes", cuts=1), {}, r"tiles must be an array of uint8 and shape \(3, 6, 384\)|arrays must be"),
    "no scale": (lambda arrays, attributes: arrays.pop("scale"), {}, r"arrays must be .*scale.*; got tiles, sums"),
    "an array too many": (lambda arrays, attributes: arrays.update(zeros=arrays["scale"]), {}, r"arrays must be those"),
    "a list": (array("scale", lambda a: a.tolist()), {}, r"scale must be an array of .*; got list"),
    "another type": (array("tiles", lambda a: a.view(np.int8)), {}, r"tiles must be an array of uint8 .*; got int8"),
    "another order of bytes": (array("sums", lambda a: a.astype(">i4")), {}, r"sums must be .* int32 .*; got >i4"),
    "truncated": (array("tiles", lambda a: a[:-1]), {}, r"tiles must be .* got uint8 \(2, 2, 384\)"),
    "in Fortran's order": (array("tiles", np.asfortranarray), {}, r"tiles must be C-contiguous; got strides"),
    "broadcast": (array("tiles", lambda a: np.broadcast_to(a[:1], a.shape)), {}, r"tiles must be C-contiguous"),
    "scale of NaN": (put("scale", at=((0, 3), np.nan)), {}, r"scale must be finite; got NaN or infinity"),
    "sums": (put("sums", at=(3, -1)), {}, r"sums must be from 0 to 24480; got \(-1, "),
    "zero point": (put("zero_point", at=((0, 3), 8)), ASYMMETRIC, r"zero_point must be from 0 to 7; got "),
    "offset": (put("offset", at=((0, 3), np.inf)), {"scheme": "affine"}, r"offset must be finite"),
    "offset of another type": (array("offset", lambda a: a.astype(np.float32)), {"scheme": "affine"},
        r"offset must be of scale's type; got float32"),
    "balance": (put("balance", at=((3, 0), 0)), BALANCED, r"balance must be positive; got 0\.0"),
    "codes": (put("codes", at=(3, 4)), {"shape": (40,)}, r"codes must be from -4 to 3; got "),
    "factors of zero": (put("factors", at=((0, 0, 0), 0)), SCALED, r"factors must not be 0; got 0"),
    "factors": (put("factors", at=((0, 0, 0), 33)), SCALED, r"factors must be from -32 to 32; got "),
    "packed factors of zero": (put("groups", at=((0, 0, 0, 0), 0)), GROUPED, r"factors in groups must be from 1 to 32"),
    "packed factors": (put("groups", at=((0, 0, 0, 0), 33)), GROUPED, r"factors in groups must be from 1 to 32; got "),
    "packed shifts": (put("groups", at=((0, 0, 1, 0), 1)), GROUPED, r"shifts in groups must be 128 - factor \* zero"),
    "packed zero points": (put("groups", at=((0, 0, slice(None), 0), [1, 120])), {**GROUPED, **ASYMMETRIC},
        r"shifts in groups must be"),
    "factors beyond the matrix": (put("groups", at=((2, 0, 0, 15), 1)), GROUPED, r"shifts in groups .* 0 beyond"),
    "groups of 8 bits": (put("attributes", bits=8), GROUPED, r"integer group scales need .* bits=8"),
    "groups of no size": (put("attributes", group_size=None), GROUPED, r"integer group scales need a group_size"),
    "groups across": (put("attributes", axis=1), GROUPED, r"packed groups must lie along K, .*; got axis=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_belong_together(name):
    change, form, words = BROKEN[name]
    broken(lambda arrays, attributes: None, **form)
    with pytest.raises(ValueError, match=words):
        broken(change, **form)


def test_attributes_that_are_none():
    with pytest.raises(ValueError, match=r"attributes must be a mapping with .*; got list"):
        put_together(parts()[0], [1])


# Files


@pytest.mark.parametrize("mmap", [True, False])
def test_products_with_what_was_loaded(tmp_path, rng, isa, mmap):
    """The same as with the original, for a few rows and for many."""
    w = rng.standard_normal((200, 70), np.float32)
    x = rng.standard_normal((40, 200), np.float32)
    number = 0
    for bits in (3, 8):
        for form in ({}, {"group_size": 64}, {"group_size": 64, "group_scale": "float"}, {"scheme": "asymmetric"},
                     {"rotate": False, "balance": rng.uniform(0.5, 2, 200)}):  # fmt: skip
            for axis in (0, -1):
                q = fq.quantize(w if axis == 0 else w.T, bits, axis=axis, **form)
                want = (q if axis == 0 else q.T).dequantize()
                number += 1
                q.save(tmp_path / str(number))
                assert not q._store.packed
                found = fq.load(tmp_path / str(number), mmap)
                for rows in (1, 40):
                    a, b = (p if axis == 0 else p.T for p in (q, found))
                    assert np.array_equal(x[:rows] @ b, x[:rows] @ a)
                assert same(found, q)
                assert np.array_equal(b.dequantize(), want)


def test_stacks_of_matrices(tmp_path, rng):
    w = rng.standard_normal((3, 96, 40), np.float32)
    x = rng.standard_normal((3, 5, 96), np.float32)
    for number, group in enumerate((None, 16, 6)):
        q = fq.quantize(w, 3, axis=1, group_size=group)
        q.save(tmp_path / f"{number}")
        assert np.array_equal(x @ fq.load(tmp_path / f"{number}"), x @ q)
        q = fq.quantize(w.swapaxes(1, 2), 3, axis=-1, group_size=group)
        q.save(tmp_path / f"turned {number}")
        found = fq.load(tmp_path / f"turned {number}")
        assert np.array_equal(x @ found.mT, x @ q.mT)


def test_files_are_plain(tmp_path, rng):
    """Arrays as NumPy writes them, one JSON file, and rights as those of any folder."""
    q = fq.quantize(rng.standard_normal((64, 32)), 3, axis=0, group_size=16)
    q.save(tmp_path / "q")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "q").stat().st_mode == (tmp_path / "other").stat().st_mode
    arrays, attributes = take_apart(q)
    document = json.loads((tmp_path / "q" / "qarray.json").read_text())
    assert document == {**attributes, "arrays": sorted(arrays)}
    assert {p.name for p in (tmp_path / "q").iterdir()} == {"qarray.json", *(f"{n}.npy" for n in arrays)}
    for name, a in arrays.items():
        found = np.load(tmp_path / "q" / f"{name}.npy", allow_pickle=False)
        assert found.dtype == a.dtype
        assert np.array_equal(found, a)


def test_what_was_loaded_is_saved_pickled_and_cut(tmp_path, rng):
    q = fq.quantize(rng.standard_normal((64, 48), np.float32), 3, axis=-1)
    q.save(tmp_path / "a")
    found = fq.load(tmp_path / "a")
    found.save(tmp_path / "b")
    for name in ("qarray.json", "tiles.npy", "scale.npy", "sums.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert pickle.loads(pickle.dumps(found)).equals(q)
    assert found[16:32].equals(q[16:32])
    assert np.shares_memory(found[16:32]._store._form.packed[()].tiles, found._store._form.packed[()].tiles)


@linux
def test_loading_reads_no_codes(tmp_path, rng):
    """Nothing of the tiles is in memory after loading, and of a product with some rows only those."""
    q = fq.quantize(np.tile(rng.standard_normal((64, 4096), np.float32), (256, 1)), 2, axis=-1)
    q.save(tmp_path / "q")
    found = fq.load(tmp_path / "q")
    size = (tmp_path / "q" / "tiles.npy").stat().st_size
    assert size > 16 << 20
    assert resident("tiles.npy") == 0
    x = rng.standard_normal((2, 4096), np.float32)
    part = found[1024:2048]
    assert np.array_equal(x @ part.T, x @ q[1024:2048].T)
    # The system also maps pages around those that are read, if they are in its cache: up to a few MiB.
    assert size / 16 <= resident("tiles.npy") <= size / 2
    assert np.array_equal(x @ found.T, x @ q.T)
    assert resident("tiles.npy") >= size - PAGESIZE


def resident(name):
    """Bytes in memory of the maps of a file."""
    total, mine = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if line.startswith("Rss:"):
                total += int(line.split()[1]) << 10 if mine else 0
            elif not line.split()[0].endswith(":"):
                mine = name in line
    return total


# What must not be there


def nothing_beside(path, *expected):
    assert {p.name for p in path.iterdir()} == set(expected)


def test_existing_names(tmp_path, rng):
    a, b = (fq.quantize(rng.standard_normal((64, 32)), 3, axis=0) for _ in range(2))
    a.save(tmp_path / "q")
    with pytest.raises(FileExistsError, match="path must not exist yet, or be overwritten with overwrite=True; got "):
        b.save(tmp_path / "q")
    old = fq.load(tmp_path / "q")
    assert old.equals(a)
    b.save(tmp_path / "q", overwrite=True)
    assert fq.load(tmp_path / "q").equals(b)
    assert old.equals(a)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(FileExistsError, match="path must be free, or a folder that fastq has saved, which alone is"):
        b.save(tmp_path / "mine", overwrite=True)
    (tmp_path / "file").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            b.save(tmp_path / "file", overwrite=overwrite)
    nothing_beside(tmp_path, "q", "mine", "file")
    with pytest.raises(FileNotFoundError):
        b.save(tmp_path / "none" / "q")


@linux
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_cannot_grow(tmp_path, rng, overwrite):
    """The system refuses to write on: nothing is left, and what was there before stays."""
    import resource  # which Windows lacks

    q = fq.quantize(rng.standard_normal((512, 512)), 8, axis=0)
    small = fq.quantize(np.eye(3), axis=0)
    if overwrite:
        small.save(tmp_path / "q")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            q.save(tmp_path / "q", overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    nothing_beside(tmp_path, *(["q"] if overwrite else []))
    assert not overwrite or fq.load(tmp_path / "q").equals(small)


@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["__setitem__", "finish", "fsync", "rename"])
def test_failures_on_the_way(tmp_path, rng, monkeypatch, kind, place):
    """Wherever it goes wrong, there is nothing of that name."""
    q = fq.quantize(rng.standard_normal((64, 64)), 3, axis=0)
    owner = {"__setitem__": folders.NpyFile, "finish": folders.Folder, "fsync": os, "rename": folders.Path}[place]
    calls = []
    real = getattr(owner, place)

    def fail(*args):
        calls.append(args)
        if len(calls) == (1 if place in ("finish", "rename") else 2):
            raise kind
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, fail)
        with pytest.raises(type(kind)):
            q.save(tmp_path / "q")
    assert calls
    nothing_beside(tmp_path)
    q.save(tmp_path / "q")
    assert fq.load(tmp_path / "q").equals(q)


# What is not whole


def saved(tmp_path, rng):
    q = fq.quantize(rng.standard_normal((96, 40)), 3, axis=0, group_size=16, balance=rng.uniform(1, 2, 96))
    q.save(tmp_path / "q")
    return tmp_path / "q"


@pytest.mark.parametrize("mmap", [True, False])
def test_missing_and_cut_files(tmp_path, rng, mmap):
    place = saved(tmp_path, rng)
    for file in sorted(place.iterdir()):
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(FileNotFoundError, match=file.name):
            load(place, mmap)
        for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
            if file.suffix == ".json" and size == len(whole) - 1:
                continue  # the line's end
            file.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=file.name):
                load(place, mmap)
        file.write_bytes(whole)
    load(place, mmap)


def test_files_of_another_array(tmp_path, rng):
    place = saved(tmp_path, rng)
    np.save(place / "tiles.npy", np.zeros((3, 2, 385), np.uint8))
    with pytest.raises(ValueError, match=r"q holds no quantized array that is whole: tiles must be .* got uint8"):
        load(place)
    np.save(place / "tiles.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"tiles\.npy must be a complete \.npy file of numbers"):
        load(place)


@pytest.mark.parametrize("text", [
    "", "[]", "3", "null", "{", "[" * 100_000, '{"arrays": 3}', '{"arrays": ["../scale"]}', '{"arrays": [3]}', "{}",
    b"\xff\xfe", '{"arrays": []}', '{"arrays": [], "fastq": 1}',
])  # fmt: skip
def test_documents_that_are_none(tmp_path, rng, text):
    place = saved(tmp_path, rng)
    (place / "qarray.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"qarray\.json|holds no quantized array that is whole: attributes must be"):
        load(place)


def test_any_bytes(tmp_path, rng):
    """Files with bytes changed are refused, or are another array: products end either way."""
    place = saved(tmp_path, rng)
    x = rng.standard_normal((2, 96))
    dice = random.Random(5)
    files = sorted(place.iterdir())
    refused = 0
    for _ in range(300):
        file = dice.choice(files)
        whole = file.read_bytes()
        mine = bytearray(whole)
        for _ in range(dice.choice((1, 3))):
            mine[dice.randrange(min(len(mine), 400))] = dice.choice((dice.randrange(256), 48, 57, 44, 125))
        file.write_bytes(mine)
        try:
            q = load(place)
            with np.errstate(all="ignore"):
                assert (x[:, : q.shape[0]] @ q).shape == (2, q.shape[1])
        except ValueError:
            refused += 1
        file.write_bytes(whole)
    assert 100 < refused < 300
