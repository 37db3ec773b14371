"""from_parts and parts: quantized arrays of codes and parameters that exist already, and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.products import repeated
from fastq.quant.spec import expand

SCHEMES = ("symmetric", "asymmetric", "affine")
FORMS = [
    {}, {"axis": 0}, {"axis": 1}, {"axis": 0, "group_size": 32}, {"axis": 1, "group_size": 7},
    {"axis": 0, "group_size": 48, "group_scale": "float"}, {"axis": 1, "group_size": 1000},
    {"axis": 0, "balance": np.geomspace(0.1, 10, 64)}, {"axis": 1, "rotate": True}, {"axis": 0, "rotate": True},
]  # fmt: skip


def equation(codes, scale, zero_point=None, offset=None, axis=-1, group_size=None):
    """What the numbers are, in NumPy."""
    shape, axis = codes.shape, axis % codes.ndim
    scale, zero_point, offset = (
        p if p is None else expand(p, shape, axis, group_size) for p in (scale, zero_point, offset)
    )
    if offset is not None:
        return scale * codes.astype(scale.dtype) + offset
    return scale * (codes.astype(scale.dtype) - (0 if zero_point is None else zero_point.astype(scale.dtype)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_parts_make_the_array_anew(rng, bits, scheme):
    for shape in ((64, 48), (3, 64, 48)):
        x = rng.standard_normal(shape).astype(np.float32)
        for number, form in enumerate(FORMS):
            form = {name: value - 2 if name == "axis" else value for name, value in form.items()}
            if "balance" in form:
                form["balance"] = form["balance"].reshape((1,) * (len(shape) - 2) + (64, 1))
            if form.get("group_scale") == "integer" and scheme == "affine":
                continue
            q = fq.quantize(x, bits, scheme=scheme, **form)
            beside = q[..., 1:17, :] if q.axis == q.ndim - 1 else q[..., 1:17]
            if number % 2:
                q.prepack()
            for other in (q, q.mT, beside, q.astype(np.float64), -q, q * 0, q.with_activations("group")):
                for packed in (False, True):
                    parts = other.parts(packed=packed)
                    made = fq.from_parts(**parts)
                    assert made.equals(other), (form, packed)
                    assert (made.activations, made.scheme) == (other.activations, other.scheme)
    assert set(fq.quantize([1.0, 2.0]).parts()) == {"codes", "scale", "bits", "axis", "dtype"}


@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (0, 3), (3, 0), (2, 3, 4, 5), (1, 1)])
def test_shapes(rng, shape):
    x = rng.standard_normal(shape)
    for scheme in SCHEMES:
        for axis in (None, *range(len(shape))):
            for group in (None, 2) if axis is not None else (None,):
                q = fq.quantize(x, 5, axis=axis, scheme=scheme, group_size=group)
                for packed in (False, True):
                    assert fq.from_parts(**q.parts(packed=packed)).equals(q)
    for name in ("float16", "bfloat16", "float32", "float64"):
        q = fq.quantize(x.astype(np.dtype(getattr(ml_dtypes, name, name))))
        assert q.parts()["dtype"] == name
        assert fq.from_parts(**q.parts()).equals(q)


def test_the_equation(rng):
    for bits in (2, 4, 8):
        codes = rng.integers(0, 2**bits, (60, 10))
        for group in (None, 16, 13):
            count = 1 if group is None else -(-60 // group)
            scale = rng.standard_normal((count, 10)).astype(np.float16)  # negative ones, too
            zero = rng.integers(0, 2**bits, scale.shape)
            offset = rng.standard_normal(scale.shape).astype(np.float32)
            form = {"axis": 0, "group_size": group}
            x = rng.standard_normal((3, 60)).astype(np.float32)
            for given in ({}, {"zero_point": zero}, {"offset": offset}):
                low = 0 if given else 2 ** (bits - 1)
                q = fq.from_parts(codes - low, scale, bits=bits, **given, **form)
                assert (q.dtype, q.scale.dtype) == (np.float16, np.float32)
                exact = equation(codes - low, scale.astype(np.float32), **given, **form)
                assert np.array_equal(q.dequantize(np.float32), exact)
                assert np.array_equal(q.dequantize(), exact.astype(np.float16))
                bound = fq.matmul_error_bound(x, q)
                assert (np.abs(x.astype(float) @ exact.astype(float) - (x @ q)) <= bound).all()


@pytest.mark.parametrize("word", [np.uint8, np.int32, np.uint32, np.dtype(">i4")])
def test_streams_of_words(rng, word):
    for bits in (3, 4, 6):
        codes = rng.integers(0, 2**bits, (7, 37)).astype(np.uint8)
        for axis in (0, 1):
            bytes_of_lines = fq.from_parts(codes, 1.0, bits=bits, zero_point=0, axis=axis).parts(packed=True)["codes"]
            lines = np.moveaxis(bytes_of_lines, axis, -1)
            size = np.dtype(word).itemsize
            padded = np.zeros((len(lines), -(-lines.shape[1] // size) * size), np.uint8)
            padded[:, : lines.shape[1]] = lines
            words = np.moveaxis(padded.view(np.dtype(word).newbyteorder("<")).astype(word), -1, axis)
            q = fq.from_parts(words, 1.0, bits=bits, zero_point=0, axis=axis, packed=True, shape=(7, 37))
            assert np.array_equal(q.codes, codes)
            symmetric = fq.from_parts(words, 1.0, bits=bits, axis=axis, packed=True, shape=[7, 37])
            assert np.array_equal(symmetric.codes, codes.astype(int) - 2 ** (bits - 1))


def test_a_length_that_words_leave_no_choice():
    q = fq.from_parts(np.array([[1, 255]], np.uint8), 1.0, bits=8, zero_point=0, packed=True)
    assert (q.shape, q.codes.tolist()) == ((1, 2), [[1, 255]])
    with pytest.raises(
        ValueError, match=r"shape must be given, because from 1 to 8 codes of 4 bits take 1 words of 32"
    ):
        fq.from_parts(np.zeros((3, 1), np.int32), 1.0, bits=4, packed=True)


def test_signed_codes_with_zero_points(rng):
    codes, zero = rng.integers(-128, 128, (6, 5)).astype(np.int8), rng.integers(-128, 128, (6, 1)).astype(np.int8)
    q = fq.from_parts(codes, 0.5, bits=8, zero_point=zero)
    assert np.array_equal(q.dequantize(), 0.5 * (codes.astype(float) - zero))
    assert (q.codes.dtype, q.zero_point.min() >= 0) == (np.uint8, True)
    small = codes.clip(0, 7)
    assert np.array_equal(fq.from_parts(small, 0.5, bits=3, zero_point=3).codes, small)
    half = fq.from_parts([[-4, 3]], 1.0, bits=3, zero_point=np.int8(-4))
    assert (half.codes.tolist(), half.zero_point.tolist(), half.dequantize().tolist()) == ([[0, 7]], [[0]], [[0, 7]])
    with pytest.raises(ValueError, match=r"^codes must be from -4 to 3, got 4"):
        fq.from_parts([[-4, 4]], 1.0, bits=3, zero_point=0)


def test_small_integers_of_ml_dtypes():
    for kind in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2):
        codes = np.array([[0, 1], [1, -1 if kind in (ml_dtypes.int4, ml_dtypes.int2) else 3]]).astype(kind)
        bits = 4 if "4" in kind.__name__ else 2
        q = fq.from_parts(codes, 2.0, bits=bits, zero_point=codes[:, :1])
        assert np.array_equal(q.dequantize(), 2.0 * (codes.astype(float) - codes[:, :1].astype(float)))


def test_types():
    codes = np.ones((2, 3), np.int8)
    for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ">f4"):
        scale = np.array(0.1).astype(kind)
        q = fq.from_parts(codes, scale, bits=4)
        assert q.dtype == np.dtype(kind).newbyteorder("=")
        assert q.scale.dtype == (np.float64 if kind is np.float64 else np.float32)
        assert q.scale[0, 0] == scale
    assert fq.from_parts(codes, 0.1, bits=4, dtype="bfloat16").dtype == ml_dtypes.bfloat16
    assert fq.from_parts(codes, 1, bits=4).dtype == np.float64
    both = fq.from_parts(np.ones((2, 3), int), np.float32(0.1), bits=4, offset=0.1)
    assert (both.scale.dtype, both.offset.dtype) == (np.float32, np.float32)
    both = fq.from_parts(np.ones((2, 3), int), np.float32(0.1), bits=4, offset=np.array(0.1))
    assert (both.scale.dtype, both.offset.dtype, both.dtype) == (np.float64, np.float64, np.float32)


def test_memory():
    """Codes of the right type stay where they are, be they strided; parameters are copied."""
    codes, scale = np.zeros((64, 32), np.int8), np.ones((1, 32))
    for some in (codes, codes.T, codes[::2, ::-3]):
        q = fq.from_parts(some, 1.0, bits=4)
        assert np.shares_memory(q.codes, codes)
        assert np.array_equal(np.ones((1, some.shape[0])) @ fq.from_parts(some, 1.0, bits=4, axis=0), some.sum(0)[None])
    q = fq.from_parts(codes, scale, bits=4, axis=0)
    assert not np.shares_memory(q.scale, scale)
    assert not q.codes.flags.writeable
    spread = fq.from_parts(np.broadcast_to(np.int8(3), (40, 20)), 1.0, bits=4, axis=0)
    assert np.array_equal(np.ones((2, 40), np.float32) @ spread, np.full((2, 20), 120, np.float32))


def test_integer_group_scales(rng):
    q = fq.quantize(rng.standard_normal((64, 20)), 4, axis=0, group_size=16, scheme="asymmetric")
    parts = q.parts()
    assert parts["scale"].shape == (1, 20)
    assert parts["group_scale"].dtype == np.int8
    form = {"bits": 4, "axis": 0, "group_size": 16}
    codes = np.full((32, 2), 15)
    made = fq.from_parts(codes, 0.5, group_scale=8, zero_point=7, **form)
    assert np.array_equal(made.dequantize(), np.full((32, 2), 0.5 * 8 * 8))
    x = rng.standard_normal((3, 32)).astype(np.float32)
    assert (np.abs(x @ made - x @ np.full((32, 2), 32.0)) <= fq.matmul_error_bound(x, made)).all()
    for given, words in (
        ({"group_scale": 17}, r"^group_scale must be from -16 to 16, got 17"),
        ({"group_scale": 0}, r"must not be 0; got 0"),
        ({"group_scale": -2, "zero_point": 7}, r"^group_scale must be positive where there is a zero_point; got -2"),
        ({"group_scale": 16, "zero_point": 7}, r"^group_scale \* \(codes - zero_point\) must fit int8; got 128"),
        ({"group_scale": 10, "zero_point": 1}, r"^group_scale \* \(codes - zero_point\) must fit int8; got 140"),
        ({"group_scale": 1, "offset": 1.0}, r"^integer group scales need a group_size .* no affine scheme"),
        ({"group_scale": 1, "group_size": 8}, r"^integer group scales need a group_size that is a multiple of 16"),
        ({"group_scale": 1, "scale": np.ones((2, 2))}, r"^scale must have one entry per run .* shape \(1, 2\)"),
    ):
        arguments = {**form, "scale": 0.5, **given}
        with pytest.raises(ValueError, match=words):
            fq.from_parts(codes - (0 if "zero_point" in given or "offset" in given else 8), **arguments)


def test_products_repeat_as_those_of_own_arrays(rng):
    """The same codes and parameters are the same operands: same kernels, same bits, and they repeat."""
    w, x = rng.standard_normal((96, 40)).astype(np.float32), rng.standard_normal((5, 96)).astype(np.float32)
    for form in ({"bits": 8}, {"bits": 4, "group_size": 32, "group_scale": "float", "scheme": "affine"}):
        q = fq.quantize(w, axis=0, **form)
        for packed in (False, True):
            made = fq.from_parts(**q.parts(packed=packed))
            assert np.array_equal(x @ made, x @ q)
            own, ours = (next(iter(a.ready.values())) for a in (q, made))
            assert own.plan == ours.plan
            assert own.right.k_segments == ours.right.k_segments
            assert np.array_equal(repeated.again(x, made, None, None, (None, None, None)), x @ q)


CODES = np.arange(6, dtype=np.int8).reshape(2, 3)
WRONG = {
    "a code too large": ({"codes": CODES + 3}, ValueError, r"^codes must be from -8 to 7, got 8 with bits=4"),
    "a code too small": ({"codes": [[-1, 0, 300]], "offset": 1.0}, ValueError, r"^codes must be from 0 to 15, got -1"),
    "wide codes": ({"codes": np.array([[2**63]], np.uint64), "offset": 1}, ValueError, r"^codes must be .*, got 922"),
    "floats": ({"codes": CODES * 1.0}, TypeError, r"^codes must be of integers, got dtype float64"),
    "bools": ({"codes": CODES > 2}, TypeError, r"^codes must be of integers, got dtype bool"),
    "no sign": ({"codes": CODES.astype(np.uint8)}, TypeError, r"^symmetric codes must be of a signed type, got dtype"),
    "NaN": ({"scale": np.nan}, ValueError, r"^scale must be finite; got NaN or infinity"),
    "infinity": ({"scale": [[1.0], [-np.inf]]}, ValueError, r"^scale must be finite"),
    "text": ({"scale": "x"}, TypeError, r"^scale must be of real numbers .*, got dtype <U1"),
    "scale by column": ({"scale": np.ones((1, 3))}, ValueError, r"^scale must have one entry .* shape \(2, 1\)"),
    "offset NaN": ({"offset": np.nan}, ValueError, r"^offset must be finite"),
    "offset's shape": ({"offset": np.ones(3)}, ValueError, r"^offset must have one entry per run"),
    "both": ({"offset": 1.0, "zero_point": 1}, ValueError, r"^zero_point and offset must not both be given"),
    "zero point": ({"zero_point": 16}, ValueError, r"^zero_point must be from 0 to 15, got 16, no code; pass offset="),
    "zero point below": ({"zero_point": -9}, ValueError, r"^zero_point must be from -8 to 7, got -9"),
    "zero point's type": ({"zero_point": 0.5}, TypeError, r"^zero_point must be of integers, got dtype float64"),
    "zero point's shape": ({"zero_point": [1, 2, 3]}, ValueError, r"^zero_point must have one entry per run"),
    "bits": ({"bits": 9}, ValueError, r"^bits must be from 2 to 8, got 9"),
    "axis": ({"axis": 2}, ValueError, r"^axis must be from -2 to 1"),
    "group without axis": ({"axis": None, "group_size": 2}, ValueError, r"^group_size needs an axis"),
    "ragged": ({"group_size": 2, "scale": np.ones((3, 1))}, ValueError, r"^scale must .*\(2, 2\); got shape \(3, 1\)"),
    "group_size": ({"group_size": 0}, ValueError, r"^group_size must be a positive integer"),
    "shape": ({"shape": (3, 2)}, ValueError, r"^shape must be that of codes, \(2, 3\); got \(3, 2\)"),
    "shape of floats": ({"shape": (2.0, 3)}, TypeError, r"^shape must be a tuple of lengths, got 2\.0"),
    "packed, of any length": (
        {"packed": True, "codes": CODES.astype(np.int32)}, ValueError, r"^shape must be given, because from 17 to 24",
    ),
    "packed words": ({"packed": True, "shape": (2, 3)}, TypeError, r"^codes must be words of uint8, int32, uint32"),
    "packed, too few": (
        {"packed": True, "codes": CODES.astype(np.uint8)[:, :1], "shape": (2, 3)},
        ValueError, r"^packed codes must be a stream of 4 bits .* of shape \(2, 2\); got uint8 of shape \(2, 1\)",
    ),
    "packed, too many": (
        {"packed": True, "codes": CODES.astype(np.int32), "shape": (2, 3)}, ValueError, r"words of shape \(2, 1\); got",
    ),
    "packed, other axes": (
        {"packed": True, "codes": CODES.astype(np.int32), "shape": (2, 2, 3)}, ValueError, r"^packed codes must be a",
    ),
    "packed, no length": (
        {"packed": True, "codes": CODES.astype(np.int32), "shape": (-2, 3)}, ValueError, r"^packed codes must be a",
    ),
    "packed, vast": (
        {"packed": True, "codes": CODES.astype(np.int32), "shape": (2, 10**30)}, ValueError, r"^packed codes must be",
    ),
    "a single word": ({"packed": True, "codes": np.uint8(3)}, ValueError, r"^codes must have an axis along which"),
    "order": ({"order": [0, 1, 1]}, ValueError, r"^order must be a permutation, each number below 3 once"),
    "order's length": ({"order": [1, 0]}, ValueError, r"^order must have one entry per element of axis 1, shape"),
    "order's type": ({"order": [1.0, 0, 2]}, TypeError, r"^order must be of integers"),
    "order without axis": ({"order": [1, 0, 2], "axis": None}, ValueError, r"^order needs the axis along"),
    "wide order": ({"order": np.array([2**64 - 1, 0, 1], np.uint64)}, ValueError, r"^order must be a permutation"),
    "balance": ({"balance": [1, 0, 2]}, ValueError, r"^balance must be positive"),
    "balance's shape": ({"balance": [1, 2]}, ValueError, r"^balance must have one entry per element"),
    "balance without axis": ({"balance": [1, 2, 3], "axis": None}, ValueError, r"^balance needs the axis"),
    "rotation": ({"rotation": 2}, ValueError, r"rotation must be a power of two that divides the axis"),
    "rotation without axis": ({"rotation": 16, "axis": None}, ValueError, r"needs the axis along which it lies"),
    "dtype": ({"dtype": np.int8}, TypeError, r"^dtype must be one of float16, bfloat16, float32, float64, got"),
    "activations": ({"activations": "column"}, ValueError, r"^activations must be one of 'row'"),
}  # fmt: skip


def from_wrong(given):
    return fq.from_parts(**{"codes": CODES, "scale": np.ones((1, 1)), "bits": 4, **given})


@pytest.mark.parametrize("case", WRONG)
def test_errors(case):
    given, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        from_wrong(given)


def test_zero_points_that_are_no_codes_are_exact_offsets(rng):
    """As the message says: GPTQ's first version may give 2**bits, which float16 scales turn into exact offsets."""
    codes, zero = rng.integers(0, 16, (64, 8)), np.full((2, 8), 16)
    scale = rng.standard_normal((2, 8)).astype(np.float16)
    with pytest.raises(ValueError, match=r"pass offset=-scale \* zero_point"):
        fq.from_parts(codes, scale, bits=4, zero_point=zero, axis=0, group_size=32)
    wide = scale.astype(np.float32)
    q = fq.from_parts(codes, scale, bits=4, offset=-wide * zero, axis=0, group_size=32)
    assert np.array_equal(q.dequantize(np.float32), np.repeat(wide, 32, 0) * (codes - 16).astype(np.float32))
