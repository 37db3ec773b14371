"""fastq.matmul in the place of np.matmul: the same arguments, errors, types of results, on whatever NumPy takes.

Operands hold -127, 0 and 127, so that scales are 1 and products of floats are those of NumPy, bit for bit.
"""

from __future__ import annotations

import array
import sys
import tracemalloc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastq as fq
from fastq.engine import prepared
from fastq.quant import affine
from tests.cases import integers


def plain(rng, shape, dtype=np.float32):
    return (127 * rng.integers(-1, 2, shape)).astype(dtype)


def outcome(call, *arguments, **options):
    """What a call returns, or what it raises."""
    try:
        return call(*arguments, **options)
    except Exception as error:
        return type(error), str(error)


def assert_same(ours, numpys):
    assert type(ours) is type(numpys), (ours, numpys)
    if isinstance(numpys, tuple):
        assert ours == numpys
        return
    assert ours.dtype == numpys.dtype
    assert ours.shape == numpys.shape
    assert np.array_equal(ours, numpys)


def bytes_of(x):
    """What an array lies in, so that writing beside it shows too."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x.tobytes()


# Arguments

A, B = (2, 3), (3, 4)


def outs(shape, dtype=np.float32):
    return lambda: np.empty(shape, dtype)


def read_only():
    out = np.zeros((2, 4), np.float32)
    out.flags.writeable = False
    return out


CASES = {
    "nothing": (A, B, {}),
    "vectors": ((3,), (3,), {}),
    "out, in a tuple": (A, B, {"out": lambda: (np.empty((2, 4), np.float32),)}),
    "out, none in a tuple": (A, B, {"out": lambda: (None,)}),
    "out, none": (A, B, {"out": lambda: None}),
    "out, empty tuple": (A, B, {"out": tuple}),
    "out, two": (A, B, {"out": lambda: (np.empty((2, 4)), np.empty((2, 4)))}),
    "out, a list": (A, B, {"out": lambda: [np.empty((2, 4))]}),
    "out, a number": (A, B, {"out": lambda: 3}),
    "out, a number in a tuple": (A, B, {"out": lambda: (3,)}),
    "out, wider": (A, B, {"out": outs((2, 4), np.float64)}),
    "out, narrower": (A, B, {"out": outs((2, 4), np.float16)}),
    "out, complex": (A, B, {"out": outs((2, 4), complex)}),
    "out, of objects": (A, B, {"out": outs((2, 4), object)}),
    "out, of integers": (A, B, {"out": outs((2, 4), np.int32)}),
    "out, of integers, unsafely": (A, B, {"out": outs((2, 4), np.int32), "casting": "unsafe"}),
    "out, of text": (A, B, {"out": outs((2, 4), "U30")}),
    "out, big-endian": (A, B, {"out": outs((2, 4), ">f4")}),
    "out, big-endian, equivalent": (A, B, {"out": outs((2, 4), ">f4"), "casting": "equiv"}),
    "out, big-endian, but not to be cast": (A, B, {"out": outs((2, 4), ">f4"), "casting": "no"}),
    "out, safely": (A, B, {"out": outs((2, 4), np.float64), "casting": "safe"}),
    "out, unsafely narrow": (A, B, {"out": outs((2, 4), np.float16), "casting": "safe"}),
    "out, read-only": (A, B, {"out": read_only}),
    "out, more matrices": (A, B, {"out": outs((5, 2, 4))}),
    "out, more matrices than of a stack": ((1, 2, 3), B, {"out": outs((6, 5, 2, 4))}),
    "out, fewer matrices": ((5, 2, 3), B, {"out": outs((2, 4))}),
    "out, one matrix of many": ((5, 2, 3), B, {"out": outs((1, 2, 4))}),
    "out, too many columns": (A, B, {"out": outs((2, 5))}),
    "out, one column": (A, B, {"out": outs((2, 1))}),
    "out, transposed": (A, B, {"out": outs((4, 2))}),
    "out, of a vector": (A, B, {"out": outs((2,))}),
    "out, of two vectors": ((3,), (3,), {"out": outs(())}),
    "out, many for two vectors": ((3,), (3,), {"out": outs((5,))}),
    "out, without an axis of length 1": ((1, 2, 3), B, {"out": outs((2, 4))}),
    "out, without the only row": ((1, 3), B, {"out": outs((4,))}),
    "out, without the only row of a stack": ((1, 1, 3), B, {"out": outs((4,))}),
    "out, a number for one row": ((1, 3), (3,), {"out": outs(())}),
    "out, a number for one column": ((3,), (3, 1), {"out": outs(())}),
    "out, without the only column": (A, (3, 1), {"out": outs((2,))}),
    "out, a number for a matrix": ((1, 3), (3, 1), {"out": outs(())}),
    "out, vectors in a stack": (A, (3,), {"out": outs((7, 2))}),
    "dtype": (A, B, {"dtype": np.float64}),
    "dtype, narrow": (A, B, {"dtype": np.float16}),
    "dtype, complex": (A, B, {"dtype": complex}),
    "dtype, of integers": (A, B, {"dtype": int}),
    "dtype, of integers, unsafely": (A, B, {"dtype": int, "casting": "unsafe"}),
    "dtype, unknown": (A, B, {"dtype": "float33"}),
    "dtype, narrow, safely": (A, B, {"dtype": np.float16, "casting": "safe"}),
    "dtype and out": (A, B, {"dtype": np.float64, "out": outs((2, 4))}),
    "dtype and out, safely": (A, B, {"dtype": np.float64, "out": outs((2, 4)), "casting": "safe"}),
    "casting, unknown": (A, B, {"casting": "bogus"}),
    "casting, none": (A, B, {"casting": None}),
    "order, unknown": (A, B, {"order": "X"}),
    "order, a number": (A, B, {"order": 3}),
    "order, none": (A, B, {"order": None}),
    "order, of two vectors": ((3,), (3,), {"order": "F"}),
    "order, of a stack": ((5, 2, 3), B, {"order": "F"}),
    "order and out": (A, B, {"order": "F", "out": outs((2, 4))}),
    "subok, a number": (A, B, {"subok": 1}),
    "axis": (A, B, {"axis": 0}),
    "keepdims": (A, B, {"keepdims": False}),
    "where": (A, B, {"where": True}),
    "axes, transposed": ((3, 2), (4, 3), {"axes": [(1, 0), (1, 0), (1, 0)]}),
    "axes, negative": ((3, 2), (4, 3), {"axes": [(-1, -2), (-1, 0), (-2, -1)]}),
    "axes, of stacks": ((2, 5, 3), (3, 4, 5), {"axes": [(0, 2), (0, 1), (2, 0)]}),
    "axes, vectors": ((3,), (3,), {"axes": [0, (0,), ()]}),
    "axes, of a vector on the left": ((3,), (4, 3), {"axes": [0, (1, 0), 0]}),
    "axes, of a vector on the right": ((3, 2), (3,), {"axes": [(1, 0), -1, (-1,)]}),
    "axes, of a vector and a stack": ((3,), (4, 5, 3), {"axes": [0, (2, 0), 0]}),
    "axes and out": ((2, 5, 3), (3, 4), {"axes": [(0, 2), (0, 1), (2, 0)], "out": outs((4, 5, 2))}),
    "axes and a larger out": ((2, 3), (3, 4), {"axes": [(0, 1), (0, 1), (2, 0)], "out": outs((4, 5, 2))}),
    "axes and another out": ((2, 3), (3, 4), {"axes": [(0, 1), (0, 1), (1, 0)], "out": outs((2, 4))}),
    "axes, a number": (A, B, {"axes": 3}),
    "axes, none": (A, B, {"axes": None}),
    "axes, a tuple": (A, B, {"axes": ((0, 1), (0, 1), (0, 1))}),
    "axes, of two": (A, B, {"axes": [(0, 1), (0, 1)]}),
    "axes, of four": (A, B, {"axes": [(0, 1)] * 4}),
    "axes, of lists": (A, B, {"axes": [[0, 1], (0, 1), (0, 1)]}),
    "axes, of floats": (A, B, {"axes": [(0, 1.0), (0, 1), (0, 1)]}),
    "axes, of truth": (A, B, {"axes": [(False, True), (0, 1), (0, 1)]}),
    "axes, one for a matrix": (A, B, {"axes": [0, (0, 1), (0, 1)]}),
    "axes, three for a matrix": (A, B, {"axes": [(0, 1, 2), (0, 1), (0, 1)]}),
    "axes, two for a vector": (A, (3,), {"axes": [(0, 1), (0, 1), 0]}),
    "axes, one for a number": ((3,), (3,), {"axes": [0, 0, 0]}),
    "axes, twice the same": (A, B, {"axes": [(0, 0), (0, 1), (0, 1)]}),
    "axes, beyond": (A, B, {"axes": [(0, 2), (0, 1), (0, 1)]}),
    "axes, beyond the product": (A, B, {"axes": [(0, 1), (0, 1), (0, -3)]}),
    "axes that do not fit": (A, B, {"axes": [(1, 0), (0, 1), (0, 1)]}),
    "no dimensions": ((), B, {}),
    "no dimensions on the right": (A, (), {}),
    "no dimensions, axes": ((), B, {"axes": [(), (0, 1), 0]}),
    "other lengths": (A, A, {}),
    "other batches": ((4, 2, 3), (5, 3, 4), {}),
    "three batches": ((4, 1, 2, 3), (5, 3, 4), {"out": outs((6, 4, 5, 2, 4))}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_arguments_mean_what_they_mean_in_numpy(name, dtype, rng):
    sa, sb, options = CASES[name]
    a, b = plain(rng, sa, dtype), plain(rng, sb, dtype)

    def called(matmul):
        given = {key: value() if key == "out" else value for key, value in options.items()}
        result = outcome(matmul, a, b, **given)
        out = given.get("out")
        if isinstance(out, tuple) and len(out) == 1:
            out = out[0]
        if isinstance(out, np.ndarray) and isinstance(result, np.ndarray):
            assert result is out
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        assert_same(called(fq.matmul), called(np.matmul))


def test_out_is_the_third_argument(rng):
    a, b = plain(rng, A), plain(rng, B)
    out = np.empty((2, 4), np.float32)
    assert fq.matmul(a, b, out) is out
    assert np.array_equal(out, a @ b)
    for arguments in ((a,), (a, b, None, None)):
        assert outcome(fq.matmul, *arguments)[0] is outcome(np.matmul, *arguments)[0] is TypeError
    with pytest.raises(TypeError, match="multiple values for argument 'out'"):
        fq.matmul(a, b, out, out=out)


@pytest.mark.parametrize("order", ["K", "A", "C", "F", "f", None])
def test_order(order, rng):
    forms = [np.ascontiguousarray, np.asfortranarray]
    for shape in ((6, 7), (5, 6, 7)):
        a, b = plain(rng, shape), plain(rng, (7, 8))
        for left in forms:
            for right in forms:
                ours = fq.matmul(left(a), right(b), order=order)
                numpys = np.matmul(left(a), right(b), order=order)
                assert np.array_equal(ours, numpys)
                assert ours.strides == numpys.strides


SIZES = st.integers(0, 3)
SHAPE = st.lists(SIZES, min_size=0, max_size=3).map(tuple)
ENTRY = st.one_of(st.integers(-3, 2), st.lists(st.integers(-3, 2), max_size=2).map(tuple))


@st.composite
def calls(draw):
    """Shapes that mostly fit, and any options."""
    m, k, n = draw(SIZES), draw(SIZES), draw(SIZES)
    batch = draw(st.lists(st.integers(1, 3), max_size=1).map(tuple))
    a = draw(st.sampled_from([(k,), (m, k), (*batch, m, k), (1, m, k)]))
    b = draw(st.sampled_from([(k,), (k, n), (*batch, k, n), (2, 1, k, n)]))
    if draw(st.integers(0, 9)) == 0:
        a = draw(SHAPE)
    options = {}
    if draw(st.booleans()):
        natural = outcome(lambda: np.matmul(np.zeros(a), np.zeros(b)).shape)
        shape = draw(SHAPE)
        if not (natural and isinstance(natural[0], type)):
            shape = draw(st.sampled_from([natural, natural, (2, *natural), natural[::-1], shape]))
        options["out"] = (
            shape,
            draw(st.sampled_from(["f4", "f4", "f8", ">f4", "f2", "i4"])),
            draw(st.integers(0, 9)) > 0,
        )
    for name, values in (
        ("casting", ["no", "equiv", "safe", "same_kind", "unsafe", "any"]),
        ("order", list("KACF")),
        ("subok", [True, False]),
        ("dtype", ["f4", "f8", "f2", "i8"]),
    ):
        if draw(st.integers(0, 3)) == 0:
            options[name] = draw(st.sampled_from(values))
    if draw(st.integers(0, 2)) == 0:
        options["axes"] = draw(
            st.one_of(
                st.just([(-2, -1)[-min(2, len(a)) :] or (), (-2, -1)[-min(2, len(b)) :] or (), (-2, -1)]),
                st.lists(ENTRY, min_size=2, max_size=3),
            )
        )
    return a, b, options


@settings(deadline=None, max_examples=300)
@given(calls())
def test_any_call(call):
    """Whatever NumPy refuses is refused with its words, and the rest gives its result."""
    sa, sb, options = call
    # NumPy takes a 1 x 1 matrix for a vector if that makes it fit.
    assume(not ("out" in options and options["out"][0] == () and (1, 1) in (sa[-2:], sb[-2:])))
    rng = np.random.default_rng(0)
    a, b = plain(rng, sa), plain(rng, sb)
    before = bytes_of(a), bytes_of(b)
    results = []
    for matmul in (fq.matmul, np.matmul):
        given = dict(options)
        if "out" in options:
            shape, dtype, writeable = options["out"]
            given["out"] = np.full(shape, 7, dtype)
            given["out"].flags.writeable = writeable
        results.append(outcome(matmul, a, b, **given))
        if "out" in given and isinstance(results[-1], tuple):
            assert (given["out"] == 7).all()
    assert_same(*results)
    assert (bytes_of(a), bytes_of(b)) == before


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint64, complex, object, np.longdouble])
def test_what_numpy_multiplies_gets_all_options(dtype, rng):
    a, b = (rng.integers(0, 2, shape).astype(dtype) for shape in ((5, 3, 2), (4, 3)))
    options = {"axes": [(2, 1), (1, 0), (1, 2)], "order": "F", "casting": "safe", "subok": False}
    ours, numpys = (matmul(a, b, **options) for matmul in (fq.matmul, np.matmul))
    assert_same(ours, numpys)
    assert ours.strides == numpys.strides
    wide = np.empty((7, 4, 2), object if dtype is object else complex)
    assert_same(*(matmul(a[0], b, wide.copy(), axes=[(1, 0), (1, 0), (2, 1)]) for matmul in (fq.matmul, np.matmul)))
    for wrong in ({"axes": 3}, {"casting": "bogus"}, {"out": np.empty((3, 3), dtype)}, {"keepdims": True}):
        assert_same(*(outcome(matmul, a, b[:, ::-1].T, **wrong) for matmul in (fq.matmul, np.matmul)))


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.longdouble, complex])
def test_products_in_other_types_are_those_of_numpy(dtype, rng):
    a, b = (rng.integers(0, 9, shape).astype(np.uint8) for shape in (A, B))
    assert_same(*(outcome(matmul, a, b, dtype=dtype) for matmul in (fq.matmul, np.matmul)))


def test_casting_of_integers(isa, rng):
    a, b = integers(rng, (20, 30), "int8"), integers(rng, (30, 10), "uint8")
    exact = a.astype(np.int64) @ b.astype(np.int64)
    for dtype in (np.int64, ">i8", ">i4", np.float64, complex):
        out = np.zeros((20, 10), dtype)
        assert fq.matmul(a, b, out) is out
        assert np.array_equal(out, exact)
    assert np.array_equal(fq.matmul(a, b, np.zeros((20, 10), np.uint16), casting="unsafe"), exact.astype(np.uint16))
    with pytest.raises(TypeError, match=r"output from dtype\('int32'\) to dtype\('int64'\) with casting rule 'equiv'"):
        fq.matmul(a, b, np.zeros((20, 10), np.int64), casting="equiv")


# Memory


def test_out_that_overlaps(isa, rng):
    """An operand and a transposed, a wider, a broadcast result, in one piece of memory."""
    for size in (8, 40):
        a, b = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
        expected, backwards = fq.matmul(a, b), fq.matmul(b, a.T)
        for start in (0, 1, size):
            room = np.zeros((2 * size, size), np.float32)
            room[:size] = a
            assert np.array_equal(fq.matmul(room[:size], b, room[start : start + size].T), expected)
            room[:size] = a
            out = room[start : start + size]
            fq.matmul(b.T, room[:size], out, axes=[(1, 0), (1, 0), (1, 0)])
            assert np.array_equal(out.T, backwards)
        room = np.stack([a, b, b])
        fq.matmul(room[0], room[1], room)
        assert np.array_equal(room, [expected] * 3)
        room = np.zeros((size, size))
        narrow = room.view(np.float32)[:, :size]
        narrow[...] = a
        assert np.array_equal(fq.matmul(narrow, b, room), expected)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
def test_axes_of_quantized_arrays(isa, scheme, rng):
    x, w = rng.standard_normal((5, 70, 9)).astype(np.float32), rng.standard_normal((20, 70)).astype(np.float32)
    q = fq.quantize(w, 4, axis=1, scheme=scheme)
    expected = fq.matmul(x.swapaxes(1, 2), q.T)
    assert np.array_equal(fq.matmul(x, q, axes=[(2, 1), (1, 0), (1, 2)]), expected)
    assert np.array_equal(fq.matmul(x, q, axes=[(2, 1), (1, 0), (2, 0)]), expected.transpose(2, 0, 1))
    out = np.empty((20, 5, 9), np.float32)
    assert fq.matmul(x, q, out, axes=[(2, 1), (1, 0), (2, 0)]) is out
    assert np.array_equal(out, expected.transpose(2, 0, 1))
    assert np.array_equal(np.matmul(x, q, axes=[(2, 1), (1, 0), (1, 2)], order="F"), expected)
    assert np.array_equal(fq.matmul(q, x[0], axes=[(0, 1), (0, 1), (0, 1)]), q @ x[0])
    for wrong in ({"axes": [(2, 1), (0, 1), (1, 2)]}, {"out": np.empty((5, 9, 21))}, {"casting": "bogus"}):
        theirs = outcome(np.matmul, x.swapaxes(1, 2), w.T, **wrong)
        assert outcome(fq.matmul, x.swapaxes(1, 2), q.T, **wrong) == theirs
        assert isinstance(theirs[0], type)


# Subclasses


class Tagged(np.ndarray):
    """Carries a tag, as the documentation of NumPy has it."""

    def __array_finalize__(self, other):
        self.tag = getattr(other, "tag", "fresh")


class Counting(np.ndarray):
    """Tells how it was called."""

    __array_priority__ = 3.0

    def __array_wrap__(self, made, context=None, return_scalar=False):
        self.calls.append((type(made), made.shape, context[0], len(context[1]), context[2], return_scalar))
        return super().__array_wrap__(made, context, return_scalar)

    def __array_finalize__(self, other):
        self.calls = getattr(other, "calls", [])


class Negative(Tagged):
    __array_priority__ = -1.0


class Wrapper:
    """No array, but it has one, and wants results to be its like."""

    __array_priority__ = 10

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x

    def __array_wrap__(self, made, context=None, return_scalar=False):
        return Wrapper(made)


def subclassed(x, kind):
    x = x.view(kind)
    if isinstance(x, Tagged):
        x.tag = "mine"
    return x


KINDS = {
    "tagged": lambda x: subclassed(x, Tagged),
    "counting": lambda x: subclassed(x.copy(), Counting),
    "negative": lambda x: subclassed(x, Negative),
    "matrix": lambda x: x.view(np.matrix),
    "masked": lambda x: np.ma.array(x, mask=np.arange(x.size).reshape(x.shape) % 3 == 0),
    "record": lambda x: x.view(np.recarray),
    "array": lambda x: x,
    "list": lambda x: x.tolist(),
}


def facts(x):
    """What two results must have in common."""
    if isinstance(x, tuple):
        return x
    known = [type(x), np.shape(x), getattr(x, "tag", None), getattr(x, "calls", None)]
    values = np.ma.getdata(x) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    mask = np.ma.getmaskarray(x).tolist() if isinstance(x, np.ma.MaskedArray) else None
    return (*known, mask, values.dtype, values.tolist())


@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
def test_subclasses_are_wrapped_as_by_numpy(left, right, rng):
    for sa, sb in (((3, 3), (3, 3)), ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,))):
        a, b = plain(rng, sa, np.float64), plain(rng, sb, np.float64)
        for options in ({}, {"subok": False}):
            if "list" in (left, right) and options:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PendingDeprecationWarning)
                ours, numpys = (
                    facts(outcome(matmul, KINDS[left](a), KINDS[right](b), **options))
                    for matmul in (fq.matmul, np.matmul)
                )
            assert ours == numpys


@pytest.mark.parametrize("kind", ["tagged", "counting", "matrix", "masked", "record"])
def test_out_of_a_subclass(kind, rng):
    a, b = plain(rng, (3, 3)), plain(rng, (3, 3))
    for options in ({}, {"subok": False}, {"axes": [(0, 1), (0, 1), (1, 0)]}):
        for left in (a, KINDS["masked"](a)):
            results = []
            for matmul in (fq.matmul, np.matmul):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PendingDeprecationWarning)
                    out = KINDS[kind](np.zeros((3, 3), np.float32))
                    result = matmul(left, b, out=out, **options)
                results.append((result is out, facts(result), facts(out)))
            assert results[0] == results[1]


def test_an_old_wrap_is_called_as_it_wants(rng):
    class Old(np.ndarray):
        def __array_wrap__(self, made, context=None):
            return made.view(Old)

    class Older(np.ndarray):
        def __array_wrap__(self, made):
            return made.view(Older)

    class Broken(np.ndarray):
        def __array_wrap__(self, made, context=None, return_scalar=False):
            raise TypeError("no")

    a, b = plain(rng, (2, 3)), plain(rng, (3, 4))
    for kind in (Old, Older):
        assert type(fq.matmul(a.view(kind), b)) is kind
    with pytest.raises(TypeError, match="no"):
        fq.matmul(a.view(Broken), b)


def test_what_is_no_array_but_wraps(rng):
    a, b = plain(rng, (2, 3)), plain(rng, (3, 4))
    for left, right in (
        (Wrapper(a), b),
        (a, Wrapper(b)),
        (KINDS["tagged"](a), Wrapper(b)),
        (Wrapper(a[0]), Wrapper(b[:, 0])),
    ):
        ours, numpys = fq.matmul(left, right), np.matmul(left, right)
        assert type(ours) is type(numpys) is Wrapper
        assert_same(ours.x, numpys.x)
        assert_same(fq.matmul(left, right, subok=False), np.matmul(left, right, subok=False))
    assert type(fq.matmul(Wrapper(a > 0), b > 0)) is Wrapper  # and where NumPy multiplies


def test_subclasses_meet_quantized_arrays(rng):
    a, b = plain(rng, (3, 3)), plain(rng, (3, 3))
    q = fq.quantize(b, axis=0)
    ours = fq.matmul(KINDS["tagged"](a), q)
    assert type(ours) is Tagged
    assert ours.tag == "mine"
    assert np.array_equal(ours, a @ b)
    masked = KINDS["masked"](a)
    assert np.array_equal(np.matmul(masked, q).mask, np.matmul(masked, b).mask)
    assert type(fq.matmul(q.T, KINDS["tagged"](a), subok=False)) is np.ndarray


def test_memory_maps(tmp_path, rng):
    a, b = plain(rng, (20, 30)), plain(rng, (30, 10))
    maps = []
    for name, x in (("a", a), ("b", b), ("out", np.zeros((20, 10), np.float32))):
        mapped = np.memmap(tmp_path / name, x.dtype, "w+", shape=x.shape)
        mapped[...] = x
        maps.append(mapped)
    a_map, b_map, out = maps
    assert type(fq.matmul(a_map, b_map)) is type(np.matmul(a_map, b_map)) is np.ndarray
    assert fq.matmul(a_map, b_map, out) is out
    assert np.array_equal(np.fromfile(tmp_path / "out", np.float32).reshape(20, 10), a @ b)
    read = np.memmap(tmp_path / "a", np.float32, "r", shape=(20, 30))
    assert np.array_equal(fq.matmul(read, b), a @ b)
    assert type(fq.matmul(a_map[0], b_map[:, 0])) is np.float32


# Other libraries


class HasArray:
    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x


class HasInterface:
    def __init__(self, x):
        self.x, self.__array_interface__ = x, x.__array_interface__


class HasStruct:
    def __init__(self, x):
        self.x, self.__array_struct__ = x, x.__array_struct__


class HasDlpack:
    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


READERS = {
    "list": np.ndarray.tolist,
    "rows of tuples": lambda x: [tuple(row) for row in x.tolist()],
    "rows of arrays": list,
    "buffer": memoryview,
    "__array__": HasArray,
    "__array_interface__": HasInterface,
    "__array_struct__": HasStruct,
    "DLPack": HasDlpack,
}


@pytest.mark.parametrize("reader", READERS)
def test_whatever_is_like_an_array(reader, rng):
    read = READERS[reader]
    a, b = plain(rng, (4, 3), np.float64), plain(rng, (3, 5), np.float64)
    expected = a @ b
    q = fq.quantize(b, axis=0)
    assert fq.quantize(read(b), axis=0).equals(q)
    for left, right in ((read(a), b), (a, read(b)), (read(a), read(b)), (read(a), q)):
        assert_same(fq.matmul(left, right), expected)
    narrow = rng.integers(-9, 9, (4, 3)).astype(np.int8)
    assert_same(fq.matmul(narrow, read(narrow.T.copy())).astype(np.int64), narrow.astype(np.int64) @ narrow.T)
    wide = rng.integers(-9, 9, (4, 3))  # NumPy's
    assert_same(fq.matmul(wide, read(wide.T.copy())), wide @ wide.T)


def test_arrays_of_the_standard_library():
    assert fq.matmul(array.array("d", [127, 0, 127]), [[127.0], [1], [-127]]) == [0]
    assert fq.matmul(array.array("b", [100, 100]), bytearray([200, 200])) == 40_000


class Labelled:
    """An array of a library whose products are its own."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return ufunc, method, options


def test_what_has_products_of_its_own_is_left_to_them(rng):
    a, b = plain(rng, (4, 3)), plain(rng, (3, 5))
    out = np.empty((4, 5), np.float32)
    for left, right in ((Labelled(a), b), (a, Labelled(b))):
        assert fq.matmul(left, right) == (np.matmul, "__call__", {})
        assert fq.matmul(left, right, out, casting="safe") == (
            np.matmul,
            "__call__",
            {"out": (out,), "casting": "safe"},
        )
        assert np.array_equal(fq.matmul(left, right, bias=1), a @ b + 1)  # what they do not know
        assert np.array_equal(fq.matmul(left, right, epilogue="relu"), np.maximum(a @ b, 0))
    assert np.array_equal(fq.matmul(Labelled(a), fq.quantize(b, axis=0)), a @ b)
    assert fq.matmul(a, b, Labelled(out))[0] is np.matmul

    class Refusing(Labelled):
        __array_ufunc__ = None

    assert outcome(fq.matmul, a, Refusing(b)) == outcome(np.matmul, a, Refusing(b))
    assert outcome(fq.matmul, a, Refusing(b))[0] is TypeError


def test_arrays_of_dask_are_left_to_the_room_for_them(monkeypatch, rng):
    class Array(Labelled):
        pass

    asked = []
    monkeypatch.setitem(sys.modules, "dask.array", SimpleNamespace(Array=Array))
    lazy = SimpleNamespace(matmul=lambda a, b, **options: asked.append((a, b, options)) or "lazy")
    monkeypatch.setitem(sys.modules, "fastq.interop.dask", lazy)
    monkeypatch.setitem(sys.modules, "fastq.interop", SimpleNamespace(dask=lazy))
    a, b = plain(rng, (4, 3)), plain(rng, (3, 5))
    q, x = fq.quantize(b, axis=0), Array(a)
    for left, right in ((x, b), (b.T, Array(b)), (x, q)):
        assert fq.matmul(left, right, bits=4, bias=1, dtype=np.float64) == "lazy"
        assert asked.pop() == (left, right, {"bits": 4, "bias": 1, "dtype": np.float64, "activations": None})
    assert np.array_equal(fq.matmul(a, b), a @ b)


class Tensor:
    """A tensor that refuses to be read, as those that keep gradients do."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


def test_a_tensor_that_refuses(rng):
    a = plain(rng, (4, 3))
    assert outcome(fq.matmul, a, Tensor()) == outcome(np.matmul, a, Tensor())
    assert outcome(fq.matmul, a, Tensor())[1].endswith("Use tensor.detach().numpy() instead.")


# Bands of rows


@pytest.fixture
def bands(monkeypatch):
    """Products of large left operands, for less than 256 MiB; how many bands there were."""
    found = []
    for name in ("__call__", "requantized"):
        usual = getattr(prepared.PreparedProduct, name)
        monkeypatch.setattr(prepared.PreparedProduct, name, lambda *args, usual=usual: found.append(1) or usual(*args))

    def banded(call):
        """The result, which is that of one band, bit for bit."""
        results = []
        for most in (64 << 10, 256 << 20):  # bands first: one product may be remembered
            monkeypatch.setattr(prepared, "MOST_LEFT", most)
            found.clear()
            results.append(call())
            assert len(found) in (range(4, 9) if most < 256 << 20 else [1])
        parts, whole = results
        assert parts.equals(whole) if isinstance(whole, fq.QArray) else np.array_equal(parts, whole)

    monkeypatch.setattr(prepared, "BAND", 64 << 10)
    return banded


@pytest.mark.parametrize(
    "left", ["float32", "float16", "float64", "int8", "uint8", "symmetric", "asymmetric", "affine", "groups", "packed"]
)
def test_bands_of_rows(isa, bands, left, rng):
    m, k, n = 1000, 190, 33
    x = rng.standard_normal((m, k))
    if left in ("int8", "uint8"):
        a = integers(rng, (m, k), left)
    elif left.startswith("float"):
        a = x.astype(left)
    else:
        scheme = "symmetric" if left in ("groups", "packed") else left
        a = fq.quantize(x.astype(np.float32), 4, axis=-1, scheme=scheme, group_size=32 if left == "groups" else None)
        if left == "packed":
            a.prepack() if a.axis is None else a.T.prepack()
    w = rng.standard_normal((k, n)).astype(np.float32)
    for right in (integers(rng, (k, n), "int8"), fq.quantize(w, 3, axis=0), fq.quantize(w, 4, axis=0, scheme="affine")):
        bands(lambda right=right: fq.matmul(a, right))
    bands(lambda: fq.matmul(a, w, dtype=np.int8, bias=1))
    bands(lambda: fq.matmul(a, w, dtype=np.uint8, scale=0.5, zero_point=100))


def test_bands_into_memory_that_is_read(isa, bands, rng):
    m, k = 1000, 190
    w = fq.quantize(rng.standard_normal((k, k)).astype(np.float32), 3, axis=0)
    x = rng.standard_normal((m, k)).astype(np.float32)

    def in_place():
        room = np.concatenate([x, x[:9]])
        return fq.matmul(room[:m], w, room[9:])

    bands(in_place)


def test_bands_of_what_is_not_finite(monkeypatch, rng):
    monkeypatch.setattr(prepared, "MOST_LEFT", 64 << 10)
    monkeypatch.setattr(prepared, "BAND", 64 << 10)
    monkeypatch.setattr(affine, "CHECKED", 10_000)
    x, w = np.ones((5000, 64), np.float32), np.ones((64, 9), np.float32)
    x[4000, 3] = x[4999, 63] = np.inf
    with pytest.raises(fq.NotFiniteError, match=r"2 of 320000 values are not, the first at index \(4000, 3\) \(inf\)"):
        fq.matmul(x, w)
    with pytest.raises(fq.NotFiniteError, match=r"1 of 30000 values is not, the first at index \(29999,\)"):
        affine.check_finite(np.where(np.arange(30_000) < 29_999, 1, np.nan), "x")
    with pytest.raises(fq.NotFiniteError, match=r"1 of 1 values is not, the first at index \(\) \(nan\)"):
        affine.check_finite(np.array(np.nan), "x")


@pytest.mark.parametrize("dtype", ["f4", "f2", ">f4", "f8", "i2"])
def test_memory_for_a_large_left_operand(monkeypatch, tmp_path, dtype, rng):
    """The codes of a band, whatever is multiplied; and nothing that grows with the operand is remembered."""
    monkeypatch.setattr(prepared, "MOST_LEFT", 1 << 20)
    monkeypatch.setattr(prepared, "BAND", 1 << 20)
    m, k = 1 << 17, 256
    x = np.memmap(tmp_path / "x", dtype, "w+", shape=(2, m // 2, k))
    x[...] = rng.integers(-9, 9, k)
    q = fq.quantize(rng.standard_normal((k, 2)).astype(np.float32), 4, axis=0)
    expected = fq.matmul(np.array(x[0, :3]), q)
    for form in (x, x[:, ::-1]):
        tracemalloc.start()
        y = fq.matmul(form, q)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # A band in float64, its codes in tiles of int16, and the product.
        assert peak < 8 * (1 << 20) + 3 * (1 << 20) + 2 * y.nbytes < x.size / 2
        assert np.array_equal(y[1, 5:8], expected)
    assert not any(key[0] == x.shape for key in q.ready)
