"""Shares and counts with their 90 % confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from ...store.records import Estimate
from ...wording import plural
from .means import LEVEL, TAIL, mean, without
from .pairs import ratio_of_paired_means

__all__ = ["chi_square_ends", "poisson_mean", "ratio_of_counts", "share"]


def share(successes: int, n: int) -> Estimate:
    """Share of successes among n independent draws, with Wilson's 90 % interval (1927).

    It holds the shares p for which the one found is within 1.645 standard errors `√(p (1 − p) / n)` of p.

    Args:
        successes: how many.
        n: of how many.

    Returns:
        The share; no value where n is 0.

    Valid where the draws are independent; for small n too.

    Example:
        >>> e = share(9, 10)
        >>> e.value, round(e.low, 3), round(e.high, 3)
        (0.9, 0.652, 0.977)
    """
    if not n:
        return without(0, "1", "no draw at all")
    from scipy.stats import binomtest

    ends = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    method = f"share of {plural(n, 'independent draw')}, 90 % Wilson interval"
    return Estimate(value=successes / n, low=float(ends.low), high=float(ends.high), n=n, unit="1", method=method)


def poisson_mean(count: int) -> Estimate:
    """Mean of a Poisson distribution of which one count is known, with the exact 90 % interval (Garwood 1936).

    The ends are half the lower 5 % point of chi-square with `2 k` degrees of freedom, and half the upper 5 % point with
    `2 k + 2`; at a count of 0 from 0 to 3.

    Args:
        count: k, how often something was seen.

    Returns:
        The count as an estimate of its mean.

    Valid for events that are independent: such as come in clusters make the interval too short.

    Example:
        >>> [(round(e.low, 3), round(e.high, 3)) for e in (poisson_mean(0), poisson_mean(4))]
        [(0.0, 2.996), (1.366, 9.154)]
    """
    low = chi_square_ends(2 * count)[0] / 2 if count else 0.0
    high = chi_square_ends(2 * count + 2)[1] / 2
    return Estimate(value=float(count), low=low, high=high, n=1, unit="", method="Poisson count, exact 90 % interval")


def ratio_of_counts(over: Sequence[int], under: Sequence[int]) -> Estimate:
    """Ratio of two sums of counts, with a count of each in every repeat.

    It is `ratio_of_paired_means`. Where the second counts are too few for Fieller's interval, their sum is bounded by
    `poisson_mean`, the first by the t interval of its mean, and the ends are those of the one over the other: too wide
    rather than too narrow, unless the second come in clusters.

    Args:
        over: one count a repeat.
        under: one count a repeat.

    Returns:
        The ratio, its low end at least 0; no value where nothing was counted in the second, which still has a low end.

    Valid where repeats are independent.

    Example:
        >>> ratio_of_counts([10, 30, 20], [1, 3, 2]).value, ratio_of_counts([10, 11, 9], [0, 0, 0]).value
        (10.0, None)
    """
    found = ratio_of_paired_means(list(zip(over, under, strict=True)))
    if found.low is not None or not any(over):
        return replace(found, low=None if found.low is None else max(0.0, found.low))
    alone, second = mean(over), poisson_mean(sum(under))
    assert second.low is not None
    assert second.high is not None
    return replace(
        found,
        low=None if alone.low is None else max(0.0, alone.low) * len(over) / second.high,
        high=None if alone.high is None or not second.low else alone.high * len(over) / second.low,
        method=f"ratio of counts, the second {sum(under)} in all: 90 % Poisson interval",
    )


@cache
def chi_square_ends(degrees_of_freedom: float) -> tuple[float, float]:
    """Lower and upper 5 % point of the chi-square distribution."""
    from scipy.special import chdtri, gammaincinv  # what `scipy.stats.chi2` returns, without its import

    return 2.0 * float(gammaincinv(degrees_of_freedom / 2, TAIL)), float(chdtri(degrees_of_freedom, TAIL))
