"""The quantized array."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from fastq import product
from fastq.engine.prepack import Balance, Columns, Lines, Right
from fastq.engine.store import Store
from fastq.layout.tiles import Segments, segments
from fastq.operands import Operand
from fastq.quant import affine
from fastq.rules import is_float
from fastq.scheme import code_range

Array = npt.NDArray[Any]
Scheme = Literal["symmetric", "asymmetric", "affine"]


class QArray(Operand):
    """A quantized array: codes of 2 to 8 bits and the parameters that turn them back into numbers.

    ``x = scale * (code - zero_point)``, or for affine arrays ``x = scale * code + offset``. Make one with
    :func:`fastq.quantize`. It is immutable; ``@`` multiplies it with arrays and other quantized arrays on either side.

    Attributes
    ----------
    shape, ndim, size : as of an array
    dtype : numpy.dtype
        The logical type: what :meth:`dequantize` gives.
    bits : int
        Bits per code.
    scheme : {"symmetric", "asymmetric", "affine"}
    axis : int or None
        The axis along which elements share a scale; None where the whole array does.
    group_size : int or None
        How many neighbours along the axis share it; None: all.
    scale : numpy.ndarray
        Of shape ``np.max(x, axis=axis, keepdims=True).shape``; with groups, one entry per group along the axis.
    zero_point : numpy.ndarray or None
        int32, of scale's shape, for asymmetric arrays.
    offset : numpy.ndarray or None
        Of scale's shape, for affine arrays.
    balance : numpy.ndarray or None
        Factors by channel, of what the codes give (:func:`fastq.balance`); they broadcast to the array's shape.
    rotation : int
        Size of the blocks of channels that are rotated; 1: they are not.

    Notes
    -----
    ``np.asarray(q)`` raises TypeError. NumPy converts operands silently in many places, and a conversion here
    multiplies the memory by up to 16; so it is written out: ``q.dequantize()``.

    When it is first used as a right operand, a matrix is packed for the CPU, in `bits` bits per code; from then on
    :attr:`codes` is unpacked anew at each access, and :attr:`nbytes` tells the packed size.
    """

    __slots__ = ("_balance", "_cache", "_flipped", "_offset", "_scale", "_store", "_zero", "axis", "bits", "dtype",
                 "group_size", "ready", "rotation", "scheme", "shape")  # fmt: skip

    axis: int | None
    bits: int
    group_size: int | None
    rotation: int
    scheme: Scheme
    _store: Store
    _flipped: bool
    _cache: dict[Any, Any]
    _scale: Array
    _zero: Array | None
    _offset: Array | None
    _balance: Array | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a QArray is made by fastq.quantize(x, bits=...)")

    @classmethod
    def _make(
        cls,
        store: Store,
        flipped: bool,
        scheme: str,
        axis: int | None,
        group_size: int | None,
        parameters: tuple[Array, Array | None, Array | None],
        dtype: npt.DTypeLike,
        balance: Array | None = None,
        rotation: int = 1,
    ) -> QArray:
        self = object.__new__(cls)
        shape = store.shape[::-1] if flipped else store.shape
        frozen = []
        for p in (*parameters, balance):
            view = None if p is None else np.asarray(p).view()
            if view is not None:
                view.flags.writeable = False
            frozen.append(view)
        values = {
            "_store": store, "_flipped": flipped, "_cache": {}, "_scale": frozen[0], "_zero": frozen[1],
            "_offset": frozen[2], "_balance": frozen[3], "shape": shape, "dtype": np.dtype(dtype), "bits": store.bits,
            "scheme": scheme, "axis": axis, "group_size": group_size, "ready": {}, "rotation": rotation,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)
        return self

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot delete {name!r}")

    # What it is

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def scale(self) -> Array:
        """The scale, read-only."""
        return self._scale

    @property
    def zero_point(self) -> Array | None:
        """The zero point of an asymmetric array, read-only."""
        return self._zero

    @property
    def offset(self) -> Array | None:
        """The offset of an affine array, read-only."""
        return self._offset

    @property
    def balance(self) -> Array | None:
        """The factors of a balanced array, read-only."""
        return self._balance

    @property
    def codes(self) -> Array:
        """The codes, read-only: int8 for symmetric arrays, uint8 for others."""
        codes = self._store.codes()
        view = (codes.T if self._flipped else codes).view()
        view.flags.writeable = False
        return view

    @property
    def nbytes(self) -> int:
        """Bytes of codes, as they are stored now, and parameters."""
        cached = sum(c.nbytes for c in self._cache.values() if isinstance(c, Columns))
        return int(self._store.nbytes + cached + sum(p.nbytes for p in self._parameters if p is not None))

    @property
    def _parameters(self) -> tuple[Array | None, ...]:
        return self.scale, self.zero_point, self.offset, self.balance

    @property
    def T(self) -> QArray:  # noqa: N802
        """The array with its axes in reverse order; codes are shared, not copied."""
        axis = None if self.axis is None else self.ndim - 1 - self.axis
        store, flipped = self._store, not self._flipped
        if self.ndim != 2:
            store, flipped = Store(self.codes.T, store.limits, store.bits), False
        return self._turned(store, flipped, axis, np.transpose)

    def _turned(self, store: Store, flipped: bool, axis: int | None, turn: Callable[[Array], Array]) -> QArray:
        """The array with its axes elsewhere."""
        scale, zero, offset, balance = (None if p is None else turn(p) for p in self._parameters)
        parameters: Any = scale, zero, offset
        rest = self.group_size, parameters, self.dtype, balance, self.rotation
        return QArray._make(store, flipped, self.scheme, axis, *rest)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __repr__(self) -> str:
        if self.axis is None:
            sharing = "one scale"
        elif self.group_size is None:
            sharing = f"axis={self.axis}"
        else:
            sharing = f"axis={self.axis}, group_size={self.group_size}"
        form = f"{self.bits} bits, {self.scheme}, {sharing}" + (", balanced" if self.balance is not None else "")
        form += f", rotated by {self.rotation}" if self.rotation > 1 else ""
        return f"QArray(shape={self.shape}, {form}, dtype={self.dtype}, {_readable_size(self.nbytes)})"

    # Back to numbers

    def dequantize(self, dtype: npt.DTypeLike | None = None, out: Array | None = None) -> Array:
        """Turn the codes back into numbers.

        Parameters
        ----------
        dtype : data type, optional
            A float type; by default the logical type, or that of `out`.
        out : numpy.ndarray, optional
            Where to write them.

        Returns
        -------
        numpy.ndarray
            ``scale * (codes - zero_point)`` or ``scale * codes + offset``, computed in scale's type; times `balance`.

        Raises
        ------
        TypeError
            If `dtype` is not a float type, or `out` not an array of it.
        ValueError
            If `out` has another shape or is read-only.
        """
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(f"out must be an array, got {type(out).__name__}")
        wanted = np.dtype(dtype if dtype is not None else self.dtype if out is None else out.dtype)
        if not is_float(wanted):
            raise TypeError(f"dtype must be a float type that NumPy computes in, got {wanted}; codes are in q.codes")
        if out is not None:
            if out.dtype != wanted:
                raise TypeError(f"out must be an array of {wanted}, got {out.dtype}")
            if out.shape != self.shape or not out.flags.writeable:
                state = "" if out.flags.writeable else " (read-only)"
                raise ValueError(f"out must be writeable and of shape {self.shape}, got shape {out.shape}{state}")
        work = self.scale.dtype
        target = out if out is not None else np.empty(self.shape, wanted)
        direct = wanted == work
        values = target if direct else np.empty(self.shape, work)
        cut = self.shape, self.axis, self.group_size
        whole = [None if p is None else affine.expand(p, *cut) for p in self._parameters[:3]]
        affine.dequantize(self.codes, whole, values)
        # Rounding the zero point may move the ends of the range past what the type holds.
        factor = affine.unbalance(values, self.axis, self.balance, self.rotation)
        span = code_range(self.bits, self.scheme).high - min(0, code_range(self.bits, self.scheme).low)
        largest = float(np.finfo(wanted).max) if wanted.kind == "f" else float(np.finfo(np.float32).max)
        if self.size and span * factor * float(np.abs(self.scale).max()) > largest:
            np.clip(values, -largest, largest, out=values)
        if not direct:
            target[...] = values.astype(wanted)
        return target

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "a QArray is not converted to an ndarray silently, because that takes up to 16 times its memory; "
            "call q.dequantize()"
        )

    # Multiplying

    def __matmul__(self, other: Any) -> Any:
        return product.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return product.matmul(other, self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if ufunc is np.matmul and method == "__call__" and not kwargs:
            return product.matmul(inputs[0], inputs[1], out)
        return NotImplemented

    def promoted(self, side: str) -> QArray:
        """A vector as a row (side "left") or a column ("right")."""
        if self.ndim != 1:
            return self
        place = 0 if side == "left" else 1
        store = Store(np.expand_dims(self.codes, place), self._store.limits, self.bits)
        return self._turned(store, False, None if self.axis is None else 1 - place, lambda p: np.expand_dims(p, place))

    def balance_along(self, side: str) -> Balance | None:
        """See :class:`fastq.operands.Operand`."""
        summed = self.ndim - 1 if side == "left" else self.ndim - 2
        here = self.balance is not None and self.axis == summed
        return Balance(self.balance.reshape(-1), self.rotation) if here else None  # type: ignore[union-attr]

    def lines(self, index: tuple[int, ...], side: str) -> Lines:
        """Parameters of one matrix along the rows (side "left") or columns ("right") of a product."""
        key = (index, side)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._lines(index, side)
        return found

    def _lines(self, index: tuple[int, ...], side: str) -> Lines:
        contracted, kept = (self.ndim - 1, self.ndim - 2) if side == "left" else (self.ndim - 2, self.ndim - 1)
        grouped = self.group_size if self.axis == contracted and self.group_size is not None else None
        if grouped is None and self.scale.shape[contracted] > 1:
            fix = -1 if side == "left" else -2
            raise ValueError(
                f"the scale of the {side} operand must be constant along the axis that is summed over, or in groups "
                f"along it; got shape {self.shape} with {self._sharing()}, whose scale varies there: quantize it with "
                f"axis={fix} or axis=None, or multiply q.dequantize()"
            )

        def of_matrix(p: Array | None) -> Array | None:
            if p is None:
                return None
            if self.axis == kept and self.group_size is not None:
                p = np.take(p, np.arange(self.shape[kept]) // self.group_size, axis=kept)
            matrix: Array = p[tuple(0 if n == 1 else i for n, i in zip(p.shape, index))]
            return matrix

        scale, zero, offset = of_matrix(self.scale), of_matrix(self.zero_point), of_matrix(self.offset)
        if self.balance is not None and self.axis != contracted:  # it is the scale's then, by line or by matrix
            if self.rotation > 1:
                raise ValueError(
                    f"a rotated array must be summed over the axis along which it is; got shape {self.shape}, rotated "
                    f"along axis {self.axis}, as the {side} operand: multiply q.dequantize()"
                )
            factor = self.balance[tuple(0 if n == 1 else i for n, i in zip(self.balance.shape, index))]
            scale, offset = (None if p is None else p * factor for p in (scale, offset))
        return Lines(code_range(self.bits, self.scheme), self.bits, scale, zero, offset, grouped)

    def _sharing(self) -> str:
        return f"axis={self.axis}" + (f" and group_size={self.group_size}" if self.group_size is not None else "")

    def matrix(self, index: tuple[int, ...]) -> Array:
        """Codes of one matrix."""
        matrix: Array = self.codes[index]
        return matrix

    def rows(self) -> tuple[Array, Array] | None:
        """Codes and scales, if it is a matrix of int8 with one scale per row, no zero points, and not packed."""
        usual = self.scheme == "symmetric" and self.bits == 8 and self.axis == 1 and self.group_size is None
        if not usual or self._flipped or len(self.shape) != 2 or self._store.packed or self.balance is not None:
            return None
        return self._store.codes(), self._scale

    def right(self, index: tuple[int, ...], cuts: Segments) -> Right:
        """One matrix, packed."""
        return self._store.right(index, self._flipped, cuts)

    def columns(
        self, index: tuple[int, ...], packed: Right, cuts: Segments, dtype: np.dtype[Any], affine: bool
    ) -> Columns:
        """Column parameters of one packed matrix, kept for the next product."""
        key = (index, cuts, dtype, affine)
        found = self._cache.get(key)
        if found is None:
            found = super().columns(index, packed, cuts, dtype, affine)
            self._cache[key] = found
        return found

    def prepack(self) -> QArray:
        """Pack the codes now, rather than at the first ``x @ q``; returns the array itself."""
        if self.ndim < 2 or self.size == 0:
            return self
        k = self.shape[-2]
        first = (0,) * (self.ndim - 2)
        self.right(first, segments(k, self.lines(first, "right").group))
        return self

    # Copies

    def __copy__(self) -> QArray:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QArray:
        return self

    def copy(self) -> QArray:
        """The array itself, since it cannot change."""
        return copy.copy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parameters = (self.scale, self.zero_point, self.offset)
        state = (self._store, self._flipped, self.scheme, self.axis, self.group_size, parameters, self.dtype)
        return QArray._make, (*state, self.balance, self.rotation)

    def equals(self, other: Any) -> bool:
        """Whether the other array has the same codes, parameters, bits and types.

        ``==`` between arrays compares elements; QArrays leave it to identity.
        """
        if not isinstance(other, QArray):
            return False
        facts = ("shape", "dtype", "bits", "scheme", "axis", "group_size", "rotation")
        if any(getattr(self, f) != getattr(other, f) for f in facts):
            return False
        pairs = zip(self._parameters, other._parameters)
        same = all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in pairs)  # type: ignore[arg-type]
        return same and np.array_equal(self.codes, other.codes)


def _readable_size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024  # type: ignore[assignment]
    raise AssertionError
