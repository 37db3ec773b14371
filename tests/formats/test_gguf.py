"""Files of GGUF: the same bits as ggml's, from files of the gguf package; and files with mistakes in them."""

from __future__ import annotations

import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

import fastq as fq
from fastq.formats import ggml_blocks
from fastq.formats.binary import Bytes
from fastq.formats.ggml_blocks import BLOCK_TYPES, FACTORS
from fastq.formats.ggml_types import BFLOAT16, OTHER_TYPES, PLAIN_TYPES
from fastq.formats.gguf import entries, metadata

from .gguf_files import plain, random_blocks, values, write

TYPES = pytest.mark.parametrize("number", BLOCK_TYPES, ids=lambda number: BLOCK_TYPES[number].name)


def same_bits(mine, theirs):
    assert mine.dtype == theirs.dtype == np.float32
    assert mine.shape == theirs.shape
    assert (mine.view(np.uint32) == theirs.view(np.uint32)).all()


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def handwritten(path, tensors: bytes = b"", values: bytes = b"", counts=(0, 0), data: bytes = b"", version=3):
    """A file by the written layout, for what the gguf package does not write."""
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + values + tensors
    path.write_bytes(header + bytes(-len(header) % 32) + data)
    return path


def tensor(name: bytes, shape, number: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset)


# Blocks


def test_types_are_those_of_gguf():
    assert {*BLOCK_TYPES, *PLAIN_TYPES, *OTHER_TYPES}.issuperset(map(int, GGMLQuantizationType))
    for number, form in BLOCK_TYPES.items():
        assert form.name == GGMLQuantizationType(number).name
        assert (form.size, form.layout.itemsize) == GGML_QUANT_SIZES[number]
    for number, kind in PLAIN_TYPES.items():
        assert GGML_QUANT_SIZES[number] == (1, 2 if kind == BFLOAT16 else np.dtype(kind).itemsize)
    for number, other in OTHER_TYPES.items():
        if number in GGML_QUANT_SIZES and other.name != "Q8_1":  # its factors are float16 in ggml, and float32 in gguf
            assert (other.name, other.size, other.nbytes) == (
                GGMLQuantizationType(number).name,
                *GGML_QUANT_SIZES[number],
            )


@TYPES
def test_blocks_have_the_bits_of_gguf(number, tmp_path, monkeypatch):
    monkeypatch.setattr(ggml_blocks, "AT_ONCE", 1024)  # several rounds
    form = BLOCK_TYPES[number]
    raw = random_blocks(np.random.default_rng(number), form, (7, 5), 6)
    q = fq.open(write(tmp_path / "model", {"w": (raw, number)}))["w"]
    assert (q.bits, q.group_size, q.axis, q.dtype) == (form.bits, form.group, 2, np.float32)
    assert q.scheme == ("affine" if form.offset else "symmetric")
    same_bits(q.dequantize(), gguf.quants.dequantize(raw, GGMLQuantizationType(number)))


@TYPES
def test_blocks_have_the_bits_of_ggml(number):
    libgguf = pytest.importorskip("libgguf")
    form = BLOCK_TYPES[number]
    raw = random_blocks(np.random.default_rng(number + 100), form, (64,), 8)
    codes, scale, offset = ggml_blocks.decode(form, raw.view(form.layout))
    q = fq.from_parts(codes, scale, offset=offset, bits=form.bits, group_size=form.group)
    same_bits(q.dequantize(), np.asarray(libgguf.dequantize_rows(raw, number, n_per_row=8 * form.size)))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_what_gguf_has_quantized(name, tmp_path):
    """Zeros among it, whose scale is 0."""
    kind = GGMLQuantizationType[name]
    x = np.random.default_rng(0).standard_normal((6, 64), np.float32)
    x[2] = 0
    raw = gguf.quants.quantize(x, kind)
    same_bits(fq.open(write(tmp_path / "model", {"w": (raw, kind)}))["w"].dequantize(), gguf.dequantize(raw, kind))


def test_a_product(tmp_path):
    rng, form = np.random.default_rng(1), BLOCK_TYPES[12]
    raw = random_blocks(rng, form, (8,), 2)
    for field in ("d", "dmin"):
        raw.view(form.layout)[field] = 0.01 * rng.standard_normal((8, 2))
    w = fq.open(write(tmp_path / "model", {"w": (raw, 12)}))["w"]
    x = rng.standard_normal((3, 512), np.float32)
    exact = x.astype(np.float64) @ gguf.dequantize(raw, GGMLQuantizationType.Q4_K).T.astype(np.float64)
    assert (abs(x @ w.T - exact) <= fq.matmul_error_bound(x, w.T)).all()


@TYPES
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_factors_that_are_not_finite(number, value, tmp_path):
    form = BLOCK_TYPES[number]
    raw = random_blocks(np.random.default_rng(0), form, (2,), 3)
    field = form.layout.names[-1] if form.layout.names[-1] in FACTORS else "d"
    raw.view(form.layout)[field][1, 1] = value
    opened = fq.open(write(tmp_path / "model", {"w": (raw, number), "b": np.ones(3, np.float32)}))
    with pytest.raises(fq.FileFormatError, match=f"model: array 'w': .* finite, but {field} of block 4 is {value}"):
        opened["w"]
    assert (opened["b"] == 1).all()


# Tensors


def test_plain_tensors(tmp_path):
    opened = fq.open(write(tmp_path / "model", plain(), add=values))
    assert (opened.format, len(opened)) == ("GGUF", 7)
    for name, array in plain().items():
        assert opened.entry(name)[:3] == (array.shape, name, array.nbytes)
        assert opened[name].dtype == array.dtype
        assert (opened[name] == array).all()
        assert not opened[name].flags.writeable


def test_bfloat16(tmp_path, monkeypatch):
    x = np.array([[1.5, -2, 0.1]], np.float32).astype(ml_dtypes.bfloat16)
    opened = fq.open(write(tmp_path / "model", {"b": (x.view(np.uint8), 30)}))
    assert opened.entry("b")[:3] == ((1, 3), "bfloat16", 6)
    assert opened["b"].dtype == ml_dtypes.bfloat16
    assert (opened["b"] == x).all()
    monkeypatch.setattr("fastq.formats.binary.find_spec", lambda name: None)
    assert opened["b"].dtype == np.float32
    assert (opened["b"] == x.astype(np.float32)).all()


def test_shapes(tmp_path):
    """The fastest dimension comes first in the file, and last in NumPy; a stack of matrices stays one."""
    stack = random_blocks(np.random.default_rng(0), BLOCK_TYPES[12], (4, 3), 2)
    given = {"stack": (stack, 12), "line": (stack[0, 0], 12), "array": np.arange(24.0).reshape(2, 3, 4, 1)}
    opened = fq.open(write(tmp_path / "model", given))
    assert {name: opened.entry(name).shape for name in opened} == {
        "stack": (4, 3, 512),
        "line": (512,),
        "array": (2, 3, 4, 1),
    }
    assert opened.entry("stack")[1:3] == ("4 bits, groups of 32 (Q4_K)", stack.nbytes)
    assert (opened["array"] == given["array"]).all()
    assert (opened["line"].dequantize() == opened["stack"].dequantize()[0, 0]).all()
    x = np.ones((1, 512), np.float32)
    assert (x @ opened["stack"].mT).shape == (4, 1, 3)


def test_a_number_alone_and_nothing(tmp_path):
    path = handwritten(tmp_path / "a", tensor(b"n", (), 0), counts=(1, 0), data=struct.pack("<f", 2.5))
    assert fq.open(path)["n"] == 2.5
    path = handwritten(tmp_path / "b", tensor(b"n", (0, 3), 0), counts=(1, 0))
    assert fq.open(path)["n"].shape == (3, 0)
    assert len(fq.open(handwritten(tmp_path / "c"))) == 0


@pytest.mark.parametrize("alignment", [1, 4, 256])
def test_alignment(alignment, tmp_path):
    value = text(b"general.alignment") + struct.pack("<II", 4, alignment)
    x = np.array([1, 2, 3], "<f8")
    header = b"GGUF" + struct.pack("<IQQ", 2, 2, 1) + value + tensor(b"a", (3,), 24) + tensor(b"x", (3,), 28, alignment)
    data = b"\1\2\3".ljust(alignment, b"\0")[:alignment] + x.tobytes()
    (tmp_path / "model").write_bytes(header + bytes(-len(header) % alignment) + data)
    opened = fq.open(tmp_path / "model")
    assert (opened["x"] == x).all()
    assert opened["x"].flags.aligned
    assert opened["a"][0] == 1


def test_types_that_are_not_read(tmp_path):
    """Each is named with the reason; the others are read."""
    header, data = tensor(b"b", (3,), 24), b"\1\2\3".ljust(32)
    for number, other in OTHER_TYPES.items():
        header += tensor(b"w%d" % number, (other.size, 2), number, len(data))
        data += bytes(2 * other.nbytes + 32)
    header += tensor(b"w77", (3,), 77)
    opened = fq.open(handwritten(tmp_path / "a", header, counts=(2 + len(OTHER_TYPES), 0), data=data))
    assert opened["b"].tolist() == [1, 2, 3]
    for number, other in OTHER_TYPES.items():
        assert opened.entry(f"w{number}")[:3] == ((2, other.size), other.name, 2 * other.nbytes)
        with pytest.raises(fq.FileFormatError, match=f"array 'w{number}': fastq does not read {other.name}: "):
            opened[f"w{number}"]
    with pytest.raises(fq.FileFormatError, match="does not read type 77: it is none that fastq knows"):
        opened["w77"]


# Values


def test_values(tmp_path):
    found = metadata(Bytes(write(tmp_path / "model", {"x": np.ones(3, np.float32)}, add=values)))
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        assert found[name] == 100
    assert found["bool"] is True
    assert (found["string"], found["general.architecture"]) == ("zwölf", "llama")
    assert found["integers"].tolist() == [1, -2, 3]
    assert found["floats"].tolist() == [0.5, -1.5]
    assert found["bools"].tolist() == [True, False]
    assert found["texts"] == ["a", "", "ß" * 200, "\0" * 9, "b"]


def test_arrays_in_arrays(tmp_path):
    inner = struct.pack("<IQ", 5, 2) + struct.pack("<ii", 1, -2)
    words = struct.pack("<IQ", 8, 2) + text(b"a") + text(b"\xff")
    value = text(b"deep") + struct.pack("<IIQ", 9, 9, 3) + inner + words + struct.pack("<IQ", 9, 0)
    path = handwritten(tmp_path / "a", values=value, counts=(0, 1))
    assert len(fq.open(path)) == 0
    first, second, third = metadata(Bytes(path))["deep"]
    assert first.tolist() == [1, -2]
    assert (second, third) == (["a", "\\xff"], [])
    deeper = text(b"deep") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000 + inner
    with pytest.raises(fq.FileFormatError, match="4 deep at most"):
        fq.open(handwritten(tmp_path / "b", values=deeper, counts=(0, 1)))
    wide = text(b"wide") + struct.pack("<IIQ", 9, 9, 2**17) + struct.pack("<IQ", 0, 0) * 2**17
    with pytest.raises(fq.FileFormatError, match="65536 arrays in arrays at most"):
        fq.open(handwritten(tmp_path / "c", values=wide, counts=(0, 1)))


@pytest.mark.parametrize("lengths", [(1, 12), (0, 3), (0, 2), (200, 400), (255, 258), (1, 100_000)])
def test_long_vocabularies_are_passed_over(lengths, tmp_path):
    """Whatever the texts hold: lengths of some bytes, none, zeros that look like lengths."""
    rng = np.random.default_rng(sum(lengths))
    count = 100 if lengths[1] > 1000 else 5000
    words = [bytes(rng.choice([0, 1, 2, 8, 97], n).astype(np.uint8)) for n in rng.integers(*lengths, count)]
    value = text(b"words") + struct.pack("<IIQ", 9, 8, count) + b"".join(map(text, words))
    value += text(b"after") + struct.pack("<IB", 0, 7)
    path = handwritten(tmp_path / "model", tensor(b"x", (2,), 24), value, (1, 2), b"\5\6")
    assert fq.open(path)["x"].tolist() == [5, 6]
    found = metadata(Bytes(path))
    assert found["after"] == 7
    assert [word.encode() for word in found["words"]] == words


# Mistakes


def test_what_begins_as_gguf(tmp_path):
    (tmp_path / "a").write_bytes(b"GGUX" + bytes(20))
    with pytest.raises(fq.FileFormatError, match="format must be"):
        fq.open(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"GGUF")
    with pytest.raises(fq.FileFormatError, match="b: header, byte 4: the file ends"):
        fq.open(tmp_path / "b")


def test_other_versions_and_byte_orders(tmp_path):
    path = write(tmp_path / "model", {"x": np.ones(3, np.float32)}, order=gguf.GGUFEndian.BIG)
    with pytest.raises(fq.FileFormatError, match="this is a big-endian file of version 3"):
        fq.open(path)
    for version in (1, 4):
        with pytest.raises(fq.FileFormatError, match=f"this is version {version}"):
            fq.open(handwritten(tmp_path / "a", version=version))


@pytest.mark.parametrize(
    ("kind", "value"), [(4, struct.pack("<I", 0)), (4, struct.pack("<I", 48)), (7, b"\1"), (8, text(b"32"))]
)
def test_alignments_that_are_none(kind, value, tmp_path):
    value = text(b"general.alignment") + struct.pack("<I", kind) + value
    with pytest.raises(fq.FileFormatError, match=r"general\.alignment: it must be a power of two, got"):
        fq.open(handwritten(tmp_path / "a", values=value, counts=(0, 1)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"tensors": tensor(b"x", (1,), 0) * 2, "counts": (2, 0)}, "names must differ"),
        ({"tensors": tensor(b"\xff", (1,), 0), "counts": (1, 0)}, "must be UTF-8"),
        ({"tensors": tensor(b"x" * 2**16, (1,), 0), "counts": (1, 0)}, "65535 bytes at most"),
        ({"tensors": tensor(b"x", (1, 1, 1, 1, 1), 0), "counts": (1, 0)}, "4 dimensions at most, got 5"),
        ({"values": (text(b"a") + struct.pack("<IB", 0, 1)) * 2, "counts": (0, 2)}, "names must differ"),
        ({"values": text(b"a") + struct.pack("<I", 13), "counts": (0, 1)}, "types 0 to 12, got 13"),
        ({"values": text(b"a") + struct.pack("<IIQ", 9, 13, 0), "counts": (0, 1)}, "got 13 at depth 1"),
        ({"values": text(b"a") + struct.pack("<IIQ", 9, 5, 2**62), "counts": (0, 1)}, "numbers do not fit"),
        ({"values": text(b"a") + struct.pack("<IIQ", 9, 8, 2**62), "counts": (0, 1)}, "texts do not fit"),
        ({"values": text(b"a") + struct.pack("<IIQQQ", 9, 8, 2, 2**64 - 1, 1), "counts": (0, 1)}, "ends within"),
        ({"counts": (2**62, 0)}, "1048576 tensors and 65536 values at most"),
        ({"counts": (0, 2**63)}, "1048576 tensors and 65536 values at most"),
    ],
)
def test_headers_that_are_none(header, message, tmp_path):
    path = handwritten(tmp_path / "a", **header)
    with pytest.raises(fq.FileFormatError, match=f"a: header, byte .*{message}"):
        fq.open(path)
    if header["counts"][1]:
        with pytest.raises(fq.FileFormatError):
            metadata(Bytes(path))


@pytest.mark.parametrize(
    ("shape", "number", "offset", "message"),
    [
        ((4,), 0, 64, "do not lie in the file"),
        ((4,), 0, 2**64 - 1, "do not lie in the file"),
        ((2**40, 2**40), 0, 0, "no array of NumPy"),
        ((0, 2**62), 0, 0, "no array of NumPy"),
        ((31,), 8, 0, "Q8_0 must have a multiple of 32 elements along the last axis"),
        ((), 8, 0, "Q8_0 must have a multiple of 32"),
        ((32, 0), 8, 0, "and some elements"),
        ((64,), 8, 0, "do not lie in the file"),
    ],
)
def test_tensors_that_are_none(shape, number, offset, message, tmp_path):
    """The one beside it is read."""
    both = tensor(b"x", shape, number, offset) + tensor(b"y", (3,), 24)
    opened = fq.open(handwritten(tmp_path / "a", both, counts=(2, 0), data=bytes(50)))
    assert (opened["y"] == 0).all()
    with pytest.raises(fq.FileFormatError, match=f"a: array 'x': .*{message}"):
        opened["x"]


def test_a_file_that_ends_anywhere(tmp_path):
    path = write(tmp_path / "model", {"x": np.ones(3, np.float32)}, add=values)
    whole, short = path.read_bytes(), tmp_path / "short"
    for size in range(4, len(whole) - 20, 5):  # these 20 are padding
        short.write_bytes(whole[:size])
        try:
            entry = entries(Bytes(short))["x"]
        except fq.FileFormatError:
            continue
        with pytest.raises(fq.FileFormatError):
            entry.read()
