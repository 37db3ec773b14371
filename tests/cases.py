"""Operands that tests and benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.kernels.table import ISAS as _ISAS
from fastq.kernels.table import UNITS, Unit
from fastq.machine import cpu

LOW, HIGH = {"int8": -128, "uint8": 0}, {"int8": 127, "uint8": 255}


NATIVE = [isa for isa in cpu.available(_ISAS) if isa != "reference"]


def units() -> list[Unit]:
    """The rows of the kernel table that this CPU can run."""
    return [unit for unit in UNITS if unit.isa in NATIVE]


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Work on another instruction set than the one in use, which comes back behind the block."""
    before = cpu.chosen(_ISAS)
    cpu.force(isa)
    try:
        yield
    finally:
        cpu.force(before)


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, kind: str = "random") -> npt.NDArray[Any]:
    """Integers of the full range: random, all lowest, all highest, or lowest and highest in turn."""
    low, high = LOW[dtype], HIGH[dtype]
    if kind == "random":
        return rng.integers(low, high + 1, shape).astype(dtype)
    if kind == "lowest":
        return np.full(shape, low, dtype)
    if kind == "highest":
        return np.full(shape, high, dtype)
    return np.where(np.indices(shape).sum(axis=0) % 2 == 0, low, high).astype(dtype)


EXTREMES = ("random", "lowest", "highest", "alternating")


def edges(block: int, top: int) -> list[int]:
    """Sizes around the multiples of a block: where a kernel's edge handling can go wrong."""
    near = {1, block - 1, block, block + 1, 2 * block - 1, 2 * block, 2 * block + 1, 3 * block + block // 2}
    return sorted(n for n in near if 1 <= n <= top)
