"""fastq's own files: quantized arrays come back equal, others can read them, and wrong records are refused."""

from __future__ import annotations

import itertools
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import fastq as fq

from .checkpoint_files import with_library
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


LIBRARY = list(itertools.product((2, 3, 4, 5, 8), (32, None), (True, False), ("float32", "float16")))


@pytest.mark.parametrize(("bits", "group", "symmetric", "kind"), with_library("compressed_tensors", LIBRARY))
def test_compressed_tensors_by_the_library(bits, group, symmetric, kind, tmp_path):
    """Its compressor makes the same of these codes and scales, and it reads the file right."""
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor as packer
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
