"""Standard deviations and their ratios, with their 90 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...store.records import Estimate
from ...wording import plural
from .counts import chi_square_ends
from .means import TAIL, exponential, scatter, t_quantile, without
from .pairs import Pairs

__all__ = [
    "ratio_of_relative_standard_deviations",
    "ratio_of_standard_deviations",
    "standard_deviation",
    "standard_deviation_of_residuals",
]


def standard_deviation(values: Sequence[float], unit: str = "") -> Estimate:
    """Standard deviation `s` of independent values, with its 90 % chi-square interval.

    The ends are `s √((n − 1) / q)`, q being the upper and the lower 5 % point of chi-square with n − 1 degrees of
    freedom.

    Args:
        values: one a seed or repeat.
        unit: of the values.

    Returns:
        The standard deviation, with n − 1 in the denominator; no value for fewer than two values.

    Valid where the values are normal: long tails make the interval too short.

    Example:
        >>> e = standard_deviation([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
        (1.5811, 1.0266, 3.751)
    """
    n = len(values)
    if n < 2:
        return without(n, unit, "no standard deviation of fewer than two values")
    return standard_deviation_of_residuals(scatter(values), n - 1, n=n, unit=unit, what=f"of {n} values")


def standard_deviation_of_residuals(
    value: float, degrees_of_freedom: float, *, n: int, unit: str = "", what: str
) -> Estimate:
    """Standard deviation that was estimated from residuals, with its 90 % chi-square interval.

    Args:
        value: the standard deviation.
        degrees_of_freedom: of the residuals, above 0; need not be whole.
        n: values behind them.
        unit: of the values.
        what: of what it is, in words.

    Returns:
        The standard deviation, with ends as for `standard_deviation`.

    Valid where the residuals are normal.

    Example:
        >>> e = standard_deviation_of_residuals(1.0, 4.0, n=6, what="of one evaluation")
        >>> round(e.low, 3), round(e.high, 3), e.method
        (0.649, 2.372, 'standard deviation of one evaluation, 90 % chi-square interval')
    """
    lower, upper = chi_square_ends(degrees_of_freedom)
    low, high = (value * math.sqrt(degrees_of_freedom / q) for q in (upper, lower))
    method = f"standard deviation {what}, 90 % chi-square interval"
    return Estimate(value=value, low=low, high=high, n=n, unit=unit, method=method)


def ratio_of_standard_deviations(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """Ratio of the standard deviations of two independent samples, with its 90 % F interval.

    With variances of n and m values the ends are `ratio / √F(0.95; n − 1, m − 1)` and `ratio √F(0.95; m − 1, n − 1)`.

    Args:
        over: the sample in the numerator.
        under: the sample in the denominator.

    Returns:
        The ratio; no value where a sample has fewer than two values, or the second does not vary.

    Valid where the values are normal and the samples independent.

    Example:
        >>> e = ratio_of_standard_deviations([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
        (2.0, 0.7913, 5.055)
    """
    n, m = len(over), len(under)
    method = f"ratio of the standard deviations of {n} and {m} values, 90 % F interval"
    below = scatter(under) if m > 1 else 0.0
    if n < 2 or below == 0.0:
        return without(min(n, m), "", method)
    from scipy.stats import f

    ratio = scatter(over) / below
    low, high = ratio / math.sqrt(f.isf(TAIL, n - 1, m - 1)), ratio * math.sqrt(f.isf(TAIL, m - 1, n - 1))
    return Estimate(value=ratio, low=low, high=high, n=min(n, m), unit="", method=method)


def ratio_of_relative_standard_deviations(pairs: Pairs) -> Estimate:
    """Ratio of the standard deviations of two quantities measured in pairs, each relative to its own mean.

    With `c = √(mean(x²) − x̄²) / |x̄|` it is `c(a) / c(b)`. The interval of its logarithm is Student's with n − 1
    degrees of freedom and the jackknife's standard error `√((n − 1)/n Σ (f₍ᵣ₎ − f̄)²)`, f₍ᵣ₎ being the value without
    pair r (Efron and Stein 1981). SciPy has no jackknife.

    Args:
        pairs: one a repeat; a and b of a pair may depend on each other.

    Returns:
        The ratio; no value where a quantity does not vary or has mean 0; open ends for fewer than three pairs.

    Valid where pairs are independent and not few: at 30 about nine in ten intervals hold the truth.

    Example:
        >>> e = ratio_of_relative_standard_deviations([(2.0, 9.0), (4.0, 10.0), (6.0, 11.0), (4.0, 10.0)])
        >>> round(e.value, 6)
        5.0
    """
    import numpy as np

    x = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
    n = len(x)
    method = f"ratio of the relative standard deviations of {plural(n, 'pair')}, 90 % jackknife interval"
    if not n:
        return without(0, "", method)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = x / x.mean(axis=0)
        sums = np.stack([x, x * x]).sum(axis=1)  # of the quantities, and of their squares

        def log_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            relative = np.log(second / first**2 - 1)
            return 0.5 * (relative[..., 0] - relative[..., 1])

        value = float(log_ratio(sums[0] / n, sums[1] / n))
        half = math.nan
        if n > 2:
            off = log_ratio((sums[0] - x) / (n - 1), (sums[1] - x * x) / (n - 1))
            off = off - off.mean()
            half = math.sqrt((n - 1) / n * float(off @ off)) * t_quantile(n - 1)
    if not math.isfinite(value):
        return without(n, "", method)
    low, high = (value - half, value + half) if math.isfinite(half) else (None, None)
    return exponential(Estimate(value=value, low=low, high=high, n=n, unit="", method=method), "", method)
