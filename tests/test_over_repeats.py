"""Intervals over repeats: against textbook values, and how often they hold the truth in simulated draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from batchscope.intervals.over_repeats import mean_of_repeats, ratio_of_counts, ratio_of_means, ratio_of_spreads
from batchscope.records import Estimate


def test_a_mean_has_students_interval() -> None:
    found = mean_of_repeats([1.0, 2.0, 3.0, 4.0])
    half = 2.353363 * math.sqrt(5 / 3) / 2  # t of 3 degrees of freedom at 0.95
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)
    assert "4 repeats" in found.method
    assert mean_of_repeats([1.0]).low is None


def test_the_jackknife_of_a_plain_ratio_is_that_of_its_logarithm() -> None:
    """Against the definition, written out."""
    x, y = [1.0, 2.0, 4.0, 3.0], [2.0, 3.0, 3.0, 5.0]
    logs = [
        math.log(sum(v for i, v in enumerate(x) if i != r) / sum(v for i, v in enumerate(y) if i != r))
        for r in range(4)
    ]
    middle = sum(logs) / 4
    error = math.sqrt(3 / 4 * sum((v - middle) ** 2 for v in logs))
    found = ratio_of_means(x, y)
    assert found.value == pytest.approx(10 / 13)
    assert found.low == pytest.approx(10 / 13 * math.exp(-2.353363 * error), rel=1e-6)
    assert found.high == pytest.approx(10 / 13 * math.exp(2.353363 * error), rel=1e-6)


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (lambda x, y: ratio_of_means(list(5 + 2 * x), list(4 + x)), 5 / 4),
        (lambda x, y: ratio_of_spreads(list(10 + 2 * x), list(20 + y)), 4.0),
        (lambda x, y: ratio_of_counts(list(1000 + np.round(40 * x)), list(50 + np.round(7 * y))), 20.0),
    ],
)
def test_nine_in_ten_intervals_hold_the_truth(
    estimate: Callable[[np.ndarray, np.ndarray], Estimate], truth: float
) -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        x = generator.normal(size=30)
        found = estimate(x, 0.6 * x + 0.8 * generator.normal(size=30))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.85 <= held / 400 <= 0.95


@pytest.mark.parametrize(
    ("under", "low", "high"),
    [([0, 0, 0], 100 / 2.9957, None), ([0, 1, 0], 100 / 4.7439, 100 / 0.05129)],
)
def test_too_few_counts_are_bounded_as_poissons_are(under: Sequence[int], low: float, high: float | None) -> None:
    found = ratio_of_counts([33, 33, 34], under)
    assert found.low == pytest.approx(low, rel=0.05)
    assert found.high == (None if high is None else pytest.approx(high, rel=0.05))
    assert "Poisson" in found.method


def test_what_cannot_be_known_is_open() -> None:
    assert ratio_of_means([1.0, 2.0], [1.0, 2.0]).low is None
    assert ratio_of_spreads([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value is None
    assert ratio_of_counts([0, 0, 0], [0, 0, 0]).low is None
    assert ratio_of_counts([5], [1]).low is None
