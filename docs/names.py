"""The tables of the reference: every public name, with the first line of its docstring."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import fastq as fq

GUESTS = ("onnx", "dask", "zarr")  # of fastq.interop; onnx needs no library


def write(path: Path) -> None:
    """Write the tables; what needs a library that is not installed is left out."""
    parts = [table("fastq", fq)]
    for guest in GUESTS:
        if guest == "onnx" or importlib.util.find_spec(guest):
            name = f"fastq.interop.{guest}"
            parts.append(f"**`{name}`**\n\n{table(name, importlib.import_module(name))}")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def table(module: str, value: object) -> str:
    """The public names of a module, in the order of the alphabet."""
    names = sorted(value.__all__, key=str.lower)
    rows = [f"| {{py:obj}}`{name} <{module}.{name}>` | {line(getattr(value, name))} |" for name in names]
    return "\n".join(["| name | |", "|---|---|", *rows])


def line(value: object) -> str:
    """The first line of a docstring, as Markdown."""
    first = inspect.getdoc(value).partition("\n")[0]
    return re.sub(r":\w+:`", "`", first).replace("|", r"\|")
