"""Two series of numbers against each other: rank correlation, and slope with its 90 % confidence interval."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import correlation
from typing import Any

from ...store.records import Estimate
from ...wording import plural
from .means import t_quantile, without

__all__ = ["rank_correlation", "slope"]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman rank correlation of two series: the correlation of their ranks, equal values sharing the mean rank.

    Args:
        x: a series.
        y: as many values.

    Returns:
        From −1 to 1, which it is where one always rises with the other; `None` for fewer than 3 pairs, or where a
        series does not vary.

    Example:
        >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 40.0, 90.0])
        1.0
        >>> round(rank_correlation([1.0, 2.0, 3.0, 4.0], [3.0, 3.0, 1.0, 1.0]), 3)
        -0.894
    """
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    # What `scipy.stats.spearmanr` returns, without half a second of imports.
    return max(-1.0, min(1.0, correlation(_double_ranks(x), _double_ranks(y))))


def _double_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mean rank of each value, from 0."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) - 1 for value in values]


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Slope of the least-squares line through points (x, y), with its 90 % t interval of n − 2 degrees of freedom.

    `Σ (x − x̄)(y − ȳ) / Σ (x − x̄)²`, its standard error `√(Σ residual² / (n − 2) / Σ (x − x̄)²)`.

    Args:
        x: where.
        y: as many values.

    Returns:
        The slope; open ends for two points; no value for fewer, or where x does not vary.

    Valid where residuals are independent, of one variance and roughly normal, and x is known.

    Example:
        >>> e = slope([0.0, 1.0, 2.0], [1.0, 3.0, 5.1])
        >>> round(e.value, 3), round(e.low, 3), round(e.high, 3)
        (2.05, 1.868, 2.232)
    """
    n = len(x)
    method = f"slope by least squares through {plural(n, 'point')}, 90 % t interval"
    if len(set(x)) < 2:
        return without(n, "", method)
    from scipy.stats import linregress

    found: Any = linregress(x, y)
    value, half = float(found.slope), t_quantile(n - 2) * float(found.stderr) if n > 2 else math.nan
    low, high = (value - half, value + half) if n > 2 else (None, None)
    return Estimate(value=value, low=low, high=high, n=n, unit="", method=method)
