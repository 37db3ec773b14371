"""The measured machines of the page "Results", from the JSON files of a folder: a line each, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from fastq.bench import folder
from fastq.bench.compare import digits
from fastq.bench.result import BenchResult, BenchRow
from fastq.bench.run import TITLES

Draw = Callable[[BenchResult], str]  # gives a picture as HTML
HEADS = ("CPU", "instruction set", "threads", "8 bits", "fewer bits", "search", "measured")


def write(results: Path, page: Path, draw: Draw | None = None) -> None:
    """Write the page of all results in a folder, with a picture of each, if there is something that draws."""
    found = folder.load_all(results)
    parts = [overview(found)]
    for result in found:
        parts += [f"### {title(result)}", about(result)]
        if draw:
            folded = f"<details><summary>As a picture</summary>{draw(result)}</details>"
            parts.append(f"````{{raw}} html\n{folded}\n````")
        parts += tables(result)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def title(result: BenchResult) -> str:
    """A machine in a few words."""
    return f"{result.machine.cpu}, {result.machine.isa}"


def about(result: BenchResult) -> str:
    """What else there is to know of it."""
    busy = f" **BUSY: {result.machine.busy}.**" if result.machine.busy else ""
    source = f" Taken from {result.source}." if result.source else ""
    versions = ", ".join(f"{name} {number}" for name, number in result.machine.versions.items())
    return f"BLAS {result.machine.blas}; {versions}.{source}{busy}"


def overview(results: Sequence[BenchResult]) -> str:
    """A line for each machine: how many times faster fastq is than float32 NumPy, from the least to the most."""
    return _markdown([HEADS, *map(_line, results)], left=2)


def _line(result: BenchResult) -> list[str]:
    ours = [row for row in result.rows if row.library == "fastq"]
    products = [row for row in ours if not _is_search(row)]
    searches = [row for row in ours if _is_search(row)]
    parts = [[row for row in products if row.bits == 8], [row for row in products if row.bits < 8], searches]
    machine = result.machine
    ranges = [_range([row for row in part if row.kind != "two floats"]) for part in parts]
    return [machine.cpu, machine.isa, str(machine.threads), *ranges, result.taken[:10]]


def _range(rows: Sequence[BenchRow]) -> str:
    if not rows:
        return ""
    ends = (min(rows, key=lambda row: row.times_faster), max(rows, key=lambda row: row.times_faster))
    return " to ".join(dict.fromkeys(_ratio(row) for row in ends))


def _is_search(row: BenchRow) -> bool:
    return row.kind == "search"


def tables(result: BenchResult) -> Iterator[str]:
    """A table of products and one of searches; after fastq's contenders of a kind, its fastest peer."""
    shapes = list(result.by_shape().values())
    for searches in (False, True):
        found = [rows for rows in shapes if any(map(_is_search, rows)) == searches]
        ours = {row.name: row.kind for rows in found for row in rows if row.library == "fastq"}
        columns: dict[str, Callable[[Sequence[BenchRow]], str]] = {}
        for kind in dict.fromkeys(ours.values()):
            columns |= {name: partial(_of, name) for name in ours if ours[name] == kind}
            if any(_peer(kind, rows) for rows in found):
                columns[f"fastest peer of {kind}"] = partial(_peer, kind)
        if found:
            heads = ["times faster than float32", "NumPy, ms", *("fastest peer" if "peer" in c else c for c in columns)]
            yield _markdown([heads, *([*_numpy(rows), *(cell(rows) for cell in columns.values())] for rows in found)])


def _numpy(rows: Sequence[BenchRow]) -> tuple[str, str]:
    found = next(row for row in rows if row.library == "numpy")
    return found.size, digits(1e3 * found.best)


def _of(name: str, rows: Sequence[BenchRow]) -> str:
    return next((_ratio(row) for row in rows if row.name == name), "")


def _peer(kind: str, rows: Sequence[BenchRow]) -> str:
    peers = [row for row in rows if row.kind == kind and row.library not in ("fastq", "numpy")]
    best = max(peers, key=lambda row: row.times_faster, default=None)
    return f"{_ratio(best)} {TITLES.get(best.library, best.library)}" if best else ""


def _ratio(row: BenchRow) -> str:
    return digits(row.times_faster) + row.mark


def _markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    heads, *others = rows
    rule = ["---" if column < left else "--:" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *others))
