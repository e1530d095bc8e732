"""Means of independent values with their 90 % confidence intervals, and what independent means are to one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from ...store.ranges import ANY, CORRELATION, Range
from ...store.records import Estimate
from ...wording import number, plural
from .bounded import ends_within

__all__ = [
    "LEVEL",
    "TAIL",
    "difference_of_independent_means",
    "exponential",
    "geometric_mean",
    "mean",
    "mean_correlation",
    "ratio_of_independent_means",
    "scatter",
    "t_quantile",
    "without",
]

LEVEL = 0.90
TAIL = (1 - LEVEL) / 2
_LARGEST = 700.0
"""Beyond it an exponential leaves the range of numbers."""


def mean(values: Iterable[float], unit: str = "", *, within: Range = ANY) -> Estimate:
    """Arithmetic mean of independent values: `x̄ ± t(0.95, n − 1) s / √n` (Student 1908), inside what is possible.

    Args:
        values: one a seed, repeat or draw.
        unit: of the values.
        within: where the quantity can lie at all (`store.ranges`). The interval is then taken on the logit or the
            logarithmic scale (`bounded`) and stays inside; a value outside shows that the range is none.

    Returns:
        The mean with its 90 % t interval; open ends for one value, and for two that are so far apart that the interval
        would span about all that is possible; no value for none or where one is not finite.

    Valid where the values are independent and roughly normal, or many; with a range where they are skewed too.

    Example:
        >>> e = mean([1.0, 2.0, 3.0])
        >>> e.value, round(e.low, 3), round(e.high, 3), mean([1.0]).low
        (2.0, 0.314, 3.686, None)
        >>> from ...store.ranges import SHARE
        >>> e = mean([0.93, 0.97, 0.983], within=SHARE)
        >>> round(e.value, 3), round(e.low, 3), round(e.high, 3)
        (0.961, 0.877, 0.988)
    """
    x = list(values)
    n = len(x)
    if (odd := sum(not math.isfinite(v) for v in x)) or not n:
        return without(n, unit, f"no value: {odd} of {plural(n, 'value')} are not finite" if n else "no value at all")
    middle = math.fsum(x) / n
    method = f"mean of {plural(n, 'value')}, 90 % t interval"
    if n == 1:
        return Estimate(value=middle, low=None, high=None, n=1, unit=unit, method=method)
    half = t_quantile(n - 1) * scatter(x) / math.sqrt(n)
    if within.low is None or not all(map(within.holds, x)):
        return Estimate(value=middle, low=middle - half, high=middle + half, n=n, unit=unit, method=method)
    low, high = ends_within(middle, half, n, within)
    method = f"{method} {_scale(within)}"
    if low is None:
        method = f"mean of {plural(n, 'value')}, too few for an interval: it would span about all that is possible"
    return Estimate(value=middle, low=low, high=high, n=n, unit=unit, method=method)


def _scale(within: Range) -> str:
    if within.high is None:
        return f"on the logarithmic scale, above {number(within.low)}"
    return f"on the logit scale, from {number(within.low)} to {number(within.high)}"


def geometric_mean(values: Iterable[float], unit: str = "") -> Estimate:
    """Geometric mean of independent positive values: the exponential of the mean of their logarithms, and of its ends.

    Args:
        values: one a seed, repeat or round; times, or ratios that were formed already.
        unit: of the values.

    Returns:
        The geometric mean with the 90 % t interval of the logarithms. No value where one of them is not above zero or
        not finite (see the module's text); of pairs, `geometric_ratio` has one.

    Valid where the values are independent and spread by factors (log-normal), as times and ratios do.

    Example:
        >>> e = geometric_mean([10.0, 1000.0])
        >>> round(e.value, 9), e.low > 0
        (100.0, True)
        >>> geometric_mean([1.0, 0.0, 2.0]).method
        'no geometric mean: 1 of 3 values is not above zero and finite'
    """
    x = list(values)
    if odd := sum(not (v > 0 and math.isfinite(v)) for v in x):
        verb = "is" if odd == 1 else "are"
        return without(
            len(x), unit, f"no geometric mean: {odd} of {plural(len(x), 'value')} {verb} not above zero and finite"
        )
    method = f"geometric mean of {plural(len(x), 'value')}, 90 % t interval of the logarithms"
    return exponential(mean(map(math.log, x)), unit, method)


def mean_correlation(values: Iterable[float]) -> Estimate:
    """Mean of correlation coefficients or cosines: that of `mean` within −1 and 1, which none can leave.

    Args:
        values: one coefficient a seed or run.

    Returns:
        As `mean`.

    Valid as `mean`.

    Example:
        >>> e = mean_correlation([0.9, 0.95, 1.0])
        >>> round(e.value, 2), round(e.low, 2), round(e.high, 2)
        (0.95, 0.75, 0.99)
    """
    return mean(values, within=CORRELATION)


# --- independent means, known by their intervals ----------------------------------------------------------------------


def difference_of_independent_means(a: Estimate, b: Estimate) -> Estimate:
    """Difference `a − b` of two independent means, of which only the intervals are known.

    The half-width of the 90 % interval is `√(hₐ² + h_b²)`, with the half-widths h of the two intervals.

    Args:
        a: with its interval.
        b: with its interval.

    Returns:
        The difference, in the unit of a; no value where an interval is open.

    Valid where the two are independent and their intervals symmetric, with degrees of freedom that do not differ much.

    Example:
        >>> e = difference_of_independent_means(mean([5.0, 6.0, 7.0]), mean([1.0, 2.0, 3.0]))
        >>> e.value, round(e.high - e.value, 3)
        (4.0, 2.384)
    """
    n, method = min(a.n, b.n), "difference of two independent means, 90 % interval"
    if a.value is None or b.value is None or (widths := _half_widths(a, b)) is None:
        return without(n, a.unit, method)
    value, half = a.value - b.value, math.hypot(*widths)
    return Estimate(value=value, low=value - half, high=value + half, n=n, unit=a.unit, method=method)


def ratio_of_independent_means(a: Estimate, b: Estimate) -> Estimate:
    """Ratio `a / b` of two independent positive means, of which only the intervals are known.

    By the delta method on logarithms: the 90 % interval is `a/b · exp(± √((hₐ/a)² + (h_b/b)²))`, with the half-widths h
    of the two intervals.

    Args:
        a: with its interval.
        b: with its interval.

    Returns:
        The ratio. No value where one of the means is not above zero; open ends where an interval is.

    Valid where the two are independent and their relative standard errors below a fifth or so.

    Example:
        >>> e = ratio_of_independent_means(mean([5.0, 6.0, 7.0]), mean([2.0, 2.1, 1.9]))
        >>> round(e.value, 9), round(e.low, 2), round(e.high, 2)
        (3.0, 2.24, 4.02)
    """
    n, method = min(a.n, b.n), "ratio of two independent means, 90 % interval by the delta method on logarithms"
    if not (a.value and b.value and a.value > 0 and b.value > 0):
        return without(n, "times", f"{method}: no value, a mean is not above zero")
    ratio, widths = a.value / b.value, _half_widths(a, b)
    factor = None if widths is None else math.exp(min(_LARGEST, math.hypot(widths[0] / a.value, widths[1] / b.value)))
    low, high = (None, None) if factor is None else (ratio / factor, ratio * factor)
    return Estimate(value=ratio, low=low, high=high, n=n, unit="times", method=method)


def _half_widths(a: Estimate, b: Estimate) -> tuple[float, float] | None:
    """Half-widths of two intervals; `None` where an end is open."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return (a.high - a.low) / 2, (b.high - b.low) / 2


# --- what the other intervals are made of too -------------------------------------------------------------------------


@cache
def t_quantile(degrees_of_freedom: float) -> float:
    """Student's t that a 90 % interval reaches to on either side: its 95 % point.

    Args:
        degrees_of_freedom: above 0; need not be whole.

    Returns:
        The quantile.

    Example:
        >>> round(t_quantile(4), 3)
        2.132
    """
    from scipy.special import stdtrit  # what `scipy.stats.t.ppf` returns, without half a second of imports

    return float(stdtrit(degrees_of_freedom, 1 - TAIL))


def scatter(values: Sequence[float]) -> float:
    """Standard deviation of two or more values without an interval, n − 1 in the denominator."""
    middle = math.fsum(values) / len(values)
    return math.hypot(*(v - middle for v in values)) / math.sqrt(len(values) - 1)


def exponential(logs: Estimate, unit: str, method: str) -> Estimate:
    """Exponential of an estimate of a logarithm, and of its ends."""
    value, low, high = (None if v is None else math.exp(min(v, _LARGEST)) for v in (logs.value, logs.low, logs.high))
    return replace(logs, value=value, low=low, high=high, unit=unit, method=method if logs.n else logs.method)


def without(n: int, unit: str, method: str) -> Estimate:
    """Estimate without a value and without an interval; `method` says why."""
    return Estimate.missing(method, n=n, unit=unit)
