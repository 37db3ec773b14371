"""Error-compensating rounding against GPTQ as it is written down, and against what it is held to."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest

import fastq as fq
from fastq.cli import digits
from fastq.engine import native
from fastq.engine.plan import this_machine
from fastq.kernels import reference
from fastq.quant import affine, gptq, search
from fastq.quant.gptq import Gptq
from fastq.quant.moment import SecondMoment
from fastq.quant.spec import QuantSpec, expand
from fastq.scheme import SCHEMES, CodeRange, code_range
from tests.cases import instruction_set


def correlated(rng, rows, k, rho=0.9):
    """Rows of an AR(1) process."""
    x = rng.standard_normal((rows, k))
    for i in range(1, k):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return x.astype(np.float32)


Columns = namedtuple("Columns", "codes scale zero offset group_scale")


def quantize_columns(w, bits, group, scheme, moment, options=None, integer=False, progress=None):
    codes, params = gptq.quantize_columns(w, QuantSpec(bits, 0, group, scheme, integer), moment, options, progress)
    return Columns(codes, *params)


def dequantized(q, group, k):
    def spread(p):
        return 0.0 if p is None else np.repeat(p, k if group is None else group, axis=0)[:k]

    scale = q.scale if q.group_scale is None else q.scale * q.group_scale
    return spread(scale) * (q.codes - spread(q.zero)) + spread(q.offset)


def by_mse(w, bits, group, scheme="symmetric"):
    spec = QuantSpec(bits, 0, group, scheme)
    codes, params = affine.quantize(w, spec, search.search(w, spec))
    scale, zero, offset, _ = params.mapped(lambda p: expand(p, w.shape, 0, group))
    return scale * (codes - (0.0 if zero is None else zero)) + (0.0 if offset is None else offset)


def output_error(x, w, approximation):
    return float(np.square(x.astype(np.float64) @ (w - approximation)).sum())


def decibels(x, w, new, old):
    return 10 * np.log10(output_error(x, w, new) / output_error(x, w, old))


def gptq_as_published(w, scale, h, order, limits):
    """Algorithm 1 of arXiv:2210.17323 without blocks: the inverse, its factor, one row after the other."""
    w = w[order].copy()
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    codes = np.empty(w.shape)
    for i in range(len(w)):
        codes[i] = np.clip(np.rint(w[i] / scale[order[i]]), limits.low, limits.high)
        error = (w[i] - codes[i] * scale[order[i]]) / upper[i, i]
        w[i + 1 :] -= upper[i, i + 1 :, None] * error
    back = np.empty_like(codes)
    back[order] = codes
    return back


@pytest.mark.parametrize("activation_order", [False, True])
def test_codes_are_those_of_the_paper(rng, isa, activation_order):
    k, damping = 150, 0.02  # more rows than a kernel takes at once
    x = correlated(rng, 400, k) * np.exp(rng.standard_normal(k)).astype(np.float32)
    w = rng.standard_normal((k, 5))
    moment = SecondMoment.of(x)
    options = Gptq(damping=damping, activation_order=activation_order, sweeps=0)
    q = quantize_columns(w, 4, 50, "symmetric", moment, options)
    h = moment.shrunk + damping * moment.diagonal.mean() * np.eye(k)
    order = np.argsort(-moment.diagonal, kind="stable") if activation_order else np.arange(k)
    want = gptq_as_published(w, np.repeat(q.scale, 50, axis=0), h, order, code_range(4, "symmetric"))
    assert np.array_equal(q.codes, want)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("per_row", [False, True])
def test_kernel_is_its_reference(rng, kind, per_row):
    if this_machine().isa == "reference":
        pytest.skip("compares kernels with the reference")
    rows, n, candidates = 9, 64, 3
    target, carry = rng.standard_normal((rows, n)).astype(kind), rng.standard_normal((rows, rows)).astype(kind)
    weight = rng.random(rows).astype(kind)
    shape = (candidates, rows if per_row else 1, n)
    scale = rng.uniform(0.3, 0.6, shape).astype(kind)
    zero, offset = rng.integers(0, 7, shape).astype(kind), rng.standard_normal(shape).astype(kind)
    results = []
    for step in (native.compensate, reference.compensate):
        loss, codes = np.empty((candidates, n), kind), np.empty((rows, n), np.uint8)
        step(target, carry, weight, scale, zero, offset, CodeRange(0, 7), loss, codes)
        again = np.empty_like(loss)
        step(target, carry, weight, scale, zero, offset, CodeRange(0, 7), again, None)
        assert np.array_equal(loss, again)
        results.append((loss, codes))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_beats_mse_for_every_scheme_and_width(rng, scheme, bits):
    x, w = correlated(rng, 1000, 64), rng.standard_normal((64, 24)).astype(np.float32)
    q = quantize_columns(w, bits, 16, scheme, SecondMoment.of(x))
    # The search for an offset leaves errors whose sum over a group is 0, which correlated inputs like already.
    limits = code_range(bits, scheme)
    assert q.codes.dtype == (np.int8 if scheme == "symmetric" else np.uint8)
    assert q.codes.min() >= limits.low
    assert q.codes.max() <= limits.high
    assert q.scale.shape == (4, 24)
    assert (q.zero is None) == (scheme != "asymmetric")
    assert (q.offset is None) == (scheme != "affine")
    assert decibels(x, w, dequantized(q, 16, 64), by_mse(w, bits, 16, scheme)) < (-2 if scheme == "affine" else -4)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize(("bits", "bound"), [(2, -5), (3, -5), (4, -4), (5, -3)])
def test_integer_factors(rng, scheme, bits, bound):
    x, w = correlated(rng, 1000, 64), rng.standard_normal((64, 24)).astype(np.float32)
    q = quantize_columns(w, bits, 16, scheme, SecondMoment.of(x), integer=True)
    assert q.scale.shape == (1, 24)
    assert q.group_scale.dtype == np.int8
    assert q.group_scale.all()
    zero = 0 if q.zero is None else np.repeat(q.zero, 16, axis=0)
    products = np.repeat(q.group_scale.astype(int), 16, axis=0) * (q.codes.astype(int) - zero)
    assert products.min() >= -128
    assert products.max() <= 127
    fraction, _ = np.frexp(q.scale)
    assert np.array_equal(fraction * 2**16, np.rint(fraction * 2**16))
    assert decibels(x, w, dequantized(q, 16, 64), by_mse(w, bits, 16, scheme)) < bound


@pytest.mark.parametrize("seed", [5, 74, 186, 196])
def test_zero_points_are_those_that_the_factors_were_limited_by(seed):
    """A factor times the distance of any code from the zero point fits int8, or products wrap around."""
    rng = np.random.default_rng(seed)
    bits = 3 + seed % 2
    w = rng.standard_normal((100, 33)).astype(np.float32)
    seen = correlated(rng, 400, 100)
    q = fq.quantize(w, bits, axis=0, group_size=48, scheme="asymmetric", method=Gptq(sweeps=0), calibration=seen)
    x = seen[:100]
    zero = q.zero_point
    assert (q.group_scale * np.maximum(zero, 2**bits - 1 - zero) <= 127).all()
    exact = x.astype(np.float64) @ q.dequantize(np.float64)
    assert (np.abs(x @ q - exact) <= fq.matmul_error_bound(x, q)).all()


def test_all_of_six_bits_have_factors(rng):
    q = quantize_columns(rng.standard_normal((32, 4)), 6, 16, "symmetric", SecondMoment.of(np.eye(32)), integer=True)
    assert np.abs(q.group_scale).max() <= 4


@pytest.mark.parametrize("sweeps", [0, 1, 2])
def test_sweeps_lower_the_error(rng, sweeps):
    x, w = correlated(rng, 1000, 96), rng.standard_normal((96, 24)).astype(np.float32)
    found = [
        output_error(x, w, dequantized(quantize_columns(w, 3, 32, "symmetric", SecondMoment.of(x), o), 32, 96))
        for o in (Gptq(damping=0.001, sweeps=sweeps), Gptq(damping=0.001, sweeps=sweeps + 1))
    ]
    assert found[1] < found[0]


SHAPES = [
    (1, 1, None), (1, 5, 4), (7, 1, 3), (5, 3, 64), (33, 34, 16), (130, 3, 64), (300, 2, None), (300, 2, 200),
]  # fmt: skip


@pytest.mark.parametrize(("k", "n", "group"), SHAPES)
@pytest.mark.parametrize("activation_order", [False, True])
@pytest.mark.exhaustive
def test_odd_shapes(rng, k, n, group, activation_order):
    x, w = correlated(rng, 500, k), rng.standard_normal((k, n))
    options = Gptq(activation_order=activation_order)
    q = quantize_columns(w, 4, group, "asymmetric", SecondMoment.of(x), options)
    groups = 1 if group is None else -(-k // group)
    assert q.codes.shape == (k, n)
    assert q.scale.shape == q.zero.shape == (groups, n)
    error, old = (
        output_error(x, w, values) for values in (dequantized(q, group, k), by_mse(w, 4, group, "asymmetric"))
    )
    assert error < 1.01 * old + 1e-12 * np.square(x @ w).sum()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty(shape):
    q = quantize_columns(np.empty(shape, np.float32), 3, None, "symmetric", SecondMoment(shape[0]))
    assert q.codes.shape == shape
    assert q.scale.shape == (1, shape[1])


@pytest.mark.exhaustive
def test_every_isa_and_order_in_memory_gives_the_same(rng, isa):
    x = correlated(rng, 200, 40)
    w = rng.standard_normal((40, 35)).astype(np.float32)
    q = quantize_columns(np.asfortranarray(w), 3, 16, "affine", SecondMoment.of(x))
    with instruction_set("reference"):
        want = quantize_columns(w, 3, 16, "affine", SecondMoment.of(x))
    assert np.array_equal(q.codes, want.codes)
    assert np.array_equal(q.scale, want.scale)
    assert np.array_equal(q.offset, want.offset)


@pytest.mark.parametrize("exponent", [-120, 100])
def test_size_does_not_matter(rng, exponent):
    x, w = correlated(rng, 200, 32), rng.standard_normal((32, 4)).astype(np.float32)
    moment = SecondMoment.of(x)
    want = quantize_columns(w, 3, 16, "symmetric", moment)
    q = quantize_columns(np.ldexp(w, exponent), 3, 16, "symmetric", SecondMoment.of(x * np.float32(2.0**-20)))
    assert np.array_equal(q.codes, want.codes)
    assert np.array_equal(q.scale, np.ldexp(want.scale, exponent))


def test_zero_weights_stay_zero(rng):
    q = quantize_columns(np.zeros((32, 3)), 3, 16, "symmetric", SecondMoment.of(correlated(rng, 50, 32)))
    assert not q.codes.any()
    assert (q.scale != 0).all()


@pytest.mark.parametrize("activation_order", [False, True])
def test_dead_channels_are_rounded_to_nearest(rng, activation_order):
    x, w = correlated(rng, 500, 48), rng.standard_normal((48, 6)).astype(np.float32)
    dead = np.arange(48) % 5 == 2
    x[:, dead] = 0
    # A sweep may fit a scale to the codes and then find no better codes: those of some columns are not the nearest.
    options = Gptq(activation_order=activation_order, sweeps=0 if activation_order else 2)
    q = quantize_columns(w, 4, 16, "symmetric", SecondMoment.of(x), options)
    scale = np.repeat(q.scale, 16, axis=0)
    nearest = np.clip(np.rint(w / scale), -8, 7)
    # In float32 a sweep solves for targets that are a rounding error away from w.
    tie = np.abs(np.abs(w / scale - np.floor(w / scale)) - 0.5) < 1e-3
    assert np.array_equal(q.codes[dead & ~tie.any(axis=1)], nearest[dead & ~tie.any(axis=1)])
    assert not np.array_equal(q.codes[~dead], nearest[~dead])


@pytest.mark.parametrize("damping", [0, 0.01])
def test_fewer_rows_than_channels(rng, damping):
    x, unseen = correlated(rng, 12, 64, 0.95), correlated(rng, 1000, 64, 0.95)
    w = rng.standard_normal((64, 8)).astype(np.float32)
    q = quantize_columns(w, 3, 16, "symmetric", SecondMoment.of(x), Gptq(damping=damping))
    assert decibels(unseen, w, dequantized(q, 16, 64), by_mse(w, 3, 16)) < -2


def test_inputs_of_nothing_but_zeros_mean_rounding_to_nearest(rng):
    w = rng.standard_normal((32, 4))
    q = quantize_columns(w, 4, 16, "symmetric", SecondMoment.of(np.zeros((5, 32))))
    assert np.array_equal(q.codes, np.clip(np.rint(w / np.repeat(q.scale, 16, axis=0)), -8, 7))


def test_progress_ends_at_the_total(rng):
    seen = []
    w = rng.standard_normal((40, 3))
    moment = SecondMoment.of(correlated(rng, 50, 40))
    quantize_columns(w, 3, 16, "symmetric", moment, progress=lambda *at: seen.append(at))
    assert seen == [(rows, 120) for rows in (16, 32, 40, 56, 72, 80, 96, 112, 120)]


def test_options_are_values():
    assert Gptq() == Gptq(0.003, False, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Gptq().damping = 1


# What it is held to: 3 bits, error of products of rows that calibration has not seen, against the mse search


@pytest.mark.parametrize(("integer", "bound"), [(False, -8), (True, -7.5)])
@pytest.mark.exhaustive
def test_digits_first_layer(network, integer, bound):
    w = np.asarray(network.weights[0], np.float32)
    q = quantize_columns(w, 3, 16, "symmetric", SecondMoment.of(network.seen), integer=integer)
    assert decibels(network.images, w, dequantized(q, 16, 64), by_mse(w, 3, 16)) < bound


def test_digits_accuracy(network):
    weights, x = [], network.seen
    for w, bias in zip(network.weights, network.biases):
        q = quantize_columns(np.asarray(w, np.float32), 3, 16, "symmetric", SecondMoment.of(x))
        weights.append(dequantized(q, 16, len(w)).astype(np.float32))
        x = np.maximum(x @ w + bias, 0)
    exact, rounded = (
        network.accuracy(digits.forward(network.images, ws, network.biases)) for ws in (network.weights, weights)
    )
    assert rounded >= exact - 0.5


@pytest.mark.parametrize(("integer", "bound"), [(False, -7.3), (True, -7.2)])
@pytest.mark.exhaustive
def test_correlated_inputs(rng, integer, bound):
    k = 512
    x, unseen = correlated(rng, 8192, k), correlated(rng, 2048, k)
    w = rng.standard_normal((k, 32)).astype(np.float32)
    q = quantize_columns(w, 3, 64, "symmetric", SecondMoment.of(x), integer=integer)
    assert decibels(unseen, w, dequantized(q, 64, k), by_mse(w, 3, 64)) < bound


def test_errors_come_before_any_work(rng):
    moment, w = SecondMoment.of(correlated(rng, 50, 8)), rng.standard_normal((8, 2))
    w[3, 1] = np.inf
    with pytest.raises(fq.NotFiniteError, match=r"1 of 16 .* \(3, 1\)"):
        quantize_columns(w, 3, None, "symmetric", moment)


def test_progress_in_bytes(rng):
    """A large matrix takes a while: its share of x is told as it goes, and all of it once."""
    w, told = rng.standard_normal((96, 40)).astype(np.float16), []
    x = correlated(rng, 400, 96)
    form = {"axis": 0, "group_size": 32, "method": "gptq", "calibration": x}
    fq.quantize(w, 3, progress=lambda *bytes_: told.append(bytes_), **form)
    done, total = zip(*told)
    assert set(total) == {w.nbytes}
    assert list(done) == sorted(set(done))
    assert len(done) > 5
    assert done[-1] == w.nbytes
