r"""Repeats of a training whose way to the target is known to the evaluations only: their mean and their spread.

A target is seen to be met at an evaluation, so that a recorded number of examples v stands for an interval as wide as
the way g from one evaluation to the next: v ± g/2. That it is centred on v and does not end there moves the law, and
what it predicts, by the same half of g. Repeats that agree to the last digit then say that the spread is small beside
g, not that it is zero; and five that agree leave their mean as uncertain as one does. With a spread of σ of log E over
seeds, about a mean m_b at batch size b, the likelihood is that of interval-censored normals (Gentleman & Geyer 1994,
equation 1),

    Π_b Π_i [Φ((log(v_i + g_b/2) - m_b)/σ) - Φ((log(v_i - g_b/2) - m_b)/σ)]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

__all__ = ["censored_means", "grid_of"]

Array = NDArray[np.float64]

_SPREADS = np.geomspace(0.003, 1.5, 48)
_MEANS = 161
_WIDEST = 8.0
"""Means are looked for up to so many spreads outside the intervals."""
_ALIKE, _PARTS = 0.01, (1, 2, 3)
"""Share of an amount within which a value counts as a multiple of it, and of it the least difference may be so many."""
_FEWEST = 4
"""Different values from which it is no accident that they are."""
_MATTERS = 0.01
"""Share of the least value: known to less than that, a value is known exactly."""


def grid_of(values: Sequence[float]) -> float:
    """The amount that all values are multiples of, as when a target is looked for every so often; 0: there is none.

    Args:
        values: steps or examples to the target, each of a run. Fewer than four different ones tell nothing, and an
            amount below a hundredth of the least of them does not matter.

    Example:
        >>> grid_of([1536000, 1536768, 2048000, 2560000, 3072000]) // 1000, grid_of([1031.0, 734.2, 891.7, 968.4])
        (512.0, 0.0)
    """
    distinct = np.unique(np.asarray(values, dtype=float))
    if len(distinct) < _FEWEST:
        return 0.0
    gaps = np.diff(distinct)
    gaps = gaps[gaps > _MATTERS * distinct[0]]
    for parts in _PARTS if len(gaps) else ():
        grid = float(gaps.min()) / parts
        number = np.round(distinct / grid)
        if number[0] < 1.0 or grid < _MATTERS * distinct[0]:
            continue
        grid = float(distinct @ number / (number @ number))
        if np.abs(distinct / grid - number).max() < _ALIKE:
            return grid
    return 0.0


def censored_means(
    runs: Sequence[Sequence[float]], grain: Sequence[float], *, spread: float, weight: float
) -> tuple[Array, Array, float]:
    """Means of log examples to the target at some batch sizes, and their spread over repeats.

    Args:
        runs: examples to the target of the runs at each batch size, none of them empty.
        grain: examples from one evaluation to the next at each batch size; 0: the way to the target is known exactly.
        spread: of log examples over repeats, before any were seen.
        weight: the number of repeats that this counts for.

    Returns:
        Mean of each batch size, shape (sizes,); variance of that mean, shape (sizes,); standard deviation over repeats,
        one for all batch sizes, what evaluations add left out.

    Cost: up to about 0.1 s. Valid where g is below twice the least v.
    """
    intervals = [_Intervals.of(own, every) for own, every in zip(runs, grain, strict=True)]
    moments = np.array([[own.moments(each) for each in _SPREADS] for own in intervals])
    log_weight = moments[..., 2].sum(axis=0) - weight * (np.log(_SPREADS) + 0.5 * (spread / _SPREADS) ** 2)
    share = np.exp(log_weight - log_weight.max())
    share /= share.sum()
    found = float((share / _SPREADS**2).sum() ** -0.5)
    mean = moments[..., 0] @ share
    return mean, (moments[..., 1] + (moments[..., 0] - mean[:, None]) ** 2) @ share, found


@dataclass(frozen=True, kw_only=True)
class _Intervals:
    """Intervals in which the runs of one batch size met the target, each with the number of runs."""

    low: Array
    high: Array
    count: Array

    @classmethod
    def of(cls, examples: Sequence[float], grain: float) -> _Intervals:
        value, count = np.unique(np.asarray(examples, dtype=float), return_counts=True)
        half = np.minimum(max(0.5 * grain, 1e-6 * float(value[0])), 0.999 * value)
        return cls(low=np.log(value - half), high=np.log(value + half), count=count.astype(float))

    def _log_likelihood(self, mean: Array, spread: float) -> Array:
        """Of each mean, shape as `mean`."""
        low, high = ((end[:, None] - mean) / spread for end in (self.low, self.high))
        right = low + high > 0.0  # of two tails the nearer one, so that nothing is lost to cancellation
        low, high = np.where(right, -high, low), np.where(right, -low, high)
        upper, lower = log_ndtr(high), log_ndtr(low)
        return self.count @ (upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-12))))

    def moments(self, spread: float) -> tuple[float, float, float]:
        """Mean and variance of the mean, and the log likelihood of the spread, the mean integrated out."""
        around = _WIDEST * spread / math.sqrt(self.count.sum())
        means = np.linspace(self.low[0] - around, self.high[-1] + around, _MEANS)
        values = self._log_likelihood(means, spread)
        weight = np.exp(values - values.max())
        total = float(weight.sum())
        mean = float(weight @ means / total)
        evidence = float(values.max()) + math.log(total * (means[1] - means[0]))
        return mean, float(weight @ (means - mean) ** 2 / total), evidence
