"""fq.open: what kind of file it is, folders, and what is no file of weights."""

from __future__ import annotations

import json
import os
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastq as fq

from .samples import sharded


def test_told_by_content(tmp_path):
    save_file({"x": np.ones(3)}, tmp_path / "model.gguf")
    assert fq.open(tmp_path / "model.gguf").format == "safetensors"
    assert fq.open(str(tmp_path / "model.gguf")).path == str(tmp_path / "model.gguf")
    fq.save(tmp_path / "model.onnx", {"x": np.ones(3)})
    assert fq.open(tmp_path / "model.onnx").format == "fastq"


def test_a_mapping(tmp_path):
    save_file({"layer.weight": np.ones((2, 3)), "layer.bias": np.ones(3)}, tmp_path / "m")
    model = fq.open(tmp_path / "m")
    assert set(model) == {"layer.weight", "layer.bias"}
    assert len(model) == 2
    assert "layer.bias" in model
    assert "x" not in model
    assert {name: a.shape for name, a in model.items()} == {"layer.weight": (2, 3), "layer.bias": (3,)}
    assert repr(model) == f"<safetensors {tmp_path / 'm'}: 2 arrays, 72 bytes>"
    assert repr(model.entry("layer.bias")) == "Entry(shape=(3,), kind='float64', nbytes=24)"
    with pytest.raises(KeyError, match=r"has no array 'layer.height', but 2 others; close to it: layer.weight"):
        model["layer.height"]


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a file or a folder of weights; there is no .*nothing"):
        fq.open(tmp_path / "nothing")
    with pytest.raises(TypeError, match="path must be a string or a path"):
        fq.open(3)


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"some text, which is long enough", bytes(100)])
def test_unknown_formats(data, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(
        fq.FileFormatError, match=r"m.safetensors: the format must be safetensors .*, GGUF, ONNX; this file has"
    ):
        fq.open(tmp_path / "m.safetensors")


def test_files_of_numpy(tmp_path):
    array = np.arange(3)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", x=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(fq.FileFormatError, match=r"numpy.load\('.*a.np") as error:
            fq.open(tmp_path / name)
        hint = str(error.value).partition("numpy.load(")[2].partition(")")[0]
        assert np.load(hint.strip("'").replace("\\\\", "\\")) is not None  # the hint works


def test_pickles_are_not_run(tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(fq.FileFormatError, match="the format must be"):
        fq.open(tmp_path / "m.pt")


def test_a_folder_of_save(tmp_path):
    q = fq.quantize(np.eye(3), bits=4, axis=0)
    q.save(tmp_path / "q")
    with pytest.raises(fq.FileFormatError, match=r"that q.save has written is opened by fastq.load") as error:
        fq.open(tmp_path / "q")
    path = str(error.value).partition("fastq.load('")[2].rpartition("')")[0]
    assert fq.load(path.replace("\\\\", "\\")).equals(q)  # the hint works


def test_a_folder_with_an_index(tmp_path):
    model = fq.open(sharded(tmp_path))
    assert model.format == "safetensors"
    assert sorted(model) == ["layer.bias", "layer.weight", "one", "steps"]
    assert model["steps"].tolist() == [0, 1, 2]


def test_a_folder_without_an_index(tmp_path):
    save_file({"x": np.ones(3)}, tmp_path / "1.safetensors")
    assert list(fq.open(tmp_path)) == ["x"]
    save_file({"y": np.ones(2)}, tmp_path / "2.safetensors")
    assert sorted(fq.open(tmp_path)) == ["x", "y"]
    save_file({"x": np.ones(2)}, tmp_path / "3.safetensors")
    with pytest.raises(fq.FileFormatError, match=r"3.safetensors: array 'x': another file of the folder has it, too"):
        fq.open(tmp_path)


def test_a_folder_without_files(tmp_path):
    with pytest.raises(fq.FileFormatError, match=r"a folder must hold files \*.safetensors"):
        fq.open(tmp_path)


@pytest.mark.parametrize("name", ["../x", "..", "", ".", "/etc/passwd", "a/b", "a\\b", "C:x", "a\0b"])
def test_an_index_does_not_leave_its_folder(name, tmp_path):
    sharded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(fq.FileFormatError, match=r"index.json: weight_map: a file must lie in this folder, got"):
        fq.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "index.json: it must be JSON, an object"),
        ("[]", "it holds no object, but list"),
        ("{}", "weight_map: it must name a file for each array"),
        ('{"weight_map": {"x": 3}}', "weight_map: it must name a file for each array"),
        ('{"weight_map": {"x": "model-3.safetensors"}}', "the folder lacks the file 'model-3.safetensors'"),
        (
            '{"weight_map": {"y": "model-1.safetensors"}}',
            "model-1.safetensors: array 'y': .* says it is here, but it is not",
        ),
        ('{"weight_map": {"y": "config.json"}}', "config.json: header: it must be a file of safetensors"),
    ],
)
def test_wrong_indices(text, message, tmp_path):
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(fq.FileFormatError, match=message):
        fq.open(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_files_that_are_links(tmp_path):
    """As in the cache of a hub."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    sharded(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        os.symlink(file, tmp_path / "snapshot" / file.name)
    assert len(fq.open(tmp_path / "snapshot")) == 4


def test_a_wrong_config(tmp_path):
    sharded(tmp_path)
    (tmp_path / "config.json").write_text("{")
    for path in (tmp_path, tmp_path / "model-1.safetensors"):
        with pytest.raises(fq.FileFormatError, match=r"config.json: it must be JSON, an object"):
            fq.open(path)


def test_in_a_with_statement_and_in_another_process(tmp_path, monkeypatch):
    """Arrays outlive the statement; a pickle holds the path, from wherever it is loaded."""
    fq.save(tmp_path / "m", {"x": np.arange(1000)})
    monkeypatch.chdir(tmp_path)
    with fq.open("m") as model:
        x = model["x"]
    assert x.sum() == 499500
    pickled = pickle.dumps(model)
    assert len(pickled) < 400
    monkeypatch.chdir("/")
    assert pickle.loads(pickled)["x"].sum() == 499500
