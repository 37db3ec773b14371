"""The graph of an ONNX model, as far as weights need it: initializers, and the nodes that tell what they mean.

========== ======= =====================================================================================
message    field   what it holds
========== ======= =====================================================================================
ModelProto 7       the GraphProto
GraphProto 1, 5    NodeProtos; TensorProtos, the initializers
           15      sparse initializers; field 1 of each is a TensorProto, which has the name
NodeProto  1, 2    names of inputs, in order (empty where one is left out), and of outputs
           4, 7    operator and domain
           5       AttributeProtos: 1 name, 3 an integer, 5 a TensorProto
========== ======= =====================================================================================

Subgraphs (bodies of If, Loop and Scan), functions and training graphs are not read. Source: onnx.proto of onnx 1.23.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from fastq.errors import shown
from fastq.formats.binary import Bytes
from fastq.formats.onnx.tensors import Tensor
from fastq.formats.protobuf import Message, Span

DOMAINS = ("", "ai.onnx", "com.microsoft")
WEIGHTS = ("DequantizeLinear", "MatMulInteger", "QLinearMatMul", "MatMulNBits")
AROUND = ("QuantizeLinear", "Cast", "Mul", "Constant")  # where codes and scales come from


class Node(NamedTuple):
    """A node: an operator and the names of its values."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    integers: dict[str, int]  # attributes
    value: Tensor | None  # of a Constant

    def input(self, number: int) -> str:
        """The name of an input, empty where it is left out."""
        return self.inputs[number] if number < len(self.inputs) else ""


class Graph:
    """Initializers by name, and the nodes of some operators."""

    def __init__(self, file: Bytes) -> None:
        self.file = file
        self.initializers: dict[str, Tensor] = {}
        self.unread: dict[str, str] = {}  # names of what cannot be read, and why
        self.nodes: list[Node] = []
        self._made: dict[str, Node] = {}
        self._used: dict[tuple[str, str], Node] = {}
        model = Message(file, "model", Span(0, file.size), (7,))
        self._parts = [Message(file, "graph", span, (1, 5, 15)) for span in model.spans(7)]
        for graph in self._parts:
            for number, part in enumerate(graph.spans(5)):
                self._add(Tensor(file, f"initializer {number}", part))
            for number, part in enumerate(graph.spans(15)):
                values = Message(file, f"sparse initializer {number}", part, (1,)).span(1)
                if values:
                    name = Tensor(file, f"sparse initializer {number}", values).name
                    self.unread[name] = "it is sparse, which fastq does not read"
            for number, part in enumerate(graph.spans(1)):
                self._node(f"node {number}", part)

    def constant(self, name: str) -> Tensor | None:
        """The tensor of this name, if it is an initializer or a Constant."""
        made = self._made.get(name)
        return self.initializers.get(name) or (made.value if made and made.operator == "Constant" else None)

    def made_by(self, name: str, operator: str) -> Node | None:
        """The node of this operator that computes a value."""
        node = self._made.get(name)
        return node if node and node.operator == operator else None

    def used_by(self, name: str, operator: str) -> Node | None:
        """The first node of this operator that takes a value."""
        return self._used.get((name, operator))

    @cached_property
    def taken(self) -> set[str]:
        """Names of values that other nodes than QuantizeLinear take."""
        names = set()
        for graph in self._parts:
            for number, part in enumerate(graph.spans(1)):
                node = Message(self.file, f"node {number}", part, (1, 4))
                if node.text(4) != "QuantizeLinear":
                    names.update(node.texts(1))
        return names

    def _add(self, tensor: Tensor) -> None:
        if tensor.name in self.initializers:
            self.unread[tensor.name] = "two initializers have this name"
        self.initializers[tensor.name] = tensor

    def _node(self, place: str, span: Span) -> None:
        operator = Message(self.file, place, span, (4,)).text(4)
        if operator not in (*WEIGHTS, *AROUND):
            return  # most nodes: nothing else of them is read
        message = Message(self.file, place, span, (1, 2, 5, 7))
        if message.text(7) not in DOMAINS:
            return
        place = message.place = f"{place}, {operator}"
        integers, value = {}, None
        for part in message.spans(5):
            attribute = Message(self.file, place, part, (1, 3, 5))
            if 3 in attribute:
                integers[attribute.text(1)] = attribute.integer(3)
            elif (tensor := attribute.span(5)) and operator == "Constant":
                value = Tensor(self.file, f"{place}, {shown(attribute.text(1))}", tensor)
        node = Node(operator, message.texts(1), message.texts(2), integers, value)
        if operator in WEIGHTS:
            self.nodes.append(node)
        for name in node.outputs:
            self._made[name] = node
        for name in node.inputs if operator in AROUND else ():
            self._used.setdefault((name, operator), node)
