"""The grammar of shapes."""

from __future__ import annotations

import pytest

from fastq.bench.shapes import Shape, parse


@pytest.mark.parametrize("text", ["100x384x200000", "100X384x200000"])
def test_a_shape(text):
    assert parse(text) == Shape(100, 384, 200_000) == (100, 384, 200_000)
    assert str(parse(text)) == "100x384x200000"


@pytest.mark.parametrize(
    "text", ["", "128x768", "1x2x3x4", "0x2x3", "-1x2x3", "1.5x2x3", "ax2x3", "1 x 2 x 3", "1x2x", "٣x٣x٣", "1x2x3\n"]
)
def test_no_shape(text):
    with pytest.raises(ValueError, match=r"^a shape must be MxKxN, three positive integers .*; got ") as raised:
        parse(text)
    assert str(raised.value).endswith(f"got {text!r}")
    assert "\n" not in str(raised.value)
