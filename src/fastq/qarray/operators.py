"""The operators of a quantized array, its index and NumPy's protocols, with what type checkers are told of them.

A checker knows no number of dimensions. So a product of two vectors, which is a number, is typed as an array, as NumPy
types its own ``@``; and an integer index gives ``QArray | Any``, since of a vector it chooses a number.
"""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastq import numpys
from fastq.products import dispatch
from fastq.qarray import functions
from fastq.qarray.rearrange import indexed
from fastq.typed import Array, Float64, Floats, Real, Unknown

if TYPE_CHECKING:
    from fastq.qarray.array import QArray

Kept = slice | Array | list[int] | list[bool] | None  # an index after which an axis is left


class Operators(NDArrayOperatorsMixin):
    """What Python and NumPy call when a quantized array stands in an expression."""

    __slots__ = ()

    if TYPE_CHECKING:  # of NDArrayOperatorsMixin, which cannot say as much

        def __neg__(self) -> QArray: ...
        def __pos__(self) -> QArray: ...
        def __mul__(self, other: Any) -> QArray: ...
        def __rmul__(self, other: Any) -> QArray: ...
        def __truediv__(self, other: Any) -> QArray: ...

    # Products

    @overload
    def __matmul__(self, other: Unknown) -> Array: ...
    @overload
    def __matmul__(self, other: Float64) -> Float64: ...
    @overload
    def __matmul__(self, other: QArray | Real) -> Floats: ...
    @overload
    def __matmul__(self, other: Any) -> Any: ...
    def __matmul__(self, other: Any) -> Any:
        return numpys.matmul(self, other) if functions.foreign((other,)) else dispatch.matmul(self, other)

    @overload
    def __rmatmul__(self, other: Unknown) -> Array: ...
    @overload
    def __rmatmul__(self, other: Float64) -> Float64: ...
    @overload
    def __rmatmul__(self, other: QArray | Real) -> Floats: ...
    @overload
    def __rmatmul__(self, other: Any) -> Any: ...
    def __rmatmul__(self, other: Any) -> Any:
        return numpys.matmul(other, self) if functions.foreign((other,)) else dispatch.matmul(other, self)

    # NumPy's protocols

    if TYPE_CHECKING:
        # It never returns. NumPy's stubs read from its annotation what array a function takes: of floats here, so that
        # they tell ``x @ q`` right. With NoReturn, an array of no type comes out of them.
        def __array__(self, dtype: Any = ..., copy: bool | None = ...) -> npt.NDArray[np.float32 | np.float64]: ...

    else:

        def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise TypeError(
                "a QArray is not converted to an ndarray silently, because that takes up to 16 times its memory; "
                "call q.dequantize()"
            )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if ufunc is numpys.matmul and method == "__call__" and not functions.foreign(inputs):
            return dispatch.matmul(inputs[0], inputs[1], None if out is None else out[0], **kwargs)
        return functions.ufunc(ufunc, method, inputs, out, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return functions.function(func, types, args, kwargs)

    # The index

    @overload
    def __getitem__(self, key: Kept | EllipsisType) -> QArray: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> QArray | Any: ...
    @overload
    def __getitem__(self, key: tuple[Kept, ...] | tuple[EllipsisType, Kept] | tuple[Kept, EllipsisType]) -> QArray: ...
    @overload
    def __getitem__(self, key: tuple[SupportsIndex, Kept] | tuple[Kept, SupportsIndex]) -> QArray: ...
    @overload
    def __getitem__(self, key: Any) -> Any: ...
    def __getitem__(self: Any, key: Any) -> Any:
        return indexed(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            "a quantized array is immutable, because new values would need other scales; got an assignment: quantize "
            "anew from q.dequantize()"
        )

    def __delitem__(self, key: Any) -> NoReturn:
        raise ValueError("cannot delete array elements")
