"""Integer group scales: the kernels exactly, the scales by their error."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastq as fq
from fastq.engine.groups import GroupScales
from fastq.engine.store import Store
from fastq.kernels import table
from fastq.layout.tiles import GROUPED, TileFormat
from fastq.machine import jit
from fastq.qarray.array import QArray
from fastq.quant.spec import QuantSpec
from fastq.scheme import code_range, largest_factor
from tests.cases import NATIVE, edges, instruction_set, units

SCHEMES = ("symmetric", "asymmetric")


def grouped(rng, k, n, bits, group, scheme, extreme=False):
    """An array with random codes and integer scales; also ``factor * (code - zero)``, and the shared scale."""
    limits, groups, largest = code_range(bits, scheme), max(1, -(-k // group)), largest_factor(bits)
    codes = rng.integers(limits.low, limits.high + 1, (k, n))
    if extreme:
        codes = np.where(np.indices((k, n)).sum(axis=0) % 3 == 0, limits.low, limits.high)
    zeros = None
    if scheme == "symmetric":
        factors = rng.integers(1, largest + 1, (groups, n)) if not extreme else np.full((groups, n), largest)
        negative = rng.integers(0, 2, (groups, n)) == 1
        factors = np.where(negative, -np.minimum(factors, max(largest - 1, 1)), factors)
    else:
        zeros = rng.integers(0, limits.high + 1, (groups, n))
        most = np.minimum(127 // np.maximum(zeros, limits.high - zeros), largest)
        factors = most if extreme else rng.integers(1, most + 1)
    scale = (rng.integers(1, 1000, (1, n)) / 1024).astype(np.float32)
    scales = GroupScales(group, factors.astype(np.int8), None if zeros is None else zeros.astype(np.uint8))
    codes = codes.astype(np.int8 if limits.signed else np.uint8)
    spec = QuantSpec(bits, 0, group, scheme)
    q = QArray._make(Store(codes, limits, bits, scales), False, spec, (scale, None, None, None, None), np.float32)
    shift = 0 if zeros is None else np.repeat(zeros, group, axis=0)[:k]
    return q, (codes.astype(np.int64) - shift) * np.repeat(factors, group, axis=0)[:k], scale


def expected(left, values, scale, row_scale=1):
    return (left.astype(np.int64) @ values).astype(np.float32) * np.float32(row_scale) * scale


ROWS = [
    pytest.param(
        unit.isa,
        (unit, bits, shape),
        marks=[pytest.mark.exhaustive] if bits not in (3, 8) else [],
        id=f"{unit.name}-{bits}bit-{shape}",
    )
    for unit in units()
    if 8 in unit.bits
    for bits in GROUPED
    for shape in ("gemm", "gemv")
]


@pytest.mark.parametrize(("isa", "row"), ROWS, indirect=["isa"])
def test_every_kernel_on_its_edges(isa, row, rng):
    unit, bits, shape = row
    if shape == "gemv" and not unit.few:
        unit, shape = table.unit_for(unit.isa, 8, 1)
    rows = sorted({9, *edges(unit.rows, 40)} - set(range(9 if unit.k_block else unit.few + 1)))
    for m in rows if shape == "gemm" else range(1, unit.few + 1):
        for n in (1, 16, 16 * unit.blocks + 3):
            for k, group in ((5, 64), (64, 16), (130, 48), (200, 64), (520, 80), (600, 128)):
                for scheme in SCHEMES:
                    q, values, scale = grouped(rng, k, n, bits, group, scheme, extreme=(m + n) % 2 == 0)
                    left = rng.integers(-128, 128, (m, k)).astype(np.int8)
                    assert (left @ q == expected(left, values, scale)).all(), (m, n, k, group, scheme)
    name = table.matmul(unit, shape, TileFormat(bits, grouped=True), table.Output("float32")).name
    assert name in jit.loaded_names()


@pytest.mark.parametrize(
    "bits", [bits if bits in (3, 7) else pytest.param(bits, marks=pytest.mark.exhaustive) for bits in GROUPED]
)
def test_the_largest_sums_of_a_tile(isa, bits, rng):
    """All codes at one end, all left codes at one end: where sums of a tile might leave 16 bits on their way."""
    for scheme in SCHEMES:
        for end in (0, -1):
            q, _, scale = grouped(rng, 192, 20, bits, 64, scheme, extreme=True)
            limits = code_range(bits, scheme)
            codes = np.full((192, 20), limits[end], q.codes.dtype)
            store = Store(codes, limits, bits, q._store.scales())
            q = QArray._make(store, False, QuantSpec(bits, 0, 64, scheme), (scale, None, None, None, None), np.float32)
            zeros = 0 if q.zero_point is None else np.repeat(q.zero_point, 64, axis=0)
            values = (codes.astype(np.int64) - zeros) * np.repeat(q.group_scale, 64, axis=0)
            for left in (-128, 127):
                for m in (1, 2, 4, 8, 20):
                    rows = np.full((m, 192), left, np.int8)
                    assert (rows @ q == expected(rows, values, scale)).all(), (scheme, end, left, m)


def test_left_operands_of_every_kind(isa, rng):
    for scheme in SCHEMES:
        q, values, scale = grouped(rng, 150, 40, 3, 64, scheme)
        for form in ({"axis": -1}, {"axis": None}, {"axis": -1, "scheme": "asymmetric"}):
            a = fq.quantize(rng.standard_normal((21, 150)).astype(np.float32), **form)
            codes = a.codes.astype(np.int64) - (0 if a.zero_point is None else a.zero_point)
            assert (a @ q == expected(codes, values, scale, a.scale)).all()
        affine = fq.quantize(rng.uniform(1, 2, (21, 150)).astype(np.float32), axis=-1, scheme="affine")
        exact = affine.dequantize(np.float64) @ q.dequantize(np.float64)
        assert np.abs(affine @ q - exact).max() < 1e-5 * np.abs(exact).max()
        x = rng.standard_normal((2, 5, 150)).astype(np.float32)
        assert (x @ q == (x.reshape(10, 150) @ q).reshape(2, 5, 40)).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups_of_both_operands(isa, scheme, rng):
    """Those of the left operand cut K into segments; with gaps, the right codes are multiplied beforehand."""
    w, x = rng.standard_normal((200, 33)), rng.standard_normal((9, 200))
    q = fq.quantize(w, 3, axis=0, group_size=32, scheme=scheme)
    for group in (32, 64, 7, 16):
        a = fq.quantize(x, 4, axis=1, group_size=group, scheme=scheme)
        exact = a.dequantize() @ q.dequantize()
        assert np.abs(a @ q - exact).max() < 1e-13 * np.abs(exact).max() * 200


def test_as_left_operand_and_turned(isa, rng):
    """``q @ y`` and ``x @ q.T`` are products of the same numbers."""
    for scheme in SCHEMES:
        w = rng.standard_normal((48, 130))
        q = fq.quantize(w, 3, axis=1, group_size=32, scheme=scheme)
        y = fq.quantize(rng.standard_normal((130, 20)), axis=0)
        x = fq.quantize(rng.standard_normal((7, 130)), axis=1)
        for _ in range(2):  # before and after packing
            for left, right in ((q, y), (x, q.T)):
                exact = left.dequantize() @ right.dequantize()
                assert np.abs(left @ right - exact).max() < 1e-12 * np.abs(exact).max()
        assert np.allclose(x @ q.T, (q @ x.T).T, rtol=1e-13, atol=0)


def test_groups_along_the_kept_axis(isa, rng):
    """There they are scales of columns; only a single row can be multiplied so."""
    w, x = rng.standard_normal((40, 64)), rng.standard_normal((6, 40))
    with pytest.raises(ValueError, match="constant along the axis"):
        x @ fq.quantize(w, 4, axis=1, group_size=16)
    for scheme in SCHEMES:
        row = fq.quantize(w[:1], 4, axis=1, group_size=16, scheme=scheme)
        exact = fq.quantize(x[:, :1], axis=1).dequantize() @ row.dequantize()
        assert np.abs(x[:, :1] @ row - exact).max() < 1e-13 * np.abs(exact).max()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", ["minmax", pytest.param("mse", marks=pytest.mark.exhaustive)])
@pytest.mark.exhaustive
def test_parameters_keep_the_equation(isa, scheme, method, rng):
    for dtype in (np.float32, np.float64):
        for shape, axis in (((130, 17), 0), ((5, 70), 1), ((2, 80, 6), 1), ((70,), 0), ((0, 4), 0), ((40, 0), 0)):
            x = rng.standard_t(4, shape).astype(dtype)
            for bits in range(2, 7):
                q = fq.quantize(x, bits, axis=axis, group_size=32, scheme=scheme, method=method)
                if not x.size:
                    assert q.group_scale is None
                    continue
                assert q.group_scale.dtype == np.int8
                assert q.axis_scale.shape == np.max(x, axis=axis, keepdims=True).shape
                assert q.scale.dtype == dtype
                wide = q.axis_scale.astype(np.float64) * q.group_scale
                assert (q.scale == wide).all()  # the product is exact
                scale = np.repeat(q.scale, 32, axis=axis).take(range(shape[axis]), axis=axis)
                zero = 0
                if scheme == "asymmetric":
                    zero = np.repeat(q.zero_point, 32, axis=axis).take(range(shape[axis]), axis=axis)
                    assert q.zero_point.dtype == np.int32
                limits = code_range(bits, scheme)
                codes = np.clip(np.rint(x / scale) + zero, limits.low, limits.high)
                assert (q.codes == codes).all()
                assert (q.dequantize() == ((q.codes.astype(dtype) - zero) * scale)).all()
                reach = np.abs((q.codes.astype(int) - zero) * np.rint(scale / np.repeat(q.axis_scale, 1, axis=axis)))
                assert reach.max() <= 128


def test_minmax_cuts_nothing_off(rng):
    """Each group's scale is its own, rounded up to a multiple of the shared one."""
    x = rng.standard_t(4, (256, 40)).astype(np.float32)
    for scheme in SCHEMES:
        for bits in range(2, 8):
            q = fq.quantize(x, bits, axis=0, group_size=64, group_scale="integer", scheme=scheme)
            own = fq.quantize(x, bits, axis=0, group_size=64, group_scale="float", scheme=scheme)
            assert (q.scale >= own.scale).all()
            assert (q.scale <= own.scale + q.axis_scale * 1.0001).all()
            half = np.repeat(q.scale, 64, axis=0) * (0.5001 if scheme == "symmetric" else 1.0001)
            assert (np.abs(q.dequantize() - x) <= half).all()


def test_mse_is_close_to_float_scales(rng):
    """Measured on Gaussian and on heavy-tailed data: 0.014 dB lost at 3 bits; more where fewer integers fit."""
    for data in (rng.standard_normal((1024, 64)), rng.standard_t(5, (1024, 64))):
        x = data.astype(np.float32)
        for bits, lost in ((2, 0.01), (3, 0.04), (4, 0.25), (5, 1.0), (6, 2.6)):
            for scheme in SCHEMES:
                form = {"bits": bits, "axis": 0, "group_size": 64, "method": "mse", "scheme": scheme}
                integer, floating = (fq.quantize(x, **form, group_scale=g) for g in ("integer", "float"))
                column = fq.quantize(x, bits, axis=0, method="mse", scheme=scheme)
                found = fq.error(x, integer).sqnr_db
                assert found > fq.error(x, floating).sqnr_db - lost
                assert found > fq.error(x, column).sqnr_db


@pytest.mark.parametrize("isa", NATIVE, indirect=True)
def test_the_search_is_that_of_the_reference(isa, rng):
    x = rng.standard_t(5, (150, 9)).astype(np.float32)
    for scheme in SCHEMES:
        q = fq.quantize(x, 3, axis=0, group_size=32, scheme=scheme, method="mse")
        with instruction_set("reference"):
            assert q.equals(fq.quantize(x, 3, axis=0, group_size=32, scheme=scheme, method="mse"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packing_changes_nothing(isa, scheme, rng):
    w, x = rng.standard_normal((200, 20)).astype(np.float32), rng.standard_normal((3, 200)).astype(np.float32)
    q = fq.quantize(w, 3, axis=0, group_size=64, scheme=scheme, method="mse")
    before = [np.array(v) for v in (q.codes, q.scale, q.group_scale, q.dequantize())]
    fresh = pickle.loads(pickle.dumps(q))
    y = x @ q
    assert all((np.array(v) == b).all() for v, b in zip((q.codes, q.scale, q.group_scale, q.dequantize()), before))
    assert q.equals(fresh)
    assert (x @ fresh == y).all()
    assert (x @ pickle.loads(pickle.dumps(q)) == y).all()
    assert (q.T.T.scale == before[1]).all()
    assert (q.T.codes == before[0].T).all()
    assert (x @ q.T.T == y).all()
    for name in ("group_scale", "axis_scale", "scale"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(q, name)[...] = 1


def test_memory_in_use(rng):
    """Three bits, and a quarter of a bit for a byte of scale and one of zero per 64."""
    q = fq.quantize(rng.standard_normal((4096, 256)).astype(np.float32), 3, axis=0, group_size=64, method="mse")
    rng.standard_normal((2, 4096)).astype(np.float32) @ q
    assert 8 * q.nbytes / q.size <= 3.3
    column = fq.quantize(rng.standard_normal((4096, 256)).astype(np.float32), 3, axis=0)
    rng.standard_normal((2, 4096)).astype(np.float32) @ column
    assert 8 * column.nbytes / column.size <= 3.1


def test_extreme_numbers(rng):
    """Columns of zeros, of one number, of subnormal and of huge numbers."""
    x = rng.standard_normal((64, 6)).astype(np.float32)
    x[:, 0], x[:, 1], x[:32, 2] = 0, 5, 0
    x[:, 3] *= np.float32(1e-43)
    x[:, 4] *= np.float32(5e37)
    for scheme in SCHEMES:
        for method in ("minmax", "mse"):
            q = fq.quantize(x, 3, axis=0, group_size=32, scheme=scheme, method=method)
            back = q.dequantize()
            assert np.isfinite(back).all()
            assert np.isfinite(q.scale).all()
            assert (q.scale != 0).all()
            assert (back[:, 0] == 0).all()
            ordinary = fq.error(x[:, [1, 2, 4, 5]], back[:, [1, 2, 4, 5]], axis=0)
            assert (ordinary.sqnr_db > 8).all()


@pytest.mark.parametrize("m", [2, 20])
@pytest.mark.exhaustive
def test_sums_beyond_int32(isa, m, rng):
    """K that may overflow int32 is cut into segments of whole groups' tiles; all products here are the largest."""
    k, n, group = 140_000, 17, 64
    q, values, scale = grouped(rng, k, n, 3, group, "symmetric", extreme=True)
    left = np.full((m, k), -128, np.int8)
    found = left @ q
    exact = (left.astype(np.float64) @ values) * scale
    assert np.abs(found - exact).max() <= 1e-6 * np.abs(exact).max()


def test_groups_of_matrices_in_a_stack(isa, rng):
    """The scale of a matrix is that of its group, not that of its own number."""
    w = rng.standard_normal((7, 1, 5)) * np.arange(1, 8)[:, None, None]
    x = rng.standard_normal((7, 3, 1))
    q = fq.quantize(w, 5, axis=0, group_size=3)
    assert q.scale.shape == (3, 1, 5)
    y = fq.matmul(x, q)
    assert (y == np.stack([fq.matmul(a, b) for a, b in zip(x, q)])).all()
    assert (np.abs(y - x @ q.dequantize()) <= fq.matmul_error_bound(x, q)).all()


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize(("dtype", "size"), [("f4", 1.4e-43), ("f4", 1e-44), ("f4", 1e-40), ("f8", 5e-323)])
def test_zero_points_under_subnormal_scales_are_codes(isa, method, bits, dtype, size):
    """A shared scale that is rounded down by much asks for larger integers than there are."""
    for seed in range(2090, 2096):
        w = (np.random.default_rng(seed).standard_normal((48, 3)) * size).astype(dtype)
        q = fq.quantize(w, bits, axis=0, group_size=16, scheme="asymmetric", method=method)
        assert q.zero_point.min() >= 0
        assert q.zero_point.max() < 2**bits
        groups = np.arange(48) // 16
        products = q.group_scale[groups].astype(int) * (q.codes - q.zero_point[groups])
        assert np.abs(products).max() <= 127
