"""Dask arrays of quantized arrays: the same numbers as without Dask, and nothing computed before it is asked for."""

from __future__ import annotations

import doctest
import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastq as fq
from fastq.machine import pool

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

from dask.sizeof import sizeof  # noqa: E402

from fastq.interop.dask import DaskQArray, from_qarray, matmul, quantize  # noqa: E402

M, K, N = 50, 200, 70

FORMS = {
    "column": {"axis": 0},
    "row": {"axis": 1},
    "whole": {},
    "whole, asymmetric": {"scheme": "asymmetric"},
    "column, asymmetric": {"axis": 0, "scheme": "asymmetric", "bits": 4},
    "column, affine": {"axis": 0, "scheme": "affine"},
    "whole, affine": {"scheme": "affine", "bits": 3},
    "groups, integer": {"axis": 0, "group_size": 64, "bits": 3},
    "groups of 48, integer, asymmetric": {"axis": 0, "group_size": 48, "bits": 3, "scheme": "asymmetric"},
    "groups along rows": {"axis": -1, "group_size": 16, "bits": 4},
    "groups, float": {"axis": 0, "group_size": 32, "group_scale": "float", "bits": 4},
    "groups, affine": {"axis": 0, "group_size": 10, "scheme": "affine", "bits": 2},
    "mse": {"axis": 0, "method": "mse", "bits": 4},
    "mse, groups": {"axis": 0, "method": "mse", "group_size": 32, "bits": 3},
    "percentile": {"axis": 1, "method": fq.Percentile(99)},
    "given": {"axis": 0, "scale": np.linspace(0.1, 0.2, N)},
    "given by group": {"axis": 0, "group_size": 50, "scale": 0.05, "zero_point": np.arange(N), "scheme": "asymmetric"},
    "balanced": {"axis": 0, "balance": np.linspace(1, 2, K)},
}  # fmt: skip
EXACT = ("column", "whole", "whole, asymmetric", "column, asymmetric", "groups, integer",
         "groups of 48, integer, asymmetric", "given")  # fmt: skip


@pytest.fixture
def w(rng):
    return rng.standard_normal((K, N), np.float32) + np.float32(0.3)


@pytest.fixture
def x(rng):
    values = rng.standard_normal((M, K), np.float32)
    values[:, 160:] *= 4  # the largest of a row lies in its last chunk
    return values


def lazy(array, *chunks):
    return da.from_array(array, chunks=chunks)


def watched(array, *chunks):
    """A Dask array, and a list that grows when one of its chunks is computed."""
    seen = []

    def chunk(values):
        seen.append(values.shape)
        return values

    return lazy(array, *chunks).map_blocks(chunk, meta=np.empty((0, 0), array.dtype)), seen


# Quantizing


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunks", [(64, 32), (-1, 32), (77, -1), (-1, -1)], ids=str)
def test_quantize_is_that_of_numpy(w, name, chunks):
    found = quantize(lazy(w, *chunks), **FORMS[name])
    expected = fq.quantize(w, **FORMS[name])
    assert type(found) is DaskQArray
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    computed = found.compute(scheduler="synchronous")
    assert computed.equals(expected)
    assert (computed.axis_scale is None) == (expected.axis_scale is None)
    form = "bits", "scheme", "axis", "group_size", "rotation"
    assert all(getattr(found._meta, f) == getattr(expected, f) for f in form)
    assert (found._meta.axis_scale is None) == (expected.axis_scale is None)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int32])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_quantize_other_types(w, dtype, axis):
    values = (10 * w).astype(dtype)
    found = quantize(lazy(values, 64, 32), axis=axis)
    expected = fq.quantize(values, axis=axis)
    assert found.dtype == expected.dtype
    assert found.compute().equals(expected)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_quantize_more_and_fewer_dimensions(rng, axis):
    values = rng.standard_normal((6, 40, 33))
    assert quantize(lazy(values, 4, 16, 20), 3, axis=axis).compute().equals(fq.quantize(values, 3, axis=axis))
    if axis in (None, 0):
        assert quantize(lazy(values[0, 0], 10), axis=axis).compute().equals(fq.quantize(values[0, 0], axis=axis))
    if axis is None:
        assert quantize(da.from_array(values[0, 0, 0])).compute().equals(fq.quantize(values[0, 0, 0]))


def test_quantize_nothing_and_empty_chunks(w):
    assert quantize(lazy(w[:0], 4, 32), axis=0).compute().equals(fq.quantize(w[:0], axis=0))
    keep = np.arange(K) // 64 != 1
    holes = lazy(w, 64, 32)[lazy(keep, 64)]
    with pytest.raises(ValueError, match=r"^x must have chunks of known sizes; .* call x\.compute_chunk_sizes\(\)"):
        quantize(holes)
    assert 0 in holes.compute_chunk_sizes().chunks[0]
    assert quantize(holes, axis=0).compute().equals(fq.quantize(w[keep], axis=0))
    assert np.array_equal(
        (holes.T @ from_qarray(fq.quantize(w[keep], axis=0))).compute(), w[keep].T @ fq.quantize(w[keep], axis=0)
    )


def test_quantize_many_chunks(rng):
    """Extremes are reduced in a tree."""
    values = rng.standard_normal((150, 2))
    for form in ({}, {"axis": 0, "scheme": "affine"}):
        found = quantize(lazy(values, 3, 1), **form)
        assert found.compute().equals(fq.quantize(values, **form))
        assert max(map(len, found.dask.get_all_dependencies().values())) < 20


def test_quantize_of_fastq_leaves_it_to_dask(w):
    found = fq.quantize(lazy(w, 64, 32), 3, axis=0, group_size=32)
    assert isinstance(found, da.Array)
    assert found.compute().equals(fq.quantize(w, 3, axis=0, group_size=32))


def test_quantize_is_lazy(w):
    values, seen = watched(w, 64, 32)
    for form in ({"axis": 0}, {}, {"axis": 1, "method": "mse"}, {"axis": 0, "group_size": 48, "bits": 3}):
        quantize(values, **form)
    assert seen == []
    quantize(values, axis=0).compute(scheduler="synchronous")
    assert len(seen) == 4 * 3  # each chunk once, for both passes


def test_quantize_gptq(rng, w):
    seen = rng.standard_normal((300, K)).cumsum(axis=1)
    form = {"axis": 0, "group_size": 64, "bits": 3, "method": "gptq", "calibration": seen}
    assert quantize(lazy(w, 64, 32), **form).compute().equals(fq.quantize(w, **form))


def test_few_rows_are_told_of_once_and_not_by_workers(rng, w):
    form = {"axis": 0, "group_size": 64, "bits": 3, "method": "gptq", "calibration": rng.standard_normal((30, K))}
    with pytest.warns(UserWarning, match="calibration must show"):
        found = quantize(lazy(w, 64, 32), **form)
    assert found.compute().equals(fq.quantize(w, **{**form, "method": "mse"}))


def test_quantize_rotated(rng):
    values = rng.standard_normal((192, 40), np.float32)
    form = {"axis": 0, "balance": np.linspace(1, 3, 192), "rotate": True}
    found = quantize(lazy(values, 64, 16), **form)
    assert found._meta.rotation == 64
    assert found.compute().equals(fq.quantize(values, **form))


def test_chunks_move_to_whole_groups(w):
    assert quantize(lazy(w, 77, 32), 3, axis=0, group_size=48).chunks[0] == (96, 96, 8)


def test_chunks_of_fewer_bits_are_packed(w):
    for axis in (0, 1, None):
        chunk = quantize(lazy(w, 64, 64), 3, axis=axis).blocks[0, 0].compute()
        assert chunk._store.packed
        assert sizeof(chunk) == chunk.nbytes < 64 * 64


SHARED = [{"axis": 0}, {}, {"axis": 0, "bits": 3, "group_size": 16}, {"axis": 0, "method": "mse"}]
ALONE = [{"axis": 0, "group_size": 20, "bits": 7, "scheme": "affine"}, {"axis": 0, "scale": 1}]


@pytest.mark.parametrize("form", SHARED + ALONE, ids=str)
def test_not_finite(w, form):
    w[130, 40] = np.nan
    q = quantize(lazy(w, 64, 32), **form)
    if form:
        q[:10, :30].compute()
    wanted = q if form in ALONE else q[:10, 35:]  # what is not finite spoils all that shares its scale
    with pytest.raises(fq.NotFiniteError, match=r"^x\.blocks\[\d, 1\] must be finite, .* 1 of \d+ values is not"):
        wanted.compute()


def test_not_finite_tells_the_chunk(w):
    w[130, 40] = np.inf
    with pytest.raises(fq.NotFiniteError, match=r"^x\.blocks\[2, 1\] must .* first at index \(2, 8\) \(inf\)$"):
        quantize(lazy(w, 64, 32), axis=0).compute()


REFUSED = {
    "an array in memory": (lambda x: quantize(x.compute()), TypeError,
        r"^x must be a Dask array; got ndarray: use fastq for arrays in memory, or da\.from_array$"),
    "bits": (lambda x: quantize(x, 9), ValueError, r"bits must be from 2 to 8, got 9"),
    "axis": (lambda x: quantize(x, axis=2), ValueError, r"axis must be from -2 to 1 for an array of 2 .*, got 2"),
    "type": (lambda x: quantize(x > 0), TypeError, r"x must be of real numbers .*, got dtype bool"),
    "scheme": (lambda x: quantize(x, scheme="odd"), ValueError, r"scheme must be one of .* got 'odd'"),
    "method": (lambda x: quantize(x, method="odd"), ValueError, r"method must be one of .* got 'odd'"),
    "whole": (lambda x: quantize(x, method="mse"), ValueError,
        r"^method='mse' with axis=None looks at all elements at once, .* got 12 chunks: give an axis, or call x\.re"),
    "both": (lambda x: quantize(x, method="mse", scale=1), ValueError,
        r"method='mse' chooses the scale, so scale must be left out; got both"),
    "shape": (lambda x: quantize(x, axis=0, scale=np.ones(3)), ValueError,
        r"scale must broadcast to shape \(1, 70\), .* got shape \(3,\)"),
    "zero point": (lambda x: quantize(x, zero_point=3), ValueError, r"zero_point must come with a scale"),
    "calibration": (lambda x: quantize(x, axis=0, calibration=x), ValueError,
        r"calibration is for method 'mse' or 'gptq'"),
    "balance": (lambda x: quantize(x, balance=np.ones(3)), ValueError, r"balance needs the axis along which"),
    "rotation": (lambda x: quantize(x[:6], axis=0, rotate=True), ValueError, r"rotate needs a multiple of 16"),
    "groups": (lambda x: quantize(x, axis=0, group_size=10, group_scale="integer"), ValueError,
        r"group_scale='integer' needs a group_size that is a multiple of 16"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_computed(w, name):
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call(lazy(w, 64, 32))


# The collection


def test_it_stays_a_quantized_array(w):
    q = fq.quantize(w, 3, axis=0)
    d = from_qarray(q, (64, 32))
    assert d.chunks == ((64, 64, 64, 8), (32, 32, 6))
    same = [
        (d[3:130, ::2], q[3:130, ::2]), (d[:, [5, 1, 69]], q[:, [5, 1, 69]]), (d.rechunk((100, 16)), q), (d.T, q.T),
        (np.transpose(d), q.T), (d.transpose(), q.T), (d.persist(), q), (d.copy(), q), (-d, -q), (d * 2, q * 2),
        (2 * d, q * 2), (d / 4, q / 4), (np.negative(d), -q), (np.multiply(d, 2.0), q * 2.0),
        (d.astype(np.float64), q.astype(np.float64)),
        (pickle.loads(pickle.dumps(d)), q), (dask.optimize(d)[0], q), (d.swapaxes(0, 1), q.T),
        (d.map_blocks(np.negative, meta=-q), -q), (np.concatenate([d, d], axis=1), np.concatenate([q, q], axis=1)),
    ]  # fmt: skip
    computed = dask.compute(*(found for found, _ in same))
    for number, ((found, expected), array) in enumerate(zip(same, computed)):
        assert type(found) is DaskQArray, number
        assert array.equals(expected), number
    numbers = d.dequantize()
    assert type(numbers) is da.Array
    assert np.array_equal(numbers.compute(), q.dequantize())
    assert d.dequantize(np.float64).dtype == np.float64


def test_dask_takes_quantized_arrays_by_itself(w, x):
    """As chunks of its own arrays, whose products are right."""
    q = fq.quantize(w, 3, axis=0, group_size=64)
    d = da.from_array(q, chunks=(64, 32))
    assert isinstance(d._meta, fq.QArray)
    assert d.compute().equals(q)
    assert d.rechunk((128, 70)).compute().equals(q)
    assert d[64:, 3:].compute().equals(q[64:, 3:])
    rows = lazy(x, 20, 64)
    for y in (
        da.matmul(rows, d),
        rows @ d,
        da.tensordot(rows, d, 1),
        da.matmul(rows, from_qarray(q, (64, 32))),
        rows @ q,
    ):
        assert close(y, x, q)
    whole = lazy(x, 20, -1)
    assert np.array_equal((whole @ q).compute(), x @ q)


def test_from_qarray_cuts_at_whole_groups(w):
    q = fq.quantize(w, 3, axis=0, group_size=48)
    assert from_qarray(q, (50, 32)).chunks[0] == (96, 48, 48, 8)
    assert from_qarray(q, (50, 32)).compute().equals(q)
    assert from_qarray(q).compute().equals(q)


def test_token(w):
    """Equal for equal arrays, in whatever way they are packed; different where anything differs."""
    q = fq.quantize(w, 3)
    tokens = {dask.base.tokenize(p) for p in (q, fq.quantize(w, 3), fq.quantize(w, 3).prepack(), q.T.prepack().T)}
    assert len(tokens) == 1
    other = w.copy()
    other[150, 60] = -other[150, 60]
    forms = [(w, {"bits": 4}), (other, {}), (w, {"axis": 0}), (w, {"scheme": "asymmetric"}), (w.astype(float), {}),
             (w, {"axis": 0, "group_size": 64}), (w, {"axis": 0, "group_size": 100}), (w[:-1], {}),
             (w, {"axis": 0, "balance": np.ones(K)}), (w, {"scale": 0.5}), (w, {"scale": 0.25})]  # fmt: skip
    tokens |= {dask.base.tokenize(fq.quantize(a, **{"bits": 3, **form})) for a, form in forms}
    assert len(tokens) == 1 + len(forms)
    tokens |= {dask.base.tokenize(q.T), dask.base.tokenize(q[:, :64]), dask.base.tokenize(-q)}
    assert len(tokens) == 4 + len(forms)


NAMES = """
import numpy as np, dask.array as da, fastq as fq
from fastq.interop.dask import from_qarray, matmul, quantize
w = np.sin(np.arange(2000, dtype=np.float32)).reshape(100, 20)
x = da.from_array(w.T.copy(), chunks=(10, 40))
q = quantize(x.T, 3, axis=0)
print(da.core.tokenize(fq.quantize(w, 3, axis=0)), q.name, from_qarray(fq.quantize(w), 64).name, (x @ q).name)
"""


def test_names_are_the_same_in_every_process():
    printed = {subprocess.run([sys.executable, "-c", NAMES], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(printed) == 1


# Products


def close(y, x, q, k=K):
    """Whether a product is that of the numbers, but for x in 8 bits, half a step by element, and float32's rounding."""
    weights = q.dequantize(np.float64)
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    bound = step / 2 * np.abs(weights).sum(axis=0) + 1e-5 * np.abs(x) @ np.abs(weights)
    return (np.abs(y.compute() - x.astype(np.float64) @ weights) <= bound).all()


@pytest.mark.parametrize("name", EXACT)
def test_products_are_those_of_numpy(w, x, name):
    q = fq.quantize(w, **FORMS[name])
    d, rows = quantize(lazy(w, 64, 32), **FORMS[name]), lazy(x, 20, 77)
    expected, turned = fq.matmul(x, q), fq.matmul(q.T, x.T)
    products = {
        "@": rows @ d, "np.matmul": np.matmul(rows, d), "matmul": matmul(rows, d), "np.dot": np.dot(rows, d),
        "tensordot": np.tensordot(rows, d, 1), "tensordot, axes": np.tensordot(rows, d, ((1,), (0,))),
        "dot, turned": d.T.dot(rows.T), "array @": x @ d, "np.matmul, array": np.matmul(x, d), "fq": fq.matmul(rows, d),
        "QArray": matmul(rows, q), "fq, QArray": fq.matmul(rows, q), "turned": d.T @ rows.T, "turned array": d.T @ x.T,
        "tensordot, turned": np.tensordot(d, rows, ([0], [1])),
    }  # fmt: skip
    computed = dask.compute(*products.values())
    for (way, y), found in zip(products.items(), computed):
        wanted = turned if "turned" in way else expected
        assert type(y) is da.Array, way
        assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype), way
        assert np.array_equal(found, wanted), way


@pytest.mark.parametrize("name", sorted(FORMS.keys() - set(EXACT) - {"row", "groups along rows", "percentile"}))
def test_other_products_are_right(w, x, name):
    q, d, rows = fq.quantize(w, **FORMS[name]), quantize(lazy(w, 64, 32), **FORMS[name]), lazy(x, 20, 77)
    assert close(rows @ d, x, q)
    assert close(rows @ from_qarray(q, (64, 32)), x, q)  # what needs whole columns to be quantized, cut afterwards
    one = lazy(x, 20, -1) @ from_qarray(q, (-1, 32))
    assert np.array_equal(one.compute(), x @ q)


def test_the_scale_of_a_row_is_that_of_the_whole_row(x):
    """What chunks by themselves would be multiplied by differs, and so would sums."""
    q = fq.quantize(np.eye(K, dtype=np.float32), axis=0)
    whole, chunks = x @ q, da.matmul(lazy(x, 20, 40), from_qarray(q, (40, K))).compute()
    assert not np.array_equal(whole, chunks)
    assert np.array_equal((lazy(x, 20, 40) @ from_qarray(q, (40, K))).compute(), whole)


def test_chunks_of_x_move_to_whole_groups(w, x):
    q = fq.quantize(w, 3, axis=0, group_size=16)
    assert np.array_equal(matmul(lazy(x, 20, 77), q).compute(), x @ q)


def test_rows_of_the_smallest_numbers(x):
    """Their scale has so few bits that the largest code rounds up to one that floats on the left do without."""
    tiny = np.finfo(np.float32).smallest_subnormal
    rows = np.where(x > 0, 255, -255).astype(np.float32) * tiny
    a, q = lazy(rows, 20, 77), fq.quantize(np.eye(K, dtype=np.float32) * 2.0**100, axis=0)
    assert fq.quantize(rows, axis=1).codes.min() == -128
    assert np.array_equal(matmul(a, q).compute(), rows @ q)


def test_products_of_two_quantized_and_of_two_floats(w, x):
    a, b = fq.quantize(x, axis=1, scheme="asymmetric"), fq.quantize(w, 3, axis=0, group_size=16)
    rows, columns = (
        quantize(lazy(x, 20, 77), axis=1, scheme="asymmetric"),
        quantize(lazy(w, 50, 20), 3, axis=0, group_size=16),
    )
    expected = a @ b
    for y in (rows @ columns, a @ columns, matmul(rows, b), np.matmul(rows, columns)):
        assert np.array_equal(y.compute(), expected)
    assert np.array_equal(matmul(lazy(x, 20, 77), lazy(w, 50, 20)).compute(), fq.matmul(x, w))
    assert np.array_equal(matmul(lazy(x, 20, 77), w, bits=5).compute(), fq.matmul(x, w, bits=5))


def test_products_of_integers(rng):
    for left, right in (("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8")):
        a, b = (rng.integers(0, 256, shape).astype(t) for shape, t in (((30, 700), left), ((700, 20), right)))
        y = matmul(lazy(a, 16, 100), lazy(b, 128, 8))
        assert y.dtype == np.int32
        assert np.array_equal(y.compute(), a.astype(int) @ b.astype(int))
        assert matmul(lazy(a, 16, 100), b, dtype=np.float64).dtype == np.float64
        q = fq.quantize(b.astype(np.float32), axis=0)
        assert np.array_equal((lazy(a, 16, 100) @ from_qarray(q, (128, 8))).compute(), a @ q)


def test_integers_that_leave_int32():
    a = np.full((1, 40_000), 255, np.uint8)
    rows = lazy(a, 1, 10_000)
    with pytest.raises(OverflowError, match=r"must fit int32, but it reaches 2601000000; pass dtype=np\.int64"):
        matmul(rows, rows.T).compute()
    assert matmul(rows, rows.T, dtype=np.int64).compute() == 40_000 * 255**2
    assert matmul(rows, a.T - np.uint8(155)).compute() == 40_000 * 25500
    with pytest.raises(OverflowError, match=r"reaches 2601000000"):
        matmul(a, lazy(a.T, -1, 1)).compute()  # in one chunk


def test_long_k_is_closer_than_float_sums(rng):
    """Sums of 140,000 products of 8 bits may leave int32, so they are int64, and rounded once."""
    a, b = np.ones((2, 140_000), np.float32), np.ones((140_000, 1), np.float32)
    y = matmul(lazy(a, 2, 20_000), quantize(lazy(b, 20_000, 1), axis=0))
    scale = np.float32(1) / np.float32(127)
    assert (y.compute() == np.float32(127 * 127 * 140_000) * scale * scale).all()


def test_long_k_of_groups_with_zero_points():
    """Codes of 4 bits times integer scales reach 120, whether or not there are zero points: sums may leave int32."""
    k = 147_456
    q = fq.quantize(np.ones((k, 1), np.float32), 4, axis=0, group_size=64, scheme="asymmetric")
    assert (q.codes == 15).all()
    assert (q.group_scale == 8).all()
    assert (q.zero_point == 0).all()
    y = matmul(lazy(np.full((1, k), 127, np.int8), 1, k // 2), from_qarray(q, (k // 2, 1))).compute()
    assert y == np.float32(127 * 120 * k) * q.axis_scale


@pytest.mark.parametrize("way", ["group", "two-plane"])
def test_activations(w, x, way):
    q = fq.quantize(w, axis=0)
    bound = fq.matmul_error_bound(x, q)
    lazy, exact = da.from_array(x, chunks=(7, 32)), x.astype(float) @ q.dequantize(float)
    one = fq.matmul(da.from_array(x, chunks=(7, -1)), q, activations=way)
    assert (one.compute() == fq.matmul(x, q, activations=way)).all()
    finer = q.with_activations(way)
    for y in (fq.matmul(lazy, q, activations=way), fq.matmul(lazy, finer), lazy @ finer):
        error = np.abs(y.compute() - exact)
        assert (error <= bound).all()
        assert error.max() < 0.8 * np.abs(x @ q - exact).max()
    with pytest.raises(ValueError, match="activations must be one of"):
        fq.matmul(lazy, q, activations="column").compute()


def test_chunks_with_different_scales(rng, w, x):
    """Arrays that were quantized apart and put together: their sums are rescaled before they meet."""
    parts = [fq.quantize(part, axis=0) for part in (w[:100], 5 * w[100:])]
    d = da.concatenate([da.from_array(q, chunks=q.shape) for q in parts])
    numbers = np.concatenate([q.dequantize() for q in parts])
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    bound = step / 2 * np.abs(numbers).sum(axis=0) + 1e-5 * np.abs(x) @ np.abs(numbers)
    y = matmul(lazy(x, 20, 100), d).compute()
    assert (np.abs(y - x.astype(float) @ numbers) <= bound).all()


@pytest.mark.parametrize("chunks", [(20, 77), (50, -1)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_types_and_bias(rng, w, x, dtype, chunks):
    q, bias = fq.quantize(w, 4, axis=0), rng.standard_normal(N)
    y = matmul(lazy(x, *chunks), quantize(lazy(w, *chunks), 4, axis=0), bias=bias, dtype=dtype)
    expected = fq.matmul(x, q, bias=bias, dtype=dtype)
    assert y.dtype == expected.dtype
    assert np.array_equal(y.compute(), expected)
    for kind in (np.float16, np.float64, np.int32, np.uint8, bool):
        left = (2 * x).astype(kind)
        y = lazy(left, *chunks) @ from_qarray(q, (64, 32))
        expected = left @ q
        assert y.dtype == expected.dtype
        assert np.array_equal(y.compute(), expected)


def test_bias_of_integers(rng):
    a = np.full((2, 60), 127, np.int8)
    bias = np.array([2**31 - 1, 5])
    y = matmul(lazy(a, 2, 20), lazy(a.T, 20, 2), bias=np.array([3, -5]))
    assert np.array_equal(y.compute(), fq.matmul(a, a.T, bias=np.array([3, -5])))
    with pytest.raises(OverflowError, match="must fit int32"):
        matmul(lazy(a, 2, 20), lazy(a.T, 20, 2), bias=bias).compute()
    assert np.array_equal(
        matmul(lazy(a, 2, 20), lazy(a.T, 20, 2), bias=bias, dtype=np.int64).compute(),
        a.astype(int) @ a.T.astype(int) + bias,
    )


def test_vectors_and_stacks(rng, w, x):
    q = fq.quantize(w, 3, axis=0)
    d, v = quantize(lazy(w, 64, 32), 3, axis=0), fq.quantize(w[:, 0], axis=0)
    row = lazy(x[0], 77)
    stack = rng.standard_normal((3, 1, 6, K), np.float32)
    weights = rng.standard_normal((4, K, 9), np.float32)
    deep = fq.quantize(weights, 3, axis=1, group_size=32)
    pairs = [
        (row @ d, x[0] @ q), (x[0] @ d, x[0] @ q), (d.T @ row, q.T @ x[0]), (matmul(row, v), x[0] @ v),
        (lazy(x, 20, 77) @ from_qarray(v, 64), x @ v), (lazy(stack, 2, 1, 5, 64) @ d, stack @ q),
        (lazy(x, 20, 77) @ quantize(lazy(weights, 2, 64, 5), 3, axis=1, group_size=32), x @ deep),
        (lazy(stack, 2, 1, 5, 64) @ from_qarray(deep, (3, 100, 4)), stack @ deep),
        (x[:0] @ d, x[:0] @ q), (lazy(x[:, :0], 20, 1) @ from_qarray(q[:0]), x[:, :0] @ q[:0]),
    ]  # fmt: skip
    computed = dask.compute(*(y for y, _ in pairs))
    for number, ((y, expected), found) in enumerate(zip(pairs, computed)):
        assert y.shape == np.shape(expected), number
        assert np.array_equal(found, expected), number


def test_what_numpy_multiplies_dask_does(rng):
    a = rng.integers(-1000, 1000, (20, 30))
    y = matmul(lazy(a, 10, 10), lazy(a.T, 10, 10))
    assert y.dtype == np.int64
    assert np.array_equal(y.compute(), a @ a.T)


def test_products_are_lazy(w, x):
    values, seen = watched(x, 20, 77)
    weights, also_seen = watched(w, 64, 32)
    q, d = fq.quantize(w, axis=0), quantize(weights, axis=0)
    products = [
        values @ d,
        np.matmul(values, d),
        np.tensordot(values, d, 1),
        np.dot(values, d),
        values @ q,
        q.T @ values.T,
    ]
    products += [
        np.matmul(values, q),
        da.tensordot(values, d, 1),
        matmul(values, q),
        matmul(values, weights),
        x @ d,
        fq.matmul(values, d),
    ]
    assert all(isinstance(y, da.Array) for y in products)
    assert seen == also_seen == []
    products[0].compute(scheduler="synchronous")
    assert len(seen) == 3 * 3
    assert len(also_seen) == 4 * 3


def test_one_kernel_thread_per_worker_thread(many_cores, w, x):
    """Every call of a kernel is made with one thread, whatever the machine has: no job is shared."""
    large, weights = np.tile(x, (20, 4)), np.tile(w, (4, 6))
    before = pool._pool.epoch()
    for chunks in ((200, 200), (500, 800)):
        y = lazy(large, *chunks) @ quantize(lazy(weights, 400, 210), 3, axis=0, group_size=80)
        y.compute(scheduler="threads", num_workers=2)
    assert pool._pool.epoch() == before
    fq.matmul(large, weights)
    assert pool._pool.epoch() > before  # without Dask, some are


def test_a_product_that_cannot_be(w, x):
    d, rows = quantize(lazy(w, 64, 32), axis=0), lazy(x, 20, 77)
    with pytest.raises(ValueError, match=r"matmul: Input operand 1 has a mismatch in its core dimension 0"):
        matmul(rows.T, d)
    with pytest.raises(ValueError, match=r"does not have enough dimensions"):
        matmul(d, 3)
    with pytest.raises(TypeError, match=r"dtype must be one of float16, float32, float64"):
        matmul(rows, d, dtype=np.int8)
    x[30, 150] = np.nan
    words = r"scale of the right operand must be constant along .* \(200, 70\) with axis=1, whose .*: quantize it with "
    with pytest.raises(ValueError, match=words + r"axis=-2 or axis=None, or multiply q\.dequantize\(\)$"):
        matmul(rows, quantize(lazy(w, 64, 32), axis=1))
    with pytest.raises(ValueError, match=r"scale of the left operand .* axis=0, whose .*: quantize it with axis=-1 or"):
        matmul(quantize(lazy(x, 20, 77), axis=0), lazy(w, 64, 32))
    with pytest.raises(TypeError, match=r"^q must be a QArray, as fastq\.quantize makes it; got ndarray$"):
        from_qarray(w)
    places = {
        77: r"^a\.blocks\[1, 1\] must .* index \(10, 73\) \(nan\)$",
        -1: r"^a must be finite.* index \(10, 150\) \(nan\); indices are those of a chunk$",
    }
    for length, words in places.items():
        with pytest.raises(fq.NotFiniteError, match=words):
            (lazy(x, 20, length) @ quantize(lazy(w, length, 32), axis=0)).compute()


@pytest.mark.parametrize("name", ["dask", "quantizing"])
def test_examples_in_docstrings(name):
    failures, tried = doctest.testmod(importlib.import_module(f"fastq.interop.{name}"))
    assert failures == 0 < tried
