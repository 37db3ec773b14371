"""NEON on any CPU, for tests: a plugin, ``python -m pytest -p tests.kernels.emulated_neon -k neon``.

As :mod:`tests.kernels.emulated` does it: the kernels are those of the package, and only the instructions that
``dot/neon.py`` declares are emitted as plain IR for the host.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.dot import neon
from fastq.kernels.table import ISAS
from fastq.machine import arm, cpu
from fastq.machine.ir import HOST, I32, declare
from tests.kernels.emulation import begin, function

if arm.is_arm():
    raise RuntimeError("an ARM CPU has some of these instructions, and a test says which of them ran")


def _wide(b: ir.IRBuilder, vector: Any, bits: int, signed: bool = True) -> Any:
    kind = ir.VectorType(ir.IntType(bits), vector.type.count)
    return b.sext(vector, kind) if signed else b.zext(vector, kind)


def _every(b: ir.IRBuilder, vector: Any, n: int, first: int) -> Any:
    lanes = list(range(first, vector.type.count, n))
    return b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def _dot(signed: bool) -> Any:
    def emit(b: ir.IRBuilder, acc: Any, x: Any, y: Any) -> Any:
        products = b.mul(_wide(b, x, 32, signed), _wide(b, y, 32))
        for k in range(4):
            acc = b.add(acc, _every(b, products, 4, k))
        return acc

    return emit


def _smull(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.mul(_wide(b, x, 16), _wide(b, y, 16))


def _saddlp(b: ir.IRBuilder, x: Any) -> Any:
    wide = _wide(b, x, 2 * x.type.element.width)
    return b.add(_every(b, wide, 2, 0), _every(b, wide, 2, 1))


def _addp(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    both = b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, 8), list(range(8))))
    return b.add(_every(b, both, 2, 0), _every(b, both, 2, 1))


def _usmmla(b: ir.IRBuilder, acc: Any, x: Any, y: Any) -> Any:
    """Lane 2 * i + j is the product of row i of x with row j of y, 8 elements each."""
    for i in range(2):
        for j in range(2):
            one, other = (
                b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, 8), list(range(8 * r, 8 * r + 8))))
                for v, r in ((x, i), (y, j))
            )
            products = b.mul(_wide(b, one, 32, False), _wide(b, other, 32))
            total = b.call(declare(b, "llvm.vector.reduce.add.v8i32", I32, [products.type]), [products])
            lane = I32(2 * i + j)
            acc = b.insert_element(acc, b.add(b.extract_element(acc, lane), total), lane)
    return acc


_OPS = {"usdot": _dot(False), "usmmla": _usmmla, "sdot": _dot(True), "smull": _smull, "saddlp": _saddlp, "addp": _addp}


def _declare(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> Any:
    if not name.startswith("llvm.aarch64"):
        return declare(b, name, result, args)
    return function(b, name, result, args, _OPS[name.split(".")[3]])


neon.declare = _declare  # type: ignore[attr-defined]
for unit in (neon.NeonI8mm, neon.NeonMmla, neon.NeonDotNarrow, neon.NeonNarrow):
    unit.target = HOST
cpu.wide, cpu.short_vectors = lambda: False, lambda: True
begin({feature for isa, needed in ISAS.items() if isa.startswith("neon") for feature in needed}, __file__)
