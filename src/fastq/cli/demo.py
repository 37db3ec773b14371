"""The demo: a trained network and two large products, each with float32, int8 and int3 weights.

Times are of two kinds that must not be mixed. The first use of a shape compiles a kernel, or loads it from the cache,
and packs the weights; every later use finds both. A later time is the best of consecutive calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.cli import digits

T = TypeVar("T")
Floats = npt.NDArray[np.float32]

PAUSE = 0.3  # seconds; BLAS threads spin for a while after a call, and would slow down whoever is measured next
BLOCK = 0.4  # seconds of consecutive calls
FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"bits": 8},
    "int3": {"bits": 3, "method": "mse"},
}
PRODUCTS = ((2048, 2048, 2048), (1, 4096, 4096))
QUICK_PRODUCTS = ((256, 256, 256), (1, 512, 512))


class Measured(NamedTuple):
    """What a contender gave and took; times are in seconds."""

    result: Floats
    quantize: float
    first: float
    later: float
    nbytes: int


def run(quick: bool = False) -> None:
    """Print the comparison; `quick` takes small matrices for the products."""
    fq.show_config()
    print(f"{'float32:':<17} np.matmul, {_blas()}")
    show_digits()
    for m, k, n in QUICK_PRODUCTS if quick else PRODUCTS:
        show_product(m, k, n)


def show_digits() -> None:
    """Train the network of :mod:`fastq.cli.digits` and compare its forward pass."""
    network = digits.train()
    print(f"\nHandwritten digits: a network of 64-128-64-10 neurons, {len(network.labels)} test images in one pass\n")
    rows = []
    for name, found in _compare(
        network.weights,
        lambda options: digits.quantize(network.weights, **options),
        lambda weights: digits.forward(network.images, weights, network.biases),
    ).items():
        rows.append([name, f"{network.accuracy(found.result):.2f} %", *_figures(found)])
    _table(["weights", "accuracy", *FIGURES], _with_errors(rows))


def show_product(m: int, k: int, n: int) -> None:
    """Compare one product of normally distributed matrices."""
    random = np.random.default_rng(0)
    x, w = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
    print(f"\nx @ w with x of {m} x {k} and w of {k} x {n}, normally distributed\n")
