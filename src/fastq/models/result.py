"""What became of the arrays of a model, and where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastq.typed import Array

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

from fastq.errors import in_bytes


class Row(NamedTuple):
    """What became of an array."""

    name: str
    shape: tuple[int, ...]
    quantized: bool
    what: str  # how it was quantized, or why it was not
    before: int  # bytes
    after: int  # bytes in a file


class Report(tuple[Row, ...]):
    """What became of each array, a row for each; it prints as a table."""

    __slots__ = ()

    @property
    def before(self) -> int:
        """Bytes of all arrays before."""
        return sum(row.before for row in self)

    @property
    def after(self) -> int:
        """Bytes that they take in a file now."""
        return sum(row.after for row in self)

    def __repr__(self) -> str:
        lines = [
            (
                row.name,
                " x ".join(map(str, row.shape)) or "1",
                f"{in_bytes(row.before)} -> {in_bytes(row.after)}" if row.quantized else in_bytes(row.before),
                row.what if row.quantized else f"stays: {row.what}",
            )
            for row in self
        ]
        widths = [max((len(line[column]) for line in lines), default=0) for column in range(3)]
        table = ["  ".join((*map(str.ljust, line, widths), line[3])) for line in lines]
        count = sum(row.quantized for row in self)
        share = f", {self.after / self.before:.1%}" if self.before else ""
        total = f"{count} of {len(self)} arrays quantized: {in_bytes(self.before)} -> {in_bytes(self.after)}{share}"
        return "\n".join((*table, total))


class QuantizedModel(Mapping[str, "QArray | Array"]):
    """The arrays of a model after :func:`fastq.quantize_all`, by name.

    Attributes
    ----------
    arrays : mapping
        Where they are: a dict, or what :func:`fastq.open` gives of the file that was written.
    report : Report
        What became of each array, as a tuple of rows that prints as a table. A row has `name`, `shape`, `quantized`,
        `what` (how it was quantized, or why it was not), and the bytes `before` and, in a file, `after`.
    """

    def __init__(self, arrays: Mapping[str, QArray | Array], report: Report) -> None:
        self.arrays, self.report = arrays, report

    def __getitem__(self, name: str) -> QArray | Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __repr__(self) -> str:
        return f"<{repr(self.report).splitlines()[-1]}; see .report>"
