"""A folder of results: a JSON file for each machine and run, named by CPU, instruction set and date."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastq.bench.result import BenchResult


def name_of(result: BenchResult) -> str:
    """The name of its file, as ``amd-epyc_avx512vnni_2026-11-29t12-00-00.json``."""
    date = result.taken.split("+")[0] or "undated"
    parts = (result.machine.cpu, result.machine.isa, date)
    return "_".join(re.sub(r"[^a-z0-9_]+", "-", part.lower()).strip("-") for part in parts) + ".json"


def save(result: BenchResult, folder: str | Path) -> Path:
    """Write a result into a folder, which is made if it is not there; returns the file. No file is replaced."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    wanted = Path(folder) / name_of(result)
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_stem(f"{wanted.stem}_{number}")
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        beside.write_text(result.json() + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> BenchResult:
    """Read a result.

    Raises
    ------
    ValueError
        If the file is none; the message has its name.
    """
    try:
        return BenchResult.of_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_all(folder: str | Path) -> list[BenchResult]:
    """All results in a folder, by the names of their files."""
    return [load(path) for path in sorted(Path(folder).glob("*.json"))]
