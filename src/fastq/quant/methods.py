"""Methods of choosing scales and codes, as users name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastq.errors import shown
from fastq.quant.gptq import Gptq
from fastq.validation import as_str, real

SCALES = ("minmax", "mse", "percentile")


@dataclass(frozen=True)
class Percentile:
    """A scale under which a share of the elements stays inside the range; the others are clipped.

    Parameters
    ----------
    share : float
        Percent of the elements that stay inside, of those that share a scale; above 0 and up to 100. 100 is
        ``method="minmax"``.

    Raises
    ------
    TypeError, ValueError
        If `share` is not a number, or out of range.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> x = np.append(np.linspace(-1, 1, 999), 1000.0)
    >>> float(fq.quantize(x, method=fq.Percentile(99.8)).scale[0]) < 0.01
    True
    """

    share: float = 99.9

    def __post_init__(self) -> None:
        share = real(self.share, "share", "a number of percent")
        if not 0 < share <= 100:
            raise ValueError(
                "share must be above 0 and up to 100, as the percent of elements inside the range; got "
                f"{shown(self.share)}"
            )
        object.__setattr__(self, "share", share)

    def ends(self, scheme: str) -> tuple[float, ...]:
        """The ends of the range as quantiles: one of abs(x) for symmetric arrays, two of x for others."""
        if scheme == "symmetric":
            return (self.share / 100,)
        cut = (100 - self.share) / 200
        return cut, 1 - cut


Method = str | Percentile | Gptq


def method_of(method: Any) -> Method:
    """Check a method: ``"minmax"``, ``"mse"``, or one with its settings."""
    if isinstance(method, Gptq):
        return method
    method = as_str(method)
    if isinstance(method, str) and method == "gptq":
        return Gptq()
    return scale_method(method, ", 'gptq'", " or fastq.Gptq")


def scale_method(method: Any, other: str = "", others: str = "") -> str | Percentile:
    """Check a method that chooses scales only; `other` and `others` are more names for the message."""
    if isinstance(method, Percentile):
        return method
    method = as_str(method)
    if not isinstance(method, str) or method not in SCALES:
        known = ", ".join(map(repr, SCALES)) + other
        raise ValueError(f"method must be one of {known}, or a fastq.Percentile{others}; got {shown(method)}")
    return Percentile() if method == "percentile" else method
