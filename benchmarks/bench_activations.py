"""Activations by row, by group, and in two planes: what more than 8 bits per row cost."""

from __future__ import annotations

import pytest

from fastq.bench.contest import MATMUL, enter, weights
from fastq.bench.problem import problem

WAYS = ("row", "group", "two-plane")


@pytest.mark.parametrize("m", [1, 256])
def bench_activations(contest, quick, m):
    task = problem(*((m, 256, 256) if quick else (m, 4096, 4096)))
    ours = [weights(*form, activations=way) for form in ((4, 32), (8, None)) for way in WAYS]
    contest(f"{task} by activations", *enter(task, (MATMUL, *ours)))
