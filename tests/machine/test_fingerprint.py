"""Fingerprints of users' functions: equal in every process, different for different functions, none in doubt."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from fastq.machine import jit
from fastq.machine.fingerprint import fingerprint

PROGRAM = """
import math, numba, numpy as np
SLOPE = {slope}
@numba.njit
def inner(y): return math.tanh(y) * {factor}
def make(closed):
    @numba.njit{options}
    def f(y, power={power}): return inner(y) if y > {level} else SLOPE * np.exp(y) + closed
    return f
f = make({closed})
"""
USUAL = {"slope": 0.5, "factor": 2.0, "options": "", "power": 1, "level": 0.0, "closed": 3}


def made(**changes):
    scope = {"__name__": "__main__"}
    exec(PROGRAM.format(**{**USUAL, **changes}), scope)
    return scope["f"]


def test_equal_functions_have_one():
    first = fingerprint(made())
    assert len(first) == 32
    assert fingerprint(made()) == first


@pytest.mark.parametrize(
    "change",
    [
        {"slope": 0.25}, {"slope": "np.float32(0.5)"}, {"factor": -2.0}, {"factor": 2}, {"power": 2}, {"level": -0.0},
        {"level": "math.inf"}, {"closed": 4}, {"closed": True}, {"closed": 3.0}, {"options": "(fastmath=True)"},
    ],
)  # fmt: skip
def test_any_difference_shows(change):
    assert fingerprint(made(**change)) not in (None, fingerprint(made()))


def test_functions_that_are_not_compiled_or_are_pythons_own_have_none():
    def plain(y):
        return y

    @numba.njit
    def calls(y):
        return plain(y)

    assert fingerprint(calls) is None
    assert fingerprint(plain) is None


def test_a_function_that_calls_itself():
    @numba.njit
    def down(y):
        return y if y < 1 else down(y - 1)

    assert fingerprint(down) is not None


RUN = PROGRAM.format(**USUAL).replace(", power=1", "") + (
    "import fastq as fq\n"
    "from fastq.machine import jit\n"
    "x = np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8)\n"
    "q = fq.quantize(x, axis=0)\n"
    "y = fq.matmul(x, q, epilogue=f)\n"
    "print(sum('user' in name for name in jit.compiled_names()), y.tobytes().hex())\n"
)


@pytest.mark.exhaustive
def test_kernels_with_a_function_are_kept_on_disk(tmp_path):
    def run():
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "FASTQ_CACHE_DIR": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    if os.environ.get("FASTQ_ISA") == "reference":
        return  # no kernels
    (compiled, first), (none, second) = run(), run()
    assert (compiled, none) == ("1", "0")
    assert first == second


def test_code_that_calls_what_the_process_lacks_is_not_linked(monkeypatch):
    """It would end the process."""
    assert jit._calls("kernel expf tanh") == ["expf", "tanh"]
    assert jit._is_there("memcpy")
    assert not jit._is_there("fastq_no_such_function")

    cache = jit._open_cache()
    usual = cache.load
    monkeypatch.setattr(cache, "load", lambda name: ("kernel fastq_no_such_function", b"no code"))

    def make():
        raise LookupError("it is to be compiled")

    with pytest.raises(LookupError, match="it is to be compiled"):
        jit.kernel("never_made", make, builtin=False)
    assert usual("never_made") is None


def closing_over(value):
    @numba.njit
    def f(y):
        return y + value

    return f


def test_numbers_are_told_exactly():
    values = [0.1, math.nextafter(0.1, 1), -0.0, 0.0, math.inf, 1, True, 1.0, np.float32(1), np.float64(2), 1j, "1"]
    assert len({fingerprint(closing_over(v)) for v in values}) == len(values)


@pytest.mark.parametrize("value", [np.ones(3), object(), open, (1, np.ones(1)), sys, subprocess.run, os.getpid])
def test_what_cannot_be_told_has_none(value):
    assert fingerprint(closing_over(value)) is None
