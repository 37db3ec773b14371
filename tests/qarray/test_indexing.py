"""Parts of a quantized array stand for what the parts of its numbers are, bit for bit, whether it is packed or not."""

from __future__ import annotations

import gc
import pickle
import weakref
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastq as fq
from fastq.engine.memory import address_of
from fastq.qarray.rearrange import unpacked

SCHEMES = ("symmetric", "asymmetric", "affine")
FORMS = {
    "one scale": {},
    "down": {"axis": 0},
    "across": {"axis": -1},
    "integer groups": {"axis": 0, "group_size": 64},
    "small integer groups across": {"axis": -1, "group_size": 16},
    "float groups": {"axis": 0, "group_size": 10},
    "odd groups across": {"axis": -1, "group_size": 7},
}
PACKED = ("not packed", "packed", "packed as its transpose")


def made(rng, shape=(200, 90), packed="not packed", **form):
    """A quantized array in one of the ways in which codes are held; None if it cannot be."""
    q = fq.quantize(rng.standard_normal(shape).astype(np.float32), 3, **form)
    if packed != "not packed":
        try:
            (q if packed == "packed" else q.mT).prepack()
        except ValueError:  # its scales vary along the axis that is summed
            assert q.axis not in (None, len(shape) - (2 if packed == "packed" else 1))
            return None
    return q


def same(part, expected):
    """A part that stands for these numbers; a number where NumPy gives one."""
    assert part.shape == expected.shape
    if not expected.shape:
        assert isinstance(part, np.generic)
    numbers = part.dequantize() if isinstance(part, fq.QArray) else part
    return numbers.dtype == expected.dtype and np.array_equal(numbers, expected)


def attempt(call, *words):
    """What a call gives; None where it is refused, in these words."""
    try:
        return call()
    except ValueError as error:
        message = str(error)
    assert all(w in message for w in words), message
    return None


def consistent(q):
    """Whether a part is an array in its own right: its codes and parameters give the same numbers, as a copy does."""
    along = 1 if q.axis is None or q.group_size is None else max(1, -(-q.shape[q.axis] // q.group_size))
    shape = (1,) * q.ndim if q.axis is None else (*q.shape[: q.axis], along, *q.shape[q.axis + 1 :])
    assert q.scale.shape == shape
    again = pickle.loads(pickle.dumps(q))
    return again.equals(q) and np.array_equal(again.dequantize(), q.dequantize())


KEYS = [
    np.s_[:64],
    np.s_[64:128],
    np.s_[128:],
    np.s_[64:128, 16:48],
    np.s_[:, 32:],
    np.s_[:, 16:],
    np.s_[3:9],
    np.s_[:, 4:9],
    np.s_[5],
    np.s_[-1],
    np.s_[:, 5],
    np.s_[5, 6],
    np.s_[...],
    np.s_[..., 5],
    np.s_[None],
    np.s_[:, None, 3:],
    np.s_[:0],
    np.s_[:, :0],
    np.s_[::-1],
    np.s_[::-1, ::2],
    np.s_[[1, 5, 7]],
    np.s_[:, [89, 0, -2, 3]],
    np.s_[np.array([], int)],
    np.s_[np.arange(200) % 3 == 0],
    np.s_[[[1, 2], [150, 4]]],
    np.s_[3, [1, 2]],
    np.s_[[1, 2], 3],
    np.s_[np.int64(3)],
    np.s_[10:30, 1],
    np.s_[:, ::7],
]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", FORMS)
def test_parts(rng, form, scheme, packed):
    q = made(rng, packed=packed, scheme=scheme, **FORMS[form])
    if q is None:
        return
    numbers, refused = q.dequantize(), []
    for key in KEYS:
        part = attempt(lambda key=key: q[key], "must leave groups of one size")
        if part is None:
            refused.append(key)
            continue
        assert same(part, numbers[key]), key
        assert not isinstance(part, fq.QArray) or consistent(part), key
    assert np.array_equal(q.dequantize(), numbers)
    # Only cuts through groups that are neither one run nor of one size.
    assert len(refused) <= {"float groups": 4, "integer groups": 4}.get(form, 5 if "groups" in form else 0), refused


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_with_parts(isa, rng, scheme, packed):
    """What is cut out of packed memory multiplies as what was quantized and cut before."""
    x = rng.standard_normal((20, 200)).astype(np.float32)
    for form in ("one scale", "down", "integer groups"):
        q = made(
            rng, packed=packed, scheme=scheme, **FORMS[form] if scheme != "affine" or "integer" not in form else {}
        )
        if q is None:
            continue
        fresh = pickle.loads(pickle.dumps(unpacked(q)))
        for rows, columns in product(
            ((64, 128), (0, 200), (128, 200), (64, 100)), ((0, 90), (16, 48), (80, 90), (5, 17))
        ):
            rows, columns = slice(*rows), slice(*columns)
            expected = x[:, rows] @ fresh[rows, columns]
            assert np.array_equal(x[:, rows] @ q[rows, columns], expected)
            assert np.array_equal(x[:1, rows] @ q[rows, columns], expected[:1])
            left = fq.quantize(x[:, rows], axis=-1, scheme="asymmetric")
            assert np.array_equal(left @ q[rows, columns], left @ fresh[rows, columns])


def test_row_blocks_share_packed_memory(rng):
    """Neighbouring blocks of 16 columns, or rows of what is multiplied as its transpose, are not copied."""
    w = rng.standard_normal((320, 200)).astype(np.float32)
    rows, columns = fq.quantize(w, 3, axis=-1), fq.quantize(w, 3, axis=0, group_size=64).prepack()
    rows.T.prepack()
    for q, part in ((rows, rows[64:128]), (columns, columns[:, 32:])):
        (whole,), (cut,) = (x._store._form.packed.values() for x in (q, part))
        start = address_of(whole.tiles)
        assert start <= address_of(cut.tiles) < start + whole.tiles.nbytes
        assert part._store.packed
    assert rows[64:128].T.nbytes < rows.nbytes / 4
    codes = fq.quantize(w, 3, axis=-1)
    assert np.shares_memory(codes.codes, codes[10:20].codes)


def test_tiles_are_cut_without_being_unpacked(rng):
    q = made(rng, packed="packed", axis=0, group_size=64)
    for part in (q[64:128], q[64:], q[128:, :48]):
        assert part._store.packed
        assert part.group_size == 64
        assert part.group_scale is not None
    assert not q[:63]._store.packed


def test_stacks(isa, rng):
    for form in ({"axis": -2}, {"axis": -2, "group_size": 32}, {"axis": None}, {"axis": -1}, {"axis": 0}):
        for packed in PACKED:
            q = made(rng, (2, 3, 70, 20), packed, **form)
            if q is None:
                continue
            numbers = q.dequantize()
            for key in (
                0,
                (1, 2),
                (slice(None), 1),
                (..., slice(16)),
                ([1, 0, 1],),
                (slice(1), [2, 0]),
                (1, ..., 3),
                (0, [1, 2]),
                (slice(None), 0, slice(64)),
                ([0, 1], slice(None), 3),
                (1, slice(None), [4, 2]),
            ):
                assert same(q[key], numbers[key]), (form, packed, key)
            if form["axis"] != 0 and packed == "packed":
                assert q[1]._store.packed
                assert q[1, 2]._store.packed
                right = q.mT if form["axis"] == -1 else q
                x = rng.standard_normal((4, right.shape[-2])).astype(np.float32)
                assert np.array_equal(x @ right[1, 2], (x @ right)[1, 2])
            for part, expected in zip(q, numbers):
                assert same(part, expected)


def test_an_element_has_its_own_scale(rng):
    """A row across the axis that shares scales: each of its elements came from another run."""
    q = fq.quantize(rng.standard_normal((8, 5)).astype(np.float32), 4, axis=0)
    row = q[3]
    assert (row.axis, row.group_size, row.scale.shape) == (0, 1, (5,))
    assert np.array_equal(row.scale, q.scale[0])


def test_balanced_and_rotated(rng):
    x = rng.standard_normal((128, 40)).astype(np.float32)
    d = rng.uniform(1, 9, 128).astype(np.float32)
    balanced = fq.quantize(x, 4, axis=0, balance=d, group_size=32)
    for key in (np.s_[:64], np.s_[:, 3:], np.s_[5], np.s_[:, 7], np.s_[32:, 16:32]):
        assert same(balanced[key], balanced.dequantize()[key])
    left = rng.standard_normal((3, 128)).astype(np.float32)
    parts = left[:, :64] @ balanced[:64] + left[:, 64:] @ balanced[64:]
    assert fq.error(left @ balanced, parts).sqnr_db > 35
    rotated = fq.quantize(np.repeat(x, 3, 0), 4, axis=0, balance=np.repeat(d, 3), rotate=True)
    assert rotated.rotation == 128
    for key in (np.s_[128:], np.s_[128:256, 5:], np.s_[:, 3], np.s_[:, [3, 1]]):
        assert same(rotated[key], rotated.dequantize()[key])
    for key in (np.s_[64:], np.s_[5], np.s_[[128, 129]], np.s_[::-1]):
        with pytest.raises(ValueError, match=r"whole blocks of 128|must stay"):
            rotated[key]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (200, IndexError),
        ((0, 0, 0), IndexError),
        (-201, IndexError),
        ("a", IndexError),
        (1.5, IndexError),
        ([300], IndexError),
        (np.ones(3, bool), IndexError),
        ((..., ...), IndexError),
        (slice(1.5), TypeError),
    ],
)
def test_wrong_indices_have_errors_of_numpy(rng, key, error):
    q = made(rng)
    with pytest.raises(error) as theirs:
        np.zeros(q.shape)[key]
    with pytest.raises(error) as ours:
        q[key]
    assert str(ours.value) == str(theirs.value)


def test_assignment_is_refused(rng):
    q = made(rng)
    with pytest.raises(TypeError, match="immutable"):
        q[0] = 1
    with pytest.raises(ValueError, match="cannot delete array elements"):
        del q[0]


# What else an array does


def test_iteration_is_over_the_first_axis(rng):
    for packed in PACKED:
        q = made(rng, (70, 20), packed, axis=None)
        assert sum(same(*pair) for pair in zip(q, q.dequantize())) == 70
    vector = fq.quantize(np.arange(4.0), axis=0)
    assert [float(v) for v in vector] == vector.dequantize().tolist()
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        iter(fq.quantize(1.0))


def test_truth_is_that_of_numpy():
    assert bool(fq.quantize([1.0]))
    assert not fq.quantize(0.0)
    for shape in ((2,), (0,), (3, 4)):
        q = fq.quantize(np.ones(shape))
        with pytest.raises((ValueError, DeprecationWarning)) as theirs:  # of an empty array, before NumPy 2.2
            bool(np.ones(shape))
        with pytest.raises(theirs.type) as ours:
            bool(q)
        assert str(ours.value) == str(theirs.value)


def test_numbers():
    assert float(fq.quantize(2.5)) == 2.5
    assert fq.quantize([[2.5]]).item() == 2.5
    with pytest.raises(TypeError, match="only 0-dim"):
        float(fq.quantize([1.0, 2.0]))
    with pytest.raises(ValueError, match="size 1"):
        fq.quantize([1.0, 2.0]).item()


def test_weak_references(rng):
    q = made(rng)
    assert q.T.mT is not None  # which are kept
    found = weakref.ref(q)
    assert found() is q
    gc.disable()  # no cycle keeps it, so that memory goes at once
    try:
        del q
        assert found() is None
    finally:
        gc.enable()


def test_types_change_without_codes(rng):
    q = made(rng, axis=0)
    wide = q.astype(np.float64)
    assert wide.dtype == np.float64
    assert np.array_equal(wide.codes, q.codes)
    assert same(wide, q.dequantize().astype(np.float64))
    assert (np.ones((2, 200), np.float32) @ wide).dtype == np.float64
    assert q.astype(np.float32) is q
    assert q.astype(np.float16).dequantize().dtype == np.float16


# Out-of-band and foreign memory


@pytest.mark.parametrize("packed", PACKED)
def test_pickle_out_of_band(isa, rng, packed):
    q = made(rng, (640, 512), packed, axis=None)
    buffers = []
    data = pickle.dumps(q, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 3000
    sent = sum(b.raw().nbytes for b in buffers)
    assert sent < 640 * 512 * (1 if packed == "not packed" else 0.4) + 8000
    shifted = [np.frombuffer(b"?" + bytes(b.raw()), np.uint8, offset=1) for b in buffers]  # at odd addresses, read-only
    again = pickle.loads(data, buffers=shifted)
    assert again.equals(q)
    x = rng.standard_normal((3, 640)).astype(np.float32)
    assert np.array_equal(x @ again, x @ q)


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_dlpack_gives_the_codes(rng, scheme, packed):
    q = made(rng, (64, 32), packed, axis=None, scheme=scheme)
    codes = np.from_dlpack(q)
    assert codes.dtype == (np.int8 if scheme == "symmetric" else np.uint8)
    assert np.array_equal(codes, q.codes)
    old = np.array(q.codes)

    class Old:  # a consumer of before read-only flags
        def __dlpack__(self, **kwargs):
            return q.__dlpack__()

        def __dlpack_device__(self):
            return q.__dlpack_device__()

    written = np.from_dlpack(Old())
    if written.flags.writeable:
        written[...] = 0
    assert np.array_equal(q.codes, old)
    assert q.device == "cpu"


def test_no_buffer_of_codes(rng):
    """``np.asarray`` would take them for the numbers."""
    q = made(rng)
    with pytest.raises(TypeError):
        memoryview(q)
    with pytest.raises(TypeError, match="dequantize"):
        np.asarray(q)
    assert memoryview(q.codes).nbytes == q.size


# Any index


@st.composite
def arrays(draw):
    """A quantized array of any form, perhaps packed, and an index that NumPy takes for its shape."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=40))
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    group = None if axis is None else draw(st.sampled_from([None, 1, 3, 16, 32]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = fq.quantize(
        rng.standard_normal(shape).astype(np.float32),
        draw(st.integers(2, 8)),
        axis=axis,
        group_size=group,
        scheme=draw(st.sampled_from(SCHEMES)),
    )
    if draw(st.booleans()):
        try:
            q.prepack()
        except ValueError:
            assert axis != len(shape) - 2
    return q


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(q=arrays(), data=st.data())
@pytest.mark.exhaustive
def test_any_basic_index(q, data):
    key = data.draw(hnp.basic_indices(q.shape, allow_newaxis=True))
    expected = q.dequantize()[key]
    part = attempt(lambda: q[key], "groups of one size")
    if part is None:
        assert q.group_size is not None
        return
    assert same(part, expected)
    assert not isinstance(part, fq.QArray) or consistent(part)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(q=arrays(), data=st.data())
@pytest.mark.exhaustive
def test_any_index_array(q, data):
    axis = data.draw(st.integers(0, q.ndim - 1))
    places = st.integers(-q.shape[axis], q.shape[axis] - 1)
    index = np.array(data.draw(st.lists(places, max_size=20)), int)
    if data.draw(st.booleans()):
        index = np.array(data.draw(st.lists(st.booleans(), min_size=q.shape[axis], max_size=q.shape[axis])), bool)
    rest = data.draw(st.sampled_from([(), (0,), (slice(1, None),)])) if axis + 1 < q.ndim else ()
    key = (*(slice(None),) * axis, index, *rest)
    expected = q.dequantize()[key]
    part = attempt(lambda: q[key], "groups of one size")
    if part is None:
        assert q.group_size is not None
        return
    assert same(part, expected)
    assert consistent(part)


def test_truth_as_an_index(rng):
    """As in NumPy: a new axis, of one element or of none."""
    q = fq.quantize(rng.standard_normal((70, 20)), 4, axis=0)
    x = q.dequantize()
    for key in (True, False, np.True_, np.array(False)):
        assert np.array_equal(q[key].dequantize(), x[key])
    assert np.array_equal(q[np.array(3)].dequantize(), x[3])
    assert np.array_equal(q[:, np.array(-1, np.int8)].dequantize(), x[:, -1])
