"""The operators of ONNX: its own tests of nodes, and random ones against onnx.reference, int64 and onnxruntime."""

from __future__ import annotations

import importlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as cases

import fastq as fq
from fastq.interop import onnx as ops

from ..formats.onnx_models import nbits, onnxruntime_nbits, reference

OPERATORS = {
    "QuantizeLinear": ops.quantize_linear,
    "DequantizeLinear": ops.dequantize_linear,
    "DynamicQuantizeLinear": ops.dynamic_quantize_linear,
    "MatMulInteger": ops.matmul_integer,
    "QLinearMatMul": ops.qlinear_matmul,
    "MatMulNBits": ops.matmul_nbits,
}
EIGHT = np.int8, np.uint8
CODES = (*EIGHT, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2)


def node_cases():
    for operator in list(OPERATORS)[:5]:
        importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
    return [case for case in cases._NodeTestCases if case.model.graph.node[0].op_type in OPERATORS]


def small_floats(case):
    values = [*case.model.graph.input, *case.model.graph.output]
    return any("FLOAT" in TensorProto.DataType.Name(n)[:-1] and n not in (1, 10) for n in map(element, values))


def element(value):
    return value.type.tensor_type.elem_type


def run(case):
    (node,) = case.model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for inputs, outputs in case.data_sets:
        inputs, outputs = ([as_array(v) for v in values] for values in (inputs, outputs))
        got = OPERATORS[node.op_type](*inputs, **attributes)
        yield from zip(got if isinstance(got, tuple) else (got,), outputs)


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


NODES = node_cases()
INTEGERS = [case for case in NODES if not small_floats(case)]


@pytest.mark.parametrize("case", INTEGERS, ids=lambda case: case.name)
def test_nodes(case):
    for got, expected in run(case):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if got.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, case.rtol, case.atol)
        else:
            assert np.array_equal(got.astype(np.int32), expected.astype(np.int32))


def test_no_node_is_lost():
    """The integer nodes of onnx 1.23; later ones may have more."""
    assert len(INTEGERS) >= 31
    counts = {name: sum(c.model.graph.node[0].op_type == name for c in INTEGERS) for name in OPERATORS}
    assert counts["QuantizeLinear"] >= 10
    assert counts["DequantizeLinear"] >= 9
    assert counts["QLinearMatMul"] >= 8
    assert counts["DynamicQuantizeLinear"] >= 3


@pytest.mark.parametrize("case", [case for case in NODES if small_floats(case)], ids=lambda case: case.name)
def test_small_floats_are_refused(case):
    with pytest.raises(TypeError, match="float"):
        list(run(case))


def limits(kind):
    got = ops.quantize_linear(np.array([-np.inf, np.inf], np.float32), 1.0, output_dtype=np.dtype(kind).name)
    return tuple(map(int, got.astype(np.int32)))


def some_codes(rng, kind, shape):
    low, high = limits(kind)
    return rng.integers(low, high + 1, shape).astype(np.int32).astype(kind)


def same(got, expected):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


GRAINS = {
    "tensor": ((), {}),
    "axis 0": ((6,), {"axis": 0}),
    "axis -1": ((11,), {"axis": -1}),
    "blocks": ((6, 3), {"axis": 1, "block_size": 4}),  # the last one has 3
    "blocks along axis 0": ((2, 11), {"axis": 0, "block_size": 3}),
}


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("kind", CODES, ids=lambda kind: np.dtype(kind).name)
@pytest.mark.parametrize("zero", [False, True])
def test_linear_as_the_reference(rng, grain, kind, zero):
    shape, attributes = GRAINS[grain]
    scale = rng.uniform(0.01, 2, shape).astype(np.float32)
    point = some_codes(rng, kind, shape) if zero else None
    x = (rng.standard_normal((6, 11)) * 300).astype(np.float32)
    x[0, :8] = (np.arange(8) - 3.5) * scale.flat[0]  # halves
    output = {} if zero else {"output_dtype": helper.np_dtype_to_tensor_dtype(np.dtype(kind))}
    codes = ops.quantize_linear(x, scale, point, **attributes, **output)
    same(codes, reference("QuantizeLinear", x, scale, point, **attributes, **output))
    numbers = ops.dequantize_linear(codes, scale, point, **attributes)
    same(numbers, reference("DequantizeLinear", codes, scale, point, **attributes))


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=lambda kind: np.dtype(kind).name)
def test_half_precision(rng, kind):
    x, scale = rng.standard_normal((4, 6)).astype(kind), rng.uniform(0.01, 0.1, 6).astype(kind)
    codes = ops.quantize_linear(x, scale, np.zeros(6, np.int8))
    same(codes, reference("QuantizeLinear", x, scale, np.zeros(6, np.int8)))
    same(ops.dequantize_linear(codes, scale), reference("DequantizeLinear", codes, scale))
    wide = ops.dequantize_linear(codes, scale, output_dtype=TensorProto.FLOAT)
    same(wide, reference("DequantizeLinear", codes, scale, output_dtype=TensorProto.FLOAT))
    exact = ops.quantize_linear(x, scale, np.zeros(6, np.int8), precision=TensorProto.FLOAT)
    same(exact, reference("QuantizeLinear", x, scale, np.zeros(6, np.int8), precision=TensorProto.FLOAT))


def test_division_is_in_the_type_of_the_scale():
    """As the specification has it, and not in the wider of both types."""
    x, scale = np.array([1.0014], np.float32), np.float16(0.001)
    quotient = np.rint(np.float16(x) / scale)
    assert quotient != np.rint(x / np.float32(scale))
    assert ops.quantize_linear(x, scale, np.uint16(0)) == quotient


def test_rounding_comes_before_the_zero_point():
    assert ops.quantize_linear(np.array([0.5, 1.5], np.float32), 1.0, np.uint8(1)).tolist() == [1, 3]
    a = np.array([[1]], np.uint8)
    assert ops.qlinear_matmul(a, 0.5, np.uint8(0), a, 1.0, np.uint8(0), 1.0, np.uint8(1)).tolist() == [[1]]


def test_far_numbers_saturate():
    """Beyond int32, too, where the reference wraps around."""
    far = np.array([-np.inf, -3e38, -1e10, 1e10, 3e38, np.inf], np.float32)
    assert ops.quantize_linear(far, 0.5, np.int8(3)).tolist() == [-128] * 3 + [127] * 3
    assert ops.quantize_linear(far, 0.5, np.uint16(3)).tolist() == [0] * 3 + [65535] * 3
    with pytest.raises(fq.NotFiniteError):
        ops.quantize_linear(np.array([0, np.nan], np.float32), 1.0)
    with pytest.raises(fq.NotFiniteError):
        ops.quantize_linear(np.float32(0), np.float32(0))


def test_integers_of_32_bits(rng):
    x = rng.integers(-(2**31), 2**31, 9).astype(np.int32)
    same(ops.dequantize_linear(x, np.float32(0.3)), reference("DequantizeLinear", x, np.float32(0.3)))
    small = rng.integers(-1000, 1000, 9).astype(np.int32)
    same(
        ops.quantize_linear(small, np.float32(7), np.int8(2)),
        reference("QuantizeLinear", small, np.float32(7), np.int8(2)),
    )


@pytest.mark.parametrize("offset", [0, 5, -5])
def test_dynamic_as_the_reference(rng, offset):
    for _ in range(20):
        x = (rng.standard_normal((5, 7)) + offset).astype(np.float32)
        for got, expected in zip(ops.dynamic_quantize_linear(x), reference("DynamicQuantizeLinear", x)):
            same(got, np.asarray(expected))
    for got, expected in zip(ops.dynamic_quantize_linear(x * 0), reference("DynamicQuantizeLinear", x * 0)):
        same(got, np.asarray(expected))


SHAPES = [
    ((5, 9), (9, 7)),
    ((9,), (9, 7)),
    ((5, 9), (9,)),
    ((9,), (9,)),
    ((2, 3, 5, 9), (3, 9, 7)),
    ((2, 5, 9), (9, 7)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), SHAPES)
@pytest.mark.parametrize("a_kind", EIGHT)
@pytest.mark.parametrize("b_kind", EIGHT)
def test_matmul_integer_is_exact(rng, a_shape, b_shape, a_kind, b_kind):
    a, b = some_codes(rng, a_kind, a_shape), some_codes(rng, b_kind, b_shape)
    a_zeros, b_zeros = [None, some_codes(rng, a_kind, ())], [None, some_codes(rng, b_kind, (1,))]
    if a.ndim > 1:
        a_zeros.append(some_codes(rng, a_kind, (*a_shape[:-1], 1)))
    if b.ndim > 1:
        b_zeros.append(some_codes(rng, b_kind, (*b_shape[:-2], 1, 7)))
    for a_zero in a_zeros:
        for b_zero in b_zeros:
            left, right = a.astype(np.int64), b.astype(np.int64)
            left = left if a_zero is None else left - a_zero
            right = right if b_zero is None else right - b_zero
            got, expected = ops.matmul_integer(a, b, a_zero, b_zero), left @ right
            assert got.dtype == np.int32
            assert np.shape(got) == np.shape(expected)
            assert np.array_equal(got, expected)


def test_zero_points_of_rows_and_columns(rng):
    a, b = some_codes(rng, np.uint8, (4, 9)), some_codes(rng, np.int8, (9, 6))
    rows, columns = some_codes(rng, np.uint8, 4), some_codes(rng, np.int8, 6)
    expected = (a.astype(int) - rows[:, None]) @ (b.astype(int) - columns)
    assert np.array_equal(ops.matmul_integer(a, b, rows, columns), expected)
    for wrong in (rows[:3], some_codes(rng, np.uint8, 9), rows.astype(np.int8)):
        with pytest.raises((ValueError, TypeError), match="a_zero_point"):
            ops.matmul_integer(a, b, wrong)


def test_sums_near_the_end_of_int32():
    """Terms wrap around, the sum does not; one more, and it must not be int32."""
    a, b = np.full((1, 33_025), 255, np.uint8), np.full((33_025, 1), 255, np.uint8)
    assert ops.matmul_integer(a, b).tolist() == [[33_025 * 255**2]]
    assert ops.matmul_integer(a, b, np.uint8(255), np.uint8(255)).tolist() == [[0]]
    assert ops.matmul_integer(a * 0, b, np.uint8(255)).tolist() == [[-33_025 * 255**2]]
    assert ops.matmul_integer(a * 0, b * 0, np.uint8(255), np.uint8(255)).tolist() == [[33_025 * 255**2]]
    a, b = np.full((1, 33_026), 255, np.uint8), np.full((33_026, 1), 255, np.uint8)
    with pytest.raises(OverflowError, match=str(33_026 * 255**2)):
        ops.matmul_integer(a, b)
    assert ops.matmul_integer(a, b, np.uint8(1)).tolist() == [[33_026 * 254 * 255]]
    assert ops.qlinear_matmul(a, 1.0, np.uint8(0), b, 1.0, np.uint8(0), 1e9, np.uint8(0)).tolist() == [[2]]


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("floats", [np.float32, np.float16])
def test_qlinear_matmul(rng, kind, floats):
    a, b = some_codes(rng, kind, (2, 5, 9)), some_codes(rng, kind, (9, 7))
    zeros = some_codes(rng, kind, 3)
    scales = rng.uniform(0.01, 0.1, 2).astype(floats)
    y_scale = (np.float32(3000) * scales.prod()).astype(floats)
    arguments = a, scales[:1], zeros[:1], b, scales[1:], zeros[1:2], y_scale, zeros[2]
    same(ops.qlinear_matmul(*arguments), reference("QLinearMatMul", *arguments))


def test_qlinear_matmul_of_rows_and_columns(rng):
    a, b = some_codes(rng, np.uint8, (5, 9)), some_codes(rng, np.int8, (9, 7))
    rows, columns = rng.uniform(0.01, 0.1, 5).astype(np.float32), rng.uniform(0.01, 0.1, 7).astype(np.float32)
    a_zero, b_zero = some_codes(rng, np.uint8, 5), some_codes(rng, np.int8, 7)
    got = ops.qlinear_matmul(a, rows, a_zero, b, columns, b_zero, 0.5, np.uint8(100))
    exact = (a.astype(int) - a_zero[:, None]) @ (b.astype(int) - b_zero)
    expected = np.rint(exact * (rows[:, None] * columns / np.float32(0.5)).astype(np.float64)) + 100
    assert np.array_equal(got, np.clip(expected, 0, 255))


# MatMulNBits


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [None, "packed", "floats"])
@pytest.mark.parametrize("k", [64, 50, 16])
def test_matmul_nbits(rng, bits, zeros, k):
    b, scales, points, w = nbits(rng, bits, 5, k, 32, zeros=zeros)
    form = {"K": k, "N": 5, "bits": bits, "block_size": 32}
    assert np.array_equal(ops.matmul_nbits(np.eye(k, dtype=np.float32), b, scales, points, **form), w.T)
    a, bias = rng.standard_normal((2, 3, k), np.float32), rng.standard_normal(5, np.float32)
    got = ops.matmul_nbits(a, b, scales, points, None, bias, **form)
    np.testing.assert_allclose(got, a @ w.T + bias, rtol=1e-4, atol=1e-4 * np.abs(w).max())
    quantized = ops.matmul_nbits(a, b, scales, points, bias=bias, **form, accuracy_level=4)
    assert quantized.shape == got.shape
    assert np.abs(quantized - got).max() <= np.abs(a).max() / 254 * np.abs(w).sum(1).max() + 1e-3
    assert not np.array_equal(quantized, got)


def test_matmul_nbits_in_half_precision(rng):
    b, scales, points, w = nbits(rng, 4, 3, 32, 16, np.float16)
    got = ops.matmul_nbits(np.eye(32, dtype=np.float16), b, scales, points, K=32, N=3, block_size=16)
    assert got.dtype == np.float16
    assert np.array_equal(got, w.T.astype(np.float16))


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize(
    ("bits", "zeros"), [(2, None), (2, "packed"), (4, None), (4, "packed"), (4, "floats"), (8, None), (8, "packed")]
)
@pytest.mark.parametrize("k", [64, 50])
def test_matmul_nbits_as_onnxruntime(rng, bits, zeros, k, level):
    b, scales, points, _ = nbits(rng, bits, 5, k, 32, zeros=zeros)
    form = {"K": k, "N": 5, "bits": bits, "block_size": 32, "accuracy_level": level}
    a = rng.standard_normal((k, k), np.float32) if level else np.eye(k, dtype=np.float32)
    theirs, mine = onnxruntime_nbits(a, b, scales, points, form), ops.matmul_nbits(a, b, scales, points, **form)
    if level:  # both quantize a by block, in their own ways
        assert np.abs(theirs - mine).max() <= 0.02 * np.abs(mine).max()
    else:
        assert np.array_equal(theirs, mine)


# Errors


A, X = np.ones((2, 3), np.int8), np.ones((2, 3), np.float32)
B, S = np.zeros((4, 1, 16), np.uint8), np.ones((4, 1), np.float32)
NBITS = {"K": 32, "N": 4, "block_size": 32}
WRONG = [
    (lambda: ops.quantize_linear(X, np.ones(2, np.float32)), ValueError, "y_scale must be a number, or one per index"),
    (
        lambda: ops.quantize_linear(X, np.ones(3, np.float32), np.uint8(1)),
        ValueError,
        "y_zero_point must have the shape",
    ),
    (lambda: ops.quantize_linear(X, np.ones(3, np.float32), axis=2), ValueError, "axis must be one of the 2 axes"),
    (lambda: ops.quantize_linear(X, np.ones((2, 3), np.float32), block_size=2), ValueError, r"shape \(2, 2\)"),
    (lambda: ops.quantize_linear(X, 1.0, block_size=-1), ValueError, "block_size"),
    (lambda: ops.quantize_linear(X, 1.0, output_dtype=TensorProto.FLOAT8E5M2), TypeError, "got float8e5m2: floats of"),
    (lambda: ops.quantize_linear(X, 1.0, output_dtype="int32"), TypeError, "got int32"),
    (lambda: ops.quantize_linear(X, 1.0, output_dtype=99), ValueError, "by number"),
    (
        lambda: ops.quantize_linear(X, 1.0, np.int8(1), output_dtype="uint8"),
        TypeError,
        "the type of y_zero_point, int8",
    ),
    (lambda: ops.quantize_linear(X, 1.0, 256), ValueError, "from 0 to 255"),
    (lambda: ops.quantize_linear(X, 1.0, precision="int8"), TypeError, "precision must be one of bfloat16, float16"),
    (lambda: ops.quantize_linear(X.astype(complex), 1.0), TypeError, "x must be of floats"),
    (lambda: ops.dequantize_linear(A, np.int8(1)), TypeError, "x_scale must be of floats"),
    (lambda: ops.dequantize_linear(A, 1.0, np.uint8(1)), TypeError, "the type of the codes, int8"),
    (lambda: ops.dequantize_linear(A.astype(np.int32), 1.0, np.int32(1)), ValueError, "left out"),
    (lambda: ops.dequantize_linear(A.astype(np.int64), 1.0), TypeError, "got int64"),
    (lambda: ops.dynamic_quantize_linear(X[:0]), ValueError, "got none"),
    (lambda: ops.dynamic_quantize_linear(X * np.inf), fq.NotFiniteError, "finite"),
    (lambda: ops.dynamic_quantize_linear(np.array([-3e38, 3e38], np.float32)), ValueError, "range of x"),
    (lambda: ops.matmul_integer(A.astype(np.int16), A.T), TypeError, "a must be of int8 or uint8"),
    (lambda: ops.matmul_integer(A, A), ValueError, "matmul"),
    (lambda: ops.matmul_integer(np.int8(1), A), ValueError, "dimension"),
    (lambda: ops.qlinear_matmul(A, 1.0, 0, A.T, 1.0, 0, np.ones(2, np.float32), np.int8(0)), ValueError, "y_scale"),
    (lambda: ops.matmul_nbits(X, B, S, **NBITS), ValueError, "K=32"),
    (lambda: ops.matmul_nbits(np.ones(32), B[:3], S, **NBITS), ValueError, r"B must be uint8 of shape \(4, 1, 16\)"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S[:3], **NBITS), ValueError, r"scales must be floats of shape \(4, 1\)"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S, B[:2, 0, 0], **NBITS), ValueError, r"must have the shape \(4, 1\)"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S, bits=3, **NBITS), ValueError, "bits must be 2, 4 or 8"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S, K=32, N=4, block_size=24), ValueError, "power of two"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S, None, np.zeros(32, np.int32), **NBITS), ValueError, "deprecated"),
    (lambda: ops.matmul_nbits(np.ones(32), B, S, bias=np.ones(3), **NBITS), ValueError, "bias must have N=4"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_onnx_and_ml_dtypes():
    """Types of 2 and 4 bits are int8 and uint8 then."""
    program = """
import sys
sys.modules["ml_dtypes"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ml_dtypes" else find(name, *rest)
import numpy as np
from fastq.interop import onnx
assert "onnx" not in sys.modules
print(onnx.quantize_linear(np.array([-9, 3, 9], np.float32), 1.0, output_dtype="int4"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[-8  3  7]\n"
