"""fastq.quantize: codes are the documented NumPy expression, bit for bit, on every instruction set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastq as fq
from tests.cases import NATIVE, instruction_set

SCHEMES = ("symmetric", "asymmetric", "affine")
BITS = range(2, 9)
FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8)


def limits(bits, scheme):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if scheme == "symmetric" else (0, 2**bits - 1)


def spread(values, q):
    """A parameter of q for each element of its array."""
    if values is None or q.group_size is None:
        return values
    n = q.shape[q.axis]
    return np.repeat(values, min(q.group_size, n), axis=q.axis).take(range(n), axis=q.axis)


def extremes(x, axis, group):
    """Smallest and largest element of each run, cut the slow way."""
    parts = [x] if group is None else np.split(x, range(group, x.shape[axis], group), axis)
    return (
        np.concatenate([reduce(p, axis=axis, keepdims=True) for p in parts], axis or 0) if x.ndim else x
        for reduce in (np.min, np.max)
    )


def documented_parameters(x, bits, axis, group, scheme):
    """Scale, zero point and offset as the docstring of quantize defines them, for runs that are not all zero."""
    low, high = extremes(x, axis, group)
    steps = x.dtype.type(limits(bits, scheme)[1])
    if scheme == "symmetric":
        return np.maximum(-low, high) / steps, None, None
    if scheme == "asymmetric":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = np.where(high > low, (high - low) / steps, 1)  # 1 where all elements are the same
    return (scale, np.rint(-low / scale), None) if scheme == "asymmetric" else (scale, None, low)


def documented_codes(x, q):
    """The documented expression in x's type, with the parameters that q has."""
    scale, zero, offset = (spread(p, q) for p in (q.scale, q.zero_point, q.offset))
    with np.errstate(over="ignore"):
        steps = np.rint((x if offset is None else x - offset) / scale)
        steps = steps if zero is None else steps + zero.astype(x.dtype)
    return np.clip(steps, *limits(q.bits, q.scheme))


def same(a, b):
    """Equal parameters: both None, or equal numbers of one type and shape."""
    return (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and np.array_equal(a, b)))


# Codes and parameters

GEOMETRIES = [
    (shape, axis, group)
    for shape in ((70,), (130, 51), (3, 70, 17))
    for axis in (None, *range(len(shape)))
    for group in ((None,) if axis is None else (None, 10, 64, 1000))
]


@pytest.mark.parametrize(("shape", "axis", "group"), GEOMETRIES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_and_parameters_are_the_documented_ones(isa, scheme, shape, axis, group, rng):
    x = (rng.gamma(2, size=shape) - 1).astype(np.float32)
    for bits in BITS:
        q = fq.quantize(x, bits, axis=axis, group_size=group, scheme=scheme, group_scale="float")
        for name, value in zip(("scale", "zero_point", "offset"), documented_parameters(x, bits, axis, group, scheme)):
            assert (getattr(q, name) is None) == (value is None)
            assert value is None or np.array_equal(getattr(q, name), value)
        if group is None:
            assert q.scale.shape == np.max(x, axis=axis, keepdims=True).shape
        assert q.codes.dtype == (np.int8 if scheme == "symmetric" else np.uint8)
        assert np.array_equal(q.codes, documented_codes(x, q))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_arrays_that_threads_share(isa, scheme, axis, rng):
    x = rng.standard_normal((700, 1100)).astype(np.float32)  # 3 MB: several runs of each kind per thread
    q = fq.quantize(x, 4, axis=axis, scheme=scheme)
    scale, _, _ = documented_parameters(x, 4, axis, None, scheme)
    assert np.array_equal(q.scale, scale)
    assert np.array_equal(q.codes, documented_codes(x, q))


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 50000])
def test_whole_arrays_are_cut_into_runs(isa, size, rng):
    """One scale for all, from the extremes of runs of 16384."""
    x = rng.uniform(-1, 1, size).astype(np.float32)
    x[0], x[-1] = -2, 3
    junk = [np.full(n, 1e30, np.float32) for n in (1, 2, 3, 4) * 20]
    del junk  # it stays in memory, where it would be found by one who reads what he did not write
    for scheme in SCHEMES:
        q = fq.quantize(x, scheme=scheme)
        assert q.scale[0] == documented_parameters(x, 8, None, None, scheme)[0][0]
        assert np.array_equal(q.codes, documented_codes(x, q))


@pytest.mark.parametrize("group", [None, 4])
def test_negative_axis_counts_from_the_end(isa, group, rng):
    x = rng.standard_normal((5, 7, 9)).astype(np.float32)
    for axis in range(3):
        q = fq.quantize(x, 5, axis=axis - 3, group_size=group)
        assert q.axis == axis
        assert q.equals(fq.quantize(x, 5, axis=axis, group_size=group))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups_are_quantized_like_arrays_of_their_own(isa, scheme, rng):
    x = rng.standard_normal((20, 5)).astype(np.float32)
    q = fq.quantize(x, 3, axis=0, group_size=7, scheme=scheme)
    assert q.scale.shape == (3, 5)
    for i, rows in enumerate((slice(0, 7), slice(7, 14), slice(14, 20))):
        part = fq.quantize(x[rows], 3, axis=0, scheme=scheme)
        assert np.array_equal(q.codes[rows], part.codes)
        assert np.array_equal(q.scale[i : i + 1], part.scale)


@pytest.mark.parametrize("bits", BITS)
def test_zero_has_an_asymmetric_code(isa, bits):
    top = 2**bits - 1
    x = np.array([[1.0, 2.0, 5.0], [-1.0, -2.0, -5.0], [-1.0, 1.0, 0.0]], np.float32)
    q = fq.quantize(x, bits, axis=-1, scheme="asymmetric")
    assert q.zero_point.dtype == np.int32
    assert q.zero_point[:2].ravel().tolist() == [0, top]
    assert q.dequantize()[2, 2] == 0


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_error_is_half_a_step_inside_the_range(isa, bits, scheme, dtype, rng):
    x = rng.laplace(size=(6, 301)).astype(dtype)
    q = fq.quantize(x, bits, axis=-1, scheme=scheme)
    assert_within_half_a_step(x, q)


def assert_within_half_a_step(x, q):
    """At most half a step away, but for roundings: of x - offset, the quotient, the product and the sum."""
    scale, zero, offset = (np.float64(0) if p is None else spread(p, q).astype(np.float64) for p in
                           (q.scale, q.zero_point, q.offset))  # fmt: skip
    wide, back = x.astype(np.float64), q.dequantize().astype(np.float64)
    eps, tiny = np.finfo(x.dtype).eps, np.finfo(x.dtype).smallest_subnormal
    steps = (wide - offset) / scale + zero
    low, high = limits(q.bits, q.scheme)
    inside = (steps >= low - 0.5) & (steps <= high + 0.5)
    slack = 2 * eps * (np.abs(wide) + np.abs(back) + np.abs(offset)) + 2 * tiny
    assert inside.mean() > 0.5
    assert (np.abs(wide - back) <= scale / 2 + slack)[inside].all()


# Rounding


def test_ties_go_to_even(isa):
    steps = np.arange(-140, 140)
    x = ((steps + 0.5) * 0.25).astype(np.float32)
    even = np.where(steps % 2 == 0, steps, steps + 1)
    for axis, scale in ((None, 0.25), (-1, np.full((280, 1), 0.25)), (0, [[0.25]])):
        q = fq.quantize(x[:, None], axis=axis, scale=scale)
        assert np.array_equal(q.codes[:, 0], np.clip(even, -128, 127))
        q = fq.quantize(x[:, None], axis=axis, scale=scale, zero_point=101, scheme="asymmetric")
        assert np.array_equal(q.codes[:, 0], np.clip(even + 101, 0, 255))  # rounded before the zero point is added


def test_ties_go_to_even_with_a_chosen_scale(isa):
    x = np.array([1.5, 0.5, -0.5, -1.5, -2.5, 2.5, -3.0, 3.0] * 5, np.float64)
    q = fq.quantize(x, 3)
    assert q.scale == 1
    assert q.codes[:8].tolist() == [2, 0, 0, -2, -2, 2, -3, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_division_is_not_a_multiplication_by_the_reciprocal(isa, dtype, rng):
    scale = rng.uniform(0.01, 1, 200_000).astype(dtype)
    x = (rng.integers(-100, 100, scale.size) + 0.5).astype(dtype) * scale
    trap = np.rint(x * (1 / scale)) != np.rint(x / scale)
    assert trap.sum() > 1000
    x, scale = np.repeat(x[trap][:200, None], 37, axis=1), scale[trap][:200, None]
    for values, scales, axis in ((x, scale, -1), (np.ascontiguousarray(x.T), scale.T, 0)):
        codes = fq.quantize(values, axis=axis, scale=scales).codes
        assert np.array_equal(codes, np.rint(values / scales))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", ["smallest", "subnormal", "small", "ordinary", "large", "largest"])
def test_values_next_to_ties(isa, dtype, unit, rng):
    """Ties as near as the type can express them, and a few steps beside them, with scales of every size."""
    info = np.finfo(dtype)
    sizes = {"smallest": info.smallest_subnormal, "subnormal": info.tiny / 1000, "small": info.tiny * 2,
             "ordinary": 0.3, "large": info.max / 400, "largest": info.max / 3}  # fmt: skip
    scale = (sizes[unit] * rng.uniform(1, 3, (200, 1))).astype(dtype)
    with np.errstate(over="ignore"):  # of the largest units only the first few steps are numbers
        x = (np.arange(-129.5, 130).astype(dtype) * scale)[:, :, None]
        for _ in range(2):
            x = np.concatenate([np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)], axis=2)
    x = np.where(np.isfinite(x), x, 0).astype(dtype).reshape(200, -1)
    expected = np.clip(np.rint(x / scale), -128, 127)
    assert np.array_equal(fq.quantize(x, axis=-1, scale=scale).codes, expected)
    assert np.array_equal(fq.quantize(np.ascontiguousarray(x.T), axis=0, scale=scale.T).codes, expected.T)
    shifted = fq.quantize(x, axis=-1, scale=scale, zero_point=77, scheme="asymmetric")
    assert np.array_equal(shifted.codes, np.clip(np.rint(x / scale) + 77, 0, 255))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_finite_numbers(isa, scheme, dtype, data):
    """From subnormal to huge: codes are the expression, parameters the reference's."""
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 40)))
    width = np.dtype(dtype).itemsize * 8
    elements = st.floats(width=width, allow_nan=False, allow_infinity=False)
    x = data.draw(arrays(dtype, shape, elements=elements))
    form = {
        "bits": data.draw(st.integers(2, 8)),
        "axis": data.draw(st.sampled_from([None, 0, 1])),
        "scheme": scheme,
    }
    low, high = extremes(x, form["axis"], None)
    with np.errstate(over="ignore"):
        overflows = scheme == "affine" and not np.isfinite(high - low).all()
    if overflows:
        with pytest.raises(ValueError, match="max - min of affine data must be finite"):
            fq.quantize(x, **form)
        return
    q = fq.quantize(x, **form)
    assert np.array_equal(q.codes, documented_codes(x, q))
    assert (q.scale > 0).all()
    with instruction_set("reference"):
        plain = fq.quantize(x, **form)
    assert all(same(getattr(q, p), getattr(plain, p)) for p in ("scale", "zero_point", "offset"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_huge_numbers_stay_finite(isa, method, dtype, scheme):
    """The largest code of the largest number must not overflow on the way back."""
    top = np.finfo(dtype).max
    rows = [[top, 0], [0, -top], [top, top], [-top, -top], [top / 2, -top / 2]]
    rows += [] if scheme == "affine" else [[top, -top], [-top, top / 3]]  # max - min overflows: an error
    for bits in BITS:
        q = fq.quantize(np.array(rows, dtype), bits, axis=-1, scheme=scheme, method=method)
        with np.errstate(over="ignore"):
            assert np.isfinite(q.dequantize()).all(), bits


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_numbers_are_within_half_a_step(isa, dtype, bits, scheme):
    """Subnormal scales are rounded by much, and still reach the extremes."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.outer([1, 3, 90, 200, 1000, 2**20], [-1, 0, 0.5, 1]).astype(dtype) * tiny
    q = fq.quantize(x, bits, axis=-1, scheme=scheme)
    assert (q.scale > 0).all()
    assert np.array_equal(q.codes, documented_codes(x, q))
    # One subnormal is the spacing of these numbers: scale, offset and product are each rounded to it.
    steps = limits(bits, scheme)[1]
    assert (np.abs(x - q.dequantize()) <= q.scale / 2 + (steps + 2) * tiny).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_one_value(isa, dtype):
    values = np.array([0.0, -0.0, 3.5, -3.5], dtype)
    x = np.repeat(values[:, None], 33, axis=1)
    for bits in BITS:
        q = fq.quantize(x, bits, axis=-1)
        high = 2 ** (bits - 1) - 1
        assert q.scale.ravel().tolist() == [1, 1, dtype(3.5) / dtype(high), dtype(3.5) / dtype(high)]
        assert q.codes[:, 0].tolist() == [0, 0, high, -high]
        q = fq.quantize(x, bits, axis=-1, scheme="asymmetric")
        top = 2**bits - 1
        assert q.scale.ravel().tolist() == [1, 1, dtype(3.5) / dtype(top), dtype(3.5) / dtype(top)]
        assert q.zero_point.ravel().tolist() == [0, 0, 0, top]
        assert q.codes[:, 0].tolist() == [0, 0, top, 0]
        q = fq.quantize(x, bits, axis=-1, scheme="affine")
        assert q.scale.ravel().tolist() == [1, 1, 1, 1]
        assert not q.codes.any()
        assert np.array_equal(q.dequantize(), x)


# Types


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_types(isa, dtype, scheme, rng):
    """Narrow types are quantized in float32, wide ones in float64; floats keep their logical type."""
    wide = dtype in (np.float64, np.int32, np.int64)
    x = (rng.standard_normal((9, 40)) * 40).clip(-128 if dtype != np.uint8 else 0, 127).astype(dtype)
    work = x.astype(np.float64 if wide else np.float32)
    for axis, group in ((None, None), (0, None), (1, 16)):
        q = fq.quantize(x, 4, axis=axis, group_size=group, scheme=scheme, group_scale="float")
        scale, zero, _ = documented_parameters(work, 4, axis, group, scheme)
        assert same(q.scale, scale)
        assert zero is None or np.array_equal(q.zero_point, zero)
        assert np.array_equal(q.codes, documented_codes(work, q))
        assert q.dtype == (dtype if dtype in FLOATS else work.dtype)
        assert q.dequantize().dtype == q.dtype


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_integer_types(isa, dtype):
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0], dtype)
    q = fq.quantize(x)
    top = max(-int(info.min), int(info.max))
    assert q.scale[0] == q.scale.dtype.type(top) / 127
    assert q.codes.tolist() == [-127 if info.min else 0, 126 if dtype == np.int8 else 127, 0]  # 127 / (128 / 127)


def test_float64_is_not_rounded_to_float32(isa):
    x = np.array([1e300, -1e300, 1e299])
    q = fq.quantize(x)
    assert q.scale[0] == 1e300 / 127
    assert q.codes.tolist() == [127, -127, 13]


@pytest.mark.parametrize("values", [[1, 2, -3], (0.5, 2.0, -3.0), [[1, 2], [3, 4]]])
def test_sequences(isa, values):
    q = fq.quantize(values, 4)
    assert q.dtype == np.float64
    assert q.equals(fq.quantize(np.array(values, np.float64), 4))


# Memory


def strided(x):
    room = np.full((2 * x.shape[0], 3 * x.shape[1]), np.nan, x.dtype)  # what is read beside the slice shows
    view = room[::2, 1::3]
    view[...] = x
    return view


def unaligned(x):
    return np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "strided": strided,
    "rows apart": lambda x: np.concatenate([x, np.full_like(x, np.nan)], axis=1)[:, : x.shape[1]],
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
    "read-only": read_only,
    "unaligned": unaligned,
    "unaligned fortran": lambda x: unaligned(np.ascontiguousarray(x.T)).T,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_memory_layouts(isa, layout, dtype, rng):
    x = LAYOUTS[layout](rng.standard_normal((20, 33)).astype(dtype))
    plain = np.array(x, dtype, order="C")
    for scheme in SCHEMES:
        for axis, group in ((None, None), (0, None), (1, None), (0, 7), (1, 7)):
            form = {"axis": axis, "group_size": group, "scheme": scheme}
            q = fq.quantize(x, 4, **form)
            assert q.equals(fq.quantize(plain, 4, **form)), form
            assert q.dtype.isnative
            assert np.array_equal(x, plain)  # what came in is left as it was


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1), (2, 1, 0)])
def test_axes_in_any_order(isa, axes, rng):
    x = rng.standard_normal((6, 7, 20)).astype(np.float32).transpose(axes)
    for axis in (None, 0, 1, 2):
        group = None if axis is None else 4
        q = fq.quantize(x, 4, axis=axis, group_size=group, scheme="asymmetric")
        assert q.equals(fq.quantize(np.ascontiguousarray(x), 4, axis=axis, group_size=group, scheme="asymmetric"))


def test_memory_mapped(isa, tmp_path, rng):
    x = rng.standard_normal((20, 33)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for axis in (None, 0, 1):
        q = fq.quantize(np.load(tmp_path / "x.npy", mmap_mode="r"), 4, axis=axis)
        assert q.equals(fq.quantize(x, 4, axis=axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("own", [False, True])
def test_the_result_keeps_nothing_of_the_input(isa, dtype, own):
    x, scale = np.array([[1, -2], [3, -4]], dtype), np.full((1, 1), 0.5, dtype)
    q = fq.quantize(x, 4, scale=scale if own else None)
    before = q.dequantize()
    x[...], scale[...] = 9, 9
    assert np.array_equal(q.dequantize(), before)


# Sizes


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3), (0, 0)])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_empty_arrays(isa, shape, scheme, method):
    x = np.empty(shape, np.float32)
    for axis in (None, *range(len(shape))):
        for group in (None,) if axis is None else (None, 2):
            q = fq.quantize(x, 4, axis=axis, group_size=group, scheme=scheme, method=method)
            assert q.codes.shape == q.dequantize().shape == shape
            if group is None:
                assert q.scale.shape == np.max(x, axis=axis, keepdims=True, initial=0).shape


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_single_numbers(isa, method):
    for x in (np.float32(-2.5), np.array(-2.5, np.float32), np.array([-2.5], np.float32)):
        q = fq.quantize(x, 4, method=method)
        assert q.shape == q.scale.shape == np.shape(x)
        assert q.scheme == "symmetric"
        assert abs(q.dequantize() - x) <= 2.5 * np.finfo(np.float32).eps
    for scheme in SCHEMES:
        q = fq.quantize(np.float32(-2.5), 4, scheme=scheme, method=method)
        assert q.codes.shape == q.dequantize().shape == ()


# Parameters of one's own


def test_own_scale(isa, rng):
    x = rng.standard_normal((20, 33)).astype(np.float32)
    for axis, group in ((None, None), (0, None), (1, None), (0, 7), (1, 7)):
        shape = fq.quantize(x, 4, axis=axis, group_size=group).scale.shape
        scale = rng.uniform(0.05, 0.5, shape) * rng.choice([-1, 1], shape)
        q = fq.quantize(x, 4, axis=axis, group_size=group, scale=scale)
        assert np.array_equal(q.scale, scale.astype(np.float32))
        assert np.array_equal(q.codes, documented_codes(x, q))
        assert np.array_equal(fq.quantize(x, 4, axis=axis, group_size=group, scale=scale, zero_point=0).codes, q.codes)


def test_own_scale_and_zero_point(isa, rng):
    x = rng.standard_normal((20, 33)).astype(np.float32)
    for axis, group in ((None, None), (0, None), (1, None), (0, 7), (1, 7)):
        shape = fq.quantize(x, 4, axis=axis, group_size=group).scale.shape
        scale, zero = rng.uniform(0.05, 0.5, shape), rng.integers(0, 16, shape)
        q = fq.quantize(x, 4, axis=axis, group_size=group, scale=scale, zero_point=zero, scheme="asymmetric")
        assert np.array_equal(q.zero_point, zero)
        assert q.zero_point.dtype == np.int32
        assert np.array_equal(q.codes, documented_codes(x, q))


@pytest.mark.parametrize("order", ["C", "F"])
def test_own_parameters_broadcast(isa, order, rng):
    x = np.array(rng.standard_normal((6, 9)), np.float32, order=order)
    q = fq.quantize(x, axis=0, scale=0.25, zero_point=100, scheme="asymmetric")
    assert q.scale.shape == q.zero_point.shape == (1, 9)
    assert np.array_equal(q.codes, np.clip(np.rint(x / np.float32(0.25)) + 100, 0, 255))
    scale = rng.uniform(0.1, 1, 9).astype(np.float32)
    q = fq.quantize(x, axis=0, scale=scale)
    assert np.array_equal(q.scale, scale[None])
    assert np.array_equal(q.codes, np.clip(np.rint(x / scale), -128, 127))


def test_own_scale_may_be_far_too_small(isa):
    x = np.array([1e30, -1e30, 0], np.float32)
    assert fq.quantize(x, scale=1e-20).codes.tolist() == [127, -128, 0]
    q = fq.quantize(x, scale=1e-20, zero_point=7, scheme="asymmetric")
    assert q.codes.tolist() == [255, 0, 7]


# What is not finite

BAD = {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf}
OWN = {"minmax": {}, "mse": {"method": "mse"}, "own scale": {"scale": 0.1}}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_not_finite_is_counted_and_located(isa, bad, own, order):
    x = np.ones((20, 33), np.float32, order=order)
    x[13, 5] = x[17, 2] = BAD[bad]
    for axis in (None, 0, 1):
        with pytest.raises(fq.NotFiniteError, match=r"2 of 660 values .* first at index \(13, 5\)"):
            fq.quantize(x, axis=axis, **OWN[own])


@pytest.mark.parametrize("place", [(0, 0), (0, 32), (19, 31), (19, 32)])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_place_is_overlooked(isa, place, scheme, dtype):
    x = np.ones((20, 33), dtype)
    for value in BAD.values():
        x[place] = value
        for axis, group in ((None, None), (0, None), (1, None), (0, 16), (1, 16)):
            with pytest.raises(fq.NotFiniteError, match=rf"1 of 660 .* index \({place[0]}, {place[1]}\)"):
                fq.quantize(x, axis=axis, group_size=group, scheme=scheme)


# Searched scales

SAMPLES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "one-sided": lambda rng, n: rng.gamma(2, size=n) + 3,
    "outlier": lambda rng, n: np.concatenate([rng.standard_normal(n - 1), [40]]),
    "few values": lambda rng, n: rng.choice([-1.0, 0.0, 2.0], n),
    "constant": lambda rng, n: np.full(n, -0.3),
    "zero": lambda rng, n: np.zeros(n),
    "huge": lambda rng, n: rng.standard_normal(n) * 1e37,
    "tiny": lambda rng, n: rng.standard_normal(n) * 1e-40,
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", BITS)
def test_a_searched_scale_is_never_worse(isa, scheme, bits, rng):
    n = 90
    x = np.stack([draw(rng, n) for draw in SAMPLES.values()]).astype(np.float32)
    searched = fq.quantize(x, bits, axis=-1, scheme=scheme, method="mse")
    plain = fq.quantize(x, bits, axis=-1, scheme=scheme)
    assert np.array_equal(searched.codes, documented_codes(x, searched))
    # The search compares sums of n squares in float32, of differences that are each rounded to x's precision.
    eps = np.finfo(np.float32).eps
    allowed = fq.error(x, plain, axis=-1).l2 * (1 + n * eps) + 2 * eps * np.linalg.norm(x.astype(np.float64), axis=-1)
    assert (fq.error(x, searched, axis=-1).l2 <= allowed).all()


@pytest.mark.parametrize(("scheme", "decibels"), [("symmetric", 13.8), ("asymmetric", 13.8), ("affine", 14.1)])
def test_a_searched_scale_is_as_good_as_known(isa, scheme, decibels, rng):
    """Three bits on Gaussian data: a uniform quantizer of 8 levels cannot do better than 14.27 dB (Max, 1960)."""
    x = rng.standard_normal((4096, 16)).astype(np.float32)
    q = fq.quantize(x, 3, axis=0, scheme=scheme, method="mse")
    found = fq.error(x, q).sqnr_db
    assert decibels <= found <= 14.4
    assert fq.error(x, fq.quantize(x, 3, axis=0, scheme=scheme)).sqnr_db < found - 1


@pytest.mark.parametrize("bits", range(2, 8))  # at 8 bits one step more is less than the grid of the search resolves
def test_a_searched_scale_is_negative_where_that_helps(isa, bits):
    """Codes reach one step further down than up; so data that reach further up are held upside down."""
    steps = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.float32)
    x = np.stack([-0.5 * steps, 0.5 * steps])
    q = fq.quantize(x, bits, axis=-1, method="mse")
    assert q.scale[0, 0] < 0 < q.scale[1, 0]
    assert fq.error(x, q).max_abs <= np.finfo(np.float32).eps * np.abs(x).max()


@pytest.mark.parametrize("isa", NATIVE, indirect=True)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_searched_scale_is_the_same_everywhere(isa, scheme, dtype, rng):
    x = np.stack([draw(rng, 45) for draw in SAMPLES.values()]).astype(dtype)
    for axis, group in ((None, None), (0, None), (1, None), (1, 20)):
        form = {"bits": 3, "axis": axis, "group_size": group, "scheme": scheme, "method": "mse"}
        q = fq.quantize(x, **form)
        with instruction_set("reference"):
            assert q.equals(fq.quantize(x, **form)), form


def test_a_searched_scale_does_not_depend_on_memory_order(isa, rng):
    x = rng.standard_normal((20, 24)).astype(np.float32)
    for axis, group in ((0, None), (1, None), (0, 7)):
        form = {"bits": 3, "axis": axis, "group_size": group, "method": "mse"}
        assert fq.quantize(np.asfortranarray(x), **form).equals(fq.quantize(x, **form))


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_offsets_are_never_negative_zeros(isa, axis, dtype):
    """Which of -0.0 and 0.0 is the smaller one depends on the instruction; equal bits must not."""
    for x in ([[0.0, -0.0], [-0.0, 0.0]], [[-0.0, -0.0], [-0.0, -0.0]], [[-0.0, 1.0], [2.0, -0.0]]):
        offset = fq.quantize(np.array(x, dtype), 2, axis=axis, scheme="affine").offset
        assert not np.signbit(offset).any()


def unaligned(array):
    """A copy that does not begin at a multiple of its elements' size."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    assert not room.flags.aligned
    return room


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_arrays_that_are_not_aligned(isa, rng, axis, dtype):
    """Slices of structured arrays and of buffers are not."""
    x = rng.standard_normal((48, 8)).astype(dtype)
    seen = rng.standard_normal((200, 48)).cumsum(axis=1)
    forms = [{"method": method} for method in ("minmax", "mse", "percentile")]
    forms += [{"scheme": "affine", "method": "mse"}, {"scale": x[:1, :1] ** 2 + 1}]
    if axis == 0:
        forms += [{"group_size": 16, "method": "mse"}, {"method": "gptq", "calibration": seen}]
        forms += [{"balance": np.linspace(1, 2, 48), "rotate": True}]
    for form in forms:
        odd = {name: unaligned(v) if isinstance(v, np.ndarray) else v for name, v in form.items()}
        assert fq.quantize(unaligned(x), 4, axis=axis, **odd).equals(fq.quantize(x, 4, axis=axis, **form))


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
def test_methods_take_any_order_of_axes(isa, rng, method):
    """Extremes of such an array are not contiguous either."""
    x = rng.standard_normal((7, 2, 20), np.float32).swapaxes(0, 1)
    for axis in (0, 1, 2, None):
        q = fq.quantize(x, 4, axis=axis, method=method)
        assert q.equals(fq.quantize(np.ascontiguousarray(x), 4, axis=axis, method=method))
