"""The wire format of Protocol Buffers, held against the library that writes it, and against its own rules."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from fastq import FileFormatError
from fastq.formats import protobuf
from fastq.formats.binary import Bytes
from fastq.formats.protobuf import Message, Span

INTEGERS = [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -128, -(2**63)]


def message(tmp_path, data, wanted=range(1, 20)):
    (tmp_path / "file").write_bytes(data)
    file = Bytes(tmp_path / "file")
    return Message(file, "message", Span(0, file.size), wanted)


def test_fields(tmp_path):
    """As the library writes them: integers, texts, bytes, repeated ones."""
    proto = TensorProto(name="ä", data_type=2**31 - 1, raw_data=b"\0\xff", dims=INTEGERS, string_data=[b"", b"b"])
    proto.segment.begin = -3
    read = message(tmp_path, proto.SerializeToString(), (1, 2, 3, 6, 8, 9))
    assert (read.text(8), read.integer(2)) == ("ä", 2**31 - 1)
    assert read.integers(1).tolist() == INTEGERS
    assert read.file.raw("raw_data", *read.span(9)[:1], 2) == b"\0\xff"
    assert read.texts(6) == ["", "b"]
    assert Message(read.file, "segment", read.span(3), (1,)).integer(1) == -3
    assert (read.integer(7, 5), read.text(7, "none"), read.span(7)) == (5, "none", None)


@pytest.mark.parametrize("piece", [protobuf.PIECE, 7, 10])
def test_packed_integers(rng, tmp_path, monkeypatch, piece):
    """Of all lengths, cut into pieces anywhere."""
    monkeypatch.setattr(protobuf, "PIECE", max(piece, protobuf.LONGEST))
    values = rng.integers(0, 2**63, 500) >> rng.integers(0, 63, 500)
    values[::7] *= -1
    read = message(tmp_path, TensorProto(int64_data=values).SerializeToString())
    assert np.array_equal(read.integers(7, 500), values)
    with pytest.raises(FileFormatError, match="must hold 499 numbers, but holds 500"):
        read.integers(7, 499)


def test_numbers_packed_and_alone(tmp_path):
    packed = TensorProto(float_data=[1.5, -2]).SerializeToString()
    alone = b"".join(b"\x25" + np.float32(x).tobytes() for x in (3, 4))
    assert message(tmp_path, packed + alone).numbers(4, np.dtype("<f4"), 4).tolist() == [1.5, -2, 3, 4]
    alone = b"\x51" + np.float64(0.1).tobytes()
    assert message(tmp_path, alone).numbers(10, np.dtype("<f8"), 1).tolist() == [0.1]
    assert message(tmp_path, b"\x08\x01\x08\x81\x01\x0a\x02\x05\x06").integers(1).tolist() == [1, 129, 5, 6]
    assert message(tmp_path, b"\x08\x01\x08\x02").integer(1) == 2  # the last one counts


WRONG = [
    (b"\x08", "a number at offset 1 goes past the end of its message, at 1"),
    (b"\x08\x80\x80", "a number at offset 1 goes past the end"),
    (b"\x08" + b"\x80" * 10 + b"\x01", "a number at offset 1 has more than 10 bytes"),
    (b"\x00\x01", "the number 0, which is none"),
    (b"\xf8\xff\xff\xff\x7f\x01", "which is none"),
    (b"\x0b\x01", "field 1 before offset 1 has the wire type 3"),
    (b"\x0f\x01", "the wire type 7"),
    (b"\x0a\x03ab", "field 1 takes 3 bytes from offset 2, but its message ends at 4"),
    (b"\x0a" + b"\xff" * 9 + b"\x01", f"field 1 takes {2**64 - 1} bytes"),
    (b"\x0d\x01\x02\x03", "field 1 takes 4 bytes"),
    (b"\x09" + bytes(7), "field 1 takes 8 bytes"),
]


@pytest.mark.parametrize(("data", "problem"), WRONG)
def test_what_is_no_message(tmp_path, data, problem):
    with pytest.raises(FileFormatError) as error:
        message(tmp_path, data)
    assert problem in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'file'}: message: ")


def test_a_message_ends_where_it_ends(tmp_path):
    """Even where the file goes on."""
    outer = message(tmp_path, b"\x0a\x02\x0a\x05" + b"\x10\x01" * 4)
    with pytest.raises(FileFormatError, match="inner: field 1 takes 5 bytes from offset 4, but its message ends at 4"):
        Message(outer.file, "inner", outer.span(1), (1,))


@pytest.mark.parametrize(
    ("data", "read", "problem"),
    [
        (b"\x08\x01", lambda m: m.text(1), "must hold bytes, but holds a number"),
        (b"\x0a\x00", lambda m: m.integer(1), "must be a number, but holds bytes"),
        (b"\x0a\x01\xff", lambda m: m.text(1), "field 1 at offset 2 must be a text in UTF-8"),
        (b"\x0a\x02\x01\x80", lambda m: m.integers(1), "goes past their end"),
        (b"\x0a\x0c" + b"\x80" * 11 + b"\x01", lambda m: m.integers(1), "more than 10 bytes"),
        (b"\x0a\x03abc", lambda m: m.numbers(1, np.dtype("<f4"), 1), "must hold numbers of float32, got 3 bytes"),
    ],
)
def test_fields_of_other_types(tmp_path, data, read, problem):
    made = message(tmp_path, data)
    with pytest.raises(FileFormatError) as error:
        read(made)
    assert problem in str(error.value)
    assert str(tmp_path / "file") in str(error.value)


def test_a_long_run_of_high_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(protobuf, "PIECE", 10)
    data = b"\x0a\x1f" + b"\x80" * 30 + b"\x01"
    with pytest.raises(FileFormatError, match="more than 10 bytes"):
        message(tmp_path, data).integers(1)
