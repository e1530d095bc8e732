"""The interval of a ratio of paired means against the definition, searched on a fine grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from batchscope.intervals.paired_ratio import paired_ratio

PAIRS = [(2.0, 4.1), (2.4, 3.9), (1.7, 4.4), (2.2, 3.6), (2.9, 4.6)]


def inside(pairs: list[tuple[float, float]], ratio: float) -> bool:
    """Whether the mean of a - ratio b is within t standard errors of zero."""
    rest = np.array([a - ratio * b for a, b in pairs])
    error = rest.std(ddof=1) / math.sqrt(len(rest))
    return bool(abs(rest.mean()) <= float(stdtrit(len(rest) - 1, 0.95)) * error)


def test_the_interval_holds_the_ratios_that_the_definition_holds() -> None:
    found = paired_ratio(PAIRS, "times")
    assert (found.n, found.unit) == (5, "times")
    assert found.value == pytest.approx(np.mean([a for a, _ in PAIRS]) / np.mean([b for _, b in PAIRS]))
    held = [ratio for ratio in np.arange(-1.0, 2.0, 1e-4) if inside(PAIRS, ratio)]
    assert found.low == pytest.approx(held[0], abs=2e-4)
    assert found.high == pytest.approx(held[-1], abs=2e-4)


def test_a_numerator_of_about_zero_gives_an_interval_about_zero() -> None:
    found = paired_ratio([(0.1, 5.0), (-0.1, 5.2), (0.05, 4.9)])
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_negative_means_have_ordered_ends() -> None:
    found = paired_ratio([(-2.0, 4.0), (-2.2, 4.1), (-1.9, 3.8)])
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < 0


@pytest.mark.parametrize("pairs", [[(1.0, 2.0)], [(1.0, 2.0), (1.0, -1.9), (1.1, 0.1)]])
def test_without_an_interval_the_ends_are_open(pairs: list[tuple[float, float]]) -> None:
    found = paired_ratio(pairs)
    assert found.value is not None
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("pairs", [[], [(1.0, 1.0), (1.0, -1.0)]])
def test_a_denominator_of_zero_has_no_ratio(pairs: list[tuple[float, float]]) -> None:
    assert paired_ratio(pairs).value is None


def test_the_interval_holds_the_truth_in_nine_of_ten_samples() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        b = random.normal(5.0, 0.5, 6)
        a = 0.7 * b + random.normal(0.0, 0.4, 6)
        found = paired_ratio(list(zip(a.tolist(), b.tolist(), strict=True)))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.7 <= found.high
    assert held == pytest.approx(900, abs=30)
