"""Quantized arrays on a cluster of two processes: the same numbers, and weights that travel packed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastq as fq

pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

import dask.array as da  # noqa: E402

from fastq.interop.dask import from_qarray, matmul, quantize  # noqa: E402

K, N = 512, 256


@pytest.fixture(scope="module")
def client():
    """Two worker processes with two threads each."""
    options = {
        "n_workers": 2,
        "threads_per_worker": 2,
        "processes": True,
        "dashboard_address": None,
        "host": "127.0.0.1",
    }
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def w(rng):
    return rng.standard_normal((K, N), np.float32)


def on_every_worker(client, function):
    return client.run(function).values()


def test_quantize_and_multiply(client, rng, w):
    x = rng.standard_normal((96, K), np.float32)
    rows, weights = da.from_array(x, chunks=(32, 128)), da.from_array(w, chunks=(128, 64))
    for form in ({"axis": 0}, {"axis": 0, "bits": 3, "group_size": 64}, {"scheme": "asymmetric", "bits": 4}):
        q, d = fq.quantize(w, **form), quantize(weights, **form)
        assert d.compute().equals(q)
        assert np.array_equal((rows @ d).compute(), x @ q)
    a = rng.integers(-128, 128, (64, K)).astype(np.int8)
    assert np.array_equal(matmul(da.from_array(a, chunks=(32, 128)), da.from_array(a.T.copy(), chunks=128)).compute(),
                          a.astype(int) @ a.T.astype(int))  # fmt: skip


def test_weights_stay_on_workers_and_are_used_again(client, rng, w):
    d = quantize(da.from_array(w, chunks=(256, 64)), 3, axis=0, group_size=64).persist()
    distributed.wait(d)
    q = fq.quantize(w, 3, axis=0, group_size=64)
    for _ in range(2):
        x = rng.standard_normal((8, K), np.float32)
        assert np.array_equal((x @ d).compute(), x @ q)
    held = sum(client.nbytes([f.key for f in distributed.futures_of(d)], summary=False).values())
    assert (
        3 / 8 < held / w.size < 6 / 8
    )  # packed; chunks as small as these have nearly as many bytes of scales and sums


def test_both_workers_work(client, w):
    """Each knows the chunk type, and starts no threads of kernels beside its own."""
    d = quantize(da.from_array(w, chunks=(64, 64)), 3, axis=0).persist()
    distributed.wait(d)
    assert all(client.has_what().values())
    rows = da.from_array(np.tile(w.T, (4, 1)), chunks=(128, 64))
    (rows @ d).compute()

    def threads_of_kernels():
        import threading

        return sum(t.name.startswith("fastq-") for t in threading.enumerate())

    def knows():
        from dask.array.chunk_types import is_valid_chunk_type
        from dask.sizeof import sizeof

        import fastq as fq

        q = fq.quantize([[1.0, 2.0]] * 1000, axis=0)
        return is_valid_chunk_type(fq.QArray) and sizeof(q) == q.nbytes

    assert set(on_every_worker(client, threads_of_kernels)) == {0}
    assert set(on_every_worker(client, knows)) == {True}


def test_errors_come_back(client, w):
    w[200, 100] = np.nan
    with pytest.raises(fq.NotFiniteError, match=r"^x\.blocks\[1, 1\] must be finite, .* index \(72, 36\) \(nan\)"):
        quantize(da.from_array(w, chunks=(128, 64)), axis=0).compute()


def wire(value):
    """Bytes in the pickle itself, and beside it."""
    buffers = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(body), sum(b.raw().nbytes for b in buffers)


@pytest.mark.parametrize("form", [{}, {"group_size": 64}], ids=str)
def test_weights_travel_packed(rng, form):
    w = rng.standard_normal((K, N), np.float32)
    chunk = quantize(da.from_array(w, chunks=(256, N)), 3, axis=0, **form).blocks[0, 0].compute()
    header, frames = distributed.protocol.serialize(chunk)
    assert 3 / 8 <= sum(memoryview(frame).nbytes for frame in frames) / chunk.size < 3.7 / 8  # with scales and sums
    body, beside = wire(chunk)
    assert body < 2048
    assert 3 / 8 <= beside / chunk.size < 3.6 / 8
    assert distributed.protocol.deserialize(header, frames).equals(chunk)


def test_a_worker_gets_its_chunks_alone(client, w):
    """The array that from_qarray cut does not travel with each of its chunks."""
    q = fq.quantize(w, 3, axis=0)
    d = from_qarray(q, (64, 64))
    graph = d.__dask_graph__()
    each = [sum(wire(graph[key])) for key in d.__dask_keys__()[0]]
    assert max(each) < q.nbytes / 8
    assert d.compute().equals(q)


def test_workers_write_and_read_zarr(client, tmp_path, w):
    pytest.importorskip("zarr", minversion="3")
    from fastq.interop import zarr as fz

    form = {"axis": 0, "bits": 3, "group_size": 64}
    fz.save(tmp_path / "q", quantize(da.from_array(w, chunks=(128, 64)), **form))
    assert fz.open(tmp_path / "q").equals(fq.quantize(w, **form))
    assert fz.open_dask(tmp_path / "q").compute().equals(fq.quantize(w, **form))
