"""Affine arrays whose scale and offset are of 16 bits, the type in which their numbers are computed."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest

import fastq as fq
from fastq.qarray.parts import put_together, take_apart

KINDS = np.float16, ml_dtypes.bfloat16
N, K, GROUP = 40, 96, 32


def codes_and_parameters(rng, kind, axis=-1):
    shape = (N, K // GROUP) if axis == -1 else (K // GROUP, N)
    codes = rng.integers(16, size=(N, K) if axis == -1 else (K, N)).astype(np.uint8)
    scale, offset = (rng.standard_normal(shape).astype(kind) for _ in "ab")
    return codes, scale, offset


def made(codes, scale, offset, axis=-1, **more):
    return fq.from_parts(codes, scale, bits=4, offset=offset, axis=axis, group_size=GROUP, **more)


def numpys(codes, scale, offset, axis=-1):
    """As NumPy computes it: each result is rounded."""
    return np.repeat(scale, GROUP, axis) * codes.astype(scale.dtype) + np.repeat(offset, GROUP, axis)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_numpys(rng, kind):
    given = codes_and_parameters(rng, kind)
    q, right = made(*given), numpys(*given)
    assert {q.dtype, q.scale.dtype, q.offset.dtype, right.dtype} == {np.dtype(kind)}
    assert (q.dequantize() == right).all()
    assert (q.dequantize(np.float32) == right).all()
    assert q[3, 5] == right[3, 5]
    once = made(*given, dtype=np.float32).dequantize().astype(kind)
    assert (once != right).any()


@pytest.mark.parametrize("kind", KINDS)
def test_who_keeps_the_type(rng, kind, tmp_path):
    """Views, parts, pickles, files and folders: the same array again."""
    q = made(*codes_and_parameters(rng, kind))
    right = q.dequantize()
    assert fq.from_parts(**q.parts()).equals(q)
    assert fq.from_parts(**q.parts(packed=True)).equals(q)
    assert pickle.loads(pickle.dumps(q)).equals(q)
    assert put_together(*take_apart(q)).equals(q)
    q.save(tmp_path / "folder")
    fq.save(tmp_path / "file", {"x.weight": q, "y": q.T})
    opened = fq.open(tmp_path / "file")
    for other in fq.load(tmp_path / "folder"), opened["x.weight"], opened["y"].T:
        assert other.equals(q)
        assert (other.dequantize() == right).all()
    assert (q.T.dequantize() == right.T).all()
    assert (q[::3, 32:].dequantize() == right[::3, 32:]).all()
    assert (q.reshape(2, 20, K).dequantize() == right.reshape(2, 20, K)).all()
    assert (np.concatenate([q, q[:5]]).dequantize() == np.concatenate([right, right[:5]])).all()
    assert (np.concatenate([q, q], axis=1).dequantize() == np.concatenate([right, right], axis=1)).all()


def test_collections(rng, tmp_path):
    """Chunks of Dask and zarr."""
    da = pytest.importorskip("fastq.interop.dask")
    stored = pytest.importorskip("fastq.interop.zarr")
    for kind in KINDS:
        q = made(*codes_and_parameters(rng, kind))
        assert da.from_qarray(q, chunks=(16, 32)).compute().equals(q)
        stored.save(tmp_path / np.dtype(kind).name, q)
        assert stored.open(tmp_path / np.dtype(kind).name).equals(q)


@pytest.mark.parametrize("kind", KINDS)
def test_products_compute_in_float32(rng, kind):
    """They are those of the same parameters in float32, in every bit."""
    codes, scale, offset = codes_and_parameters(rng, kind, axis=0)
    q = made(codes, scale, offset, 0)
    wide = made(codes, scale.astype(np.float32), offset.astype(np.float32), 0)
    x = rng.standard_normal((7, K)).astype(np.float32)
    assert (x @ q == x @ wide).all()
    assert (q.T @ x.T == wide.T @ x.T).all()
    assert (q.T @ q == wide.T @ wide).all()
    assert (fq.matmul(x, q, activations="group") == fq.matmul(x, wide, activations="group")).all()
    assert (np.abs(x @ q - x @ wide.dequantize()) <= fq.matmul_error_bound(x, q)).all()
    assert fq.error_matmul(x, wide.dequantize(), q).total.sqnr_db > 20


@pytest.mark.parametrize("kind", KINDS)
def test_who_takes_float32(rng, kind):
    """What is not a plain affine array of that type, or is made another one."""
    codes, scale, offset = codes_and_parameters(rng, kind)
    wide = made(codes, scale.astype(np.float32), offset.astype(np.float32), dtype=kind)
    assert wide.dtype == kind
    once = (
        np.repeat(scale, GROUP, 1).astype(np.float32) * codes + np.repeat(offset, GROUP, 1).astype(np.float32)
    ).astype(kind)
    assert (wide.dequantize() == once).all()
    others = {
        "another dtype": made(codes, scale, offset, dtype=np.float32),
        "a balance": made(codes, scale, offset, balance=np.ones(K)),
        "a rotation": made(codes, scale, offset, rotation=32),
        "one of both": made(codes, scale, offset.astype(np.float32)),
        "a zero point": fq.from_parts(codes, scale, bits=4, zero_point=3, group_size=GROUP),
        "astype": made(codes, scale, offset).astype(np.float32),
        "a factor": made(codes, scale, offset) * np.float32(3),
    }
    for name, q in others.items():
        assert q.scale.dtype == np.float32, name
        assert fq.from_parts(**q.parts()).equals(q), name
    q = made(codes, scale, offset)
    assert not q.equals(wide)
    assert not wide.equals(q)
    assert (q * 2).dequantize(np.float32).max() == (2 * wide).dequantize(np.float32).max()


def test_own_files_tell_the_two_apart(rng, tmp_path):
    codes, scale, offset = codes_and_parameters(rng, np.float16)
    arrays = {"q": made(codes, scale, offset),
              "wide": made(codes, scale.astype(np.float32), offset.astype(np.float32), dtype=np.float16)}  # fmt: skip
    fq.save(tmp_path / "file", arrays)
    opened = fq.open(tmp_path / "file")
    for name, q in arrays.items():
        assert opened[name].equals(q)


def test_beyond_the_type(rng):
    """Infinity where the type has no more, as in NumPy, and no warning; MLX does the same."""
    codes = np.array([[0, 3]], np.uint8)
    q = fq.from_parts(codes, np.float16([[40000]]), bits=2, offset=np.float16([[1000]]))
    assert q.dequantize().tolist() == [[1000, np.inf]]


def test_joined_with_another(rng):
    codes, scale, offset = codes_and_parameters(rng, np.float16)
    q = made(codes, scale, offset)
    wide = made(codes, scale.astype(np.float32), offset.astype(np.float32), dtype=np.float16)
    for arrays in (q, wide), (wide, q):
        with pytest.raises(ValueError, match="scales of one type"):
            np.concatenate(arrays)


def test_attributes_that_lie(rng):
    arrays, attributes = take_apart(made(*codes_and_parameters(rng, np.float16)))
    assert attributes["narrow"] is True
    for name, value, reason in (
        ("narrow", 1, "true or false"),
        ("dtype", "float32", "16 bits"),
        ("scheme", "symmetric", "16 bits"),
    ):
        with pytest.raises(ValueError, match=reason):
            put_together(arrays, {**attributes, name: value})
    arrays["scale"] = arrays["scale"] + np.float32(1e-7)
    with pytest.raises(ValueError, match="exact in float16"):
        put_together(arrays, attributes)
