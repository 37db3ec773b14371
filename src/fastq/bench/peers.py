"""Other libraries that multiply 8-bit and narrower matrices on a CPU, each imported only when it is installed.

A peer gets its operands in the form and order that it likes, outside of the timing; what it packs itself before the
first call is timed apart. Each call gives a fresh result, as fastq's does.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files, version
from typing import Any

import numpy as np

from fastq.bench.contest import Contender, Ready, close, equal, timed
from fastq.bench.problem import Problem
from fastq.bench.run import CODES, FLOATS, INTEGERS, LOW_BITS

LIBRARIES = {"onnxruntime": ("onnxruntime", "onnx"), "torch": ("torch",), "numkong": ("numkong",), "mkl": ("mkl",)}
WHOLE_ARRAY = 30  # dB that must remain where a peer quantizes all of x with one scale


def installed() -> dict[str, str]:
    """Each library's version, or that it is not installed."""
    return {name: _version(needs) for name, needs in LIBRARIES.items()}


def peers() -> list[Contender]:
    """The contenders whose libraries are installed."""
    have = installed()
    return [contender for contender in PEERS if have[str(contender.library)] != NOT_INSTALLED]


NOT_INSTALLED = "not installed"


@lru_cache
def _version(packages: tuple[str, ...]) -> str:
    try:
        first, *_ = [version(package) for package in packages]
        return first
    except PackageNotFoundError:
        return NOT_INSTALLED


def _anything(threads: int | None) -> AbstractContextManager[Any]:
    """For libraries that are told the number of threads when a product is prepared."""
    return nullcontext()


# ONNX Runtime: a graph of one node, whose constant operand it packs when the session is made.


def _session(operator: str, inputs: dict[str, Any], output: Any, threads: int, **attributes: Any) -> Ready:
    """A session of one operator; the first input is the variable one, the others are constants."""
    import onnxruntime
    from onnx import helper, numpy_helper

    def info(name: str, array: Any) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    (name, variable), *constants = inputs.items()
    domain = "" if operator == "MatMulInteger" else "com.microsoft"
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), ["y"], domain=domain, **attributes)],
        operator,
        [info(name, variable)],
        [info("y", output)],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session, seconds = timed(lambda: onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    return Ready(lambda: session.run(None, {name: variable})[0], seconds)


def _like(p: Problem, dtype: Any) -> Any:
    """An array of the product's shape and type, without memory of its own."""
    return np.broadcast_to(np.zeros((), dtype), (p.m, p.n))


def _matmul_integer(p: Problem, threads: int) -> Ready:
    return _session("MatMulInteger", {"a": p.a8_unsigned, "b": p.b8}, _like(p, np.int32), threads)


def _matmul_integer_to_float(p: Problem, threads: int) -> Ready:
    scales = {"a_scale": np.ones(1, np.float32), "b_scale": np.ones(p.n, np.float32)}
    operands = {"a": p.a8_unsigned, "b": p.b8, **scales}
    return _session("MatMulIntegerToFloat", operands, _like(p, np.float32), threads)


def _dynamic_quantize_matmul(p: Problem, threads: int) -> Ready:
    q = p.weights(8)[0]
    operands = {"a": p.x, "b": q.codes, "b_scale": q.scale.reshape(-1)}
    return _session("DynamicQuantizeMatMul", operands, _like(p, np.float32), threads)


BLOCK = 32  # k that share a scale of MatMulNBits


@lru_cache(maxsize=1)
def _blockwise(p: Problem) -> tuple[Any, Any, Any]:
    """The weights in blocks of 4-bit codes, their scales, and its product with x."""
    if p.k % BLOCK:
        raise ValueError(f"K must be a multiple of {BLOCK}")
    blocks = np.ascontiguousarray(p.w.T).reshape(p.n, p.k // BLOCK, BLOCK)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(7)
    codes = np.clip(np.rint(blocks / scale) + 8, 0, 15).astype(np.uint8)
    exact = p.x @ ((codes - np.float32(8)) * scale).reshape(p.n, p.k).T
    return codes[..., ::2] | codes[..., 1::2] << 4, scale[..., 0], exact


def _matmul_4_bits(p: Problem, threads: int) -> Ready:
    codes, scale, _ = _blockwise(p)
    shape = {"K": p.k, "N": p.n, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
    return _session("MatMulNBits", {"a": p.x, "b": codes, "scale": scale}, _like(p, np.float32), threads, **shape)


# PyTorch


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: its quantized tensors are deprecated, but nothing as fast replaces them yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    with _quiet():
        import torch
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _int_mm(p: Problem, threads: int) -> Ready:
    import torch

    a, b = torch.from_numpy(p.a8), torch.from_numpy(p.b8)
    return Ready(lambda: torch._int_mm(a, b))


def _qlinear(p: Problem, threads: int) -> Ready:
    import torch

    a, columns = torch.from_numpy(p.a8_unsigned), torch.from_numpy(p.b8.T.copy())
    scale, zero = torch.ones(p.n), torch.zeros(p.n, dtype=torch.int64)
    packed, seconds = timed(lambda: torch.ops.onednn.qlinear_prepack(columns, [p.m, p.k]))
    rest: tuple[Any, ...] = (1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], "")
    return Ready(lambda: torch.ops.onednn.qlinear_pointwise(a, *rest), seconds)


def _linear_dynamic(p: Problem, threads: int) -> Ready:
    import torch

    x, q = torch.from_numpy(p.x), p.weights(8)[0]
    scale, zero = torch.from_numpy(q.scale.reshape(-1).astype(np.float64)), torch.zeros(p.n, dtype=torch.int64)
    with _quiet():
        torch.backends.quantized.engine = "onednn"
        columns = torch._make_per_channel_quantized_tensor(torch.from_numpy(q.codes.T.copy()), scale, zero, 0)
        packed, seconds = timed(lambda: torch.ops.quantized.linear_prepack(columns, None))
    return Ready(lambda: torch.ops.quantized.linear_dynamic(x, packed, False), seconds)


# NumKong


def _numkong(p: Problem, threads: int) -> Ready:
    import numkong

    columns = p.b8.T.copy()
    packed, seconds = timed(lambda: numkong.dots_pack(columns))
    multiply: Any = numkong.dots_packed
    return Ready(lambda: multiply(p.a8, packed, threads=threads), seconds)


# MKL, through its C interface: row-major uint8 times int8, no offsets

ROW_MAJOR, PLAIN, PACKED, OPERAND_B, ONE_OFFSET = 101, 111, 151, 162, 173


@lru_cache(maxsize=1)
def _mkl() -> ctypes.CDLL:
    library = ctypes.CDLL(str(next(f.locate() for f in files("mkl") or () if "mkl_rt" in f.name)))
    integer, byte, real, pointer = ctypes.c_int, ctypes.c_int8, ctypes.c_float, ctypes.c_void_p
    matrix = [pointer, integer, byte]
    for name in ("", "_compute"):
        function = getattr(library, "cblas_gemm_s8u8s32" + name)
        function.argtypes = [*[integer] * 7, real, *matrix, *matrix, real, pointer, integer, pointer]
    library.cblas_gemm_s8u8s32_pack.argtypes = [*[integer] * 6, pointer, integer, pointer]
    library.cblas_gemm_s8u8s32_pack_get_size.restype = ctypes.c_size_t
    return library


@contextmanager
def _mkl_threads(threads: int | None) -> Iterator[None]:
    # For this thread alone, which overrides the setting for all: threadpoolctl, used for NumPy, makes it as well.
    library = _mkl()
    before = library.MKL_Set_Num_Threads_Local(threads or library.MKL_Get_Max_Threads())
    try:
        yield
    finally:
        library.MKL_Set_Num_Threads_Local(before)


def _mkl_product(p: Problem, function: Any, form: int, b: Any) -> Any:
    offset = np.zeros(1, np.int32)
    a = p.a8_unsigned
    head = (ROW_MAJOR, PLAIN, form, ONE_OFFSET, p.m, p.n, p.k, 1.0, a.ctypes.data, p.k, 0, b.ctypes.data, p.n, 0, 0.0)

    def run(alive: Any = (a, b)) -> Any:  # head knows only where they lie
        c = np.empty((p.m, p.n), np.int32)
        function(*head, c.ctypes.data, p.n, offset.ctypes.data)
        return c

    return run


def _mkl_plain(p: Problem, threads: int) -> Ready:
    return Ready(_mkl_product(p, _mkl().cblas_gemm_s8u8s32, PLAIN, p.b8))


def _mkl_packed(p: Problem, threads: int) -> Ready:
    library = _mkl()
    raw = np.empty(library.cblas_gemm_s8u8s32_pack_get_size(OPERAND_B, p.m, p.n, p.k) + 64, np.uint8)
    packed = raw[-raw.ctypes.data % 64 :]
    what = (ROW_MAJOR, OPERAND_B, PLAIN, p.m, p.n, p.k, p.b8.ctypes.data, p.n, packed.ctypes.data)
    _, seconds = timed(lambda: library.cblas_gemm_s8u8s32_pack(*what))
    return Ready(_mkl_product(p, library.cblas_gemm_s8u8s32_compute, PACKED, packed), seconds)


# All of them


def _signed(p: Problem, answer: Any) -> None:
    equal(p.integer_product, np.asarray(answer))


def _unsigned(p: Problem, answer: Any) -> None:
    equal(p.unsigned_product, np.asarray(answer))


def _rescaled(p: Problem, answer: Any) -> None:
    equal(p.unsigned_product.astype(np.float32), np.asarray(answer))


def _close_to_weights(p: Problem, answer: Any) -> None:
    close(p.weights(8)[2], np.asarray(answer), WHOLE_ARRAY)


def _close_to_4_bits(p: Problem, answer: Any) -> None:
    close(_blockwise(p)[2], np.asarray(answer), WHOLE_ARRAY)


ORT, TORCH = ("onnxruntime", _anything), ("torch", _torch_threads)


def _peer(name: str, kind: str, prepare: Any, check: Any, library: tuple[str, Any], bits: int = 8) -> Contender:
    return Contender(name, kind, prepare, check, library[1], library[0], bits)


PEERS = (
    _peer("ONNX Runtime MatMulInteger", CODES, _matmul_integer, _unsigned, ORT),
    _peer("ONNX Runtime MatMulIntegerToFloat", CODES, _matmul_integer_to_float, _rescaled, ORT),
    _peer("torch qlinear (oneDNN)", CODES, _qlinear, _rescaled, TORCH),
    _peer("NumKong dots_packed", CODES, _numkong, _signed, ("numkong", _anything)),
    _peer("MKL gemm_s8u8s32_compute", CODES, _mkl_packed, _unsigned, ("mkl", _mkl_threads)),
    _peer("torch _int_mm", INTEGERS, _int_mm, _signed, TORCH),
    _peer("MKL gemm_s8u8s32", INTEGERS, _mkl_plain, _unsigned, ("mkl", _mkl_threads)),
    _peer("ONNX Runtime DynamicQuantizeMatMul", FLOATS, _dynamic_quantize_matmul, _close_to_weights, ORT),
    _peer("torch linear_dynamic (oneDNN)", FLOATS, _linear_dynamic, _close_to_weights, TORCH),
    _peer("ONNX Runtime MatMulNBits, 4 bits", LOW_BITS, _matmul_4_bits, _close_to_4_bits, ORT, 4),
)
