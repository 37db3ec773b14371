"""Search in quantized Dask arrays: what a search in memory gives."""

from __future__ import annotations

import numpy as np
import pytest

import fastq as fq

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")


@pytest.mark.parametrize("chunks", [(40, 32), (7, 16), (100, 32)])
def test_the_same_as_in_memory(chunks, rng):
    from fastq.interop import dask as fqd

    w, x = (rng.integers(-3, 4, (rows, 32)).astype(np.float32) for rows in (100, 9))  # with equal scores
    q, lazy = fq.quantize(w, axis=-1), fqd.quantize(da.from_array(w, chunks=chunks), axis=-1)
    bias = rng.integers(0, 3, 100).astype(np.float32)
    for queries in (x, da.from_array(x, chunks=(4, 16))):
        for k in (1, 10, 100):
            for options in ({}, {"largest": False}, {"bias": bias}):
                values, indices = fqd.top_k(queries, lazy, k, **options)
                assert values.shape == indices.shape == (9, k)
                expected = fq.top_k(x, q, k, **options)
                got = dask.compute(values, indices)
                assert values.dtype == got[0].dtype == expected[0].dtype
                assert indices.dtype == got[1].dtype == np.int64
                assert (got[0] == expected[0]).all()
                assert (got[1] == expected[1]).all()


def test_mistakes(rng):
    from fastq.interop import dask as fqd

    w = rng.standard_normal((20, 8)).astype(np.float32)
    lazy = fqd.quantize(da.from_array(w, chunks=(6, 8)), axis=-1)
    with pytest.raises(TypeError, match="q must be a matrix in a DaskQArray"):
        fqd.top_k(w, da.from_array(w))
    with pytest.raises(ValueError, match=r"x must be queries of 8 elements each, shape \(M, 8\); got \(20, 7\)"):
        fqd.top_k(w[:, :7], lazy)
    with pytest.raises(ValueError, match="k must be from 1 to the number of items, 20; got 21"):
        fqd.top_k(w, lazy, 21)
    with pytest.raises(TypeError, match="k must be an integer"):
        fqd.top_k(w, lazy, 2.5)
