"""Numbers as people read them: few digits, and units."""

from __future__ import annotations

from math import floor, isfinite, isnan, log10

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NONE = "–"


def number(value: float, digits: int = 3) -> str:
    """A number in so many digits; powers of ten where it is far from 1.

    Examples
    --------
    >>> from fastq.pictures.quantities import number
    >>> number(1234.5), number(0.0123), number(2.5e9), number(-1e-7), number(float("nan"))
    ('1230', '0.0123', '2.5·10⁹', '-10⁻⁷', '–')
    """
    if isnan(value):
        return NONE
    if not isfinite(value):
        return "∞" if value > 0 else "-∞"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    exponent = floor(log10(abs(rounded)))
    if not -4 <= exponent < 6:
        mantissa = f"{rounded / 10.0**exponent:.{digits - 1}f}" if exponent > -300 else "1"
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
        return power if mantissa == "1" else f"-{power}" if mantissa == "-1" else f"{mantissa}·{power}"
    text = f"{rounded:.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float) -> str:
    """A whole number with separated thousands; they do not break apart at the end of a line."""
    return f"{value:,.0f}".replace(",", "\u202f") if isfinite(value) else number(value)


def decibels(value: float) -> str:
    """An SQNR, which is infinite where nothing differs."""
    if isnan(value):
        return NONE
    return f"{value:.1f} dB" if isfinite(value) else "exact" if value > 0 else f"{number(value)} dB"


def fixed(value: float, digits: int = 3) -> str:
    """A number in exactly so many digits, as it stands in a column with others; very large and small ones are shorter.

    Examples
    --------
    >>> from fastq.pictures.quantities import fixed
    >>> fixed(6.0), fixed(0.4371), fixed(91.44), fixed(1234.0)
    ('6.00', '0.437', '91.4', '1234')
    """
    if not isfinite(value) or not 1e-3 <= abs(value) < 1e5:
        return number(value, digits)
    return f"{value:.{max(0, digits - 1 - floor(log10(float(f'{abs(value):.{digits}g}'))))}f}"


def times(value: float) -> str:
    """A ratio of speeds."""
    return f"{fixed(value)}×" if not isnan(value) else NONE


def share(value: float) -> str:
    """A part of a whole."""
    if not isfinite(value):
        return number(value)
    if 0 < value < 0.001:
        return "<0.1 %"
    return f"{100 * value:.0f} %" if value >= 0.0995 or value == 0 else f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """A time in the unit that suits it.

    Examples
    --------
    >>> from fastq.pictures.quantities import seconds
    >>> seconds(0.0123), seconds(4.5e-7), seconds(75.0)
    ('12.3 ms', '0.450 µs', '75.0 s')
    """
    if not isfinite(value):
        return number(value)
    factor, unit = next(pair for pair in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if value * pair[0] >= 1 or pair[0] == 1e6)
    return f"{fixed(value * factor)} {unit}"


def shortened(name: str, length: int = 46) -> str:
    """A name without its middle, if it is long: both ends tell more."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[:half]}…{name[-(length - 1 - half) :]}"
