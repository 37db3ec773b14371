"""The arguments of a quantization pass: which elements share parameters, and where the parameters lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

Array = npt.NDArray[Any]


class GroupedView(NamedTuple):
    """A C-contiguous array seen as ``[outer][groups][n][inner]``: one set of parameters per outer, group, inner."""

    outer: int
    groups: int
    n: int
    inner: int
    outer_pitch: int
    group_pitch: int
    param_pitch: int
    group_param: int
    start: int = 0  # elements from the start of the array
    param_start: int = 0

    @property
    def elements(self) -> int:
        """Where the view ends, in elements from the start of the array."""
        last = (self.outer - 1) * self.outer_pitch + (self.groups - 1) * self.group_pitch
        return self.start + last + self.n * self.inner

    @property
    def sets(self) -> int:
        """Where the parameters of the view end, in sets from the start of theirs."""
        last = (self.outer - 1) * self.param_pitch + (self.groups - 1) * self.group_param
        return self.param_start + last + self.inner


class FlatParams(NamedTuple):
    """Flat arrays of parameters, all of the data's float type; the zero point is an integer in it."""

    scale: Array
    zero: Array
    offset: Array
    minimum: Array
    maximum: Array
