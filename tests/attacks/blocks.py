"""What is quantized, kept or multiplied in blocks is what it is in memory, bit by bit.

Memory maps and folders in blocks of a few elements, Dask arrays in chunks of any shape, zarr stores, and products of
all of these.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.interop import dask as interop
from fastq.storage import out_of_core

try:
    from fastq.interop import zarr as stores
except ImportError:  # it needs a later Python
    stores = None

from .draw import BFLOAT16, EDGES, Draw, exact
from .finding import REFUSALS, Finding, must, must_equal

Array = npt.NDArray[Any]
LENGTHS = (*EDGES, 80, 96, 128, 130, 200)


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """The one in use: blocks are cut alike on all of them."""
    return (None,)


def case(seed: int) -> None:
    """Quantize an array in memory and in blocks, and compare."""
    d = Draw(seed)
    shape = tuple(int(d.one_of(*LENGTHS)) for _ in range(d.one_of(1, 2, 2, 2, 2, 3)))
    attack = d.one_of(*ATTACKS)
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"), dask.config.set(scheduler="synchronous"):
        x = d.floats(shape)
        form = d.form(shape, d.below(len(shape)))
        if form.pop("calibration", None) is not None:
            del form["method"]  # whose last bits depend on the blocks
        try:
            q = fq.quantize(x, **form)
        except REFUSALS:
            q = None
        attack(d, Path(folder), x, form, q)


def _must_be(got: fq.QArray, want: fq.QArray | None, how: str) -> None:
    """Whether it is the same array, and multiplies as it does."""
    if want is None:
        raise Finding(f"{how}: what is refused in memory is quantized")
    must_equal(got, want, how)
    if got.ndim > 1:
        x = np.cos(np.arange(3.0 * got.shape[-2])).astype(np.float32).reshape(3, -1)
        products = []
        for one in (got, want):
            try:
                products.append(x @ one)
            except ValueError:
                products.append(np.zeros(0))
        must_equal(products[0], products[1], f"{how}: product with {want!r}")


# Files


def _in_files(d: Draw, folder: Path, x: Array, form: dict[str, Any], q: fq.QArray | None) -> None:
    """From a memory map, or into a folder, or both."""
    mapping = x.dtype.isnative and x.dtype != BFLOAT16 and d.chance(0.6)
    if mapping:
        held = np.memmap(folder / "x", x.dtype, "w+", shape=x.shape, order=d.one_of("C", "C", "F"))
        held[...] = x
        x = held
    out = folder / "q" if not mapping or d.chance(0.6) else None
    elements, span = d.one_of(16, 64, 200, 1000, 4096, 50000), d.one_of(64, 4096, 1 << 20)
    with mock.patch.multiple(out_of_core, IN_ONE_GO=0, BLOCK=elements, SETS=max(1, elements // 8), SPAN=span):
        try:
            got = fq.quantize(x, out=out, **form)
        except REFUSALS as error:
            must(q is None, f"in blocks: refused there only, {error}")
            must({file.name for file in folder.iterdir()} <= {"x"}, "in blocks: a failing call leaves a folder")
            return
    _must_be(got, q, "in blocks")


# Dask


def _chunks(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 + d.below(n) for n in shape)


def _in_chunks(d: Draw, folder: Path, x: Array, form: dict[str, Any], q: fq.QArray | None) -> None:
    """As a Dask array, which may be refused where chunks cannot be looked at one by one."""
    try:
        got = interop.quantize(da.from_array(x, chunks=_chunks(d, x.shape)), **form).compute()
    except REFUSALS as error:
        must(q is None or "must be one chunk" in str(error), f"in chunks: refused there only, {error}")
        return
    _must_be(got, q, "in chunks")


def _in_zarr(d: Draw, folder: Path, x: Array, form: dict[str, Any], q: fq.QArray | None) -> None:
    """Saved in a store, and opened as a whole and by chunks."""
    if q is None or stores is None:
        return
    path = folder / "q.zarr"
    chunks = _chunks(d, q.shape)
    stores.save(path, interop.from_qarray(q, chunks) if d.chance(0.3) and q.ndim else q, chunks=chunks)
    _must_be(stores.open(path), q, "in zarr")
    _must_be(stores.open_dask(path, d.one_of(None, _chunks(d, q.shape))).compute(), q, "in zarr, by chunks")


def _multiplied(d: Draw, folder: Path, x: Array, form: dict[str, Any], q: fq.QArray | None) -> None:
    """A product of chunks."""
    if q is None or q.ndim != 2:
        return
    k = q.shape[0]
    a = d.floats((1 + d.below(40), k))
    try:
        want = a @ q
        bound = fq.matmul_error_bound(a, q)
    except REFUSALS:
        return
    lazy = interop.matmul(da.from_array(a, chunks=_chunks(d, a.shape)), interop.from_qarray(q, _chunks(d, q.shape)))
    got = lazy.compute()
    floats = (form["axis"] == 0 and q.group_size is not None and q.group_scale is None) or q.balance is not None
    if not floats and q.scheme != "affine":
        must_equal(got, want, f"a product in chunks, with {q!r}")
        return
    # Each chunk of K is rescaled by itself, and their sum is rounded; there are fewer of them than elements.
    left, right = exact(a), exact(q)
    values, magnitudes = left.values @ right.values, left.magnitudes @ right.magnitudes
    room = bound + k * 2.0**-23 * magnitudes
    must(got.shape == want.shape, f"a product in chunks: shape {got.shape}, not {want.shape}")
    off = ~(np.abs(got - values) <= room) & np.isfinite(room)
    must(not off.any(), f"a product in chunks beyond the bound, with {q!r}")


ATTACKS: tuple[Callable[..., None], ...] = (_in_files, _in_files, _in_files, _in_chunks, _in_zarr, _multiplied)
