"""Groups with float scales: segments of K, scaled and added up as floats, the same bits on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.engine.operands import longest_segment
from tests.cases import NATIVE, instruction_set

SCHEMES = ("symmetric", "asymmetric", "affine")
K, N = 150, 37

pytestmark = pytest.mark.parametrize("isa", NATIVE, indirect=True)


def grouped(rng, bits, scheme, group, k=K, n=N, **options):
    w = rng.standard_normal((k, n)).astype(np.float32)
    scale = {} if scheme == "affine" else {"group_scale": "float"}
    return fq.quantize(w, bits, axis=0, scheme=scheme, group_size=group, **scale, **options)


def check(compute):
    """The instruction set in use has the bits of the reference."""
    result = compute()
    with instruction_set("reference"):
        expected = compute()
    assert result.dtype == expected.dtype
    assert np.array_equal(result, expected)


def sums_by_group(x, scale, q):
    """float(v) of each group, and the scales of both operands, from what the operands hold."""
    codes, zero = q.codes.astype(np.int64), q.zero_point
    if zero is not None:
        codes = codes - np.repeat(zero, q.group_size, axis=0)[: len(codes)]
    rows = np.rint(x / scale).astype(np.int64)
    for g in range(len(q.scale)):
        part = slice(g * q.group_size, (g + 1) * q.group_size)
        yield (rows[:, part] @ codes[part]).astype(x.dtype), rows[:, part].sum(axis=1).astype(x.dtype)[:, None]


@pytest.mark.parametrize("m", [1, 5, 33])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("group", [10, 32, 64])
def test_the_equation(isa, m, scheme, group, rng):
    """``(sum of float(v) * col_scale + float(r) * col_offset) * row_scale``, as README.md of kernels has it."""
    x = rng.standard_normal((m, K)).astype(np.float32)
    scale = (np.abs(x).max(axis=1) / np.float32(127))[:, None]
    q = grouped(rng, 4, scheme, group)
    total = None
    for g, (v, r) in enumerate(sums_by_group(x, scale, q)):
        y = v * q.scale[g] if q.offset is None else v * q.scale[g] + r * q.offset[g]
        total = y if total is None else total + y
    assert np.array_equal(x @ q, total * scale)


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(4, np.float32), (4, np.float16), (8, np.float32)]
    + [
        pytest.param(bits, dtype, marks=pytest.mark.exhaustive)
        for bits in (2, 3, 5, 6, 7, 8)
        for dtype in (np.float16, np.float32, np.float64)
        if (bits, dtype) != (8, np.float32)
    ]
    + [pytest.param(4, np.float64, marks=pytest.mark.exhaustive)],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups_of_weights(isa, bits, dtype, scheme, rng):
    """Groups of tiles, of half a tile and of neither; the last one shorter; rows of every register block."""
    bias = rng.standard_normal(N).astype(np.float32)
    for group, k in ((128, K), (64, 160), (64, 129), (48, K), (32, K), (32, 160), (32, 129), (16, K), (10, K)):
        q = grouped(rng, bits, scheme, group, k)
        for m in (1, 2, 3, 8, 33):
            x = rng.standard_normal((m, k)).astype(dtype)
            check(lambda x=x, q=q: fq.matmul(x, q, bias=bias))


@pytest.mark.parametrize("m", [1, 21])
@pytest.mark.parametrize("epilogue", ["relu", "gelu", "silu"])
def test_activations(isa, m, epilogue, rng):
    x, bias = rng.standard_normal((m, K)).astype(np.float32), rng.standard_normal(N).astype(np.float32)
    for scheme in SCHEMES:
        q = grouped(rng, 4, scheme, 32)
        check(lambda q=q: fq.matmul(x, q, bias=bias, epilogue=epilogue))


@pytest.mark.parametrize("left", SCHEMES)
@pytest.mark.parametrize("right", SCHEMES)
@pytest.mark.parametrize("groups", [(None, 32), (32, None), (32, 64), (64, 64), (None, None)])
@pytest.mark.parametrize("m", [1, 19])
def test_codes_on_both_sides(isa, left, right, groups, m, rng):
    """Zero points and offsets of rows; parameters of rows by group."""
    w = rng.standard_normal((m, K)).astype(np.float32)
    a = fq.quantize(w, 8, axis=1, scheme=left, group_size=groups[0])
    q = grouped(rng, 5, right, groups[1])
    check(lambda: a @ q)


def test_sums_too_long_for_int32(isa, rng):
    """Segments without groups: both scales stand outside the sum."""
    k = 140_000
    x, w = rng.standard_normal((3, k)).astype(np.float32), rng.standard_normal((k, 5)).astype(np.float32)
    q = fq.quantize(w, 8, axis=0)
    assert longest_segment(127, 128) < k
    check(lambda: x @ q)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_large_scales(isa, scheme, rng):
    """Sums under the scales of columns alone stay finite, though those of rows are large, or very small."""
    q = grouped(rng, 4, scheme, 32)
    for size in (1e-30, 1e30):
        x = (size * rng.standard_normal((9, K))).astype(np.float32)
        check(lambda x=x: x @ q)
        bound = fq.matmul_error_bound(x, q)
        assert (np.abs(x @ q - x.astype(np.float64) @ q.dequantize().astype(np.float64)) <= bound).all()


@pytest.mark.parametrize("m", [1, 9])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_repeated_products_find_what_was_prepared(isa, m, scheme, rng):
    x, q = rng.standard_normal((m, K)).astype(np.float32), grouped(rng, 4, scheme, 32)
    first = x @ q
    assert len(q.ready) == 1
    assert np.array_equal(x @ q, first)
    assert np.array_equal(-x @ q, -first)
