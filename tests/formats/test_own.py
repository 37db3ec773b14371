"""fq.save: everything comes back equal, others can read it, and the file is there whole or not at all."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import fastq as fq
from fastq.formats import saving

from .samples import own, quantized

SHAPES = [((70, 33), 32), ((3, 40, 20), 16), ((5,), 2), ((), None), ((0, 4), None), ((48, 64), 16)]


def same(path, mapping):
    """Whether a file gives the arrays of a mapping."""
    model = fq.open(path)
    assert model.keys() == mapping.keys()
    for name, value in mapping.items():
        assert model.entry(name).shape == value.shape
        if isinstance(value, fq.QArray):
            assert model[name].equals(value), (name, value)
            assert model[name].activations == value.activations
        else:
            assert (model[name].dtype, model[name].tobytes()) == (value.dtype, value.tobytes())
    return True


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
def test_every_scheme_width_group_and_axis(bits, scheme, tmp_path):
    rng, arrays = np.random.default_rng(bits), {}
    for (shape, size), kind in itertools.product(SHAPES, ("float16", "bfloat16", "float32", "float64")):
        x = rng.standard_normal(shape).astype(kind)
        for axis, group in itertools.product((*range(len(shape)), None), {None, size}):
            if axis is None and group:
                continue
            # Integer scales where fastq takes them by itself, and floats.
            for scales in {None, "float" if group else None}:
                name = f"{len(arrays)}.weight" if len(arrays) % 3 else str(len(arrays))
                form = {"group_scale": scales} if scales else {}
                arrays[name] = fq.quantize(x, bits=bits, scheme=scheme, axis=axis, group_size=group, **form)
    fq.save(tmp_path / "m", arrays)
    assert same(tmp_path / "m", arrays)


def test_rotation_balance_and_activations(tmp_path):
    w = np.random.default_rng(0).standard_normal((64, 48), np.float32)
    factors = np.exp(np.random.default_rng(1).standard_normal(64))
    arrays = {
        "balanced": fq.quantize(w, bits=4, axis=0, balance=factors),
        "in float64": fq.quantize(w.astype(np.float64), bits=4, axis=0, balance=factors),
        "rotated.weight": fq.quantize(w.T, bits=3, axis=1, group_size=32, rotate=True),
        "two planes": fq.quantize(w, bits=4, axis=0).with_activations("two-plane"),
        "by group": fq.quantize(w, bits=4, axis=0, group_size=16).with_activations("group"),
        "transposed": fq.quantize(w, bits=4, axis=0).T,
        "packed": fq.quantize(w, bits=4, axis=0).prepack(),
        "negative": -fq.quantize(w, bits=4, axis=0, scheme="affine"),
    }
    fq.save(tmp_path / "m", arrays)
    assert same(tmp_path / "m", arrays)


def test_order(tmp_path):
    codes = np.random.default_rng(0).integers(-8, 8, (6, 32)).astype(np.int8)
    order = np.random.default_rng(1).permutation(32)
    q = fq.from_parts(codes, np.ones((6, 2), np.float32), bits=4, group_size=16, order=order)
    fq.save(tmp_path / "m", {"layer.weight": q, "by row": q.T})
    assert same(tmp_path / "m", {"layer.weight": q, "by row": q.T})


def test_plain_arrays(tmp_path):
    values = np.arange(-3, 9).reshape(3, 4)
    kinds = ["bool", "uint8", "int16", "int64", "float16", "float64", "complex64", ml_dtypes.bfloat16]
    kinds += [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
    arrays = {f"a{i}": np.abs(values).astype(kind) for i, kind in enumerate(kinds)}
    arrays |= {
        "transposed": np.asfortranarray(values),
        "cut": values[::2, 1:],
        "empty": values[:0],
        "one": values[0, 0],
    }
    fq.save(tmp_path / "m", arrays)
    assert same(tmp_path / "m", arrays)
    if os.path.exists(tmp_path / "m"):
        with safe_open(tmp_path / "m", "numpy") as file:
            assert set(file.keys()) == set(arrays)
            assert (file.get_tensor("cut") == arrays["cut"]).all()
            assert file.metadata()["format"] == "pt"


def test_what_numpy_takes_for_arrays(tmp_path):
    fq.save(tmp_path / "m", {"list": [[1, 2], [3, 4]], "number": 2.5, "big": np.arange(3, dtype=">i4")})
    model = fq.open(tmp_path / "m")
    assert model["list"].tolist() == [[1, 2], [3, 4]]
    assert model["number"] == 2.5
    assert model["big"].tolist() == [0, 1, 2]


def test_arrays_begin_at_multiples_of_their_size(tmp_path):
    fq.save(tmp_path / "m", {**quantized(), "a": np.ones(3, np.uint8), "b": np.ones(3), "c": np.ones(3, np.float16)})
    model = fq.open(tmp_path / "m")
    assert all(model[name].flags.aligned for name in "abc")


# The layout of compressed-tensors


def dense(codes, bits):
    """The bit stream along the last axis, obviously."""
    every = (codes[..., None] >> np.arange(bits) & 1).reshape(*codes.shape[:-1], -1).astype(np.uint8)
    every = np.pad(every, [(0, 0)] * (codes.ndim - 1) + [(0, -every.shape[-1] % 32)])
    return np.packbits(every, axis=-1, bitorder="little").view("<i4")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_compressed_tensors_by_the_layout(bits, group, scheme, tmp_path):
    w = np.random.default_rng(0).standard_normal((10, 96), np.float32)
    q = fq.quantize(w, bits=bits, axis=-1, group_size=group, scheme=scheme, group_scale="float" if group else None)
    fq.save(tmp_path / "m", {"layer.weight": q})
    file, half = load_file(tmp_path / "m"), 2 ** (bits - 1) if scheme == "symmetric" else 0
    assert (file["layer.weight_packed"] == dense(q.codes.astype(int) + half, bits)).all()
    assert file["layer.weight_packed"].dtype == np.int32
    assert (file["layer.weight_scale"] == q.scale).all()
    assert file["layer.weight_shape"].tolist() == [10, 96]
    assert file["layer.weight_shape"].dtype == np.int64
    if scheme == "asymmetric":
        assert (file.pop("layer.weight_zero_point") == dense(q.zero_point.T, bits).T).all()
    assert len(file) == 3


def test_whole_and_half(tmp_path):
    w = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float16)
    q = fq.from_parts(np.ones((4, 8), np.int8), np.float16([[0.1]]), bits=4, axis=None)
    other = fq.quantize(w, bits=4, axis=-1)  # whose scales float16 does not have
    fq.save(tmp_path / "m", {"a.weight": q, "b.weight": other})
    file = load_file(tmp_path / "m")
    assert file["a.weight_scale"].tolist() == [np.float16(0.1)]
    assert file["a.weight_scale"].dtype == np.float16
    assert file["b.weight_scale"].dtype == np.float32
    assert same(tmp_path / "m", {"a.weight": q, "b.weight": other})


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_compressed_tensors_by_the_library(bits, group, symmetric, kind, tmp_path):
    """Its compressor makes the same of these codes and scales, and it reads the file right."""
    torch = pytest.importorskip("torch")
    packer = pytest.importorskip("compressed_tensors.compressors.pack_quantized.base").PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    rng, half = np.random.default_rng(bits), 2 ** (bits - 1)
    codes = rng.integers(-half, half, (10, 96))
    scale = rng.uniform(0.5, 1, (10, 3 if group else 1)).astype(kind)
    zero = None if symmetric else rng.integers(-half, half, scale.shape)
    q = fq.from_parts(codes, scale, bits=bits, group_size=group, zero_point=zero)
    fq.save(tmp_path / "m", {"layer.weight": q})
    file = load_file(tmp_path / "m")
    args = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=bits, symmetric=symmetric, **args)
    )
    state = {"weight": torch.tensor(q.dequantize()), "weight_scale": torch.tensor(scale)}
    if zero is not None:
        state["weight_zero_point"] = torch.tensor(zero.astype(np.int8))
    theirs = packer.compress(state, scheme)
    assert {f"layer.{name}" for name in theirs} == set(file)
    for name, tensor in theirs.items():
        mine = file[f"layer.{name}"]
        assert (mine.dtype, mine.shape) == (tensor.numpy().dtype, tensor.numpy().shape)
        assert (mine == tensor.numpy()).all()
    read = packer.decompress({name.removeprefix("layer."): torch.tensor(array) for name, array in file.items()}, scheme)
    assert (read["weight"].numpy() == q.dequantize()).all()


# Lazy mappings


class Lazy(Mapping):
    """Arrays that are made when they are asked for, and counted."""

    def __init__(self, count, size):
        self.names, self.size, self.taken = [f"layer{i}" for i in range(count)], size, []

    def __getitem__(self, name):
        self.taken.append(name)
        return np.full(self.size, int(name[5:]), np.float32)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def test_a_lazy_mapping_is_taken_one_by_one(tmp_path):
    lazy = Lazy(8, 2**20)
    tracemalloc.start()
    fq.save(tmp_path / "m", lazy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lazy.taken == 2 * lazy.names
    assert peak < 3 * 2**22  # two arrays, where there are eight
    assert [fq.open(tmp_path / "m")[name][-1] for name in lazy.names] == list(range(8))


def test_from_file_to_file(tmp_path):
    model = fq.open(own(tmp_path))
    fq.save(tmp_path / "copy", model)
    assert same(tmp_path / "copy", model)
    fq.save(tmp_path / "model", model)  # over the file that it is read from
    assert same(tmp_path / "model", fq.open(tmp_path / "copy"))
    assert model["bias"].tolist() == [0, 1, 2]


def test_an_array_that_changes_meanwhile(tmp_path):
    class Changing(Lazy):
        def __getitem__(self, name):
            self.size += 1
            return super().__getitem__(name)

    with pytest.raises(
        ValueError, match=r"array 'layer0' must stay as it is while it is saved; it was float32 \(5,\), is"
    ):
        fq.save(tmp_path / "m", Changing(2, 4))
    assert not list(tmp_path.iterdir())


# Errors, before anything is written


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ([("x", 1)], TypeError, "mapping must be a mapping of names to arrays, such as a dict"),
        ({1: [1.0]}, TypeError, "names of arrays must be strings, got 1 of type int"),
        ({"__metadata__": [1.0]}, ValueError, "names of arrays must not be __metadata__"),
        ({"\ud800": [1.0]}, ValueError, "names of arrays must be text that UTF-8 has"),
        ({"x": "text"}, TypeError, "arrays must be of types that files of safetensors have .* got 'x' of dtype <U4"),
        ({"x": None}, TypeError, "got 'x' of dtype object"),
        ({"x": np.ones(3, complex)}, TypeError, "got 'x' of dtype complex128"),
        ({"x": np.ones(3, ml_dtypes.int4)}, TypeError, "got 'x' of dtype int4"),
        ({"x": np.ones(3, "datetime64[s]")}, TypeError, "got 'x' of dtype datetime64"),
        ({"x": np.ma.masked_less([1.0, 2.0], 1.5)}, TypeError, "arrays must not have masks"),
        (
            {"x": fq.quantize([1.0]), "x.scale": [1.0]},
            ValueError,
            r"'x.scale' is a part of 'x' and of 'x.scale': rename",
        ),
    ],
)
def test_what_is_not_saved(mapping, error, message, tmp_path):
    (tmp_path / "m").write_bytes(b"old")
    with pytest.raises(error, match=message):
        fq.save(tmp_path / "m", mapping)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == b"old"


def test_wrong_paths(tmp_path):
    with pytest.raises(IsADirectoryError, match="path must be that of a file"):
        fq.save(tmp_path, {"x": [1.0]})
    with pytest.raises(FileNotFoundError, match="path must lie in a folder; there is no"):
        fq.save(tmp_path / "no" / "m", {"x": [1.0]})
    with pytest.raises(TypeError, match="path must be a string or a path"):
        fq.save(None, {"x": [1.0]})


# Whole or not at all


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("at", [0, 2])
def test_errors_leave_what_was_there(error, old, at, tmp_path):
    if old:
        fq.save(tmp_path / "m", {"x": [1.0]})

    class Failing(Lazy):
        def __getitem__(self, name):
            if len(self.taken) == len(self.names) + at:
                raise error
            return super().__getitem__(name)

    with pytest.raises(type(error)):
        fq.save(tmp_path / "m", Failing(4, 10))
    assert [file.name for file in tmp_path.iterdir()] == (["m"] if old else [])
    if old:
        assert fq.open(tmp_path / "m")["x"] == 1


def test_a_full_disk(tmp_path):
    if not hasattr(signal, "SIGXFSZ"):
        pytest.skip("no limit of file sizes")
    code = (
        "import resource, signal, sys, numpy as np, fastq as fq\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try: fq.save(sys.argv[1], {'x': np.ones(10**6)})\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    fq.save(tmp_path / "m", {"x": [1.0]})
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert fq.open(tmp_path / "m")["x"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_is_killed(tmp_path):
    """The old file stays; what was written of the new one lies beside it."""
    code = (
        "import sys, time, numpy as np, fastq as fq\n"
        "from fastq.formats.writer import Tensor, write\n"
        "def arrays():\n"
        "    yield 'x', np.ones(100)\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "write(sys.argv[1], [Tensor(n, 'float64', (100,)) for n in 'xy'], {}, arrays())\n"
    )
    fq.save(tmp_path / "m", {"x": [1.0]})
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "m"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert fq.open(tmp_path / "m")["x"] == 1


# What a file says of its arrays


def edited(path, change):
    """A file whose text "fastq" is another."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["fastq"])
    change(document, header)
    header["__metadata__"]["fastq"] = json.dumps(document)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


def record(**fields):
    return lambda document, header: document["arrays"]["layer.weight"].update(fields)


def without(field):
    return lambda document, header: document["arrays"]["layer.weight"].pop(field)


AT_OPENING = {
    "version": (lambda d, h: d.update(version=2), "version must be 1, which this fastq reads; got 2"),
    "arrays": (lambda d, h: d.update(arrays=[]), "arrays must be an object"),
    "no record": (lambda d, h: d["arrays"].update({"x": 3}), "array 'x': it must have shape, dtype"),
    "no bits": (without("bits"), "array 'layer.weight': it must have shape"),
    "bits": (record(bits=9), "attribute bits must be from 2 to 8"),
    "bits that give other parts": (record(scheme="affine"), "parts must be "),
    "a large shape": (record(shape=[2**40, 2**40]), "no array of NumPy has the shape"),
    "rotation": (record(rotation=3), "attribute rotation must be"),
    "no parts": (record(parts={}), "parts must be "),
    "parts elsewhere": (record(parts={"codes": "x"}), "parts must be names of arrays in this file"),
    "its parts": (lambda d, h: d["arrays"].update({"x": d["arrays"]["layer.weight"]}), "parts must be "),
}
AT_READING = {
    "shape": (record(shape=[4, 96]), "codes: it must be int32"),
    "a width": (record(bits=5), "codes: it must be int32 "),
    "groups": (record(group_size=64), "scale: it must be float32"),
    "a dtype": (lambda d, h: h["layer.weight_packed"].update(dtype="F32"), "codes: it must be int32 .* got float32"),
}


@pytest.mark.parametrize("name", [*AT_OPENING, *AT_READING])
def test_wrong_texts(name, tmp_path):
    change, message = (AT_OPENING | AT_READING)[name]
    path = edited(own(tmp_path), change)
    if name in AT_READING:
        model = fq.open(path)
        assert model["rows.weight"].equals(quantized()["rows.weight"])  # which is not touched
    with pytest.raises(fq.FileFormatError, match=message) as error:
        fq.open(path)["layer.weight"]
    assert str(error.value).startswith(f"{path}: ")


def test_wrong_values(tmp_path):
    q = fq.quantize(np.ones((2, 3)), bits=4, axis=0)
    fq.save(tmp_path / "m", {"x": q, "y": np.ones(2)})
    with safe_open(tmp_path / "m", "numpy") as file:
        scale = file.get_tensor("x.scale")
    data = (tmp_path / "m").read_bytes()
    assert data.count(scale.tobytes()) == 1
    (tmp_path / "m").write_bytes(data.replace(scale.tobytes(), np.full_like(scale, np.nan).tobytes()))
    model = fq.open(tmp_path / "m")
    assert model["y"].tolist() == [1, 1]
    with pytest.raises(fq.FileFormatError, match=r"m: array 'x': scale must be finite"):
        model["x"]


def test_bfloat16_without_ml_dtypes(tmp_path, monkeypatch):
    q = fq.quantize(np.ones((2, 3), ml_dtypes.bfloat16), bits=4, axis=0)
    fq.save(tmp_path / "m", {"x": q})
    monkeypatch.setattr("fastq.formats.own.find_spec", lambda _: None)
    with pytest.raises(fq.FileFormatError, match="its bfloat16 needs ml_dtypes"):
        fq.open(tmp_path / "m")["x"]


def test_the_pieces_of_a_large_array(tmp_path, monkeypatch):
    monkeypatch.setattr("fastq.formats.writer.AT_ONCE", 100)
    arrays = {"t": np.arange(1000.0).reshape(20, 50).T, "b": np.arange(77, dtype=">i2").reshape(7, 11)}
    fq.save(tmp_path / "m", arrays)
    assert all((fq.open(tmp_path / "m")[name] == array).all() for name, array in arrays.items())


def test_unused_imports_stay_away():
    """`import fastq` does not import what files need."""
    code = "import sys, fastq; print([m for m in sys.modules if m.startswith('fastq.formats')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert saving.save is fq.save
