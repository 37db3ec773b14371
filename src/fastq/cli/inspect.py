"""Show the arrays of a file: shape, type, bits per weight and size, and with --bits what quantizing them would cost and
gain.

FILE is what fastq.open takes: safetensors, the folder of a checkpoint, GGUF, ONNX, or fastq's own. Each array is read
once, to be sure that it can be read; --dry-run reads the header alone. With --bits, there are columns for the size of
each array in that form, and for its SQNR: the ratio of signal to quantization noise (20 dB is an error of a tenth).
Arrays that "fastq quantize" would leave as they are have none.
"""

from __future__ import annotations

import argparse
from typing import Any

from fastq.cli import html, output, shared
from fastq.errors import in_bytes

LEFT = ("name", "type", "")  # columns of text
SORTS = ("size", "name", "kind", "bits", "sqnr", "file")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("file", metavar="FILE", help="a file of weights, or the folder of a checkpoint")
    parser.add_argument("--bits", type=shared.bits, nargs="+", default=[], metavar="BITS", help="widths to try, 2 to 8")
    group = "sizes of groups to try, each with each width; 0: one scale for a whole line (default)"
    parser.add_argument("--group", type=shared.group, nargs="+", default=[None], metavar="SIZE", help=group)
    shared.add_form(parser, ("minmax", "mse", "percentile"))
    order = "rows by size (default), name, kind, bits per weight, SQNR (worst first), or as in the file"
    parser.add_argument("--sort", choices=SORTS, default="size", help=order)
    html.add(parser)
    parser.add_argument("--dry-run", action="store_true", help="sizes only; no array is read")


def run(given: argparse.Namespace) -> int:
    """Inspect, and print; 1 if no array could be read."""
    from fastq.formats.opening import open
    from fastq.models.inspection import inspect, sorted_rows

    html.check(given.html)
    form = {"axis": given.axis, "method": given.method, "scheme": given.scheme}
    with shared.progress("inspecting") as tell:
        model = open(given.file)
        found = inspect(model, given.bits, given.group, **form, dry=given.dry_run, tell=tell)
    rows = list(found.rows) if given.sort == "file" else sorted_rows(found.rows, given.sort)
    if given.html:
        from fastq.pictures.inspect_page import inspect_page

        width, group = found.forms[0] if found.forms else (4, None)
        about = None if given.dry_run else html.about(model, found, width, group, **form)
        html.write(given.html, inspect_page(found, about))
    if given.json:
        output.document(_document(found, rows, given))
    else:
        _print(found, rows)
    return int(bool(rows) and all(row.problem for row in rows))


def _print(found: Any, rows: list[Any]) -> None:
    from fastq.models.inspection import form_in_words

    forms = [(form, form_in_words(form)) for form in found.forms]
    heads = ["name", "shape", "type", "bits/weight", "size"]
    measured = any(row.sqnr for row in rows)
    heads += [head for _, words in forms for head in ([words, "SQNR"] if measured else [words])]
    cells = [_cells(row, found.forms, measured) for row in rows]
    total = [f"{len(rows)} arrays", "", "", f"{8 * found.nbytes / found.size:.2f}" if found.size else ""]
    total.append(in_bytes(found.nbytes))
    for form, _ in forms:
        worst = found.worst(form)
        total += [in_bytes(found.quantized(form))]
        total += [output.decibels(worst and worst.sqnr[form])] * measured
    output.table([*heads, ""], [*cells, [*total, "in all; the worst SQNR" if measured else "in all"]], LEFT)


def _cells(row: Any, forms: Any, measured: bool) -> list[str]:
    cells = [row.name, output.shape(row.shape), row.kind, f"{row.bits_per_weight:.2f}", in_bytes(row.nbytes)]
    for form in forms:
        cells.append(in_bytes(row.sizes[form]) if form in row.sizes else "")
        cells += [output.decibels(row.sqnr.get(form))] * measured
    remark = f"cannot be read: {row.problem}" if row.problem else row.form
    if forms and row.stays and not row.problem:
        remark = f"{remark}; {row.stays}" if remark else f"stays: {row.stays}"
    return [*cells, remark]


def _document(found: Any, rows: list[Any], given: argparse.Namespace) -> dict[str, Any]:
    arrays = [
        {
            "name": row.name,
            "shape": row.shape,
            "kind": row.kind,
            "form": row.form or None,
            "nbytes": row.nbytes,
            "bits_per_weight": row.bits_per_weight,
            "problem": row.problem or None,
            "stays": row.stays or None,
            "forms": [
                {"bits": form[0], "group": form[1], "nbytes": nbytes, "sqnr_db": row.sqnr.get(form)}
                for form, nbytes in row.sizes.items()
            ],
        }
        for row in rows
    ]
    totals = [{"bits": form[0], "group": form[1], "nbytes": found.quantized(form)} for form in found.forms]
    return {
        "path": found.path,
        "format": found.format,
        "nbytes": found.nbytes,
        "elements": found.size,
        "axis": given.axis,
        "method": given.method,
        "scheme": given.scheme,
        "dry_run": given.dry_run,
        "forms": totals,
        "arrays": arrays,
    }
