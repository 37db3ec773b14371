"""The quantized array."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine.operands import ColumnParams
from fastq.engine.store import Store
from fastq.products.operands import Operand
from fastq.qarray import operand, rearrange, values
from fastq.qarray.apart import parts, save
from fastq.qarray.operators import Operators
from fastq.qarray.rearrange import group_scales, swapped_matrices, unpacked
from fastq.qarray.summary import html, summary
from fastq.quant.spec import QuantSpec
from fastq.scheme import ROW
from fastq.typed import Activations, Array, Codes, Int32

Some = TypeVar("Some", bound=Array)
Scheme = Literal["symmetric", "asymmetric", "affine"]
# Members that the engine calls, and no user: they are those of Operand.
_OF_PRODUCTS = {name for name in (*vars(Operand), "ready") if not name.startswith("_")} - {"activations"}

__all__ = ["QArray", "Scheme"]


class QArray(Operand, Operators):
    """A quantized array: codes of 2 to 8 bits and the parameters that turn them back into numbers.

    ``x = scale * (code - zero_point)``, or for affine arrays ``x = scale * code + offset``. Make one with
    :func:`fastq.quantize`, or of codes with :func:`fastq.from_parts`. It is immutable; ``@`` multiplies it with
    arrays and other quantized arrays on either side.

    Attributes
    ----------
    shape, ndim, size : as of an array
    dtype : numpy.dtype
        The logical type: what :meth:`dequantize` gives.
    bits : int
        Bits per code.
    scheme : {"symmetric", "asymmetric", "affine"}
        torch's per_channel_affine is "asymmetric", MLX's affine is "affine".
    axis : int or None
        The axis along which elements share a scale; None where the whole array does.
    group_size : int or None
        How many neighbours along the axis share it; None: all.
    scale : numpy.ndarray
        Of shape ``np.max(x, axis=axis, keepdims=True).shape``; with groups, one entry per group along the axis.
    group_scale, axis_scale : numpy.ndarray or None
        Groups may have small integer scales under one float scale, as fast matrix products want them;
        ``scale == axis_scale * group_scale`` then: exactly as quantized, rounded once after ``q * s``.
    zero_point : numpy.ndarray or None
        int32, of scale's shape, for asymmetric arrays.
    offset : numpy.ndarray or None
        Of scale's shape, for affine arrays.
    balance : numpy.ndarray or None
        Factors by channel, of what the codes give (:func:`fastq.balance`); they broadcast to the array's shape.
    rotation : int
        Size of the blocks of channels that are rotated; 1: they are not.
    order : numpy.ndarray or None
        Where along the axis the numbers of codes belong, if it is not where the codes lie: act-order of GPTQ.
    activations : str
        How products quantize floats that are multiplied with it; see :meth:`with_activations`.
    device : str
        "cpu", as the array API standard has it.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((128, 64), np.float32)
    >>> q = fq.quantize(w, bits=3, axis=0)
    >>> q  # doctest: +NORMALIZE_WHITESPACE
    QArray(shape=(128, 64), 3 bits, symmetric, axis=0, dtype=float32,
           8.2 KiB, 3.5 KiB once packed)
    >>> q.shape, q.dtype, q.scale.shape
    ((128, 64), dtype('float32'), (1, 64))
    >>> (np.ones((5, 128)) @ q).shape
    (5, 64)

    Notes
    -----
    ``np.asarray(q)`` raises TypeError. NumPy converts operands silently in many places, and a conversion here
    multiplies the memory by up to 16; so it is written out: ``q.dequantize()``.

    When it is first used as a right operand, a matrix is packed for the CPU, in `bits` bits per code; from then on
    :attr:`codes` is unpacked anew at each access, and :attr:`nbytes` tells the packed size.
    """

    __slots__ = ("_balance", "_cache", "_offset", "_order", "_scale", "_store", "_transposed", "_zero", "activations",
                 "axis", "bits", "dtype", "group_size", "ready", "rotation", "scheme", "shape")  # fmt: skip

    activations: Activations
    axis: int | None
    bits: int
    group_size: int | None
    rotation: int
    scheme: Scheme
    _store: Store
    _transposed: bool
    _cache: dict[Any, Any]
    _scale: Array
    _zero: Array | None
    _offset: Array | None
    _balance: Array | None
    _order: npt.NDArray[np.int64] | None

    __array_priority__ = 10.0  # libraries that go by it take a quantized array for more than an ndarray
    __hash__ = None  # type: ignore[assignment]  # as an ndarray's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a QArray is made by fastq.quantize(x, bits=...)")

    @classmethod
    def _make(
        cls,
        store: Store,
        transposed: bool,
        spec: QuantSpec,
        parameters: tuple[Array | None, ...],
        dtype: npt.DTypeLike,
        activations: str = ROW,
    ) -> QArray:
        self = object.__new__(cls)
        shape = (*store.shape[:-2], store.shape[-1], store.shape[-2]) if transposed else store.shape
        names = "_scale", "_zero", "_offset", "_balance", "_order"
        frozen = (None if p is None else _frozen(np.asarray(p)) for p in parameters)
        attributes: dict[str, Any] = {
            **dict(zip(names, frozen)), "_store": store, "_transposed": transposed, "_cache": {}, "shape": shape,
            "dtype": np.dtype(dtype), "bits": store.bits, "scheme": spec.scheme, "axis": spec.axis, "ready": {},
            "group_size": spec.group, "rotation": spec.rotation, "activations": activations,
        }  # fmt: skip
        for name, value in attributes.items():
            object.__setattr__(self, name, value)
        return self

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a QArray is immutable; cannot delete {name!r}")

    # Attributes

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
        """The scale, read-only; with integer group scales, their products with :attr:`axis_scale`, which are exact."""
        return self._scale if (integers := self.group_scale) is None else _frozen(self._scale * integers)

    @property
    def axis_scale(self) -> Array | None:
        """With integer group scales, the float scale that all groups share, read-only; None without."""
        return None if self._store.groups_shape is None else self._scale

    @property
    def group_scale(self) -> npt.NDArray[np.int8] | None:
        """Integer scales of groups (int8), read-only; None where groups have float scales, or there are none."""
        return None if (scales := group_scales(self)) is None else _frozen(scales.scale)

    @property
    def zero_point(self) -> Int32 | None:
        """The zero point of an asymmetric array, read-only."""
        if (scales := group_scales(self)) is None or scales.zero is None:
            return self._zero
        return _frozen(scales.zero.astype(np.int32))

    @property
    def offset(self) -> Array | None:
        """The offset of an affine array, read-only."""
        return self._offset

    @property
    def balance(self) -> Array | None:
        """The factors of a balanced array, read-only."""
        return self._balance

    @property
    def order(self) -> npt.NDArray[np.int64] | None:
        """``q.dequantize()`` has the numbers of code k at ``order[k]``, along the axis; read-only."""
        return self._order

    @property
    def codes(self) -> Codes:
        """The codes, read-only; int8 for symmetric arrays, uint8 for others.

        Examples
        --------
        >>> import fastq as fq
        >>> fq.quantize([-1.0, 1.0, 2.0], bits=4, scheme="asymmetric").codes
        array([ 0, 10, 15], dtype=uint8)
        """
        codes = self._store.codes()
        return _frozen(codes.mT if self._transposed else codes)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, as they are stored now, and parameters.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.ones((1024, 64), np.float32))
        >>> q.nbytes  # a byte each until they are packed, and one scale
        65540
        """
        parameters = self._scale, self._zero, self._offset, self._balance, self._order
        cached = sum(c.nbytes for c in self._cache.copy().values() if isinstance(c, ColumnParams))
        return int(self._store.nbytes + cached + sum(p.nbytes for p in parameters if p is not None))

    @property
    def T(self) -> QArray:  # noqa: N802
        """The array with its axes in reverse order; codes of a matrix are shared, not copied.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.eye(2, 3), bits=4, axis=-1)
        >>> q.T.shape, q.T.axis
        ((3, 2), 0)
        """
        return swapped_matrices(self) if self.ndim == 2 else self.transpose()

    @property
    def mT(self) -> QArray:  # noqa: N802
        """A stack of matrices with each transposed; codes are shared, not copied.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.zeros((5, 2, 3))).mT.shape
        (5, 3, 2)
        """
        if self.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        return swapped_matrices(self)

    @property
    def device(self) -> str:
        """Where the array is, as the array API standard has it: "cpu"."""
        return "cpu"

    # The array in other forms

    transpose = rearrange.transpose
    swapaxes = rearrange.swapaxes
    reshape = rearrange.reshape
    astype = values.astype
    dequantize = values.dequantize
    item = values.item
    equals = values.equals
    parts = parts
    save = save

    def dot(self, other: Any) -> Any:
        """``np.dot(q, other)``.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.eye(2)).dot([3.0, 4.0]).round(1)
        array([3., 4.])
        """
        return numpys.dot(self, other)

    # The array as an operand

    promoted = operand.promoted
    balance_along = operand.balance_along
    order_along = operand.order_along
    in_codes_order = rearrange.in_codes_order
    taken = operand.taken
    group_along = operand.group_along
    lines = operand.lines
    matrix = operand.matrix
    rows_of = operand.rows_of
    rows = operand.rows
    right = operand.right
    columns = operand.columns
    prepack = operand.prepack
    with_activations = operand.with_activations

    # Copies

    def __deepcopy__(self, memo: dict[int, Any]) -> QArray:
        return self

    def copy(self) -> QArray:
        """The array itself, since it cannot change.

        Examples
        --------
        >>> import fastq as fq
        >>> q = fq.quantize([1.0, 2.0])
        >>> q.copy() is q
        True
        """
        return self

    __copy__ = copy

    # Python's protocols

    def __dir__(self) -> list[str]:
        """Public attributes and methods; what only products call is left out."""
        return [n for n in super().__dir__() if n not in _OF_PRODUCTS and (n[0] != "_" or n.startswith("__"))]

    __repr__, _repr_html_ = summary, html

    def __iter__(self) -> Iterator[QArray | Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        whole = unpacked(self) if self.ndim < 3 else self
        return (whole[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        if self.size == 1:
            return bool(self.item())
        return bool(np.broadcast_to(False, self.shape))  # NumPy's own error

    def __float__(self) -> float:
        if self.ndim:
            raise TypeError("only 0-dimensional arrays can be converted to Python scalars")
        return self.item()

    __dlpack__ = values.dlpack

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.codes.__dlpack_device__()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]


def _frozen(array: Some) -> Some:
    """A read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view
