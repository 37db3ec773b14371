"""Arrays and their types, as type checkers are told of them.

They follow the rules of a product: float64 if an operand is, int32 for two arrays of 8 bits. Whether a quantized array
stands for float32 or float64, no checker knows: such products are :data:`Floats`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Unknown = npt.NDArray[NoReturn]  # of which no numbers can be, so that checkers take it for arrays of Any alone
Codes = npt.NDArray[np.int8 | np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Reals = npt.NDArray[np.float16 | np.float32 | np.float64 | np.integer[Any] | np.bool]
Real = Reals | float | Sequence[float] | Sequence[Sequence[float]]  # what a product of floats takes

Out = TypeVar("Out", bound=Array)
Kind = TypeVar("Kind", bound=np.generic)
DType = type[Kind] | np.dtype[Kind]
Of = npt.NDArray[Kind]
Bytes = type[np.int8] | type[np.uint8] | np.dtype[np.int8] | np.dtype[np.uint8] | Literal["int8", "uint8"]

Activations = Literal["row", "group", "two-plane"]
Epilogue = Literal["relu", "gelu", "silu"] | Callable[[Any], Any] | None
