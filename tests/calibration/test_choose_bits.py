"""fastq.choose_bits against trying everything."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import fastq as fq
from fastq.calibration import allocation, choose_bits

GROUPS = (None, 128, 64, 32)


@pytest.fixture
def w(rng):
    return rng.standard_t(5, (256, 24)).astype(np.float32)


@pytest.fixture
def x(rng):
    """Inputs whose channels differ much."""
    return (rng.standard_normal((40, 256)) * np.exp(2 * rng.standard_normal(256))).astype(np.float32)


def sqnr(w, q, x=None):
    """By the definition."""
    exact, other = w.astype(np.float64), q.dequantize(np.float64)
    return fq.error(exact, other).sqnr_db if x is None else fq.error(x @ exact, x @ other).sqnr_db


def everything(w, x=None, groups=GROUPS, bits=range(2, 9), **form):
    """Bits per weight, SQNR, bits and group of each form."""
    for b, g in itertools.product(bits, groups):
        if g is None or g < len(w):
            q = fq.quantize(w, b, axis=0, group_size=g, **{"method": "minmax", **form})
            yield allocation.bits_per_weight(len(w), b, g, q.scheme), sqnr(w, q, x), b, g


# One matrix


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("wanted", [5, 12, 17, 20, 30, 40])
def test_the_smallest_that_is_good_enough(w, x, wanted, calibrated):
    rows = x if calibrated else None
    found = fq.choose_bits(w, sqnr=wanted, calibration=rows, method="minmax")
    cost, quality, bits, group = min(form for form in everything(w, rows) if form[1] >= wanted)
    assert (found.bits, found.group_size, found.bits_per_weight) == (bits, group, cost)
    assert found.sqnr_db == pytest.approx(quality, abs=1e-6)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric", "affine"])
@pytest.mark.parametrize("method", ["minmax", "percentile", fq.Percentile(99)])
def test_forms(w, scheme, method):
    found = fq.choose_bits(w, sqnr=15, scheme=scheme, method=method)
    cost, _, bits, group = min(f for f in everything(w, scheme=scheme, method=method) if f[1] >= 15)
    assert (found.bits, found.group_size, found.bits_per_weight) == (bits, group, cost)
    q = found.quantize(w)
    assert q.equals(fq.quantize(w, bits, axis=0, group_size=group, scheme=scheme, method=method))
    assert sqnr(w, q) == pytest.approx(found.sqnr_db, abs=1e-6)


@pytest.mark.parametrize("budget", [2.13, 3.2, 4.6, 5, 20])
def test_the_best_within_a_budget(w, budget):
    found = fq.choose_bits(w, budget=budget, method="minmax")
    best = max(form[1] for form in everything(w) if form[0] <= budget)
    assert found.sqnr_db == pytest.approx(best, abs=1e-6)
    assert found.bits_per_weight <= budget


def test_a_second_moment_is_as_good_as_its_rows(rng, w, x):
    """In any unit; and rows that are more than K, of which the moment is made."""
    for rows in (x, rng.standard_normal((300, 256)) * np.exp(rng.standard_normal(256))):
        expected = fq.choose_bits(w, budget=4, calibration=rows, method="minmax")
        wide = rows.astype(np.float64)
        moment = SimpleNamespace(matrix=wide.T @ wide / len(rows))
        found = fq.choose_bits(w, budget=4, calibration=moment, method="minmax")
        assert (found.bits, found.group_size) == (expected.bits, expected.group_size)
        assert found.sqnr_db == pytest.approx(expected.sqnr_db, abs=1e-6)
        quality = sqnr(w, expected.quantize(w), wide)
        assert expected.sqnr_db == pytest.approx(quality, abs=1e-6)


def test_the_method_is_mse_unless_told(rng):
    w = rng.standard_t(5, (64, 4)).astype(np.float32)
    found = fq.choose_bits(w, sqnr=9, bits=[2, 3], group_sizes=[None])
    assert found == fq.choose_bits(w, sqnr=9, bits=[2, 3], group_sizes=[None], method="mse")
    assert found.sqnr_db == pytest.approx(sqnr(w, fq.quantize(w, found.bits, axis=0, method="mse")), abs=1e-6)


def test_only_from_what_is_offered(w):
    found = fq.choose_bits(w, sqnr=10, bits=(5, 7), group_sizes=(64, 16))
    assert (found.bits, found.group_size) == (5, 64)
    assert fq.choose_bits(w, sqnr=10, bits=[5], group_sizes=[256]).group_size is None  # one group is a whole column


def test_columns_of_large_matrices_are_tried(monkeypatch, w):
    monkeypatch.setattr(choose_bits, "SAMPLE", 256 * 8)
    lines = []
    found = fq.choose_bits(w, sqnr=17, report=lines.append)
    some = w[:, ::3]
    assert found.sqnr_db == pytest.approx(sqnr(some, found.quantize(some)), abs=1e-6)
    assert "w (256 x 24, 8 columns tried)" in lines[1]
    assert "columns tried" not in "".join(said(w[:, :8], sqnr=17))


def test_zeros():
    found = fq.choose_bits(np.zeros((64, 3)), sqnr=100)
    assert (found.bits, found.group_size, found.sqnr_db) == (2, None, np.inf)


def test_what_a_weight_costs():
    cost = allocation.bits_per_weight
    assert cost(320, 3, None, "symmetric") == 3 + 32 / 320
    assert cost(320, 3, None, "asymmetric") == 3 + 40 / 320
    assert cost(320, 3, 64, "symmetric") == 3 + (32 + 5 * 16) / 320
    assert cost(321, 3, 64, "asymmetric") == 3 + (32 + 6 * 16) / 321
    assert cost(320, 3, 64, "affine") == 3 + 5 * 64 / 320
    assert cost(320, 8, 64, "symmetric") == 8 + 5 * 32 / 320  # no integer scales at 8 bits
    assert cost(320, 3, 40, "symmetric") == 3 + 8 * 32 / 320  # nor for groups that tiles are not made of


# Several


@pytest.fixture
def weights(rng):
    return {
        "easy": rng.uniform(-1, 1, (64, 48)),
        "hard": rng.standard_t(2, (128, 16)),
        3: rng.standard_normal((256, 8)).astype(np.float32),
    }


def average(found, weights):
    sizes = {key: w.size for key, w in weights.items()}
    return sum(found[key].bits_per_weight * n for key, n in sizes.items()) / sum(sizes.values())


def test_each_by_itself(weights):
    found = fq.choose_bits(weights, sqnr=20, method="minmax")
    assert found == {key: fq.choose_bits(w, sqnr=20, method="minmax") for key, w in weights.items()}
    assert found["easy"].bits < found["hard"].bits


@pytest.mark.parametrize("budget", [2.7, 3, 3.5, 4.2, 6, 20])
def test_a_mix(weights, budget):
    """Against all mixes: as good as the best under a budget that is smaller by one step, as greedy steps promise."""
    few = {"bits": (2, 3, 4, 6), "group_sizes": (None, 32)}
    found = fq.choose_bits(weights, budget=budget, method="minmax", **few)
    assert average(found, weights) <= budget
    total = sum(w.size for w in weights.values())
    forms = [
        [(f[0] * w.size / total, 10 ** (-f[1] / 10)) for f in everything(w, groups=(None, 32), bits=(2, 3, 4, 6))]
        for w in weights.values()
    ]
    step = max(max(f)[0] - min(f)[0] for f in forms)
    noise = sum(10 ** (-c.sqnr_db / 10) for c in found.values())
    mixes = [tuple(map(sum, zip(*mix))) for mix in itertools.product(*forms)]
    assert noise <= min((n for cost, n in mixes if cost <= budget - step), default=np.inf) * (1 + 1e-9)
    assert noise >= min(n for cost, n in mixes if cost <= budget + 1e-9) * (1 - 1e-9)
    assert noise <= min(n for cost, n in mixes if cost <= budget) * 1.25  # what is seen here


def trials(*pairs):
    return [allocation.Trial(allocation.Candidate(float(cost), cost, None), noise) for cost, noise in pairs]


def test_steps_follow_the_convex_hull():
    """(3, 7) lies above the line from (2, 10) to (4, 2): the steps pass it by, and what is left over buys it."""
    tried = {"a": trials((2, 10.0), (3, 7.0), (4, 2.0)), "b": trials((2, 10.0), (3, 9.5), (4, 9.4))}
    assert allocation.hull_of(tried["a"]) == [tried["a"][0], tried["a"][2]]
    sizes = {"a": 1, "b": 1}
    noise = {allowed: [t.noise for t in allocation.allocate(tried, sizes, allowed).values()] for allowed in range(4, 9)}
    assert noise == {4: [10, 10], 5: [7, 10], 6: [2, 10], 7: [2, 9.5], 8: [2, 9.4]}


def test_large_weights_pay_more_for_a_bit():
    tried = {"large": trials((2, 10.0), (3, 4.0)), "small": trials((2, 10.0), (3, 5.0))}
    for allowed, noise in ((32, [10, 5]), (33, [4, 5])):
        chosen = allocation.allocate(tried, {"large": 10, "small": 1}, allowed)
        assert [t.noise for t in chosen.values()] == noise


def test_calibrations_by_name(rng, weights):
    rows = {key: rng.standard_normal((5, len(w))) * np.arange(len(w)) for key, w in weights.items()}
    found = fq.choose_bits(weights, budget=4, calibration=rows, method="minmax")
    for key, w in weights.items():
        assert found[key].sqnr_db == pytest.approx(sqnr(np.asarray(w), found[key].quantize(w), rows[key]), abs=1e-4)


# Reports


def said(w, **goal):
    lines = []
    fq.choose_bits(w, report=lines.append, method="minmax", **goal)
    return lines


def test_reports(weights, w, capsys):
    assert said(w, sqnr=17)[1].startswith("  w (256 x 24): 4 bits, ")
    assert said(w, sqnr=1)[1].endswith("; nothing is smaller")
    lines = said(weights, budget=4)
    assert lines[0] == "choose_bits: the least sum of relative noise within 4 bits per weight"
    assert [line.split()[0] for line in lines[1:-1]] == ["easy", "hard", "3"]
    found = fq.choose_bits(weights, budget=4, method="minmax")
    assert capsys.readouterr().out == ""  # nothing, unless told to
    assert lines[-1].startswith(f"  {average(found, weights):.3f} bits per weight on average")
    fq.choose_bits(weights, budget=4, method="minmax", report=True)
    assert capsys.readouterr().out.splitlines() == lines


def test_choices_are_printable(weights, w):
    for goal in ({"sqnr": 17}, {"budget": 4}):
        found = fq.choose_bits(w, method="minmax", **goal)
        assert str(found).splitlines() == said(w, **goal) == found.report.splitlines()
        assert repr(found) == (
            f"Choice(bits={found.bits}, group_size={found.group_size}, axis=0, bits_per_weight="
            f"{found.bits_per_weight:.4g}, sqnr_db={found.sqnr_db:.4g}, scheme='symmetric', method='minmax')"
        )
    mix, lines = fq.choose_bits(weights, budget=4, method="minmax"), said(weights, budget=4)
    for number, choice_of_one in enumerate(mix.values(), 1):  # what is about all, and what is about this one
        assert str(choice_of_one).splitlines() == [lines[0], lines[number], lines[-1]]
    assert str(fq.Choice(3, 64, 3.25, 15.0)) == repr(fq.Choice(3, 64, 3.25, 15.0))
    assert fq.Choice(3, 64, 3.25, 15.0, report="a") == fq.Choice(3, 64, 3.25, 15.0, report="b")


@pytest.mark.parametrize("goal", [{"sqnr": 20}, {"budget": 4}])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_hint_for_weights_on_one_side_of_zero(w, goal, sign):
    """And whoever follows it gets more for less."""
    plain, one_sided = (fq.choose_bits({"up": x}, **goal)["up"] for x in (w, sign * abs(w)))
    side = "negative" if sign > 0 else "positive"
    hint = f"hint: up is never {side}, so half of the symmetric codes are unused: scheme='asymmetric' halves the step"
    assert "hint" not in str(plain)
    assert f"\n    {hint}" in str(one_sided)
    better = fq.choose_bits({"up": sign * abs(w)}, scheme="asymmetric", **goal)["up"]
    assert "hint" not in str(better)
    if "sqnr" in goal:
        assert better.bits_per_weight < one_sided.bits_per_weight - 0.4
    else:
        assert better.sqnr_db > one_sided.sqnr_db + 2


# Weights that are stored the other way round


@pytest.mark.parametrize("axis", [1, -1, np.int64(1)])
@pytest.mark.parametrize("goal", [{"sqnr": 17}, {"budget": 4}])
@pytest.mark.parametrize("calibrated", [False, True])
def test_along_the_other_axis(w, x, axis, goal, calibrated):
    """As it is for the transpose, whose product it is for."""
    calibration = x if calibrated else None
    expected = fq.choose_bits(w, calibration=calibration, **goal)
    found = fq.choose_bits(w.T, axis=axis, calibration=calibration, **goal)
    assert found == dataclasses.replace(expected, axis=1)
    assert found.quantize(w.T).T.equals(expected.quantize(w))
    assert str(found) == str(expected).replace("256 x 24", "24 x 256")
    assert fq.choose_bits(w, axis=-2, calibration=calibration, **goal) == expected


def test_rows_of_large_matrices_are_tried(monkeypatch, w):
    monkeypatch.setattr(choose_bits, "SAMPLE", 256 * 8)
    assert "w (24 x 256, 8 rows tried)" in said(w.T, sqnr=17, axis=1)[1]


def test_several_along_the_other_axis(rng, weights):
    rows = {key: rng.standard_normal((5, len(w))) for key, w in weights.items()}
    for goal in ({"sqnr": 20}, {"budget": 4}):
        expected = fq.choose_bits(weights, calibration=rows, **goal)
        found = fq.choose_bits({key: w.T for key, w in weights.items()}, axis=1, calibration=rows, **goal)
        assert found == {key: dataclasses.replace(one, axis=1) for key, one in expected.items()}
