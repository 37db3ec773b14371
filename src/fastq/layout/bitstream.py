"""The interchange layout: codes one after the other along an axis, `bits` bits each, lowest bits first.

Code i takes the bits ``i * bits .. (i + 1) * bits - 1`` of the stream, and bit j of the stream is bit ``j % 8`` of byte
``j // 8``; so the bytes of 16- and 32-bit words are those of little-endian ones. Eight codes are `bits` bytes. The last
byte is filled up with zeros. GPTQ's 2, 3, 4 and 8 bits, compressed-tensors' ``pack-quantized``, MLX and ONNX's
MatMulNBits all have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt

from fastq.layout.tiles import ceil_div

Bytes = npt.NDArray[np.uint8]

EIGHT = 8  # codes that are whole bytes whatever their width: one 64-bit word has a byte for each
AT_ONCE = 1 << 15  # such words: a few of their arrays stay in the cache
_WORD = np.dtype("<u8")


def stream_bytes(count: int, bits: int) -> int:
    """Bytes that so many codes take."""
    return ceil_div(count * bits, 8)


def pack_bits(codes: Bytes, bits: int) -> Bytes:
    """The streams of unsigned codes (of 1 to 8 bits, no bit above) along the last axis."""
    count = codes.shape[-1]
    streams = np.empty((*codes.shape[:-1], stream_bytes(count, bits)), np.uint8)
    lines, packed = _lines(codes), _lines(streams)
    for rows, first, words in _pieces(len(lines), count):
        some = lines[rows, first : first + words * EIGHT]
        lanes = np.zeros((len(some), words * EIGHT), np.uint8)
        lanes[:, : some.shape[1]] = some
        _move(lanes.view(_WORD), bits, together=True)
        into = packed[rows, first // EIGHT * bits : (first // EIGHT + words) * bits]
        for place in range(bits):
            target = into[:, place::bits]
            target[...] = lanes[:, place::EIGHT][:, : target.shape[1]]
    return streams


def unpack_bits(streams: Bytes, bits: int, count: int) -> Bytes:
    """So many codes of each stream along the last axis, which must be long enough."""
    codes = np.empty((*streams.shape[:-1], count), np.uint8)
    lines, packed = _lines(codes), _lines(streams)
    for rows, first, words in _pieces(len(lines), count):
        some = packed[rows, first // EIGHT * bits : (first // EIGHT + words) * bits]
        lanes = np.zeros((len(some), words * EIGHT), np.uint8)
        for place in range(bits):
            source = some[:, place::bits]
            lanes[:, place::EIGHT][:, : source.shape[1]] = source
        _move(lanes.view(_WORD), bits, together=False)
        into = lines[rows, first : first + words * EIGHT]
        into[...] = lanes[:, : into.shape[1]]
    return codes


def _lines(values: Bytes) -> Bytes:
    return values.reshape(prod(values.shape[:-1]), values.shape[-1])


def _pieces(lines: int, count: int) -> Iterator[tuple[slice, int, int]]:
    """Some lines, the first code of each, and how many words of eight codes; the last word may hold fewer."""
    whole = ceil_div(count, EIGHT)
    words = min(whole, AT_ONCE)
    step = max(1, AT_ONCE // max(1, words))
    for row in range(0, lines if whole else 0, step):
        for word in range(0, whole, words):
            yield slice(row, min(row + step, lines)), word * EIGHT, min(words, whole - word)


def _move(words: npt.NDArray[np.uint64], bits: int, together: bool) -> None:
    """Move the codes in the eight bytes of each word together, or apart again, in place.

    Pairs of lanes first become one lane each, then pairs of these, and so on: of 8, 16 and 32 bits.
    """
    for lane in (8, 16, 32) if together else (32, 16, 8):
        width = bits * lane // 8  # bits of a lane that are in use
        shift = np.uint64(lane - width)
        if not shift:
            continue
        low = np.uint64(sum((2**width - 1) << at for at in range(0, 64, 2 * lane)))
        far = low << np.uint64(lane if together else width)
        upper = words & far
        words &= low
        np.right_shift(upper, shift, out=upper) if together else np.left_shift(upper, shift, out=upper)
        words |= upper
