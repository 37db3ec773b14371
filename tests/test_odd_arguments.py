"""Odd values in every argument of every public function; longer runs by ``python -m tests.attacks.odd``."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest

import fastq as fq
from fastq import validation
from tests.attacks import odd

SINGLES = 5000  # of 38,000
PAIRS = 2500


@pytest.mark.exhaustive
def test_odd_values_one_at_a_time():
    every = odd.singles()
    chosen = np.random.default_rng(11).choice(len(every), SINGLES, replace=False)
    assert not list(odd.leaks(every[i] for i in chosen))


def test_odd_values_together():
    assert not list(odd.leaks(odd.calls(11, PAIRS)))


def test_every_public_function_is_called():
    named = {target.name.split(",")[0].split(".")[0] for target in odd.TARGETS}
    functions = {name for name in fq.__all__ if callable(getattr(fq, name))}
    results = {"Choice", "Error", "FileFormatError", "IsaError", "MatmulError", "NotFiniteError"}
    assert functions - results <= named


def test_arguments_that_are_right_give_a_result(tmp_path, monkeypatch):
    """Else the odd ones would meet an error before they are looked at."""
    monkeypatch.chdir(tmp_path)
    failed = []
    for target in odd.TARGETS:
        try:
            target.call(**target.arguments)
        except Exception as error:
            failed.append((target.name, error))
    assert [name for name, _ in failed] == ["load", "open", "QArray", "q[0] = v"], failed  # what is refused in any case


@pytest.mark.parametrize(
    "call",
    [
        lambda: {}["scheme"],
        lambda: [][1],
        lambda: 1 // 0,
        lambda: len(3),
    ],
    ids=["KeyError", "IndexError", "ZeroDivisionError", "TypeError from inside"],
)
def test_leaks_are_seen(monkeypatch, call):
    """The tests above would pass if nothing were found ever."""
    target = next(t for t in odd.TARGETS if t.name == "SecondMoment")
    monkeypatch.setattr("fastq.quant.moment.integer", lambda *args: call())
    assert odd.leak(odd.Case(target, {"k": "1.5"}))


@pytest.mark.parametrize(("function", "value"), [(validation.truth, False), (validation.data_type, np.float16)])
def test_what_a_handler_raises_is_not_taken_for_an_odd_argument(function, value):
    """A signal may come while an argument is looked at."""

    class AlarmError(Exception):
        pass

    lines = []

    def trace(at, frame, event, _):
        if frame.f_code is function.__code__ and event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == at:
                raise AlarmError
        return partial(trace, at)

    for at in range(1, 9):
        lines.clear()
        before = sys.gettrace()
        sys.settrace(partial(trace, at))
        try:
            function(value, "x")
        except AlarmError:
            continue
        finally:
            sys.settrace(before)
        break  # it has ended before that line
    assert at > 2
