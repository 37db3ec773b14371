"""Models of ONNX (onnx 1.23): their initializers as arrays, and as quantized arrays where the graph says how.

A model is a message of Protocol Buffers (:mod:`fastq.formats.protobuf`), a ``ModelProto``, without a mark at its start.
:mod:`fastq.formats.onnx.graph` has its parts, :mod:`fastq.formats.onnx.weights` what nodes say of initializers.
"""

from __future__ import annotations

from itertools import islice

from fastq.errors import FileFormatError
from fastq.formats.binary import Bytes
from fastq.formats.entries import Entry
from fastq.formats.onnx.graph import Graph
from fastq.formats.onnx.tensors import Tensor
from fastq.formats.onnx.weights import Weight, quantized, reader
from fastq.formats.protobuf import Span, fields

VERSION, GRAPH = 1, 7  # ir_version comes first
NUMBERS, RUNS = {VERSION, 5}, {2, 3, 4, 6, GRAPH, 8, 14, 20, 25, 26}  # fields of ModelProto
VERSIONS = range(1, 256)  # 14 in onnx 1.23
MOST_BEFORE = 10_000  # fields before the graph


def recognizes(file: Bytes) -> bool:
    """Whether a file begins with fields of a ModelProto, up to its graph, even if it is cut short in the graph."""
    known = False
    try:
        for number, value in islice(fields(file, "model", Span(0, file.size)), MOST_BEFORE):
            if number not in (RUNS if isinstance(value, Span) else NUMBERS):
                return False
            if number == GRAPH:
                return known
            known |= number == VERSION and value in VERSIONS
    except FileFormatError:
        return known
    return False


def entries(file: Bytes) -> dict[str, Entry]:
    """The initializers of a model by name."""
    graph = Graph(file)
    found = {name: _plain(tensor) for name, tensor in graph.initializers.items()}
    meanings: dict[str, Weight] = {}
    for weight in quantized(graph):
        first = meanings.setdefault(weight.name, weight)
        if first != weight:
            graph.unread[weight.name] = "nodes of the graph take it with different scales or zero points"
        found[weight.name] = Entry(first.shape, first.kind, first.codes.nbytes, reader(graph, first))
    for name, reason in graph.unread.items():
        found[name] = _unread(graph, name, found.get(name), reason)
    return found


def _plain(tensor: Tensor) -> Entry:
    return Entry(tensor.shape, tensor.kind, tensor.nbytes, tensor.read)


def _unread(graph: Graph, name: str, entry: Entry | None, reason: str) -> Entry:
    def fail() -> None:
        graph.file.fail(f"tensor {name!r}", reason)

    return entry._replace(read=fail) if entry else Entry((), "sparse", 0, fail)
