"""Quantizing, dequantizing and packing a matrix, against the NumPy expressions that they equal bit for bit.

A pass over the data that computes next to nothing, on as many threads, stands beside them as a roof.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.random import default_rng

import fastq as fq
from fastq.bench.contest import fq_threads
from fastq.bench.rounds import Entry
from fastq.bench.run import NUMPY

AXES = {"by row": -1, "by column": 0, "whole": None}
BASELINE = {"baseline": True, "library": NUMPY}


@pytest.fixture(scope="module")
def x(request):
    side = 1024 if request.config.getoption("quick") else 4096
    return default_rng(5).standard_normal((side, side), dtype=np.float32)


@pytest.fixture(scope="module")
def split(x):
    """A function that runs a NumPy function on the rows of x, on as many threads as fastq uses."""
    parts = np.array_split(x, fq_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        yield lambda function: list(pool.map(function, parts))


def _size(x):
    return "x".join(map(str, x.shape))


def _expression(x, axis):
    scale = np.abs(x).max(axis=axis, keepdims=True) / np.float32(127)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


@pytest.mark.parametrize("where", AXES, ids=lambda where: where.replace(" ", "_"))
def bench_quantize(contest, x, split, where):
    axis = AXES[where]
    codes, scale = _expression(x, axis)
    q = fq.quantize(x, axis=axis)
    assert (q.codes == codes).all()
    assert (q.scale == scale).all()
    assert max(split(np.max)) == x.max()
    contest(
        f"quantize {where} {_size(x)}",
        [
            Entry("NumPy expression", lambda: _expression(x, axis), BASELINE),
            Entry("fastq", lambda: fq.quantize(x, axis=axis)),
            Entry("np.max", lambda: split(np.max), {"library": NUMPY}),
        ],
    )


def bench_dequantize(contest, x, split):
    q = fq.quantize(x, axis=-1)
    codes, scale = q.codes.copy(), q.scale
    assert (q.dequantize() == codes * scale).all()
    contest(
        f"dequantize {_size(x)}",
        [
            Entry("NumPy expression", lambda: codes * scale, BASELINE),
            Entry("fastq", q.dequantize),
            Entry("np.copy", lambda: split(np.copy), {"library": NUMPY}),
        ],
    )


def bench_pack(contest, x):
    """What the first ``x @ q`` does once: codes into tiles, in the width that they have."""
    codes = fq.quantize(x, axis=0).codes
    entries = [Entry("np.copy of the codes", lambda: np.copy(codes), BASELINE)]
    for bits in (8, 3):
        q = fq.quantize(x, bits=bits, axis=0)
        codes_before = q.codes.copy()
        packed = q.prepack()
        assert (packed.codes == codes_before).all()
        assert packed.nbytes < x.size * bits / 8 * 1.01 + 8 * x.shape[1]
        entries.append(Entry(f"{bits} bits", fq.QArray.prepack, fresh=lambda bits=bits: fq.quantize(x, bits, axis=0)))
    contest(f"pack {_size(x)}", entries)
