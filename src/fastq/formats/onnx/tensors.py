"""Tensors of an ONNX model: ``TensorProto``, whose values lie in the message or in a file beside the model.

====== ============= =================================================================================================
field  name          what it holds
====== ============= =================================================================================================
1      dims          lengths of the axes
2      data_type     see ``fastq.formats.onnx.types``
8      name
9      raw_data      all values, little-endian; of 4 and 2 bits two and four to a byte, lowest bits first
4      float_data    float32, complex64 (two numbers each)
5      int32_data    bool, 8 and 16 bits and int32, one integer each; float16 and bfloat16 by their bits; the
                     bytes of raw_data for 4 and 2 bits
7      int64_data
10     double_data   float64, complex128
11     uint64_data   uint32, uint64
13     external_data texts by name: location (a path in the model's folder), offset, length
14     data_location 1 where external_data counts
====== ============= =================================================================================================

Source: onnx.proto of onnx 1.23, and ExternalData.md beside it.
"""

from __future__ import annotations

import os
import re
from math import prod
from typing import NoReturn

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array, Bytes, of_bfloat16
from fastq.formats.onnx.types import NAMES, PLAIN, CodeType, own_type, unpacked
from fastq.formats.protobuf import Message, Span
from fastq.layout.bitstream import stream_bytes

DIMS, TYPE, FLOATS, INT32S, INT64S, NAME, RAW, DOUBLES, UINT64S, EXTERNAL, LOCATION = (
    1,
    2,
    4,
    5,
    7,
    8,
    9,
    10,
    11,
    13,
    14,
)
WANTED = frozenset((DIMS, TYPE, FLOATS, INT32S, INT64S, NAME, RAW, DOUBLES, UINT64S, EXTERNAL, LOCATION))
MOST_AXES, LARGEST = 64, 2**59  # what NumPy takes, in axes and in elements


class Tensor:
    """A tensor as its message describes it; its values are read when they are asked for."""

    def __init__(self, file: Bytes, place: str, span: Span) -> None:
        self._message = message = Message(file, place, span, WANTED)
        self.file, self.name = file, message.text(NAME)
        self.place = message.place = f"tensor {shown(self.name)}" if self.name else place
        self.shape = tuple(message.integers(DIMS).tolist())
        number = message.integer(TYPE)
        self.kind = NAMES.get(number, f"type {number}")
        self.codes = CodeType.of(self.kind)

    @property
    def size(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the file; 0 where this is unknown."""
        if self.codes and self.codes.bits < 8:
            return stream_bytes(self.size, self.codes.bits)
        return self.size * (2 if self.kind == "bfloat16" else np.dtype(self.kind).itemsize if self.kind in PLAIN else 0)

    def read(self) -> Array:
        """The values; those of 2 and 4 bits in types of ml_dtypes where it is installed."""
        values = self.held()
        return own_type(values, self.codes) if self.codes else values

    def held(self) -> Array:
        """The values, codes in a type that NumPy computes in."""
        if len(self.shape) > MOST_AXES or min(self.shape, default=0) < 0 or prod(n or 1 for n in self.shape) > LARGEST:
            self.fail(f"no array of NumPy has the shape {shown(self.shape)}")
        if not (self.kind in PLAIN or self.codes or self.kind == "bfloat16"):
            self.fail(f"{self.kind} is no type that fastq reads: integers and floats of 16 bits or more are")
        if self._message.integer(LOCATION):
            stored = self._external()
        elif RAW in self._message:
            run = self._message.span(RAW)
            assert run is not None
            stored = self.file.array(self.place, run.start, np.uint8, (run.size,))
        else:
            return self._typed().reshape(self.shape)
        if len(stored) != self.nbytes:
            self.fail(f"{self.kind} of shape {self.shape} takes {self.nbytes} bytes, not {len(stored)}")
        return self._of_bytes(stored).reshape(self.shape)

    def fail(self, problem: str) -> NoReturn:
        """Raise FileFormatError."""
        self.file.fail(self.place, problem)

    def _of_bytes(self, stored: Array) -> Array:
        if self.codes and self.codes.bits < 8:
            return unpacked(stored, self.codes, self.size)
        if self.kind == "bfloat16":
            return of_bfloat16(stored.view("<u2"))
        if self.kind == "bool":
            return np.not_equal(stored, 0)  # NumPy takes other bytes than 0 and 1 amiss
        values: Array = stored.view(np.dtype(self.kind).newbyteorder("<"))
        return values

    def _typed(self) -> Array:
        """Values in the field of their type."""
        message, size = self._message, self.size
        if self.codes and self.codes.bits < 8:
            return self._of_bytes(message.integers(INT32S, self.nbytes).astype(np.uint8))
        if self.kind in ("float16", "bfloat16"):
            return self._of_bytes(message.integers(INT32S, size).astype("<u2").view(np.uint8))
        if self.kind in ("float32", "complex64"):
            return self._of_bytes(message.numbers(FLOATS, np.dtype("<f4"), self.nbytes // 4))
        if self.kind in ("float64", "complex128"):
            return self._of_bytes(message.numbers(DOUBLES, np.dtype("<f8"), self.nbytes // 8))
        field = INT64S if self.kind == "int64" else UINT64S if self.kind in ("uint32", "uint64") else INT32S
        values: Array = message.integers(field, size).astype(self.kind)
        return values

    def _external(self) -> Array:
        """The bytes in a file beside the model, as a memory map."""
        texts = {}
        for span in self._message.spans(EXTERNAL):
            pair = Message(self.file, self.place, span, (1, 2))
            texts[pair.text(1)] = pair.text(2)
        offset, length = (self._number(texts, name) for name in ("offset", "length"))
        path = self._path(texts.get("location", ""))
        try:
            beside = Bytes(path)
        except OSError as error:
            self.fail(f"its external data cannot be read from {path}: {error}")
        start = offset or 0
        if length is None:
            length = self.nbytes
        return beside.array(f"{self.place}, of {self.file.path}", start, np.uint8, (length,))

    def _number(self, texts: dict[str, str], name: str) -> int | None:
        text = texts.get(name)
        if text is None:
            return None
        if not re.fullmatch("[0-9]{1,18}", text):
            self.fail(f"{name} of its external data must be a number, got {shown(text)}")
        return int(text)

    def _path(self, location: str) -> str:
        """Where the file is: in the model's folder, and nowhere else, wherever links lead."""
        folder = os.path.realpath(os.path.dirname(self.file.path) or ".")
        if not location or "\0" in location or os.path.isabs(location):
            self.fail(f"location of its external data must be a path in the model's folder, got {shown(location)}")
        path = os.path.realpath(os.path.join(folder, location))
        if os.path.commonpath((folder, path)) != folder:
            self.fail(f"location of its external data must not lead out of the model's folder, got {shown(location)}")
        if not os.path.isfile(path):
            self.fail(f"its external data must lie in the file {shown(location)}, and there is none")
        return path
