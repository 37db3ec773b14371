"""Compare two large products and a trained network with float32, int8 and int3 weights; takes half a minute.

There are two kinds of times. The first use of a shape compiles kernels, or loads them from the cache, and packs the
weights. Later uses only multiply.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from fastq.cli import output

PRODUCTS = ((2048, 2048, 2048), (1, 4096, 4096))
QUICK_PRODUCTS = ((256, 256, 256), (1, 512, 512))
Figures = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--quick", action="store_true", help="small products, measured once")


def run(given: argparse.Namespace) -> None:
    """Measure and print the comparison."""
    if find_spec("sklearn") is None:
        raise ImportError('the demo needs scikit-learn: pip install ".[demo]" in a clone of fastq brings it')
    from fastq.cli import info, trial
    from fastq.config import show_config
    from fastq.engine.plan import this_machine

    this_machine()  # a wrong setting in the environment is told first
    rounds, shapes = (1, QUICK_PRODUCTS) if given.quick else (trial.ROUNDS, PRODUCTS)
    if not given.json:
        show_config()
        print(f"{'NumPy float32:':<17} {trial.blas()}")
    products = []
    for product in trial.of_products(shapes, rounds):
        products.append(product)
        if not given.json:
            _print("Normally distributed numbers: {m} x {k} times {k} x {n}".format_map(product), product["forms"])
    network = trial.of_digits(rounds)
    if given.json:
        output.document({"machine": info.facts(), "blas": trial.blas(), "products": products, "digits": network})
        return
    images = network["images"]
    title = f"Handwritten digits: a network of 64, 128, 64 and 10 neurons, {images} test images at once"
    _print(title, network["forms"])
    print(
        "\nWeights of int8 and int3 have one scale per column, for int3 chosen by method='mse'; the left operand is"
        "\nquantized to int8 in every call. quantize: making the codes. first: compiling or loading kernels, packing,"
        f"\none product. later: the fastest of {rounds} x {trial.BLOCK} s of consecutive calls."
    )


def _print(title: str, forms: Sequence[Figures]) -> None:
    print(f"\n{title}\n")
    rows = [_row(form) for form in forms]
    output.table(list(rows[0]), [list(row.values()) for row in rows])


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
