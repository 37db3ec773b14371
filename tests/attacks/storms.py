"""Signals, forks and threads at any moment: results stay right, and nothing hangs.

Each case is a storm of a second or less. Handlers raise in the middle of products and of quantizing, or multiply
themselves; a process forks while its threads multiply, and its children multiply too; many threads call while the
number of threads per call changes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.machine import cores

from .draw import Draw
from .finding import Finding, must

Array = npt.NDArray[Any]
PACKAGE = os.path.dirname(fq.__file__)
LAST = 30  # seconds in which a thread or a child that does not hang has ended


class Storm(Exception):
    """What handlers raise."""


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """The one in use, where there are signals and forks."""
    return (None,) if hasattr(os, "fork") and hasattr(signal, "setitimer") else ()


def prepare() -> None:
    """Have several threads per call, however few cores there are."""
    cores.available_cpus = lambda: 4


def case(seed: int) -> None:
    """One storm; calls are right before it and after it."""
    d = Draw(seed)
    calls = _calls()
    before = signal.getsignal(signal.SIGALRM)
    try:
        with fq.set_num_threads(d.one_of(1, 2, 3, 4)):
            d.one_of(*STORMS)(d, calls)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for call in calls:
        must(call(), f"{call.name} after a storm")


class Call:
    """A call, and the result that one thread alone has got."""

    def __init__(self, name: str, function: Callable[[Any], Array], shape: tuple[int, ...]) -> None:
        self.name, self.function, self.shape = name, function, shape
        self.expected = function(None)

    def __call__(self) -> bool:
        """Whether the result is the same."""
        return np.array_equal(self.function(None), self.expected)

    def into(self, out: Array) -> None:
        """The result, into an array."""
        self.function(out)


@cache
def _calls() -> list[Call]:
    """Small and large products, of several forms, and quantizing."""
    r = np.random.default_rng(0)
    calls = []
    for m, k, n in ((1, 600, 900), (4, 32, 48), (64, 256, 300), (300, 200, 500)):
        x, w = r.standard_normal((m, k), np.float32), r.standard_normal((k, n), np.float32)
        a, b = (r.integers(-128, 128, s).astype(np.int8) for s in ((m, k), (k, n)))
        q = fq.quantize(w, 3, axis=0, group_size=16)
        products: dict[str, Callable[[Any], Array]] = {
            "floats with codes": lambda out, x=x, q=q: fq.matmul(x, q, out),
            "floats": lambda out, x=x, w=w: fq.matmul(x, w, out),
            "integers": lambda out, a=a, b=b: fq.matmul(a, b, out),
            "fresh codes": lambda out, x=x, w=w: fq.matmul(x, fq.quantize(w, 8, axis=0), out),
        }
        with fq.set_num_threads(1):
            calls += [Call(f"{name}, {m} x {k} x {n},", function, (m, n)) for name, function in products.items()]
    return calls


def _raising(number: int, frame: Any) -> None:
    """Raise, if it is in a call of fastq's that the signal has come."""
    while frame is not None:
        if PACKAGE in frame.f_code.co_filename:
            raise Storm
        frame = frame.f_back


# Signals


def _interrupted(d: Draw, calls: list[Call]) -> None:
    """Handlers raise at random moments; nobody writes to an output afterwards."""
    signal.signal(signal.SIGALRM, _raising)
    for _ in range(20):
        call = d.one_of(*calls)
        out = np.zeros(call.shape, call.expected.dtype)
        try:
            signal.setitimer(signal.ITIMER_REAL, float(d.rng.exponential(0.001)) + 1e-6, 0.001)
            while True:
                call.into(out)
        except Storm:
            held = out.copy()
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0.001)
        must((out == held).all(), f"{call.name} interrupted, and its output written afterwards")
        must(call(), f"{call.name} after an interrupt")


def _hailing(d: Draw, calls: list[Call]) -> None:
    """One signal after the other, in short intervals, through many calls."""
    signal.signal(signal.SIGALRM, _raising)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        with suppress(Storm):
            call = d.one_of(*calls)
            must(call(), f"{call.name} in a hail of signals")
    signal.setitimer(signal.ITIMER_REAL, 0)


def _calling_back(d: Draw, calls: list[Call]) -> None:
    """Handlers multiply, in the middle of products, and of the products of handlers."""
    wrong: list[str] = []
    inner = [d.one_of(*calls) for _ in range(3)]

    def multiplying(number: int, frame: Any) -> None:
        if not inner:
            return  # as deep as they are to go
        call = inner.pop()
        if not call():
            wrong.append(call.name)
        inner.append(call)

    signal.signal(signal.SIGALRM, multiplying)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        call = d.one_of(*calls)
        must(call(), f"{call.name} while handlers multiply")
    signal.setitimer(signal.ITIMER_REAL, 0)
    must(not wrong, f"{wrong[:1]} in a handler")


# Forks and threads


def _forking(d: Draw, calls: list[Call]) -> None:
    """Children multiply, and threads of the parent do while it forks."""
    stop = threading.Event()
    wrong: list[str] = []
    many = [threading.Thread(target=_until, args=(stop, wrong, calls, d.below(99)), daemon=True) for _ in range(3)]
    for thread in many:
        thread.start()
    try:
        for _ in range(3):
            child = os.fork()
            if child == 0:
                _as_child(calls, d)
            must(_ended(child) == 0, "a child of a process whose threads multiply fails or hangs")
    finally:
        stop.set()
        _join(many)
    must(not wrong, f"{wrong[:1]} while the process forks")


def _as_child(calls: list[Call], d: Draw) -> None:
    """Multiply, fork once more, and end."""
    try:
        right = all(call() for call in calls)
        if right and d.chance(0.5):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(call() for call in calls[:4]) else 1)
            right = _ended(child) == 0
        os._exit(0 if right else 1)
    finally:
        os._exit(2)


def _ended(child: int) -> int | None:
    """How a child ended; None if it had to be killed."""
    end = time.monotonic() + LAST
    while time.monotonic() < end:
        if (found := os.waitpid(child, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _until(stop: threading.Event, wrong: list[str], calls: list[Call], seed: int) -> None:
    r = np.random.default_rng(seed)
    try:
        while not stop.is_set():
            call = calls[r.integers(len(calls))]
            if not call():
                wrong.append(call.name)
    except BaseException as error:
        wrong.append(repr(error))


def _join(many: list[threading.Thread]) -> None:
    for thread in many:
        thread.join(LAST)
    if any(thread.is_alive() for thread in many):
        raise Finding("a thread hangs")


def _threading(d: Draw, calls: list[Call]) -> None:
    """Many threads call while the number of threads per call changes, and signals are handled."""
    stop = threading.Event()
    wrong: list[str] = []
    many = [threading.Thread(target=_until, args=(stop, wrong, calls, d.below(99)), daemon=True) for _ in range(8)]
    for thread in many:
        thread.start()
    try:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with fq.set_num_threads(d.one_of(1, 2, 3, 4, None)):
                call = d.one_of(*calls)
                must(call(), f"{call.name} among many threads")
    finally:
        stop.set()
        _join(many)
    must(not wrong, f"{wrong[:1]} in one of many threads")


STORMS: tuple[Callable[[Draw, list[Call]], None], ...] = (_interrupted, _hailing, _calling_back, _forking, _threading)
