"""What is in a file: each array with its size, and what quantizing it would cost and gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.accuracy.error import Sums
from fastq.errors import in_bytes, shown
from fastq.formats.binary import of_bfloat16
from fastq.formats.entries import Entry, Opened
from fastq.formats.safetensors import TYPES
from fastq.models.parts import boxes, read, told
from fastq.models.rules import Decision, Rules
from fastq.progress import by_part
from fastq.qarray.array import QArray
from fastq.qarray.of_task import of_task

Array = npt.NDArray[Any]
Form = tuple[int, int | None]  # bits, and elements per group; None: no groups
PLAIN = {np.dtype(kind).name for kind in TYPES.values()}
Tell = Callable[[int, int], Any] | None  # of bytes done, and of all


@dataclass(frozen=True)
class ArrayRow:
    """An array of a file.

    `sizes` and `sqnr` are by form: the bytes in a file, and the SQNR in dB, of the array if it was quantized so.
    """

    name: str
    shape: tuple[int, ...]
    kind: str  # its type; of a quantized one bits and groups
    nbytes: int  # in the file
    form: str = ""  # what else is to be said of a quantized array
    problem: str = ""  # why it cannot be read
    stays: str = ""  # why it would not be quantized, or its error cannot be measured
    sizes: Mapping[Form, int] = field(default_factory=dict)
    sqnr: Mapping[Form, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file per element, those of scales among them."""
        return 8 * self.nbytes / self.size if self.size else 0.0

    def __repr__(self) -> str:
        gains = ", ".join(f"{form_in_words(form)}: {value:.1f} dB" for form, value in self.sqnr.items())
        return f"ArrayRow({self.name!r}, {self.shape}, {self.kind}, {in_bytes(self.nbytes)}{gains and ', ' + gains})"


@dataclass(frozen=True)
class Inspection:
    """The arrays of a file, in its order."""

    path: str
    format: str
    rows: tuple[ArrayRow, ...]
    forms: tuple[Form, ...]  # that were asked for

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(row.nbytes for row in self.rows)

    @property
    def size(self) -> int:
        """Elements of all arrays."""
        return sum(row.size for row in self.rows)

    def quantized(self, form: Form) -> int:
        """Bytes of all arrays, those quantized in this form that would be."""
        return sum(row.sizes.get(form, row.nbytes) for row in self.rows)

    def worst(self, form: Form) -> ArrayRow | None:
        """The array that would lose most in this form; None if none was measured."""
        measured = [row for row in self.rows if form in row.sqnr]
        return min(measured, key=lambda row: row.sqnr[form]) if measured else None

    def __repr__(self) -> str:
        return f"Inspection({self.path!r}, {self.format}: {len(self.rows)} arrays, {in_bytes(self.nbytes)})"


def form_in_words(form: Form) -> str:
    """A form as a column is headed."""
    bits, group = form
    return f"{bits} bits" + ("" if group is None else f" / {group}")


def inspect(
    model: Opened,
    bits: Sequence[int] = (),
    groups: Sequence[int | None] = (None,),
    *,
    axis: int = -1,
    method: Any = "minmax",
    scheme: str = "symmetric",
    dry: bool = False,
    tell: Tell = None,
) -> Inspection:
    """Look at each array of a file, one at a time.

    Parameters
    ----------
    model : Opened
        What :func:`fastq.open` gives.
    bits, groups : sequence
        The forms to try on arrays that :func:`fastq.quantize_all` would quantize: all widths with all group sizes.
    axis, method, scheme : optional
        As in :func:`fastq.quantize`.
    dry : bool
        Read no array: there are sizes, but no SQNR, and nothing is known of arrays that cannot be read.
    tell : function, optional
        Called as ``tell(done, total)``, in bytes of the file.
    """
    rules = {}
    for form in ((width, group) for width in bits for group in groups):
        settings = {"bits": form[0], "axis": axis, "group_size": form[1], "method": method, "calibration": None}
        rules[form] = Rules([], settings, {"scheme": scheme, "group_scale": None}, None, None, to_file=False)
    entries = {name: model.entry(name) for name in model}
    rows, done, total = [], 0, sum(entry.nbytes for entry in entries.values())
    for name, entry in entries.items():
        rows.append(_row(name, entry, rules, dry, by_part(tell, done, entry.nbytes, total)))
        done += entry.nbytes
        if tell is not None:
            tell(done, total)
    return Inspection(model.path, model.format, tuple(rows), tuple(rules))


def _row(name: str, entry: Entry, rules: Mapping[Form, Rules], dry: bool, tell: Tell) -> ArrayRow:
    row = partial(ArrayRow, name, entry.shape, entry.kind, entry.nbytes)
    try:
        value = stand_in(entry) if dry else entry.read()
    except (ValueError, TypeError, OSError, MemoryError) as error:
        return row(problem=str(error) or type(error).__name__)
    if value is None:  # of a type that NumPy lacks
        return row(stays="not floats of 16 to 64 bits")
    if isinstance(value, QArray):
        return row(form=_form(value), stays="quantized already")
    decisions = {form: rule.decide(name, value) for form, rule in rules.items()}
    quantized = {form: decision for form, decision in decisions.items() if decision.row.quantized}
    stays = next((decision.row.what for decision in decisions.values() if not decision.row.quantized), "")
    sqnr: dict[Form, float] = {}
    if quantized and not dry:
        try:
            sqnr = dict(zip(quantized, _measured(name, value, list(quantized.values()), tell)))
        except ValueError as error:
            stays = str(error)
    sizes = {form: decision.row.after for form, decision in quantized.items()}
    return row(stays=stays, sizes=sizes, sqnr=sqnr)


def stand_in(entry: Entry) -> Array | None:
    """An array of zeros, in the memory of one, of the shape and type of a plain array; None for all others."""
    if entry.kind == "bfloat16":
        zero = of_bfloat16(np.zeros((), np.uint16))
    elif entry.kind in PLAIN:
        zero = np.zeros((), entry.kind)
    else:
        return None
    return np.broadcast_to(zero, entry.shape)


def _form(q: QArray) -> str:
    words = [q.scheme, "one scale" if q.axis is None else f"axis {q.axis}"]
    words += ["integer group scales"] * (q.group_scale is not None) + ["reordered"] * (q.order is not None)
    words += ["balanced"] * (q.balance is not None) + ["rotated"] * (q.rotation > 1)
    return ", ".join(words)


def _measured(name: str, array: Array, decisions: Sequence[Decision], tell: Tell) -> Iterator[float]:
    """The SQNR of an array in each form, as :func:`fastq.error` measures it."""
    tasks = [decision.task for decision in decisions if decision.task is not None]
    sums, axis = [Sums(1) for _ in tasks], tasks[0].spec.axis
    for box in told(boxes(array.shape, axis), tell):
        values = read(array, box)
        exact = values.astype(np.float64).reshape(1, -1)
        for task, total in zip(tasks, sums):
            q = of_task(values, task, f"array {shown(name)}")
            other = q.dequantize(values.dtype if values.dtype == np.float64 else None)
            approximate = other.astype(np.float64).reshape(1, -1)
            total.add(exact, approximate, exact - approximate)
    return (float(total.measures()[4][0]) for total in sums)


def sorted_rows(rows: Iterable[ArrayRow], key: str) -> list[ArrayRow]:
    """Rows by what is asked for: the largest first, names and types in their order."""
    if key in ("name", "kind"):
        return sorted(rows, key=lambda row: (getattr(row, key), row.name))
    if key == "sqnr":  # the worst first, by the first form that was measured
        return sorted(rows, key=lambda row: next(iter(row.sqnr.values()), np.inf))
    return sorted(rows, key=lambda row: -getattr(row, {"size": "nbytes", "bits": "bits_per_weight"}[key]))
