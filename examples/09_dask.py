"""Lesson 9: more than fits into memory: quantized arrays in chunks, with Dask.

Rows of 16,384 numbers, 4 GiB of them, are compared with 512 weight vectors of 3 bits. Neither x nor its product ever
exists as a whole: chunks are made, multiplied and forgotten, and the peak of memory is shown against the size of x.

A row is cut into four chunks along K. Its scale is still that of the whole row, the four products are summed as
integers, and rescaled once: so the product is bit for bit the one without chunks, which a slice of it shows.

At the end the weights go to a zarr store and come back: packed bytes, read chunk by chunk.
"""

import importlib.util
import sys
import tempfile

import numpy as np

import fastq as fq

try:
    import dask
    import dask.array as da
except ModuleNotFoundError:
    print('This lesson is about Dask: pip install ".[dask]" in a clone of fastq brings it.')
    sys.exit()

from fastq.interop.dask import from_qarray, quantize

ROWS, K, N = 65_536, 16_384, 512
CHUNK = 1024, 4096  # rows, and a quarter of K: 16 MiB


def peak():
    """The most memory that this process has had so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


pattern = np.random.default_rng(0).standard_normal(CHUNK, np.float32)


def chunk(block_id):
    """Some rows: a pattern that each chunk has at another size, because random numbers would take most of the time."""
    row, k = block_id
    return pattern * np.float32(1 + k + row / 100)


x = da.map_blocks(chunk, chunks=((CHUNK[0],) * (ROWS // CHUNK[0]), (CHUNK[1],) * (K // CHUNK[1])), dtype=np.float32)
w = da.random.default_rng(1).standard_normal((K, N), chunks=(CHUNK[1], 256), dtype=np.float32)
print(f"x: {x.shape} in {x.npartitions} chunks, {x.nbytes / 2**30:.1f} GiB; nothing of it is there yet")

# Weights: the scales of groups along K share a float scale by column, which crosses chunks; that is found first.
q = quantize(w, bits=3, axis=0, group_size=64).persist()
weights = q.compute()
print("equal to fq.quantize of the whole:", weights.equals(fq.quantize(w.compute(), bits=3, axis=0, group_size=64)))

with dask.config.set(num_workers=2):
    before = peak()
    best = (x @ q).argmax(axis=1).compute()
    after = peak()
print(f"product of {ROWS} x {K} x {N}: row {ROWS - 1} is closest to vector {best[-1]}")
if after is not None:
    share = (after - before) / (x.nbytes / 2**20)
    print(f"peak of memory: {before:.0f} MiB before, {after:.0f} MiB after; x is {x.nbytes / 2**20:.0f} MiB")
    print("the product took less than a fifth of x:", share < 1 / 5)

rows = slice(ROWS - 100, ROWS)
part = x[rows].compute()
print("a slice in chunks equals it whole:", np.array_equal((x[rows] @ q).compute(), part @ weights))

if importlib.util.find_spec("zarr") is None:
    print('Storing is left out: pip install ".[zarr]" in a clone of fastq brings zarr.')
    sys.exit()
from fastq.interop import zarr

with tempfile.TemporaryDirectory() as folder:
    zarr.save(f"{folder}/weights.zarr", q)
    stored = zarr.open_dask(f"{folder}/weights.zarr")
    print(
        f"stored in chunks of {stored.chunksize}; opened whole, equal:",
        zarr.open(f"{folder}/weights.zarr").equals(weights),
    )
    print("multiplied from the store, equal:", np.array_equal((x[rows] @ stored).compute(), part @ weights))

print("cut anew, equal:", np.array_equal((part @ from_qarray(weights, (2048, 128))).compute(), part @ weights))
