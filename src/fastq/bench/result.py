"""What a benchmark of products found, in plain values: for printing, for pictures, for files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fastq.bench.machine import Machine
from fastq.bench.run import Row, Run

SCHEMA = "fastq-bench/1"


@dataclass(frozen=True, repr=False)
class BenchRow:
    """One contender at one product.

    Attributes
    ----------
    shape : tuple of int
        m, k, n.
    name, library, kind : str
        Who; whose: ``"fastq"``, ``"numpy"`` or another library; what it is given. Those of one kind are rivals.
    bits : int
        Of the right operand; 32 for floats.
    group : int, optional
        So many k share a scale.
    best, median : float
        Seconds. A median of None was not kept.
    noise : float, optional
        Seconds: from best to median or, if it is more, from the best of the best round to that of the worst.
    times_faster : float
        Than float32 NumPy at this product, by the best times.
    usually_faster : float, optional
        The same by medians: of the ratios in each round the middle one.
    roof, share : str and float, optional
        The nearer roof, ``"compute"`` or ``"reading"``, and the least time under it as a share of the best time.
    sqnr_db : float, optional
        How close the answer comes to the product of x and w in float64. None: not of x and w, or exact.
    operations, nbytes : int and float
        Multiplications and additions; bytes of both operands, as they are handed over.
    unsteady : bool
        The times of this contender or NumPy's varied too much, or the machine was busy: the ratios say little.
    busy : bool
        Whether other programs took cores away while it was timed.
    """

    shape: tuple[int, int, int]
    name: str
    library: str
    kind: str
    bits: int
    group: int | None
    best: float
    median: float | None
    noise: float | None
    times_faster: float
    usually_faster: float | None
    roof: str | None = None
    share: float | None = None
    sqnr_db: float | None = None
    operations: int = 0
    nbytes: float = 0
    unsteady: bool = False
    busy: bool = False

    def __repr__(self) -> str:
        words = [f"{1e3 * self.best:.3g} ms", f"{self.times_faster:.3g}{self.mark} times faster than NumPy"]
        words += [] if self.share is None else [f"{self.share:.0%} of {self.roof}"]
        words += [] if self.sqnr_db is None else [f"{self.sqnr_db:.1f} dB"]
        return f"BenchRow({self.size} {self.name}: {', '.join(words)})"

    @property
    def size(self) -> str:
        """The shape as ``"128x768x3072"``."""
        return "x".join(map(str, self.shape))

    @property
    def mark(self) -> str:
        """What stands behind a ratio that says little."""
        return "?" if self.unsteady else ""


@dataclass(frozen=True, repr=False)
class BenchResult:
    """A benchmark: the machine, a row per product and contender, the machine's roofs.

    Attributes
    ----------
    machine : Machine
        What it was measured on.
    rows : tuple of BenchRow
        By product, NumPy first.
    roofs : dict
        See :class:`fastq.bench.roofs.Roofs`; empty: not measured.
    notes : tuple of str
        Who took no part, and why.
    taken : str
        When, as ISO 8601.
    source : str
        Where the figures come from, if not from this program.
    """

    machine: Machine
    rows: tuple[BenchRow, ...]
    roofs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    taken: str = ""
    source: str = ""

    def __repr__(self) -> str:
        count = len(self.by_shape())
        products = f"{count} product{'s' * (count != 1)}"
        busy = f", BUSY: {self.machine.busy}" if self.machine.busy else ""
        threads = f"{self.machine.threads} thread" + "s" * (self.machine.threads != 1)
        return (
            f"BenchResult({self.machine.cpu}, {self.machine.isa}, {threads}: {products}, {len(self.rows)} rows{busy})"
        )

    def _repr_html_(self) -> str | None:
        from fastq.pictures.bench_page import bench_card
        from fastq.pictures.compact import shown

        return shown(bench_card, self)

    def by_shape(self) -> dict[str, list[BenchRow]]:
        """Rows of each product."""
        found: dict[str, list[BenchRow]] = {}
        for one in self.rows:
            found.setdefault(one.size, []).append(one)
        return found

    def json(self) -> str:
        """The result as JSON: the fields above, ``"schema"`` first."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def of_json(cls, text: str) -> BenchResult:
        """What :meth:`json` wrote; fields that this version does not know are left out.

        Raises
        ------
        ValueError
            If it is something else, or of another version of the schema.
        """
        data = json.loads(text)
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"a result must have the schema {SCHEMA!r}; got {schema!r}: it is another file, or newer")
        rows = tuple(_made(BenchRow, {**one, "shape": tuple(one["shape"])}) for one in data["rows"])
        machine = _made(Machine, {**data["machine"], "isas": tuple(data["machine"]["isas"])})
        made: BenchResult = _made(cls, {**data, "rows": rows, "machine": machine, "notes": tuple(data["notes"])})
        return made

    @classmethod
    def of_run(cls, run: Run, machine: Machine, taken: str) -> BenchResult:
        """The products of a run on all threads: its contests that have a baseline, and are called by their shape."""
        rows = (one for name, found in run.groups.items() for one in rows_of(run, found) if one.size == name)
        return cls(machine, tuple(rows), run.roofs, tuple(run.notes), taken)


def rows_of(run: Run, found: list[Row]) -> Iterable[BenchRow]:
    """The rows of one contest, plainly; none if it has no baseline or no shape."""
    baseline = found[0]
    if not (baseline.baseline and len(baseline.shape) == 3):
        return
    for row in found:
        roof = run.roof(row)
        yield BenchRow(
            shape=row.shape or baseline.shape,  # type: ignore[arg-type]
            name=row.name,
            library=row.library or "fastq",
            kind=row.kind,
            bits=row.bits,
            group=row.size,
            best=row.best,
            median=row.median,
            noise=row.noise,
            times_faster=row.times_faster(baseline),
            usually_faster=row.usually_faster(baseline),
            roof=roof.name if roof else None,
            share=roof.seconds / row.best if roof else None,
            sqnr_db=row.sqnr,
            operations=row.operations,
            nbytes=row.nbytes,
            unsteady=row.unsteady or baseline.unsteady,
            busy=bool(row.busy),
        )


def _made(kind: Any, data: dict[str, Any]) -> Any:
    known = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in data.items() if name in known})
