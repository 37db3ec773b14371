"""quantize_all: which arrays are quantized, and how; in memory and in files the same, in little memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq import progress
from fastq.formats import blocks
from fastq.models import quantize_all as module
from fastq.storage import out_of_core

RNG = np.random.default_rng(0)
MODEL = {
    "embed.weight": RNG.standard_normal((200, 64), np.float32),
    "0.up.weight": RNG.standard_normal((128, 64), np.float32),
    "0.up.bias": np.zeros(128, np.float32),
    "0.down.weight": RNG.standard_normal((64, 128)).astype(np.float16),
    "small.weight": RNG.standard_normal((4, 64), np.float32),
    "conv.weight": RNG.standard_normal((64, 32, 3), np.float32),
    "steps": np.arange(10_000).reshape(100, 100),
    "done": fq.quantize(RNG.standard_normal((64, 96), np.float32), bits=3, axis=-1),
    "scalar": np.array(3, np.float32),
    "none": np.zeros((0, 8192), np.float32),
}
BIG = "embed.weight", "0.up.weight", "0.down.weight"


def what(model):
    return {row.name: row.what for row in model.report}


def same(model, other):
    """Whether two mappings hold equal arrays."""
    assert model.keys() == other.keys()
    for name in model:
        if isinstance(other[name], fq.QArray):
            assert model[name].equals(other[name]), name
        else:
            assert (model[name].dtype, model[name].tobytes()) == (other[name].dtype, other[name].tobytes()), name
    return True


# What is quantized


def test_matrices_of_floats_that_are_worth_it():
    model = fq.quantize_all(MODEL)
    assert what(model) == {
        **dict.fromkeys(BIG, "8 bits, axis 1, minmax"),
        "0.up.bias": "a vector",
        "small.weight": "256 elements, fewer than 4096",
        "conv.weight": "3 elements along axis -1, fewer than 32",
        "steps": "int64, not floats of 16 to 64 bits",
        "done": "quantized already, 3 bits",
        "scalar": "a number",
        "none": "empty",
    }
    assert list(model) == list(MODEL)
    for name, value in MODEL.items():
        if name in BIG:
            assert model[name].equals(fq.quantize(value, bits=8, axis=-1))
            assert model[name].dtype == value.dtype
        else:
            assert model[name] is value


def test_bfloat16_and_big_endian():
    w = MODEL["embed.weight"]
    model = fq.quantize_all({"a": w.astype(ml_dtypes.bfloat16), "b": w.astype(">f4")})
    assert model["a"].dtype == ml_dtypes.bfloat16
    assert model["b"].equals(fq.quantize(w, axis=-1))


def test_include_takes_small_ones_and_exclude_comes_first():
    model = fq.quantize_all(MODEL, include=["small*", "0.*", "conv.weight"], exclude="*down*")
    assert {row.name for row in model.report if row.quantized} == {"small.weight", "0.up.weight", "conv.weight"}
    assert what(model)["0.down.weight"] == "excluded"
    assert what(model)["embed.weight"] == "not included"
    assert what(model)["0.up.bias"] == "a vector"
    by_function = fq.quantize_all(MODEL, include=lambda name: name[0] == "0", exclude=lambda name: "down" in name)
    assert [row.name for row in by_function.report if row.quantized] == ["0.up.weight"]


def test_settings_by_name():
    model = fq.quantize_all(
        MODEL,
        bits={"*.weight": 4, "embed.weight": 8, "0.*": 2},  # the name itself comes first, then the first that fits
        group_size={"0.up.weight": 32},
        axis=lambda name: 0 if "down" in name else -1,
        method={"embed*": "mse", "*down*": fq.Percentile(99)},
        scheme="asymmetric",
        group_scale="float",
        exclude="steps",
    )
    assert {name: words for name, words in what(model).items() if name in BIG} == {
        "embed.weight": "8 bits, axis 1, asymmetric, mse",
        "0.up.weight": "4 bits, groups of 32, axis 1, asymmetric, minmax",
        "0.down.weight": "4 bits, axis 0, asymmetric, 99 percent",
    }
    up = fq.quantize(MODEL["0.up.weight"], 4, axis=-1, group_size=32, scheme="asymmetric", group_scale="float")
    assert model["0.up.weight"].equals(up)


def test_without_bits_an_array_stays():
    model = fq.quantize_all(MODEL, bits={"0.up.weight": 4, "embed*": None})
    assert what(model)["embed.weight"] == what(model)["0.down.weight"] == "bits say nothing of it"
    assert model["0.up.weight"].bits == 4
    assert fq.quantize_all(MODEL, bits=lambda name: 3 if "down" in name else None)["0.down.weight"].bits == 3


def test_names_with_signs_of_patterns_stand_for_themselves():
    w = MODEL["embed.weight"]
    model = fq.quantize_all({"a[0]": w, "a0": w}, bits={"a[0]": 4})
    assert model["a[0]"].bits == 4
    assert model["a0"] is w


def test_calibration():
    rows = RNG.standard_normal((500, 64)).cumsum(axis=1)
    moment = fq.SecondMoment.of(rows)
    model = fq.quantize_all(
        MODEL,
        bits=3,
        method={"*up*": "gptq", "*": "mse"},
        calibration={"*up.weight": moment, "embed*": moment, "steps": rows},
    )
    assert model["0.up.weight"].equals(fq.quantize(MODEL["0.up.weight"], 3, axis=-1, method="gptq", calibration=moment))
    assert what(model)["0.up.weight"] == "3 bits, axis 1, gptq"
    assert what(model)["embed.weight"] == "3 bits, axis 1, mse with calibration"
    assert what(model)["steps"] == "int64, not floats of 16 to 64 bits; its calibration is not used"
    again = fq.quantize_all(MODEL, bits=3, method="mse", calibration=lambda name: moment if "embed" in name else None)
    assert again["embed.weight"].equals(model["embed.weight"])


def test_calibration_of_a_function_is_not_kept():
    """For each array a moment is made, checked, and given up again: K x K numbers for each would fill memory."""
    made = []

    def calibration(name):
        assert sum(moment() is not None for moment in made) <= 1
        moment = fq.SecondMoment.of(np.ones((4, MODEL[name].shape[-1])))
        made.append(weakref.ref(moment))
        return moment

    fq.quantize_all({name: MODEL[name] for name in BIG}, method="mse", calibration=calibration)
    assert len(made) == 2 * len(BIG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": {"*.wright": 4}}, r"bits must fit names of arrays; '\*\.wright' fits none of 10; close to it: .*"),
        ({"calibration": {"0.up.wright": 1}}, r"calibration must fit names .*; close to it: 0\.up\.weight"),
        ({"exclude": ["embed*", "norm*"]}, r"exclude must fit names of arrays; 'norm\*' fits none of 10$"),
        ({"include": "lm_head"}, "include must fit"),
        ({"bits": 9}, "bits must be from 2 to 8"),
        ({"axis": 7}, r"array 'embed\.weight': axis must be from -2 to 1"),
        ({"method": {"*up*": "gptq"}}, r"array '0\.up\.weight': method='gptq' needs calibration"),
        (
            {"method": "mse", "calibration": {"*up.weight": np.ones((9, 65))}},
            r"array '0\.up\.weight': calibration must have rows of 64 elements",
        ),
        ({"bits": lambda name: 9 if "down" in name else 8}, r"array '0\.down\.weight': bits must be from 2 to 8"),
    ],
)
def test_errors_come_first_and_name_the_array(change, words, tmp_path):
    told = []
    with pytest.raises(ValueError, match=words):
        fq.quantize_all(MODEL, **change, out=tmp_path / "m", progress=lambda *steps: told.append(steps))
    assert not told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("out", [False, True])
def test_nan_names_the_array_and_leaves_the_old_file(out, large, tmp_path, monkeypatch):
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1 if large else 1 << 30)
    bad = MODEL["embed.weight"].copy()
    bad[3, 5] = np.nan
    (tmp_path / "m").write_text("old")
    with pytest.raises(fq.NotFiniteError, match=r"^array 'bad' must be finite, .* the first at index \(3, 5\) \(nan\)"):
        fq.quantize_all({"a": MODEL["embed.weight"], "bad": bad}, out=tmp_path / "m" if out else None)
    assert (tmp_path / "m").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


# The report


def test_the_report():
    model = fq.quantize_all(MODEL, bits=4, group_size=64)
    lines = str(model.report).splitlines()
    assert len(lines) == len(MODEL) + 1
    assert [line.split()[0] for line in lines[:-1]] == list(MODEL)
    assert "stays: a vector" in lines[2]
    assert lines[-1].startswith("3 of 10 arrays quantized: ")
    assert model.report.before == sum(row.before for row in model.report) > model.report.after
    assert repr(model) == f"<{lines[-1]}; see .report>"
    assert str(fq.quantize_all({}).report) == "0 of 0 arrays quantized: 0 bytes -> 0 bytes"


def test_bytes_are_those_of_the_file(tmp_path):
    model = fq.quantize_all(MODEL, bits={"*": 4, "0.*": 3}, group_size=32, out=tmp_path / "m")
    assert model.arrays.format == "fastq"
    for row in model.report:
        assert row.after == model.arrays.entry(row.name).nbytes, row
        assert row.shape == model.arrays.entry(row.name).shape


# Files


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
def test_files_hold_the_same(large, scheme, tmp_path, monkeypatch):
    """Whether arrays are quantized at once or block by block, of whatever width, axis, groups and order in memory."""
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1 if large else 1 << 30)
    monkeypatch.setattr(out_of_core, "BLOCK", 2048)
    monkeypatch.setattr(out_of_core, "SETS", 64)
    w = RNG.standard_normal((100, 90), np.float32)
    stack = RNG.standard_normal((3, 40, 70)).astype(np.float16)
    model, bits, axis, groups = dict(MODEL), {}, {}, {}
    forms = itertools.product(
        (w, np.asfortranarray(w), w.astype(np.float64), stack), (2, 3, 5, 8), (0, -1, None), (None, 16, 30)
    )
    for i, (x, width, along, size) in enumerate(forms):
        if size is None or along is not None:
            name = f"{i}.weight" if i % 2 else f"m{i}"
            model[name], bits[name], axis[name], groups[name] = x, width, along, size
    settings = {"bits": bits, "axis": axis, "group_size": groups, "scheme": scheme, "include": list(bits)}
    made = fq.quantize_all(model, **settings, out=tmp_path / "m")
    assert sum(row.quantized for row in made.report) == len(bits)
    assert same(made, fq.quantize_all(model, **settings))
    assert same(fq.open(tmp_path / "m"), made)


@pytest.mark.parametrize("method", ["mse", "percentile", "gptq"])
def test_methods_block_by_block(method, tmp_path, monkeypatch):
    rows = RNG.standard_normal((300, 64)).cumsum(axis=1)
    settings = {"bits": 4, "group_size": 32, "method": method, "include": BIG[:2]}
    if method == "gptq":
        settings["calibration"] = dict.fromkeys(BIG[:2], fq.SecondMoment.of(rows))
    want = fq.quantize_all(MODEL, **settings)
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1)
    assert same(fq.quantize_all(MODEL, **settings, out=tmp_path / "m"), want)


def test_from_file_to_file_even_the_same(tmp_path):
    fq.save(tmp_path / "m", MODEL)
    made = fq.quantize_all(fq.open(tmp_path / "m"), out=tmp_path / "m")
    assert same(made, fq.quantize_all(MODEL))


def test_npz(tmp_path):
    arrays = {name: value for name, value in MODEL.items() if not isinstance(value, fq.QArray)}
    np.savez(tmp_path / "m.npz", **arrays)
    with np.load(tmp_path / "m.npz") as file:
        made = fq.quantize_all(file, out=tmp_path / "m")
    assert same(made, fq.quantize_all(arrays))


class Lazy(Mapping):
    """Arrays that are made anew each time, of which `change` makes the second one different."""

    def __init__(self, change=lambda x: x):
        self.seen, self.change = [], change

    def __getitem__(self, name):
        self.seen.append(name)
        x = np.full((64, 64 if name != "3" else 1), int(name), np.float32)
        return self.change(x) if self.seen.count(name) == 2 else x

    def __iter__(self):
        return iter("123")

    def __len__(self):
        return 3


def test_arrays_are_taken_one_at_a_time(tmp_path):
    lazy = Lazy()
    fq.quantize_all(lazy, out=tmp_path / "m")
    assert lazy.seen == [*"123123"]


@pytest.mark.parametrize("change", [lambda x: x[1:], lambda x: x.astype(np.float64), fq.quantize])
def test_arrays_must_stay_as_they_are(change, tmp_path):
    with pytest.raises(ValueError, match="array '1' must stay as it is while it is quantized; it was "):
        fq.quantize_all(Lazy(change), out=tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("large", [False, True])
def test_an_interrupt_leaves_the_old_file(error, large, tmp_path, monkeypatch):
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1 if large else 1 << 30)

    def stop(done, total):
        if done > total / 2:
            raise error

    fq.save(tmp_path / "m", {"x": [1.0]})
    with pytest.raises(error):
        fq.quantize_all(MODEL, out=tmp_path / "m", progress=stop)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert fq.open(tmp_path / "m")["x"] == 1


def test_what_the_writing_thread_raises(tmp_path, monkeypatch):
    """A full disk, say."""
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1)

    def full(words, box, codes):
        raise OSError("no space")

    monkeypatch.setattr(blocks._Words, "_write", full)
    with pytest.raises(OSError, match="no space"):
        fq.quantize_all(MODEL, out=tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("wide", [False, True])
def test_bounded_memory(wide, tmp_path):
    """A matrix of 256 MiB and a plain array of as much, both read from a file, in less than 128 MiB more."""
    shape = (1024, 65536) if wide else (65536, 1024)
    with open(tmp_path / "zeros", "wb") as file:
        file.truncate(256 << 20)  # takes no room on the disk
    code = (
        "import sys, numpy as np, fastq as fq\n"
        "fq.quantize_all({'w': np.ones((64, 64))}, axis=0, out=sys.argv[2])\n"
        "def peak(): return int(next(l for l in open('/proc/self/status') if 'VmHWM' in l).split()[1])\n"
        f"x = np.memmap(sys.argv[1], np.float32, 'r', shape={shape})\n"
        "before = peak()\n"
        "model = fq.quantize_all({'w': x, 'plain': x.view(np.int32)}, axis=0, out=sys.argv[2])\n"
        "print(peak() - before, model.report[0].quantized)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "zeros", tmp_path / "m"], capture_output=True, text=True, check=True
    )
    more, quantized = done.stdout.split()
    assert quantized == "True"
    assert int(more) < 128 << 10
    assert os.path.getsize(tmp_path / "m") > 256 << 20


# Progress


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_progress_in_bytes(out, large, tmp_path, monkeypatch):
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1 if large else 1 << 30)
    monkeypatch.setattr(out_of_core, "BLOCK", 2048)
    told = []
    model = fq.quantize_all(MODEL, out=tmp_path / "m" if out else None, progress=lambda *steps: told.append(steps))
    assert told == sorted(told)
    assert len(set(told)) == len(told)
    assert {total for _, total in told} == {model.report.before}
    assert told[-1][0] == model.report.before
    ends = list(itertools.accumulate(row.before for row in model.report))
    assert set(ends) <= {done for done, _ in told}
    assert (len(told) > len(MODEL)) == (out and large)


@pytest.mark.parametrize(
    ("asked", "terminal", "shown"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_a_line_on_a_terminal(asked, terminal, shown, monkeypatch, capsys):
    monkeypatch.setattr(module, "watched", lambda: terminal)
    monkeypatch.setattr(out_of_core, "IN_ONE_GO", 1)
    fq.quantize_all({"w": np.ones((64, 64), np.float32)}, progress=asked)
    assert ("quantizing: 0 of 0 MiB" in capsys.readouterr().err) == shown


def test_the_line_ends_after_an_error(capsys, monkeypatch):
    monkeypatch.setattr(progress.Line, "__init__", terminal_line)
    with pytest.raises(fq.NotFiniteError):
        fq.quantize_all({"w": np.ones((64, 64)), "bad": np.full((64, 64), np.nan)}, progress=True)
    assert capsys.readouterr().err.endswith("\n")


def terminal_line(line):
    line.terminal, line.told, line.last = True, None, -1.0
