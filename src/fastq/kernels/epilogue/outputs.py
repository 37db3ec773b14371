"""What becomes of a product: the type it is delivered in, and the function that is applied before."""

from __future__ import annotations

from itertools import count
from typing import Any, NamedTuple

from fastq.lock import Lock
from fastq.machine.fingerprint import fingerprint

# The type that sums are scaled in, by the type of the output.
COMPUTED = {"int32": "int32", "float16": "float32", "float32": "float32", "float64": "float64"}
SIZES = {"int32": 4, "float16": 2, "float32": 4, "float64": 8}
ACTIVATIONS = ("relu", "gelu", "silu")


class Output(NamedTuple):
    """An output of matmul kernels."""

    type: str
    activation: str = ""  # one of ACTIVATIONS, a name that is unique to `function`, or none
    function: Any = None  # a user's scalar function, compiled by Numba
    turned: bool = False  # of a product that is computed as a transpose: columns' scales come before those of rows
    planes: int = 1  # of left codes: 2 for high and low bytes, each of which has a row of sums
    row_groups: bool = False  # of a product of left floats that are quantized by group
    top: bool = False  # not written: the best of each row are kept (fastq.kernels.epilogue.top)

    @property
    def computed(self) -> str:
        """The type that it is computed in."""
        return COMPUTED[self.type]

    @property
    def tag(self) -> str:
        """What tells it from others in the names of kernels."""
        words = [self.type, *([self.activation] if self.activation else [])]
        words += ["turned"] * self.turned + ["planes"] * (self.planes > 1) + ["rowgroups"] * self.row_groups
        words += ["top"] * self.top
        return "_".join(words)

    @property
    def held(self) -> bool:
        """Whether the epilogue leaves values in scratch, and others take them from there."""
        return self.function is not None or self.top

    @property
    def kept(self) -> bool:
        """Whether kernels with it may be kept on disk: its name is the same in every process, and no other's."""
        return self.function is None or self.activation.startswith(_LASTING)


# A user's function goes by its fingerprint, or, where it has none, by a number. Kernels that hold one are never freed,
# so neither is the function, and its number is never used again.
_LASTING = "user_"
_names: dict[Any, str] = {}
_numbers = count(1)
_naming = Lock()  # two functions never get one number, nor one function two


def with_function(type_name: str, function: Any) -> Output:
    """An output with a user's function, compiled by Numba, before it."""
    name = _names.get(function)
    if name is None:
        with _naming:
            if function not in _names:
                lasting = fingerprint(function)
                _names[function] = f"{_LASTING}{lasting}" if lasting else f"user{next(_numbers)}"
            name = _names[function]
    return Output(type_name, name, function)
