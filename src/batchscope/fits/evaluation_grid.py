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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

__all__ = ["Repeats", "grid_of", "repeats_of"]

Array = NDArray[np.float64]

_SPREAD, _SPREAD_WEIGHT = 0.15, 4.0
"""Of log steps over repeats, before any were seen, and the number of repeats that this counts for."""
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


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Log examples to the target at some batch sizes.

    Attributes:
        mean: of each batch size.
        error: variance of that mean.
        spread: standard deviation over repeats, one for all batch sizes, evaluations left out.
    """

    mean: Array
    error: Array
    spread: float


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


def repeats_of(logs: Mapping[int, Array], grain: Mapping[int, float]) -> Repeats:
    """Means of log examples to the target, with their errors, and the spread over repeats.

    Before any repeats were seen the spread is taken to be 0.15, as by four repeats.

    Args:
        logs: of the examples of the runs at each batch size, none of them empty.
        grain: examples from one evaluation to the next at each batch size; 0: the way to the target is known exactly.

    Returns:
        One entry a batch size, in the order of `logs`.

    Cost: microseconds without evaluations, up to about 0.1 s with them. Valid where g is below twice the least v.
    """
    if not any(grain[size] for size in logs):
        return _exact(logs)
    intervals = [_Intervals.of(own, grain[size]) for size, own in logs.items()]
    by_size = np.array([[own.log_evidence(spread) for spread in _SPREADS] for own in intervals])
    prior = -_SPREAD_WEIGHT * (np.log(_SPREADS) + 0.5 * (_SPREAD / _SPREADS) ** 2)
    weight = by_size.sum(axis=0) + prior
    weight = np.exp(weight - weight.max())
    spread = float((weight.sum() / (weight / _SPREADS**2).sum()) ** 0.5)
    moments = np.array([own.moments(spread) for own in intervals])
    return Repeats(mean=moments[:, 0], error=moments[:, 1], spread=spread)


def _exact(logs: Mapping[int, Array]) -> Repeats:
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in logs.values())
    freedom = sum(len(own) - 1 for own in logs.values())
    variance = (_SPREAD_WEIGHT * _SPREAD**2 + squares) / (_SPREAD_WEIGHT + freedom)
    return Repeats(
        mean=np.array([own.mean() for own in logs.values()]),
        error=variance / np.array([len(own) for own in logs.values()]),
        spread=float(np.sqrt(variance)),
    )


@dataclass(frozen=True, kw_only=True)
class _Intervals:
    """Intervals in which the runs of one batch size met the target, each with the number of runs."""

    low: Array
    high: Array
    count: Array

    @classmethod
    def of(cls, logs: Array, grain: float) -> _Intervals:
        value, count = np.unique(np.exp(logs), return_counts=True)
        half = np.minimum(max(0.5 * grain, 1e-6 * float(value[0])), 0.999 * value)
        return cls(low=np.log(value - half), high=np.log(value + half), count=count.astype(float))

    def _log_likelihood(self, mean: Array, spread: float) -> Array:
        """Of each mean, shape as `mean`."""
        low, high = ((end[:, None] - mean) / spread for end in (self.low, self.high))
        right = low + high > 0.0  # of two tails the nearer one, so that nothing is lost to cancellation
        low, high = np.where(right, -high, low), np.where(right, -low, high)
        upper, lower = log_ndtr(high), log_ndtr(low)
        return self.count @ (upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-12))))

    def _means(self, spread: float) -> Array:
        around = _WIDEST * spread / math.sqrt(self.count.sum())
        return np.linspace(self.low[0] - around, self.high[-1] + around, _MEANS)

    def log_evidence(self, spread: float) -> float:
        """Logarithm of the likelihood of a spread, the mean integrated out."""
        means = self._means(spread)
        values = self._log_likelihood(means, spread)
        return float(np.logaddexp.reduce(values) + math.log(means[1] - means[0]))

    def moments(self, spread: float) -> tuple[float, float]:
        """Mean and variance of the mean."""
        means = self._means(spread)
        values = self._log_likelihood(means, spread)
        weight = np.exp(values - values.max())
        mean = float(weight @ means / weight.sum())
        return mean, float(weight @ (means - mean) ** 2 / weight.sum())
