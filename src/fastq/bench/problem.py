"""A product that contenders compute: its operands, and the right answers."""

from __future__ import annotations

import time
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

import fastq as fq
from fastq import numpys
from fastq.accuracy.error import error

COMPARED = 1 << 22  # elements of a product that are compared with float64, at most, or a row
BOUND_ROWS, BOUND_COLUMNS = 4, 512
BLOCK = 1 << 22  # elements of an operand that are float64 at a time


class WrongAnswerError(AssertionError):
    """What a contender computed is not the product."""


def must(true: Any, otherwise: str) -> None:
    """Raise if something is not true: an ``assert`` that is there with ``python -O``, too."""
    if not true:
        raise WrongAnswerError(otherwise)


def exact(a: Any, b: Any, dtype: Any) -> Any:
    """The product of two matrices, summed in float64, a block of columns at a time."""
    out = np.empty((len(a), b.shape[1]), dtype)
    a, width = a.astype(np.float64), max(1, BLOCK // len(b))
    for start in range(0, b.shape[1], width):
        out[:, start : start + width] = numpys.matmul(a, b[:, start : start + width].astype(np.float64))
    return out


def pack(q: fq.QArray) -> float:
    """Pack a quantized array; returns the seconds it took, with the kernel in place."""
    fq.quantize(np.ones((64, 16), np.float32), q.bits, axis=0, group_size=q.group_size).prepack()
    start = time.perf_counter()
    q.prepack()
    return time.perf_counter() - start


def _integers(seed: int, shape: tuple[int, int]) -> Any:
    return np.random.default_rng(seed).integers(-128, 128, shape, np.int8)


class Problem:
    """A product: its operands and the right answers, each made when it is first needed."""

    def __init__(self, m: int, k: int, n: int) -> None:
        self.m, self.k, self.n = m, k, n
        self.operations = 2 * m * k * n
        self._quantized: dict[tuple[int, int | None, str | None], tuple[fq.QArray, float, Any]] = {}
        self._seen: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"

    @cached_property
    def x(self) -> Any:
        """The left operand."""
        return np.random.default_rng(1).standard_normal((self.m, self.k), dtype=np.float32)

    @cached_property
    def w(self) -> Any:
        """The right operand."""
        return np.random.default_rng(2).standard_normal((self.k, self.n), dtype=np.float32)

    @cached_property
    def a8(self) -> Any:
        """A left operand of 8-bit integers."""
        return _integers(3, (self.m, self.k))

    @cached_property
    def a8_unsigned(self) -> Any:
        """a8 + 128, for peers that multiply uint8 with int8."""
        return self.a8.view(np.uint8) ^ np.uint8(128)

    @cached_property
    def b8(self) -> Any:
        """A right operand of 8-bit integers."""
        return _integers(4, (self.k, self.n))

    @cached_property
    def float_product(self) -> Any:
        """NumPy's x @ w."""
        return numpys.matmul(self.x, self.w)

    @cached_property
    def integer_product(self) -> Any:
        """Exact: float64 holds all integers up to 2**53."""
        return exact(self.a8, self.b8, np.int32)

    @cached_property
    def unsigned_product(self) -> Any:
        """a8_unsigned @ b8."""
        return self.integer_product + 128 * self.b8.sum(axis=0, dtype=np.int32)

    def weights(self, bits: int, group: int | None = None, scheme: str | None = None) -> tuple[fq.QArray, float, Any]:
        """The weights in so many bits, the seconds that packing them took, and their product with x in float32.

        They have a scale per column or group. Groups have integer scales, or, where a scheme is given, float scales.
        """
        form = bits, group, scheme
        if form not in self._quantized:
            float_scale: dict[str, Any] = {} if scheme is None else {"scheme": scheme, "group_scale": "float"}
            q = fq.quantize(self.w, bits=bits, axis=0, group_size=group, **float_scale)
            product = numpys.matmul(self.x, q.dequantize())
            self._quantized[form] = q, pack(q), product
        return self._quantized[form]

    @cached_property
    def rows(self) -> Any:
        """The rows of a product that are compared with float64: all of them, or some of a large one."""
        return np.unique(np.linspace(0, self.m - 1, max(1, min(self.m, COMPARED // self.n))).astype(int))

    @cached_property
    def true_rows(self) -> Any:
        """These rows of x @ w, in float64."""
        return exact(self.x[self.rows], self.w, np.float64)

    def sqnr(self, answer: Any) -> float:
        """How close a product of floats comes to the true one, in dB."""
        return float(error(self.true_rows, np.asarray(answer)[self.rows]).sqnr_db)

    def check_bound(self, q: fq.QArray, answer: Any) -> None:
        """Raise if elements of x @ q are further from float64 than they may be; some rows and columns are looked at."""
        rows = self.rows[:BOUND_ROWS]
        columns = np.unique(np.linspace(0, self.n - 1, min(self.n, BOUND_COLUMNS)).astype(int))
        x, some = self.x[rows], q[:, columns].with_activations(q.activations)
        far = np.abs(answer[np.ix_(rows, columns)] - exact(x, some.dequantize(), np.float64))
        wrong = int(np.count_nonzero(~(far <= fq.matmul_error_bound(x, some))))
        must(not wrong, f"{wrong} of {far.size} elements are beyond their bound")

    def check_same_bits(self, contender: str, answer: Any) -> None:
        """Every instruction set and number of threads must give the bits that the first one gave."""
        must((answer == self._seen.setdefault(contender, answer)).all(), f"{contender} differs between CPUs")


@lru_cache(maxsize=1)
def problem(m: int, k: int, n: int) -> Problem:
    """The problem of this shape; the last one is kept, since its contests follow each other."""
    return Problem(m, k, n)
