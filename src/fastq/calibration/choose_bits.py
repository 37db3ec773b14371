"""Choosing bits and group sizes: for a wanted quality, or within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.accuracy.error import one_sided
from fastq.api import quantize
from fastq.calibration.allocation import Candidate, Trial, allocate, bits_per_weight
from fastq.errors import shown
from fastq.promotion import as_floats
from fastq.qarray.array import QArray, Scheme
from fastq.quant.affine import check_finite
from fastq.quant.methods import Percentile, scale_method
from fastq.scheme import SCHEMES
from fastq.validation import check_axis, check_bits, check_group, real, word

Array = npt.NDArray[Any]
Name = TypeVar("Name")
ScaleMethod = Literal["minmax", "mse", "percentile"] | Percentile
_Say = Callable[..., None]
SAMPLE = 1 << 20  # elements of a matrix to try forms on, in whole columns (or rows)


@dataclass(frozen=True)
class Choice:
    """Bits and group size for a matrix of weights, their cost and quality; :func:`fastq.choose_bits` makes it.

    Attributes
    ----------
    bits : int
    group_size : int or None
    bits_per_weight : float
        Including scales and zero points, as :func:`fastq.choose_bits` counts them.
    sqnr_db : float
        Of the weights, or of the output if a calibration was given.
    scheme, method : str
        As given.
    axis : int
        The axis along which elements share a scale, 0 or 1.
    report : str
        What was decided and why; printing a choice shows it.
    tried : tuple
        The forms that were tried, each with bits, group size, bits per weight and SQNR; notebooks draw them.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((256, 64))
    >>> choice = fq.choose_bits(w, budget=3.5)
    >>> choice  # doctest: +NORMALIZE_WHITESPACE
    Choice(bits=3, group_size=64, axis=0, bits_per_weight=3.375, sqnr_db=15.07,
           scheme='symmetric', method='mse')
    >>> print(choice)
    choose_bits: the least sum of relative noise within 3.5 bits per weight
      w (256 x 64): 3 bits, groups of 64, 3.375 bits per weight, SQNR 15.1 dB
      3.375 bits per weight on average, relative noise 0.0312 in total
    >>> choice.quantize(w).group_size
    64
    """

    bits: int
    group_size: int | None
    bits_per_weight: float
    sqnr_db: float
    scheme: Scheme = "symmetric"
    method: ScaleMethod = "mse"
    axis: int = 0
    report: str = field(default="", compare=False)
    tried: tuple[tuple[int, int | None, float, float], ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        return (
            f"Choice(bits={self.bits}, group_size={self.group_size}, axis={self.axis}, "
            f"bits_per_weight={self.bits_per_weight:.4g}, sqnr_db={self.sqnr_db:.4g}, scheme={self.scheme!r}, "
            f"method={self.method!r})"
        )

    def __str__(self) -> str:
        return self.report or repr(self)

    def _repr_html_(self) -> str | None:
        from fastq.pictures.compact import choice, shown

        mine = (self.bits, self.group_size, self.bits_per_weight, self.sqnr_db)
        return shown(lambda forms: choice([_named(*form) for form in forms], _named(*mine)), self.tried)

    def quantize(self, w: npt.ArrayLike) -> QArray:
        """``fq.quantize(w)`` with these bits, group size, scheme, method and axis."""
        options: dict[str, Any] = {"group_size": self.group_size, "scheme": self.scheme, "method": self.method}
        return quantize(w, self.bits, axis=self.axis, **options)


def _named(bits: int, group: int | None, cost: float, sqnr: float) -> tuple[str, float, float]:
    """A form in words, its bits per weight and its SQNR."""
    return str(Candidate(cost, bits, group)), cost, sqnr


@overload
def choose_bits(
    w: Mapping[Name, npt.ArrayLike], *, sqnr: float | None = ..., budget: float | None = ..., calibration: Any = ...,
    axis: int = ..., group_sizes: Iterable[int | None] = ..., bits: Iterable[int] = ..., method: ScaleMethod = ...,
    scheme: Scheme = ..., report: bool | Callable[[str], Any] = ...,
) -> dict[Name, Choice]: ...  # fmt: skip
@overload
def choose_bits(
    w: npt.ArrayLike, *, sqnr: float | None = ..., budget: float | None = ..., calibration: Any = ...,
    axis: int = ..., group_sizes: Iterable[int | None] = ..., bits: Iterable[int] = ..., method: ScaleMethod = ...,
    scheme: Scheme = ..., report: bool | Callable[[str], Any] = ...,
) -> Choice: ...  # fmt: skip
def choose_bits(
    w: npt.ArrayLike | Mapping[Any, npt.ArrayLike],
    *,
    sqnr: float | None = None,
    budget: float | None = None,
    calibration: Any = None,
    axis: int = 0,
    group_sizes: Iterable[int | None] = (None, 128, 64, 32),
    bits: Iterable[int] = range(2, 9),
    method: ScaleMethod = "mse",
    scheme: Scheme = "symmetric",
    report: bool | Callable[[str], Any] = False,
) -> Any:
    """Choose bits and group size for weights: the smallest form that is good enough, or the best within a budget.

    The relative noise of a form (bits and group size) is ::

        r = |D|^2 / |W|^2                    D = W_hat - W, without a calibration
        r = tr(D^T H D) / tr(W^T H W)        with one, H = X^T X of its rows X

    The latter is that of the output ``x @ w``. With `sqnr`, each matrix gets the form of the fewest bits per weight
    that has ``-10 log10(r) >= sqnr``. With `budget`, the sum of r over all matrices is made small, and the bits per
    weight, averaged over all elements, stay within the budget. Each matrix starts from its smallest form. Steps along
    the lower convex hulls of (bits, noise) are taken in the order of their gain per bit, as with a Lagrange multiplier;
    then the bits left over are spent where they gain most.

    Parameters
    ----------
    w : array_like or mapping of them
        Weights (K, N) for ``x @ q``, with a scale per column (and group); with ``axis=1``, weights (N, K) for
        ``x @ q.T``, with a scale per row. A mapping has several matrices under their names.
    sqnr : float, optional
        The wanted signal to quantization noise ratio in dB. Either this or `budget`.
    budget : float, optional
        Bits per weight, with scales, on average over the elements of all weights.
    calibration : array_like, mapping, or object with `matrix`, optional
        Rows (n, K) of input to the product, or an object whose `matrix` is their second moment (K, K), in any unit. For
        several weights, a mapping with the same names.
    axis : int
        The axis along which elements share a scale, as in :func:`fastq.quantize`. Products sum over it, so rows of the
        calibration have as many elements.
    group_sizes : iterable of int or None
        Sizes of groups to choose from; None is one scale per column.
    bits : iterable of int
        Widths to choose from.
    method, scheme : str
        As in :func:`fastq.quantize`, except ``"gptq"``: choose with ``"mse"``; gptq then does better in the same form.
    report : bool or callable
        True: print what was decided and why; printing a choice shows it, too. A function is called with each line.

    Returns
    -------
    Choice, or dict of them
        One for each matrix; printing it tells why.

    Raises
    ------
    TypeError
        If an argument is of a wrong type.
    ValueError
        If not exactly one of `sqnr` and `budget` is given, if it cannot be met, or shapes do not fit. As
        :class:`fastq.NotFiniteError` if w or the calibration holds NaN or infinity.

    Notes
    -----
    Bits per weight count the codes and their parameters: a float32 scale for each column (row) or group, with a zero
    point of 8 bits if asymmetric, or a float32 offset if affine. A group with an integer scale (2 to 6 bits, a size
    that is a multiple of 16, symmetric or asymmetric) takes a byte of scale and a byte of zero point, and each column
    has a float32 scale.

    Of a matrix with more than 2**20 elements, evenly spread columns (rows) are tried; the report says how many. Its
    SQNR may then differ a little from that of the whole matrix.

    References
    ----------
    Y. Shoham and A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 36 (9), 1988.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((256, 64))
    >>> choice = fq.choose_bits(w, sqnr=18)
    >>> choice.bits, choice.group_size
    (4, None)
    >>> print(choice)  # doctest: +ELLIPSIS
    choose_bits: the fewest bits per weight with an SQNR of 18 dB or more, ...
      w (256 x 64): 4 bits, no groups, 4.125 bits per weight, SQNR 19.9 dB; ...
    """
    if (sqnr is None) == (budget is None):
        given = "neither" if sqnr is None else "both"
        raise ValueError(f"choose_bits takes either sqnr (a quality in dB) or budget (bits per weight); got {given}")
    name, goal = ("sqnr", sqnr) if budget is None else ("budget", budget)
    goal = _finite(goal, name)
    widths = [check_bits(b) for b in _several(bits, "bits")]
    along = check_axis(axis, 2)
    if along is None:
        raise ValueError(
            "axis must be 0 (one scale per column, for x @ q) or 1 (one per row, for x @ q.T) to choose bits; got None"
        )
    groups = [None if g is None else check_group(g) for g in _several(group_sizes, "group_sizes")]
    alone = not isinstance(w, Mapping)
    weights: Mapping[Any, Any] = {"w": w} if alone else w  # type: ignore[assignment]
    if not weights:
        raise ValueError("w must hold one matrix or more, got an empty mapping")
    examples = {"w": calibration} if alone else _by_name(calibration, weights)
    tell = print if report is True else report if callable(report) else None
    lines: list[tuple[_Matrix | None, str]] = []

    def say(line: str, matrix: _Matrix | None = None) -> None:
        """Pass a line on at once, and keep it for the report of one matrix, or of all."""
        lines.append((matrix, line))
        if tell is not None:
            tell(line)

    options = {"scheme": word(scheme, "scheme", SCHEMES), "method": scale_method(method)}
    matrices = {key: _Matrix(value, str(key), along, examples[key], options) for key, value in weights.items()}
    forms = {key: m.forms(widths, groups) for key, m in matrices.items()}
    if budget is None:
        say(f"choose_bits: the fewest bits per weight with an SQNR of {goal:g} dB or more, each by itself")
        trials = {key: _good_enough(m, forms[key], goal, say) for key, m in matrices.items()}
    else:
        trials = _best_mix(matrices, forms, goal, say)
    choices = {}
    for key, trial in trials.items():
        about = "\n".join(line for matrix, line in lines if matrix in (None, matrices[key]))
        form, tried = trial.form, tuple(t.figures for t in matrices[key].tried)
        more: dict[str, Any] = {**options, "axis": along, "report": about, "tried": tried}
        choices[key] = Choice(form.bits, form.group, form.cost, trial.sqnr, **more)
    return choices["w"] if alone else choices


class _Matrix:
    """A matrix of weights (with `along` = 1, its transpose), or some of its columns, to try forms on."""

    def __init__(self, w: npt.ArrayLike, name: str, along: int, calibration: Any, options: dict[str, Any]) -> None:
        matrix = _matrix(w, name)
        whole = matrix.T if along else matrix
        self.name, self.shape, self.options = name, matrix.shape, options
        self.k, self.lines = whole.shape[0], ("columns", "rows")[along]
        k, n = whole.shape
        self.columns = min(n, max(1, SAMPLE // k))
        self.w = whole[:, np.arange(self.columns) * n // self.columns]
        self.tried: list[Trial] = []
        self.rows: Array | None = None  # so that the noise is |rows @ D|^2
        self.moment: Array | None = None  # or tr(D^T moment D)
        if hasattr(calibration, "matrix"):
            self.moment = _matrix(calibration.matrix, "calibration").astype(np.float64)
        elif calibration is not None:
            self.rows = _matrix(calibration, "calibration").astype(np.float64)
            if len(self.rows) > k:
                self.moment = self.rows.T @ self.rows
        of = self.rows if self.moment is None else self.moment
        if of is not None and (of.ndim != 2 or of.shape[1] != k or (self.rows is None and len(of) != k)):
            raise ValueError(
                f"calibration of {name} must have K = {k} columns, as {name} has {('rows', 'columns')[along]}; "
                f"got {of.shape}" + f" with axis={along}" * bool(along)
            )
        self.signal = self._power(self.w.astype(np.float64))

    def __str__(self) -> str:
        of, high = f"{self.name} ({self.shape[0]} x {self.shape[1]}", math.prod(self.shape) // self.k
        return of + (f", {self.columns} {self.lines} tried)" if self.columns < high else ")")

    def tell(self, trial: Trial, why: str, say: _Say) -> None:
        """Say what was chosen, and give a hint if another scheme would do better."""
        say(f"  {self}: {trial}" + f"; {why}" * bool(why), self)
        hint = one_sided(self.w, self.name) if self.options["scheme"] == "symmetric" and trial.noise else ""
        if hint:
            say(f"    hint: {hint}", self)

    def forms(self, widths: list[int], groups: list[int | None]) -> list[Candidate]:
        """All forms to choose from, the cheapest first; groups of a whole column or more count as no groups."""
        pairs = {(b, None if g is None or g >= self.k else g) for b in widths for g in groups}
        forms = (Candidate(bits_per_weight(self.k, b, g, self.options["scheme"]), b, g) for b, g in pairs)
        return sorted(forms, key=lambda f: f[:2])

    def trial(self, form: Candidate) -> Trial:
        """Quantize in this form, and measure the noise."""
        q = quantize(self.w, form.bits, axis=0, group_size=form.group, **self.options)
        noise = self._power(q.dequantize(np.float64) - self.w)
        self.tried.append(Trial(form, noise / self.signal if self.signal else 0.0))
        return self.tried[-1]

    def _power(self, d: Array) -> float:
        """``tr(D^T H D)``, or ``|D|^2`` without a calibration."""
        if self.moment is not None:
            return max(0.0, float(numpys.vdot(d, self.moment @ d)))
        if self.rows is not None:
            d = self.rows @ d
        return float(numpys.vdot(d, d))


def _good_enough(matrix: _Matrix, forms: list[Candidate], sqnr: float, say: _Say) -> Trial:
    """The cheapest form that is good enough."""
    tried: list[Trial] = []
    for form in forms:
        trial = matrix.trial(form)
        if trial.sqnr >= sqnr:
            why = f"{tried[-1].form}: {tried[-1].sqnr:.1f} dB" if tried else "nothing is smaller"
            matrix.tell(trial, why, say)
            return trial
        tried.append(trial)
    best = max(tried, key=lambda t: t.sqnr)
    raise ValueError(
        f"sqnr must be within reach of what may be chosen, but for {matrix.name} the best is {best.sqnr:.1f} dB, with "
        f"{best.form}; got sqnr={sqnr:g}"
    )


def _best_mix(
    matrices: dict[Any, _Matrix], forms: dict[Any, list[Candidate]], budget: float, say: _Say
) -> dict[Any, Trial]:
    """The forms of least noise in total, within a budget."""
    sizes = {key: math.prod(m.shape) for key, m in matrices.items()}
    total = sum(sizes.values())
    least = sum(forms[key][0].cost * size for key, size in sizes.items()) / total
    if least > budget:
        raise ValueError(
            f"budget must allow the smallest forms that may be chosen, which take {least:.3f} bits per weight with "
            f"their scales; got budget={budget:g}"
        )
    trials = {key: [m.trial(form) for form in forms[key]] for key, m in matrices.items()}
    chosen = allocate(trials, sizes, budget * total)
    used = sum(t.form.cost * sizes[key] for key, t in chosen.items()) / total
    noise = sum(t.noise for t in chosen.values())
    say(f"choose_bits: the least sum of relative noise within {budget:g} bits per weight")
    for key, trial in chosen.items():
        share = f"{trial.noise / noise if noise else 0:.0%} of the noise" if len(chosen) > 1 else ""
        matrices[key].tell(trial, share, say)
    say(f"  {used:.3f} bits per weight on average, relative noise {noise:.3g} in total")
    return chosen


def _matrix(x: npt.ArrayLike, name: str) -> Array:
    """A matrix of finite numbers."""
    array = as_floats(np.asarray(x), name)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be a matrix that is not empty, got shape {array.shape}")
    check_finite(array, name)
    return array


def _finite(value: Any, name: str) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else real(value, name, "a number")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return number


def _several(values: Any, name: str) -> list[Any]:
    try:
        several = list(None if isinstance(values, str | bytes) else values)  # type: ignore[arg-type]
    except TypeError:  # 0-d arrays have an __iter__, too
        raise TypeError(f"{name} must be several values to choose from, such as [3, 4]; got {shown(values)}") from None
    if not several:
        raise ValueError(f"{name} must hold one value or more to choose from, got none")
    return several


def _by_name(calibration: Any, weights: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if calibration is None:
        return dict.fromkeys(weights)
    if not isinstance(calibration, Mapping) or (missing := [key for key in weights if key not in calibration]):
        got = f"nothing for {shown(missing[0])}" if isinstance(calibration, Mapping) else type(calibration).__name__
        raise ValueError(f"calibration of several weights must be a mapping with the same names; got {got}")
    return calibration
