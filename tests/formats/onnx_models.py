"""Models of ONNX, made for tests, and what onnx.reference and onnxruntime compute with them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
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
    return run(model.SerializeToString(), a)


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
