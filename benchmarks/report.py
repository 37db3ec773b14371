"""Reports from the JSON that the benchmarks write: tables, figures, a picture, a comparison of two runs.

python benchmarks/report.py RUN.json [--readme README.md] [--plot FILE.png]
python benchmarks/report.py --compare OLD.json NEW.json
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from math import floor, log10
from pathlib import Path

from figures import CODES, FLOAT32, INT3, INT8, TWO, figures
from picture import roofline
from results import TITLES, Row, Run, load

START, END = "<!-- benchmark table -->", "<!-- end -->"
SHAPE = re.compile(r"\d+x\d+x\d+$")  # the groups of products that the README shows
COLUMNS = {INT8: True, CODES: True, INT3: True, TWO: False}  # of the README, and whether a column of peers follows


def machine(run: Run) -> str:
    """Facts about the machine and who took part."""
    facts = "; ".join(f"{key} {value}" if key != "CPU" else str(value) for key, value in run.machine.items())
    return "\n".join([facts, *(f"* {note}" for note in run.notes)])


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
                _digits(1e3 * row.best),
                _digits(1e3 * row.median),
                _faster(rows[0], row),
                _digits(row.rate) if row.operations else "",
                f"{roof.seconds / row.best:.0%} {roof.name}" if roof else "",
                "" if row.pack is None else _digits(1e3 * row.pack),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        cells = [group, _digits(1e3 * baseline.best)]
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
    return f"{_digits(1e3 * row.best)} ({_faster(baseline, row)})"


def _faster(first: Row, row: Row) -> str:
    if not first.baseline:
        return ""
    return "1" if row is first else _digits(first.best / row.best)


def _digits(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:.{max(0, 2 - floor(log10(value)))}f}"


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

    Best times are compared. The noise of a run is the distance from the best to the median or, if that is larger, to
    the best of the worst round.
    """
    before, after = old.rows(), new.rows()
    changes = []
    for key in before.keys() & after.keys():
        a, b = before[key], after[key]
        if abs(b.best - a.best) > a.noise + b.noise:
            changes.append((b.best / a.best, a, b))
    changes.sort(key=lambda change: -change[0])
    lines = [
        f"{'slower' if ratio > 1 else 'faster'}: {b.group}: {b.title}: "
        f"{_digits(1e3 * a.best)} -> {_digits(1e3 * b.best)} ms ({ratio - 1:+.0%})"
        for ratio, a, b in changes
    ]
    lines += [f"gone: {', '.join(key)}" for key in before if key not in after]
    lines += [f"new: {', '.join(key)}" for key in after if key not in before]
    if any(old.machine.get(fact) != new.machine.get(fact) for fact in ("CPU", "threads", "instruction set")):
        lines.append("note: the two runs are not of the same CPU, instruction set and number of threads")
    return lines or ["no change beyond the noise"], any(ratio > 1 for ratio, _, _ in changes)


def main(arguments: Iterable[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if something became slower."""
    parser = argparse.ArgumentParser(description="Report what the benchmarks wrote with --benchmark-json.")
    parser.add_argument("run", nargs="?", help="JSON file; its table goes to standard output")
    parser.add_argument(
        "--readme", metavar="FILE", help=f"put a summary between {START} and {END} of this file as well"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the products under the machine's roofs into this PNG file")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), help="name what changed by more than the noise")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if (options.run is None) == (options.compare is None):
        parser.error("give either one JSON file or --compare OLD NEW")
    if options.compare:
        lines, slower = compare(*(load(path) for path in options.compare))
        print("\n".join(lines))
        return int(slower)
    run = load(options.run)
    print(f"{table(run)}\n\n## Figures\n\n{figures(run)}")
    if options.readme:
        readme = Path(options.readme)
        readme.write_text(replace(readme.read_text(encoding="utf-8"), summary(run)), encoding="utf-8")
    if options.plot:
        roofline(run, [group for group in run.groups if SHAPE.match(group)], options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
