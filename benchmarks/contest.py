"""Contenders of products: what is timed against what, and how each answer is checked first. Peers are in peers.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from tests.cases import integers

import fastq as fq
from fastq.kernels.table import ISAS
from fastq.machine import cpu
from results import CODES, FLOAT32, FLOATS, INTEGERS, LOW_BITS, NUMPY, TWO_FLOATS
from rounds import Entry

BYTES = {FLOAT32: 4.0, CODES: 1.0, INTEGERS: 1.0, FLOATS: 4.0, LOW_BITS: 4.0, TWO_FLOATS: 4.0}  # of a left element


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


def blas_threads(threads: int | None) -> AbstractContextManager[Any]:
    """NumPy's BLAS held to so many threads."""
    if threads is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads, user_api="blas")


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
        return np.random.default_rng(1).standard_normal((self.m, self.k), dtype=np.float32)

    @cached_property
    def w(self) -> Any:
        return np.random.default_rng(2).standard_normal((self.k, self.n), dtype=np.float32)

    @cached_property
    def a8(self) -> Any:
        return integers(np.random.default_rng(3), (self.m, self.k), "int8")

    @cached_property
    def a8_unsigned(self) -> Any:
        """a8 + 128, for peers that multiply uint8 with int8."""
        return self.a8.view(np.uint8) ^ np.uint8(128)

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

    @cached_property
    def unsigned_product(self) -> Any:
        """a8_unsigned @ b8."""
        return self.integer_product + 128 * self.b8.sum(axis=0, dtype=np.int32)

    def weights(self, bits: int, group: int | None = None, scheme: str | None = None) -> tuple[fq.QArray, float, Any]:
        """w in so many bits, by column or group; the seconds that packing it took; its product with x in float32.

        Groups have integer scales, or, where a scheme is given, float scales.
        """
        form = bits, group, scheme
        if form not in self._quantized:
            float_scale: dict[str, Any] = {} if scheme is None else {"scheme": scheme, "group_scale": "float"}
            q = fq.quantize(self.w, bits=bits, axis=0, group_size=group, **float_scale)
            product = np.matmul(self.x, q.dequantize())
            self._quantized[form] = q, pack(q), product
        return self._quantized[form]

    def check_same_bits(self, contender: str, answer: Any) -> None:
        """Every instruction set and number of threads must give the bits that the first one gave."""
        assert (answer == self._seen.setdefault(contender, answer)).all(), f"{contender} differs between CPUs"


@lru_cache(maxsize=1)
def problem(m: int, k: int, n: int) -> Problem:
    """The problem of this shape; the last one is kept, since its contests follow each other."""
    return Problem(m, k, n)


class Ready(NamedTuple):
    """A contender with its operands in place."""

    run: Callable[[], Any]
    pack: float | None = None  # seconds that packing the right operand took; None: there is nothing to pack


class Contender(NamedTuple):
    """A way to compute a product."""

    name: str
    kind: str
    prepare: Callable[[Problem, int], Ready]  # for so many threads
    check: Callable[[Problem, Any], None]  # raises AssertionError if the answer is wrong
    within: Callable[[int | None], AbstractContextManager[Any]]  # holds it to so many threads while it runs
    library: str | None = None  # None: fastq
    bits: int = 8  # of the right operand


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds it took: the second time, for at the first libraries set themselves up."""
    function()
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def pack(q: fq.QArray) -> float:
    """Pack a quantized array; returns the seconds it took, with the kernel in place."""
    fq.quantize(np.ones((64, 16), np.float32), q.bits, axis=0, group_size=q.group_size).prepack()
    start = time.perf_counter()
    q.prepack()
    return time.perf_counter() - start


def close(exact: Any, answer: Any, decibels: float) -> None:
    """Raise if the error of an answer is too large."""
    assert answer.dtype == np.float32
    found = fq.error(exact, answer).sqnr_db
    assert found > decibels, f"SQNR of {found:.1f} dB, must be above {decibels}"


def equal(exact: Any, answer: Any) -> None:
    """Raise if an answer is not exact, or of another type."""
    assert answer.dtype == exact.dtype
    wrong = int(np.count_nonzero(answer != exact))
    assert not wrong, f"{wrong} of {exact.size} sums are wrong"


def enter(
    task: Problem, contenders: Iterable[Contender], *, isa: str | None = None, threads: int | None = None
) -> tuple[list[Entry], list[str]]:
    """Make contenders ready and check their answers; returns entries, and what is to be said of those that were wrong.

    A wrong answer of fastq or NumPy is an error. A peer's is not ours to mend: it does not take part.
    """
    entries, notes = [], []
    for contender in contenders:
        ours = contender.library is None
        with setting(isa, threads) if ours else contender.within(threads):
            ready = contender.prepare(task, threads or fq_threads())
            answer = ready.run()
        try:
            contender.check(task, answer)
        except AssertionError as error:
            if contender.library in (None, NUMPY):
                raise
            notes.append(f"{contender.name} takes no part in {task}: {error}")
            continue
        if ours:
            task.check_same_bits(contender.name, answer)
        facts = {
            "kind": contender.kind,
            "library": contender.library,
            "baseline": contender.library == NUMPY,
            "isa": (isa or cpu.chosen(ISAS)) if ours else None,
            "threads": threads,
            "bits": contender.bits,
            "operations": task.operations,
            "nbytes": task.m * task.k * BYTES[contender.kind] + task.k * task.n * _right_bytes(contender),
            "pack": ready.pack,
        }
        within = partial(setting, isa, threads) if ours else partial(contender.within, threads)
        entries.append(Entry(contender.name, ready.run, facts, within))
    return entries, notes


def fq_threads() -> int:
    """Threads that fastq uses; everyone gets as many."""
    from fastq.machine import pool

    return pool.num_threads()


def _right_bytes(contender: Contender) -> float:
    return 4.0 if contender.kind in (FLOAT32, TWO_FLOATS) else contender.bits / 8


def weights(bits: int, group: int | None = None, scheme: str | None = None, activations: str = "row") -> Contender:
    """Floats, quantized so, times weights of so many bits, by column or in groups; as :meth:`Problem.weights`."""

    # Only the rows of x are rounded anew, to 8 bits, which leaves about 40 dB of normally distributed numbers.
    def prepare(p: Problem, threads: int) -> Ready:
        q, seconds, _ = p.weights(bits, group, scheme)
        q = q.with_activations(activations)
        return Ready(lambda: p.x @ q, seconds)

    name, kind = f"int{bits} weights", FLOATS if bits == 8 else LOW_BITS
    name += "" if group is None else f", group {group}"
    name += "" if scheme is None else f", float scales, {scheme}"
    name += "" if activations == "row" else f", {activations} activations"
    return _ours(name, kind, prepare, lambda p, y: close(p.weights(bits, group, scheme)[2], y, 35), bits)


def _codes(p: Problem, threads: int) -> Ready:
    # With scales of 1 the float32 result is the integers themselves, rounded once; they are applied all the same.
    a = fq.quantize(p.a8.astype(np.float32), 8, axis=-1, scale=np.ones((p.m, 1), np.float32))
    b = fq.quantize(p.b8.astype(np.float32), 8, axis=0, scale=np.ones((1, p.n), np.float32))
    seconds = pack(b)
    return Ready(lambda: a @ b, seconds)


def _ours(name: str, kind: str, prepare: Any, check: Any, bits: int = 8) -> Contender:
    return Contender(name, kind, prepare, check, lambda threads: setting(threads=threads), bits=bits)


MATMUL = Contender(
    "float32 np.matmul",
    FLOAT32,
    lambda p, threads: Ready(lambda: np.matmul(p.x, p.w)),
    lambda p, y: close(p.float_product, y, 100),
    blas_threads,
    NUMPY,
)
WEIGHTS = {bits: weights(bits) for bits in (8, 4, 3)}
INT8_CODES = _ours("int8 codes", CODES, _codes, lambda p, y: equal(p.integer_product.astype(np.float32), y))
TWO = _ours(
    "two floats",
    TWO_FLOATS,
    lambda p, threads: Ready(lambda: fq.matmul(p.x, p.w)),
    lambda p, y: close(p.float_product, y, 32),
)
INT8 = _ours(
    "int8 @ int8",
    INTEGERS,
    lambda p, threads: Ready(lambda: fq.matmul(p.a8, p.b8)),
    lambda p, c: equal(p.integer_product, c),
)
