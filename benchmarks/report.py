"""Reports from the JSON that pytest-benchmark writes: a table, a plot, a comparison of two runs.

python benchmarks/report.py RUN.json [--readme README.md] [--plot FILE.png]
python benchmarks/report.py --compare OLD.json NEW.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from statistics import median
from typing import Any

START, END = "<!-- benchmark table -->", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """One contender of one group; times in seconds."""

    group: str
    name: str
    best: float
    median: float
    operations: int = 0  # of one call; 0 where it is not counted
    baseline: bool = False
    peak: float = 0  # operations per second that the machine could do; 0 where it was not measured
    isa: str | None = None

    @property
    def rate(self) -> float:
        """10^9 operations per second."""
        return self.operations / self.best / 1e9

    @property
    def noise(self) -> float:
        """What the time varies by: from the best to the median."""
        return self.median - self.best


@dataclass(frozen=True)
class Run:
    """What one run of the benchmarks found, in groups that share a baseline."""

    machine: dict[str, Any]
    groups: dict[str, list[Row]]

    def rows(self) -> dict[tuple[str, str], Row]:
        """All rows by group and name."""
        return {(row.group, row.name): row for rows in self.groups.values() for row in rows}


def load(path: str | Path) -> Run:
    """Read a JSON file of pytest-benchmark; benchmarks that say nothing to the report are left out.

    A contender that was measured in several blocks makes one row: its best time and the median of its medians.
    """
    data = json.loads(Path(path).read_text())
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in data["benchmarks"]:
        info = entry["extra_info"]
        if "contender" in info:
            name = info["contender"] + (f", {info['isa']}" if info.get("isa") else "")
            blocks.setdefault((entry["group"], name), []).append(entry)
    groups: dict[str, list[Row]] = {}
    for (group, name), entries in blocks.items():
        info = entries[0]["extra_info"]
        row = Row(
            group,
            name,
            min(entry["stats"]["min"] for entry in entries),
            median(entry["stats"]["median"] for entry in entries),
            **{key: info[key] for key in ("operations", "baseline", "peak", "isa") if key in info},
        )
        groups.setdefault(group, []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: not row.baseline)  # the baseline comes first, the others stay in their order
    return Run(data["machine_info"].get("fastq", {}), groups)


def table(run: Run) -> str:
    """The run as Markdown: times in ms, how many times faster than the group's baseline, 10^9 operations per second."""
    lines = [
        "; ".join(f"{key} {value}" if key != "CPU" else str(value) for key, value in run.machine.items()),
        "",
        "| | | best, ms | median, ms | times faster than the first | 10^9 op/s |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for group, rows in run.groups.items():
        baseline = next((row for row in rows if row.baseline), None)
        for number, row in enumerate(rows):
            faster = "" if baseline is None else "1" if row is baseline else _digits(baseline.best / row.best)
            rate = _digits(row.rate) if row.operations else ""
            if row.peak:
                rate += f" ({row.operations / row.best / row.peak:.0%} of the peak)"
            title = f"**{group}**" if number == 0 else ""
            cells = (title, row.name, _digits(1e3 * row.best), _digits(1e3 * row.median), faster, rate)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SHAPE = re.compile(r"\d+x\d+x\d+$")


def summary(run: Run) -> str:
    """What a README shows: per shape, the baseline's time and each contender's, on the best instruction set."""
    best_isa = run.machine.get("instruction set")
    columns: dict[str, dict[str, Row]] = {}
    for group, rows in run.groups.items():
        if SHAPE.match(group):
            for row in rows:
                if row.baseline or row.isa == best_isa:
                    columns.setdefault(row.name.removesuffix(f", {best_isa}"), {})[group] = row
    names = list(columns)
    lines = [
        "; ".join(f"{key} {value}" if key != "CPU" else str(value) for key, value in run.machine.items()),
        "",
        f"| ms (times faster than float32) | {' | '.join(names)} |",
        f"|---|{'--:|' * len(names)}",
    ]
    for group, rows in run.groups.items():
        baseline = next((row for row in rows if row.baseline), None)
        if baseline is None or not SHAPE.match(group):
            continue
        cells = [group]
        for name in names:
            row = columns[name].get(group)
            faster = "" if row is None or row is baseline else f" ({_digits(baseline.best / row.best)})"
            cells.append("" if row is None else _digits(1e3 * row.best) + faster)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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

    Best times are compared. The noise of a run is the distance from the best to the median.
    """
    before, after = old.rows(), new.rows()
    changes = []
    for key in before.keys() & after.keys():
        a, b = before[key], after[key]
        if abs(b.best - a.best) > a.noise + b.noise:
            changes.append((b.best / a.best, a, b))
    changes.sort(key=lambda change: -change[0])
    lines = [
        f"{'slower' if ratio > 1 else 'faster'}: {b.group}: {b.name}: "
        f"{_digits(1e3 * a.best)} -> {_digits(1e3 * b.best)} ms ({ratio - 1:+.0%})"
        for ratio, a, b in changes
    ]
    lines += [f"gone: {': '.join(key)}" for key in before if key not in after]
    lines += [f"new: {': '.join(key)}" for key in after if key not in before]
    if any(old.machine.get(fact) != new.machine.get(fact) for fact in ("CPU", "threads", "instruction set")):
        lines.append("note: the two runs are not of the same CPU, instruction set and number of threads")
    return lines or ["no change beyond the noise"], any(ratio > 1 for ratio, _, _ in changes)


def plot(run: Run, file: str | Path) -> None:
    """Draw the rates of the products: a line per shape, a point per contender, fastq on the best instruction set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    best = run.machine.get("instruction set")
    groups = {group: [row for row in rows if row.isa in (None, best)] for group, rows in run.groups.items()}
    groups = {group: rows for group, rows in groups.items() if rows[0].baseline and rows[0].operations and rows[1:]}
    if not groups:
        raise ValueError("there is nothing to plot: no group has a baseline that counts operations, and a rival")
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.45 * len(groups)), layout="constrained")
    for number, name in enumerate(dict.fromkeys(row.name for rows in groups.values() for row in rows)):
        points = [(row.rate, i) for i, rows in enumerate(groups.values()) for row in rows if row.name == name]
        axes.plot(*zip(*points), "os^vDPX*"[number % 8], label=name.removesuffix(f", {best}"), color=f"C{number}")
    axes.set_xscale("log")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set_xlabel("10⁹ operations per second")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main(arguments: Iterable[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if something became slower."""
    parser = argparse.ArgumentParser(description="Report what pytest-benchmark wrote with --benchmark-json.")
    parser.add_argument("run", nargs="?", help="JSON file; its table goes to standard output")
    parser.add_argument(
        "--readme", metavar="FILE", help=f"put a summary between {START} and {END} of this file as well"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the products' rates into this PNG file")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), help="name what changed by more than the noise")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if (options.run is None) == (options.compare is None):
        parser.error("give either one JSON file or --compare OLD NEW")
    if options.compare:
        lines, slower = compare(*(load(path) for path in options.compare))
        print("\n".join(lines))
        return int(slower)
    run = load(options.run)
    print(table(run))
    if options.readme:
        readme = Path(options.readme)
        readme.write_text(replace(readme.read_text(encoding="utf-8"), summary(run)), encoding="utf-8")
    if options.plot:
        plot(run, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
