"""Messages of Protocol Buffers in a file: the fields of one message at a time, each held against the message's end.

A message is a run of fields. Each begins with a tag, ``number * 8 + wire type``, a varint: seven bits to a byte, lowest
first, with the high bit set in all bytes but the last. The wire type says what follows: 0 a varint, 1 eight bytes, 5
four bytes, 2 a length and so many bytes (text, a message, packed numbers); 3 and 4, groups, are no longer written.
Nothing here knows what the numbers mean, and nothing goes deeper by itself. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.formats.binary import Array, Bytes

VARINT, EIGHT, RUN, FOUR = 0, 1, 2, 5  # wire types
LONGEST = 10  # bytes of a varint: 64 bits
MOST_NUMBER = 2**29 - 1
PIECE = 1 << 20  # bytes of packed varints at a time


class Span(NamedTuple):
    """Where bytes lie in the file."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many."""
        return self.stop - self.start


Value = int | Span


def varint(file: Bytes, data: memoryview, place: str, at: int, stop: int) -> tuple[int, int]:
    """A varint, and where it ends; `data` is the file's."""
    value = 0
    for count in range(LONGEST):
        if at >= stop:
            file.fail(place, f"a number at offset {at - count} goes past the end of its message, at {stop}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    return file.fail(place, f"a number at offset {at - LONGEST} has more than {LONGEST} bytes")


def fields(file: Bytes, place: str, span: Span) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message, in order: an integer, or where its bytes lie."""
    data, (at, stop) = file.data.data, span
    while at < stop:
        tag = data[at]  # most numbers take one byte, so they are read here
        at += 1
        if tag >= 0x80:
            tag, at = varint(file, data, place, at - 1, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= MOST_NUMBER:
            file.fail(place, f"a field before offset {at} has the number {number}, which is none")
        if wire in (FOUR, EIGHT):
            size = 4 if wire == FOUR else 8
        elif wire not in (VARINT, RUN):
            file.fail(place, f"field {number} before offset {at} has the wire type {wire}, which is not in use")
        elif at < stop and data[at] < 0x80:
            size = data[at]
            at += 1
        else:
            size, at = varint(file, data, place, at, stop)
        if wire == VARINT:
            yield number, size
            continue
        if size > stop - at:
            file.fail(place, f"field {number} takes {size} bytes from offset {at}, but its message ends at {stop}")
        yield number, Span(at, at + size) if wire == RUN else file.integer(place, at, size)
        at += size


class Message:
    """Some fields of a message, by number, as lists; what has another type than is asked for raises FileFormatError."""

    def __init__(self, file: Bytes, place: str, span: Span, wanted: Collection[int]) -> None:
        self.file, self.place = file, place
        self._values: dict[int, list[Value]] = {}
        for number, value in fields(file, place, span):
            if number in wanted:
                self._values.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def spans(self, number: int) -> list[Span]:
        """All runs of bytes of a repeated field."""
        values = self._values.get(number, [])
        runs = [value for value in values if isinstance(value, Span)]
        if len(runs) < len(values):
            self.file.fail(self.place, f"field {number} must hold bytes, but holds a number")
        return runs

    def span(self, number: int) -> Span | None:
        """Where the bytes of a field lie; the last one counts."""
        runs = self.spans(number)
        return runs[-1] if runs else None

    def integer(self, number: int, default: int = 0) -> int:
        """A signed integer; the last one counts."""
        values = self._values.get(number)
        if not values:
            return default
        if isinstance(values[-1], Span):
            self.file.fail(self.place, f"field {number} must be a number, but holds bytes")
        return signed(values[-1])

    def text(self, number: int, default: str = "") -> str:
        """A text; the last one counts."""
        run = self.span(number)
        return default if run is None else self._decoded(number, run)

    def texts(self, number: int) -> list[str]:
        """All texts of a repeated field."""
        return [self._decoded(number, run) for run in self.spans(number)]

    def _decoded(self, number: int, run: Span) -> str:
        try:
            return str(self.file.data.data[run.start : run.stop], "utf-8")
        except UnicodeDecodeError as error:
            self.file.fail(self.place, f"field {number} at offset {run.start} must be a text in UTF-8: {error.reason}")

    def integers(self, number: int, count: int | None = None) -> npt.NDArray[np.int64]:
        """All integers of a repeated field, be they packed in runs or one by one; `count` is how many must be there."""
        parts = [
            packed_varints(self.file, self.place, value)
            if isinstance(value, Span)
            else np.array([signed(value)], np.int64)
            for value in self._values.get(number, [])
        ]
        return self._joined(number, parts, np.dtype(np.int64), count)

    def numbers(self, number: int, dtype: np.dtype[np.generic], count: int) -> Array:
        """All floats of a repeated field, likewise."""
        parts = []
        for value in self._values.get(number, []):
            if isinstance(value, Span):
                if value.size % dtype.itemsize:
                    self.file.fail(self.place, f"field {number} must hold numbers of {dtype}, got {value.size} bytes")
                parts.append(self.file.array(self.place, value.start, dtype, (value.size // dtype.itemsize,)))
            else:
                parts.append(np.array([value], np.uint64).astype(f"<u{dtype.itemsize}").view(dtype))
        return self._joined(number, parts, dtype, count)

    def _joined(self, number: int, parts: list[Array], dtype: np.dtype[np.generic], count: int | None) -> Array:
        total = sum(len(part) for part in parts)
        if count is not None and total != count:
            self.file.fail(self.place, f"field {number} must hold {count} numbers, but holds {total}")
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def signed(value: int) -> int:
    """The integer of 64 bits in two's complement."""
    return value - 2**64 if value >= 2**63 else value


def packed_varints(file: Bytes, place: str, span: Span) -> npt.NDArray[np.int64]:
    """Integers that lie one after the other."""
    data = file.array(place, span.start, np.uint8, (span.size,))
    if span.size and data[-1] >= 0x80:
        file.fail(place, f"the last of the numbers at offset {span.start} goes past their end, at {span.stop}")
    numbers = np.empty(int(np.count_nonzero(data < 0x80)), np.int64)
    done = first = 0
    while first < span.size:
        some = data[first : first + PIECE]
        ends = np.flatnonzero(some < 0x80)
        if not len(ends):
            file.fail(place, f"a number at offset {span.start + first} has more than {LONGEST} bytes")
        starts = np.concatenate([[0], ends[:-1] + 1])
        longest = int((ends - starts).max()) + 1
        if longest > LONGEST:
            file.fail(place, f"a number after offset {span.start + first} has more than {LONGEST} bytes")
        values = np.zeros(len(ends), np.uint64)
        for byte in range(longest):
            within = starts + byte <= ends
            values[within] |= (some[starts[within] + byte] & 0x7F).astype(np.uint64) << np.uint64(7 * byte)
        numbers[done : done + len(ends)] = values.view(np.int64)
        done, first = done + len(ends), first + int(ends[-1]) + 1
    return numbers
