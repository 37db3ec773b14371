"""Files of safetensors against those that the format's own library writes and reads."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import fastq as fq
from fastq.formats import binary, safetensors
from fastq.formats.binary import Bytes

from .samples import write

KINDS = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]


def file_of(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("kind", [*KINDS, "complex64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (2, 1, 5)])
def test_what_the_library_writes(kind, shape, tmp_path):
    values = (np.random.default_rng(0).standard_normal(shape) * 100).astype(np.float32).astype(kind)
    save_file({"x": np.asarray(values), "other": np.ones(3, np.uint8)}, tmp_path / "m")
    model = fq.open(tmp_path / "m")
    assert model.format == "safetensors"
    assert model.entry("x")[:3] == (shape, kind, values.nbytes)
    x = model["x"]
    assert (x.dtype, x.shape, x.tobytes()) == (values.dtype, shape, values.tobytes())
    assert not x.flags.writeable
    assert np.shares_memory(x, model["x"]) or not x.size  # both lie in the file


def test_no_texts_as_null(tmp_path):
    """As MLX writes it."""
    tensor = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    path = file_of(tmp_path / "m", {"__metadata__": None, "x": tensor}, b"\7")
    with safe_open(path, "np") as file:
        assert file.get_tensor("x") == [7]
    assert fq.open(path)["x"] == [7]


def test_types_that_numpy_lacks(tmp_path):
    values = np.array([[0.5, -1.0, 300.0]], np.float32)
    kinds = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
    write(tmp_path / "m", {str(np.dtype(kind)): values.astype(kind) for kind in kinds})
    model = fq.open(tmp_path / "m")
    for kind in kinds:
        name = str(np.dtype(kind))
        assert model.entry(name).kind == name
        assert model[name].dtype == kind
        assert model[name].tobytes() == values.astype(kind).tobytes()


def test_without_ml_dtypes(tmp_path, monkeypatch):
    values = np.array([0.5, -1.0, 300.0, np.inf], np.float32)
    write(tmp_path / "m", {"b": values.astype(ml_dtypes.bfloat16), "f": values.astype(ml_dtypes.float8_e5m2)})
    for module in (binary, safetensors):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    model = fq.open(tmp_path / "m")
    assert model["b"].dtype == np.float32
    assert (model["b"] == values).all()
    with pytest.raises(fq.FileFormatError, match=r"m: array 'f': F8_E5M2 needs ml_dtypes: pip install ml_dtypes"):
        model["f"]


def test_what_cannot_be_read_leaves_the_rest(tmp_path):
    header = {
        "four": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]},
        "new": {"dtype": "I4", "shape": [4], "data_offsets": [2, 4]},
        "six": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [4, 7]},
        "u": {"dtype": "U8", "shape": [2], "data_offsets": [7, 9]},
    }
    model = fq.open(file_of(tmp_path / "m", header, bytes(range(9))))
    assert model["u"].tolist() == [7, 8]
    assert [model.entry(name).kind for name in model] == ["F4", "I4", "F6_E2M3", "uint8"]
    for name, kind in (("four", "F4"), ("new", "I4"), ("six", "F6_E2M3")):
        with pytest.raises(
            fq.FileFormatError, match=rf"m: array '{name}': NumPy has no type for '{kind}': fastq reads"
        ):
            model[name]


def test_texts(tmp_path):
    save_file({"x": np.ones(3)}, tmp_path / "m", {"format": "np", "more": 'a "word"'})
    assert safetensors.contents(Bytes(tmp_path / "m"))[1] == {"format": "np", "more": 'a "word"'}


U8 = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
WRONG = {
    "longer than the file": ({"x": U8}, b"ab", 10**6, "header: it should have 1000000 bytes; the file has"),
    "no JSON": (b"{'x'}", b"", None, "header: it must be a JSON object"),
    "no UTF-8": (b'{"\xff": 1}', b"", None, "header: it must be a JSON object"),
    "deep": (b'{"x":' + b"[" * 10**5, b"", None, "nested too deeply"),
    "twice": (b'{"x": {}, "x": {}}', b"", None, "it has a name twice"),
    "half a character": (b'{"\\ud800": {}}', b"", None, "surrogates"),
    "a list": (b'{"x": []}', b"", None, r"array 'x': the header must give it dtype, shape, data_offsets, got \[\]"),
    "no shape": ({"x": {"dtype": "U8", "data_offsets": [0, 0]}}, b"", None, "must give it dtype, shape"),
    "a number for a type": ({"x": {**U8, "dtype": 8}}, b"ab", None, "array 'x': dtype must be a text, got 8"),
    "a negative length": ({"x": {**U8, "shape": [-2]}}, b"ab", None, "shape must be a list of integers"),
    "a float": ({"x": {**U8, "shape": [2.0]}}, b"ab", None, "shape must be a list of integers"),
    "true": ({"x": {**U8, "shape": [True, 2]}}, b"ab", None, "shape must be a list of integers"),
    "a large length": ({"x": {**U8, "shape": [2**62, 2**62, 0]}}, b"ab", None, "no array of NumPy has the shape"),
    "many axes": ({"x": {**U8, "shape": [1] * 65}}, b"ab", None, "no array of NumPy has the shape"),
    "one offset": ({"x": {**U8, "data_offsets": [0]}}, b"ab", None, "data_offsets must be two, in order, up to 2"),
    "turned around": ({"x": {**U8, "data_offsets": [2, 0]}}, b"ab", None, "data_offsets must be two, in order"),
    "beyond the end": ({"x": {**U8, "data_offsets": [1, 3]}}, b"ab", None, "up to 2, where the file ends, got"),
    "another size": ({"x": {**U8, "shape": [3]}}, b"ab", None, r"U8 of shape \[3\] takes 24 bits, not 2 bytes"),
    "overlapping": ({"x": U8, "y": {**U8, "data_offsets": [1, 3]}}, b"abc", None, "'y': it must begin .* 2, not at 1"),
    "a hole": ({"x": U8, "y": {**U8, "data_offsets": [3, 5]}}, b"abcde", None, "'y': it must begin .* 2, not at 3"),
    "a rest": ({"x": U8}, b"abc", None, "header: its arrays end at byte .*, and the file at"),
    "numbers as texts": ({"__metadata__": {"a": 1}}, b"", None, "__metadata__: it must hold texts by name"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_headers(name, tmp_path):
    header, data, length, message = WRONG[name]
    path = file_of(tmp_path / "m", header, data, length)
    with pytest.raises(fq.FileFormatError, match=message) as error:
        fq.open(path)
    assert str(error.value).startswith(f"{path}: ")
    if name != "many axes":  # which NumPy alone minds
        with pytest.raises(SafetensorError), safe_open(path, "numpy"):  # the library refuses it, too
            pass


def test_a_file_cut_short(tmp_path):
    save_file({"x": np.ones(100)}, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    for size in (9, 50, len(data) - 1):
        (tmp_path / "m").write_bytes(data[:size])
        with pytest.raises(fq.FileFormatError, match=r"header|where the file ends"):
            fq.open(tmp_path / "m")


def resident(path):
    """Bytes of a file that the system holds in memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        start = ctypes.addressof(one := ctypes.c_char.from_buffer(data))
        assert not ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(data)), pages)
        del one
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="mincore as Linux has it")
def test_opening_a_gigabyte_reads_its_header(tmp_path):
    rows, columns = 2**14, 2**14  # 1 GiB of float32, which takes no room on the disk
    half = rows * columns * 2
    header = {
        name: {"dtype": "F32", "shape": [rows // 2, columns], "data_offsets": [half * i, half * (i + 1)]}
        for i, name in enumerate("ab")
    }
    path = file_of(tmp_path / "m", header)
    os.truncate(path, path.stat().st_size + 2 * half)
    before = resident(path)
    tracemalloc.start()
    model = fq.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model["b"].shape == (rows // 2, columns)
    read = resident(path) - before
    assert read < 2**20  # what the system reads ahead of what is asked for
    assert peak < 2**20
    assert model["b"][-1].sum() == 0
    assert resident(path) > before + read  # otherwise nothing is counted
