"""Contenders: what is timed against what, and how each answer is checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from tests.cases import integers

import fastq as fq
from fastq.kernels.table import ISAS
from fastq.machine import cpu


def native_isas() -> tuple[str, ...]:
    """The instruction sets of this CPU, best first, without the reference, which is not meant to be fast."""
    return tuple(isa for isa in cpu.available(ISAS) if isa != "reference")


@contextmanager
def setting(isa: str | None = None, threads: int | None = None) -> Iterator[None]:
    """An instruction set and a number of threads for as long as the block takes."""
    cpu.force(isa)
    fq.set_num_threads(threads)
    try:
        yield
    finally:
        cpu.force(None)
        fq.set_num_threads(None)


def enter(
    benchmark: Any,
    group: str,
    contender: str,
    *,
    isa: str | None = None,
    operations: int = 0,
    baseline: bool = False,
    **more: Any,
) -> None:
    """Name a benchmark for the report: others of the group are compared with its baseline."""
    benchmark.group = group
    benchmark.extra_info.update(contender=contender, isa=isa, operations=operations, baseline=baseline, **more)


class Problem:
    """A product: its operands and the right answers, each made when it is first needed."""

    def __init__(self, m: int, k: int, n: int) -> None:
        self.m, self.k, self.n = m, k, n
        self.operations = 2 * m * k * n
        self._quantized: dict[int, tuple[fq.QArray, Any]] = {}
        self._seen: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"

    @cached_property
    def x(self) -> Any:
        return np.random.default_rng(1).standard_normal((self.m, self.k), dtype=np.float32)

    @cached_property
    def w(self) -> Any:
        return np.random.default_rng(2).standard_normal((self.k, self.n), dtype=np.float32)

    @cached_property
    def a8(self) -> Any:
        return integers(np.random.default_rng(3), (self.m, self.k), "int8")

    @cached_property
    def b8(self) -> Any:
        return integers(np.random.default_rng(4), (self.k, self.n), "int8")

    @cached_property
    def float_product(self) -> Any:
        return np.matmul(self.x, self.w)

    @cached_property
    def integer_product(self) -> Any:
        """Exact: float64 holds all integers up to 2**53."""
        return np.matmul(self.a8.astype(np.float64), self.b8.astype(np.float64)).astype(np.int32)

    def weights(self, bits: int) -> tuple[fq.QArray, Any]:
        """w in so many bits, packed, and its product with x in float32."""
        if bits not in self._quantized:
            q = fq.quantize(self.w, bits=bits, axis=0).prepack()
            self._quantized[bits] = q, np.matmul(self.x, q.dequantize())
        return self._quantized[bits]

    def check_same_bits(self, contender: str, answer: Any) -> None:
        """Every instruction set and number of threads must give the bits that the first one gave."""
        assert (answer == self._seen.setdefault(contender, answer)).all(), f"{contender} differs between CPUs"


@lru_cache(maxsize=1)
def problem(m: int, k: int, n: int) -> Problem:
    """The problem of this shape; the last one is kept, since its contenders follow each other."""
    return Problem(m, k, n)


class Contender(NamedTuple):
    """A way to compute a product."""

    name: str
    prepare: Callable[[Problem], Callable[[], Any]]  # what is timed
    check: Callable[[Problem, Any], None]  # raises if the answer is wrong
    fastq: bool = True


def close(exact: Any, answer: Any, decibels: float) -> None:
    """Raise if the error of an answer is too large."""
    assert answer.dtype == np.float32
    assert fq.error(exact, answer).sqnr_db > decibels


def equal(exact: Any, answer: Any) -> None:
    """Raise if an answer is not exact, or of another type."""
    assert answer.dtype == exact.dtype
    assert (answer == exact).all()


def _weights(bits: int) -> Contender:
    # Only the rows of x are rounded anew, to 8 bits, which leaves about 40 dB of normally distributed numbers.
    def prepare(p: Problem) -> Callable[[], Any]:
        q = p.weights(bits)[0]
        return lambda: p.x @ q

    return Contender(f"int{bits} weights", prepare, lambda p, y: close(p.weights(bits)[1], y, 35))


FLOAT32 = Contender(
    "float32 np.matmul",
    lambda p: lambda: np.matmul(p.x, p.w),
    lambda p, y: close(p.float_product, y, 100),
    fastq=False,
)
NUMPY_INTEGERS = Contender(
    "int32 np.matmul of int8",
    lambda p: lambda: np.matmul(p.a8, p.b8, dtype=np.int32),
    lambda p, c: equal(p.integer_product, c),
    fastq=False,
)
WEIGHTS = {bits: _weights(bits) for bits in (8, 4, 3)}
FLOATS = Contender("two floats", lambda p: lambda: fq.matmul(p.x, p.w), lambda p, y: close(p.float_product, y, 32))
INTEGERS = Contender("int8 @ int8", lambda p: lambda: fq.matmul(p.a8, p.b8), lambda p, c: equal(p.integer_product, c))
