"""Reports from the JSON that the benchmarks write: tables, figures, a picture, a comparison of two runs.

python benchmarks/report.py RUN.json [--readme README.md] [--plot FILE.png] [--save FOLDER]
python benchmarks/report.py --compare OLD.json NEW.json
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastq.bench import folder
from fastq.bench.compare import Timed, by_ratio, by_time, digits, ratios_of, times_of
from fastq.bench.result import BenchResult
from fastq.bench.run import TITLES, Row, Run
from figures import CODES, FLOAT32, INT3, INT8, TWO, figures
from picture import roofline
from results import load, products

OTHER = "note: the two runs are not of the same CPU, instruction set and number of threads; ratios are compared"
START, END = "<!-- benchmark table -->", "<!-- end -->"
SHAPE = re.compile(r"\d+x\d+x\d+$")  # the groups of products that the README shows
COLUMNS = {INT8: True, CODES: True, INT3: True, TWO: False}  # of the README, and whether a column of peers follows


def machine(run: Run) -> str:
    """Facts about the machine and who took part."""
    facts = "; ".join(f"{key} {value}" if key != "CPU" else str(value) for key, value in run.machine.items())
    return "\n".join([*busy(run), facts, *(f"* {note}" for note in run.notes)])


def busy(run: Run) -> Iterator[str]:
    """A line if other programs took cores away; the figures of these rows have a ``?``."""
    rows = [row for rows in run.groups.values() for row in rows]
    if found := [row for row in rows if row.busy]:
        yield f"BUSY: {found[0].busy}, while {len(found)} of {len(rows)} rows were timed"


def table(run: Run) -> str:
    """The run as Markdown: times, times faster than the baseline, rates and their share of the nearer roof."""
    lines = [
        machine(run),
        "",
        "| | | best, ms | median, ms | times faster than the first | 10^9 op/s | of the nearer roof | packing, ms |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for group, rows in run.groups.items():
        for number, row in enumerate(rows):
            roof = run.roof(row)
            cells = (
                f"**{group}**" if number == 0 else "",
                row.title,
                digits(1e3 * row.best),
                digits(1e3 * row.median),
                _faster(rows[0], row),
                digits(row.rate) if row.operations else "",
                f"{roof.seconds / row.best:.0%} {roof.name}" if roof else "",
                "" if row.pack is None else digits(1e3 * row.pack),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def whole(run: Run) -> str:
    """Table and figures; a part that has nothing to show is left out."""
    found, doubt = figures(run), ", of a busy machine: they say little" if [*busy(run)] else ""
    return "\n\n".join([table(run), *([f"## Figures{doubt}", found] if found else [])])


def summary(run: Run) -> str:
    """What a README shows: per shape the baseline's time, fastq's ways, and the fastest peer of each kind."""
    heads = [FLOAT32]
    for name, has_peers in COLUMNS.items():
        heads += [f"{name}", "fastest peer"] if has_peers else [name]
    lines = [
        machine(run),
        "",
        f"| ms (times faster than float32) | {' | '.join(heads)} |",
        f"|---|{'--:|' * len(heads)}",
    ]
    for group in filter(SHAPE.match, run.groups):
        baseline = run.groups[group][0]
        if not baseline.baseline:
            continue
        cells = [group, digits(1e3 * baseline.best)]
        for name, has_peers in COLUMNS.items():
            try:
                cells.append(_against(baseline, run.row(group, name)))
            except KeyError:
                cells.append("")
            if has_peers:
                try:
                    peer = run.fastest_peer(group, name)
                    cells.append(f"{_against(baseline, peer)} {TITLES[peer.library]}")
                except KeyError:
                    cells.append("")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _against(baseline: Row, row: Row) -> str:
    return f"{digits(1e3 * row.best)} ({_faster(baseline, row)})"


def _faster(first: Row, row: Row) -> str:
    """How many times faster; with a ``?`` where times varied too much to say so."""
    if not first.baseline:
        return ""
    return "1" if row is first else digits(row.times_faster(first)) + "?" * (row.unsteady or first.unsteady)


def replace(text: str, content: str) -> str:
    """The text with everything between the two markers replaced."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(
            f"the file must have the lines {START} and {END}, in this order, around the place of the table"
        )
    return f"{before}{START}\n{content}\n{END}{after}"


def compare(old: Run, new: Run) -> tuple[list[str], bool]:
    """What became slower or faster by more than the noise of both runs together, and whether anything became slower.

    Of two machines, ratios to NumPy are compared instead: seconds of one say nothing of the other.
    """
    if any(old.machine.get(fact) != new.machine.get(fact) for fact in ("CPU", "threads", "instruction set")):
        return [OTHER, *by_ratio(ratios_of(old), ratios_of(new))], False
    times = [{key: Timed(row.best, row.noise) for key, row in run.rows().items()} for run in (old, new)]
    lines, slower = by_time(*times)
    return lines or ["no change beyond the noise"], slower


def compare_results(old: BenchResult, new: BenchResult) -> tuple[list[str], bool]:
    """The same for two files of a folder of results."""
    a, b = old.machine, new.machine
    if (a.cpu, a.isa, a.threads) != (b.cpu, b.isa, b.threads):
        return [OTHER, f"{a}", f"-> {b}", *by_ratio(ratios_of(old), ratios_of(new))], False
    lines, slower = by_time(times_of(old), times_of(new))
    return lines or ["no change beyond the noise"], slower


def _compared(*paths: str) -> tuple[list[str], bool]:
    """Runs of the benchmarks as a whole; their products, where one is a result of products."""
    old, new = map(load, paths)
    if isinstance(old, Run) and isinstance(new, Run):
        return compare(old, new)
    return compare_results(*map(products, paths))


def main(arguments: Iterable[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if something became slower."""
    parser = argparse.ArgumentParser(description="Report what the benchmarks wrote with --benchmark-json.")
    parser.add_argument("run", nargs="?", help="JSON file; its table goes to standard output")
    parser.add_argument(
        "--readme", metavar="FILE", help=f"put a summary between {START} and {END} of this file as well"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the products under the machine's roofs into this PNG file")
    parser.add_argument("--save", metavar="FOLDER", help="keep the products in a folder, as fastq bench does")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), help="name what changed by more than the noise")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if (options.run is None) == (options.compare is None):
        parser.error("give either one JSON file or --compare OLD NEW")
    if options.compare:
        lines, slower = _compared(*options.compare)
        print("\n".join(lines))
        return int(slower)
    run = load(options.run)
    if isinstance(run, BenchResult):
        parser.error(f"{options.run} is a result of products; --compare takes it, and docs/results.md shows it")
    print(whole(run))
    if options.readme:
        readme = Path(options.readme)
        readme.write_text(replace(readme.read_text(encoding="utf-8"), summary(run)), encoding="utf-8")
    if options.plot:
        roofline(run, [group for group in run.groups if SHAPE.match(group)], options.plot)
    if options.save:
        print(f"written to {folder.save(products(options.run), options.save)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
