"""Contenders of products: what is timed against what, and how each answer is checked first. Peers are in peers.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

import fastq as fq
from fastq import numpys
from fastq.bench.problem import Problem, WrongAnswerError, must, pack
from fastq.bench.rounds import Entry
from fastq.bench.run import CODES, FLOAT32, FLOATS, INTEGERS, LOW_BITS, NUMPY, TWO_FLOATS
from fastq.kernels.table import ISAS
from fastq.machine import cpu
from fastq.typed import Activations

BYTES = {FLOAT32: 4.0, CODES: 1.0, INTEGERS: 1.0, FLOATS: 4.0, LOW_BITS: 4.0, TWO_FLOATS: 4.0}  # of a left element
OF_FLOATS = (FLOAT32, FLOATS, LOW_BITS, TWO_FLOATS)  # kinds that multiply x and w, or what stands for w
MANY = 256  # elements of a product: with fewer, chance may take decibels away
LONGEST_NOTE = 200  # characters of what a peer says


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

    limits: AbstractContextManager[Any] = threadpool_limits(threads, user_api="blas")
    return limits


class Ready(NamedTuple):
    """A contender with its operands in place."""

    run: Callable[[], Any]
    pack: float | None = None  # seconds that packing the right operand took; None: there is nothing to pack


class Contender(NamedTuple):
    """A way to compute a product."""

    name: str
    kind: str
    prepare: Callable[[Problem, int], Ready]  # for so many threads
    check: Callable[[Problem, Any], None]  # raises WrongAnswerError
    within: Callable[[int | None], AbstractContextManager[Any]]  # holds it to so many threads while it runs
    library: str | None = None  # None: fastq
    bits: int = 8  # of the right operand
    group: int | None = None  # of so many k that share a scale

    @property
    def is_peer(self) -> bool:
        """Whether it belongs to another library than fastq and NumPy."""
        return self.library not in (None, NUMPY)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds it took: the second time, for at the first libraries set themselves up."""
    function()
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def close(exact: Any, answer: Any, decibels: float) -> None:
    """Raise if the error of an answer is too large."""
    must(answer.dtype == np.float32, f"a result of {answer.dtype}, must be float32")
    found = fq.error(exact, answer).sqnr_db
    must(found > decibels, f"SQNR of {found:.1f} dB, must be above {decibels}")


def equal(exact: Any, answer: Any) -> None:
    """Raise if an answer is not exact, or of another type."""
    must(answer.dtype == exact.dtype, f"a result of {answer.dtype}, must be {exact.dtype}")
    wrong = int(np.count_nonzero(answer != exact))
    must(not wrong, f"{wrong} of {exact.size} sums are wrong")


def enter(
    task: Problem,
    contenders: Iterable[Contender],
    *,
    isa: str | None = None,
    threads: int | None = None,
    sqnr: bool = False,
    slowest: float = inf,
) -> tuple[list[Entry], list[str]]:
    """Make contenders ready and check their answers; returns entries, and what is to be said of those left out.

    A wrong answer of fastq or NumPy is an error. A peer's is not ours to mend: it does not take part. Nor does one that
    raises, or whose call takes longer than `slowest` seconds. `sqnr`: also tell how close answers come to float64.
    """
    entries, notes = [], []
    for contender in contenders:
        try:
            entries.append(_entered(task, contender, isa, threads, sqnr, slowest))
        except Exception as error:
            if not contender.is_peer:
                raise
            kind = "" if isinstance(error, WrongAnswerError | TooSlowError) else f"{type(error).__name__}: "
            what = " ".join(f"{kind}{error}".split())[:LONGEST_NOTE]
            notes.append(f"{contender.name} takes no part in {task}: {what}")
    return entries, notes


class TooSlowError(Exception):
    """A call takes longer than a contest has time for."""


def _entered(
    task: Problem, contender: Contender, isa: str | None, threads: int | None, sqnr: bool, slowest: float
) -> Entry:
    ours = contender.library is None
    with setting(isa, threads) if ours else contender.within(threads):
        ready = contender.prepare(task, threads or fq_threads())
        answer = ready.run()
        took = timed(ready.run)[1] if contender.is_peer and slowest < inf else 0.0
    contender.check(task, answer)
    if took > slowest:
        raise TooSlowError(f"a call takes {took:.2g} s, for which the time is too short")
    if ours:
        task.check_same_bits(contender.name, answer)
    decibels = task.sqnr(answer) if sqnr and contender.kind in OF_FLOATS else None
    facts = {
        "kind": contender.kind,
        "library": contender.library,
        "baseline": contender.library == NUMPY,
        "isa": (isa or cpu.chosen(ISAS)) if ours else None,
        "threads": threads,
        "bits": contender.bits,
        "size": contender.group,
        "shape": [task.m, task.k, task.n],
        "operations": task.operations,
        "nbytes": task.m * task.k * BYTES[contender.kind] + task.k * task.n * _right_bytes(contender),
        "pack": ready.pack,
        "sqnr": decibels if decibels is not None and isfinite(decibels) else None,
    }
    within = partial(setting, isa, threads) if ours else partial(contender.within, threads)
    return Entry(contender.name, ready.run, facts, within)


def fq_threads() -> int:
    """Threads that fastq uses; everyone gets as many."""
    from fastq.machine import pool

    return pool.num_threads()


def _right_bytes(contender: Contender) -> float:
    return 4.0 if contender.kind in (FLOAT32, TWO_FLOATS) else contender.bits / 8


def weights(
    bits: int, group: int | None = None, scheme: str | None = None, activations: Activations = "row"
) -> Contender:
    """Floats, quantized so, times weights of so many bits, by column or in groups; as :meth:`Problem.weights`."""

    # Only the rows of x are rounded anew, to 8 bits, which leaves about 40 dB of normally distributed numbers.
    def prepare(p: Problem, threads: int) -> Ready:
        q, seconds, _ = p.weights(bits, group, scheme)
        q = q.with_activations(activations)
        return Ready(lambda: p.x @ q, seconds)

    def check(p: Problem, answer: Any) -> None:
        q, _, product = p.weights(bits, group, scheme)
        p.check_bound(q.with_activations(activations), answer)
        if answer.size >= MANY:
            close(product, answer, 35)

    name, kind = f"int{bits} weights", FLOATS if bits == 8 else LOW_BITS
    name += "" if group is None else f", group {group}"
    name += "" if scheme is None else f", float scales, {scheme}"
    name += "" if activations == "row" else f", {activations} activations"
    return _ours(name, kind, prepare, check, bits, group)


def _codes(p: Problem, threads: int) -> Ready:
    # With scales of 1 the float32 result is the integers themselves, rounded once; they are applied all the same.
    a = fq.quantize(p.a8.astype(np.float32), 8, axis=-1, scale=np.ones((p.m, 1), np.float32))
    b = fq.quantize(p.b8.astype(np.float32), 8, axis=0, scale=np.ones((1, p.n), np.float32))
    seconds = pack(b)
    return Ready(lambda: a @ b, seconds)


def _ours(name: str, kind: str, prepare: Any, check: Any, bits: int = 8, group: int | None = None) -> Contender:
    return Contender(name, kind, prepare, check, lambda threads: setting(threads=threads), bits=bits, group=group)


MATMUL = Contender(
    "float32 np.matmul",
    FLOAT32,
    lambda p, threads: Ready(lambda: numpys.matmul(p.x, p.w)),
    lambda p, y: close(p.float_product, y, 100),
    blas_threads,
    NUMPY,
    bits=32,
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
