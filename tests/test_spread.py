"""Standard deviations and their ratio: intervals against simulation and another library."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from batchscope.intervals.spread import deviation_of, deviation_ratio

TRIALS = 2000


def test_intervals_hold_the_truth_nine_times_in_ten() -> None:
    """Normal values of deviation 2, and 2 against 0.5; over 2,000 trials a share is uncertain by 0.007."""
    draws = np.random.default_rng(3).normal(size=(TRIALS, 13))
    alone = [deviation_of(list(2.0 * d[:6])) for d in draws]
    assert np.mean([e.low < 2.0 < e.high for e in alone]) == pytest.approx(0.9, abs=0.02)
    both = [deviation_ratio(list(2.0 * d[:6]), list(0.5 * d[6:])) for d in draws]
    assert np.mean([e.low < 4.0 < e.high for e in both]) == pytest.approx(0.9, abs=0.02)
    assert np.mean([e.low >= 4.0 for e in both]) == pytest.approx(0.05, abs=0.015)


def test_ends_are_those_of_chi_square_and_f() -> None:
    values, others = [1.0, 4.0, 2.0, 8.0], [3.0, 1.0, 2.0, 5.0, 4.0, 9.0]
    s = np.std(values, ddof=1)
    ratio = s / np.std(others, ddof=1)
    found = deviation_of(values)
    assert (found.low, found.high) == pytest.approx(tuple(s * np.sqrt(3 / scipy.stats.chi2(3).ppf([0.95, 0.05]))))
    found = deviation_ratio(values, others)
    assert found.value == pytest.approx(ratio)
    assert (found.low, found.high) == pytest.approx(tuple(ratio / np.sqrt(scipy.stats.f(3, 5).ppf([0.95, 0.05]))))


def test_what_has_no_spread() -> None:
    assert deviation_of([1.0]).value is None
    assert deviation_ratio([1.0], [1.0, 2.0]).value is None
    assert deviation_ratio([1.0, 2.0], [1.0, 1.0]).value is None
    assert deviation_ratio([1.0, 1.0], [1.0, 2.0]).value == 0.0
