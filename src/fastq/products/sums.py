"""The integer sums of a product, before they are scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastq.engine.memory import empty
from fastq.engine.operands import Array, longest_segment
from fastq.products.foreign import as_array
from fastq.products.operands import CodeOperand, IntegerView, Operand, aligned
from fastq.products.task import INTEGERS, Task
from fastq.promotion import EIGHT_BIT, result_shape


def sums(a: Any, b: Any, dtype: npt.DTypeLike | None = None) -> Array:
    """The integers that a product scales: ``sum_k (qa_ik - za_i) * (qb_kj - zb_j)``, exact.

    Parameters
    ----------
    a, b : array of int8 or uint8, or QArray
        Of shapes as for :func:`matmul`. Float scales that are constant along K, offsets apart, and what an array is
        balanced by are left out; integer scales of groups are multiplied with the codes.
    dtype : int32 or int64, optional
        By default int64 if the longest sum of such operands may not fit int32, whatever the codes are.

    Raises
    ------
    TypeError, ValueError
        For other operands: of other types, affine, or with a float scale that varies along K.
    OverflowError
        If int32 is asked for and a sum does not fit.
    """
    left, right = _integers("a", a), _integers("b", b)
    batch, m, k, n, shape = result_shape(left.shape, right.shape)
    operands = aligned(left.promoted("left"), right.promoted("right"))
    left, right = (IntegerView(x, name) for x, name in zip(operands, "ab"))
    wide = k > longest_segment(left.reach, right.reach)
    wanted = np.dtype((np.int64 if wide else np.int32) if dtype is None else dtype)
    task = Task((a, b), left, right, batch, m, k, n, shape, None, INTEGERS)
    result = empty(task.matrices, wanted)
    task.fill(result)
    return result.reshape(shape)


def _integers(name: str, x: Any) -> Operand:
    if not isinstance(x, Operand):
        x = as_array(x, name)
        if x.dtype not in EIGHT_BIT:
            raise TypeError(f"{name} must be of int8 or uint8, or a QArray, got dtype {x.dtype}")
        return CodeOperand(x)
    return x
