"""The interchange bit stream, against NumPy's packbits of single bits, and against words written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fastq.layout import bitstream
from fastq.layout.bitstream import pack_bits, stream_bytes, unpack_bits

SHAPES = [(0,), (1,), (7,), (8,), (3, 5), (2, 3, 17), (4, 64), (3, 0), (0, 3), (0, 0), (1, 3001), (300, 33)]


def definition(codes, bits):
    """Bit j of code i is bit ``i * bits + j`` of the stream."""
    single = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(single.reshape(*codes.shape[:-1], codes.shape[-1] * bits), axis=-1, bitorder="little")


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("at_once", [4, 1 << 15])
def test_there_and_back(monkeypatch, rng, bits, at_once):
    monkeypatch.setattr(bitstream, "AT_ONCE", at_once)  # many pieces, of lines and of parts of one
    for shape in SHAPES:
        codes = rng.integers(0, 2**bits, shape).astype(np.uint8)
        before = codes.copy()
        stream = pack_bits(codes, bits)
        assert stream.shape == (*shape[:-1], stream_bytes(shape[-1], bits))
        assert np.array_equal(stream, definition(codes, bits))
        kept = stream.copy()
        assert np.array_equal(unpack_bits(stream, bits, shape[-1]), codes)
        assert np.array_equal(stream, kept)
        assert np.array_equal(codes, before)


def test_strides(rng):
    codes = rng.integers(0, 8, (40, 6, 30)).astype(np.uint8)
    for some in (codes[::-2, :, ::3], codes.T, np.moveaxis(codes, 0, -1)):
        stream = pack_bits(some, 3)
        assert np.array_equal(stream, definition(some, 3))
        assert np.array_equal(unpack_bits(np.asfortranarray(stream), 3, some.shape[-1]), some)


def test_words_of_other_formats():
    codes = np.arange(32, dtype=np.uint8) % 8
    first, second, third = map(int, pack_bits(codes, 3).view("<u4"))
    value = sum(int(code) << 3 * i for i, code in enumerate(codes))  # GPTQ: 32 codes of 3 bits in three words
    assert value == first + (second << 32) + (third << 64)
    assert pack_bits(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]


def test_more_bytes_than_needed(rng):
    codes = rng.integers(0, 32, (3, 11)).astype(np.uint8)
    words = np.full((3, 12), 0xFF, np.uint8)
    words[:, :7] = pack_bits(codes, 5)
    assert np.array_equal(unpack_bits(words, 5, 11), codes)
    words[:, 6] |= 0x80  # behind the last code
    assert np.array_equal(unpack_bits(words, 5, 11), codes)
