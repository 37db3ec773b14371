"""How many bits, in groups of what size: for a wanted quality, or under a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.api import quantize
from fastq.messages import shown
from fastq.qarray.array import QArray, Scheme
from fastq.quant.affine import check_finite
from fastq.quant.methods import Percentile, scale_method
from fastq.rules import as_floats, check_bits, check_group, real, word
from fastq.scheme import SCHEMES

Array = npt.NDArray[Any]
Name = TypeVar("Name")
ScaleMethod = Literal["minmax", "mse", "percentile"] | Percentile
SAMPLE = 1 << 20  # elements of a matrix that are tried, as whole columns


@dataclass(frozen=True)
class Choice:
    """A form for a matrix of weights, and what it costs and gives; :func:`fastq.choose_bits` makes them.

    Attributes
    ----------
    bits : int
    group_size : int or None
    bits_per_weight : float
        With scales and zero points, as :func:`fastq.choice.bits_per_weight` counts them.
    sqnr_db : float
        Of the weights, or of the output where a calibration was given.
    scheme, method : str
        As they were given.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((256, 64))
    >>> choice = fq.choose_bits(w, budget=3.5, report=False)
    >>> choice.bits, choice.group_size, choice.bits_per_weight
    (3, 64, 3.375)
    >>> choice.quantize(w).group_size
    64
    """

    bits: int
    group_size: int | None
    bits_per_weight: float
    sqnr_db: float
    scheme: Scheme = "symmetric"
    method: Any = "mse"

    def quantize(self, w: npt.ArrayLike) -> QArray:
        """``fq.quantize(w, axis=0)`` in this form."""
        form: dict[str, Any] = {"group_size": self.group_size, "scheme": self.scheme, "method": self.method}
        return quantize(w, self.bits, axis=0, **form)


class _Form(NamedTuple):
    """A width and a size of groups, and what they cost."""

    cost: float
    bits: int
    group: int | None

    def __str__(self) -> str:
        return f"{self.bits} bits, {'whole columns' if self.group is None else f'groups of {self.group}'}"


class _Trial(NamedTuple):
    """A form that was tried, and its noise, relative to the signal."""

    form: _Form
    noise: float

    @property
    def sqnr(self) -> float:
        return -10 * math.log10(self.noise) if self.noise else math.inf


@overload
def choose_bits(
    w: Mapping[Name, npt.ArrayLike], *, sqnr: float | None = ..., budget: float | None = ..., calibration: Any = ...,
    group_sizes: Iterable[int | None] = ..., bits: Iterable[int] = ..., method: ScaleMethod = ...,
    scheme: Scheme = ..., report: bool | Callable[[str], Any] = ...,
) -> dict[Name, Choice]: ...  # fmt: skip
@overload
def choose_bits(
    w: npt.ArrayLike, *, sqnr: float | None = ..., budget: float | None = ..., calibration: Any = ...,
    group_sizes: Iterable[int | None] = ..., bits: Iterable[int] = ..., method: ScaleMethod = ...,
    scheme: Scheme = ..., report: bool | Callable[[str], Any] = ...,
) -> Choice: ...  # fmt: skip
def choose_bits(
    w: npt.ArrayLike | Mapping[Any, npt.ArrayLike],
    *,
    sqnr: float | None = None,
    budget: float | None = None,
    calibration: Any = None,
    group_sizes: Iterable[int | None] = (None, 128, 64, 32),
    bits: Iterable[int] = range(2, 9),
    method: ScaleMethod = "mse",
    scheme: Scheme = "symmetric",
    report: bool | Callable[[str], Any] = True,
) -> Any:
    """Choose the width and the size of groups for weights: the smallest that are good enough, or the best that fit.

    The relative noise of a form is ::

        r = |W_hat - W|^2 / |W|^2                                without a calibration
        r = tr(D^T H D) / tr(W^T H W),  D = W_hat - W            with one, H = X^T X of its rows X

    the latter being that of the output ``x @ w``. With `sqnr`, each matrix gets the form of the fewest bits per weight
    that has ``-10 log10(r) >= sqnr``. With `budget`, the sum of r over all matrices is made small while the bits per
    weight, averaged over all elements, stay within the budget: from the smallest form of each, steps along the lower
    convex hulls of (bits, noise) are taken in the order of what they gain per bit, as a Lagrange multiplier would,
    then the bits left over are spent where they gain most.

    Parameters
    ----------
    w : array_like or mapping of them
        Weights (K, N), which will have one scale per column (``axis=0``), or several such under their names.
    sqnr : float, optional
        The wanted signal to quantization noise ratio in dB. Either this or `budget`.
    budget : float, optional
        Bits per weight, with scales (:func:`fastq.choice.bits_per_weight`), on average over the elements of all
        weights.
    calibration : array_like, mapping, or object with `matrix`, optional
        Rows (n, K) of what the weights will be multiplied with, or an object whose `matrix` is their second moment
        (K, K), in any unit. For several weights a mapping with the same names.
    group_sizes : iterable of int or None
        Sizes of groups to choose from; None is one scale per column.
    bits : iterable of int
        Widths to choose from.
    method, scheme : str
        As :func:`fastq.quantize` takes them, but for ``"gptq"``: choose with ``"mse"``, and what gptq makes of the form
        is better still.
    report : bool or callable
        Print what was decided and why (the default); or call this with each line of it.

    Returns
    -------
    Choice, or dict of them
        One for each matrix.

    Raises
    ------
    TypeError
        If an argument is of a wrong type.
    ValueError
        If not exactly one of `sqnr` and `budget` is given, if it cannot be met, or shapes do not fit. As
        :class:`fastq.NotFiniteError` if w or the calibration holds NaN or infinity.

    Notes
    -----
    Of a matrix with more than 2**20 elements some columns are tried, spread evenly; the report says how many. An SQNR
    may then differ a little from that of the whole.

    References
    ----------
    Y. Shoham and A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 36 (9), 1988.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> w = np.random.default_rng(0).standard_normal((256, 64))
    >>> choice = fq.choose_bits(w, sqnr=18, report=False)
    >>> choice.bits, choice.group_size
    (4, None)
    """
    if (sqnr is None) == (budget is None):
        given = "neither" if sqnr is None else "both"
        raise ValueError(f"choose_bits takes either sqnr (a quality in dB) or budget (bits per weight); got {given}")
    name, goal = ("sqnr", sqnr) if budget is None else ("budget", budget)
    goal = _finite(goal, name)
    widths = [check_bits(b) for b in _several(bits, "bits")]
    groups = [None if g is None else check_group(g) for g in _several(group_sizes, "group_sizes")]
    alone = not isinstance(w, Mapping)
    weights: Mapping[Any, Any] = {"w": w} if alone else w  # type: ignore[assignment]
    if not weights:
        raise ValueError("w must hold one matrix or more, got an empty mapping")
    examples = {"w": calibration} if alone else _by_name(calibration, weights)
    tell: Callable[[str], Any] = print if report is True else report if callable(report) else _say_nothing
    form = {"scheme": word(scheme, "scheme", SCHEMES), "method": scale_method(method)}
    matrices = {key: _Matrix(value, str(key), examples[key], form) for key, value in weights.items()}
    forms = {key: m.forms(widths, groups) for key, m in matrices.items()}
    if budget is None:
        tell(f"choose_bits: the fewest bits per weight with an SQNR of {goal:g} dB or more, each by itself")
        trials = {key: _good_enough(m, forms[key], goal, tell) for key, m in matrices.items()}
    else:
        trials = _best_mix(matrices, forms, goal, tell)
    found = {key: Choice(t.form.bits, t.form.group, t.form.cost, t.sqnr, **form) for key, t in trials.items()}
    return found["w"] if alone else found


def bits_per_weight(k: int, bits: int, group: int | None, scheme: str) -> float:
    """Bits of storage for each weight of a column of k: codes, and the parameters that come with them.

    A column has a float32 scale. Where scales of groups are integers under it (2 to 6 bits, groups of a multiple of
    16, symmetric or asymmetric), a byte of scale and one of zero point are stored for each group; otherwise each has a
    float32 scale of its own, with a zero point of 8 bits if asymmetric, or a float32 offset if affine.

    Examples
    --------
    >>> from fastq.choice import bits_per_weight
    >>> bits_per_weight(4096, 3, 64, "symmetric")
    3.2578125
    """
    scheme = word(scheme, "scheme", SCHEMES)
    sets = 1 if group is None else -(-k // group)
    if group is not None and bits <= 6 and group % 16 == 0 and scheme != "affine":
        return bits + (32 + 16 * sets) / k
    return bits + (32 + {"symmetric": 0, "asymmetric": 8, "affine": 32}[scheme]) * sets / k


class _Matrix:
    """One matrix of weights, or some columns of it, to try forms on."""

    def __init__(self, w: npt.ArrayLike, name: str, calibration: Any, form: dict[str, Any]) -> None:
        whole = _matrix(w, name)
        self.name, self.shape, self.form = name, whole.shape, form
        k, n = whole.shape
        self.columns = min(n, max(1, SAMPLE // k))
        self.w = whole[:, np.arange(self.columns) * n // self.columns]
        self.rows: Array | None = None  # so that the noise is |rows @ D|^2
        self.moment: Array | None = None  # or tr(D^T moment D)
        if hasattr(calibration, "matrix"):
            self.moment = _matrix(calibration.matrix, "calibration").astype(np.float64)
        elif calibration is not None:
            self.rows = _matrix(calibration, "calibration").astype(np.float64)
            if len(self.rows) > k:
                self.moment = self.rows.T @ self.rows
        of = self.rows if self.moment is None else self.moment
        if of is not None and (of.shape[1] != k or (self.rows is None and len(of) != k)):
            raise ValueError(f"calibration of {name} must have K = {k} columns, as {name} has rows; got {of.shape}")
        self.signal = self._power(self.w.astype(np.float64))

    def __str__(self) -> str:
        k, n = self.shape
        return f"{self.name} ({k} x {n}" + (f", {self.columns} columns tried)" if self.columns < n else ")")

    def forms(self, widths: list[int], groups: list[int | None]) -> list[_Form]:
        """All forms to choose from, the cheapest first; a group that holds a whole column is none."""
        k = self.shape[0]
        pairs = {(b, None if g is None or g >= k else g) for b in widths for g in groups}
        cost = {(b, g): bits_per_weight(k, b, g, self.form["scheme"]) for b, g in pairs}
        return sorted((_Form(cost[b, g], b, g) for b, g in pairs), key=lambda f: f[:2])

    def trial(self, form: _Form) -> _Trial:
        """Quantize in a form, and measure."""
        q = quantize(self.w, form.bits, axis=0, group_size=form.group, **self.form)
        noise = self._power(q.dequantize(np.float64) - self.w)
        return _Trial(form, noise / self.signal if self.signal else 0.0)

    def _power(self, d: Array) -> float:
        if self.moment is not None:
            return max(0.0, float(numpys.vdot(d, self.moment @ d)))
        if self.rows is not None:
            d = self.rows @ d
        return float(numpys.vdot(d, d))


def _good_enough(matrix: _Matrix, forms: list[_Form], sqnr: float, tell: Callable[[str], Any]) -> _Trial:
    """The cheapest form that is good enough."""
    tried: list[_Trial] = []
    for form in forms:
        trial = matrix.trial(form)
        if trial.sqnr >= sqnr:
            why = f"; {tried[-1].form}: {tried[-1].sqnr:.1f} dB" if tried else "; nothing is smaller"
            tell(f"  {matrix}: {_words(trial)}{why}")
            return trial
        tried.append(trial)
    best = max(tried, key=lambda t: t.sqnr)
    raise ValueError(
        f"sqnr must be within reach of what may be chosen, but for {matrix.name} the best is {best.sqnr:.1f} dB, with "
        f"{best.form}; got sqnr={sqnr:g}"
    )


def _best_mix(
    matrices: dict[Any, _Matrix], forms: dict[Any, list[_Form]], budget: float, tell: Callable[[str], Any]
) -> dict[Any, _Trial]:
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
    chosen = _allocate(trials, sizes, budget * total)
    used = sum(t.form.cost * sizes[key] for key, t in chosen.items()) / total
    noise = sum(t.noise for t in chosen.values())
    tell(f"choose_bits: the least sum of relative noise within {budget:g} bits per weight")
    for key, trial in chosen.items():
        tell(f"  {matrices[key]}: {_words(trial)}; {trial.noise / noise if noise else 0:.0%} of the noise")
    tell(f"  {used:.3f} bits per weight on average, relative noise {noise:.3g} in total")
    return chosen


def _allocate(trials: dict[Any, list[_Trial]], sizes: dict[Any, int], allowed: float) -> dict[Any, _Trial]:
    """Steps along the convex hulls, the steepest first; then what else fits."""
    hulls = {key: _hull(tried) for key, tried in trials.items()}
    chosen = {key: hull[0] for key, hull in hulls.items()}
    spent = sum(t.form.cost * sizes[key] for key, t in chosen.items())

    def price(key: Any, trial: _Trial) -> float:
        return (trial.form.cost - chosen[key].form.cost) * sizes[key]

    steps = [(_gain(a, b) / sizes[key], key, b) for key, hull in hulls.items() for a, b in pairwise(hull)]
    for _, key, after in sorted(steps, key=lambda step: -step[0]):
        if spent + price(key, after) > allowed:
            break  # smaller steps that save less would use up what may buy a better form below
        spent += price(key, after)
        chosen[key] = after
    while True:
        fits = [
            (chosen[key].noise - t.noise, key, t)
            for key, tried in trials.items()
            for t in tried
            if t.noise < chosen[key].noise and spent + price(key, t) <= allowed
        ]
        if not fits:
            return chosen
        _, key, trial = max(fits, key=lambda fit: fit[0])
        spent += price(key, trial)
        chosen[key] = trial


def _hull(trials: list[_Trial]) -> list[_Trial]:
    """The lower convex hull of noise over cost, from the cheapest to the one of least noise."""
    hull: list[_Trial] = []
    for trial in sorted(trials, key=lambda t: (t.form.cost, t.noise)):
        if hull and trial.noise >= hull[-1].noise:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], trial):
            hull.pop()
        hull.append(trial)
    return hull


def _gain(before: _Trial, after: _Trial) -> float:
    """Noise saved for each bit per weight."""
    return (before.noise - after.noise) / (after.form.cost - before.form.cost)


def _words(trial: _Trial) -> str:
    return f"{trial.form}, {trial.form.cost:.3f} bits per weight, SQNR {trial.sqnr:.1f} dB"


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


def _say_nothing(line: str) -> None:
    """Report to nobody."""
