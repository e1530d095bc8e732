"""Sums of series that drift, such as readings along a run: their ratio, and their covariance, from the series alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .means import t_quantile

__all__ = ["covariance_of_sums", "ratio_of_sums"]

Array = NDArray[np.float64]

_FEWEST = 5
"""Terms below which there is no interval."""
_AROUND, _SMOOTHED = 4, 2
"""Neighbours on either side of a reading that tell of its variance, and of its size."""


def ratio_of_sums(terms: Array, size: Array) -> tuple[float | None, float | None, float | None]:
    """Ratio of the sums of two series that drift, and the two ends of its 90 % Fieller interval (1954).

    Args:
        terms: of the numerator and of the denominator, shape (2, readings).
        size: to which the spread of a reading's terms is roughly proportional, shape (readings,).

    Returns:
        The ratio (`None`: the denominator's sum is not positive) and the ends, not below 0; `None` for an open one.
    """
    numerator, denominator = map(float, terms.sum(axis=1))
    value = numerator / denominator if denominator > 0 else None
    if (found := covariance_of_sums(terms, size)) is None:
        return value, None, None
    covariance, t = found
    return value, *_fieller(numerator, max(denominator, 0.0), t**2 * covariance)


def covariance_of_sums(terms: Array, size: Array) -> tuple[Array, float] | None:
    """Covariance of the sums of series that drift, and the t quantile of a 90 % interval; none with too few readings.

    A run's gradients fall, and with them the spread of its readings, so that the first ones may make up most of a sum.
    The variance of each reading is therefore taken from around it: the mean square of the 9 nearest second differences
    (÷ 6) of the terms in units of `size`, smoothed over 5 readings, times `size²`. With `ω_j` the weight of difference
    `j` in the sum of those variances there are `18/35 (Σ ω_j)² ÷ Σ ω_j²` degrees of freedom (Satterthwaite 1946; the
    factor is the relative efficiency of second differences, Gasser et al. 1986).

    Args:
        terms: shape (sums, readings).
        size: as for `ratio_of_sums`.
    """
    n = terms.shape[1]
    if n < _FEWEST:
        return None
    unit = _smooth(size, _SMOOTHED)
    unit = np.where(unit > 0, unit / (unit.max() or 1.0), 1.0)
    differences = np.diff(terms / unit, 2)
    m = n - 2
    first = np.clip(np.arange(n) - 1 - _AROUND, 0, max(0, m - 2 * _AROUND - 1))
    last = np.minimum(first + 2 * _AROUND + 1, m)
    change = np.zeros(m + 1)
    np.add.at(change, first, unit**2 / (last - first))
    np.add.at(change, last, -(unit**2) / (last - first))
    weight = np.maximum(0.0, np.cumsum(change)[:m])
    freedom = 18 / 35 * weight.sum() ** 2 / (weight**2).sum()
    return (differences * weight) @ differences.T / 6, t_quantile(max(1.0, float(freedom)))


def _smooth(values: Array, reach: int) -> Array:
    """Mean of each value and up to `reach` neighbours on either side."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(values.size)
    low, high = np.maximum(0, at - reach), np.minimum(values.size, at + reach + 1)
    return (sums[high] - sums[low]) / (high - low)


def _fieller(numerator: float, denominator: float, spread: Array) -> tuple[float | None, float | None]:
    """Interval of Fieller: the non-negative ratios `r` with `(numerator - r denominator)² <= (1, -r) spread (1, -r)ᵀ`.

    `spread` is the 2 x 2 covariance times the squared quantile. The ratios lie between the roots of `a r² - 2 b r + c`;
    with `a <= 0` (a denominator that may be zero) they have no upper end, and with `c <= 0` (a numerator that may be
    zero) no lower end above 0.
    """
    a = denominator**2 - float(spread[1, 1])
    b = numerator * denominator - float(spread[0, 1])
    c = numerator**2 - float(spread[0, 0])
    if a <= 0 and c <= 0:
        return None, None
    root = math.sqrt(max(0.0, b**2 - a * c))
    if c > 0 and b + root <= 0:  # a denominator of exactly zero: every ratio is too small
        return None, None
    return max(0.0, c / (b + root)) if c > 0 else 0.0, (b + root) / a if a > 0 else None
