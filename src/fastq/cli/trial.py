"""What the demo measures: products with weights of several forms, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

import fastq as fq
from fastq.cli import digits
from fastq.cli.digits import Floats, Weights

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"bits": 8},
    "int3": {"bits": 3, "method": "mse"},
}
Figures = dict[str, Any]

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


def of_products(shapes: Sequence[tuple[int, int, int]], rounds: int) -> Iterator[dict[str, Any]]:
    """The figures of products M x K times K x N of normally distributed numbers."""
    random = np.random.default_rng(0)
    for m, k, n in shapes:
        x, w = (random.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        yield {"m": m, "k": k, "n": n, "forms": _figures(_compare([w], partial(_product, x), rounds))}


def of_digits(rounds: int) -> dict[str, Any]:
    """The figures of a network, which is trained first."""
    network = digits.train()
    forms = _compare(network.weights, partial(digits.forward, network.images, biases=network.biases), rounds)
    accuracy = [network.accuracy(form.result) for form in forms.values()]
    figures = [{**form, "accuracy": percent} for form, percent in zip(_figures(forms), accuracy)]
    return {"images": len(network.labels), "forms": figures}


def blas() -> str:
    """The library behind NumPy's products."""
    import threadpoolctl  # comes with scikit-learn

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


def _figures(forms: dict[str, Contender]) -> list[Figures]:
    """What was measured of each form; times in seconds."""
    base, figures = forms["float32"], []
    for name, form in forms.items():
        error = None if form is base else fq.error(base.result, form.result)
        figures.append(
            {
                "weights": name,
                "nbytes": form.nbytes,
                "sqnr_db": error and error.sqnr_db,
                "cosine": error and error.cosine,
                "quantize_seconds": None if form is base else form.quantize,
                "first_seconds": form.first,
                "later_seconds": form.later,
                "speed_up": base.later / form.later,
            }
        )
    return figures
