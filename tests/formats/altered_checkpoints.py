"""Checkpoints whose tensors and settings are well formed, but not those of one another.

    python -m tests.formats.altered_checkpoints --count 10000 --seed 0

Mutations of files (mutations.py) seldom come so far: safetensors refuses most of them. What must hold is the same:
FileFormatError, or an array of the shape that its entry tells; and memory of a small factor of the tensors.
"""

from __future__ import annotations

import argparse
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastq as fq
from fastq.formats.checkpoints import quantized
from fastq.formats.entries import Entry

from . import test_awq, test_compressed_tensors, test_gptq, test_mlx
from .checkpoint_files import NAMES, Array

LAYERS = {
    "GPTQ": (lambda: test_gptq.layer(4, g_idx=test_gptq.shuffled())[0], test_gptq.config),
    "AWQ": (lambda: test_awq.layer()[0], test_awq.config),
    "MLX": (lambda: test_mlx.layer()[0], test_mlx.config),
    "compressed-tensors": (
        lambda: test_compressed_tensors.layer(3, symmetric=False)[0],
        lambda: test_compressed_tensors.config(3, False),
    ),
}
VALUES: tuple[Any, ...] = (None, True, False, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 32, 64, 2**31, 2**63, 2**70, -(2**70),
                           0.5, "x", "gptq_v2", "channel", "tensor", "0.1.0", [], [[1]], {}, {"m": 1})  # fmt: skip
LENGTHS = (0, 1, 2, 3, 7, 8, 31, 32, 33, 64)
MEMORY, FACTOR = 1 << 20, 64


def entries(tensors: dict[str, Array]) -> dict[str, Entry]:
    """What the reader of safetensors gives."""
    return {
        name: Entry(array.shape, array.dtype.name, array.nbytes, lambda array=array: array)
        for name, array in tensors.items()
    }


def places(settings: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """All dicts in a configuration, with each of their keys."""
    for key, setting in settings.items() if isinstance(settings, dict) else ():
        yield settings, key
        yield from places(setting)


def alter(rng: np.random.Generator, tensors: dict[str, Array], config: dict[str, Any]) -> None:
    """One mistake, in a tensor or in the configuration."""
    kind = rng.integers(6)
    settings_at = list(places(config))
    if kind == 0 and settings_at:
        settings, key = settings_at[rng.integers(len(settings_at))]
        if rng.random() < 0.3:
            del settings[key]
        else:
            settings[key] = VALUES[rng.integers(len(VALUES))]
        return
    name = list(tensors)[rng.integers(len(tensors))]
    array = tensors[name]
    if kind == 1:
        del tensors[name]
    elif kind == 2:
        with np.errstate(all="ignore"):
            tensors[name] = array.astype(list(NAMES)[rng.integers(len(NAMES))])
    elif kind == 3 and array.ndim:
        shape = list(array.shape)
        shape[rng.integers(array.ndim)] = LENGTHS[rng.integers(len(LENGTHS))]
        tensors[name] = np.resize(array, shape)
    elif kind == 4:
        shapes = (array.shape[::-1], array.shape[1:] or (1,), (1, *array.shape), (array.size,), ())
        tensors[name] = np.resize(array, shapes[rng.integers(len(shapes))])
    else:
        data = bytearray(array.tobytes())
        for _ in range(rng.integers(1, 9) if data else 0):
            data[rng.integers(len(data))] = rng.integers(256)
        tensors[name] = np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


def case(scheme: str, seed: int, number: int) -> str:
    """Read a checkpoint with a mistake, or two; the outcome in a word."""
    rng = np.random.default_rng([seed, number])
    make, settings = LAYERS[scheme]
    tensors, config = make(), settings()
    for _ in range(rng.integers(1, 3)):
        alter(rng, tensors, config)
    size = sum(array.nbytes for array in tensors.values())
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    outcome = "read"
    for name, entry in quantized(entries(tensors), config, "file")[1].items():
        try:
            value = entry.read()
        except fq.FileFormatError as error:
            named = str(error).startswith(f"file: array '{name}': ")
            outcome = "refused" if named else f"refused without its name: {error}"
            continue
        assert value.shape == entry.shape, f"{value.shape} of {entry}"
        if isinstance(value, fq.QArray):
            assert value.dequantize().shape == entry.shape, f"dequantize of {entry}"
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak <= MEMORY + FACTOR * size, f"{peak} bytes of memory for {size}"
    return outcome


def run(scheme: str, count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Many cases: how often each outcome, and what was found."""
    outcomes, findings = Counter[str](), []
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # altered scales overflow
            for number in range(count):
                try:
                    outcomes[case(scheme, seed, number)] += 1
                except Exception as error:
                    findings.append(f"case({scheme!r}, {seed}, {number}): {type(error).__name__}: {str(error)[:500]}")
    finally:
        tracemalloc.stop()
    return outcomes, findings


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for scheme in LAYERS:
        outcomes, findings = run(scheme, options.count, options.seed)
        print(f"{scheme}: {dict(outcomes)}, {len(findings)} findings", *findings[:20], sep="\n  ")
