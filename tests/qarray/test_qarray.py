"""QArray: an immutable array that keeps its codes once, and turns back into numbers only when told to."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import pickle
import random
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import fastq as fq

SCHEMES = ("symmetric", "asymmetric", "affine")
BITS = range(2, 9)
PARAMETERS = ("scale", "zero_point", "offset")


@pytest.fixture
def w(rng):
    return rng.standard_normal((70, 37)).astype(np.float32)


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, 70)).astype(np.float32)


def spread(values, q):
    """A parameter of q for each element of its array."""
    if values is None or q.group_size is None:
        return values
    return np.repeat(values, q.group_size, axis=q.axis).take(range(q.shape[q.axis]), axis=q.axis)


def numbers(q):
    """What q stands for, by the documented expression in the scale's type."""
    scale, zero, offset = (spread(getattr(q, p), q) for p in PARAMETERS)
    codes = q.codes.astype(scale.dtype)
    if offset is not None:
        return scale * codes + offset
    return scale * (codes if zero is None else codes - zero.astype(scale.dtype))


# What it is


def test_attributes(w):
    q = fq.quantize(w, 3, axis=0, group_size=32, scheme="asymmetric")
    assert (q.shape, q.ndim, q.size, len(q)) == ((70, 37), 2, 70 * 37, 70)
    assert (q.bits, q.scheme, q.axis, q.group_size, q.dtype) == (3, "asymmetric", 0, 32, np.float32)
    assert q.scale.shape == q.zero_point.shape == (3, 37)
    assert q.offset is None
    assert isinstance(q.dtype, np.dtype)


@pytest.mark.parametrize(
    ("scheme", "has"), [("symmetric", ()), ("asymmetric", ("zero_point",)), ("affine", ("offset",))]
)
def test_parameters_by_scheme(w, scheme, has):
    q = fq.quantize(w, scheme=scheme)
    assert {p for p in ("zero_point", "offset") if getattr(q, p) is not None} == set(has)


@pytest.mark.parametrize("name", ["shape", "bits", "scale", "codes", "dtype", "scheme", "axis", "_store", "new"])
def test_immutable(w, name):
    q = fq.quantize(w)
    with pytest.raises(AttributeError, match=f"a QArray is immutable; cannot set '{name}'"):
        setattr(q, name, 1)
    with pytest.raises(AttributeError, match="immutable"):
        delattr(q, name)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_arrays_are_read_only(isa, w, scheme, packed):
    q = fq.quantize(w, 4, axis=0, scheme=scheme)
    q = q.prepack() if packed else q
    for turned in (q, q.T):
        for name in ("codes", *PARAMETERS):
            array = getattr(turned, name)
            assert array is None or not array.flags.writeable
            if array is not None:
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0


def test_dir_has_public_members_only(w):
    names = dir(fq.quantize(w, axis=0))
    hidden = [
        "lines",
        "matrix",
        "rows_of",
        "ready",
        "columns",
        "right",
        "promoted",
        "codes_of",
        "balance_along",
        "rows",
    ]
    assert not set(hidden) & set(names)
    assert not [name for name in names if name.startswith("_") and not name.startswith("__")]
    assert {"T", "mT", "codes", "dequantize", "dtype", "scale", "shape", "__matmul__"} <= set(names)


def test_not_made_by_hand():
    with pytest.raises(TypeError, match=r"made by fastq\.quantize"):
        fq.QArray(np.ones(3), 8)


def test_length_is_that_of_the_first_axis():
    assert len(fq.quantize(np.ones((4, 3)))) == 4
    with pytest.raises(TypeError, match="unsized"):
        len(fq.quantize(1.0))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "8 bits, symmetric, one scale, dtype=float32"),
        ({"bits": 3, "axis": 0, "scheme": "affine"}, "3 bits, affine, axis=0, dtype=float32"),
        ({"bits": 4, "axis": -1, "group_size": 8}, "4 bits, symmetric, axis=1, group_size=8, dtype=float32"),
    ],
)
def test_repr_tells_the_form(w, form, words):
    q = fq.quantize(w, **form)
    assert repr(q).startswith(f"QArray(shape=(70, 37), {words}, ")
    assert re.search(r", [\d.]+ KiB(, [\d.]+ KiB once packed)?\)$", repr(q))


def test_repr_tells_the_size():
    for n, words in ((100, "104 B"), (3000, "2.9 KiB"), (2 << 20, "2.0 MiB")):
        assert repr(fq.quantize(np.zeros(n, np.float32))).endswith(f"{words})")


@pytest.mark.parametrize("form", [
    {"axis": 0}, {"axis": -1}, {}, {"axis": 0, "group_size": 16}, {"axis": 0, "group_size": 7, "scheme": "affine"},
    {"axis": 0, "group_size": 32, "scheme": "asymmetric"}, {"axis": 0, "balance": np.full(70, 2.0)},
    {"axis": 0, "group_scale": "float", "group_size": 16}, {"axis": -2, "scheme": "asymmetric"},
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_repr_tells_what_it_will_take(rng, form, dtype, bits):
    """And then it does, in the orientation that the axis is for."""
    x = rng.standard_normal((3, 70, 37)).astype(dtype)
    for array in (x, x[0]):
        axis = form.get("axis")
        q = fq.quantize(array, bits, **{**form, "axis": axis if axis != 0 else -2})
        told = repr(q)
        assert re.search(r"KiB, ([\d.]+ [KM]?i?B) once packed\)$", told)
        (q.mT if axis == -1 else q).prepack()
        assert repr(q) == re.sub(r"[^,]*, ([^,]*) once packed", r" \1", told)


def test_repr_tells_of_packing_where_it_matters():
    for q in (fq.quantize(np.ones((64, 64))), fq.quantize(np.ones(64), 3), fq.quantize(np.ones((0, 3)), 3)):
        assert "packed" not in repr(q)


# Back to numbers


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", BITS)
def test_dequantize_is_the_documented_expression(isa, w, bits, scheme, packed):
    for axis, group in ((None, None), (0, None), (0, 10), (0, 32), (1, None), (1, 10)):
        q = fq.quantize(w, bits, axis=axis, group_size=group, scheme=scheme)
        expected = numbers(q)
        if packed:
            q = (q if axis != 1 else q.T).prepack()
            expected = expected if axis != 1 else expected.T
        assert np.array_equal(q.dequantize(), expected)
        assert np.array_equal(fq.dequantize(q), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_dequantize_to_a_type(isa, w, dtype):
    q = fq.quantize(w, 5, axis=0, scheme="affine")
    expected = numbers(q).astype(dtype)
    for given in (q.dequantize(dtype), fq.dequantize(q, dtype), q.dequantize(np.dtype(dtype))):
        assert given.dtype == dtype
        assert np.array_equal(given, expected)
    out = np.empty(q.shape, dtype)
    assert q.dequantize(out=out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(fq.dequantize(q, out=out[...]), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_dequantize_gives_the_type_that_was_quantized(isa, w, dtype):
    q = fq.quantize(w.astype(dtype), 5, axis=0)
    assert q.dequantize().dtype == q.dtype == dtype


def test_dequantize_into_strided_memory(isa, w):
    for scheme in SCHEMES:
        q = fq.quantize(w, 5, axis=0, scheme=scheme)
        room = np.full((140, 111), 7, np.float32)
        for out in (room[::2, ::3], np.empty((37, 70), np.float32).T, np.empty(w.shape, np.float32)[::-1]):
            assert q.dequantize(out=out) is out
            assert np.array_equal(out, numbers(q))
        assert (room[1::2] == 7).all()


def test_not_converted_silently(w):
    q = fq.quantize(w)
    for convert in (np.asarray, np.array, lambda q: np.asarray(q, np.float32), np.sum, np.exp, float):
        with pytest.raises(TypeError):
            convert(q)
    with pytest.raises(TypeError, match=r"call q\.dequantize\(\)"):
        np.asarray(q)


# Turning


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("packed", ["no", "before", "after"])
def test_transpose(isa, w, x, scheme, packed):
    for axis, group in ((None, None), (0, None), (0, 10), (1, None), (1, 10)):
        q = fq.quantize(w, 3, axis=axis, group_size=group, scheme=scheme)
        expected = q.dequantize()
        if packed == "before" and axis != 1:
            q.prepack()
        turned = q.T
        if packed == "after" and axis != 0:
            turned.prepack()
        assert turned.shape == (37, 70)
        assert turned.axis == (None if axis is None else 1 - axis)
        assert turned.scale.shape == q.scale.shape[::-1]
        assert np.array_equal(turned.dequantize(), expected.T)
        assert np.array_equal(turned.codes, q.codes.T)
        assert turned.T.equals(q)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_product_with_the_transpose(isa, rng, scheme):
    """x @ q.T equals the product with the transposed array quantized directly, before and after either is packed."""
    w, x = rng.standard_normal((37, 70)).astype(np.float32), rng.standard_normal((5, 70)).astype(np.float32)
    q = fq.quantize(w, 3, axis=-1, group_size=32, scheme=scheme)
    expected = x @ fq.quantize(w.T, 3, axis=0, group_size=32, scheme=scheme)
    assert np.array_equal(x @ q.T, expected)
    assert np.array_equal(x @ q.T, expected)
    assert (q @ x.T).shape == (37, 5)
    assert np.array_equal(x @ q.T, expected)


def test_transpose_of_other_dimensions(isa, rng):
    for shape in ((), (7,), (3, 4, 5), (2, 3, 4, 5)):
        w = rng.standard_normal(shape).astype(np.float32)
        for axis in (None, *range(len(shape))):
            q = fq.quantize(w, 4, axis=axis, group_size=None if axis is None else 2, scheme="asymmetric")
            assert q.T.shape == shape[::-1]
            assert np.array_equal(q.T.dequantize(), q.dequantize().T)


# Memory


@pytest.mark.parametrize("bits", BITS)
def test_packed_size(isa, rng, bits):
    k, n = 640, 160
    q = fq.quantize(rng.standard_normal((k, n)).astype(np.float32), bits, axis=0)
    assert q.nbytes == k * n + 4 * n  # a byte per code, and the scales
    q.prepack()
    tiles = (k // 64) * (n // 16) * 128 * bits
    assert tiles + 4 * n <= q.nbytes <= tiles + 16 * n  # beside the scales, a few words per column
    np.ones((2, k), np.float32) @ q
    np.ones((50, k), np.float32) @ q
    assert tiles + 4 * n <= q.nbytes <= tiles + 24 * n


def test_packed_size_of_a_ragged_matrix_with_groups(isa, rng):
    k, n = 650, 170
    q = fq.quantize(rng.standard_normal((k, n)).astype(np.float32), 3, axis=0, group_size=64).prepack()
    tiles = 11 * 11 * 128 * 3
    assert tiles <= q.nbytes <= tiles + 11 * 4 * 176 + 16 * 176  # 11 groups


def test_codes_are_not_kept_twice(isa, w, x):
    q = fq.quantize(w, 3, axis=None)
    x @ q
    size = q.nbytes
    q.codes, q.dequantize(), q.T.codes, q.T.T
    w.T @ q
    np.ones((3, 37), np.float32) @ q.T  # the other way round: packed anew, and let go
    assert q.nbytes == size
    assert q.T.nbytes <= size + 16 * 96  # what the product came to know of the columns


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", BITS)
def test_codes_survive_packing(isa, rng, bits, scheme):
    for shape in ((1, 1), (64, 16), (70, 37), (3, 100), (200, 5)):
        q = fq.quantize(rng.standard_normal(shape).astype(np.float32), bits, axis=0, scheme=scheme)
        before, dtype = q.codes.copy(), q.codes.dtype
        assert q.prepack() is q
        assert q._store.packed
        assert np.array_equal(q.codes, before)
        assert q.codes.dtype == dtype


@pytest.mark.parametrize("group", [3, 10, 30, 64, 100])
def test_codes_survive_packing_with_groups(isa, w, group):
    q = fq.quantize(w, 3, axis=0, group_size=group)
    before = q.codes.copy()
    assert np.array_equal(q.prepack().codes, before)


def test_stacks_survive_packing(isa, rng):
    q = fq.quantize(rng.standard_normal((2, 3, 70, 20)).astype(np.float32), 5, axis=-2, scheme="asymmetric")
    before = q.codes.copy()
    assert np.array_equal(q.prepack().codes, before)


def test_prepack_leaves_alone_what_is_no_matrix():
    for shape in ((), (7,), (0, 5), (5, 0)):
        q = fq.quantize(np.ones(shape, np.float32))
        assert q.prepack() is q
        assert q.codes.shape == shape


def test_products_are_the_same_after_prepack(isa, w, x):
    for group in (None, 10, 64):
        q = fq.quantize(w, 3, axis=0, group_size=group)
        again = fq.quantize(w, 3, axis=0, group_size=group).prepack()
        first = x @ q
        assert np.array_equal(first, x @ again)
        assert np.array_equal(first, x @ q)


# Copies


def test_copies_are_the_array_itself(w):
    q = fq.quantize(w)
    assert copy.copy(q) is q
    assert copy.deepcopy(q) is q
    assert copy.deepcopy([q])[0] is q
    assert q.copy() is q


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("use", ["unused", "packed", "turned"])
def test_pickle(isa, w, x, use, scheme, protocol):
    q = fq.quantize(w, 3, axis=0, group_size=32, scheme=scheme)
    q = q if use != "turned" else fq.quantize(w.T, 3, axis=1, group_size=32, scheme=scheme).T
    expected = fq.matmul(x, q) if use != "unused" else None
    again = pickle.loads(pickle.dumps(q, protocol))
    assert again.equals(q)
    assert again._store.packed == q._store.packed
    assert not again.scale.flags.writeable
    if expected is not None:
        assert np.array_equal(x @ again, expected)


def test_pickle_goes_to_another_process(rng, tmp_path):
    """Nothing of this process's memory may be in it: addresses, for one."""
    w, x = rng.standard_normal((640, 512)).astype(np.float32), rng.standard_normal((4, 640)).astype(np.float32)
    fresh, used = (fq.quantize(w, 3, axis=0) for _ in range(2))
    y = x @ used
    with open(tmp_path / "q.pickle", "wb") as file:
        pickle.dump((fresh, used, x, y), file)
    code = (
        "import pickle, sys, numpy as np\n"
        "fresh, used, x, y = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert np.array_equal(fresh.codes, used.codes)\n"
        "assert np.array_equal(x @ fresh, y)\n"
        "assert np.array_equal(x @ used, y)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "q.pickle"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


FORMS = [
    {"bits": 4, "axis": 0},
    {"bits": 3, "axis": 0, "group_size": 16},
    {"bits": 5, "axis": 0, "group_size": 32, "scheme": "asymmetric"},
    {"bits": 8, "axis": 0, "group_size": 10, "scheme": "affine"},
    {"bits": 8, "scheme": "asymmetric"},
    {"bits": 6, "axis": 0, "balance": np.linspace(1, 2, 96)},
    {"bits": 3, "axis": 0, "rotate": True},
    {"bits": 2, "axis": -1},
]


def damaged(value, dice):
    """An attribute, or an array, that may not fit to the others."""
    if not isinstance(value, np.ndarray):
        numbers = [0, 1, 2, 5, 7, 8, 9, 16, 64, 1000, 4096, 2**40, -1, None, True]
        words = ["affine", "asymmetric", "symmetric", "float64"]
        return dice.choice([*numbers, *words, [96, 40], [40, 96], [96], [2, 96, 40], [0, 40], (96, 41)])
    changes = [
        lambda a: a[:0], lambda a: a[..., :-1], lambda a: a[:-1], lambda a: a.reshape(-1), lambda a: a.T,
        lambda a: np.concatenate([a, a]), lambda a: a.astype(np.float64), lambda a: a.astype(np.int32),
        lambda a: a[::-1], lambda a: np.asfortranarray(a), lambda a: np.full_like(a, 0), lambda a: a.view(np.uint8),
        lambda a: np.full_like(a, np.nan if a.dtype.kind == "f" else np.iinfo(a.dtype).max), lambda a: None,
        lambda a: a.byteswap().view(a.dtype.newbyteorder()), lambda a: np.broadcast_to(a.flat[0], a.shape),
    ]  # fmt: skip
    return dice.choice(changes)(value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_pickles_whose_parts_do_not_fit(rng, form, packed):
    """They are refused before a kernel reads beyond their memory; what is taken can be used."""
    q = fq.quantize(rng.standard_normal((96, 40)).astype(np.float32), **form)
    if packed:
        q = q.T.prepack().T if form.get("axis") == -1 else q.prepack()
    make, (arrays, attributes) = next(f for c, f in copyreg.dispatch_table.items() if c is fq.QArray)(q)
    dice, refused = random.Random(4), 0
    for _ in range(150):
        parts, facts = dict(arrays), dict(attributes)
        for _ in range(dice.choice((1, 1, 2))):
            of = dice.choice((parts, facts))
            name = dice.choice(list(of))
            of[name] = damaged(of[name], dice)
        try:
            again = make(*pickle.loads(pickle.dumps((parts, facts))))
        except ValueError:
            refused += 1
            continue
        with np.errstate(all="ignore"):
            assert again.dequantize().shape == again.codes.shape == again.shape
            for b in (again, again.T):
                if b.ndim == 2:
                    with contextlib.suppress(ValueError):  # of scales along the other axis
                        assert (np.ones((20, b.shape[0]), np.float32) @ b).shape == (20, b.shape[1])
    assert 80 < refused < 150


@pytest.mark.parametrize("packed", [False, True])
def test_equals(isa, w, packed):
    q = fq.quantize(w, 4, axis=0)
    again = fq.quantize(w, 4, axis=0)
    if packed:
        again.prepack()
    assert q.equals(again)
    assert again.equals(q)
    for compare in (lambda: q == again, lambda: q != again, lambda: hash(q)):
        with pytest.raises(TypeError):
            compare()


def test_equals_tells_each_difference():
    codes = np.array([[1, -2, 0], [3, 1, -1]])
    w = codes.astype(np.float32)
    one = {"bits": 4, "axis": 0, "scale": 1.0}
    zero = {"scheme": "asymmetric", "zero_point": 3}
    base = fq.quantize(w, **one)
    assert base.equals(fq.quantize(w, **one))
    others = {
        "codes": fq.quantize(w + (codes == 0), **one),
        "scale": fq.quantize(2 * w, **{**one, "scale": 2.0}),
        "bits": fq.quantize(w, **{**one, "bits": 5}),
        "axis": fq.quantize(w, **{**one, "axis": 1}),
        "group size": fq.quantize(w, **one, group_size=2),
        "scheme": fq.quantize(w, **one, **zero),
        "type": fq.quantize(w.astype(np.float16), **one),
        "shape": fq.quantize(w[:, :2], **one),
        "no QArray": base.codes,
        "nothing": None,
    }
    for what, other in others.items():
        assert not base.equals(other), what
    shifted = fq.quantize(w, **one, **zero)
    assert shifted.equals(fq.quantize(w, **one, **zero))
    assert not shifted.equals(fq.quantize(w + 1, **one, **{**zero, "zero_point": 2}))  # equal codes
    affine = fq.quantize(w, 4, scheme="affine")
    assert affine.equals(fq.quantize(w, 4, scheme="affine"))
    assert not affine.equals(fq.quantize(w + 8, 4, scheme="affine"))


# NumPy's protocols


def test_matmul_of_numpy(isa, w, x):
    q = fq.quantize(w, 4, axis=0)
    expected = fq.matmul(x, q)
    assert np.array_equal(np.matmul(x, q), expected)
    out = np.empty((5, 37), np.float32)
    assert np.matmul(x, q, out=out) is out
    assert np.array_equal(out, expected)
    assert np.matmul(x, q, out) is out
    assert np.array_equal(x.tolist() @ q, fq.matmul(x.astype(np.float64), q))
    turned = fq.quantize(x, 4, axis=-1)
    assert np.array_equal(np.matmul(turned, w), fq.matmul(turned, w))
    assert np.array_equal(turned @ w, fq.matmul(turned, w))
    assert np.array_equal(np.matmul(turned, q), turned @ q)


# Other dimensions


def test_vectors(isa, rng):
    v, w = rng.standard_normal(70).astype(np.float32), rng.standard_normal((70, 37)).astype(np.float32)
    for group in (None, 32):
        q = fq.quantize(v, 4, axis=0, group_size=group)
        row = fq.quantize(v[None], 4, axis=1, group_size=group)
        column = fq.quantize(v[:, None], 4, axis=0, group_size=group)
        assert np.array_equal(q @ w, (row @ w)[0])
        assert np.array_equal(w.T @ q, (w.T @ column)[:, 0])
        assert (q @ v).shape == (v @ q).shape == ()
        assert q @ q == (row @ column)[0, 0]


def test_stacks(isa, rng):
    w = rng.standard_normal((2, 3, 70, 20)).astype(np.float32)
    x = rng.standard_normal((3, 5, 70)).astype(np.float32)
    for scheme in SCHEMES:
        for axis, group in ((-2, None), (-2, 32)):
            q = fq.quantize(w, 4, axis=axis, group_size=group, scheme=scheme)
            y = x @ q
            assert y.shape == (2, 3, 5, 20)
            for i, j in np.ndindex(2, 3):
                single = fq.quantize(w[i, j], 4, axis=axis, group_size=group, scheme=scheme)
                assert np.array_equal(y[i, j], x[j] @ single)


@pytest.mark.parametrize("form", [{"axis": 0}, {"axis": 1}, {"axis": None}, {"axis": 1, "bits": 4, "group_size": 32}])
def test_prepack_is_for_the_product_that_can_be(isa, rng, form):
    """Rows with a scale each, such as embeddings, are packed for ``x @ q.T`` and ``q @ x``."""
    w, x = rng.standard_normal((96, 64), np.float32), rng.standard_normal((5, 64), np.float32)
    make = dict(form, bits=form.get("bits", 8))
    q, expected = fq.quantize(w, **make), fq.quantize(w, **make)
    assert q.prepack() is q
    assert q._store.packed
    assert q.equals(expected)
    if form["axis"] == 0:
        assert (w.T @ q == w.T @ expected).all()
    else:
        assert (x @ q.T == x @ expected.T).all()
        assert (q @ x[0] == expected @ x[0]).all()
