"""Every row of the kernel table against exact integers, on its own edges."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq
from fastq.engine.backend import pack_right
from fastq.engine.operands import LineParams, column_parameters, row_parameters
from fastq.engine.plan import Plan
from fastq.engine.prepared import LeftForm, NativeProduct
from fastq.kernels import table
from fastq.kernels.epilogue.outputs import Output
from fastq.layout.tiles import BLOCK, TileFormat, segments
from fastq.machine import jit
from fastq.scheme import CodeRange, code_range
from tests.cases import EXTREMES, edges, integers, units

ROWS = [
    pytest.param(unit.isa, (unit, bits, shape), id=f"{unit.name}-{bits}bit-{shape}")
    for unit in units()
    for bits in unit.bits
    for shape in ("gemm", "gemv")
    if shape == "gemm" or unit.few
]


@pytest.mark.parametrize("unit", [unit for unit in table.UNITS if unit.few], ids=lambda unit: unit.name)
def test_the_table_knows_the_largest_block_for_few_rows(unit):
    isa = unit.micro_kernel()
    assert isa.few == unit.few
    assert [s.rows for s in isa.gemv_shapes] == sorted(s.rows for s in isa.gemv_shapes)  # the first that fits is taken


every_row = pytest.mark.parametrize(("isa", "row"), ROWS, indirect=["isa"])
# For what does not depend on how wide codes are: kernels with float output are others, which must be compiled, too.
some_rows = pytest.mark.parametrize(
    ("isa", "row"),
    [
        row if row.values[1][1] in (3, 4, 8) else pytest.param(*row.values, id=row.id, marks=pytest.mark.exhaustive)
        for row in ROWS
    ],
    indirect=["isa"],
)


def product(unit, bits, shape, left, right, k_segments, zero=0, row_zero=None):
    """``(left - row_zero) @ (right - zero)`` as int32 by one kernel; right codes are unsigned, of `bits` bits."""
    m, n = len(left), right.shape[1]
    packed = pack_right(right, 0, bits, k_segments)
    b = LineParams(CodeRange(0, 2**bits - 1), bits, zero=np.full((1, n), zero))
    columns = column_parameters(b, packed, k_segments, np.int32, False)
    assert k_segments.segments == 1 or not unit.k_block
    # Small chunks, so that small products have several of them.
    if unit.k_block:
        plan = Plan(unit, shape, TileFormat(bits), Output("int32"), 1, 64, 4, 4 * 64 * 64 + 4 * unit.k_block * 1024)
    else:
        plan = Plan(unit, shape, TileFormat(bits), Output("int32"), 1, 16, 2, unit.blocks * k_segments.tiles * 1024)
    out = np.full((m, n), -7, np.int32)
    a = LineParams(code_range(8, "symmetric"), 8, zero=None if row_zero is None else row_zero[:, None])
    form = LeftForm(m, left.shape[1], left.dtype)
    prepared = NativeProduct(form, packed, columns, k_segments, Output("int32"), plan)
    prepared(left, row_parameters(a, m, k_segments, np.int32), out)
    assert (
        table.matmul(unit, shape, TileFormat(bits), Output("int32")).name in jit.loaded_names()
    )  # the row ran, and no other
    return out


def expected(left, right, zero=0, row_zero=None):
    shift = 0 if row_zero is None else row_zero[:, None].astype(np.int64)
    return (left.astype(np.int64) - shift) @ (right.astype(np.int64) - zero)


@every_row
def test_edges(isa, row, rng):
    unit, bits, shape = row
    rows = edges(unit.rows, 100) if shape == "gemm" else range(1, unit.few + 1)
    for m in rows:
        for n in edges(BLOCK * (unit.blocks if shape == "gemm" else 1), 130):
            for k in (1, 3, 4, 63, 64, 65, 130) if not unit.k_block else (1, 65, 64 * unit.k_block + 70):
                left = integers(rng, (m, k), "int8")
                right = rng.integers(0, 2**bits, (k, n)).astype(np.uint8)
                got = product(unit, bits, shape, left, right, segments(k))
                assert (got == expected(left, right)).all(), (m, k, n)


@pytest.mark.parametrize("left_kind", EXTREMES)
@pytest.mark.parametrize("right_kind", EXTREMES)
@every_row
def test_extremes(isa, row, left_kind, right_kind, rng):
    """Saturating instructions would show here: pairs and quads of the largest products, of either sign."""
    unit, bits, shape = row
    m, k, n = (unit.rows + 1 if shape == "gemm" else unit.few), 260, 40
    left = integers(rng, (m, k), "int8", left_kind)
    right = (integers(rng, (k, n), "uint8", right_kind) >> (8 - bits)).astype(np.uint8)
    row_zero = rng.integers(-128, 128, m).astype(np.int32)
    got = product(unit, bits, shape, left, right, segments(k), 2 ** (bits - 1), row_zero)
    assert (got == expected(left, right, 2 ** (bits - 1), row_zero)).all()


@every_row
def test_long_sums(isa, row, rng):
    """The largest K whose sum fits int32, with operands that reach it, and intermediate sums beyond it."""
    unit, bits, shape = row
    high = 2**bits - 1
    k = (2**31 - 1) // (128 * high) // 4 * 4 if bits == 8 else 70_000
    left = np.full((2, k), -128, np.int8)
    right = np.full((k, 17), high, np.uint8)
    assert (product(unit, bits, shape, left, right, segments(k)) == expected(left, right)).all()


@some_rows
def test_output_beyond_the_edge_is_untouched(isa, row, rng):
    """Guards around a strided output keep their values."""
    unit, bits, shape = row
    for m, n in ((1, 5) if shape == "gemv" else (20, 21), (unit.rows + 3, BLOCK * unit.blocks + 7)):
        x = rng.standard_normal((m, 70), dtype=np.float32)
        q = fq.quantize(rng.standard_normal((70, n), dtype=np.float32), bits, axis=0)
        frame = np.full((m + 2, n + 9), 42, np.float32)
        fq.matmul(x, q, out=frame[1:-1, 4 : 4 + n])
        assert (frame[1:-1, 4 : 4 + n] == x @ q).all()
        frame[1:-1, 4 : 4 + n] = 42
        assert (frame == 42).all()


def test_the_table_serves_every_width_of_every_instruction_set():
    for isa in table.ISAS:
        if isa != "reference":
            assert all(table.unit_for(isa, bits, 100)[0].isa == isa for bits in range(2, 9))


def test_register_blocks_fit_the_left_tile():
    assert all(16 % unit.rows == 0 or unit.rows % 16 == 0 for unit in table.UNITS)
