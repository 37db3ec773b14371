"""Forms of weights: their cost in bits, and how to spend a budget of bits where it saves the most noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from fastq.scheme import SCHEMES
from fastq.validation import word


def bits_per_weight(k: int, bits: int, group: int | None, scheme: str) -> float:
    """Bits per weight of a column of k weights, as the notes of :func:`fastq.choose_bits` count them.

    Examples
    --------
    >>> from fastq.calibration.allocation import bits_per_weight
    >>> bits_per_weight(4096, 3, 64, "symmetric")
    3.2578125
    """
    scheme = word(scheme, "scheme", SCHEMES)
    sets = 1 if group is None else -(-k // group)
    if group is not None and bits <= 6 and group % 16 == 0 and scheme != "affine":
        return bits + (32 + 16 * sets) / k
    return bits + (32 + {"symmetric": 0, "asymmetric": 8, "affine": 32}[scheme]) * sets / k


class Candidate(NamedTuple):
    """Bits and group size, and their cost in bits per weight."""

    cost: float
    bits: int
    group: int | None

    def __str__(self) -> str:
        return f"{self.bits} bits, {'no groups' if self.group is None else f'groups of {self.group}'}"


class Trial(NamedTuple):
    """A form that was tried, and its noise relative to the signal."""

    form: Candidate
    noise: float

    @property
    def sqnr(self) -> float:
        """Signal to noise in dB."""
        return -10 * math.log10(self.noise) if self.noise else math.inf

    @property
    def figures(self) -> tuple[int, int | None, float, float]:
        """Bits, group size, bits per weight and SQNR."""
        return self.form.bits, self.form.group, self.form.cost, self.sqnr

    def __str__(self) -> str:
        return f"{self.form}, {self.form.cost:.3f} bits per weight, SQNR {self.sqnr:.1f} dB"


def allocate(trials: Mapping[Any, list[Trial]], sizes: Mapping[Any, int], allowed: float) -> dict[Any, Trial]:
    """A trial for each key, such that ``sum(cost * size)`` is at most `allowed`; that of the cheapest trials must be.

    Steps along the lower convex hulls are taken, the steepest first; then whatever else fits.
    """
    hulls = {key: hull_of(tried) for key, tried in trials.items()}
    chosen = {key: hull[0] for key, hull in hulls.items()}
    spent = sum(t.form.cost * sizes[key] for key, t in chosen.items())

    def price(key: Any, trial: Trial) -> float:
        return (trial.form.cost - chosen[key].form.cost) * sizes[key]

    steps = [(_gain(a, b) / sizes[key], key, b) for key, hull in hulls.items() for a, b in pairwise(hull)]
    for _, key, after in sorted(steps, key=lambda step: -step[0]):
        if spent + price(key, after) > allowed:
            break  # smaller steps that save less would use up bits that may buy a better form below
        spent += price(key, after)
        chosen[key] = after
    while True:
        fits = [
            (chosen[key].noise - t.noise, key, t)
            for key, tried in trials.items()
            for t in tried
            if t.noise < chosen[key].noise and spent + price(key, t) <= allowed
        ]
        if not fits:
            return chosen
        _, key, trial = max(fits, key=lambda fit: fit[0])
        spent += price(key, trial)
        chosen[key] = trial


def hull_of(trials: list[Trial]) -> list[Trial]:
    """The lower convex hull of noise over cost, from the cheapest to the one of least noise."""
    hull: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.form.cost, t.noise)):
        if hull and trial.noise >= hull[-1].noise:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], trial):
            hull.pop()
        hull.append(trial)
    return hull


def _gain(before: Trial, after: Trial) -> float:
    """Noise saved for each bit per weight."""
    return (before.noise - after.noise) / (after.form.cost - before.form.cost)
