"""How close low-bit weights come, in dB: measures, not times, on data that are the same on every machine.

Also what error-compensating rounding takes for a large matrix, beyond the second moment.
"""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

import fastq as fq

BITS = (2, 3, 4, 5, 6)


def _sqnr(w, **form):
    return fq.error(w, fq.quantize(w, axis=0, **form)).sqnr_db


def bench_weights(keep, quick):
    """Gaussian columns of 4096, and heavy-tailed ones of 1024, which gain from groups."""
    columns = 16 if quick else 256
    gaussian = default_rng(1).standard_normal((4096, columns)).astype(np.float32)
    heavy = default_rng(2).standard_t(5, (1024, columns)).astype(np.float32)

    def work():
        found = {}
        for scheme in ("symmetric", "affine"):
            for bits in BITS:
                found[f"gaussian {bits} {scheme}"] = _sqnr(gaussian, bits=bits, scheme=scheme, method="mse")
        for bits in BITS:
            form = {"bits": bits, "method": "mse"}
            column = _sqnr(heavy, **form)
            by_scale = {g: _sqnr(heavy, group_size=64, group_scale=g, **form) for g in ("integer", "float")}
            found[f"heavy {bits} group 64"] = by_scale["integer"] - column
            found[f"heavy {bits} integer"] = by_scale["integer"] - by_scale["float"]
        return found

    keep("measures", work)


def _output_error(x, w, q):
    return float(np.square((x @ (q.dequantize() - w)).astype(np.float64)).sum())


def _gain(w, group, seen, unseen, bits):
    """What gptq does to the error of products, in dB, against mse with the same groups."""
    form = {"bits": bits, "axis": 0, "group_size": group}
    plain = _output_error(unseen, w, fq.quantize(w, method="mse", **form))
    gptq = _output_error(unseen, w, fq.quantize(w, method="gptq", calibration=seen, **form))
    return 10 * np.log10(gptq / plain)


def _autoregressive(random, rows, k, rho=0.9):
    x = random.standard_normal((rows, k)).astype(np.float32)
    for i in range(1, k):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return x


def bench_correlated_inputs(keep, quick):
    """An AR(1) input of 512 channels; rows that were not seen."""
    random = default_rng(3)
    seen = fq.SecondMoment.of(_autoregressive(random, 2048 if quick else 16384, 512))
    unseen = _autoregressive(random, 2048, 512)
    w = random.standard_normal((512, 32 if quick else 256)).astype(np.float32)
    keep("measures", lambda: {f"ar1 {bits} gptq": _gain(w, 64, seen, unseen, bits) for bits in BITS})


def _kinds(k):
    """Inputs of every kind: a function of a generator and a number of rows for each."""
    size = np.ones(k, np.float32)
    size[5 :: k // 8] = np.linspace(20, 100, 8)
    mix = default_rng(6).standard_normal((k // 8, k)).astype(np.float32) / np.float32(np.sqrt(k // 8))
    return {
        **{f"AR({rho})": partial(_autoregressive, k=k, rho=rho) for rho in (0, 0.5, 0.9, 0.95)},
        "outlier channels": lambda random, rows: size * _autoregressive(random, rows, k, 0),
        "rank K/8": lambda random, rows: random.standard_normal((rows, k // 8)).astype(np.float32) @ mix,
        "mean 1": lambda random, rows: 1 + _autoregressive(random, rows, k, 0),
    }


def bench_few_rows(keep, quick):
    """Rows from K / 16 to 16 K of every kind: what gptq gains in dB on the mse search with the same calibration."""
    k = 128 if quick else 1024
    w = default_rng(7).standard_normal((k, 32 if quick else 64)).astype(np.float32)
    form = {"bits": 3, "axis": 0, "group_size": 64}

    def gain(draw, rows):
        random = default_rng(rows)
        moment, unseen = fq.SecondMoment.of(draw(random, rows)), draw(random, 2048)
        mse, gptq = (fq.quantize(w, method=m, calibration=moment, **form) for m in ("mse", "gptq"))
        return 10 * np.log10(_output_error(unseen, w, mse) / _output_error(unseen, w, gptq))

    def work():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "calibration must show")
            found = {
                f"gptq gain {kind}, {rows / k:g} K rows": gain(draw, rows)
                for kind, draw in _kinds(k).items()
                for rows in (k // 16, k // 2, k, 4 * k, 16 * k)
            }
        return {**found, "gptq gain, least": min(found.values())}

    keep("measures", work)


def bench_digits(keep, quick):
    """The first layer of the digits network, and the accuracy of all of it with three bits."""
    pytest.importorskip("sklearn")
    from fastq.cli import digits

    network = digits.train()
    seen = network.seen
    layers = [np.asarray(w, np.float32) for w in network.weights]

    def work():
        found = {f"digits {bits} gptq": _gain(layers[0], 16, seen, network.images, bits) for bits in BITS}
        x, quantized = seen, []
        for w, bias in zip(layers, network.biases):
            quantized.append(fq.quantize(w, 3, axis=0, group_size=16, method="gptq", calibration=x))
            x = np.maximum(x @ w + bias, 0)
        true, low = (network.accuracy(digits.forward(network.images, w, network.biases)) for w in (layers, quantized))
        return {**found, "digits accuracy lost": true - low}

    keep("measures", work)


def bench_gptq_large(keep, quick):
    """Seconds, and bytes beyond the weights and the moment."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a single call cannot be told on this system")
    k = 256 if quick else 4096
    random = default_rng(4)
    moment = fq.SecondMoment.of(_autoregressive(random, 2 * k, k))
    w = random.standard_normal((k, k), dtype=np.float32)
    few = fq.SecondMoment.of(_autoregressive(random, 256, 128))
    fq.quantize(w[:128, :32], 3, axis=0, group_size=64, method="gptq", calibration=few)  # loads the kernels

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) << 10

    def work():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before, start = status("VmRSS"), time.perf_counter()
        fq.quantize(w, 3, axis=0, group_size=64, method="gptq", calibration=moment)
        return {"gptq seconds": time.perf_counter() - start, "gptq bytes": max(0, status("VmHWM") - before)}

    keep("measures", work)
