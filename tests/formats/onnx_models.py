"""Models of ONNX, made for tests, and what onnx.reference and onnxruntime compute with them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import helper, numpy_helper, save_model
from onnx.reference import ReferenceEvaluator


def reference(operator, *inputs, **attributes):
    """What onnx.reference computes."""
    names = [f"i{n}" if x is not None else "" for n, x in enumerate(inputs)]
    outputs = ["y", "s", "z"] if operator == "DynamicQuantizeLinear" else ["y"]
    node = helper.make_node(operator, names, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [info(name, np.asarray(x).dtype) for name, x in zip(names, inputs) if name],
        [helper.make_tensor_value_info(name, 0, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
    feeds = {name: np.asarray(x) for name, x in zip(names, inputs) if name}
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, feeds)
    return results if len(results) > 1 else results[0]


def info(name, dtype):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)


def nbits(rng, bits, n, k, block, kind=np.float32, zeros="packed"):
    """Inputs of MatMulNBits, and the weights that they stand for."""
    blocks = -(-k // block)
    codes = rng.integers(0, 2**bits, (n, blocks * block)).astype(np.uint8)
    scales = (rng.uniform(0.01, 1, (n, blocks)) * rng.choice([-1, 1], (n, blocks))).astype(kind)
    points = rng.integers(0, 2**bits, (n, blocks)).astype(np.uint8)
    given = {"packed": packed(points, bits), None: None, "floats": points.astype(kind) + kind(0.3)}[zeros]
    point = {"packed": points, None: 2 ** (bits - 1), "floats": given}[zeros]
    spread = [np.repeat(np.broadcast_to(v, (n, blocks)).astype(np.float32), block, 1) for v in (scales, point)]
    wide = codes.astype(np.float32)
    w = (wide * spread[0] - spread[0] * spread[1] if zeros == "floats" else (wide - spread[1]) * spread[0])[:, :k]
    return packed(codes, bits).reshape(n, blocks, -1), scales, given, w


def packed(codes, bits):
    """By bits, one after the other."""
    ones = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., :bits]
    return np.packbits(ones.reshape(len(codes), -1), axis=-1, bitorder="little")


def onnxruntime_nbits(a, b, scales, points, form):
    """What onnxruntime's MatMulNBits computes."""
    constants = {"b": b, "scales": scales, "points": points}
    model = nbits_model({name: value for name, value in constants.items() if value is not None}, form, a.dtype)
    try:
        return run(model.SerializeToString(), a)
    except Exception as error:
        if form["bits"] == 2 and "Only 4b and 8b" in str(error):
            pytest.skip("this onnxruntime multiplies no weights of 2 bits")
        raise


def nbits_model(constants, form, kind=np.float32, **attributes):
    """A model of one MatMulNBits."""
    node = helper.make_node("MatMulNBits", ["a", *constants], ["y"], domain="com.microsoft", **form, **attributes)
    return model_of([node], constants, kind)


def model_of(nodes, constants, kind=np.float32):
    """A model with an input a and an output y."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [info("a", kind)], [info("y", kind)], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model, a):
    """The output of a model, a path or bytes, by onnxruntime."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # nodes run as they are
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: a})[0]


# Samples to mutate


def linear_sample(folder):
    """Weights of all operators but MatMulNBits, and plain arrays."""
    rng = np.random.default_rng(0)
    codes = {kind: rng.integers(0, 4, (6, 8)).astype(np.int8) - 2 for kind in ("w8", "wi", "wq")}
    small = {name: codes["w8"].astype(getattr(ml_dtypes, name)) for name in ("int4", "int2")}
    scales = {"s8": rng.random(8).astype(np.float32), "s4": rng.random((3, 8)).astype(np.float16)}
    zeros = {"z8": np.arange(8).astype(np.int8), "one": np.float32(0.5), "z": np.int8(1)}
    floats = {"wf": rng.standard_normal((6, 8), np.float32), "half": np.ones(3, ml_dtypes.bfloat16)}
    constants = {**codes, **small, **scales, **zeros, **floats, "bias": np.arange(5), "flag": np.array([True, False])}
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s8", "z8"], ["d8"], axis=1),
        helper.make_node("DequantizeLinear", ["int4", "s4"], ["d4"], axis=0, block_size=2),
        helper.make_node("DequantizeLinear", ["int2", "one"], ["d2"], output_dtype=10),
        helper.make_node("QuantizeLinear", ["wf", "one", "z"], ["qf"]),
        helper.make_node("DequantizeLinear", ["qf", "one", "z"], ["df"]),
        helper.make_node("DynamicQuantizeLinear", ["a"], ["qa", "sa", "za"]),
        helper.make_node("MatMulInteger", ["qa", "wi", "za", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=1),
        helper.make_node("Mul", ["sa", "one"], ["sb"]),
        helper.make_node("Mul", ["c", "sb"], ["y"]),
        helper.make_node("QLinearMatMul", ["qa", "sa", "za", "wq", "s8", "z8", "one", "z"], ["q"]),
    ]
    model = model_of(nodes, constants)
    model.graph.initializer.append(helper.make_tensor("typed", 3, [2, 3], [-1, 2, -3, 4, -5, 6]))
    model.graph.initializer.append(helper.make_tensor("numbers", 1, [3], [1.5, 2, 3]))
    return saved(model, folder)


def nbits_sample(folder):
    """Weights of MatMulNBits: of all kinds of zero points."""
    rng = np.random.default_rng(0)
    nodes, constants = [], {}
    for number, (bits, zeros, kind) in enumerate(
        [(2, "packed", np.float32), (4, "floats", np.float32), (4, None, np.float16), (8, "packed", np.float32)]
    ):
        parts = zip(("b", "s", "z"), nbits(rng, bits, 3, 40, 16, kind, zeros)[:3])
        own = {f"{name}{number}": value for name, value in parts if value is not None}
        form = {"K": 40, "N": 3, "bits": bits, "block_size": 16}
        nodes.append(helper.make_node("MatMulNBits", ["a", *own], [f"y{number}"], domain="com.microsoft", **form))
        constants |= own
    return saved(model_of(nodes, constants), folder)


def external_sample(folder):
    """Values in a file beside the model."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.integers(-8, 8, (4, 6)).astype(np.int8), "s": rng.random(6).astype(np.float32)}
    model = model_of([helper.make_node("DequantizeLinear", ["w", "s"], ["y"], axis=1)], constants)
    place = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    save_model(model, folder / "model.onnx", **place)
    return folder / "model.onnx"


def saved(model, folder):
    save_model(model, folder / "model.onnx")
    return folder / "model.onnx"
