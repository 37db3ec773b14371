"""What :func:`fastq.quantize_all` would do with a file, told from shapes and types: no array is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastq.formats.entries import Opened
from fastq.models.inspection import stand_in
from fastq.models.result import Report, Row
from fastq.models.rules import Rules


def planned(
    model: Opened, settings: Mapping[str, Any], common: Mapping[str, Any], include: Any, exclude: Any
) -> Report:
    """The report that there would be.

    Parameters
    ----------
    model : Opened
        What :func:`fastq.open` gives.
    settings : mapping
        `bits`, `axis`, `group_size`, `method` and `calibration` as quantize_all takes them.
    common : mapping
        `scheme` and `group_scale`.
    include, exclude : optional
        As there.
    """
    rules = Rules(list(model), settings, common, include, exclude, to_file=True)
    rows = []
    for name in model:
        entry = model.entry(name)
        value = stand_in(entry)
        if value is None:
            rows.append(Row(name, entry.shape, False, f"no plain array: {entry.kind}", entry.nbytes, entry.nbytes))
        else:
            rows.append(rules.decide(name, value).row)
    return Report(rows)
