"""Random products, compared with float64 within fastq's own bound, and what else fastq makes of them, with NumPy.

A program draws two operands, alters them, and multiplies. The plain product must be within ``matmul_error_bound`` of
that of the numbers, or equal to that of the integers. A bias, an activation, another type, an `out` of any layout,
codes for the next layer: all these must be, bit for bit, what NumPy makes of the plain product. What a case returns
must be the same on every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastq as fq
from fastq.kernels.epilogue.activations import on_arrays

from .alter import altered
from .draw import BFLOAT16, Draw, exact
from .finding import REFUSALS, Finding, must, must_equal

Array = npt.NDArray[Any]
BATCHES = (((), ()), ((2,), (2,)), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((2, 3), (1, 3)), ((0,), ()), ((2,), (1,)))
HELD = 77  # what outputs hold before


def instruction_sets(have: tuple[str, ...]) -> tuple[str | None, ...]:
    """All that the CPU has."""
    return have


def case(seed: int) -> bytes:
    """Run one program; returns the bytes of its results."""
    d = Draw(seed)
    with np.errstate(all="ignore"):
        if d.chance(0.01):
            return _long_sums(d)
        if (operands := _operands(d)) is None:
            return b"refused"
        return _program(d, *operands)


# Operands


def _operands(d: Draw) -> tuple[Any, Any] | None:
    """A left and a right operand; None where fastq refuses to quantize such numbers in such a form."""
    m, k, n = d.length(), d.length(long=True), d.length()
    batch_a, batch_b = d.one_of(*BATCHES) if d.chance(0.3) else ((), ())
    try:
        b = _operand(d, (*batch_b, k, n) if d.chance(0.95) else (k,), "right")
        b = _altered(d, b, d.below(3))
        k = b.shape[-2] if b.ndim > 1 else b.shape[0]
        a = _operand(d, (*batch_a, m, k) if d.chance(0.95) else (k,), "left")
        a = _altered(d, a, int(d.chance(0.3)))
    except REFUSALS:
        return None
    return a, b


def _operand(d: Draw, shape: tuple[int, ...], side: str) -> Any:
    kind = d.one_of("floats", "floats", "codes", "codes", "int8", "uint8")
    if side == "right":
        kind = d.one_of("floats", "codes", "codes", "codes", kind)
    if kind == "floats":
        return d.floats(shape)
    if kind == "codes":
        return d.quantized(shape, len(shape) - 1 if side == "left" else max(len(shape) - 2, 0))
    return d.integers(shape, kind)


def _altered(d: Draw, x: Any, times: int) -> Any:
    """A quantized array after some operations; those that fastq refuses are left out."""
    for _ in range(times if isinstance(x, fq.QArray) and x.ndim > 1 else 0):
        try:
            x = altered(d, x)
        except REFUSALS:
            continue
    return x


# Products


class Product(NamedTuple):
    """A product that has been computed, and what it is of."""

    a: Any
    b: Any
    bits: int
    result: Any

    def again(self, *out: Any, **options: Any) -> Any:
        """The product, otherwise."""
        bits = {} if self.bits == 8 else {"bits": self.bits}
        return fq.matmul(self.a, self.b, *out, **bits, **options)

    @property
    def finer_columns(self) -> bool:
        """Whether floats on the right are quantized other than by column, which some products refuse."""
        return isinstance(self.a, fq.QArray) and not isinstance(self.b, fq.QArray) and self.a.activations != "row"

    @property
    def integer(self) -> bool:
        """Whether it is one of integers."""
        return bool(np.asarray(self.result).dtype.kind == "i")


def _program(d: Draw, a: Any, b: Any) -> bytes:
    types = [None if isinstance(x, fq.QArray) else x.dtype for x in (a, b)]
    if not any(t is None or t.kind == "f" or t == BFLOAT16 for t in types) and not all(t.itemsize == 1 for t in types):
        return b"NumPy's"
    bits = 8 if d.chance(0.8) else d.one_of(*d.theme.bits)
    exactly = _numbers(a, b)  # before, in case a product changes an operand
    plain = Product(a, b, bits, None)
    try:
        plain = plain._replace(result=plain.again())
    except REFUSALS as error:
        return type(error).__name__.encode()
    _check(plain, exactly)
    results = [plain.result]
    for check in CHECKS:
        if d.chance(0.25):
            results += [check(d, plain)]
    return b"".join(np.ascontiguousarray(r).tobytes() for r in results if r is not None)


class Numbers(NamedTuple):
    """The product of what operands stand for, in float64, and the error that float64 has in it."""

    values: Any
    error: Any


def _numbers(a: Any, b: Any) -> Numbers | None:
    """That of two operands; None where NumPy refuses the shapes."""
    left, right = exact(a), exact(b)
    try:
        values = np.matmul(left.values, right.values)
    except ValueError:
        return None
    magnitudes = np.matmul(left.magnitudes, right.magnitudes)
    return Numbers(values, magnitudes * (left.values.shape[-1] + 32) * 2.0**-52)


def _check(p: Product, exactly: Numbers | None) -> None:
    """Whether a product is right."""
    if exactly is None:
        raise Finding(f"a product that NumPy refuses, of shapes {p.a.shape} and {p.b.shape}")
    result, want = np.asarray(p.result), exactly.values
    must(result.shape == np.shape(want), f"shape {result.shape}, not {np.shape(want)}")
    if p.integer:
        must((result == want).all(), f"sums of integers, of shapes {p.a.shape} and {p.b.shape}")
        return
    bound = fq.matmul_error_bound(p.a, p.b, bits=p.bits)
    must(np.shape(bound) == result.shape, f"shape of the bound, {np.shape(bound)}, not {result.shape}")
    off = np.abs(result.astype(np.float64) - want)
    wrong = ~(off <= bound + exactly.error) & np.isfinite(bound) & np.isfinite(want)
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), np.shape(wrong))
        raise Finding(f"error {off[at]:.4g} beyond the bound {bound[at]:.4g} at {tuple(map(int, at))}, {result[at]!r} "
                      f"for {want[at]!r}, of {_told(p.a)} @ {_told(p.b)}")  # fmt: skip


def _told(x: Any) -> str:
    return repr(x) if isinstance(x, fq.QArray) else f"{x.dtype} {x.shape}"


# What else is made of it


def _repeated(d: Draw, p: Product) -> Any:
    got = p.again()
    must_equal(got, p.result, "a repeated product")
    return got


def _biased(d: Draw, p: Product) -> Any:
    if p.b.ndim < 2 or not np.ndim(p.result) or p.finer_columns:
        return None
    kind = np.int32 if p.integer else p.result.dtype
    bias = (9 * d.rng.standard_normal(p.result.shape[-1])).astype(kind)
    got = p.again(bias=bias)
    must_equal(got, p.result + bias, "a bias")
    return got


def _activated(d: Draw, p: Product) -> Any:
    if p.integer:
        return None
    name = d.theme.activation
    got = p.again(epilogue=name)
    must_equal(np.asarray(got), on_arrays(name, np.asarray(p.result)), f"epilogue {name}")
    return got


def _converted(d: Draw, p: Product) -> Any:
    """Another float type: that of operands of this type, and float16 rounded from float32."""
    wanted = np.dtype(d.theme.wanted)
    computed = np.dtype("f4") if wanted == np.float16 else wanted
    if p.integer:
        got = p.again(dtype=np.float32)
        must_equal(got, p.result.astype(np.float32), "integers as floats")
        return got
    # Operands whose own type is taken as it is, and what float32 cannot hold.
    operands = [x if getattr(x, "dtype", computed).itemsize <= 2 else x.astype(computed) for x in (p.a, p.b)]
    try:
        want = p._replace(a=operands[0], b=operands[1]).again(dtype=computed)
    except fq.NotFiniteError:
        return None
    got = p.again(dtype=wanted)
    must_equal(got, want.astype(wanted), f"a product in {wanted}")
    return got


def _delivered(d: Draw, p: Product) -> Any:
    """Into an `out` of some layout and type, and nothing beside it."""
    shape = np.shape(p.result)
    natural = np.asarray(p.result).dtype
    wide = np.dtype(np.int64 if p.integer else np.float64)
    kind: np.dtype[Any] = d.one_of(natural, natural, wide, natural.newbyteorder())
    layout = d.one_of("rows", "columns", "every second", "behind", "up", "one more axis")
    whole = {"columns": shape[::-1], "one more axis": (2, *shape)}.get(layout, shape)
    if len(shape) > 1 and layout in ("every second", "behind"):
        whole = (*shape[:-1], 2 * shape[-1])
    held = np.full(whole, HELD, kind)
    out = held
    if layout == "columns":
        out = held.T
    elif len(shape) > 1:
        out = {"every second": held[..., ::2], "behind": held[..., shape[-1] :], "up": held[..., ::-1, :]}.get(
            layout, held
        )
    got = p.again(out)
    must(got is out, "out is not what is returned")
    must_equal(out, np.broadcast_to(np.asarray(p.result).astype(kind), out.shape), f"an out by {layout}")
    out[...] = HELD
    must((held == HELD).all(), f"written beside an out by {layout}")
    return None


def _over_an_operand(d: Draw, p: Product) -> Any:
    """Into an `out` that lies over the left operand."""
    if isinstance(p.a, fq.QArray) or p.a.shape != np.shape(p.result) or p.a.dtype != np.asarray(p.result).dtype:
        return None
    a = p.a.copy(order="K")
    must_equal(p._replace(a=a).again(a), p.result, "an out over an operand")
    return None


def _spoiled(d: Draw, p: Product) -> Any:
    """NaN in the left operand is an error that leaves `out` alone."""
    if (
        isinstance(p.a, fq.QArray)
        or p.a.dtype.kind != "f"
        or not p.a.size
        or not np.size(p.result)
        or not p.result.ndim
    ):
        return None
    a = p.a.copy()
    a[tuple(d.below(n) for n in a.shape)] = d.one_of(np.nan, np.inf, -np.inf)
    out = np.full(p.result.shape, HELD, p.result.dtype)
    try:
        p._replace(a=a).again(out)
    except fq.NotFiniteError:
        must((out == HELD).all(), "out is touched by a failing call")
        return None
    raise Finding("NaN or infinity is multiplied")


def _requantized(d: Draw, p: Product) -> Any:
    """As codes for the next product."""
    if p.integer or not np.ndim(p.result) or p.finer_columns:
        return None
    scheme, kind = d.one_of(("symmetric", "int8"), ("asymmetric", "uint8"))
    given: dict[str, Any] = {}
    if d.chance(0.4):
        given = {"scale": 0.1} if scheme == "symmetric" else {"scale": 0.1, "zero_point": 7}
    finite = np.isfinite(p.result).all()
    try:
        got = p.again(dtype=kind, **given)
    except fq.NotFiniteError:
        must(not finite, "a finite product is refused as codes")
        return None
    must(finite, f"a product that is not finite is taken as codes, with {given}")
    must_equal(got, fq.quantize(p.result, 8, axis=None if given else -1, scheme=scheme, **given), "a product as codes")
    return got.codes


def _searched(d: Draw, p: Product) -> Any:
    """The best of each row."""
    if p.b.ndim != 2 or not p.result.size or p.finer_columns or (isinstance(p.a, fq.QArray) and p.a.ndim > 2):
        return None
    k, largest = 1 + d.below(p.result.shape[-1]), d.chance(0.5)
    try:
        values, indices = fq.top_k(p.a, p.b, k, axis=0, largest=largest)
    except REFUSALS as error:
        if p.bits == 8 and not isinstance(p.a, fq.QArray) and isinstance(p.b, fq.QArray):
            raise Finding(f"a product is multiplied, but not searched: {error}") from error
        return None
    if p.bits != 8:
        return None
    turned = (-p.result if p.result.dtype.kind == "f" else ~p.result) if largest else p.result
    order = np.argsort(turned, axis=-1, kind="stable")[..., :k]
    must_equal(indices, order, "places of the best")
    must_equal(values, np.take_along_axis(p.result, order, -1), "the best")
    return values


CHECKS: tuple[Callable[[Draw, Product], Any], ...] = (
    _repeated, _biased, _activated, _converted, _delivered, _over_an_operand, _spoiled, _requantized,
    _searched,
)  # fmt: skip


# Sums near the ends of int32


def _long_sums(d: Draw) -> bytes:
    """So long that sums of 8-bit integers reach the ends of int32, or pass them."""
    k = int(d.one_of(33024, 33025, 33026, 65793, 66051, 66052, 131071, 131072, 140000))
    m, n = 1 + d.below(20), 1 + d.below(20)
    a, b = (_ends(d, shape) for shape in ((m, k), (k, n)))
    want = np.full((m, n), k * int(a.flat[0]) * int(b.flat[0]))
    fits = abs(int(want.flat[0])) < 2**31
    wide = fq.matmul(a, b, np.empty((m, n), np.int64))
    must_equal(wide, want, "long sums in int64")
    try:
        must_equal(fq.matmul(a, b), want.astype(np.int32), "long sums")
        must(fits, "long sums that do not fit int32")
    except OverflowError:
        must(not fits or want.flat[0] == -(2**31), "long sums that fit int32 are refused")
    # The same numbers as codes far from their zero points: -za * sum(b) - zb * sum(a) + k * za * zb are as large.
    zeros = 0 if d.chance(0.5) else 255
    x, w = (fq.quantize(v.astype(np.float32), 8, scheme="asymmetric", scale=1.0, zero_point=zeros) for v in (a, b))
    _check(Product(x, w, 8, x @ w), _numbers(x, w))
    return wide.tobytes()


def _ends(d: Draw, shape: tuple[int, ...]) -> Array:
    """All of the lowest, or of the highest code."""
    dtype = d.one_of(np.int8, np.uint8)
    info = np.iinfo(dtype)
    return np.full(shape, d.one_of(info.min, info.max), dtype)
