"""Differences and ratios of what is measured in pairs, with their 90 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ...store.ranges import ANY, Range
from ...store.records import Estimate
from ...wording import plural
from .means import exponential, mean, t_quantile, without

__all__ = ["Pairs", "geometric_ratio", "matched", "paired_difference", "ratio_of_paired_means"]

Pairs = Iterable[tuple[float, float]]
Key = TypeVar("Key", bound=Hashable)


def matched(first: Mapping[Key, float], second: Mapping[Key, float]) -> list[tuple[float, float]]:
    """Values that two settings have under the same key, a seed or repeat, as pairs.

    Args:
        first: by seed.
        second: by seed.

    Returns:
        `(first, second)` for each key that both have, in the order of the first.

    Example:
        >>> matched({0: 1.0, 1: 2.0}, {1: 3.0, 2: 4.0})
        [(2.0, 3.0)]
    """
    return [(value, second[key]) for key, value in first.items() if key in second]


def paired_difference(pairs: Pairs, unit: str = "", *, within: Range = ANY) -> Estimate:
    """Paired difference: the mean of `a − b` over pairs (a, b), with its 90 % t interval.

    Args:
        pairs: one a seed; a and b of a pair may depend on each other.
        unit: of the difference.
        within: where a and b can lie at all; differences of two shares lie in [−1, 1].

    Returns:
        As `mean`, of the differences.

    Valid where the differences are independent and roughly normal.

    Example:
        >>> paired_difference([(3.0, 1.0), (5.0, 3.0)]).value
        2.0
    """
    found = mean([a - b for a, b in pairs], unit, within=within.of_differences)
    return replace(found, method=found.method.replace("mean of", "paired difference, mean of"))


def geometric_ratio(pairs: Pairs, unit: str = "times") -> Estimate:
    """Ratio of two positive quantities measured in pairs: the geometric mean of `a / b` over pairs (a, b).

    That is `exp(mean(log a − log b))`, the ends those of the 90 % t interval of the mean. Where a pair holds a zero
    there is no logarithm, and the estimate is `mean(a) / mean(b)` by Fieller, its low end at least 0.

    Args:
        pairs: one a seed, the numerator first; `matched` makes them of values by seed.
        unit: of the ratio.

    Returns:
        The ratio; `method` says which of the two it is and how many pairs hold a zero. No value where a number is below
        zero or not finite, or where every b is 0.

    Valid where pairs are independent and ratios spread by factors; with zeros as `ratio_of_paired_means`.

    Example:
        >>> round(geometric_ratio([(2.0, 1.0), (16.0, 2.0)]).value, 9)
        4.0
        >>> gone = geometric_ratio([(0.0, 2.0), (0.0, 3.0), (0.0, 2.5)])
        >>> gone.value, gone.low, gone.high
        (0.0, 0.0, 0.0)
        >>> geometric_ratio([(0.0, 2.0), (2.0, 3.0), (1.0, 2.0)]).method
        '1 of 3 pairs with a zero: ratio of the means of 3 pairs, 90 % Fieller interval'
    """
    x = list(pairs)
    n = len(x)
    if odd := sum(not all(v >= 0 and math.isfinite(v) for v in pair) for pair in x):
        return without(n, unit, f"no ratio: {odd} of {plural(n, 'pair')} with a number below zero or not finite")
    if zeros := sum(0.0 in pair for pair in x):
        found = ratio_of_paired_means(x, unit)
        low = None if found.low is None else max(0.0, found.low)
        return replace(found, low=low, method=f"{zeros} of {plural(n, 'pair')} with a zero: {found.method}")
    method = f"geometric mean of {plural(n, 'paired ratio')}, 90 % t interval of the logarithms"
    return exponential(mean([math.log(a) - math.log(b) for a, b in x]), unit, method)


def ratio_of_paired_means(pairs: Pairs, unit: str = "") -> Estimate:
    """Ratio of two means measured in pairs: `mean(a) / mean(b)` over pairs (a, b), with the interval of Fieller (1954).

    The 90 % interval holds every ratio r for which the mean of `a − r b` is within t(0.95, n − 1) standard errors of
    zero: it lies between the roots of `(ā − r b̄)² = t² var(a − r b) / n`. It is exact for normal pairs, and both signs
    are allowed.

    Args:
        pairs: one a seed or repeat; a and b of a pair may depend on each other.
        unit: of the ratio.

    Returns:
        The ratio. No value where the mean of b is zero or a number is not finite; open ends for one pair, and where the
        mean of b is not clearly off zero: no such interval exists.

    Valid where pairs are independent and roughly normal, or many.

    Example:
        >>> e = ratio_of_paired_means([(2.0, 4.0), (3.0, 6.0), (2.5, 5.0)])
        >>> e.value, round(e.low, 9), round(e.high, 9)
        (0.5, 0.5, 0.5)
    """
    x = list(pairs)
    n = len(x)
    method = f"ratio of the means of {plural(n, 'pair')}, 90 % Fieller interval"
    if odd := sum(not all(map(math.isfinite, pair)) for pair in x):
        return without(n, unit, f"no ratio: {odd} of {plural(n, 'pair')} with a number that is not finite")
    a, b = (math.fsum(column) / n for column in zip(*x, strict=True)) if n else (0.0, 0.0)
    if b == 0.0:
        return without(n, unit, f"{method}: no value, the second mean is zero" if n else "no pair at all")
    low, high = _fieller(x, a, b)
    return Estimate(value=a / b, low=low, high=high, n=n, unit=unit, method=method)


def _fieller(pairs: Sequence[tuple[float, float]], a: float, b: float) -> tuple[float | None, float | None]:
    """Ends by Fieller, both roots in r of `(a − r b)² = t² var(a − r b) / n`."""
    n = len(pairs)
    if n < 2:
        return None, None
    scale = t_quantile(n - 1) ** 2 / (n * (n - 1))
    aa = scale * math.fsum((x - a) ** 2 for x, _ in pairs)
    bb = scale * math.fsum((y - b) ** 2 for _, y in pairs)
    ab = scale * math.fsum((x - a) * (y - b) for x, y in pairs)
    square, middle, constant = b * b - bb, a * b - ab, a * a - aa
    if square <= 0.0:
        return None, None
    root = math.sqrt(max(0.0, middle * middle - square * constant))
    return (middle - root) / square, (middle + root) / square
