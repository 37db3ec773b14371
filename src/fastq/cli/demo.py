"""The demo: a trained network and two large products, each with float32, int8 and int3 weights.

The demo prints two kinds of times. The first use of a shape compiles kernels, or loads them from the cache, and packs
the weights. Later uses only multiply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import threadpoolctl  # comes with scikit-learn

import fastq as fq
from fastq.cli import digits
from fastq.cli.digits import Floats, Weights

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"bits": 8},
    "int3": {"bits": 3, "method": "mse"},
}
PRODUCTS = ((2048, 2048, 2048), (1, 4096, 4096))
QUICK_PRODUCTS = ((256, 256, 256), (1, 512, 512))

PAUSE = 0.3  # seconds; BLAS threads spin for a while after a call and would slow down whoever is measured next
BLOCK = 0.2  # seconds of consecutive calls, of which the fastest counts
ROUNDS = 2  # blocks of each form, in turns: other work of the machine should not hit all blocks of one form


class Contender:
    """A product with weights of one form, its times in seconds, and the bytes of the packed weights."""

    def __init__(self, weights: Sequence[Floats], product: Callable[[Weights], Floats], options: dict[str, Any]):
        time.sleep(PAUSE)
        start = time.perf_counter()
        operands = digits.quantize(weights, **options) if options else weights
        quantized = time.perf_counter()
        self.result = product(operands)
        self.quantize, self.first, self.later = quantized - start, time.perf_counter() - quantized, float("inf")
        self.nbytes = sum(w.nbytes for w in operands)
        self._again = partial(product, operands)

    def measure(self) -> None:
        """Run one block of calls."""
        time.sleep(PAUSE)
        end = time.perf_counter() + BLOCK
        while (start := time.perf_counter()) < end:
            self._again()
            self.later = min(self.later, time.perf_counter() - start)


def run(quick: bool = False) -> None:
    """Print the comparison; `quick`: of small matrices, measured in one round."""
    rounds = 1 if quick else ROUNDS
    print(f"{'NumPy float32:':<17} {_blas()}")

    network = digits.train()
    print(f"\nHandwritten digits: a network of 64, 128, 64 and 10 neurons, {len(network.labels)} test images at once\n")
    forward = partial(digits.forward, network.images, biases=network.biases)
    forms = _compare(network.weights, forward, rounds)
    accuracy = [f"{network.accuracy(form.result):.2f} %" for form in forms.values()]
    _table({"weights": list(forms), "accuracy": accuracy, **_columns(forms)})

    random = np.random.default_rng(0)
    for m, k, n in QUICK_PRODUCTS if quick else PRODUCTS:
        print(f"\nNormally distributed numbers: {m} x {k} times {k} x {n}\n")
        x, w = (random.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        forms = _compare([w], partial(_product, x), rounds)
        _table({"weights": list(forms), **_columns(forms)})

    print(
        "\nWeights of int8 and int3 have one scale per column, for int3 chosen by method='mse'; the left operand is"
        "\nquantized to int8 in every call. quantize: making the codes. first: compiling or loading kernels, packing,"
        f"\none product. later: the fastest of {rounds} x {BLOCK} s of consecutive calls."
    )


def _blas() -> str:
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    names = {f"{pool['internal_api']}, threads: {pool['num_threads']}" for pool in pools}
    return "; ".join(sorted(names)) or "unknown BLAS"


def _product(x: Floats, weights: Weights) -> Floats:
    return np.asarray(x @ weights[0])


def _compare(weights: Sequence[Floats], product: Callable[[Weights], Floats], rounds: int) -> dict[str, Contender]:
    """The product with weights of every form, measured in turns."""
    forms = {name: Contender(weights, product, options) for name, options in FORMS.items()}
    for _ in range(rounds):
        for form in forms.values():
            form.measure()
    return forms


def _columns(forms: dict[str, Contender]) -> dict[str, list[str]]:
    base = forms["float32"]
    others = [form for form in forms.values() if form is not base]
    errors = [fq.error(base.result, form.result) for form in others]
    return {
        "bytes": [f"{form.nbytes:,}" for form in forms.values()],
        "SQNR": ["", *(f"{e.sqnr_db:.1f} dB" for e in errors)],
        "cosine": ["", *(f"{e.cosine:.5f}" for e in errors)],
        "quantize": ["", *(_duration(form.quantize) for form in others)],
        "first": [_duration(form.first) for form in forms.values()],
        "later": [_duration(form.later) for form in forms.values()],
        "speed-up": [f"{base.later / form.later:.2f}" for form in forms.values()],
    }


def _table(columns: dict[str, list[str]]) -> None:
    cells = [[head, *values] for head, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    for row in zip(*cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e6:.0f} µs"
