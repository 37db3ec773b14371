"""What is in a file, and what quantizing it would cost and gain."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.formats.entries import Entry, Opened
from fastq.models import inspection, parts
from fastq.models.inspection import ArrayRow, form_in_words, inspect, sorted_rows
from fastq.models.planning import planned

RNG = np.random.default_rng(7)
UP, DOWN = RNG.standard_normal((96, 160), np.float32), RNG.standard_normal((160, 100)).astype(np.float16)
MODEL = {
    "up.weight": UP,
    "down.weight": DOWN,
    "wide.weight": UP.astype(np.float64),
    "brain.weight": UP.astype(ml_dtypes.bfloat16),
    "stack": RNG.standard_normal((3, 40, 64), np.float32),
    "up.bias": np.zeros(160, np.float32),
    "steps": np.arange(4),
    "empty": np.zeros((0, 4), np.float32),
    "done.weight": fq.quantize(UP, 4, axis=-1, group_size=32),
}
FORMS = tuple(itertools.product((8, 3), (None, 32)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "żółw"
    fq.save(path, MODEL)
    return fq.open(path)


def unreadable(model, name="broken", error=fq.FileFormatError):
    def read():
        raise error(f"{name} is broken")

    entries = {other: model.entry(other) for other in model}
    return Opened("file", "made", {name: Entry((64, 64), "float32", 16384, read), **entries})


def by_name(found):
    return {row.name: row for row in found.rows}


def test_each_array_has_a_row(model):
    found = inspect(model)
    assert [row.name for row in found.rows] == list(model)
    rows = by_name(found)
    for name, value in MODEL.items():
        entry = model.entry(name)
        assert (rows[name].shape, rows[name].kind, rows[name].nbytes) == entry[:3]
        assert rows[name].size == value.size
    assert rows["up.weight"].bits_per_weight == 32
    assert rows["empty"].bits_per_weight == 0
    assert rows["done.weight"].bits_per_weight == 8 * model.entry("done.weight").nbytes / UP.size
    assert rows["done.weight"].form == "symmetric, axis 1, integer group scales"
    assert (found.path, found.format, found.forms) == (model.path, "fastq", ())
    assert found.nbytes == sum(model.entry(name).nbytes for name in model)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("at_once", [1 << 20, 3000])
def test_sqnr_is_that_of_quantize_and_error(model, axis, method, at_once, monkeypatch):
    """Whether arrays are measured whole or in parts."""
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    rows = by_name(inspect(model, (8, 3), (None, 32), axis=axis, method=method, scheme="asymmetric"))
    for name in ("up.weight", "down.weight", "wide.weight", "brain.weight", "stack"):
        if name == "stack" and axis == 0:
            assert rows[name].stays == "3 elements along axis 0, fewer than 32"
            continue
        assert tuple(rows[name].sqnr) == FORMS
        for (bits, group), sqnr in rows[name].sqnr.items():
            q = fq.quantize(MODEL[name], bits, axis=axis, group_size=group, method=method, scheme="asymmetric")
            assert sqnr == pytest.approx(fq.error(MODEL[name], q).sqnr_db, abs=1e-6), (name, bits, group)


def test_sizes_are_those_of_files(model, tmp_path):
    found = inspect(model, (8, 3), (None, 32))
    for form in FORMS:
        bits, group = form
        report = fq.quantize_all(model, bits=bits, group_size=group, out=tmp_path / "out").report
        assert found.quantized(form) == report.after
        for row in report:
            mine = by_name(found)[row.name]
            assert mine.sizes.get(form) == (row.after if row.quantized else None)
    assert by_name(found)["up.bias"].stays == "a vector"
    assert by_name(found)["done.weight"].stays == "quantized already"


def test_dry_reads_nothing(model):
    """And tells the same sizes."""
    whole = by_name(inspect(model, (8, 3), (None, 32)))

    def read():
        raise AssertionError("read")

    entries = {name: model.entry(name)._replace(read=read) for name in model}
    dry = inspect(Opened("file", "made", entries), (8, 3), (None, 32), dry=True)
    for row in dry.rows:
        assert row.sizes == whole[row.name].sizes
        assert not row.sqnr
        assert not row.problem


def test_what_would_be_done_is_planned_without_reading(model, tmp_path):
    settings = {"bits": {"up*": 3, "*": 8}, "axis": -1, "group_size": 32, "method": "mse", "calibration": None}
    common = {"scheme": "symmetric", "group_scale": None}
    entries = {name: model.entry(name)._replace(read=None) for name in model}
    plan = planned(Opened("file", "made", entries), settings, common, None, "stack")
    done = fq.quantize_all(model, **settings, **common, exclude="stack", out=tmp_path / "out").report
    assert [row for row in plan if row.name != "done.weight"] == [row for row in done if row.name != "done.weight"]
    assert (plan.before, plan.after) == (done.before, done.after)
    assert {row.name: row.what for row in plan}["done.weight"] == "no plain array: 4 bits, groups of 32"


@pytest.mark.parametrize("error", [fq.FileFormatError, OSError, MemoryError, TypeError])
def test_what_cannot_be_read_is_named_and_the_rest_is_there(model, error):
    found = inspect(unreadable(model, error=error), (8,))
    assert by_name(found)["broken"].problem == "broken is broken"
    assert len(found.rows) == len(MODEL) + 1
    assert by_name(found)["up.weight"].sqnr


def test_numbers_that_are_not_finite(tmp_path):
    fq.save(tmp_path / "m", {"nan": np.where(UP > 2, np.nan, UP), "good": UP})
    rows = by_name(inspect(fq.open(tmp_path / "m"), (8,)))
    assert "must be finite" in rows["nan"].stays
    assert not rows["nan"].sqnr
    assert rows["nan"].sizes
    assert rows["good"].sqnr


def test_types_that_numpy_lacks(model):
    odd = {"a": Entry((64, 64), "F4", 2048, None), "b": Entry((64, 64), "i4,f8", 9, None)}
    assert [inspection.stand_in(entry) for entry in odd.values()] == [None, None]
    rows = inspect(Opened("file", "made", odd), (8,), dry=True).rows
    assert [row.stays for row in rows] == ["not floats of 16 to 64 bits"] * 2


def test_a_file_without_arrays(tmp_path):
    fq.save(tmp_path / "m", {})
    found = inspect(fq.open(tmp_path / "m"), (8,))
    assert (found.rows, found.nbytes, found.size, found.quantized((8, None))) == ((), 0, 0, 0)
    assert found.worst((8, None)) is None


@pytest.mark.parametrize(("at_once", "fewest", "most"), [(1 << 20, len(MODEL), len(MODEL)), (3000, 30, 200)])
def test_progress_is_told(model, monkeypatch, at_once, fewest, most):
    """After each array, and within large ones."""
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    told, total = [], sum(model.entry(name).nbytes for name in model)
    inspect(model, (3,), tell=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert {of for _, of in told} == {total}
    assert fewest <= len(told) <= most


def test_sorting(model):
    rows = inspect(model, (3,)).rows
    assert [row.name for row in sorted_rows(rows, "name")] == sorted(MODEL)
    sizes = [row.nbytes for row in sorted_rows(rows, "size")]
    assert sizes == sorted(sizes, reverse=True)
    bits = [row.bits_per_weight for row in sorted_rows(rows, "bits")]
    assert bits == sorted(bits, reverse=True)
    kinds = [row.kind for row in sorted_rows(rows, "kind")]
    assert kinds == sorted(kinds)
    worst = sorted_rows(rows, "sqnr")
    assert worst[0] is min((row for row in rows if row.sqnr), key=lambda row: row.sqnr[3, None])
    assert [bool(row.sqnr) for row in worst] == [True] * 5 + [False] * 4


def test_it_shows_in_a_line(model):
    found = inspect(model, (8,), (64,))
    assert repr(found) == f"Inspection({model.path!r}, fastq: 9 arrays, {found.nbytes / 1024:.1f} KiB)"
    assert repr(by_name(found)["up.weight"]).startswith(
        "ArrayRow('up.weight', (96, 160), float32, 60.0 KiB, 8 bits / 64: 4"
    )
    assert repr(ArrayRow("a", (), "int8", 1)) == "ArrayRow('a', (), int8, 1 bytes)"
    assert form_in_words((3, None)) == "3 bits"


SHAPES = [(7, 5), (5, 7), (1, 900), (900, 1), (3, 20, 9), (40,), (), (0, 5), (2, 2, 2, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_once", [1, 13, 10**6])
def test_boxes_make_up_the_array_and_cut_no_line(shape, at_once, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    for axis in (None, *range(-len(shape), len(shape))):
        seen = np.zeros(shape, int)
        for box in parts.boxes(shape, axis):
            seen[box] += 1
            assert axis is None or seen[box].shape[axis] == shape[axis]
        assert (seen == 1).all()


def test_parts_of_maps_are_copies(tmp_path):
    np.save(tmp_path / "x.npy", UP)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    part = parts.read(mapped, (slice(3, 9), slice(None)))
    assert part.base is None or not isinstance(part.base, np.memmap)
    assert np.array_equal(part, UP[3:9])
    assert np.array_equal(mapped, UP)  # pages that went come back
