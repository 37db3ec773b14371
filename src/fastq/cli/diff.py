"""Compare the arrays of two files by name: the error of each in FILE2, with FILE1 as what is exact; the worst first.

An error has three shares. "clipping" is the part of the squared error in elements that lie beyond the number of the
first or last code, and have that code. "rounding" is all the rest; both make 100 %. "scales" is how much of the whole
the best scale of each group (by least squares, and with the best offset where there is one) would take away, with codes
as they are.

Much clipping asks for a larger range or more bits; much in scales for a method that looks at the error, such as mse;
the rest is rounding, which more bits, smaller groups or gptq reduce.
"""

from __future__ import annotations

import argparse
from typing import Any

from fastq.cli import html, output, shared
from fastq.errors import in_bytes


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("first", metavar="FILE1", help="the original, of floats or quantized")
    parser.add_argument("second", metavar="FILE2", help="what is compared with it, quantized or of floats")
    html.add(parser)
    parser.add_argument("--sort", choices=("error", "name", "size"), default="error", help="rows by (default: error)")


def run(given: argparse.Namespace) -> int:
    """Compare, and print; 1 if nothing could be compared."""
    from fastq.formats.opening import open
    from fastq.models.difference import difference

    html.check(given.html)
    with shared.progress("comparing") as tell:
        found = difference(open(given.first), open(given.second), tell)
    rows = list(found.rows)
    if given.sort != "error":
        rows.sort(key=lambda row: row.name if given.sort == "name" else -row.nbytes)
    if given.html:
        from fastq.pictures.diff_page import diff_page

        html.write(given.html, diff_page(found, given.first, given.second))
    if given.json:
        output.document(_document(found, rows, given))
    else:
        _print(found, rows, given)
    return int(not found.compared)


HEADS = ("name", "shape", "types", "size", "SQNR", "largest error", "rounding", "clipping", "scales", "")


def _print(found: Any, rows: list[Any], given: argparse.Namespace) -> None:
    if rows:
        output.table(HEADS, [_cells(row) for row in rows], ("name", "types", ""))
    for path, names in ((given.first, found.only_first), (given.second, found.only_second)):
        for name in names:
            print(f"only in {output.visible(path)}: {output.visible(name)}")
    print(f"{found.compared} arrays compared, {len(rows) - found.compared} could not be", end="")
    print(f"; {len(found.only_first)} only in the first file, {len(found.only_second)} only in the second")


def _cells(row: Any) -> list[str]:
    cells = [row.name, output.shape(row.shape), f"{row.kind} -> {row.other}", in_bytes(row.nbytes)]
    error, shares = row.error, row.shares
    cells += [output.decibels(row.sqnr_db), "" if error is None else f"{error.max_abs:.3g}"]
    told = shares is not None and error.max_abs > 0
    return [*cells, *([f"{share:.0%}" for share in shares] if told else [""] * 3), row.problem]


def _document(found: Any, rows: list[Any], given: argparse.Namespace) -> dict[str, Any]:
    arrays = []
    for row in rows:
        measures = {"sqnr_db": None, "max_abs": None, "rmse": None, "cosine": None}
        if row.error is not None:
            measures = {name: getattr(row.error, name) for name in measures}
        shares = {"rounding": None, "clipping": None, "scales": None} if row.shares is None else row.shares._asdict()
        arrays.append(
            {
                "name": row.name,
                "shape": row.shape,
                "kind": row.kind,
                "other": row.other,
                "nbytes": row.nbytes,
                "exact": row.error is not None and row.error.max_abs == 0,
                **measures,
                **shares,
                "problem": row.problem or None,
            }
        )
    return {
        "first": given.first,
        "second": given.second,
        "arrays": arrays,
        "only_first": found.only_first,
        "only_second": found.only_second,
    }
