"""The fixed set: by name, functions that compute results whose bytes are promised to be the same on every CPU.

Each case is one kind of result, over the row counts of GEMV and GEMM, edges of tiles, and so on: a name says enough to
look for a mistake, and kernels that need compiling stay few. All inputs are integers times powers of two, made by
integer arithmetic that is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numba
import numpy as np

import fastq as fq
from fastq.engine.backend import backend
from fastq.kernels.epilogue.outputs import ACTIVATIONS
from fastq.kernels.jobs import COMPENSATED_COLUMNS
from fastq.scheme import GROUP, MAX_BITS, MIN_BITS, SCHEMES, TWO_PLANE, CodeRange

Array = Any
BITS = range(MIN_BITS, MAX_BITS + 1)
K, N = 150, 37  # two tiles and a bit along K; two blocks and a bit of columns
ROWS = (1, 2, 8, 33)  # of GEMV, of its last block, and of GEMM with an edge


def words(seed: int, shape: tuple[int, ...]) -> Array:
    """64 random bits per element: splitmix64 of the element's number (Steele, Lea and Flood, 2014)."""
    z = np.arange(1, 1 + int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def floats(seed: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Bell-shaped, about -4 to 4: sums of four numbers of 8 bits (float16) or 16, exact in their type."""
    z, bits = words(seed, shape), 8 if dtype == np.float16 else 16
    parts = [((z >> np.uint64(16 * i)) & np.uint64(2**bits - 1)).astype(np.int64) for i in range(4)]
    return np.ldexp((sum(parts) - 2 ** (bits + 1)).astype(dtype), 1 - bits)


def at_the_ends(seed: int, shape: tuple[int, ...], exponent: int) -> Array:
    """Integers up to 256 times a power of two, in float32: exact from 2**-149, the smallest, to 2**119."""
    return np.ldexp(np.rint(floats(seed, shape) * 64), exponent)


def factors() -> Array:
    """Of a balance, for 160 channels."""
    i = np.arange(160, dtype=np.int32)
    return np.ldexp((1 + i % 3).astype(np.float32), i % 5 - 2)


def integers(seed: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Of the full range, with its ends more often than by chance."""
    z, info = words(seed, shape), np.iinfo(dtype)
    value = (z >> np.uint64(56)).astype(np.int64) + int(info.min)
    kind = z & np.uint64(7)
    return np.where(kind == 0, info.min, np.where(kind == 1, info.max, value)).astype(dtype)


def weights(bits: int, scheme: str = "symmetric", group: int | None = None, seed: int = 1, **options: Any) -> fq.QArray:
    """A quantized K x N matrix."""
    return fq.quantize(floats(seed, (K, N)), bits, axis=0, scheme=scheme, group_size=group, **options)


def multiplied(q: Any, dtype: Any = np.float32, rows: tuple[int, ...] = ROWS, **options: Any) -> list[Any]:
    """Floats of several row counts times `q`."""
    return [fq.matmul(floats(100 + m, (m, K), dtype), q, **options) for m in rows]


@numba.njit
def own(y: float) -> float:
    """An epilogue whose multiplication and addition would be one rounding, if they were contracted."""
    return y * y + y


def cases() -> dict[str, Callable[[], Any]]:
    """All of them, in the order in which they are held."""
    groups = (_of_integers, _of_quantize, _of_weights, _of_groups, _of_types, _of_epilogues, _of_operands, _of_top)
    return dict(case for group in groups for case in group())


Cases = Iterator[tuple[str, Callable[[], Any]]]


def _of_integers() -> Cases:
    def exact(left: Any, right: Any) -> list[Any]:
        b = integers(2, (K, N), right)
        return [fq.matmul(integers(m, (m, K), left), b) for m in (1, 8, 33)]

    def long() -> Any:  # a sum of more than 32 bits
        out = np.empty((2, 5), np.int64)
        return fq.matmul(integers(3, (2, 140_000), np.uint8), integers(4, (140_000, 5), np.uint8), out=out)

    for left, right in product((np.int8, np.uint8), repeat=2):
        yield f"{left.__name__} @ {right.__name__}", partial(exact, left, right)
    yield "uint8 @ uint8, int64", long


def _of_quantize() -> Cases:
    def codes(scheme: str, bits: int, dtype: Any) -> list[Any]:
        x = floats(5, (130, 70), dtype)
        forms: Any = ((None, None), (0, None), (1, None), (1, 16), (0, 48), (1, 10))
        return [fq.quantize(x, bits, axis=axis, group_size=size, scheme=scheme) for axis, size in forms]

    def searched(scheme: str, method: Any) -> list[Any]:
        x = floats(6, (40, 21))  # the reference is slow
        forms: Any = ((2, 0, None), (4, 1, 16), (3, 0, 16), (8, None, None))
        return [fq.quantize(x, b, axis=a, group_size=g, scheme=scheme, method=method) for b, a, g in forms]

    def ends() -> list[Any]:
        return [fq.quantize(at_the_ends(7, (9, 150), n), 8, axis=-1) for n in (-149, -140, -130, 100, 119)]

    def given() -> list[Any]:
        scale, zero = np.ldexp(1 + np.arange(70, dtype=np.float32), -9), np.arange(70) % 16
        x = floats(8, (130, 70))
        return [
            fq.quantize(x, 4, axis=0, scale=-scale),
            fq.quantize(x, 4, axis=0, scheme="asymmetric", scale=scale, zero_point=zero),
        ]

    def channels() -> list[Any]:
        return [
            fq.quantize(floats(9, (160, 70)), 3, axis=0, balance=factors(), rotate=rotate, group_size=size)
            for rotate, size in product((False, True), (None, 32))
        ]

    def compensated(dtype: Any) -> list[Any]:
        rows, n = 20, 2 * COMPENSATED_COLUMNS
        carry = np.ldexp(floats(11, (rows, rows), dtype), -3)
        scale = np.ldexp(1 + floats(12, (3, 1, n), dtype) / dtype(8), -1)
        zero, offset = (words(13, scale.shape) % np.uint64(8)).astype(dtype), floats(14, scale.shape, dtype)
        loss, codes = np.empty((3, n), dtype), np.empty((rows, n), np.uint8)
        target, weight = floats(10, (rows, n), dtype), np.abs(floats(15, (rows,), dtype))
        backend().compensate(target, carry, weight, scale, zero, offset, CodeRange(0, 7), loss, codes)
        return [loss, codes]

    for scheme, bits in product(SCHEMES, BITS):
        yield f"quantize, {scheme}, {bits} bits", partial(codes, scheme, bits, np.float32)
    for scheme, dtype in product(SCHEMES, (np.float16, np.float64)):
        yield f"quantize, {scheme}, {dtype.__name__}", partial(codes, scheme, 3, dtype)
    for scheme, method in product(SCHEMES, ("mse", "percentile")):
        yield f"quantize, {scheme}, {method}", partial(searched, scheme, method)
    yield "quantize, tiny and large numbers", ends
    yield "quantize, given scales", given
    yield "quantize, balanced and rotated", channels
    for dtype in (np.float32, np.float64):
        yield f"compensate, {dtype.__name__}", partial(compensated, dtype)


def _of_weights() -> Cases:
    def products(bits: int, scheme: str) -> list[Any]:
        return multiplied(weights(bits, scheme), bias=floats(20, (N,)))

    def unpacked(bits: int) -> list[Any]:
        q = weights(bits).prepack()
        return [q.codes, q[:, [0, 5, 36]]]

    for bits, scheme in product(BITS, SCHEMES):
        yield f"float32 @ {bits} bits, {scheme}", partial(products, bits, scheme)
    for bits in BITS:
        yield f"unpack, {bits} bits", partial(unpacked, bits)


def _of_groups() -> Cases:
    def with_integers(bits: int, scheme: str) -> list[Any]:
        return [y for size in (16, 64) for y in multiplied(weights(bits, scheme, size, group_scale="integer"))]

    def with_floats(bits: int, scheme: str) -> list[Any]:
        options: Any = {} if scheme == "affine" else {"group_scale": "float"}
        arrays = (weights(bits, scheme, size, **options) for size in (10, 32, 64, 128))
        return [y for q in arrays for y in multiplied(q, bias=floats(21, (N,)))]

    for bits, scheme in product(range(2, 7), ("symmetric", "asymmetric")):
        yield f"integer groups, {bits} bits, {scheme}", partial(with_integers, bits, scheme)
    for bits, scheme in product((3, 4, 8), SCHEMES):
        yield f"float groups, {bits} bits, {scheme}", partial(with_floats, bits, scheme)


def _of_types() -> Cases:
    def products(dtype: Any, bits: int) -> list[Any]:
        q = weights(bits, group=48 if bits == 4 else None)
        return multiplied(q, dtype, bias=floats(22, (N,), dtype))

    def balanced(dtype: Any) -> list[Any]:
        q = fq.quantize(floats(23, (160, N)), 8, axis=0, balance=factors(), rotate=True)
        return [floats(m, (m, 160), dtype) @ q for m in (1, 33)]

    def tiny() -> list[Any]:
        q = weights(8)
        return [at_the_ends(m, (m, K), n) @ q for m in (1, 33) for n in (-149, -130, 100)]

    for dtype, bits in ((np.float16, 3), (np.float16, 8), (np.float64, 4), (np.float64, 8)):
        yield f"{dtype.__name__} @ {bits} bits", partial(products, dtype, bits)
    for dtype in (np.float16, np.float32, np.float64):
        yield f"{dtype.__name__} @ 8 bits, balanced and rotated", partial(balanced, dtype)
    yield "float32 @ 8 bits, tiny and large numbers", tiny


def _of_epilogues() -> Cases:
    def activated(epilogue: Any, dtype: Any) -> list[Any]:
        # Products from about -60 to 60: the middle of the functions and their ends.
        options: Any = {"epilogue": epilogue, "bias": floats(24, (N,))}
        many, few = multiplied(weights(8), dtype, (33,), **options), multiplied(weights(4), dtype, (1, 8), **options)
        return many + few

    def codes(dtype: Any) -> list[Any]:
        q, scale = weights(8, "asymmetric"), np.float32(0.25)
        zero = None if dtype == np.int8 else 100
        return [
            *multiplied(q, dtype=dtype, epilogue="gelu"),
            *(fq.matmul(floats(m, (m, K)), q, dtype=dtype, scale=scale, zero_point=zero) for m in (1, 33)),
        ]

    for name, dtype in product(ACTIVATIONS, (np.float32, np.float64)):
        yield f"{name}, {dtype.__name__}", partial(activated, name, dtype)
    yield "own epilogue", partial(activated, own, np.float32)
    for dtype in (np.int8, np.uint8):
        yield f"requantized, {dtype.__name__}", partial(codes, dtype)


def _of_operands() -> Cases:
    def two_quantized(left: str, right: str) -> list[Any]:
        forms: Any = ((None, None), (64, None), (32, 64), (10, 10))
        x, w = floats(25, (19, K)), floats(26, (K, 21))
        return [
            fq.quantize(x, 8, axis=1, scheme=left, group_size=a) @ fq.quantize(w, 5, axis=0, scheme=right, group_size=b)
            for a, b in forms
        ]

    def turned() -> list[Any]:
        q = fq.quantize(floats(27, (N, K)), 4, axis=1, scheme="asymmetric")
        return [q @ floats(m, (K, m)) for m in (1, 33)]

    def two_floats(dtype: Any) -> list[Any]:
        w = floats(28, (K, N), dtype)
        return [fq.matmul(floats(m, (m, K), dtype), b) for m in (1, 33) for b in (w, np.asfortranarray(w))]

    def activations(way: Any, dtype: Any) -> list[Any]:
        forms: Any = (weights(8), weights(4, group=32), weights(8, "affine", 64), weights(3, "asymmetric"))
        if dtype == np.float64:
            forms = forms[:1]
        return [y for q in forms for y in multiplied(q, dtype, rows=(1, 33), activations=way)]

    for left, right in product(SCHEMES, repeat=2):
        yield f"{left} @ {right}", partial(two_quantized, left, right)
    yield "4 bits @ float32", turned
    for dtype in (np.float32, np.float64):
        yield f"{dtype.__name__} @ {dtype.__name__}", partial(two_floats, dtype)
        for way in (GROUP, TWO_PLANE):
            yield f"activations {way}, {dtype.__name__}", partial(activations, way, dtype)


def _of_top() -> Cases:
    def best(dtype: Any) -> list[Any]:
        w = fq.quantize(floats(29, (200, K)), 8 if dtype == np.float64 else 3, axis=-1)
        return [
            fq.top_k(floats(m, (m, K), dtype), w, k, largest=k < 100, bias=floats(30, (200,)))
            for m, k in ((1, 10), (33, 7), (8, 150))
        ]

    def of_integers() -> Any:  # with equal values
        few = integers(31, (200, 4), np.int8) >> 5
        return fq.top_k(integers(32, (33, 4), np.int8) >> 5, few, 20)

    for dtype in (np.float16, np.float32, np.float64):
        yield f"top_k, {dtype.__name__}", partial(best, dtype)
    yield "top_k, int8", of_integers
