"""The commands that read and write files of weights: inspect, quantize, diff."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastq as fq
from fastq.cli import shared
from fastq.cli.main import main

from .keys import undocumented

RNG = np.random.default_rng(1)
MODEL = {
    "up.weight": RNG.standard_normal((64, 128), np.float32),
    "down.żółw": RNG.standard_normal((128, 64), np.float32),
    "bias": np.zeros(64, np.float32),
    "done.weight": fq.quantize(RNG.standard_normal((64, 128), np.float32), 4, axis=-1, group_size=32),
}


@pytest.fixture
def source(tmp_path):
    fq.save(tmp_path / "模型.safetensors", MODEL)
    return str(tmp_path / "模型.safetensors")


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


@pytest.fixture
def document(capsys):
    """What a command prints with --json, which is all that it prints, and whose keys are documented."""

    def run(*argv, code=0):
        assert main([*argv, "--json"]) == code
        captured = capsys.readouterr()
        assert captured.err == ""
        told = json.loads(captured.out)
        assert undocumented(argv[0], told) == set()
        return told

    return run


def failing(capsys, *argv):
    """Exit code and message of a command that fails; one line, and nothing on standard output."""
    try:
        code = main(list(argv))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err


def damaged(source, tmp_path):
    """The same file with a scale that no array can have, so that one array cannot be read."""
    text = Path(source).read_bytes()
    path = tmp_path / "damaged"
    array = fq.open(source)["done.weight"]
    scale = array.axis_scale.tobytes()
    assert text.count(scale) == 1
    path.write_bytes(text.replace(scale, np.full(array.axis_scale.size, np.nan, np.float32).tobytes()))
    return str(path)


# inspect


def test_inspect_in_words(source, capsys):
    assert main(["inspect", source, "--bits", "8", "3", "--group", "64", "0"]) == 0
    captured = capsys.readouterr()
    heads, *lines = captured.out.splitlines()
    assert heads.split() == [
        *("name", "shape", "type", "bits/weight", "size"),
        *(["8", "bits", "/", "64", "SQNR", "8", "bits", "SQNR", "3", "bits", "/", "64", "SQNR", "3", "bits", "SQNR"]),
    ]
    assert {line.split()[0] for line in lines} == {*MODEL, "4"}
    (up,) = (line for line in lines if line.startswith("up.weight"))
    q = fq.quantize(MODEL["up.weight"], 3, axis=-1, group_size=64)
    assert f"{fq.error(MODEL['up.weight'], q).sqnr_db:.1f} dB" in up
    assert any(line.endswith("symmetric, axis 1, integer group scales; quantized already") for line in lines)
    assert any(line.startswith("bias") and line.endswith("stays: a vector") for line in lines)
    assert lines[-1].startswith("4 arrays")
    assert captured.err == ""


def test_inspect_for_programs(source, document):
    told = document("inspect", source, "--bits", "8", "--group", "64", "--method", "mse", "--sort", "file")
    assert told.keys() == {
        "path", "format", "nbytes", "elements", "axis", "method", "scheme", "dry_run", "forms", "arrays"
    }  # fmt: skip
    assert [row["name"] for row in told["arrays"]] == list(fq.open(source))
    rows = {row["name"]: row for row in told["arrays"]}
    q = fq.quantize(MODEL["up.weight"], 8, axis=-1, group_size=64, method="mse")
    (form,) = rows["up.weight"].pop("forms")
    assert form.pop("sqnr_db") == pytest.approx(fq.error(MODEL["up.weight"], q).sqnr_db)
    assert form == {"bits": 8, "group": 64, "nbytes": 64 * 128 + 4 * 64 * 2 + 16}  # codes, scales, the shape
    assert rows["up.weight"] == {
        "name": "up.weight", "shape": [64, 128], "kind": "float32", "form": None, "nbytes": 4 * 64 * 128,
        "bits_per_weight": 32, "problem": None, "stays": None,
    }  # fmt: skip
    assert told["nbytes"] == sum(row["nbytes"] for row in told["arrays"])
    assert told["forms"][0]["nbytes"] < told["nbytes"]


def test_inspect_without_reading(source, document):
    whole = document("inspect", source, "--bits", "4")
    dry = document("inspect", source, "--bits", "4", "--dry-run")
    sizes = [{row["name"]: [f["nbytes"] for f in row["forms"]] for row in told["arrays"]} for told in (whole, dry)]
    assert sizes[0] == sizes[1]
    assert all(form["sqnr_db"] is None for row in dry["arrays"] for form in row["forms"])
    assert dry["dry_run"]


def test_inspect_names_what_cannot_be_read(source, tmp_path, capsys):
    path = damaged(source, tmp_path)
    assert main(["inspect", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("done.weight") and "cannot be read: " in line and "scale" in line for line in lines)
    assert len(lines) == 6
    fq.save(tmp_path / "one", {"done.weight": MODEL["done.weight"]})
    assert main(["inspect", damaged(str(tmp_path / "one"), tmp_path)]) == 1
    assert "cannot be read: " in capsys.readouterr().out


def test_inspect_a_file_without_arrays(tmp_path, capsys, document):
    fq.save(tmp_path / "none", {})
    assert main(["inspect", str(tmp_path / "none"), "--bits", "8"]) == 0
    assert "0 arrays" in capsys.readouterr().out
    assert document("inspect", str(tmp_path / "none"))["arrays"] == []


@pytest.mark.parametrize("content", [b"", b"short", b"\x93NUMPY" + bytes(50), bytes(100)])
@pytest.mark.parametrize("command", ["inspect", "diff", "quantize"])
def test_files_that_are_none(command, content, tmp_path, capsys, out):
    (tmp_path / "x").write_bytes(content)
    argv = [command, str(tmp_path / "x"), *{"inspect": [], "diff": [str(tmp_path / "x")], "quantize": [out]}[command]]
    code, message = failing(capsys, *argv)
    assert (code, message.startswith(f"fastq: {tmp_path / 'x'}: ")) == (1, True)
    assert not os.path.exists(out)


def test_a_file_that_is_not_there(capsys):
    assert failing(capsys, "inspect", "/nowhere/model") == (
        1,
        "fastq: path must be a file or a folder of weights; there is no /nowhere/model\n",
    )


# quantize


def test_quantize_in_words(source, out, capsys):
    argv = ["quantize", source, out, "--bits", "3", "--group", "64", "--method", "mse", "--bits-for", "down*=4"]
    assert main([*argv, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert not os.path.exists(out)
    assert dry.splitlines()[-1].endswith("(dry run: nothing was written)")
    assert main(argv) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line for line in lines[:-1] if "done" not in line] == [
        line for line in dry.splitlines()[:-1] if "done" not in line
    ]
    assert lines[-1].startswith("2 of 4 arrays quantized: ")
    assert lines[-1].endswith(f": {out}")
    assert captured.err == ""
    model = fq.open(out)
    for name, bits in (("up.weight", 3), ("down.żółw", 4)):
        assert model[name].equals(fq.quantize(MODEL[name], bits, axis=-1, group_size=64, method="mse"))
    assert model["done.weight"].equals(MODEL["done.weight"])
    assert np.array_equal(model["bias"], MODEL["bias"])


def test_quantize_for_programs(source, out, document):
    told = document("quantize", source, out, "--exclude", "up*", "--scheme", "affine", "--axis", "0")
    assert told.keys() == {"source", "out", "before", "after", "arrays"}
    rows = {row.pop("name"): row for row in told["arrays"]}
    assert rows["up.weight"]["what"] == "excluded"
    assert rows["down.żółw"].keys() == {"shape", "quantized", "what", "before", "after"}
    assert rows["down.żółw"]["what"] == "8 bits, axis 0, affine, minmax"
    q = fq.quantize(MODEL["down.żółw"], 8, axis=0, scheme="affine")
    assert fq.open(out)["down.żółw"].equals(q)
    assert told["after"] == sum(row["after"] for row in rows.values())
    dry = document("quantize", source, out, "--dry-run")
    assert dry["out"] is None


def test_include_and_group_scale(source, out):
    assert (
        main(["quantize", source, out, "--include", "up*", "--bits", "4", "--group", "32", "--group-scale", "float"])
        == 0
    )
    model = fq.open(out)
    assert isinstance(model["down.żółw"], np.ndarray)
    assert model["up.weight"].group_scale is None


def test_widths_by_patterns(source, out):
    """The first pattern that fits counts, also if a later one says the same."""
    argv = ["--bits-for", "up.weight=2", "--bits-for", "*weight=5", "--bits-for", "up.weight=7", "--bits", "6"]
    assert main(["quantize", source, out, *argv]) == 0
    assert [fq.open(out)[name].bits for name in ("up.weight", "down.żółw")] == [2, 6]
    assert main(["quantize", source, out, "--force", "--bits-for", "*=3", "--bits", "6"]) == 0
    assert fq.open(out)["down.żółw"].bits == 3


def rows_and_moments(tmp_path):
    rows = RNG.standard_normal((700, 128)).cumsum(axis=1)
    np.savez(tmp_path / "rows.npz", **{"up.weight": rows.astype(np.float32)})
    np.savez(tmp_path / "moments.npz", **{"up.weight": rows.T @ rows / len(rows)})
    return rows.astype(np.float32)


@pytest.mark.parametrize("method", ["gptq", "mse"])
def test_calibration(source, out, tmp_path, method):
    rows = rows_and_moments(tmp_path)
    argv = ["quantize", source, out, "--bits", "3", "--method", method, "--include", "up.weight", "--calibration"]
    assert main([*argv, str(tmp_path / "rows.npz")]) == 0
    up = MODEL["up.weight"]
    by_rows = fq.quantize(up, 3, axis=-1, method=method, calibration=rows)
    assert fq.open(out)["up.weight"].equals(by_rows)
    assert main([*argv, str(tmp_path / "moments.npz"), "--force"]) == 0
    plain = fq.quantize(up, 3, axis=-1)
    errors = [fq.error(rows @ up.T, rows @ q.dequantize().T).mse for q in (fq.open(out)["up.weight"], by_rows, plain)]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)  # so many rows are hardly shrunk
    assert errors[0] < 0.9 * errors[2]


def test_calibration_that_does_not_fit(source, out, tmp_path, capsys):
    np.savez(tmp_path / "odd.npz", **{"up.wright": np.ones((4, 128))})
    np.savez(tmp_path / "thin.npz", **{"up.weight": np.ones((4, 127))})
    np.save(tmp_path / "one.npy", np.ones(3))
    whole = (tmp_path / "thin.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    (tmp_path / "torn.npz").write_bytes(whole.replace(np.ones(50).tobytes(), bytes(400)))
    (tmp_path / "empty.npz").write_bytes(b"")
    start = ["quantize", source, out, "--method", "mse", "--calibration"]
    for name, message in (
        ("odd.npz", "--calibration must have names of arrays; 'up.wright' of .*; close to it: up.weight"),
        ("thin.npz", "array 'up.weight': calibration must have rows of 128 elements"),
        ("one.npy", "--calibration must be a file of numpy.savez, with an array for each weight; got "),
        ("none.npz", "No such file"),
        ("cut.npz", "--calibration must be a file of numpy.savez, with an array for each weight; got "),
        ("empty.npz", "--calibration must be a file of numpy.savez, with an array for each weight; got "),
        ("torn.npz", "calibration .*'up.weight' it raised BadZipFile: Bad CRC-32"),
    ):
        code, told = failing(capsys, *start, str(tmp_path / name))
        assert code == 1
        assert re.search(message, told)
    assert not os.path.exists(out)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "gptq"], "--method gptq needs --calibration X.npz"),
        (["--calibration", "X.npz"], "--calibration is for --method gptq or mse; got minmax"),
        (["--bits", "9"], "argument --bits: it must be from 2 to 8, got '9'"),
        (["--bits", "many"], "argument --bits: it must be from 2 to 8, got 'many'"),
        (["--group", "-1"], "argument --group: it must be a number of elements, or 0 for no groups; got '-1'"),
        (["--bits-for", "4"], "argument --bits-for: it must be PATTERN=BITS, such as '*.head=8'; got '4'"),
        (["--bits-for", "=4"], "argument --bits-for: it must be PATTERN=BITS"),
        (["--bits-for", "a=9"], "argument --bits-for: it must be from 2 to 8, got '9'"),
        (["--method", "best"], "argument --method: invalid choice: 'best'"),
        (["--scheme", "odd"], "argument --scheme: invalid choice: 'odd'"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_arguments(source, out, capsys, more, message):
    code, told = failing(capsys, "quantize", source, out, *more)
    assert code == 2
    assert told.startswith(f"fastq: error: {message}")
    assert told.rstrip().endswith("--help")
    assert not os.path.exists(out)


def test_a_pattern_that_fits_nothing(source, out, capsys):
    code, told = failing(capsys, "quantize", source, out, "--exclude", "uq.weight")
    assert (code, told) == (
        1,
        "fastq: exclude must fit names of arrays; 'uq.weight' fits none of 4; close to it: up.weight, done.weight\n",
    )


def test_what_is_there_is_not_replaced_unasked(source, out, capsys):
    Path(out).write_text("mine")
    code, told = failing(capsys, "quantize", source, out)
    assert (code, told.startswith("fastq: error: OUT must not exist yet, or be replaced with --force; got ")) == (
        2,
        True,
    )
    assert Path(out).read_text() == "mine"
    assert main(["quantize", source, out, "--force"]) == 0
    assert fq.open(out)["up.weight"].bits == 8


def test_the_source_is_never_replaced(source, capsys, tmp_path):
    before = Path(source).read_bytes()
    other = tmp_path / "link"
    others = [source]
    if hasattr(os, "symlink") and os.name != "nt":
        other.symlink_to(source)
        others.append(str(other))
    for out in others:
        code, told = failing(capsys, "quantize", source, out, "--force")
        assert (code, told.startswith("fastq: error: OUT must be another file than IN")) == (2, True)
    folder = str(Path(source).parent)  # a checkpoint of one file
    code, told = failing(capsys, "quantize", folder, source, "--force")
    assert (code, told.startswith("fastq: error: OUT must be another file than IN")) == (2, True)
    assert Path(source).read_bytes() == before


def test_after_an_error_there_is_no_file(tmp_path, out, capsys):
    bad = MODEL["up.weight"].copy()
    bad[3, 4] = np.nan
    fq.save(tmp_path / "bad", {"a": MODEL["up.weight"], "bad": bad})
    code, told = failing(capsys, "quantize", str(tmp_path / "bad"), out)
    assert (code, told.startswith("fastq: array 'bad' must be finite")) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


# diff


@pytest.fixture
def pair(source, out):
    fq.quantize_all(fq.open(source), bits={"up*": 3, "*": 8}, method="mse", out=out)
    return source, out


def test_diff_in_words(pair, capsys):
    assert main(["diff", *pair]) == 0
    captured = capsys.readouterr()
    heads, *lines, total = captured.out.splitlines()
    assert heads.split() == [
        "name",
        "shape",
        "types",
        "size",
        "SQNR",
        "largest",
        "error",
        "rounding",
        "clipping",
        "scales",
    ]
    assert [line.split()[0] for line in lines[:2]] == ["up.weight", "down.żółw"]  # the worst first
    assert "float32 -> 3 bits" in lines[0]
    assert sum(int(word[:-1]) for word in lines[0].split() if word.endswith("%")) in (100, 101, 102)
    assert all(" exact " in line for line in lines[2:])
    assert total == "4 arrays compared, 0 could not be; 0 only in the first file, 0 only in the second"
    assert captured.err == ""


def test_diff_for_programs(pair, document):
    told = document("diff", *pair)
    assert told.keys() == {"first", "second", "arrays", "only_first", "only_second"}
    rows = {row["name"]: row for row in told["arrays"]}
    assert rows["up.weight"].keys() == {
        "name", "shape", "kind", "other", "nbytes", "exact", "sqnr_db", "max_abs", "rmse", "cosine", "rounding",
        "clipping", "scales", "problem",
    }  # fmt: skip
    error = fq.error(MODEL["up.weight"], fq.open(pair[1])["up.weight"])
    assert rows["up.weight"]["sqnr_db"] == pytest.approx(error.sqnr_db)
    assert rows["up.weight"]["clipping"] > 0.01
    assert (rows["bias"]["exact"], rows["bias"]["sqnr_db"], rows["bias"]["rounding"]) == (True, None, None)


def test_diff_names_what_is_in_one_file_only(source, tmp_path, capsys):
    fq.save(tmp_path / "other", {"up.weight": MODEL["up.weight"].T, "bias": MODEL["bias"], "new": np.ones(1)})
    assert main(["diff", source, str(tmp_path / "other"), "--sort", "name"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("up.weight")
    assert lines[2].endswith("shapes differ: (64, 128) and (128, 64)")
    assert sorted(lines[3:5]) == [f"only in {source}: done.weight", f"only in {source}: down.żółw"]
    assert f"only in {tmp_path / 'other'}: new" in lines
    assert lines[-1] == "1 arrays compared, 1 could not be; 2 only in the first file, 1 only in the second"


def test_diff_of_strangers(source, tmp_path, capsys):
    fq.save(tmp_path / "other", {"new": np.ones(1)})
    assert main(["diff", source, str(tmp_path / "other")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 arrays compared")


# progress


def test_progress_of_large_files(source, out, capsys, monkeypatch):
    monkeypatch.setattr(shared, "LARGE", 0)
    for argv in (["inspect", source], ["quantize", source, out], ["diff", source, out]):
        assert main([*argv, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)
        assert re.fullmatch(r"\w+: 0 of 0 MiB, [\d.]+ per second\n", captured.err)
    monkeypatch.setattr(shared, "LARGE", 1 << 40)
    assert main(["inspect", source]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_more_is_imported_than_a_command_needs(source):
    code = f"import sys, fastq.cli.main as m\nm.main(['inspect', {source!r}])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fastq.models.inspection" in loaded
    assert not loaded & {"numba", "rich", "sklearn", "fastq.cli.demo", "fastq.cli.warmup", "fastq.interop.dask"}
