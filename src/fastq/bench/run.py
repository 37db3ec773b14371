"""What a run of contests leaves behind: rows, and the machine's roofs, of which one is nearer to each row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, NamedTuple

NUMPY = "numpy"  # the library of the baseline; it is no peer

TITLES = {
    None: "fastq",
    NUMPY: "NumPy, float32",
    "onnxruntime": "ONNX Runtime",
    "torch": "torch (oneDNN)",
    "numkong": "NumKong",
    "mkl": "MKL",
}

UNSTEADY = 0.3  # a time that varies by more than this share of the best one is marked

# Kinds: what a contender is given, and when. Those of one kind compare like for like.
FLOAT32 = "float32"
CODES = "8-bit integers, right packed before"
INTEGERS = "8-bit integers, nothing packed"
FLOATS = "float rows, 8-bit weights"
LOW_BITS = "float rows, low-bit weights"
TWO_FLOATS = "two floats"


class Roof(NamedTuple):
    """The least time that a call can take, and what sets it."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """One contender of one contest; times in seconds."""

    group: str
    name: str
    best: float
    median: float
    drift: float = 0  # from the best round's best to the worst round's
    kind: str = ""  # contenders of one kind compute the same from the same
    library: str | None = None  # None: fastq
    baseline: bool = False
    isa: str | None = None  # None: not fastq
    threads: int | None = None  # None: all
    bits: int = 8  # of the right operand
    operations: int = 0  # multiplications and additions of one call; 0 where they are not counted
    nbytes: float = 0  # of both operands, as they are handed over
    pack: float | None = None  # what packing the right operand took, before the first call
    shape: tuple[int, ...] = ()  # m, k, n of a product
    size: int | None = None  # of the right operand's groups
    sqnr: float | None = None  # decibels, of the answer; None: not measured, or exact
    rounds: tuple[float, ...] = ()  # the median of each round
    busy: str = ""  # what took the machine's cores away; empty: nothing did

    @property
    def rate(self) -> float:
        """10^9 operations per second."""
        return self.operations / self.best / 1e9

    @property
    def noise(self) -> float:
        """What the time varies by: from call to call, or from round to round."""
        return max(self.median - self.best, self.drift)

    @property
    def unsteady(self) -> bool:
        """Whether the time varied too much to be compared."""
        return bool(self.busy) or self.noise > UNSTEADY * self.best

    def times_faster(self, than: Row) -> float:
        """By the best times of both."""
        return than.best / self.best

    def usually_faster(self, than: Row) -> float:
        """By the medians of each round: of these ratios the middle one, so that no single round decides."""
        ratios = [theirs / ours for theirs, ours in zip(than.rounds, self.rounds)]
        return median(ratios) if ratios else than.median / self.median

    @property
    def is_peer(self) -> bool:
        """Whether it belongs to another library than fastq and NumPy."""
        return self.library not in (None, NUMPY)

    @property
    def title(self) -> str:
        """The name, and the instruction set where it is known."""
        return self.name + (f", {self.isa}" if self.isa else "")


FIELDS = {f.name for f in fields(Row)}


def row(facts: dict[str, Any]) -> Row:
    """A row of what a contest, or a file, tells."""
    known: dict[str, Any] = {name: value for name, value in facts.items() if name in FIELDS}
    known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Row(**known)


def by_group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each contest, the baseline first, the others in their order."""
    groups: dict[str, list[Row]] = {}
    for one in rows:
        groups.setdefault(one.group, []).append(one)
    for found in groups.values():
        found.sort(key=lambda one: not one.baseline)
    return groups


@dataclass(frozen=True)
class Run:
    """What one run of the benchmarks found."""

    machine: dict[str, Any]  # facts to print
    groups: dict[str, list[Row]]  # the baseline first
    roofs: dict[str, Any] = field(default_factory=dict)  # see roofs.py; empty: not measured
    measures: dict[str, float] = field(default_factory=dict)  # what is not a time
    notes: list[str] = field(default_factory=list)  # contenders that did not take part, and why

    @property
    def isa(self) -> str | None:
        """The instruction set in use."""
        return self.machine.get("instruction set")

    def rows(self) -> dict[tuple[str, str], Row]:
        """All rows by group and title."""
        return {(row.group, row.title): row for rows in self.groups.values() for row in rows}

    def row(self, group: str, name: str, isa: str | None = None) -> Row:
        """The row of a contender; KeyError if there is none. Without `isa`: the first one of that name."""
        for row in self.groups.get(group, ()):
            if row.name == name and isa in (None, row.isa):
                return row
        raise KeyError(f"{group}: {name}" + (f", {isa}" if isa else ""))

    def fastest_peer(self, group: str, name: str) -> Row:
        """The fastest peer of a contender's kind; KeyError if the contest had none."""
        kind = self.row(group, name).kind
        peers = [row for row in self.groups[group] if row.kind == kind and row.is_peer]
        if not peers:
            raise KeyError(f"{group}: a peer of {name}")
        return min(peers, key=lambda row: row.best)

    def peak(self, row: Row) -> float:
        """Operations per second that its instruction set can do; 0 where that was not measured.

        Peers do not say what they use: they are measured against the best of this CPU.
        """
        if row.library == NUMPY or not self.roofs:
            return 0
        peaks = list(self.roofs["peaks"].values())
        isa = row.isa or (peaks[0]["isa"] if peaks else None)
        units = [unit for unit in peaks if unit["isa"] == isa and row.bits in unit["bits"]]
        return max((unit[_workers(row)] for unit in units), default=0)

    def roof(self, row: Row) -> Roof | None:
        """The nearer roof of a product: multiplying it out of registers, or reading its operands from memory."""
        peak = self.peak(row)
        if not (peak and row.operations and row.nbytes):
            return None
        multiply = Roof("compute", row.operations / peak)
        read = Roof("reading", row.nbytes / self.roofs["bandwidth"][_workers(row)])
        return max(multiply, read, key=lambda roof: roof.seconds)


def _workers(row: Row) -> str:
    return "one" if row.threads == 1 else "all"
