"""Means, ratios, differences and spreads with their 90 % confidence intervals: one formula each, for the whole package.

Every function takes plain numbers, one for each seed, repeat or pair, and returns an `Estimate`. Values of different
seeds (repeats, pairs) are taken as independent of one another and, where a t, chi-square or F interval is named, as
roughly normal. An end that the numbers do not bound is `None`, and so is a value that they do not have: `method` then
says why.

Zeros. A geometric mean lives on the scale of logarithms, where a zero lies infinitely far down. With one among its
values it has no value, whatever the others are: to drop the zero would be to drop the strongest effect, and any number
put in its place would decide the interval. What is measured in pairs (the same seed with and without something) still
has a ratio of means, with Fieller's interval, which needs no logarithm; like the geometric mean of the ratios it is 1
where nothing changes, and it is 0 where a quantity vanished. `geometric_ratio` falls back on it, and says so in
`method`. Numbers below zero have no ratio that means anything: then there is no value.

Used as `from ..fits import intervals` and `intervals.mean(values)`. Numbers only. SciPy's distributions are imported
where they are needed: they take most of a second.
"""

from .counts import poisson_mean, ratio_of_counts, share
from .drifting_sums import covariance_of_sums, ratio_of_sums
from .means import (
    difference_of_independent_means,
    geometric_mean,
    mean,
    mean_correlation,
    ratio_of_independent_means,
    t_quantile,
)
from .pairs import geometric_ratio, matched, paired_difference, ratio_of_paired_means
from .series import rank_correlation, slope
from .spreads import (
    ratio_of_relative_standard_deviations,
    ratio_of_standard_deviations,
    standard_deviation,
    standard_deviation_of_residuals,
)

__all__ = [
    "covariance_of_sums",
    "difference_of_independent_means",
    "geometric_mean",
    "geometric_ratio",
    "matched",
    "mean",
    "mean_correlation",
    "paired_difference",
    "poisson_mean",
    "rank_correlation",
    "ratio_of_counts",
    "ratio_of_independent_means",
    "ratio_of_paired_means",
    "ratio_of_relative_standard_deviations",
    "ratio_of_standard_deviations",
    "ratio_of_sums",
    "share",
    "slope",
    "standard_deviation",
    "standard_deviation_of_residuals",
    "t_quantile",
]
