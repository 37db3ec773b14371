"""What a quantized array has of :class:`numpy.ndarray`: axes, shapes, indices, and Python's protocols."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.qarray import rearrange
from fastq.qarray.coded import QArrayBase
from fastq.validation import axis_of

if TYPE_CHECKING:
    from typing_extensions import Self

# NumPy 2.0 exports no read-only array.
_NUMPY_KNOWS_NO_READ_ONLY = np.lib.NumpyVersion(np.__version__) < "2.1.0"


class ArrayMethods(QArrayBase):
    """Methods of an ndarray that change no value, on quantized arrays."""

    __slots__ = ()

    if TYPE_CHECKING:  # of NDArrayOperatorsMixin, which cannot say as much

        def __neg__(self) -> Self: ...
        def __mul__(self, other: Any) -> Self: ...
        def __rmul__(self, other: Any) -> Self: ...
        def __truediv__(self, other: Any) -> Self: ...

    @property
    def T(self) -> Self:  # noqa: N802
        """The array with its axes in reverse order; codes of a matrix are shared, not copied.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.eye(2, 3), bits=4, axis=-1)
        >>> q.T.shape, q.T.axis
        ((3, 2), 0)
        """
        return self._swapped_matrices() if self.ndim == 2 else self.transpose()

    @property
    def mT(self) -> Self:  # noqa: N802
        """A stack of matrices with each transposed; codes are shared, not copied.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.zeros((5, 2, 3))).mT.shape
        (5, 3, 2)
        """
        if self.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        return self._swapped_matrices()

    @property
    def device(self) -> str:
        """Where the array is, as the array API standard has it: "cpu"."""
        return "cpu"

    def transpose(self, *axes: Any) -> Self:
        """The array with its axes permuted, as ``ndarray.transpose`` does it.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.zeros((5, 2, 3))).transpose(1, 0, 2).shape
        (2, 5, 3)
        """
        return rearrange.transposed(self, axes)

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """The array with two axes interchanged.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.zeros((5, 2, 3))).swapaxes(0, -1).shape
        (3, 2, 5)
        """
        order = list(range(self.ndim))
        first, second = axis_of(axis1, self.ndim), axis_of(axis2, self.ndim)
        order[first], order[second] = order[second], order[first]
        return self.transpose(order)

    def reshape(self, *shape: Any) -> Self:
        """The array in another shape, elements in C order.

        Runs of elements that share a scale must stay together in one axis of the new shape.

        Raises
        ------
        ValueError
            If the sizes differ, or runs that share a scale would be torn.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.arange(24.0).reshape(4, 6), axis=-1)
        >>> q.reshape(2, 2, 6).scale.shape
        (2, 2, 1)
        """
        return rearrange.reshaped(self, shape)

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """The same codes and scales, standing for numbers of another float type; products are of that type then.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> q = fq.quantize(np.eye(2, dtype=np.float32)).astype(np.float64)
        >>> (q @ q).dtype
        dtype('float64')
        """
        return rearrange.with_dtype(self, dtype)

    def dot(self, other: Any) -> Any:
        """``np.dot(q, other)``.

        Examples
        --------
        >>> import numpy as np, fastq as fq
        >>> fq.quantize(np.eye(2)).dot([3.0, 4.0]).round(1)
        array([3., 4.])
        """
        return numpys.dot(self, other)  # type: ignore[call-overload]

    def item(self) -> float:
        """The number that an array of one element stands for.

        Examples
        --------
        >>> import fastq as fq
        >>> fq.quantize([2.5]).item()
        2.5
        """
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return float(self.dequantize().item())  # type: ignore[attr-defined]

    @overload
    def __getitem__(self, key: slice | EllipsisType | list[int] | npt.NDArray[Any]) -> Self: ...
    @overload
    def __getitem__(self, key: Any) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        return rearrange.indexed(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            "a quantized array is immutable, because new values would need other scales; got an assignment: quantize "
            "anew from q.dequantize()"
        )

    def __delitem__(self, key: Any) -> NoReturn:
        raise ValueError("cannot delete array elements")

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        whole = self._unpacked() if self.ndim < 3 else self
        return (whole[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        if self.size == 1:
            return bool(self.item())
        return bool(np.broadcast_to(False, self.shape))  # NumPy's own error

    def __float__(self) -> float:
        if self.ndim:
            raise TypeError("only 0-dimensional arrays can be converted to Python scalars")
        return self.item()

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """The codes, by DLPack: int8 or uint8, read-only where the consumer knows of that, otherwise a copy.

        The buffer protocol is left out on purpose: ``np.asarray(q)`` would take codes for numbers. There is
        ``memoryview(q.codes)``.
        """
        if copy or max_version is None or max_version < (1, 0) or _NUMPY_KNOWS_NO_READ_ONLY:
            return np.array(self.codes).__dlpack__(stream=stream)
        return self.codes.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.codes.__dlpack_device__()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]
