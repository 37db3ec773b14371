"""A product must not depend on what was multiplied before.

Operands that are used again and again, and share codes, caches and remembered products with others that were made of
them, against fresh ones made in the same way for each product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastq as fq

from .draw import Draw
from .finding import REFUSALS, must, must_equal

PRODUCTS = 40
ROWS = (1, 4, 9, 33)
COLUMNS = (1, 5, 16, 40)

# What is made of an operand; most of it shares the codes.
DERIVED: tuple[Callable[[Any], Any], ...] = (
    lambda q: q,
    lambda q: q.T.T,
    lambda q: q[:, ::-1],
    lambda q: q[::-1],
    lambda q: q * 2.0,
    lambda q: -q,
    lambda q: np.concatenate([q, q], axis=1)[:, : q.shape[1]],
    lambda q: q.astype("f4"),
    lambda q: q.astype("f8"),
)


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """All that the CPU has."""
    return have


class Recipe(NamedTuple):
    """How to make an operand."""

    base: Callable[[], Any]
    derived: Callable[[Any], Any]

    def fresh(self) -> Any:
        """One that knows of no product."""
        return self.derived(self.base())


def case(seed: int) -> None:
    """Multiply what is drawn from a few operands, many times."""
    d = Draw(seed)
    with np.errstate(all="ignore"):
        k = d.one_of(16, 48, 64, 100)
        lefts, rights = _pool(d, k, left=True), _pool(d, k, left=False)
        for number in range(PRODUCTS):
            (left, a), (right, b) = d.one_of(*lefts), d.one_of(*rights)
            options = _options(d, a.shape[0], b.shape[1])
            got, want = _product(a, b, options), _product(left.fresh(), right.fresh(), options)
            told = f"a product after {number} others, of {_told(a)} and {_told(b)} with {sorted(options)}"
            must(type(got) is type(want), f"{told} gives {type(got).__name__}, not {type(want).__name__}")
            if not isinstance(got, str):
                must_equal(got, want, told)


def _pool(d: Draw, k: int, left: bool) -> list[tuple[Recipe, Any]]:
    """Operands with their recipes: two quantized arrays in two forms each, and four plain ones."""
    pool = []
    for _ in range(2):
        x, form = _weights(d, k, left)
        base = _quantizing(x, form)
        shared = base()
        for derived in (d.one_of(*DERIVED), d.one_of(*DERIVED)):
            try:
                pool.append((Recipe(base, derived), derived(shared)))
            except ValueError:  # a cut that this form has no parameters for
                continue
    for kind in ("f4", "f8", "i1", d.one_of("u1", ">f4", "f2", "f4")):
        shape = (d.one_of(*ROWS), k) if left else (k, d.one_of(*COLUMNS))
        array = (5 * np.abs(d.rng.standard_normal(shape))).astype(kind)
        laid_out = d.one_of(array, np.asfortranarray(array), array[:, ::-1])
        pool.append((Recipe(lambda array=laid_out: array, DERIVED[0]), laid_out))
    return pool


def _weights(d: Draw, k: int, left: bool) -> tuple[Any, dict[str, Any]]:
    shape = (d.one_of(*ROWS), k) if left else (k, d.one_of(*COLUMNS))
    along = 1 if left else 0
    form = {"axis": d.one_of(along, along, None), "scheme": d.one_of("symmetric", "symmetric", "asymmetric", "affine")}
    form["bits"] = 8 if left else d.one_of(*d.theme.bits)
    if form["axis"] is not None:
        form["group_size"] = d.one_of(None, None, 16)
        if d.chance(0.3):
            form["balance"] = np.exp(d.rng.standard_normal(k)).astype(np.float32)
    return d.rng.standard_normal(shape).astype(d.one_of("f4", "f4", "f8")), form


def _quantizing(x: Any, form: dict[str, Any]) -> Callable[[], fq.QArray]:
    return lambda: fq.quantize(x, **form)


def _options(d: Draw, m: int, n: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if d.chance(0.2):
        options["dtype"] = d.one_of(np.float32, np.float64, np.int8)
    if d.chance(0.2):
        options["bias"] = d.rng.standard_normal(n).astype(d.one_of("f4", "f8"))
    if d.chance(0.1):
        options["epilogue"] = d.theme.activation
    if d.chance(0.2) and options.get("dtype") is not np.int8:
        options["out"] = (m, n), d.one_of("f4", "f8")
    return options


def _product(a: Any, b: Any, options: dict[str, Any]) -> Any:
    """The product, or the name of the error."""
    if "out" in options:
        options = options | {"out": np.full(options["out"][0], 9, options["out"][1])}
    try:
        return fq.matmul(a, b, **options)
    except REFUSALS as error:
        return type(error).__name__


def _told(x: Any) -> str:
    return repr(x) if isinstance(x, fq.QArray) else f"{x.dtype}{x.shape}"
