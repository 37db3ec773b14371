"""Quantizing block by block: the same as in memory, bit for bit, in memory that does not grow with x."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastq as fq
from fastq.quant.spec import QuantSpec
from fastq.storage import maps, out_of_core
from tests.storage.test_files import resident

TYPES = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int8, np.uint16, np.int32, ">f4", ">i2")


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a few thousand elements take many of them."""
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1)
    monkeypatch.setattr(out_of_core, "BLOCK", 2048)
    monkeypatch.setattr(out_of_core, "SETS", 64)
    monkeypatch.setattr(out_of_core, "SPAN", 4096)


@pytest.fixture
def place(tmp_path):
    """Names for new folders."""
    numbers = iter(range(10**6))
    return lambda: tmp_path / f"out {next(numbers)}"


def map_of(path, x, order="C", mode="r"):
    """An array in a memory map."""
    m = np.memmap(path, x.dtype, "w+", shape=x.shape, order=order)
    m[...] = x
    m.flush()
    return np.memmap(path, x.dtype, mode, shape=x.shape, order=order)


def check(x, out=None, **form):
    """Quantize a map, and the same array in memory."""
    want = fq.quantize(np.array(x), **form)
    told = []
    got = fq.quantize(x, out=out, progress=lambda *step: told.append(step), **form)
    if form.get("method") == "gptq":  # the last bits of its scales depend on the blocks
        assert np.array_equal(got.codes, want.codes)
        assert np.allclose(got.dequantize(), want.dequantize(), rtol=1e-5, atol=0)
    else:
        assert got.equals(want)
    assert (got.scale.dtype, got.codes.dtype, got.dtype) == (want.scale.dtype, want.codes.dtype, want.dtype)
    total = told[-1][1]
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert total in (x.nbytes, 2 * x.nbytes)
    if got._store.packed:
        for right in got._store._form.packed.values():
            if right.col_sum is not None:
                assert np.array_equal(right.col_sum[0, : right.n], right.codes().sum(axis=0, dtype=np.int32))
    return got, len(told), total // x.nbytes


# The same as in memory


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
def test_matrices(small, tmp_path, place, rng, isa, scheme, order):
    """All forms: axes, groups (integer and float ones, with gaps in the tiles, larger than a block), widths."""
    x = map_of(tmp_path / "x", rng.standard_normal((150, 210), np.float32), order)
    forms = [{"axis": None}, *({"axis": axis, "group_size": g} for axis in (0, 1) for g in (None, 16, 48, 6, 100, 140))]
    for number, form in enumerate(forms):
        out = None if number % 3 == 0 else place()
        _, blocks, _ = check(x, out, bits=3 + 5 * (number % 2), scheme=scheme, **form)
        assert blocks > 10


@pytest.mark.parametrize("method", ["mse", "percentile", "gptq"])
def test_methods(small, tmp_path, place, rng, method):
    x = map_of(tmp_path / "x", rng.standard_normal((64, 80), np.float32))
    for axis, group, scheme in product((0, 1), (None, 16), ("symmetric", "asymmetric")):
        rows = rng.standard_normal((90, x.shape[axis])) + rng.standard_normal((90, 1))
        led = {"calibration": rows} if method != "percentile" else {}
        _, blocks, passes = check(x, place(), bits=3, axis=axis, group_size=group, scheme=scheme, method=method, **led)
        assert blocks == 2 if method == "gptq" else blocks > 2  # its pieces are as large as the second moment
        assert passes == 1
    if method != "gptq":
        _, blocks, _ = check(x, place(), axis=None, method=method)
        assert blocks == 1


def test_calibration_moves_with_pieces(small, tmp_path, rng, monkeypatch):
    """More pieces than one under a second moment, with a balance and a rotation."""
    x = map_of(tmp_path / "x", rng.standard_normal((32, 160), np.float32))
    rows = rng.standard_normal((90, 32))
    for method in ("mse", "gptq"):
        form = {"axis": 0, "method": method, "calibration": rows, "balance": rng.uniform(0.5, 2, 32), "rotate": True}
        _, blocks, _ = check(x, bits=3, group_size=16, **form)
        assert blocks > 1


@pytest.mark.parametrize("dtype", TYPES)
def test_types(small, tmp_path, place, rng, dtype):
    x = map_of(tmp_path / "x", (100 * rng.random((100, 90))).astype(dtype))
    for axis in (None, 0, 1):
        check(x, place() if axis else None, axis=axis, bits=4, scheme="asymmetric")


@pytest.mark.parametrize("rotate", [False, True])
def test_balance_and_rotation(small, tmp_path, place, rng, rotate):
    x = map_of(tmp_path / "x", rng.standard_normal((96, 160), np.float32))
    for axis, group in product((0, 1), (None, 16, 6)):
        form = {"axis": axis, "group_size": group, "balance": rng.uniform(0.5, 2, x.shape[axis]), "rotate": rotate}
        got, blocks, _ = check(x, place(), bits=3, **form)
        assert blocks > 1
        assert (got.rotation > 1) == rotate


def test_parameters_of_ones_own(small, tmp_path, place, rng):
    x = map_of(tmp_path / "x", rng.standard_normal((150, 90)))
    columns = rng.uniform(0.01, 0.1, (1, 90))
    for form in ({"scale": 0.1}, {"axis": 0, "scale": columns}, {"axis": 0, "scale": -columns},
                 {"axis": 0, "scale": columns, "zero_point": 3, "scheme": "asymmetric"},
                 {"axis": 0, "group_size": 40, "scale": rng.uniform(0.01, 0.1, (4, 90))}):  # fmt: skip
        _, blocks, passes = check(x, place(), bits=5, **form)
        assert blocks > 1
        assert passes == 1


def test_other_dimensions(small, tmp_path, place, rng):
    x = map_of(tmp_path / "x", rng.standard_normal(5000, np.float32))
    for form in ({}, {"axis": 0}, {"axis": 0, "group_size": 16}, {"axis": 0, "group_size": 2500},
                 {"axis": 0, "group_size": 7, "bits": 8}, {"axis": 0, "group_size": 10, "method": "mse"}):  # fmt: skip
        check(x, place(), **{"bits": 3, **form})
        check(x, **{"bits": 3, **form})
    for shape in ((2, 70, 90), (40, 5, 9), (2, 3, 20, 40)):
        x = map_of(tmp_path / "x", rng.standard_normal(shape))
        for axis in (None, *range(len(shape))):
            for group in (None,) if axis is None else (None, 16, 6):
                check(x, place(), bits=3, axis=axis, group_size=group, scheme="asymmetric")
    for shape in ((), (1,), (0,), (0, 5), (5, 0), (2, 0, 3)):
        x = np.ones(shape)
        for axis in (None, *range(len(shape))):
            q = fq.quantize(x, 3, axis=axis, out=(out := place()))
            assert q.equals(fq.quantize(x, 3, axis=axis))
            assert fq.load(out).equals(q)


def test_maps_of_all_kinds(small, tmp_path, rng):
    """Views of maps, read and written at all offsets; a private copy keeps what was written to it alone."""
    values = rng.standard_normal((70, 120), np.float32)
    whole = map_of(tmp_path / "x", values)
    for x in (whole[3:], whole[::2, ::3], whole.T, whole[::-1], whole[:, 5:50], np.lib.format.open_memmap):
        if callable(x):
            np.save(tmp_path / "x.npy", values)
            x = x(tmp_path / "x.npy", mode="r+")
        for axis in (0, 1):
            check(x, axis=axis, bits=3)
    raw = np.memmap(tmp_path / "raw", np.uint8, "w+", shape=whole.nbytes + 4097)
    raw[4097:] = values.view(np.uint8).reshape(-1)
    for mode in ("r", "r+", "c"):
        x = np.memmap(tmp_path / "raw", np.float32, mode, offset=4097, shape=values.shape)
        assert not x.flags.aligned
        if mode == "c":
            x[:, 7] = np.arange(70)
        before = np.array(x)
        check(x, axis=0, bits=3)
        assert np.array_equal(x, before)
    assert maps.map_of(x) is None
    assert np.array_equal(whole, values)


def test_arrays_in_memory_into_a_folder(small, place, rng):
    x = rng.standard_normal((150, 90))
    for y in (x, x.T, x[::2], x.astype(np.float16)):
        check(y, place(), axis=0, bits=3, group_size=16)
    check(np.arange(12).reshape(3, 4), place())
    assert fq.quantize([[1, 2], [3, 4]], out=place()).shape == (2, 2)


SMALL = st.integers(1, 100)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(SMALL, min_size=2, max_size=3), block=st.integers(1024, 9000), sets=st.integers(16, 500),
    axis=st.sampled_from([None, 0, 1, 2]), group=st.sampled_from([None, None, 6, 10, 16, 32, 64, 80]),
    bits=st.integers(2, 8), scheme=st.sampled_from(["symmetric", "asymmetric", "affine"]),
    order=st.sampled_from(["C", "F"]), out=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@pytest.mark.exhaustive
def test_any_form(tmp_path_factory, shape, block, sets, axis, group, bits, scheme, order, out, seed):
    if axis is not None and axis >= len(shape):
        axis = None
    group = None if axis is None else group
    path = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("IN_ONE_GO", 1), ("BLOCK", block), ("SETS", sets)):
            patch.setattr(out_of_core, name, value)
        x = map_of(path / "x", np.random.default_rng(seed).standard_normal(shape, np.float32), order)
        check(x, path / "q" if out else None, bits=bits, axis=axis, group_size=group, scheme=scheme)


# What is read and held


def test_blocks_are_small(small, tmp_path, rng, monkeypatch):
    """Whatever the form, no block is larger than it must be, and parameters that do not cross blocks take one pass."""
    sizes = []
    read = out_of_core.Source.read
    monkeypatch.setattr(out_of_core.Source, "read", lambda x, box: sizes.append(x.array[box].size) or read(x, box))
    x = map_of(tmp_path / "x", rng.standard_normal((640, 300), np.float32))
    for form, passes in (
        ({"axis": None}, 2), ({"axis": 0}, 2), ({"axis": 1}, 2), ({"axis": 0, "group_size": 16}, 2),
        ({"axis": 0, "group_size": 64, "group_scale": "float"}, 1), ({"axis": 1, "group_size": 30}, 1),
        ({"axis": 0, "group_size": 10}, 2), ({"axis": 1, "group_size": 64, "group_scale": "float"}, 1),
        ({"axis": 0, "group_size": 500}, 2),
    ):  # fmt: skip
        sizes.clear()
        _, _, found = check(x, bits=3, **form)
        assert max(sizes) <= out_of_core.BLOCK
        assert (passes, sum(sizes)) == (found, passes * x.size)
    monkeypatch.setattr(out_of_core, "BLOCK", 16 * 320)
    assert check(x, bits=3, axis=1, group_size=16)[2] == 1  # rows are whole


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_scattered_reads_release_as_they_go(tmp_path):
    """A narrow strip of a map touches every page of it; few of them are in memory at any time."""
    x = map_of(tmp_path / "scattered", np.zeros((16384, 1024), np.float32))
    source = out_of_core.Source(x, maps.map_of(x), x.dtype, QuantSpec(8, 0, None, "symmetric"), None, "x")
    assert source.map is not None
    assert np.array(x[:, :16]).nbytes == x.nbytes // 64
    assert resident("scattered") > x.nbytes / 2
    maps.release(source.map, x)
    assert resident("scattered") == 0
    assert not source.read((slice(0, 16384), slice(0, 16))).any()
    assert resident("scattered") <= 2 * out_of_core.SPAN < x.nbytes / 2


def test_when_blocks_are_used(tmp_path, rng, monkeypatch):
    """Small maps are quantized at once; large ones in blocks; other arrays only into folders."""
    calls = []
    in_blocks = out_of_core.quantize
    monkeypatch.setattr(out_of_core, "quantize", lambda *args: calls.append(args) or in_blocks(*args))
    x = map_of(tmp_path / "x", rng.standard_normal((64, 64)))
    fq.quantize(x)
    fq.quantize(x, out=tmp_path / "a")
    assert not calls
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", x.nbytes)
    fq.quantize(x)
    fq.quantize(x[1:])
    fq.quantize(np.array(x))
    assert len(calls) == 1
    fq.quantize(np.array(x), out=tmp_path / "b")
    assert len(calls) == 2


PEAK = """
import sys, numpy as np, fastq as fq

def told():
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: int(line.split()[1]) << 10 for line in file if line.startswith("Vm")}

x = np.load(sys.argv[1], mmap_mode="r")
for number, form in enumerate([{"axis": -1}, {"axis": 0}, {"axis": -1, "group_size": 64},
                               {"axis": 0, "group_size": 64}, {"axis": None}, {"axis": 0, "scale": 1.0}]):
    q = fq.quantize(x[:64, :64], bits=3, **form)
    (q.T if form["axis"] == -1 else q).prepack()  # kernels are loaded
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = told()["VmRSS"]
    q = fq.quantize(x, bits=3, out=f"{sys.argv[2]}{number}", **form)
    print(told()["VmHWM"] - before, form)
    del q
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.exhaustive
def test_peak(tmp_path, dtype):
    """Converted or not, with parameters that cross blocks or not: a fraction of x."""
    rows = np.random.default_rng(0).standard_normal((1024, 1024)).astype(dtype)
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype, ((128 << 20) // rows[0].nbytes, 1024))
    for first in range(0, len(x), len(rows)):
        x[first : first + len(rows)] = rows
    size = x.nbytes
    del x
    source = str(Path(fq.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), str(tmp_path / "x.npy"), str(tmp_path / "q")],
        env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    peaks = {line.split(" ", 1)[1]: int(line.split()[0]) for line in done.stdout.splitlines()}
    assert len(peaks) == 6
    assert max(peaks.values()) < 48 << 20 < size, peaks


# What goes wrong


@pytest.mark.parametrize("form", [{"axis": None}, {"axis": 0}, {"axis": 1}, {"axis": 0, "group_size": 16},
                                  {"axis": 1, "method": "mse"}, {"axis": 0, "scale": 1.0},
                                  {"axis": 0, "group_size": 16, "group_scale": "float"}])  # fmt: skip
def test_what_is_not_finite(small, tmp_path, rng, isa, form):
    """The error is that of the whole array, and there is no folder."""
    values = rng.standard_normal((80, 90), np.float32)
    for bad in (((79, 89),), ((40, 80), (41, 3), (70, 1)), ((0, 0),)):
        broken = values.copy()
        for number, at in enumerate(bad):
            broken[at] = (np.nan, np.inf, -np.inf)[number]
        x = map_of(tmp_path / "x", broken)
        with pytest.raises(fq.NotFiniteError) as want:
            fq.quantize(broken, 3, **form)
        for out in (None, tmp_path / "q"):
            with pytest.raises(fq.NotFiniteError) as got:
                fq.quantize(x, 3, out=out, **form)
            assert str(got.value) == str(want.value)
        assert {p.name for p in tmp_path.iterdir()} == {"x"}


def test_balanced_and_not_finite(small, tmp_path, rng):
    x = map_of(tmp_path / "x", np.full((96, 48), 3e38, np.float32))
    for axis in (0, 1):
        with pytest.raises(fq.NotFiniteError, match=r"x / balance, rotated, must be finite.*; \d+ of 4608 values"):
            fq.quantize(x, 3, axis=axis, rotate=True, balance=[0.01] * x.shape[axis], out=tmp_path / "q")


def test_errors_leave_nothing(small, tmp_path, rng):
    top = np.finfo(np.float32).max
    x = map_of(tmp_path / "x", np.where(np.arange(9000).reshape(90, 100) == 8000, top, -top).astype(np.float32))
    for axis in (None, 0, 1):
        with pytest.raises(ValueError, match="max - min of affine data must be finite"):
            fq.quantize(x, axis=axis, scheme="affine", out=tmp_path / "q")

    def stop(done, total):
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fq.quantize(x, axis=0, out=tmp_path / "q", progress=stop)
    assert {p.name for p in tmp_path.iterdir()} == {"x"}
    (tmp_path / "q").mkdir()
    told = []
    with pytest.raises(FileExistsError, match="path must not exist yet"):
        fq.quantize(x, axis=0, out=tmp_path / "q", progress=lambda *step: told.append(step))
    assert not told  # it is known before the work


# Progress


def test_a_line_of_progress(small, tmp_path, rng, capsys):
    x = map_of(tmp_path / "x", rng.standard_normal((256, 1024), np.float32))
    fq.quantize(x, 3, axis=0, progress=True)
    told = capsys.readouterr().err
    assert told.startswith("quantizing: 2 of 2 MiB, ")
    assert told.endswith(" s to go\n")
    fq.quantize(np.array(x), 3, axis=0, progress=True)
    assert capsys.readouterr().err.startswith("quantizing: 1 of 1 MiB, ")
    fq.quantize(x, 3, axis=0)
    assert capsys.readouterr() == ("", "")
