"""The roofs of the machine, by all measurements of a run: whatever disturbs one makes it lower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastq.engine.roofline import Rate, measurable, roofline
from fastq.kernels.table import Unit


class Roofs:
    """Peaks of units and bandwidth of memory, on one thread and on all; better with every look.

    `known` has plain values, for files: ``{"threads": 2, "bandwidth": {"one": ..., "all": ...}, "peaks": {unit:
    {"isa": ..., "bits": [...], "one": ..., "all": ...}}}``.
    """

    def __init__(self, units: Sequence[Unit] | None = None) -> None:
        self.known: dict[str, Any] = {}
        self._units = units

    def look(self) -> dict[str, Any]:
        """Measure, for about three seconds if all units take part; returns what is known."""
        units = measurable() if self._units is None else self._units
        found = roofline(units=units)
        self.known["threads"] = found.threads
        peaks = self.known.setdefault("peaks", {})
        _raise_to(self.known.setdefault("bandwidth", {}), found.bandwidth)
        for unit in units:
            _raise_to(peaks.setdefault(unit.name, {"isa": unit.isa, "bits": [*unit.bits]}), found.peaks[unit.name])
        return self.known


def _raise_to(known: dict[str, Any], rate: Rate) -> None:
    known.update({key: max(known.get(key, 0.0), value) for key, value in rate._asdict().items()})
