"""Shapes of products, as people write them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Shape(NamedTuple):
    """A product of m x k and k x n."""

    m: int
    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"


def parse(text: str) -> Shape:
    """The shape that a text like ``128x768x3072`` stands for.

    Raises
    ------
    ValueError
        If it stands for none.

    Examples
    --------
    >>> from fastq.bench.shapes import parse
    >>> parse("128x768x3072")
    Shape(m=128, k=768, n=3072)
    """
    found = re.fullmatch(r"(\d+)[xX](\d+)[xX](\d+)", text, re.ASCII)
    if not found or min(sizes := [int(size) for size in found.groups()]) < 1:
        raise ValueError(
            f"a shape must be MxKxN, three positive integers (rows of x, the summed axis, columns of w), "
            f"as 128x768x3072; got {text!r}"
        )
    return Shape(*sizes)
