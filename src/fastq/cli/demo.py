"""Compare two large products and a trained network with float32, int8 and int3 weights; takes half a minute.

There are two kinds of times. The first use of a shape compiles kernels, or loads them from the cache, and packs the
weights. Later uses only multiply.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import fastq as fq
from fastq.cli import digits, info, output
from fastq.cli.digits import Floats, Weights
from fastq.engine.plan import this_machine

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"bits": 8},
    "int3": {"bits": 3, "method": "mse"},
}
PRODUCTS = ((2048, 2048, 2048), (1, 4096, 4096))
QUICK_PRODUCTS = ((256, 256, 256), (1, 512, 512))

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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--quick", action="store_true", help="small products, measured once")


def run(given: argparse.Namespace) -> None:
    """Measure and print the comparison."""
    if find_spec("sklearn") is None:
        raise ImportError('the demo needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it')
    this_machine()  # a wrong setting in the environment is told first
    rounds = 1 if given.quick else ROUNDS
    if not given.json:
        fq.show_config()
        print(f"{'NumPy float32:':<17} {_blas()}")
    products, random = [], np.random.default_rng(0)
    for m, k, n in QUICK_PRODUCTS if given.quick else PRODUCTS:
        x, w = (random.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        forms = _figures(_compare([w], partial(_product, x), rounds))
        products.append({"m": m, "k": k, "n": n, "forms": forms})
        if not given.json:
            _print(f"Normally distributed numbers: {m} x {k} times {k} x {n}", forms)
    network = _of_digits(rounds)
    if given.json:
        output.document({"machine": info.facts(), "blas": _blas(), "products": products, "digits": network})
        return
    images = network["images"]
    title = f"Handwritten digits: a network of 64, 128, 64 and 10 neurons, {images} test images at once"
    _print(title, network["forms"])
    print(
        "\nWeights of int8 and int3 have one scale per column, for int3 chosen by method='mse'; the left operand is"
        "\nquantized to int8 in every call. quantize: making the codes. first: compiling or loading kernels, packing,"
        f"\none product. later: the fastest of {rounds} x {BLOCK} s of consecutive calls."
    )


def _of_digits(rounds: int) -> dict[str, Any]:
    network = digits.train()
    forms = _compare(network.weights, partial(digits.forward, network.images, biases=network.biases), rounds)
    accuracy = [network.accuracy(form.result) for form in forms.values()]
    figures = [{**form, "accuracy": percent} for form, percent in zip(_figures(forms), accuracy)]
    return {"images": len(network.labels), "forms": figures}


def _print(title: str, forms: Sequence[Figures]) -> None:
    print(f"\n{title}\n")
    rows = [_row(form) for form in forms]
    output.table(list(rows[0]), [list(row.values()) for row in rows])


def _blas() -> str:
    import threadpoolctl  # type: ignore[import-untyped]  # comes with scikit-learn

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


def _row(form: Figures) -> dict[str, str]:
    """The figures of a form, in words."""
    words = {"weights": form["weights"]}
    if "accuracy" in form:
        words["accuracy"] = f"{form['accuracy']:.2f} %"
    return words | {
        "bytes": f"{form['nbytes']:,}",
        "SQNR": output.decibels(form["sqnr_db"]),
        "cosine": "" if form["cosine"] is None else f"{form['cosine']:.5f}",
        "quantize": _duration(form["quantize_seconds"]),
        "first": _duration(form["first_seconds"]),
        "later": _duration(form["later_seconds"]),
        "speed-up": f"{form['speed_up']:.2f}",
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e6:.0f} µs"
