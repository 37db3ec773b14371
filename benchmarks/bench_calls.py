"""What a call costs before it has done anything: 8x8 and 64x64 matrices, where the work is next to nothing."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.bench.contest import INT8, INT8_CODES, MATMUL, TWO, WEIGHTS, enter
from fastq.bench.problem import problem
from fastq.bench.rounds import Entry
from fastq.bench.run import NUMPY

BASELINE = {"baseline": True, "library": NUMPY}


@pytest.mark.parametrize("side", [8, 64])
def bench_product(contest, side):
    task = problem(side, side, side)
    contenders = (MATMUL, INT8_CODES, WEIGHTS[8], WEIGHTS[3], TWO, INT8)
    integers = Entry("int32 np.matmul of int8", lambda: np.matmul(task.a8, task.b8, dtype=np.int32), {"library": NUMPY})
    contest(f"call: product {side}x{side}", [*enter(task, contenders)[0], integers], rounds=2)


@pytest.mark.parametrize("side", [8, 64])
def bench_quantize(contest, side):
    x = problem(side, side, side).x
    q = fq.quantize(x, axis=0)
    codes, scale = q.codes, q.scale

    def expression():
        scale = np.abs(x).max(axis=0, keepdims=True) / np.float32(127)
        return np.clip(np.rint(x / scale), -127, 127).astype(np.int8)

    assert (codes == expression()).all()
    assert (q.dequantize() == codes * scale).all()
    contest(
        f"call: quantize {side}x{side}",
        [Entry("NumPy expression", expression, BASELINE), Entry("fastq", lambda: fq.quantize(x, axis=0))],
        rounds=2,
    )


@pytest.mark.parametrize("side", [8, 64])
def bench_dequantize(contest, side):
    q = fq.quantize(problem(side, side, side).x, axis=0)
    codes, scale = q.codes, q.scale
    assert (q.dequantize() == codes * scale).all()
    contest(
        f"call: dequantize {side}x{side}",
        [Entry("NumPy expression", lambda: codes * scale, BASELINE), Entry("fastq", q.dequantize)],
        rounds=2,
    )


def bench_protocols(contest):
    """A product by each of the ways in which NumPy code asks for one, and what it costs to cut a packed array."""
    task = problem(64, 64, 64)
    x, q = task.x, fq.quantize(task.w, axis=0)
    turned = fq.quantize(task.w.T, axis=-1)
    ways = {
        "fq.matmul": lambda: fq.matmul(x, q),
        "x @ q": lambda: x @ q,
        "np.matmul": lambda: np.matmul(x, q),
        "np.dot": lambda: np.dot(x, q),
        "np.einsum": lambda: np.einsum("ij,jk->ik", x, q),
        "x @ q.T": lambda: x @ turned.T,
    }
    expected = x @ q
    assert all((way() == expected).all() for way in ways.values())
    contest("call: ways to a product 64x64", [Entry(name, way) for name, way in ways.items()], rounds=2)


def bench_parts(contest):
    """Sixty-four of 4096 rows that are packed for ``x @ q.T``: they are neighbouring tiles, which are not copied."""
    q = fq.quantize(np.random.default_rng(0).standard_normal((4096, 1024), dtype=np.float32), 3, axis=-1)
    q.T.prepack()
    w = q.dequantize()
    assert (q[64:128].dequantize() == w[64:128]).all()
    assert q[64:128].nbytes < q.nbytes / 32
    contest(
        "call: 64 of 4096 rows",
        [Entry("ndarray", lambda: w[64:128], BASELINE), Entry("QArray", lambda: q[64:128]),
         Entry("QArray, a copy of the codes", lambda: q[64:128].codes)],
        rounds=2,
    )  # fmt: skip
