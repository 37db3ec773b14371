"""How far the arrays of one file are from those of another, and where the error comes from.

The error of an array is ``e = x - y``, x the exact numbers and y those that the codes stand for; its energy is the sum
of the squares of e. Each element has a code, so its error has one of two causes:

* **clipping**: the code is the first or the last that there is, and x lies beyond the number that it stands for;
* **rounding**: all other errors. x lies within the range, between the numbers of two codes.

Both shares add up to 1. A third share tells what the scales could do about it, with codes as they are:

* **scales**: the part of the energy that the best scale of each group would take away. That is the scale by least
  squares, ``s = sum(x * u) / sum(u * u)`` for ``x ~ s * u`` with ``u = code - zero_point``, which takes away
  ``sum(e * u)**2 / sum(u * u)``. Affine arrays have the best scale and offset. Integer group scales count as floats.

A large share of clipping asks for a larger range, or more codes; of scales, for a method that looks at the error, such
as "mse". What is left is rounding, which smaller groups, more bits or "gptq" reduce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastq.accuracy.error import Error, Sums
from fastq.errors import in_bytes
from fastq.formats.entries import Opened
from fastq.models.parts import Box, boxes, read, told
from fastq.progress import by_part
from fastq.promotion import is_float
from fastq.qarray.array import QArray
from fastq.quant.spec import QuantSpec, expand

Array = npt.NDArray[Any]
Tell = Callable[[int, int], Any] | None  # of bytes done, and of all


class Shares(NamedTuple):
    """Where the energy of an error comes from: rounding and clipping make 1; scales are a part of both."""

    rounding: float
    clipping: float
    scales: float


@dataclass(frozen=True)
class ErrorRow:
    """The error of an array."""

    name: str
    shape: tuple[int, ...]
    kind: str  # of the exact array
    other: str  # of its approximation
    nbytes: int  # of the approximation, in its file
    error: Error[float] | None = None
    shares: Shares | None = None  # None where the approximation has no codes, or mixed channels
    problem: str = ""  # why the arrays cannot be compared

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise ratio; inf where nothing differs, None where nothing could be compared."""
        return None if self.error is None else self.error.sqnr_db

    def __repr__(self) -> str:
        what = self.problem if self.error is None else f"{self.error.sqnr_db:.1f} dB"
        if self.shares is not None:
            what += f", {', '.join(f'{name} {share:.0%}' for name, share in self.shares._asdict().items())}"
        return f"ErrorRow({self.name!r}, {self.shape}, {self.kind} -> {self.other}, {what})"


@dataclass(frozen=True)
class Difference:
    """The errors of the arrays that two files have in common, the largest first."""

    rows: tuple[ErrorRow, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def compared(self) -> int:
        """How many arrays could be compared."""
        return sum(row.error is not None for row in self.rows)

    def __repr__(self) -> str:
        nbytes = in_bytes(sum(row.nbytes for row in self.rows))
        others = len(self.only_first), len(self.only_second)
        return (
            f"Difference({self.compared} arrays compared, {nbytes}; only in the first {others[0]}, second {others[1]})"
        )


def difference(first: Mapping[str, Any], second: Mapping[str, Any], tell: Tell = None) -> Difference:
    """Compare arrays of the same names, one at a time.

    Parameters
    ----------
    first, second : mapping
        Names to arrays, as :func:`fastq.open` gives them: the exact ones and their approximation.
    tell : function, optional
        Called as ``tell(done, total)``, in bytes of the first.
    """
    names = [name for name in first if name in second]
    sizes = {name: _seen(first, name)[2] for name in names}
    rows, done, total = [], 0, sum(sizes.values())
    for name in names:
        rows.append(_row(name, first, second, by_part(tell, done, sizes[name], total)))
        done += sizes[name]
        if tell is not None:
            tell(done, total)
    rows.sort(key=lambda row: np.inf if row.error is None else row.error.sqnr_db)
    lonely = [tuple(name for name in a if name not in b) for a, b in ((first, second), (second, first))]
    return Difference(tuple(rows), *lonely)


def _seen(model: Mapping[str, Any], name: str) -> tuple[tuple[int, ...], str, int]:
    """Shape, type and bytes of an array; of a file without reading it."""
    if isinstance(model, Opened):
        return model.entry(name)[:3]
    value = model[name]
    kind = f"{value.bits} bits" if isinstance(value, QArray) else str(value.dtype)
    return value.shape, kind, value.nbytes


def _row(name: str, first: Mapping[str, Any], second: Mapping[str, Any], tell: Tell) -> ErrorRow:
    (shape, kind, _), (other_shape, other, nbytes) = _seen(first, name), _seen(second, name)
    row = partial(ErrorRow, name, shape, kind, other, nbytes)
    if shape != other_shape:
        return row(problem=f"shapes differ: {shape} and {other_shape}")
    try:
        return row(*compare(first[name], second[name], tell))
    except (ValueError, TypeError, OSError, MemoryError) as failure:
        return row(problem=str(failure) or type(failure).__name__)


def compare(x: Any, y: Any, tell: Tell = None) -> tuple[Error[float], Shares | None]:
    """The error of y, an approximation of x of the same shape, and its causes; in parts, so that none is copied whole.

    Raises TypeError for other numbers than real ones, and ValueError if one is not finite.
    """
    for array in (x, y):
        if not isinstance(array, QArray) and not (is_float(array.dtype) or array.dtype.kind in "biu"):
            raise TypeError(f"arrays must be of real numbers to be compared; got {array.dtype}")
    if isinstance(x, QArray) and isinstance(y, QArray) and x.axis != y.axis:
        x = x.dequantize()  # no box has whole lines of both
    axis = next((array.axis for array in (y, x) if isinstance(array, QArray)), None)
    coded = isinstance(y, QArray) and y.balance is None  # that of an array which is rotated is 1
    sums, causes, wide = Sums(1), _Causes(y) if coded else None, x.dtype == np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        for box in told(boxes(x.shape, axis), tell):
            part = _part(y, box)
            exact, other = _numbers(_part(x, box), wide), _numbers(part, wide)
            difference = exact - other
            sums.add(*(values.reshape(1, -1) for values in (exact, other, difference)))
            if causes is not None and part.size:
                causes.add(part, exact, difference)
        error = Error(*(float(value[0]) for value in sums.measures()))
    if not np.isfinite(error.mse):
        raise ValueError("numbers must be finite to be compared, and their squares, too")
    return error, None if causes is None else causes.shares()


def _part(array: Any, box: Box) -> Any:
    if not isinstance(array, QArray):
        return read(array, box)
    return array if box == (slice(None),) * array.ndim else array[box]


def _numbers(part: Any, wide: bool) -> npt.NDArray[np.float64]:
    """A part of an array, in float64; `wide`: quantized numbers are computed in it."""
    values: Array = part.dequantize(np.float64 if wide else None) if isinstance(part, QArray) else part
    return values.astype(np.float64)


class _Causes:
    """The sums from which shares follow, added up over parts of an array."""

    def __init__(self, q: QArray) -> None:
        self.spec = QuantSpec(q.bits, q.axis, q.group_size, q.scheme)
        self.noise = self.clipped = self.removed = 0.0
        self.whole: Array | None = None  # the sums of an array with one scale, which parts share

    def add(self, part: QArray, exact: Array, difference: Array) -> None:
        """Take in a part, the exact numbers and their difference from those of its codes."""
        if part.order is not None and part.axis is not None:  # as codes lie
            exact, difference = (np.take(v, part.order.reshape(-1), part.axis) for v in (exact, difference))
        limits, codes, energy = self.spec.limits, part.codes, difference * difference
        scale, zero, offset = (
            0.0 if p is None else expand(p, part.shape, part.axis, part.group_size).astype(np.float64)
            for p in (part.scale, part.zero_point, part.offset)
        )
        self.noise += float(energy.sum())
        for end, outwards in ((limits.low, -1), (limits.high, 1)):
            beyond = (exact - (scale * (end - zero) + offset)) * (outwards * np.sign(scale)) > 0
            self.clipped += float(energy[(codes == end) & beyond].sum())
        units = codes - zero
        sums = [difference * units, units * units]
        if part.offset is not None:
            sums += [difference, units, np.ones(part.shape)]
        by_run = np.array([self._by_run(values) for values in sums])
        if part.axis is None:
            self.whole = by_run if self.whole is None else self.whole + by_run
        else:
            self.removed += _removed(by_run)

    def _by_run(self, values: Array) -> Array:
        """The sums over elements that share a scale."""
        axis, group = self.spec.axis, self.spec.group
        if axis is None:
            return np.asarray(values.sum())
        return np.add.reduceat(values, np.arange(0, values.shape[axis], group or values.shape[axis]), axis=axis)

    def shares(self) -> Shares:
        """The shares, which are 0 where nothing differs."""
        removed = self.removed if self.whole is None else _removed(self.whole)
        if not self.noise:
            return Shares(0.0, 0.0, 0.0)
        clipping = self.clipped / self.noise
        return Shares(1 - clipping, clipping, min(1.0, removed / self.noise))


def _removed(sums: Array) -> float:
    """The energy that the best scale of each run, and the best offset if there is one, takes away."""
    with_units, units, *others = sums
    energy = 0.0
    if others:  # first the best offset, then the scale, for codes from which their mean is taken
        plain, total, count = others
        energy = float((plain * plain / count).sum())
        with_units, units = with_units - plain * total / count, units - total * total / count
    some = units > 1e-9 * np.maximum(1.0, np.abs(sums[1]))  # codes that are all equal have no direction
    return energy + float((with_units[some] ** 2 / units[some]).sum())
