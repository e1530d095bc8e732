"""Every interval against SciPy or its definition, and how often it holds the truth in simulated draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.stats

from batchscope.fits import intervals
from batchscope.store.records import Estimate

Pairs = list[tuple[float, float]]

PAIRS: Pairs = [(2.0, 4.1), (2.4, 3.9), (1.7, 4.4), (2.2, 3.6), (2.9, 4.6)]


def ends(found: Estimate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


# --- against SciPy ----------------------------------------------------------------------------------------------------


def test_a_mean_has_students_interval() -> None:
    values = [1.0, 2.0, 5.0, 4.0]
    found = intervals.mean(values, "s")
    assert (found.value, found.n, found.unit) == (3.0, 4, "s")
    assert ends(found) == pytest.approx(scipy.stats.t.interval(0.90, 3, loc=3.0, scale=scipy.stats.sem(values)))


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert ends(intervals.mean([2.0, 2.0, 2.0])) == (2.0, 2.0)


def test_a_geometric_mean_is_the_mean_of_logarithms_with_its_interval() -> None:
    values = [2.0, 8.0, 4.0]
    found, logs = intervals.geometric_mean(values, "epochs"), intervals.mean(np.log(values).tolist())
    assert found.value == pytest.approx(scipy.stats.gmean(values))
    assert np.log(ends(found)) == pytest.approx(ends(logs))
    assert (found.unit, found.n) == ("epochs", 3)


def test_a_paired_difference_is_that_of_the_paired_t_test() -> None:
    a, b = zip(*PAIRS, strict=True)
    test = scipy.stats.ttest_rel(a, b).confidence_interval(0.90)
    found = intervals.paired_difference(PAIRS)
    assert (found.value, *ends(found)) == pytest.approx((np.mean(a) - np.mean(b), test.low, test.high))


def test_spreads_have_the_ends_of_chi_square_and_f() -> None:
    values, others = [1.0, 4.0, 2.0, 8.0], [3.0, 1.0, 2.0, 5.0, 4.0, 9.0]
    s = float(np.std(values, ddof=1))
    ratio = s / float(np.std(others, ddof=1))
    alone, both = intervals.standard_deviation(values), intervals.ratio_of_standard_deviations(values, others)
    assert (alone.value, both.value) == pytest.approx((s, ratio))
    assert ends(alone) == pytest.approx(tuple(s * np.sqrt(3 / scipy.stats.chi2(3).ppf([0.95, 0.05]))))
    assert ends(both) == pytest.approx(tuple(ratio / np.sqrt(scipy.stats.f(3, 5).ppf([0.95, 0.05]))))


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (3, 8), (60, 100)])
def test_a_share_has_wilsons_interval(successes: int, n: int) -> None:
    """Its ends are the shares p from which the one found is t standard errors of p away."""
    found, z = intervals.share(successes, n), scipy.stats.norm.ppf(0.95)
    low, high = ends(found)
    assert found.value == successes / n
    for end, bound in ((low, 0.0), (high, 1.0)):
        off = abs(successes / n - end)
        assert off == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-9) or end == bound == found.value


@pytest.mark.parametrize("count", [0, 1, 7, 200])
def test_a_poisson_count_is_bounded_by_the_means_that_make_it_unlikely(count: int) -> None:
    low, high = ends(intervals.poisson_mean(count))
    assert scipy.stats.poisson.cdf(count, high) == pytest.approx(0.05)
    assert low == 0.0 if count == 0 else scipy.stats.poisson.sf(count - 1, low) == pytest.approx(0.05)


def test_a_slope_is_that_of_a_linear_regression() -> None:
    x, y = [0.0, 1.0, 2.0, 4.0], [1.0, 2.5, 2.0, 6.0]
    found, line = intervals.slope(x, y), scipy.stats.linregress(x, y)
    half = scipy.stats.t.ppf(0.95, 2) * line.stderr
    assert (found.value, *ends(found)) == pytest.approx((line.slope, line.slope - half, line.slope + half))
    two = intervals.slope([1.0, 3.0], [2.0, 8.0])
    assert (two.value, two.low, two.high) == (3.0, None, None)


def test_a_rank_correlation_is_the_correlation_of_ranks() -> None:
    x, y = [3.0, 1.0, 2.0, 2.0, 9.0], [1.0, 2.0, 2.0, 5.0, 4.0]
    ranks = [scipy.stats.rankdata(values) for values in (x, y)]
    assert intervals.rank_correlation(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert intervals.rank_correlation(x, [-v for v in x]) == -1.0


def test_a_mean_of_correlations_stays_between_minus_one_and_one() -> None:
    low, high = ends(intervals.mean_correlation([-0.9, -1.0, -0.95]))
    assert -1.0 < low < -0.95 < high < 1.0
    plain = intervals.mean([-0.9, -1.0, -0.95])
    assert plain.low is not None
    assert plain.low < -1.0


# --- against the definition -------------------------------------------------------------------------------------------


def inside(pairs: Pairs, ratio: float) -> bool:
    """Whether the mean of a - ratio b is within t standard errors of zero."""
    rest = np.array([a - ratio * b for a, b in pairs])
    error = rest.std(ddof=1) / math.sqrt(len(rest))
    return bool(abs(rest.mean()) <= scipy.stats.t.ppf(0.95, len(rest) - 1) * error)


def test_fiellers_interval_holds_the_ratios_that_its_definition_holds() -> None:
    found = intervals.ratio_of_paired_means(PAIRS, "times")
    assert (found.n, found.unit) == (5, "times")
    assert found.value == pytest.approx(np.mean([a for a, _ in PAIRS]) / np.mean([b for _, b in PAIRS]))
    held = [ratio for ratio in np.arange(-1.0, 2.0, 1e-4) if inside(PAIRS, ratio)]
    assert ends(found) == pytest.approx((held[0], held[-1]), abs=2e-4)


def test_a_numerator_of_about_zero_gives_an_interval_about_zero() -> None:
    low, high = ends(intervals.ratio_of_paired_means([(0.1, 5.0), (-0.1, 5.2), (0.05, 4.9)]))
    assert low < 0 < high


def test_negative_means_have_ordered_ends() -> None:
    found = intervals.ratio_of_paired_means([(-2.0, 4.0), (-2.2, 4.1), (-1.9, 3.8)])
    low, high = ends(found)
    assert found.value is not None
    assert low < found.value < high < 0


def test_the_jackknife_leaves_out_one_pair_at_a_time() -> None:
    pairs = [(1.0, 2.0), (2.0, 3.0), (4.0, 3.0), (3.0, 5.0)]

    def log_ratio(kept: Pairs) -> float:
        a, b = np.array(kept).T
        return math.log(a.std() / a.mean()) - math.log(b.std() / b.mean())

    logs = np.array([log_ratio(pairs[:r] + pairs[r + 1 :]) for r in range(4)])
    half = math.sqrt(3 / 4 * ((logs - logs.mean()) ** 2).sum()) * scipy.stats.t.ppf(0.95, 3)
    found = intervals.ratio_of_relative_standard_deviations(pairs)
    value = log_ratio(pairs)
    assert (found.value, *ends(found)) == pytest.approx(tuple(np.exp([value, value - half, value + half])))


@pytest.mark.parametrize(
    ("under", "low", "high"),
    [([0, 0, 0], 100 / 2.9957, None), ([0, 1, 0], 100 / 4.7439, 100 / 0.05129)],
)
def test_too_few_counts_are_bounded_as_poissons_are(under: Sequence[int], low: float, high: float | None) -> None:
    found = intervals.ratio_of_counts([33, 33, 34], under)
    assert found.low == pytest.approx(low, rel=0.05)
    assert found.high == (None if high is None else pytest.approx(high, rel=0.05))
    assert "Poisson" in found.method


def test_independent_means_are_compared_by_their_intervals() -> None:
    a, b = intervals.mean([4.0, 5.0, 6.0], "s"), intervals.mean([1.0, 2.0, 3.0], "s")
    half = ends(a)[1] - 5.0
    found = intervals.difference_of_independent_means(a, b)
    assert (found.value, *ends(found)) == pytest.approx((3.0, 3.0 - half * math.sqrt(2), 3.0 + half * math.sqrt(2)))
    ratio = intervals.ratio_of_independent_means(a, b)
    factor = math.exp(half * math.hypot(1 / 5, 1 / 2))
    assert (ratio.value, *ends(ratio)) == pytest.approx((2.5, 2.5 / factor, 2.5 * factor))


# --- how often they hold the truth ------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator], Estimate]


def pairs_of(g: np.random.Generator, a: Callable[[np.ndarray, np.ndarray], np.ndarray], n: int) -> Pairs:
    """Pairs of a quantity that depends on the other, which is 5 ± 0.5."""
    b = g.normal(5.0, 0.5, n)
    return list(zip(a(b, g.normal(size=n)).tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize(
    ("draw", "truth", "margin"),
    [
        (lambda g: intervals.mean(g.normal(3.0, 2.0, 3).tolist()), 3.0, 0.02),
        (lambda g: intervals.geometric_mean(np.exp(g.normal(0.7, 0.3, 5)).tolist()), math.exp(0.7), 0.02),
        (lambda g: intervals.paired_difference(pairs_of(g, lambda b, x: b + 1 + x, 5)), 1.0, 0.02),
        (lambda g: intervals.geometric_ratio(pairs_of(g, lambda b, x: 2 * b * np.exp(0.3 * x), 5)), 2.0, 0.02),
        (lambda g: intervals.ratio_of_paired_means(pairs_of(g, lambda b, x: 0.7 * b + 0.4 * x, 6)), 0.7, 0.02),
        (lambda g: intervals.standard_deviation((2.0 * g.normal(size=6)).tolist()), 2.0, 0.02),
        (
            lambda g: intervals.ratio_of_standard_deviations(
                (2.0 * g.normal(size=6)).tolist(), (0.5 * g.normal(size=7)).tolist()
            ),
            4.0,
            0.02,
        ),
        (
            lambda g: intervals.ratio_of_relative_standard_deviations(pairs_of(g, lambda b, x: 20 + 4 * x, 30)),
            2.0,
            0.05,
        ),
        (lambda g: intervals.slope([0.0, 1.0, 2.0, 3.0], (np.arange(4) * 2 + g.normal(size=4)).tolist()), 2.0, 0.02),
        (
            lambda g: intervals.ratio_of_counts(g.poisson(1000, 30).tolist(), g.poisson(50, 30).tolist()),
            20.0,
            0.02,
        ),
    ],
)
def test_nine_in_ten_intervals_hold_the_truth(draw: Draw, truth: float, margin: float) -> None:
    """Over 2,000 trials a share is uncertain by 0.007."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        low, high = ends(draw(generator))
        held += low <= truth <= high
    assert held / 2000 == pytest.approx(0.9, abs=margin)


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda g: intervals.share(int(g.binomial(20, 0.3)), 20), 0.3),
        (lambda g: intervals.poisson_mean(int(g.poisson(4.0))), 4.0),
        (
            lambda g: intervals.ratio_of_independent_means(
                intervals.mean(g.normal(4.0, 0.4, 40).tolist()), intervals.mean(g.normal(2.0, 0.2, 40).tolist())
            ),
            2.0,
        ),
        (lambda g: intervals.ratio_of_counts(g.poisson(30.0, 5).tolist(), g.poisson(0.4, 5).tolist()), 75.0),
    ],
)
def test_at_least_nine_in_ten_intervals_hold_the_truth(draw: Draw, truth: float) -> None:
    """Counts cannot meet a share exactly, and bounds taken together are cautious; an open end bounds nothing."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        found = draw(generator)
        held += (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)
    assert held / 1000 >= 0.88


# --- zeros, and what cannot be known ----------------------------------------------------------------------------------


def test_a_geometric_mean_with_a_zero_has_no_value_and_says_how_many() -> None:
    found = intervals.geometric_mean([3.0, 0.0, 2.0, 0.0])
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 4)
    assert "2 of 4 values" in found.method


def test_pairs_with_a_zero_have_the_ratio_of_their_means() -> None:
    pairs = [(0.0, 2.0), (1.0, 3.0), (1.0, 2.0), (0.5, 2.5)]
    found, means = intervals.geometric_ratio(pairs), intervals.ratio_of_paired_means(pairs)
    assert (found.value, found.high) == (means.value, means.high)
    assert found.low == max(0.0, ends(means)[0])
    assert "1 of 4 pairs" in found.method


def test_a_quantity_that_vanished_everywhere_has_the_ratio_zero() -> None:
    found = intervals.geometric_ratio([(0.0, 2.0), (0.0, 3.0), (0.0, 2.5)])
    assert (found.value, *ends(found)) == (0.0, 0.0, 0.0)


def test_zeros_below_leave_the_ratio_open_where_the_mean_below_could_be_zero() -> None:
    found = intervals.geometric_ratio([(1.0, 0.0), (1.1, 0.0), (0.9, 1.0)])
    assert found.value == pytest.approx(3.0)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("odd", [-1.0, math.nan, math.inf])
def test_negative_and_infinite_numbers_have_no_ratio(odd: float) -> None:
    for pair in ((odd, 1.0), (1.0, odd)):
        found = intervals.geometric_ratio([(1.0, 2.0), pair])
        assert (found.value, found.low, found.high, found.n) == (None, None, None, 2)
        assert "1 of 2 pairs" in found.method


@pytest.mark.parametrize(
    "found",
    [
        intervals.mean([]),
        intervals.mean([1.0, math.inf]),
        intervals.geometric_mean([]),
        intervals.geometric_ratio([]),
        intervals.geometric_ratio([(1.0, 0.0), (2.0, 0.0)]),
        intervals.ratio_of_paired_means([]),
        intervals.ratio_of_paired_means([(1.0, 1.0), (1.0, -1.0)]),
        intervals.standard_deviation([1.0]),
        intervals.ratio_of_standard_deviations([1.0], [1.0, 2.0]),
        intervals.ratio_of_standard_deviations([1.0, 2.0], [1.0, 1.0]),
        intervals.ratio_of_relative_standard_deviations([]),
        intervals.ratio_of_relative_standard_deviations([(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]),
        intervals.ratio_of_independent_means(intervals.mean([1.0, 1.0]), intervals.mean([-1.0, -2.0])),
        intervals.difference_of_independent_means(intervals.mean([1.0]), intervals.mean([1.0, 2.0])),
        intervals.ratio_of_counts([0, 0, 0], [0, 0, 0]),
        intervals.share(0, 0),
        intervals.slope([1.0, 1.0], [1.0, 2.0]),
    ],
)
def test_what_has_no_value(found: Estimate) -> None:
    assert (found.value, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize(
    "found",
    [
        intervals.mean([2.0]),
        intervals.geometric_mean([2.0]),
        intervals.geometric_ratio([(1.0, 2.0)]),
        intervals.ratio_of_paired_means([(1.0, 2.0)]),
        intervals.ratio_of_paired_means([(1.0, 2.0), (1.0, -1.9), (1.1, 0.1)]),
        intervals.ratio_of_counts([5], [1]),
        intervals.ratio_of_independent_means(intervals.mean([1.0]), intervals.mean([2.0])),
    ],
)
def test_what_has_a_value_without_an_interval(found: Estimate) -> None:
    assert found.value is not None
    assert (found.low, found.high) == (None, None)


def test_two_series_without_an_order_have_no_correlation() -> None:
    assert intervals.rank_correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert intervals.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
