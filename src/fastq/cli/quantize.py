"""Quantize the weights in IN, whatever tool wrote it, and write them to OUT, a file of safetensors, with all others.

Arrays of floats are quantized that have two axes or more, 4096 elements or more, and 32 or more along --axis; vectors
and small ones stay as they are. Patterns are those of a shell, such as '*.mlp.*'; one that fits no array is an error.
Memory is bounded: arrays are taken one at a time, large ones in blocks. OUT appears when it is complete.

--calibration X.npz holds, under the name of each weight, the input of its product: rows of K numbers, or their second
moment, a symmetric matrix of K x K. gptq needs it, and mse weighs errors by it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from fastq.cli import output, shared
from fastq.cli.output import WrongArgumentsError
from fastq.errors import in_bytes, shown

METHODS = ("minmax", "mse", "percentile", "gptq")
LEFT = ("name", "what was done, or why nothing was")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="IN", help="a file of weights, or the folder of a checkpoint")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument("--bits", type=shared.bits, default=8, metavar="BITS", help="the width, 2 to 8 (default: 8)")
    other = "another width for the arrays that a pattern fits; may be given several times, the first that fits counts"
    parser.add_argument("--bits-for", type=_width_of, action="append", default=[], metavar="PATTERN=BITS", help=other)
    group = "elements per group, each with a scale of its own; 0: one scale for a whole line (default)"
    parser.add_argument("--group", type=shared.group, metavar="SIZE", help=group)
    shared.add_form(parser, METHODS)
    kinds = "scales of groups: integer (fastest, the default where it is possible) or float (which other tools read)"
    parser.add_argument("--group-scale", choices=("integer", "float"), help=kinds)
    parser.add_argument("--calibration", metavar="X.npz", help="the input of products, by the names of their weights")
    include = "quantize these arrays only, and even if they are small; may be given several times"
    parser.add_argument("--include", action="append", metavar="PATTERN", help=include)
    exclude = "leave these arrays as they are; may be given several times"
    parser.add_argument("--exclude", action="append", metavar="PATTERN", help=exclude)
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and write nothing")


def run(given: argparse.Namespace) -> None:
    """Quantize, and print what was applied to what."""
    from fastq.formats.opening import open
    from fastq.models.planning import planned
    from fastq.models.quantize_all import quantize_all

    _check(given)
    model = open(given.source)
    settings: dict[str, Any] = {
        "bits": _bits(given),
        "axis": given.axis,
        "group_size": given.group,
        "method": given.method,
        "calibration": None if given.calibration is None else _calibration(given.calibration, model),
    }
    common = {"scheme": given.scheme, "group_scale": given.group_scale}
    some = {"include": given.include, "exclude": given.exclude}
    if given.dry_run:
        report = planned(model, settings, common, **some)
    else:
        with shared.progress("quantizing") as tell:
            report = quantize_all(model, **settings, **common, **some, out=given.out, progress=tell).report
    if given.json:
        output.document(_document(report, given))
    else:
        _print(report, given)


def _bits(given: argparse.Namespace) -> Any:
    """One width, or widths by patterns, of which the first that fits counts."""
    if not given.bits_for:
        return given.bits
    widths = dict[str, int]()
    for pattern, width in (*given.bits_for, ("*", given.bits)):
        widths.setdefault(pattern, width)
    return widths


def _width_of(text: str) -> tuple[str, int]:
    pattern, sign, width = text.rpartition("=")
    if not sign or not pattern:
        raise argparse.ArgumentTypeError(f"it must be PATTERN=BITS, such as '*.head=8'; got {text!r}")
    return pattern, shared.bits(width)


def _check(given: argparse.Namespace) -> None:
    """What would fail late, or destroy what cannot be made again."""
    source, out = Path(given.source), Path(given.out)
    if given.method == "gptq" and given.calibration is None:
        raise WrongArgumentsError("--method gptq needs --calibration X.npz, the input of each product")
    if given.method not in ("gptq", "mse") and given.calibration is not None:
        raise WrongArgumentsError(f"--calibration is for --method gptq or mse; got {given.method}")
    if given.dry_run or not out.exists():
        return
    inside = source.is_dir() and out.parent.resolve() == source.resolve()
    if inside or (source.exists() and os.path.samefile(source, out)):
        raise WrongArgumentsError(
            f"OUT must be another file than IN, whose floats would be lost; got {shown(given.out)}"
        )
    if not given.force:
        raise WrongArgumentsError(f"OUT must not exist yet, or be replaced with --force; got {shown(given.out)}")


def _calibration(path: str, model: Any) -> Callable[[str], Any]:
    """A function that reads the calibration of an array when it is asked for."""
    import numpy as np

    from fastq.quant.moment import of_matrix

    os.stat(path)  # raises if there is no such file
    if not is_zipfile(path):
        raise ValueError(f"--calibration must be a file of numpy.savez, with an array for each weight; got {path}")
    file = np.load(path, allow_pickle=False)
    for name in file.files:
        if name not in model:
            close = get_close_matches(name, model, 3)
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise ValueError(f"--calibration must have names of arrays; {shown(name)} of {path} is none{hint}")

    def read(name: str) -> Any:
        if name not in file.files:
            return None
        array = file[name]
        square = array.ndim == 2 and array.shape[0] == array.shape[1] and array.dtype.kind == "f"
        near = square and np.allclose(array, array.T, rtol=1e-4, atol=1e-6 * float(np.abs(array).max(initial=0)))
        return of_matrix(array) if near and (np.diagonal(array) >= 0).all() else array

    return read


def _print(report: Any, given: argparse.Namespace) -> None:
    heads = ("name", "shape", "before", "after", LEFT[1])
    cells = []
    for row in report:
        after = in_bytes(row.after) if row.quantized else ""
        what = row.what if row.quantized else f"stays: {row.what}"
        cells.append([row.name, output.shape(row.shape), in_bytes(row.before), after, what])
    output.table(heads, cells, LEFT)
    print(repr(report).splitlines()[-1] + (" (dry run: nothing was written)" if given.dry_run else f": {given.out}"))


def _document(report: Any, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "source": given.source,
        "out": None if given.dry_run else given.out,
        "before": report.before,
        "after": report.after,
        "arrays": [row._asdict() for row in report],
    }
