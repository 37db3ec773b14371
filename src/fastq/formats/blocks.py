"""Quantizing an array that is larger than memory into a file of :mod:`fastq.formats.own`, block by block.

Codes go to their words of the bit stream at once. Parameters are kept until the end.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.formats import saving
from fastq.formats.own import WORD, Form
from fastq.formats.writer import NewFile
from fastq.layout.tiles import ceil_div
from fastq.quant.by_method import Tell
from fastq.quant.spec import QuantSpec
from fastq.quant.task import QuantTask
from fastq.storage import out_of_core
from fastq.storage.folder import Boxes
from fastq.storage.metadata import Box, Shape
from fastq.storage.writer import BlockWriter, in_memory

Array = npt.NDArray[Any]
STORED = {"zero_point": "zero_point", "zeros": "zero_point", "factors": "group_scale"}  # parts by names in BlockWriter


class _Words:
    """The codes of an array, as words of their bit stream in a file.

    One thread packs and writes codes while others quantize the next ones.
    """

    def __init__(self, boxes: Boxes, spec: QuantSpec, behind: Executor) -> None:
        self.boxes, self.spec, self.behind = boxes, spec, behind
        self.axis = len(boxes.shape) - 1 if spec.axis is None else spec.axis
        self.last: Future[None] | None = None

    def __setitem__(self, box: Box, codes: Array) -> None:
        """Write the codes of a box, which begins with a word, once those before are written."""
        self.wait()
        self.last = self.behind.submit(self._write, box, codes)

    def _write(self, box: Box, codes: Array) -> None:
        words = saving.words(codes, self.spec)
        start = box[self.axis].start * self.spec.bits // WORD
        along = slice(start, start + words.shape[self.axis])
        place = (*box[: self.axis], along, *box[self.axis + 1 :])
        self.boxes[place] = words
        self.boxes.hand_on(place)

    def wait(self) -> None:
        """Until all is written."""
        if self.last is not None:
            self.last.result()


class _Blocks(BlockWriter):
    """Takes the codes and parameters of a form of one axis or more."""

    def __init__(self, form: Form, floats: np.dtype[Any], words: _Words) -> None:
        def create(name: str, shape: Shape, dtype: npt.DTypeLike) -> Any:
            return words if name == "codes" else in_memory(name, shape, dtype)

        super().__init__(form.metadata, floats, None, create)
        # As many codes as a word has bits are whole words, whatever their width.
        self.counts[words.axis], self.sizes[words.axis] = ceil_div(form.metadata.shape[words.axis], WORD), WORD


def write(file: NewFile, name: str, form: Form, source: out_of_core.Source, task: QuantTask, tell: Tell) -> None:
    """Quantize an array of this form, and write it."""
    tensors = form.parts(name)
    with ThreadPoolExecutor(1) as behind:
        words = _Words(file.boxes(tensors["codes"].name), form.metadata.spec, behind)
        blocks = _Blocks(form, source.dtype, words)
        out_of_core.fill(source, task.given, task.method, task.transformed_moment(), blocks, tell)
        words.wait()
    params = {STORED.get(part, part): array for part, array in blocks.arrays.items()}
    saving.write_parameters(file, tensors, params, form.metadata)
