"""Time products on this machine: float32 NumPy, fastq, and the other libraries that are installed.

Shapes are MxKxN: rows of x, the summed axis, columns of w. Answers are checked before they are timed, and all take
turns in rounds. A ? stands behind figures that say little, because times varied or the machine was busy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastq.cli import html, output

if TYPE_CHECKING:
    from fastq.bench.machine import Machine
    from fastq.bench.result import BenchRow

SHAPES = ("1x4096x4096", "16x4096x4096", "1024x1024x1024")
HEADS = ("", "best, ms", "median, ms", "times faster", "by medians", "of the nearer roof", "SQNR, dB")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    add("shapes", nargs="*", type=_shape, metavar="MxKxN", help=f"products; by default {' '.join(SHAPES)}")
    add("--bits", type=_width, nargs="+", default=(8, 4, 3), metavar="B", help="widths of w, 2 to 8; by default 8 4 3")
    add(
        "--group", type=_count, metavar="K", help="so many k share a scale, where w has 2 to 6 bits; else a column does"
    )
    add("--codes", action="store_true", help="8-bit codes on both sides, too, beside libraries of integer products")
    add("--threads", type=_count, metavar="N", help="threads of each product; by default all cores that may be used")
    add("--seconds", type=_seconds, default=60.0, metavar="S", help="take about so long in all, at most; 60 by default")
    html.add(parser)
    add("--save", metavar="FOLDER", help="write the result into this folder, too, named by CPU and date")


def run(given: argparse.Namespace) -> None:
    """Measure and print."""
    from fastq.bench import folder
    from fastq.bench.contest import fq_threads
    from fastq.bench.products import Wanted, bench, check_memory
    from fastq.bench.shapes import parse

    html.check(given.html)
    shapes = given.shapes or [parse(text) for text in SHAPES]
    wanted = Wanted(given.bits, given.group, given.codes, given.threads, given.seconds)
    if problem := _problem(wanted, fq_threads()):
        raise ValueError(problem)
    check_memory(shapes)
    quiet = given.json
    result = bench(shapes, wanted, (lambda machine: None) if quiet else _begin, _tell_nothing if quiet else _tell)
    if given.html:
        from fastq.pictures.bench_page import bench_page

        html.write(given.html, bench_page(result))
    if quiet:
        print(result.json())
    elif "became busy" in " ".join(result.notes[-1:]):
        print(f"\nBUSY: {result.notes[-1]}")
    if given.save:
        output.note(f"written to {folder.save(result, given.save)}")


def _problem(wanted: Any, threads: int) -> str:
    """What this machine does not allow; empty if it does."""
    from importlib.util import find_spec

    if wanted.threads is not None and wanted.threads > threads:
        return f"--threads must be at most {threads}, the cores that this process may use; got {wanted.threads}"
    if wanted.threads is not None and find_spec("threadpoolctl") is None:
        return "--threads needs threadpoolctl, which holds NumPy to them: pip install threadpoolctl"
    return ""


def _begin(machine: Machine) -> None:
    """The lines above all figures."""
    if machine.busy:
        print(f"BUSY: {machine.busy}; figures with a ? say little")
    print(machine, flush=True)


def _tell(rows: Sequence[BenchRow], notes: Sequence[str]) -> None:
    """A product's figures."""
    print(f"\n{rows[0].size}")
    output.table(HEADS, map(_cells, rows), left=HEADS[:1])
    for note in notes:
        print(f"* {note}")
    sys.stdout.flush()


def _tell_nothing(rows: Sequence[BenchRow], notes: Sequence[str]) -> None:
    output.note(f"{rows[0].size} done")


def _cells(row: BenchRow) -> list[str]:
    from fastq.bench.compare import digits

    baseline = row.library == "numpy"
    return [
        row.name,
        digits(1e3 * row.best),
        "" if row.median is None else digits(1e3 * row.median),
        "1" if baseline else digits(row.times_faster) + row.mark,
        "" if baseline or row.usually_faster is None else digits(row.usually_faster) + row.mark,
        "" if row.share is None else f"{row.share:.0%}{row.mark} {row.roof}",
        "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
    ]


def _shape(text: str) -> Any:
    from fastq.bench.shapes import parse

    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _width(text: str) -> int:
    if text not in {str(bits) for bits in range(2, 9)}:
        hint = "; shapes come before --bits" if "x" in text else ""
        raise argparse.ArgumentTypeError(f"must be widths from 2 to 8; got {text!r}{hint}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive integer; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds; got {text!r}")
    return value
