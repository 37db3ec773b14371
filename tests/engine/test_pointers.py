"""Addresses for jobs: no array that is not as the job says gets through."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import fastq
from fastq.engine.backend import pack_right
from fastq.engine.operands import ChannelTransform, LineParams, column_parameters
from fastq.engine.pointers import address_if, flat, of_bytes, rows, strided, written
from fastq.engine.prepared import LeftForm, NativeProduct
from fastq.kernels.epilogue.outputs import Output
from fastq.layout.tiles import segments
from fastq.scheme import CodeRange

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


def unaligned(n, dtype=np.float32):
    return np.zeros(n * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype)


def read_only(array):
    array.flags.writeable = False
    return array


BAD_FLAT = {
    "reversed": np.zeros(8, F4)[::-1],
    "every other": np.zeros(16, F4)[::2],
    "broadcast": np.broadcast_to(np.float32(1), (8,)),
    "by columns": np.zeros((2, 4), F4, order="F"),
    "too short": np.zeros(7, F4),
    "another type": np.zeros(8, F8),
    "swapped bytes": np.zeros(8, ">f4"),
    "unaligned": unaligned(8),
}


@pytest.mark.parametrize("name", BAD_FLAT)
def test_flat_memory_is_contiguous_aligned_and_long_enough(name):
    for door in (flat, written):
        with pytest.raises(RuntimeError, match=r"a kernel needs .*float32.* a mistake in fastq"):
            door(BAD_FLAT[name], F4, 8)
    assert address_if(BAD_FLAT[name], (8,), F4) is None


def test_flat_memory_that_is_as_it_must_be():
    x = np.zeros((2, 4), F4)
    assert flat(x, F4, 8) == written(x, F4, 8) == address_if(x, (2, 4), F4) == x.ctypes.data
    assert flat(x[1:], F4, 4) == x.ctypes.data + 16
    assert flat(read_only(np.zeros(3)), F8, 3)
    for other in ((8,), (4, 2), (2, 4, 1)):
        assert address_if(x, other, F4) is None
    assert address_if(x.view(np.matrix), (2, 4), F4) is None
    assert address_if([1.0], (1,), F8) is None


def test_what_is_written_may_be_written():
    with pytest.raises(RuntimeError, match="memory that may be written"):
        written(read_only(np.zeros(3)), F8, 3)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 5), F4)[:, ::-1],
        np.zeros((5, 3), F4).T,
        np.zeros((3, 10), F4)[:, ::2],
        np.zeros((3, 5), F8),
        np.zeros((2, 5), F4),
        np.zeros((3, 6), F4),
        unaligned(15).reshape(3, 5),
        np.lib.stride_tricks.as_strided(np.zeros(99, F4), (3, 5), (21, 4)),
    ],
)
def test_rows_are_contiguous_and_whole_elements_apart(matrix):
    with pytest.raises(RuntimeError, match="a kernel needs"):
        rows(matrix, F4, (3, 5))


def test_rows_may_lie_anyhow():
    whole = np.zeros((6, 8), F4)
    assert rows(whole, F4, (6, 8)) == (whole.ctypes.data, 8)
    assert rows(whole[::2, 1:6], F4, (3, 5)) == (whole.ctypes.data + 4, 16)
    assert rows(whole[::-1], F4, (6, 8)) == (whole.ctypes.data + 5 * 32, -8)
    assert rows(whole[:, ::4][:, :1], F4, (6, 1)) == (whole.ctypes.data, 8)


def test_what_the_reference_sees_lies_in_the_array():
    x = np.arange(24.0)
    assert (strided(x, 4, (2, 3, 2), (10, 3, 1)) == [[[4, 5], [7, 8], [10, 11]], [[14, 15], [17, 18], [20, 21]]]).all()
    assert strided(x, 99, (2, 0), (50, 1)).shape == (2, 0)
    strided(x, 23, (1, 1), (7, 1))[...] = -1
    assert x[23] == -1
    for array, shape in ((x, (2, 13)), (x[::2], (1, 3)), (np.zeros((4, 6), order="F"), (2, 3))):
        with pytest.raises(RuntimeError, match=r"a kernel needs .* contiguous elements"):
            strided(array, 0, shape, (12, 1))


def test_bytes_may_lie_anyhow_but_must_be_bytes():
    codes = np.zeros((4, 6), np.int8)
    assert of_bytes(codes.T, (6, 4)) == (codes.ctypes.data, 1, 6)
    assert of_bytes(codes[::-1, ::2], (4, 3)) == (codes.ctypes.data + 18, -6, 2)
    for bad, shape in ((codes.astype(np.int16), (4, 6)), (codes, (4, 7))):
        with pytest.raises(RuntimeError, match="a matrix of bytes"):
            of_bytes(bad, shape)


def test_no_other_module_asks_for_addresses():
    """Else an array could reach a kernel by another way. (maps.py gives pages back, memory.py makes memory,
    and peers.py calls other libraries.)"""
    package = Path(fastq.__file__).parent
    asked = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            if name in ("ctypes", "address_of", "__array_interface__", "ctypeslib") and (
                name != "ctypes" or isinstance(node, ast.Attribute)
            ):
                asked.add(path.relative_to(package).as_posix())
    assert asked == {"bench/peers.py", "engine/memory.py", "engine/pointers.py", "storage/maps.py"}


# Jobs that are told of arrays which do not fit


@pytest.fixture
def packed():
    rng = np.random.default_rng(0)
    return pack_right(rng.integers(0, 8, (100, 20)).astype(np.uint8), 0, 3, segments(100))


@pytest.mark.parametrize(
    "change",
    [
        {"tiles": np.zeros(100, np.uint8)},
        {"n": 40},
        {"k_segments": segments(200)},
        {"groups": np.zeros((1, 1, 2, 16), np.uint8), "group_size": 16},
    ],
)
def test_packed_operands_hold_as_much_as_they_say(packed, change):
    for name, value in change.items():
        setattr(packed, name, value)
    packed.__dict__.pop("address")
    with pytest.raises(RuntimeError, match="a kernel needs"):
        assert (packed.address, packed.groups_address) == (0, 0)


def prepared(packed, k_segments, transform=None):
    """The product of three rows of floats with a packed operand."""
    columns = column_parameters(LineParams(CodeRange(0, 7), 3), packed, packed.k_segments, F4, False)
    return NativeProduct(LeftForm(3, 100, F4, 127, transform), packed, columns, k_segments, Output("float32"))


def test_balance_in_another_order_is_not_taken_for_one_in_this_order(packed):
    factors = np.ones(100, F4)
    for bad in (factors[::-1], factors[:99], factors.astype(F8), np.broadcast_to(np.float32(1), 100)):
        with pytest.raises(RuntimeError, match="a kernel needs 100 contiguous elements of float32"):
            prepared(packed, segments(100), ChannelTransform(bad, 1))


def test_operands_of_a_product_are_cut_alike(packed):
    """However it may come about: the job is not filled."""
    with pytest.raises(RuntimeError, match="cut alike"):
        prepared(packed, segments(100, 10))
