"""What a run of the benchmarks leaves behind, in the JSON file of pytest-benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastq.bench import folder
from fastq.bench.machine import Machine
from fastq.bench.result import SCHEMA, BenchResult
from fastq.bench.run import Run, by_group, row


def load(path: str | Path) -> Run | BenchResult:
    """Read a JSON file of pytest-benchmark, or one of a folder of results.

    Benchmarks that say nothing to the report are left out.
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    if data.get("schema", "").startswith(SCHEMA.split("/")[0]):
        return folder.load(path)
    return collect([entry["extra_info"] for entry in data["benchmarks"]], data["machine_info"])


def collect(told: Iterable[dict[str, Any]], machine: dict[str, Any]) -> Run:
    """The run whose benchmarks told this."""
    rows, measures, notes = [], {}, []
    for info in told:
        rows += [row(facts) for facts in info.get("rows", ())]
        measures |= info.get("measures", {})
        notes += info.get("notes", ())
    return Run(machine.get("fastq", {}), by_group(rows), machine.get("roofs", {}), measures, notes)


def products(path: str | Path) -> BenchResult:
    """The products of a run, as a folder of results keeps them."""
    run = load(path)
    if isinstance(run, BenchResult):
        return run
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    if "machine" not in data["machine_info"]:
        raise ValueError(f"{path} was written by benchmarks that did not describe the machine yet; run them anew")
    described = data["machine_info"]["machine"]
    machine = Machine(**{**described, "isas": tuple(described["isas"])})
    return BenchResult.of_run(run, machine, data["datetime"])
