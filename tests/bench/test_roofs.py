"""The roofs of a run, and what they mean for a row."""

from __future__ import annotations

from fastq.bench import roofs
from fastq.bench.run import Run
from fastq.engine.roofline import Rate, Roofline, measurable, roofline
from tests.bench.made import ours


def test_the_best_look_counts(monkeypatch):
    """For each figure by itself: whatever disturbs a measurement makes it lower."""
    unit = measurable()[0]
    looks = iter([Rate(1.0, 5.0), Rate(3.0, 4.0)])

    def found(units):
        assert units == [unit]
        rate = next(looks)
        return Roofline(2, {unit.name: rate}, rate)

    monkeypatch.setattr(roofs, "roofline", found)
    known = roofs.Roofs([unit])
    known.look()
    best = {"one": 3.0, "all": 5.0}
    peaks = {unit.name: {"isa": unit.isa, "bits": [*unit.bits], **best}}
    assert known.look() == known.known == {"threads": 2, "bandwidth": best, "peaks": peaks}


def test_some_units_or_none():
    unit = measurable()[-1]
    assert list(roofline(1e-5, 1 << 14, [unit]).peaks) == [unit.name]
    assert roofline(1e-5, 1 << 14, []).peaks == {}  # on the reference


def test_no_units_no_roof():
    known = {"threads": 1, "bandwidth": {"one": 1.0, "all": 1.0}, "peaks": {}}
    run = Run({}, {}, known)
    assert run.roof(ours()) is None
    assert run.roof(ours(isa=None, library="torch")) is None
