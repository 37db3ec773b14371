"""Cutting, turning, joining and scaling quantized arrays, next to what NumPy does with the numbers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.qarray.parts import put_together, take_apart

from .draw import Draw, exact
from .finding import must

Array = npt.NDArray[Any]
Pair = tuple[fq.QArray, Array]


def altered(d: Draw, q: fq.QArray) -> fq.QArray:
    """The array after a random operation, which must have done to its numbers what NumPy does to an array's.

    ValueError where fastq refuses to.
    """
    alter = d.one_of(*ALTERATIONS)
    before = exact(q)
    new, want = alter(d, q, before.values)
    got = exact(new)
    name = alter.__name__.strip("_")
    must(got.values.shape == want.shape, f"{name}: shape {got.values.shape}, not {want.shape}")
    # Scales are rounded once where they are scaled, or where integer scales become floats; offsets likewise.
    balance = 1.0 if q.balance is None else float(q.balance.max(initial=1))
    room = 2.0**-22 * got.magnitudes + 2.0**-149 * 512 * balance * q.rotation
    off = ~(np.abs(got.values - want) <= room) & np.isfinite(want)
    if off.any():
        at = np.unravel_index(int(np.argmax(off)), off.shape)
        must(
            False,
            f"{name}: of {q!r}, {new!r} holds {got.values[at]!r} rather than {want[at]!r} at {tuple(map(int, at))}",
        )
    return new


def _cut(d: Draw, q: fq.QArray, x: Array) -> Pair:
    axis = d.below(q.ndim)
    n = q.shape[axis]
    start, stop = sorted((d.below(n + 1), d.below(n + 1)))
    index = d.one_of(slice(start, stop), slice(start // 16 * 16, n), slice(0, stop // 64 * 64), slice(None, None, -1),
                     slice(start, stop, 2), d.rng.integers(-n, n, 5) if n else slice(None))  # fmt: skip
    key = (slice(None),) * axis + (index,)
    return q[key], x[key]


def _turn(d: Draw, q: fq.QArray, x: Array) -> Pair:
    return (q.mT, x.swapaxes(-1, -2)) if d.chance(0.7) else (q.mT.mT, x)


def _join(d: Draw, q: fq.QArray, x: Array) -> Pair:
    axis = d.below(q.ndim)
    return np.concatenate([q, q], axis), np.concatenate([x, x], axis)


def _scale(d: Draw, q: fq.QArray, x: Array) -> Pair:
    factor = float(d.one_of(2.0, -0.5, 3.0, -1.0))
    return (q * factor, x * factor) if d.chance(0.5) else (q / factor, x / factor)


def _pack(d: Draw, q: fq.QArray, x: Array) -> Pair:
    return (q.prepack() if d.chance(0.5) else q.mT.prepack().mT), x


def _copy(d: Draw, q: fq.QArray, x: Array) -> Pair:
    return pickle.loads(pickle.dumps(q)) if d.chance(0.5) else put_together(*take_apart(q)), x


def _reshape(d: Draw, q: fq.QArray, x: Array) -> Pair:
    shape = d.one_of((1, *q.shape), (-1, *q.shape[1:]), (*q.shape[:-1], 1, q.shape[-1]))
    new, want = q.reshape(shape), x.reshape(shape)
    return (new, want) if new.ndim == q.ndim else (new.reshape(q.shape), want.reshape(q.shape))


def _activations(d: Draw, q: fq.QArray, x: Array) -> Pair:
    return q.with_activations(d.one_of("row", "group", "two-plane")), x


ALTERATIONS: tuple[Callable[[Draw, fq.QArray, Array], Pair], ...] = (
    _cut, _cut, _cut, _turn, _join, _scale, _pack, _copy, _reshape, _activations,
)  # fmt: skip
