"""Rounding that compensates its own errors by calibration data (``method="gptq"``).

It makes the error of products small, not that of weights: ``error.T @ H @ error`` per column. H is the second moment of
the inputs (:class:`fastq.SecondMoment`), shrunk where rows are few (:mod:`fastq.quant.shrinkage`). Where inputs are
correlated, the rows of weights that follow can compensate the error of one row. With the triangular factor of the
damped moment, ``H = R @ R.T`` and R upper triangular, the sum is one of squares, one per row ::

    error.T @ H @ error = sum_i R_ii**2 * (rounded_i - value_i)**2
    value_i = w_i - sum_{j<i} (R_ji / R_ii) * (rounded_j - w_j)

GPTQ rounds value_i to its nearest code, row after row (Frantar et al., 2022, arXiv:2210.17323). This form of it,
Babai's nearest plane (Chen et al., 2025, arXiv:2507.18553), needs no inverse of H.

Two things are added. Decibels of output error against the mse search, 3 bits, held-out rows::

                                            digits, group 16    AR(1) 0.9, group 64
    GPTQ, scales by the mse search                -6.4                -6.8
    scales by trial                               -7.8                -7.5
    and two sweeps                                -8.2                -7.6

* *Scales by trial*: several scales around that of the mse search are tried for each group, and the one with the
  smallest sum above, over the rows of the group, is taken. Scales around those of a search weighed by R_ii**2 are
  tried, too. They matter where a few channels outweigh all others (eight of 1,024, 20 to 100 times larger, groups of
  64: 3 dB); alone they gain little on these two: -6.5 and -6.6.
* *Sweeps*: each group is done again while all others, before and after it, stay fixed: scale (and offset) by least
  squares, then again by trial, and codes by nearest plane with the factor of the group's block of H. A column takes the
  result if its error becomes smaller. Descent on single codes instead gained 0.1 less; beams of 4 and 16 codes instead
  of the nearest, 0.1 to 0.2 more before the sweeps and nothing after them on the digits.

Integer scales lose 0.1 dB here. At 6 bits, where at most four of them fit, one scale per column does better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq import numpys
from fastq.engine.backend import backend
from fastq.errors import shown, with_type
from fastq.kernels.jobs import COMPENSATED_COLUMNS, COMPENSATED_ROWS
from fastq.layout.tiles import ceil_div
from fastq.quant.affine import check_finite
from fastq.quant.groups import chosen, largest
from fastq.quant.moment import Damped, SecondMoment
from fastq.quant.search import search
from fastq.quant.spec import Quantized, QuantParams, QuantSpec

Array = npt.NDArray[Any]

FIRST = np.linspace(0.76, 1.24, 13)  # scales on trial, in units of the mse search's
FEW = np.linspace(0.94, 1.06, 3)  # in units of the weighted search's, where some channels outweigh all others
AGAIN = np.linspace(0.9, 1.1, 7)  # in sweeps, in units of the scale so far


@dataclass(frozen=True)
class Gptq:
    """Options of error-compensating rounding.

    Parameters
    ----------
    damping : float
        Share of its mean diagonal that is added to the diagonal of the second moment, 0 to 1. A second moment of inputs
        that depend on each other has no inverse; damping gives it one. Few rows need no more of it, because the moment
        is shrunk; with more, small channels beside a few large ones lose (eight of 1,024, 20 to 100 times larger:
        0.6 dB at 0.01). Where the Cholesky factor cannot be had, damping rises tenfold, up to 1.
    activation_order : bool
        Round the rows with the largest inputs first, so that the others compensate their errors. Scales are then chosen
        beforehand, from the weights as they are.
    sweeps : int
        How many times every group is done again after the first pass.

    Raises
    ------
    TypeError, ValueError
        If an option is of a wrong type or out of range.

    References
    ----------
    Frantar, Ashkboos, Hoefler, Alistarh: GPTQ, 2022, arXiv:2210.17323.

    Examples
    --------
    >>> import numpy as np, fastq as fq
    >>> rng = np.random.default_rng(0)
    >>> w = rng.standard_normal((32, 8))
    >>> x = rng.standard_normal((500, 8)) @ rng.standard_normal((8, 32))
    >>> methods = "mse", fq.Gptq(damping=0.001, sweeps=1)
    >>> q = [fq.quantize(w, 3, axis=0, method=m, calibration=x) for m in methods]
    >>> fq.error(x @ w, x @ q[1]).mse < 0.5 * fq.error(x @ w, x @ q[0]).mse
    True
    """

    damping: float = 0.003
    activation_order: bool = False
    sweeps: int = 2

    def __post_init__(self) -> None:
        for name, kinds, rule in (
            ("damping", (int, float), "a number from 0 to 1"),
            ("activation_order", (bool,), "True or False"),
            ("sweeps", (int,), "an integer, 0 or more"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
                raise TypeError(f"{name} must be {rule}, got {with_type(value)}")
        if not 0 <= self.damping <= 1:
            raise ValueError(f"damping must be from 0 to 1, as a share of the mean diagonal; got {shown(self.damping)}")
        if self.sweeps < 0:
            raise ValueError(f"sweeps must be 0 or more, got {shown(self.sweeps)}")


def quantize_columns(
    w: Array,
    spec: QuantSpec,
    moment: SecondMoment,
    options: Gptq | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Quantized:
    """Codes and parameters of a K x N matrix that keep the error of ``x @ w`` small for inputs like the calibration's.

    w is float32 or float64, of any strides; `spec` has axis 0. Parameters have shape (groups, N); under integer scales
    of groups, scale has shape (1, N). `progress` is called with (rows done, rows to do) as it goes, over all passes.

    A channel whose input was always 0 has no say in others' errors; its row is rounded to the nearest codes. The result
    is the same on every instruction set as long as NumPy's BLAS, which the larger products go to, is the same.

    ValueError tells that the moment has another width, or that no damping up to 1 makes it positive definite;
    NotFiniteError that w holds NaN or infinity.
    """
    options = Gptq() if options is None else options
    k = len(w)
    if moment.matrix.shape != (k, k):
        raise ValueError(
            f"calibration must have rows of {k} elements, one per row of the weights; got {len(moment.matrix)}"
        )
    check_finite(w, "x")
    # Columns are brought to about 1 by powers of two, exactly, so that no square overflows or vanishes.
    exponent = np.frexp(np.abs(w).max(axis=0, initial=0))[1]
    # Columns of zeros fill the last block of the kernel.
    n = w.shape[1]
    values = np.zeros((k, ceil_div(n, COMPENSATED_COLUMNS) * COMPENSATED_COLUMNS), w.dtype)
    values[:, :n] = np.ldexp(w, -exponent)
    # One unit per column, of which all groups' scales are to be multiples, as the mse search has it.
    unit = None
    if spec.integer and w.size:
        unit = chosen(values, search(values, spec, moment.weights), spec, moment.weights).scale[0]
    work = _Work(values, spec, unit)
    if w.size:
        work.solve(Damped(moment, float(options.damping), w.dtype), options, progress or (lambda done, total: 0))
    codes, (scale, zero, offset) = work.codes[:, :n].copy(), work.params[..., :n].copy()
    group_scale = None
    if unit is not None:
        group_scale = np.rint(scale / unit[:n]).astype(np.int8)
        scale = unit[None, :n]
    scale = np.ldexp(scale, exponent)
    scale[scale == 0] = np.finfo(w.dtype).smallest_subnormal
    params = QuantParams.of_scheme(spec.scheme, scale, zero, np.ldexp(offset, exponent))
    return Quantized(codes, params._replace(group_scale=group_scale))


def _pieces(a: int, b: int) -> Iterator[tuple[int, int]]:
    """Runs of rows that a kernel takes at once."""
    for start in range(a, b, COMPENSATED_ROWS):
        yield start, min(start + COMPENSATED_ROWS, b)


class _Work:
    """A matrix on its way to codes, and the codes and parameters so far."""

    def __init__(self, w: Array, spec: QuantSpec, unit: Array | None) -> None:
        k, n = w.shape
        limits, group = spec.limits, spec.group or max(k, 1)
        self.w, self.spec, self.limits, self.scheme, self.unit = w, spec, limits, spec.scheme, unit
        self.groups = [(a, min(a + group, k)) for a in range(0, max(k, 1), group)]
        self.group_of = np.arange(k) // group
        self.codes = np.zeros((k, n), np.int8 if limits.signed else np.uint8)
        self.error = np.zeros_like(w)  # rounded - w
        self.params = np.zeros((3, len(self.groups), n), w.dtype)
        self.scale, self.zero, self.offset = self.params
        self.scale[:] = 1

    def solve(self, metric: Damped, options: Gptq, progress: Callable[[int, int], Any]) -> None:
        """All passes."""
        first = self.round_by_activation if options.activation_order else self.round_in_order
        passes = [first, *[self.sweep] * options.sweeps]
        for number, one_pass in enumerate(passes):
            for done in one_pass(metric):
                progress(number * len(self.w) + done, len(passes) * len(self.w))

    # First pass

    def round_in_order(self, metric: Damped) -> Iterator[int]:
        """Group after group, with parameters for its weights plus what compensates the errors before them."""
        carry, weight = metric.factor(np.arange(len(self.w)))
        for g, (a, b) in enumerate(self.groups):
            target = _target(self.w, self.error, carry, a, b)
            signs = (1, -1) if self.scheme == "symmetric" else (1,)  # codes reach one step further down than up
            starts = []
            for weights, multiples in ((weight[a:b], FEW), (None, FIRST)):
                self.search(g, target, weights)
                starts.append(self.candidates(g, np.concatenate([sign * multiples for sign in signs])))
            tried = np.concatenate(starts, axis=1)
            pieces = list(_pieces(0, b - a))
            loss = sum(
                self.compensate(target[p:q], carry[a + p : a + q, a + p : a + q], weight[a + p : a + q], tried)[0]
                for p, q in pieces
            )
            self.take(g, tried, loss)
            for p, q in pieces:
                rows = slice(a + p, a + q)
                now = target if len(pieces) == 1 else _target(self.w, self.error, carry, a + p, a + q)
                _, self.codes[rows] = self.compensate(now, carry[rows, rows], weight[rows], self.candidates(g))
                self.error[rows] = self.rounded(rows) - self.w[rows]
            yield b

    def round_by_activation(self, metric: Damped) -> Iterator[int]:
        """Rows by falling inputs, with parameters chosen beforehand."""
        for g, (a, b) in enumerate(self.groups):
            self.search(g, self.w[a:b])
        order = np.argsort(-np.diagonal(metric.matrix), kind="stable")
        carry, weight = metric.factor(order)
        w, error = self.w[order], np.zeros_like(self.w)
        for a, b in _pieces(0, len(w)):
            rows = order[a:b]
            by_row = self.params[:, None, self.group_of[rows]]
            target = _target(w, error, carry, a, b)
            _, self.codes[rows] = self.compensate(target, carry[a:b, a:b], weight[a:b], by_row)
            error[a:b] = self.rounded(rows) - w[a:b]
        self.error[order] = error
        yield len(w)

    # Sweeps

    def sweep(self, metric: Damped) -> Iterator[int]:
        """Every group once more, with all others held fixed."""
        for g, (a, b) in enumerate(self.groups):
            gradient = self.refit(g, metric)
            for p, q in _pieces(a, b):
                if (p, q) == (a, b):
                    self.again(g, slice(p, q), metric.block(p, q), gradient, metric, AGAIN)
                else:
                    self.again(g, slice(p, q), metric.block(p, q), metric.rows(p, q) @ self.error, metric, np.ones(1))
            yield b

    def refit(self, g: int, metric: Damped) -> Array:
        """Scale and offset by least squares, one after the other, with codes as they are; returns H @ error."""
        a, b = self.groups[g]
        gradient = metric.rows(a, b) @ self.error
        block = metric.block(a, b).astype(metric.dtype)
        steps = self.codes[a:b] - self.zero[g]
        for values, basis in ((self.scale, steps), (self.offset, np.ones_like(steps))):
            if values is self.offset and self.scheme != "affine":
                break
            slope = block @ basis
            curvature = (basis * slope).sum(axis=0)
            usable = curvature > 0
            new = values[g] - np.where(usable, (basis * gradient).sum(axis=0) / np.where(usable, curvature, 1), 0)
            if values is self.scale:
                new = self.snap(new, self.zero[g])
                new = np.where(new != 0 if self.scheme == "symmetric" else new > 0, new, values[g])
            gradient += (new - values[g]) * slope
            values[g] = new
        self.error[a:b] = self.rounded(slice(a, b)) - self.w[a:b]
        return gradient

    def again(
        self, g: int, rows: slice, block: Array, gradient: Array, metric: Damped, multiples: npt.NDArray[np.float64]
    ) -> None:
        """Parameters and codes of rows (a group, or a piece of one), given the errors of all others."""
        # With all other rows fixed, the sum is (error - best).T @ block @ (error - best) plus a constant.
        away = numpys.solve(block.astype(metric.dtype), gradient)
        target = self.w[rows] + self.error[rows] - away
        carry, weight = metric.triangle(block)
        tried = self.candidates(g, multiples)
        before = self.params[:, g].copy()
        if len(multiples) > 1:
            loss, _ = self.compensate(target, carry, weight, tried)
            self.take(g, tried, loss)
        loss, codes = self.compensate(target, carry, weight, self.candidates(g))
        better = loss[0] < (away * gradient).sum(axis=0)
        self.codes[rows] = np.where(better, codes, self.codes[rows])
        self.params[:, g] = np.where(better, self.params[:, g], before)
        self.error[rows] = self.rounded(rows) - self.w[rows]

    # Parameters and codes of a group

    def search(self, g: int, target: Array, weights: Array | None = None) -> None:
        """Parameters with the smallest (weighted) squared error, as a start."""
        scale, zero, offset, _ = search(target, self.spec._replace(group=None), weights)
        self.zero[g] = 0 if zero is None else zero[0]
        self.scale[g] = self.snap(scale[0], self.zero[g])
        self.offset[g] = 0 if offset is None else offset[0]

    def snap(self, scale: Array, zero: Array) -> Array:
        """The nearest scale that there is."""
        if self.unit is None:
            return scale
        factor = np.rint(scale / self.unit)
        factor = np.where(factor == 0, np.copysign(1, scale), factor)
        most = largest(factor, zero if self.scheme == "asymmetric" else None, self.spec.bits)
        return (np.clip(factor, -most, most) * self.unit).astype(scale.dtype)

    def candidates(self, g: int, multiples: npt.NDArray[np.float64] | None = None) -> Array:
        """Parameters of a group, (3, candidates, 1, n), with the scale multiplied about mid-range."""
        if multiples is None:
            return self.params[:, g, None, None]
        # A copy, because what is tried may outlive the group's own parameters: the next search overwrites those.
        tried = np.repeat(self.params[:, g, None], len(multiples), axis=1)
        scale, _, offset = tried
        scale[:] = self.snap(scale * multiples[:, None].astype(scale.dtype), self.zero[g])
        if self.scheme == "affine":
            offset += (self.scale[g] - scale) * scale.dtype.type(self.limits.high / 2)
        return tried[:, :, None]

    def take(self, g: int, tried: Array, loss: Any) -> None:
        """Give each column of a group the candidate with its smallest loss."""
        best = loss.argmin(axis=0)
        self.params[:, g] = np.take_along_axis(tried[:, :, 0], best[None, None], axis=1)[:, 0]

    def rounded(self, rows: Any) -> Array:
        """The values that rows of codes stand for."""
        if isinstance(rows, slice) and self.group_of[rows.start] == self.group_of[rows.stop - 1]:
            at: Any = self.group_of[rows.start]
        else:
            at = self.group_of[rows]
        values: Array = self.scale[at] * (self.codes[rows] - self.zero[at]) + self.offset[at]
        return values

    def compensate(self, target: Array, carry: Array, weight: Array, parameters: Array) -> tuple[Array, Array]:
        """The loss of each candidate, and the codes of the last: :class:`fastq.kernels.jobs.CompensateJob`."""
        loss = np.empty((len(parameters[0]), target.shape[1]), target.dtype)
        codes = np.empty(target.shape, self.codes.dtype)
        target, carry, weight, scale, zero, offset = map(np.ascontiguousarray, (target, carry, weight, *parameters))
        backend().compensate(target, carry, weight, scale, zero, offset, self.limits, loss, codes)
        return loss, codes


def _target(w: Array, error: Array, carry: Array, a: int, b: int) -> Array:
    """What rows a to b should be rounded from: their weights plus what compensates the errors of all rows before."""
    if a == 0:
        return w[:b]
    pull = carry[:a, a:b].T @ error[:a]
    target: Array = w[a:b] - numpys.solve(carry[a:b, a:b].T, pull)
    return target
