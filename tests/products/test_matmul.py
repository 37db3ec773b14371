"""fastq.matmul: exact integers, one written-down float expression, and NumPy's rules for all the rest.

Two references check float results. `exactly` is the epilogue as fastq.kernels.epilogue.rescale documents it, to be met
bit for bit on every instruction set. `definition` is the product of the dequantized numbers in float64, which knows
nothing of epilogues; it is met within the roundings that the expression makes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import gcd, prod
from threading import Barrier
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastq as fq
from tests.cases import EXTREMES, instruction_set, integers

SCHEMES = ("symmetric", "asymmetric", "affine")
KINDS = ("float", "int8", "uint8", *SCHEMES)
SIDES = ("left", "right")
SUMMED = {"left": -1, "right": -2}
IS_RAW = ("int8", "uint8")


def operand(rng, kind, shape, side, bits=4, group=None, dtype=np.float32):
    """A random operand of a kind, its scales shared along the summed axis."""
    if kind in IS_RAW:
        return integers(rng, shape, kind)
    x = (rng.standard_normal(shape) + 0.3).astype(dtype)
    return x if kind == "float" else fq.quantize(x, bits, axis=SUMMED[side], group_size=group, scheme=kind)


class Parts(NamedTuple):
    """A matrix as ``scale * codes + offset``, each given for every element; codes are relative to the zero point."""

    codes: Any
    scale: Any
    offset: Any  # None where there is none
    group: int | None

    @property
    def values(self):
        return self.scale.astype(np.float64) * self.codes + (0 if self.offset is None else self.offset)

    @property
    def magnitudes(self):
        return np.abs(self.scale.astype(np.float64) * self.codes) + (0 if self.offset is None else np.abs(self.offset))


def parts(x, side, bits=8):
    if isinstance(x, np.ndarray) and x.dtype.kind in "iu":
        return Parts(x.astype(np.int64), np.ones(x.shape, np.float32), None, None)
    q = x if isinstance(x, fq.QArray) else fq.quantize(x, bits, axis=SUMMED[side])

    def spread(p):
        if p is None or q.group_size is None:
            return None if p is None else np.broadcast_to(p, q.shape)
        return np.repeat(p, q.group_size, axis=q.axis).take(range(q.shape[q.axis]), axis=q.axis)

    scale, zero, offset = (spread(p) for p in (q.scale, q.zero_point, q.offset))
    if q.group_scale is not None:  # multiplied with the codes, so that the whole of K has one scale
        reduced = q.codes.astype(np.int64) - (0 if zero is None else zero)
        return Parts(reduced * spread(q.group_scale), np.broadcast_to(q.axis_scale, q.shape), None, None)
    return Parts(q.codes.astype(np.int64) - (0 if zero is None else zero), scale, offset, q.group_size)


def exactly(a, b, dtype=np.float32, bias=None, bits=8):
    """The product of two matrices by the documented expression, segment after segment of K."""
    a, b = parts(a, "left", bits), parts(b, "right", bits)
    k = a.codes.shape[1]
    size = gcd(*(p.group for p in (a, b) if p.group is not None and p.group < k)) or k
    affine = a.offset is not None or b.offset is not None
    # Of several segments, scales that all of them share multiply the sum.
    outside = [size < k and p.offset is None and (p.group is None or p.group >= k) for p in (a, b)]
    total = None
    for start in range(0, k, size):
        part = slice(start, min(start + size, k))
        qa, qb = a.codes[:, part], b.codes[part]
        sa, sb = a.scale[:, start : start + 1].astype(dtype), b.scale[start : start + 1].astype(dtype)
        sa, sb = (np.ones_like(s) if out else s for s, out in zip((sa, sb), outside))
        y = ((qa @ qb).astype(dtype) * sa) * sb
        if affine:
            oa = np.zeros_like(sa) if a.offset is None else a.offset[:, start : start + 1].astype(dtype)
            ob = np.zeros_like(sb) if b.offset is None else b.offset[start : start + 1].astype(dtype)
            term = sb * qb.sum(axis=0, keepdims=True).astype(dtype) + dtype(len(qb)) * ob
            y = (y + (sa * qa.sum(axis=1, keepdims=True).astype(dtype)) * ob) + oa * term
        total = y if total is None else total + y
    for scale, out in zip((a.scale[:, :1], b.scale[:1]), outside):
        total = total * scale.astype(dtype) if out else total
    return total if bias is None else total + np.asarray(bias, dtype)


def definition(a, b, bits=8):
    """The product of what the operands stand for, and how far a float32 product may be from it.

    Each segment's terms go through at most eight roundings, and are then added up one after the other; every rounding
    is relative to at most the product of magnitudes.
    """
    a, b = parts(a, "left", bits), parts(b, "right", bits)
    k = a.codes.shape[1]
    segments = -(-k // gcd(*(p.group or k for p in (a, b))))
    unit = np.finfo(np.float32).eps / 2
    return a.values @ b.values, (segments + 8) * unit * (a.magnitudes @ b.magnitudes)


def check(a, b):
    """Both references, for float32 results; int64 for the product of integers."""
    y = fq.matmul(a, b)
    if all(isinstance(v, np.ndarray) and v.dtype.kind in "iu" for v in (a, b)):
        assert y.dtype == np.int32
        assert np.array_equal(y, a.astype(np.int64) @ b.astype(np.int64))
        return
    assert y.dtype == np.float32
    assert np.array_equal(y, exactly(a, b))
    expected, allowed = definition(a, b)
    assert (np.abs(y - expected) <= allowed).all()


# Operands

SHAPES = [(1, 70, 37), (3, 5, 1), (9, 64, 16), (20, 200, 50)]  # m, k, n


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", KINDS)
def test_operands_of_every_kind(isa, left, right, rng):
    for m, k, n in SHAPES:
        check(operand(rng, left, (m, k), "left"), operand(rng, right, (k, n), "right", bits=3))


GROUPS = [(None, 64), (64, None), (32, 64), (64, 32), (None, 10), (3, None), (10, 30), (3, 10), (500, 30)]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("left", SCHEMES)
@pytest.mark.parametrize("right", SCHEMES)
def test_groups_on_either_side(isa, left, right, groups, rng):
    for m, k, n in ((2, 150, 20), (20, 130, 37)):
        a = operand(rng, left, (m, k), "left", 4, groups[0])
        b = operand(rng, right, (k, n), "right", 3, groups[1])
        check(a, b)


@pytest.mark.parametrize("left", ["float", "uint8"])
@pytest.mark.parametrize("right", SCHEMES)
@pytest.mark.parametrize("group", [3, 10, 30, 64])
def test_groups_against_plain_arrays(isa, left, right, group, rng):
    a = operand(rng, left, (9, 130), "left")
    check(a, operand(rng, right, (130, 37), "right", 3, group))
    b = operand(rng, left, (130, 37), "right")
    check(operand(rng, right, (9, 130), "left", 3, group), b)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.exhaustive
def test_any_product(isa, data):
    """Sizes, widths, kinds and groups at will."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    m, k, n = (data.draw(st.integers(1, top)) for top in (40, 300, 70))
    group = st.one_of(st.none(), st.integers(1, 100))
    sides = [
        operand(rng, data.draw(st.sampled_from(KINDS)), shape, side, data.draw(st.integers(2, 8)), data.draw(group))
        for side, shape in zip(SIDES, ((m, k), (k, n)))
    ]
    check(*sides)


@pytest.mark.parametrize("bits", range(2, 9))
def test_floats_are_quantized_by_row_and_by_column(isa, bits, rng):
    a, b = (operand(rng, "float", shape, "") for shape in ((20, 70), (70, 37)))
    y = fq.matmul(a, b, bits=bits)
    qa, qb = fq.quantize(a, bits, axis=-1), fq.quantize(b, bits, axis=0)
    for left, right in ((qa, qb), (a, qb), (qa, b)):
        assert np.array_equal(fq.matmul(left, right, bits=bits), y)
    assert np.array_equal(y, exactly(a, b, bits=bits))


def test_floats_are_divided_by_the_scale(isa, rng):
    """Not multiplied by its reciprocal: in each row the values are ones for which that would round the other way."""
    top = rng.uniform(1, 2, 4000).astype(np.float32)
    scale = top / np.float32(127)
    halves = np.arange(0.5, 126, dtype=np.float32) * scale[:, None]
    trap = np.rint(halves / scale[:, None]) != np.rint(halves * (1 / scale[:, None]))
    rows = trap.any(axis=1)
    x = np.where(trap, halves, 0)[rows][:64]
    x = np.concatenate([x, top[rows][:64, None]], axis=1)
    codes = fq.quantize(x, axis=-1).codes
    y = fq.matmul(x, np.eye(x.shape[1], dtype=np.int8))
    assert np.array_equal(codes, np.rint(x / scale[rows][:64, None]))
    assert np.array_equal(y, codes * scale[rows][:64, None])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("axis", [None, "kept", "kept in groups"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_sharing(isa, side, axis, scheme, rng):
    """One scale for all, and one for each few rows or columns."""
    k = 70 if axis is None else 1  # along the kept axis scales can be shared only where nothing is summed
    w = operand(rng, "float", (20, k) if side == "left" else (k, 20), side)
    group = 8 if axis == "kept in groups" else None
    q = fq.quantize(w, 4, axis=None if axis is None else -3 - SUMMED[side], group_size=group, scheme=scheme)
    for kind in ("float", "affine"):
        if side == "left":
            check(q, operand(rng, kind, (k, 5), "right"))
        else:
            check(operand(rng, kind, (5, k), "left"), q)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("group", [None, 10, 32])
@pytest.mark.exhaustive
def test_one_array_in_many_products(isa, scheme, group, rng):
    """What is packed and kept for one product must not show in the next, whatever that is."""
    x = rng.standard_normal((20, 150))
    w = operand(rng, "float", (150, 37), "")
    form = {"bits": 3, "axis": 0, "group_size": group, "scheme": scheme}
    q = fq.quantize(w, **form)
    lefts = [
        x.astype(np.float32), x, operand(rng, "affine", (20, 150), "left"), integers(rng, (20, 150), "uint8"),
        operand(rng, "asymmetric", (20, 150), "left", group=30), operand(rng, "symmetric", (20, 150), "left", group=3),
        x[:2].astype(np.float32), x[:2], operand(rng, "affine", (2, 150), "left", group=7),
    ]  # fmt: skip
    for left in (*lefts, *lefts[::-1]):
        assert np.array_equal(fq.matmul(left, q), fq.matmul(left, fq.quantize(w, **form)))
        assert np.array_equal(fq.matmul(q.T, left.T), fq.matmul(fq.quantize(w, **form).T, left.T))


def test_a_negative_scale(isa, rng):
    w = operand(rng, "float", (70, 37), "")
    scale = rng.uniform(0.1, 0.3, (1, 37)) * rng.choice([-1, 1], (1, 37))
    q = fq.quantize(w, 4, axis=0, scale=scale)
    check(operand(rng, "float", (9, 70), ""), q)
    check(operand(rng, "affine", (9, 70), "left"), q)
    check(q.T, operand(rng, "asymmetric", (70, 9), "right"))


@pytest.mark.parametrize("zero", [0, 127, 128, 129, 255, "some"])
@pytest.mark.parametrize("right", [*KINDS, "groups"])
def test_every_zero_point_of_eight_bits(isa, zero, right, rng):
    """Unsigned codes are multiplied as signed ones, 128 lower: a zero point of 128 is none then, one of 0 is."""
    for m, k, n in ((1, 70, 37), (9, 64, 16), (20, 150, 50)):
        kind, group = ("symmetric", 32) if right == "groups" else (right, None)
        b = operand(rng, kind, (k, n), "right", 3, group)
        for rows in (m, 1):
            points = rng.choice([0, 128, 255], (rows, 1)) if zero == "some" else np.full((rows, 1), zero)
            x = rng.uniform(-3, 3, (m, k)).astype(np.float32)
            of_rows = {"axis": 1} if rows > 1 else {}
            points = points if rows > 1 else points[0, 0]
            scale = np.full_like(points, 0.01, np.float64)
            q = fq.quantize(x, 8, scheme="asymmetric", scale=scale, zero_point=points, **of_rows)
            assert (q.zero_point == points).all()
            check(q, b)
            if kind != "float":
                check(b.T, q.T)


# Integers


@pytest.mark.parametrize("left", IS_RAW)
@pytest.mark.parametrize("right", IS_RAW)
@pytest.mark.parametrize("k", [1, 3, 64, 65, 1000])
def test_integers_are_exact(isa, left, right, k, rng):
    for m, n in ((1, 1), (2, 40), (9, 16), (50, 50)):
        for kinds in zip(EXTREMES, (*EXTREMES[1:], "lowest")):
            a, b = integers(rng, (m, k), left, kinds[0]), integers(rng, (k, n), right, kinds[1])
            check(a, b)


# The largest K whose extremes still fit int32, for each pair of types, and the sum there.
LARGEST = {("int8", "int8"): 131_071, ("uint8", "int8"): 65_793, ("int8", "uint8"): 65_793, ("uint8", "uint8"): 33_025}
WORST = {"int8": -128, "uint8": 255}


@pytest.mark.parametrize("types", LARGEST)
def test_long_sums_of_extremes(isa, types):
    k = LARGEST[types]
    a, b = np.full((2, k + 1), WORST[types[0]], types[0]), np.full((k + 1, 3), WORST[types[1]], types[1])
    total = k * WORST[types[0]] * WORST[types[1]]
    assert (fq.matmul(a[:, :k], b[:k]) == total).all()
    assert (fq.matmul(a[:, :k], b[:k], out=np.empty((2, 3), np.int64)) == total).all()
    wide = total + WORST[types[0]] * WORST[types[1]]
    with pytest.raises(OverflowError, match=rf"must fit int32, but with K = {k + 1} it reaches {wide}"):
        fq.matmul(a, b)
    out = np.empty((2, 3), np.int64)
    assert fq.matmul(a, b, out=out) is out
    assert (out == wide).all()


@pytest.mark.parametrize("left", IS_RAW)
@pytest.mark.parametrize("right", IS_RAW)
def test_long_random_sums(isa, left, right, rng):
    """Whether a sum fits is a matter of its value, not of K."""
    a, b = integers(rng, (3, 70_000), left), integers(rng, (70_000, 5), right)
    a[1] = 0
    exact = a.astype(np.int64) @ b.astype(np.int64)
    if np.abs(exact).max() < 2**31:
        assert np.array_equal(fq.matmul(a, b), exact)
    else:
        with pytest.raises(OverflowError):
            fq.matmul(a, b)
        assert np.array_equal(fq.matmul(a[1:2], b), exact[1:2])
    assert np.array_equal(fq.matmul(a, b, out=np.empty((3, 5), np.int64)), exact)


def test_an_overflow_that_the_bias_brings_back(isa):
    a, b = np.full((1, 33_026), 255, np.uint8), np.full((33_026, 1), 255, np.uint8)
    assert fq.matmul(a, b, bias=-(2**31)).item() == 255 * 255 * 33_026 - 2**31


@pytest.mark.parametrize("scheme", SCHEMES)
def test_long_float_sums(isa, scheme, rng):
    """More than int32 holds: K is cut, and the parts are added as floats."""
    k = 140_000
    lowest = {"scale": 1 / 128}  # all codes are -128
    a = fq.quantize(np.full((2, k), -1, np.float32), **lowest)
    if scheme == "affine":
        b = fq.quantize(rng.uniform(0, 1, (k, 3)).astype(np.float32), axis=0, scheme=scheme)
    else:
        b = fq.quantize(np.full((k, 3), -1 if scheme == "symmetric" else 1, np.float32),
                        scheme=scheme, **(lowest if scheme == "symmetric" else {}))  # fmt: skip
    assert abs(a.codes.astype(np.int64) @ b.codes.astype(np.int64)).min() > 2**31
    y = fq.matmul(a, b)
    expected, allowed = definition(a, b)
    assert (np.abs(y - expected) <= allowed).all()
    with instruction_set("reference"):
        assert np.array_equal(y, fq.matmul(a, b))


# NumPy's rules

PAIRS = [
    ((3,), (3,)), ((1,), (1,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((1, 1), (1, 1)),
    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)), ((6, 5, 2, 3), (5, 3, 4)), ((5, 2, 3), (6, 1, 3, 4)), ((2, 6, 5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((6, 5, 2, 3), (3,)), ((3,), (6, 5, 3, 4)),
    ((0,), (0,)), ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 0), (0, 0)), ((0, 2, 3), (3, 4)),
    ((0, 2, 3), (1, 3, 4)), ((2, 3), (0, 3, 4)), ((5, 2, 0), (0, 4)), ((5, 0, 3), (5, 3, 4)), ((0,), (0, 4)),
    ((2, 0), (0,)), ((5, 2, 0), (5, 0, 4)),
    ((), (3,)), ((3,), ()), ((), ()), ((3,), (4,)), ((2, 3), (4,)), ((3,), (4, 3)), ((2, 3), (4, 3)), ((2, 3), (2, 3)),
    ((5, 2, 3), (4, 3)), ((5, 2, 3), (6, 3, 4)), ((5, 6, 2, 3), (6, 5, 3, 4)), ((2, 3), ()), ((0, 3), (4, 3)),
    ((2, 0), (3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_shapes_are_those_of_numpy(isa, pair, rng):
    def made(kind, shape, side):
        if kind == "quantized":
            x = rng.standard_normal(shape).astype(np.float32)
            axis = None if not shape else max(SUMMED[side], -len(shape))
            return fq.quantize(x, 4, axis=axis)
        return operand(rng, kind, shape, side)

    try:
        shape = np.matmul(*(np.ones(s) for s in pair)).shape
    except ValueError:
        shape = None
    for kinds in (
        ("float", "float"),
        ("int8", "uint8"),
        ("float", "quantized"),
        ("quantized", "float"),
        ("quantized",) * 2,
    ):
        a, b = (made(*facts) for facts in zip(kinds, pair, SIDES))
        if shape is None:
            with pytest.raises(ValueError, match=r"operand|broadcast"):
                fq.matmul(a, b)
            continue
        y = fq.matmul(a, b)
        assert y.shape == shape
        assert isinstance(y, np.ndarray) == (shape != ())
        assert y.dtype == (np.int32 if kinds[0] == "int8" else np.float32)
        out = np.full(shape, 7, y.dtype)
        assert fq.matmul(a, b, out=out) is out
        assert np.array_equal(out, y)


def test_a_sum_over_nothing_is_zero_or_the_bias(isa):
    a, b = np.empty((2, 0), np.float32), np.empty((0, 3), np.float32)
    assert np.array_equal(fq.matmul(a, b), np.zeros((2, 3)))
    assert np.array_equal(fq.matmul(a, b, bias=[1, 2, 3]), [[1, 2, 3]] * 2)
    assert np.array_equal(fq.matmul(a.astype(np.int8), b.astype(np.uint8), bias=4), np.full((2, 3), 4))


@pytest.mark.parametrize("left", ["float", "int8", "uint8"])
@pytest.mark.parametrize("right", ["float", "int8", "uint8"])
def test_stacks_are_products_of_their_matrices(isa, left, right, rng):
    shapes = [((5, 9, 70), (70, 20)), ((9, 70), (5, 70, 20)), ((6, 1, 9, 70), (5, 70, 20)), ((5, 9, 70), (70,))]
    for sa, sb in shapes:
        a, b = operand(rng, left, sa, ""), operand(rng, right, sb, "")
        y = fq.matmul(a, b)
        batch = np.broadcast_shapes(sa[:-2], sb[:-2])
        wide_a = np.broadcast_to(a, (*batch, *sa[-2:]))
        wide_b = np.broadcast_to(b, (*batch, *sb[-2:])) if len(sb) > 1 else b
        for index in np.ndindex(batch):
            assert np.array_equal(y[index], fq.matmul(wide_a[index], wide_b[index] if len(sb) > 1 else b))


@pytest.mark.parametrize("kind", ["float", "int8", "uint8", "float64"])
def test_memory_layouts_of_operands(isa, kind, rng):
    dtype = {"float": np.float32, "float64": np.float64}.get(kind, kind)
    a = operand(rng, kind if kind in IS_RAW else "float", (20, 70), "").astype(dtype)
    b = operand(rng, kind if kind in IS_RAW else "float", (70, 37), "").astype(dtype)
    expected = fq.matmul(a, b)

    def strided(x):
        room = np.full((2 * x.shape[0], 3 * x.shape[1]), 99, x.dtype)  # what is read beside the slice shows
        room[::2, 1::3] = x
        return room[::2, 1::3]

    def unaligned(x):
        return np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)

    forms = [
        np.asfortranarray, strided, unaligned,
        lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        lambda x: np.concatenate([x, x + 1], axis=1)[:, : x.shape[1]],
        lambda x: x.astype(x.dtype.newbyteorder()),
    ]  # fmt: skip
    for form in forms:
        before = form(a).copy()
        assert np.array_equal(fq.matmul(form(a), b), expected)
        assert np.array_equal(fq.matmul(a, form(b)), expected)
        assert np.array_equal(form(a), before)
    row, column = np.broadcast_to(a[:1], a.shape), np.broadcast_to(b[:, :1], b.shape)
    assert np.array_equal(fq.matmul(row, column), fq.matmul(row.copy(), column.copy()))


def test_sequences(isa):
    assert np.array_equal(fq.matmul([[1.0, 2.0]], [[3.0], [4.0]]), fq.matmul(np.array([[1.0, 2.0]]), [[3.0], [4.0]]))
    assert fq.matmul([1, 2], [3, 4]) == 11  # wide integers: NumPy's own


# Types


@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_multiplied_as_float32(isa, narrow, rng):
    a, b = (rng.standard_normal(s).astype(narrow) for s in ((9, 70), (70, 20)))
    wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
    expected = fq.matmul(wide_a, wide_b)
    for left, right in ((a, b), (a, wide_b), (wide_a, b)):
        y = fq.matmul(left, right)
        assert y.dtype == np.float32
        assert np.array_equal(y, expected)
    q = fq.quantize(b, 4, axis=0)
    assert (a @ q).dtype == np.float32
    assert np.array_equal(a @ q, wide_a @ fq.quantize(wide_b, 4, axis=0))


@pytest.mark.parametrize(("left", "right"), [pair for pair in product(KINDS, KINDS) if not set(pair) <= set(IS_RAW)])
def test_float64_products_are_computed_in_float64(isa, left, right, rng):
    for m in (2, 20):
        a = operand(rng, left, (m, 70), "left", group=32, dtype=np.float64)
        b = operand(rng, right, (70, 20), "right", bits=3, dtype=np.float64)
        y = fq.matmul(a, b)
        assert y.dtype == np.float64
        assert np.array_equal(y, exactly(a, b, np.float64))


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_float64_products_beyond_the_range_of_float32(isa, size, rng):
    x, w = rng.standard_normal((9, 70)), rng.standard_normal((70, 20))
    plain = np.linalg.norm(x @ w)
    for right in (w, fq.quantize(w, axis=0)):
        y = fq.matmul(x * size, right)
        assert np.linalg.norm(y / size - x @ w) < 0.02 * plain  # 8 bits on both sides
    q = fq.quantize(w * size, axis=0, scheme="affine")
    assert np.array_equal(fq.matmul(x, q), exactly(x, q, np.float64))


def test_float32_with_float64(isa, rng):
    a, b = rng.standard_normal((9, 70)), rng.standard_normal((70, 20))
    narrow = b.astype(np.float32)
    assert np.array_equal(fq.matmul(a, narrow), fq.matmul(a, narrow.astype(np.float64)))
    q = fq.quantize(narrow, 4, axis=0)
    assert np.array_equal(a @ q, exactly(a, q, np.float64))
    q, narrow = fq.quantize(b, 4, axis=0), a.astype(np.float32)
    assert np.array_equal(narrow @ q, narrow.astype(np.float64) @ q)


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint16, np.int32, np.int64, np.float16])
def test_other_numbers_meet_a_quantized_array_as_floats(isa, dtype, rng):
    x = rng.integers(0, 100, (9, 70)).astype(dtype)
    q = fq.quantize(rng.standard_normal((70, 20)).astype(np.float32), 4, axis=0)
    wide = np.float64 if dtype in (np.int32, np.int64) else np.float32
    assert (x @ q).dtype == wide
    assert np.array_equal(x @ q, x.astype(wide) @ q)
    assert np.array_equal(q.T @ x.T, q.T @ x.T.astype(wide))


@pytest.mark.parametrize("dtype", [bool, np.int16, np.int64, np.uint64, np.complex64, complex, object, np.longdouble])
def test_other_types_are_left_to_numpy(dtype, rng):
    a, b = (rng.integers(0, 2, s).astype(dtype) for s in ((2, 9, 70), (70, 20)))
    for left, right in ((a, b), (a, b[:, 0]), (a[0, 0], b)):
        expected = np.matmul(left, right)
        y = fq.matmul(left, right)
        assert y.dtype == expected.dtype
        assert np.array_equal(y, expected)
        out = np.empty_like(expected)
        assert fq.matmul(left, right, out=out) is out
        assert np.array_equal(out, expected)
    assert np.array_equal(fq.matmul(a, b, bias=1), np.matmul(a, b) + 1)


@pytest.mark.parametrize(
    "mixed", [(bool, np.float32), (np.complex64, np.float32), (np.int8, np.int16), (object, np.float64)]
)
def test_mixed_with_other_types_is_left_to_numpy(mixed, rng):
    a, b = (rng.integers(0, 2, s).astype(t) for s, t in zip(((9, 70), (70, 20)), mixed))
    for left, right in ((a, b), (b.T, a.T)):
        expected = np.matmul(left, right)
        assert fq.matmul(left, right).dtype == expected.dtype
        assert np.array_equal(fq.matmul(left, right), expected)


def test_out_and_bias_together_with_other_types():
    a, b, out = np.ones((2, 3), int), np.ones((3, 4), int), np.empty((2, 4), int)
    assert fq.matmul(a, b, out=out, bias=2) is out
    assert fq.matmul(a, b, out=(out,), bias=2) is out
    assert (out == 5).all()


# Bias


@pytest.mark.parametrize(
    "kinds", [("float", "symmetric"), ("affine", "asymmetric"), ("int8", "float"), ("float", "float")]
)
def test_bias(isa, kinds, rng):
    for m in (2, 20):
        a, b = (operand(rng, kind, s, side, group=30 if kind in SCHEMES else None)
                for kind, s, side in zip(kinds, ((m, 70), (70, 37)), SIDES))  # fmt: skip
        plain = fq.matmul(a, b)
        for bias in (
            1,
            -2.5,
            [3],
            np.float32(0.1),
            rng.standard_normal(37),
            rng.standard_normal(37).astype(np.float16),
        ):
            y = fq.matmul(a, b, bias=bias)
            assert y.dtype == np.float32
            assert np.array_equal(y, plain + np.asarray(bias).astype(np.float32))
            assert np.array_equal(y, exactly(a, b, bias=bias))


def test_bias_of_other_shapes(isa, rng):
    a, b = operand(rng, "float", (3, 9, 70), ""), operand(rng, "float", (70, 20), "")
    bias = rng.standard_normal(20).astype(np.float32)
    assert np.array_equal(fq.matmul(a, b, bias=bias), fq.matmul(a, b) + bias)
    assert np.array_equal(fq.matmul(a[0, 0], b, bias=bias), fq.matmul(a[0, 0], b) + bias)
    assert np.array_equal(fq.matmul(a, b[:, 0], bias=2), fq.matmul(a, b[:, 0]) + np.float32(2))
    backwards = bias[::-1]
    assert np.array_equal(fq.matmul(a, b, bias=backwards), fq.matmul(a, b) + backwards)


def test_bias_of_integers(isa, rng):
    for m in (2, 20):
        a, b = integers(rng, (m, 70), "int8"), integers(rng, (70, 37), "uint8")
        exact = a.astype(np.int64) @ b.astype(np.int64)
        for bias in (5, [-7], rng.integers(-(10**6), 10**6, 37), np.arange(37, dtype=np.uint8), True):
            y = fq.matmul(a, b, bias=bias)
            assert y.dtype == np.int32
            assert np.array_equal(y, exact + np.asarray(bias))


# Output


@pytest.mark.parametrize("kind", ["float", "int8"])
@pytest.mark.parametrize("m", [2, 30])
def test_out(isa, kind, m, rng):
    a, b = operand(rng, kind, (m, 70), ""), operand(rng, kind, (70, 37), "")
    y = fq.matmul(a, b)
    room = np.full((3 * m, 60), 7, y.dtype)
    layouts = {
        "contiguous": np.empty((m, 37), y.dtype),
        "transposed": np.empty((37, m), y.dtype).T,
        "rows apart": room[m : 2 * m, 5:42],
        "every other row": room[: 2 * m : 2, :37],
        "strided": np.empty((2 * m, 74), y.dtype)[::2, ::2],
        "backwards": np.empty((m, 37), y.dtype)[::-1],
        "right to left": np.empty((m, 37), y.dtype)[:, ::-1],
        "big-endian": np.empty((m, 37), y.dtype.newbyteorder()),
        "unaligned": np.frombuffer(bytearray(m * 37 * 4 + 1), y.dtype, offset=1).reshape(m, 37),
        "wider": np.empty((m, 37), np.float64),
    }
    for name, out in layouts.items():
        out[...] = 0
        assert fq.matmul(a, b, out=out) is out, name
        assert np.array_equal(out, y), name
    assert fq.matmul(a, b, layouts["contiguous"]) is layouts["contiguous"]  # the third argument, as in NumPy
    room[...] = 7
    fq.matmul(a, b, out=room[m : 2 * m, 5:42])
    room[m : 2 * m, 5:42] = 7
    assert (room == 7).all()  # nothing beside it was written


def test_out_in_a_tuple(isa, rng):
    a, b = operand(rng, "float", (9, 70), ""), operand(rng, "float", (70, 20), "")
    for out in (np.empty((9, 20), np.float32), np.empty((20, 9), np.float32).T):
        assert fq.matmul(a, b, out=(out,)) is out  # as ufuncs take and return it
        assert np.array_equal(out, fq.matmul(a, b))


def test_out_of_stacks_and_vectors(isa, rng):
    for sa, sb in (((5, 9, 70), (70, 20)), ((9, 70), (5, 70, 20)), ((70,), (70, 20)), ((9, 70), (70,)), ((70,), (70,))):
        a, b = operand(rng, "float", sa, ""), operand(rng, "float", sb, "")
        y = fq.matmul(a, b)
        for out in (np.empty(y.shape, np.float32), np.empty((*y.shape, 2), np.float32)[..., 0]):
            assert fq.matmul(a, b, out=out) is out
            assert np.array_equal(out, y)


def test_out_of_a_narrower_float(isa, rng):
    a, b = operand(rng, "float", (9, 70), ""), operand(rng, "float", (70, 20), "")
    out = np.empty((9, 20), np.float16)
    assert fq.matmul(a, b, out=out) is out
    assert np.array_equal(out, fq.matmul(a, b).astype(np.float16))


FAILURES = {
    "NaN on the left": lambda a, b, out: fq.matmul(np.where(a == a[7, 3], np.nan, a), b, out),
    "infinity on the right": lambda a, b, out: fq.matmul(a, np.where(b == b[3, 7], np.inf, b), out),
    "NaN meets a quantized array": lambda a, b, out: fq.matmul(np.full_like(a, np.nan), fq.quantize(b, axis=0), out),
    "shapes": lambda a, b, out: fq.matmul(a, b.T, out),
    "bits": lambda a, b, out: fq.matmul(a, b, out, bits=9),
    "bias": lambda a, b, out: fq.matmul(a, b, out, bias=[1, 2]),
    "scale along K": lambda a, b, out: fq.matmul(a, fq.quantize(b, axis=1), out),
    "type of out": lambda a, b, out: fq.matmul(a, b, out.view(np.int32)),
    "type of an operand": lambda a, b, out: fq.matmul(fq.quantize(a, axis=1), b.astype(complex), out),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_out_is_untouched_by_failure(isa, failure, rng):
    a, b = operand(rng, "float", (20, 40), ""), operand(rng, "float", (40, 30), "")
    out = np.full((20, 30), 7, np.float32)
    with pytest.raises((TypeError, ValueError)):
        FAILURES[failure](a, b, out)
    assert (out == 7).all()


def test_out_is_untouched_by_failure_in_a_stack(isa, rng):
    """The last of several matrices is the bad one."""
    out = np.full((3, 9, 20), 7, np.float32)
    a, b = operand(rng, "float", (3, 9, 40), ""), operand(rng, "float", (3, 40, 20), "")
    a[2, 8, 39] = np.nan
    with pytest.raises(fq.NotFiniteError):
        fq.matmul(a, b, out)
    a, b[2, 39, 19] = np.nan_to_num(a), np.inf
    with pytest.raises(fq.NotFiniteError):
        fq.matmul(a, b, out)
    assert (out == 7).all()


def test_out_is_untouched_by_an_overflow(isa):
    out = np.full((1, 1), 7, np.int32)
    with pytest.raises(OverflowError):
        fq.matmul(np.full((1, 40_000), 255, np.uint8), np.full((40_000, 1), 255, np.uint8), out)
    assert out == 7


@pytest.mark.parametrize("size", [40, 400])  # on one thread, and on two
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_out_may_overlap_an_operand(isa, size, kind, rng):
    dtype = np.float32 if kind == "float" else np.int8
    room = np.empty((2 * size, size), np.float32 if kind == "float" else np.int32)
    a, b = operand(rng, kind, (size, size), ""), operand(rng, kind, (size, size), "")
    expected = fq.matmul(a, b)
    for start in (0, 1, size // 2):
        # The operand lies at the start of the room, as if someone had computed in place.
        inside = room.reshape(-1).view(dtype)[: size * size].reshape(size, size)
        out = room[start : start + size]
        inside[...] = a
        assert np.array_equal(fq.matmul(inside, b, out=out), expected)
        inside[...] = b
        assert np.array_equal(fq.matmul(a, inside, out=out), expected)
    if kind == "float":
        x = a.copy()
        assert np.array_equal(fq.matmul(x, x, out=x), fq.matmul(a, a))
        stack = np.stack([a, b, a])
        assert np.array_equal(fq.matmul(stack, stack, out=stack), fq.matmul(np.stack([a, b, a]), np.stack([a, b, a])))
        x = a.copy()
        assert np.array_equal(fq.matmul(x, b, out=x, bias=x[0]), fq.matmul(a, b, bias=a[0]))
        x = a.copy()
        assert np.array_equal(fq.matmul(x, b, out=x.T), expected)


# What is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shapes", [((20, 40), (40, 30)), ((3, 20, 40), (40, 30)), ((40,), (40, 30)), ((20, 40), (40,)),
                                    ((3, 20, 40), (3, 40, 30)), ((20, 40), (3, 40, 30))])  # fmt: skip
def test_what_is_not_finite_is_counted_and_located(isa, value, shapes, rng):
    a, b = (operand(rng, "float", s, "") for s in shapes)
    for name, bad in (("a", a), ("b", b)):
        for order in "CF":
            x = np.array(bad, order=order)
            place = tuple(n - 1 for n in x.shape)
            x[place] = value
            words = rf"{name} must be finite.* 1 of {prod(x.shape)} .*first at index \({', '.join(map(str, place))},?\)"
            with pytest.raises(fq.NotFiniteError, match=words):
                fq.matmul(*((x, b) if name == "a" else (a, x)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 33, 64])
def test_no_place_is_overlooked(isa, dtype, k):
    q = fq.quantize(np.ones((k, 3), dtype), axis=0)
    for i, j in {(0, 0), (0, k - 1), (19, 0), (19, k - 1)}:
        x = np.ones((20, k), dtype)
        x[i, j] = np.nan
        with pytest.raises(fq.NotFiniteError, match=rf"index \({i}, {j}\)"):
            x @ q
        with pytest.raises(fq.NotFiniteError, match=rf"index \({j}, {i}\)"):
            fq.matmul(np.ones((2, k), dtype), np.ascontiguousarray(x.T))


# Many at once


def test_threads_calling_at_once(rng):
    """Eight threads, all kinds of products, shared and unpacked operands: as if one after the other."""
    fq.set_num_threads(2)
    x = operand(rng, "float", (64, 512), "")
    w = operand(rng, "float", (512, 500), "")
    q = fq.quantize(w, 3, axis=0)
    a8, b8 = integers(rng, (64, 512), "int8"), integers(rng, (512, 500), "uint8")
    jobs = [
        lambda q: x @ q,
        lambda q: x[:1] @ q,
        lambda q: fq.matmul(x, w),
        lambda q: fq.matmul(a8, b8),
        lambda q: w.T @ q.T.T,
        lambda q: fq.quantize(w, 4, axis=0).codes,
        lambda q: q.codes,
        lambda q: fq.quantize(w, 3, axis=-1, group_size=32).dequantize(),
    ]
    expected = [job(q) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            fresh = fq.quantize(w, 3, axis=0)
            start = Barrier(8, timeout=60)

            def call(job, fresh=fresh, start=start):
                start.wait()
                return job(fresh)

            for got, wanted in zip(pool.map(call, jobs), expected):
                assert np.array_equal(got, wanted)


CHILDREN = """
import os, sys
import numpy as np, fastq as fq

rng = np.random.default_rng(0)
x, w = rng.standard_normal((64, 512)).astype("f4"), rng.standard_normal((512, 500)).astype("f4")

def work():
    fq.set_num_threads(2)
    q = fq.quantize(w, 3, axis=0)
    return x @ q, x[:1] @ q, fq.matmul(x, w)

def right(expected):
    return all(map(np.array_equal, work(), expected))

if __name__ == "__main__":
    expected = work()
    if sys.argv[1] == "os.fork":
        for _ in range(3):  # a child's child as well
            child = os.fork()
            if child:
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            assert right(expected)
        sys.exit(0)
    import multiprocessing
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert all(pool.map(right, [expected] * 4, chunksize=1))
    assert right(expected)
"""


@pytest.mark.parametrize("method", ["spawn", *(["os.fork", "fork"] if hasattr(os, "fork") else [])])
def test_child_processes(method, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILDREN)
    # Later Pythons warn when a process with threads forks.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", script, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FORK_WHILE_PACKING = """
import os, signal, sys, threading
import numpy as np, fastq as fq
from fastq.engine import store

rng = np.random.default_rng(0)
x, w = rng.standard_normal((5, 70)).astype("f4"), rng.standard_normal((70, 20)).astype("f4")
expected = x @ fq.quantize(w, 3, axis=0)
q = fq.quantize(w, 3, axis=0)
pack, started, go_on = store.pack_right, threading.Event(), threading.Event()

def slow(*args):
    started.set()
    go_on.wait()
    return pack(*args)

store.pack_right = slow
thread = threading.Thread(target=lambda: x @ q)
thread.start()
started.wait()
child = os.fork()
if child == 0:
    signal.alarm(5)
    store.pack_right = pack
    os._exit(not np.array_equal(x @ q, expected))
go_on.set()
thread.join()
assert np.array_equal(x @ q, expected)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


if hasattr(os, "fork"):

    def test_a_fork_while_another_thread_packs():
        """A lock that a thread held which the child does not have must not stop the child."""
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_PACKING]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_results_do_not_depend_on_the_number_of_threads(isa, rng, many_cores):
    x, w = operand(rng, "float", (300, 600), ""), operand(rng, "float", (600, 500), "")
    results = []
    for threads in (1, 2, 3):
        fq.set_num_threads(threads)
        q = fq.quantize(w, 3, axis=0, group_size=30, scheme="affine")
        results.append((x @ q, x[:1] @ q, fq.matmul(x, w), q.codes))
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))
