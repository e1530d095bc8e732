"""What repeats of a measurement say: means, and ratios of means, with intervals over the repeats. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, stdtrit

from ..records import Estimate
from ..study_rows import mean_over_seeds
from ..wording import plural

__all__ = ["all_of", "jackknifed", "mean_of_repeats", "ratio_of_counts", "ratio_of_means", "ratio_of_spreads"]

_LEVEL = 0.95

Moments = NDArray[np.float64]


def mean_of_repeats(values: Sequence[float], unit: str = "", what: str = "repeat") -> Estimate:
    """The mean over independent repeats with its 90 % t interval; open for fewer than two.

    Of differences within a repeat, where both values are of the same draw, it is the paired difference.

    >>> mean_of_repeats([1.0, 3.0]).value
    2.0
    """
    found = mean_over_seeds(values, unit)
    return replace(found, method=f"mean over {plural(len(values), what)}, 90 % t interval") if values else found


def jackknifed(moments: Moments, function: Callable[[Moments], Moments], what: str) -> Estimate:
    """The exponential of a smooth function of means over repeats, with its 90 % interval.

    The function's standard error is the jackknife's, `√((n − 1)/n Σ (f₍ᵣ₎ − f̄)²)` with f₍ᵣ₎ its value without repeat r
    (Efron and Stein 1981); the interval is Student's t with n − 1 degrees of freedom, taken before exponentiation.

    Args:
        moments: a row a repeat, a column a quantity whose mean counts.
        function: of means, along the last axis; the logarithm of a ratio.
        what: the ratio in words.

    Returns:
        The ratio; its interval is open for fewer than three repeats, and where a value without a repeat is no number.

    Cost: one pass over the moments.
    """
    n = len(moments)
    total = moments.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(function(total / n)) if n else math.nan
        without = function((total - moments) / (n - 1)) if n > 2 else np.array([math.nan])
        deviation = without - without.mean()
        half = (
            math.sqrt((n - 1) / n * float(deviation @ deviation)) * float(stdtrit(n - 1, _LEVEL)) if n > 2 else math.nan
        )
    bounded = math.isfinite(value) and math.isfinite(half)
    return Estimate(
        value=math.exp(value) if math.isfinite(value) else None,
        low=math.exp(value - half) if bounded else None,
        high=math.exp(value + half) if bounded else None,
        n=n,
        unit="",
        method=f"{what}, 90 % jackknife interval over {plural(n, 'repeat')}",
    )


def ratio_of_means(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """The mean of one quantity over that of another; both have a value in each repeat.

    >>> ratio_of_means([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).value
    2.0
    """
    moments = np.array([over, under], dtype=np.float64).T
    return jackknifed(moments, lambda m: np.log(m[..., 0]) - np.log(m[..., 1]), "ratio of means")


def ratio_of_spreads(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """The ratio of two standard deviations, each relative to its own mean.

    >>> found = ratio_of_spreads([2.0, 4.0, 6.0, 4.0], [9.0, 10.0, 11.0, 10.0])
    >>> round(found.value, 6)
    5.0
    """
    x, y = (np.array(values, dtype=np.float64) for values in (over, under))
    x, y = x / x.mean(), y / y.mean()

    def log_ratio(m: Moments) -> Moments:
        one, other = ((m[..., i + 1] - m[..., i] ** 2) / m[..., i] ** 2 for i in (0, 2))
        return 0.5 * (np.log(one) - np.log(other))

    return jackknifed(np.array([x, x * x, y, y * y]).T, log_ratio, "ratio of relative standard deviations")


def ratio_of_counts(over: Sequence[int], under: Sequence[int]) -> Estimate:
    """The ratio of two sums of counts, one of each a repeat.

    Where the second counts are too few for a jackknife, their sum is bounded as a Poisson count's mean (by 3 where
    nothing was counted at all); values that come in clusters make that bound too narrow.

    >>> round(ratio_of_counts([10, 30, 20], [1, 3, 2]).value, 6), ratio_of_counts([10, 11, 9], [0, 0, 0]).value
    (10.0, None)
    """
    moments = np.array([over, under], dtype=np.float64).T
    found = jackknifed(moments, lambda m: np.log(m[..., 0]) - np.log(m[..., 1]), "ratio of counts")
    if found.low is not None or not any(over):
        return found
    alone = jackknifed(moments, lambda m: np.log(m[..., 0]), "")
    total, n = sum(under), len(over)
    fewest, most = gammaincinv(total, 1 - _LEVEL) if total else 0.0, gammaincinv(total + 1, _LEVEL)
    return replace(
        found,
        low=None if alone.low is None else alone.low * n / float(most),
        high=None if alone.high is None or not total else alone.high * n / float(fewest),
        method=f"ratio of counts, the second {total} in all: Poisson bounds",
    )


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """Whether a statement holds everywhere: not, where it fails anywhere; `None` where that is not known.

    >>> all_of([True, True]), all_of([True, None]), all_of([None, False]), all_of([])
    (True, None, False, None)
    """
    if False in answers:
        return False
    return None if None in answers or not answers else True
