"""Every width, by column and in groups of 64, and groups with float scales: what groups cost in time and memory."""

from __future__ import annotations

import pytest

import fastq as fq
from fastq.bench.contest import MATMUL, WEIGHTS, enter, weights
from fastq.bench.problem import problem

BITS = (2, 3, 4, 5, 6)
GROUP = 64
# Groups with float scales, as GPTQ, AWQ, GGUF, MLX and ONNX files hold them.
IMPORTED = ((128, "symmetric"), (32, "symmetric"), (32, "asymmetric"), (32, "affine"))


@pytest.mark.parametrize("m", [1, 1024])
def bench_widths(contest, quick, m):
    task = problem(*((m, 256, 256) if quick else (m, 4096, 4096)))
    ours = [weights(bits, group) for bits in BITS for group in (None, GROUP)]
    contest(f"{task} by bits and group", *enter(task, (MATMUL, WEIGHTS[8], *ours)))


@pytest.mark.parametrize("m", [1, 256])
def bench_float_groups(contest, quick, m):
    task = problem(*((m, 256, 256) if quick else (m, 4096, 4096)))
    ours = [weights(4, GROUP), *(weights(4, group, scheme) for group, scheme in IMPORTED)]
    contest(f"{task} by groups with float scales", *enter(task, (MATMUL, *ours)))


def bench_memory_per_weight(keep, quick):
    """After use, when the codes are packed: all that the array holds."""
    task = problem(*((1, 256, 256) if quick else (1, 4096, 4096)))

    def work():
        found = {}
        for bits in BITS:
            for group in (None, GROUP):
                q = fq.quantize(task.w, bits, axis=0, group_size=group)
                task.x @ q
                found[f"bits per weight, {bits} bits" + (f", group {group}" if group else "")] = 8 * q.nbytes / q.size
        return found

    keep("measures", work)
