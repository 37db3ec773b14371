"""Models of ONNX: arrays as onnx reads them, and weights as onnx.reference and onnxruntime dequantize them."""

from __future__ import annotations

import os
from inspect import signature

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

import fastq as fq
from fastq.formats import onnx as formats
from fastq.formats.binary import Bytes

from .onnx_models import model_of, nbits, nbits_model, onnxruntime_nbits, reference, run

I4, U4, I2, U2 = (np.dtype(getattr(ml_dtypes, name)) for name in ("int4", "uint4", "int2", "uint2"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def entries(model, tmp_path):
    """The entries of a model that is saved first."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    file = Bytes(path)
    assert formats.recognizes(file)
    return formats.entries(file)


def initializers(*tensors):
    graph = helper.make_graph([], "g", [], [], list(tensors))
    return helper.make_model(graph)


def same(got, expected):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


# Plain arrays

TYPES = [
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16", "float64", "uint32"),
    *("uint64", "complex64", "complex128", BFLOAT16, I4, U4, I2, U2),
]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: np.dtype(kind).name)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 5)], ids=str)
def test_arrays_of_all_types(rng, tmp_path, kind, raw, shape):
    kind = np.dtype(kind)
    low, high = (
        (-2, 2)
        if kind.name == "int2"
        else (0, 2)
        if kind.name == "bool"
        else (0, 4)
        if "uint" in kind.name
        else (-8, 8)
    )
    values = rng.integers(low, high, shape).astype(kind)
    number = helper.np_dtype_to_tensor_dtype(kind)
    tensor = numpy_helper.from_array(values, "x") if raw else helper.make_tensor("x", number, shape, values.ravel())
    assert tensor.HasField("raw_data") == raw
    entry = entries(initializers(tensor), tmp_path)["x"]
    assert (entry.shape, entry.kind) == (shape, kind.name)
    assert entry.nbytes == len(numpy_helper.from_array(values).raw_data)
    same(entry.read(), values)
    same(entry.read(), numpy_helper.to_array(tensor))


def test_large_integers(tmp_path):
    values = {
        "a": np.array([0, 1, -1, 2**63 - 1, -(2**63)]),
        "b": np.array([2**64 - 1, 127, 128], np.uint64),
        "c": np.array([-(2**31), 2**31 - 1, 300], np.int32),
    }
    tensors = [helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape, v) for n, v in values.items()]
    found = entries(initializers(*tensors), tmp_path)
    for name, expected in values.items():
        same(found[name].read(), expected)


def test_without_ml_dtypes(tmp_path, monkeypatch):
    for module in ("onnx.types", "onnx.weights", "binary"):
        monkeypatch.setattr(f"fastq.formats.{module}.find_spec", lambda name: None)
    half = np.array([[1.5, -2.0]], BFLOAT16)
    tensors = {"four": np.array([-8, 7], I4), "half": half, "codes": np.array([[3, -3]], np.int8)}
    node = helper.make_node("DequantizeLinear", ["codes", "half"], ["y"], axis=0, block_size=1)
    found = entries(model_of([node], tensors), tmp_path)
    same(found["four"].read(), np.array([-8, 7], np.int8))
    same(found["half"].read(), half.astype(np.float32))
    same(found["codes"].read().dequantize(), np.array([[4.5, 6.0]], np.float32))


# Files beside the model


def beside(folder, location, **place):
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "x")
    set_external_data(tensor, location, **place)
    tensor.ClearField("raw_data")
    return entries(initializers(tensor, numpy_helper.from_array(np.ones(1), "other")), folder)


def test_external_data(rng, tmp_path):
    values = {name: rng.standard_normal((40, 50)).astype(np.float32) for name in "ab"}
    values["c"] = rng.integers(-8, 8, (400, 11)).astype(I4)
    model = model_of([], values)
    (tmp_path / "deep").mkdir()
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="deep/weights", size_threshold=0
    )
    found = formats.entries(Bytes(tmp_path / "model.onnx"))
    for name, expected in values.items():
        same(found[name].read(), expected)
    assert not found["a"].read().flags.writeable


@pytest.mark.parametrize(
    ("location", "place", "message"),
    [
        ("../data", {}, "lead out"),
        ("inside/../../data", {}, "lead out"),
        ("link", {}, "lead out"),
        ("linked/data", {}, "lead out"),
        ("{folder}/data", {}, "a path in the model's folder"),
        ("", {}, "a path in the model's folder"),
        ("a\0b", {}, "a path in the model's folder"),
        ("none", {}, "there is none"),
        ("inside", {}, "there is none"),
        ("pipe", {}, "there is none"),
        ("x" * 5000, {}, "there is none"),
        ("data", {"length": 23}, "takes 24 bytes, not 23"),
        ("data", {"offset": 1}, "24 bytes at offset 1"),
        ("data", {"offset": 10**17}, "24 bytes at offset"),
        ("data", {"offset": -1}, "offset of its external data must be a number"),
        ("data", {"length": 10**30}, "length of its external data must be a number"),
    ],
)
def test_external_data_stays_in_the_folder(tmp_path, location, place, message):
    folder = tmp_path / "model"
    (folder / "inside").mkdir(parents=True)
    for at in (tmp_path, folder):
        (at / "data").write_bytes(bytes(24))
    (folder / "link").symlink_to(tmp_path / "data")
    (folder / "linked").symlink_to(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    found = beside(folder, location.format(folder=folder), **place)
    with pytest.raises(fq.FileFormatError, match=message) as error:
        found["x"].read()
    assert "tensor 'x'" in str(error.value)
    assert str(folder) in str(error.value)
    assert found["other"].read() == 1


def test_links_in_the_folder(tmp_path):
    (tmp_path / "data").write_bytes(bytes(24))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert not beside(tmp_path, "link")["x"].read().any()


# DequantizeLinear


def some_codes(rng, kind, shape):
    bits = int(kind.name.strip("uint"))
    low = 0 if kind.name.startswith("u") else -(2 ** (bits - 1))
    return rng.integers(low, low + 2**bits, shape).astype(np.int16).astype(kind)


def dequantizing(codes, scale, zero, **attributes):
    constants = {"w": codes, "scale": scale} | ({} if zero is None else {"zero": zero})
    nodes = [
        helper.make_node("DequantizeLinear", list(constants), ["d"], **attributes),
        helper.make_node("MatMul", ["a", "d"], ["y"]),
    ]
    return model_of(nodes, constants)


GRAINS = {
    "tensor": ((48, 10), (), {}, "axis=None"),
    "columns": ((48, 10), (10,), {"axis": 1}, "axis=0"),
    "rows": ((48, 10), (48,), {"axis": -2}, "axis=1"),
    "blocks": ((50, 10), (4, 10), {"axis": 0, "block_size": 16}, "axis=0"),
    "blocks of rows": ((10, 50), (10, 4), {"axis": 1, "block_size": 16}, "axis=1"),
    "one block": ((48, 10), (1, 10), {"axis": 0, "block_size": 48}, "axis=0"),
    "stack, tensor": ((2, 3, 4, 5), (1,), {}, "axis=None"),
    "stack, columns": ((3, 20, 10), (10,), {"axis": 2}, "axis=1"),
    "vector": ((9,), (), {}, "axis=None"),
}
EIGHT = (np.dtype(np.int8), np.dtype(np.uint8))


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("kind", [*EIGHT, I4, U4, I2, U2], ids=lambda kind: kind.name)
@pytest.mark.parametrize("zero", [False, True], ids=["", "zero"])
def test_dequantize_linear(rng, tmp_path, grain, kind, zero):
    shape, of_scale, attributes, axis = GRAINS[grain]
    codes, point = some_codes(rng, kind, shape), some_codes(rng, kind, of_scale) if zero else None
    scale = (rng.uniform(0.01, 1, of_scale) * rng.choice([-1, 1], of_scale)).astype(np.float32)
    entry = entries(dequantizing(codes, scale, point, **attributes), tmp_path)["w"]
    q = entry.read()
    same(q.dequantize(), reference("DequantizeLinear", codes, scale, point, **attributes))
    bits = int(kind.name.strip("uint"))
    groups = ", groups of 16" if "blocks" in grain else ""
    assert (entry.shape, entry.kind) == (shape, f"{bits} bits{groups}")
    assert q.bits == bits
    assert q.group_size == (16 if groups else None)
    assert q.scheme == ("asymmetric" if (zero and point.any()) or kind.name[0] == "u" else "symmetric")
    assert axis in repr(q) or (axis == "axis=None" and q.axis is None)


@pytest.mark.parametrize("kind", [np.dtype(np.float16), BFLOAT16], ids=lambda kind: kind.name)
@pytest.mark.parametrize("output", [0, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision(rng, tmp_path, kind, output):
    codes, point = some_codes(rng, EIGHT[0], (30, 7)), some_codes(rng, EIGHT[0], 7)
    scale = rng.uniform(0.01, 1, 7).astype(kind)
    attributes = {"output_dtype": output} if output else {}
    q = entries(dequantizing(codes, scale, point, **attributes), tmp_path)["w"].read()
    same(q.dequantize(), reference("DequantizeLinear", codes, scale, point, **attributes))


@pytest.mark.parametrize(("largest", "fits"), [(511, True), (513, False)])
def test_numbers_that_are_infinite(tmp_path, largest, fits):
    """fastq would keep them finite."""
    codes, scale = np.full((2, 3), -128, np.int8), np.float16(largest)
    entry = entries(dequantizing(codes, scale, None), tmp_path)["w"]
    if fits:
        same(entry.read().dequantize(), reference("DequantizeLinear", codes, scale))
    else:
        with pytest.raises(fq.FileFormatError, match="must be finite, but some are too large for float16"):
            entry.read()


@pytest.mark.parametrize("axis", [0, 1])
def test_numbers_alone(tmp_path, axis):
    """What has no axis has one scale."""
    codes = np.array(-3, np.int8)
    assert entries(dequantizing(codes, np.float32(2), None, axis=axis), tmp_path)["w"].read().dequantize() == -6
    node = helper.make_node("MatMulInteger", ["a", "w"], ["y"])
    assert entries(model_of([node], {"w": codes}), tmp_path)["w"].read().dequantize() == -3


def test_products(rng, tmp_path):
    codes, scale = some_codes(rng, I4, (64, 10)), rng.uniform(0.01, 1, (2, 10)).astype(np.float32)
    w = entries(dequantizing(codes, scale, None, axis=0, block_size=32), tmp_path)["w"].read()
    x = rng.standard_normal((3, 64), np.float32)
    np.testing.assert_allclose(x @ w, x @ w.dequantize(), atol=0.05 * np.abs(x @ w.dequantize()).max())


@pytest.mark.parametrize(
    ("codes", "scale", "attributes"),
    [
        (np.zeros((3, 4), np.int16), np.ones((), np.float32), {}),
        (np.zeros(4, np.int32), np.ones(4, np.float32), {"axis": 0}),
        (np.zeros(4, np.int8), np.ones(4, np.float32), {"axis": 0}),
        (np.zeros((4, 3, 2, 2), np.int8), np.ones(4, np.float32), {"axis": 0}),
    ],
    ids=["16 bits", "32 bits", "vector", "convolution"],
)
def test_what_is_no_quantized_matrix_is_plain(tmp_path, codes, scale, attributes):
    same(entries(dequantizing(codes, scale, None, **attributes), tmp_path)["w"].read(), codes)


def test_scales_that_are_computed_leave_codes_plain(tmp_path):
    codes = np.ones((3, 4), np.int8)
    model = dequantizing(codes, np.ones((), np.float32), None)
    model.graph.node[0].input[1] = "a"
    same(entries(model, tmp_path)["w"].read(), codes)


def test_scales_of_constants(tmp_path):
    model = dequantizing(np.ones((3, 4), np.int8), np.float32([1, 2, 3, 4]), None, axis=1)
    constant = helper.make_node("Constant", [], ["scale"], value=model.graph.initializer[1])
    del model.graph.initializer[1]
    model.graph.node.insert(0, constant)
    found = entries(model, tmp_path)
    assert list(found) == ["w"]
    assert found["w"].read().dequantize()[0].tolist() == [1, 2, 3, 4]


def test_another_domain_is_none_of_onnx(tmp_path):
    model = dequantizing(np.ones((3, 4), np.int8), np.ones((), np.float32), None)
    model.graph.node[0].domain = "example.org"
    assert isinstance(entries(model, tmp_path)["w"].read(), np.ndarray)


# QuantizeLinear


def fake_quantizing(w, scale, zero, others=(), **attributes):
    names = ["scale"] if zero is None else ["scale", "zero"]
    constants = {"w": w, "scale": scale} | ({} if zero is None else {"zero": zero})
    nodes = [
        helper.make_node("QuantizeLinear", ["w", *names], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", *names], ["d"], **attributes),
        helper.make_node("MatMul", ["a", "d"], ["y"]),
        *others,
    ]
    return model_of(nodes, constants)


@pytest.mark.parametrize("kind", [*EIGHT, I4], ids=lambda kind: kind.name)
@pytest.mark.parametrize("grain", ["tensor", "columns", "blocks"])
def test_floats_that_the_graph_rounds(rng, tmp_path, kind, grain):
    shape, of_scale, attributes, _ = GRAINS[grain]
    w, scale = rng.standard_normal(shape, np.float32), rng.uniform(0.01, 0.02, of_scale).astype(np.float32)
    zero = some_codes(rng, kind, of_scale)
    q = entries(fake_quantizing(w, scale, zero, **attributes), tmp_path)["w"].read()
    codes = reference("QuantizeLinear", w, scale, zero, **attributes)
    same(q.dequantize(), reference("DequantizeLinear", codes, scale, zero, **attributes))


def test_floats_that_others_take_stay_plain(rng, tmp_path):
    w = rng.standard_normal((4, 5), np.float32)
    others = [helper.make_node("MatMul", ["a", "w"], ["z"])]
    same(entries(fake_quantizing(w, np.float32(0.1), None, others), tmp_path)["w"].read(), w)


# Products of integers


@pytest.mark.parametrize("kind", EIGHT, ids=lambda kind: kind.name)
@pytest.mark.parametrize("of", [(), (1,), (10,), (1, 10)], ids=str)
def test_matmul_integer(rng, tmp_path, kind, of):
    b, zero = some_codes(rng, kind, (20, 10)), some_codes(rng, kind, of)
    node = helper.make_node("MatMulInteger", ["a", "b", "", "zero"], ["y"])
    q = entries(model_of([node], {"b": b, "zero": zero}), tmp_path)["b"].read()
    same(q.dequantize(), b.astype(np.float32) - zero.reshape(of[-1:]))


@pytest.mark.parametrize("of_x", [False, True], ids=["dynamic", "static"])
def test_scale_of_a_product_of_integers(tmp_path, of_x):
    """The factor of the product, as onnxruntime writes it: the scale of x, constant or not, times that of w."""
    nodes = [
        helper.make_node("MatMulInteger", ["a", "b"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=1),
        helper.make_node("Mul", ["x_scale" if of_x else "computed", "b_scale"], ["scales"]),
        helper.make_node("Mul", ["c", "scales"], ["y"]),
    ]
    scale = np.float32([1, 2, 3])
    constants = {"b": np.ones((2, 3), np.int8), "b_scale": scale, "x_scale": np.float32([9, 9, 9])}
    q = entries(model_of(nodes, constants), tmp_path)["b"].read()
    assert q.dequantize()[0].tolist() == [1, 2, 3]


def test_qlinear_matmul(rng, tmp_path):
    a, b = some_codes(rng, EIGHT[1], (6, 20)), some_codes(rng, EIGHT[0], (20, 10))
    scales = {"a_scale": rng.random(6).astype(np.float32), "b_scale": rng.random(10).astype(np.float32)}
    zeros = {"a_zero": some_codes(rng, EIGHT[1], 6), "b_zero": some_codes(rng, EIGHT[0], 10)}
    node = helper.make_node("QLinearMatMul", ["l", "a_scale", "a_zero", "r", "b_scale", "b_zero", "s", "z"], ["y"])
    found = entries(model_of([node], {"l": a, "r": b, **scales, **zeros}), tmp_path)
    left = reference("DequantizeLinear", a, scales["a_scale"], zeros["a_zero"], axis=0)
    right = reference("DequantizeLinear", b, scales["b_scale"], zeros["b_zero"], axis=1)
    same(found["l"].read().dequantize(), left)
    same(found["r"].read().dequantize(), right)


# MatMulNBits


def nbits_weights(b, scales, points, form, tmp_path, **attributes):
    constants = {"b": b, "scales": scales, "points": points}
    given = {name: value for name, value in constants.items() if value is not None}
    return entries(nbits_model(given, form, scales.dtype, **attributes), tmp_path)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [None, "packed", "floats"])
@pytest.mark.parametrize(("k", "block"), [(64, 32), (50, 16), (20, 32)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_matmul_nbits(rng, tmp_path, bits, zeros, k, block, kind):
    b, scales, points, w = nbits(rng, bits, 6, k, block, kind, zeros)
    form = {"K": k, "N": 6, "bits": bits, "block_size": block}
    entry = nbits_weights(b, scales, points, form, tmp_path)["b"]
    q = entry.read()
    groups = f", groups of {block}" if k > block else ""
    assert (entry.shape, entry.kind) == (q.shape, f"{bits} bits{groups}") == ((6, k), f"{bits} bits{groups}")
    assert q.scheme == {None: "symmetric", "packed": "asymmetric", "floats": "affine"}[zeros]
    assert np.array_equal(q.dequantize(np.float32), w)
    assert q.dtype == kind
    if zeros == "floats" and bits != 4:
        return  # onnxruntime refuses them
    theirs = onnxruntime_nbits(np.eye(k, dtype=kind), b, scales, points, form)
    assert np.array_equal(theirs, q.dequantize().T)


def test_zero_points_in_the_middle_are_none(rng, tmp_path):
    b, scales, _, _ = nbits(rng, 4, 6, 64, 32)
    form = {"K": 64, "N": 6, "bits": 4, "block_size": 32}
    q = nbits_weights(b, scales, np.full((6, 1), 0x88, np.uint8), form, tmp_path)["b"].read()
    assert q.equals(nbits_weights(b, scales, None, form, tmp_path)["b"].read())
    assert q.scheme == "symmetric"


def test_flat_scales(rng, tmp_path):
    """Older models have scales and zero points of one axis."""
    b, scales, points, w = nbits(rng, 4, 6, 64, 32)
    form = {"K": 64, "N": 6, "bits": 4, "block_size": 32}
    q = nbits_weights(b, scales.ravel(), points.ravel(), form, tmp_path)["b"].read()
    assert np.array_equal(q.dequantize(), w)


# What is wrong is named


def sparse(model):
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def broken(tensor, **fields):
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)


def another_scale(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["w", "two"], ["e"]))


WRONG = {
    "w": [
        (lambda m: broken(m.graph.initializer[0], raw_data=b"1"), "takes 12 bytes, not 1"),
        (lambda m: broken(m.graph.initializer[0], dims=[-1, 4]), "no array of NumPy"),
        (lambda m: broken(m.graph.initializer[0], dims=[2**62, 2**62]), "no array of NumPy"),
        (lambda m: broken(m.graph.initializer[0], dims=[0, 2**62]), "no array of NumPy"),
        (lambda m: broken(m.graph.initializer[0], dims=[1] * 65), "no array of NumPy"),
        (lambda m: broken(m.graph.initializer[1], dims=[3], raw_data=bytes(12)), "one entry per run of elements"),
        (lambda m: broken(m.graph.initializer[1], data_type=7, raw_data=bytes(32)), "its scale must be of floats"),
        (lambda m: broken(m.graph.initializer[1], raw_data=np.float32([1, np.nan, 1, 1]).tobytes()), "finite"),
        (lambda m: broken(m.graph.initializer[2], data_type=2), "its zero point must be of its type, int8"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two initializers"),
        (another_scale, "different scales"),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("block_size", -2)), "must not be negative"),
    ],
    "s": [(sparse, "it is sparse")],
    "f": [
        (
            lambda m: m.graph.initializer.append(helper.make_tensor("f", TensorProto.FLOAT8E4M3FN, [1], [1])),
            "float8e4m3fn",
        ),
        (lambda m: m.graph.initializer.append(helper.make_tensor("f", TensorProto.FLOAT4E2M1, [1], [1])), "float4e2m1"),
        (lambda m: m.graph.initializer.append(helper.make_tensor("f", TensorProto.STRING, [1], [b"a"])), "string"),
        (lambda m: m.graph.initializer.append(TensorProto(name="f", data_type=99)), "type 99"),
        (lambda m: m.graph.initializer.append(TensorProto(name="f", data_type=1, dims=[3])), "must hold 3 numbers"),
    ],
}


@pytest.mark.parametrize(("name", "spoil", "message"), [(name, *case) for name in WRONG for case in WRONG[name]])
def test_what_cannot_be_read_is_named(tmp_path, name, spoil, message):
    scale, zero = np.ones(4, np.float32), np.ones(4, np.int8)
    model = dequantizing(np.ones((3, 4), np.int8), scale, zero, axis=1)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2), "other"))
    spoil(model)
    found = entries(model, tmp_path)
    with pytest.raises(fq.FileFormatError, match=message) as error:
        found[name].read()
    assert str(error.value).startswith(f"{tmp_path / 'model.onnx'}: tensor '{name}': ")
    assert found["other"].read().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, "bits must be 2, 4 or 8"),
        ({"block_size": 8}, "power of two"),
        ({"block_size": 2**62}, "scales must be floats of shape"),
        ({"K": 65}, "scales must be floats of shape"),
        ({"N": 0}, "must be positive"),
        ({"N": 2**62}, "scales must be floats of shape"),
        ({"K": 63, "block_size": 16, "bits": 2, "N": 3}, "B must be uint8"),
        ({"weight_prepacked": 1}, "weight_prepacked"),
        ({"g_idx": True}, "g_idx"),
    ],
)
def test_matmul_nbits_that_cannot_be_read(rng, tmp_path, change, message):
    b, scales, points, _ = nbits(rng, 4, 6, 64, 32)
    form = {"K": 64, "N": 6, "bits": 4, "block_size": 32, **change}
    constants = {"b": b, "scales": scales, "points": points}
    if form.pop("g_idx", False):
        constants["g_idx"] = np.zeros(64, np.int32)
    found = entries(nbits_model(constants, form), tmp_path)
    with pytest.raises(fq.FileFormatError, match=message):
        found["b"].read()
    same(found["scales"].read(), scales)


OTHERS = [
    *(b"", b"\x08", b"\x08\x08", b"\x93NUMPY\x01\x00", b"PK\x03\x04aaaa", b"GGUF\x03\x00\x00\x00"),
    b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
    b": a text that begins with the tag of a graph, and has more than fifty-eight bytes.",
    b"\x08\x01" * 50_000,
]


@pytest.mark.parametrize("start", OTHERS)
def test_other_files_are_not_recognized(tmp_path, start):
    (tmp_path / "file").write_bytes(start)
    file = Bytes(tmp_path / "file")
    assert not formats.recognizes(file) or start == b"\x08\x08"


def test_a_file_that_is_cut_short(tmp_path):
    model = dequantizing(np.ones((30, 4), np.int8), np.ones(4, np.float32), None, axis=1).SerializeToString()
    for size in range(3, len(model) - 40):
        with pytest.raises(fq.FileFormatError):
            entries(model[:size], tmp_path)


def test_opening_reads_no_values(tmp_path):
    """Values may be missing altogether."""
    found = beside(tmp_path, "none")
    assert (found["x"].shape, found["x"].kind, found["x"].nbytes) == ((2, 3), "float32", 24)


def test_graph_in_two_parts(tmp_path):
    """Protocol Buffers join the parts of a message."""
    one, other = (initializers(numpy_helper.from_array(np.ones(2), name)).SerializeToString() for name in "ab")
    assert list(entries(one + other, tmp_path)) == ["a", "b"]


# Models by onnxruntime's quantizers


@pytest.fixture
def quantization():
    pytest.importorskip("onnxruntime")
    from onnxruntime import quantization

    return quantization


def matmul_model(rng, path, k=50, n=12):
    w = rng.standard_normal((k, n), np.float32)
    model = model_of([helper.make_node("MatMul", ["a", "w"], ["y"], name="mm")], {"w": w})
    for value in (model.graph.input[0], model.graph.output[0]):
        size = k if value.name == "a" else n
        value.type.tensor_type.shape.CopyFrom(
            helper.make_tensor_value_info("v", 1, [None, size]).type.tensor_type.shape
        )
    onnx.save(model, path)
    return w


def one_weight(path):
    found = formats.entries(Bytes(path))
    (q,) = [
        value
        for value in (entry.read() for entry in found.values())
        if isinstance(value, fq.QArray) and value.ndim == 2
    ]
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return q, constants


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_quantize_dynamic(rng, tmp_path, quantization, per_channel, kind):
    w = matmul_model(rng, tmp_path / "floats")
    quantization.quantize_dynamic(
        tmp_path / "floats", tmp_path / "codes", per_channel=per_channel, weight_type=quantization.QuantType[kind]
    )
    q, constants = one_weight(tmp_path / "codes")
    codes, scale, zero = (constants[f"w_{name}"] for name in ("quantized", "scale", "zero_point"))
    same(q.dequantize(), reference("DequantizeLinear", codes, scale, zero))
    assert np.abs(q.dequantize() - w).max() <= np.abs(scale).max()
    x = rng.standard_normal((4, 50), np.float32)
    np.testing.assert_allclose(x @ q, run(str(tmp_path / "codes"), x), atol=0.05 * np.abs(x @ w).max())


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_quantize_static(rng, tmp_path, quantization, form, per_channel, floats):
    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"a": rng.standard_normal((8, 50), np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    w = matmul_model(rng, tmp_path / "floats")
    quantization.quantize_static(
        tmp_path / "floats",
        tmp_path / "codes",
        Reader(),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        extra_options={"AddQDQPairToWeight": floats},
    )
    q, constants = one_weight(tmp_path / "codes")
    scale, zero = constants["w_scale"], constants["w_zero_point"]
    codes = constants["w_quantized"] if "w_quantized" in constants else reference("QuantizeLinear", w, scale, zero)
    assert ("w" in constants) == (floats and form == "QDQ")
    same(q.dequantize(), reference("DequantizeLinear", codes, scale, zero))
    assert np.abs(q.dequantize() - w).max() <= np.abs(scale).max()


@pytest.mark.parametrize(("bits", "form"), [(4, "QOperator"), (8, "QOperator"), (4, "QDQ")])
@pytest.mark.parametrize("symmetric", [False, True])
def test_matmul_nbits_quantizer(rng, tmp_path, quantization, bits, symmetric, form):
    w = matmul_model(rng, tmp_path / "floats")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    if "bits" not in signature(MatMulNBitsQuantizer).parameters:
        pytest.skip("this onnxruntime is told the bits in another way")
    options = {"bits": bits, "block_size": 32, "is_symmetric": symmetric}
    quantizer = MatMulNBitsQuantizer(
        onnx.load(tmp_path / "floats"), quant_format=quantization.QuantFormat[form], **options
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(tmp_path / "codes"))
    q, _ = one_weight(tmp_path / "codes")
    by_column = q.dequantize().T if form == "QOperator" else q.dequantize()
    assert np.array_equal(by_column, run(str(tmp_path / "codes"), np.eye(50, dtype=np.float32)))
    assert np.abs(by_column - w).max() <= 8 / 2**bits
