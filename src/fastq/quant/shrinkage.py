"""How far a second moment of few rows is shrunk towards its diagonal.

Rounding that compensates its errors uses every entry of the moment S. The mean of n rows has errors of the order of
1 / sqrt(n) in each entry. If most of the K * (K - 1) / 2 entries for pairs of K channels are chance, products become
worse than by rounding to nearest, and worst at n = K. Ledoit and Wolf shrink S towards a target that few rows are
enough for; here it is the diagonal of S, because channels differ in size ::

    H = (1 - intensity) * S + intensity * diag(S)

Their intensity follows from fourth moments and minimises the squared error of H's entries. That does well where
channels are hardly correlated, but a few strong directions hide that all others are chance. A mean that is not 0
outweighs everything (rows N(1, 1), n = K / 2: 0.35 dB worse than mse, where 2.8 can be gained), and inputs of low rank
are blurred (rank K / 8, n = K / 4: 4 dB less than without). So the intensity is chosen by its purpose: some rows are
held out of S, and used to measure the error that later channels cannot compensate. With ``H = R @ R.T``, R upper
triangular (:mod:`fastq.quant.gptq`), it is ::

    left(intensity) = mean over held rows x of sum_i r_i**2
    r = inv(R / diag(R)) @ x

Here x is in units of each channel's root mean square, so that a few large channels do not decide alone.

References
----------
Ledoit, Wolf: A well-conditioned estimator for large-dimensional covariance matrices. Journal of Multivariate Analysis
88(2), 365-411, 2004. Towards the diagonal: Schaefer, Strimmer: A shrinkage approach to large-scale covariance matrix
estimation. Statistical Applications in Genetics and Molecular Biology 4(1), 32, 2005.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastq import numpys

Array = npt.NDArray[Any]

HELD = 256  # rows that are held, at most
SPAN = 16  # consecutive rows that are held together: neighbours in a text are alike, and one must not test the other
INTENSITIES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.55, 0.8)  # and 1; finer ones would gain 0.1 dB at most
START = 3
RIDGE = 1e-3  # added to the diagonal, because the sums below are float32
BLOCK = 128


class KeptRows:
    """Rows spread evenly over all that came, in whatever parts they came."""

    def __init__(self) -> None:
        self.rows = np.empty((0, 0))
        self._index = np.empty(0, np.int64)
        self._stride = 1

    def add(self, rows: Array, start: int) -> None:
        """Take in more rows, the first of which is number `start`."""
        index = np.arange(start, start + len(rows))
        kept = self._is_kept(index)
        if not kept.any():
            return
        more = rows[kept].astype(np.float64)
        self.rows = np.concatenate([self.rows, more]) if len(self.rows) else more
        self._index = np.concatenate([self._index, index[kept]])
        while len(self.rows) > HELD:
            self._stride *= 2
            kept = self._is_kept(self._index)
            self.rows, self._index = self.rows[kept], self._index[kept]

    def _is_kept(self, index: Array) -> Array:
        kept: Array = index // SPAN % self._stride == 0
        return kept


def intensity(matrix: Array, rows: int, held: Array) -> float:
    """The intensity for the moment of so many rows, some of which are held; 1: only the diagonal is used."""
    held = held[-(rows // 2) :] if rows > 1 else held[:0]  # at least half of the rows stay in the moment
    if len(held) < 2:
        return 1.0
    share = len(held) / rows
    rest = (matrix - share / len(held) * (held.T @ held)) / (1 - share)
    diagonal = np.diagonal(rest)
    alive = diagonal > 1e-6 * np.diagonal(matrix)
    size = np.where(alive, np.sqrt(np.where(alive, diagonal, 1)), np.inf)
    rest /= size
    rest /= size[:, None]
    correlation, z = rest.astype(np.float32), np.ascontiguousarray((held / size).T, np.float32)
    del rest

    @cache
    def errors(number: int) -> Array:
        return left(correlation, INTENSITIES[number], z)

    # There is one minimum: walk down to it.
    best = START
    for step in (1, -1):
        while 0 <= best + step < len(INTENSITIES) and errors(best + step).sum() < errors(best).sum():
            best += step
        if best != START:
            break
    saved = np.square(z).sum(axis=0, dtype=np.float64) - errors(best)  # against the diagonal
    proven = saved.mean() > saved.std(ddof=1) / np.sqrt(len(saved))
    return INTENSITIES[best] if proven else 1.0


def left(correlation: Array, intensity: float, z: Array) -> Array:
    """``sum_i r_i**2`` of each held row; these are the columns of z."""
    h = correlation * np.float32(1 - intensity)
    h[np.diag_indices(len(h))] = 1 + RIDGE
    r = z.copy()
    # Block after block is eliminated, the last channels first; h is updated above its diagonal only.
    for b in range(len(h), 0, -BLOCK):
        a = max(b - BLOCK, 0)
        try:
            upper = numpys.cholesky(h[a:b, a:b].T[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError:
            return np.full(z.shape[1], np.inf)
        inverse = numpys.inv(upper)
        panel = h[:a, a:b] @ inverse.T
        for start in range(0, a, 4 * BLOCK):
            stop = min(start + 4 * BLOCK, a)
            h[:stop, start:stop] -= panel[:stop] @ panel[start:stop].T
        solved = inverse @ r[a:b]
        r[:a] -= panel @ solved
        r[a:b] = np.diagonal(upper)[:, None] * solved
    total: Array = np.square(r).sum(axis=0, dtype=np.float64)
    return total
