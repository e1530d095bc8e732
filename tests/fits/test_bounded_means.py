"""Intervals of what has a range: inside it, close to the plain t interval where that is short, and sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from batchscope.fits import intervals
from batchscope.store.ranges import ANY, CORRELATION, NOT_NEGATIVE, PERCENT, SHARE, Range, range_of

Draw = Callable[[np.random.Generator, int], np.ndarray]


def beta(mean: float, sd: float) -> Draw:
    total = mean * (1 - mean) / sd**2 - 1
    return lambda rng, n: rng.beta(mean * total, (1 - mean) * total, n)


SHARES: dict[str, tuple[Draw, float]] = {
    "near 1": (beta(0.961, 0.02), 0.961),
    "at 1": (beta(0.99, 0.01), 0.99),
    "of 200 examples": (lambda rng, n: rng.binomial(200, 0.98, n) / 200, 0.98),
    "in the middle": (lambda rng, n: rng.normal(0.5, 0.05, n), 0.5),
}
POSITIVE: dict[str, tuple[Draw, float]] = {
    "lognormal": (lambda rng, n: np.exp(rng.normal(-0.125, 0.5, n)), 1.0),
    "exponential": (lambda rng, n: rng.exponential(1.0, n), 1.0),
    "gamma": (lambda rng, n: rng.gamma(4.0, 0.25, n), 1.0),
}
CASES = [
    pytest.param(draw, mean, within, id=name)
    for cases, within in ((SHARES, SHARE), (POSITIVE, NOT_NEGATIVE))
    for name, (draw, mean) in cases.items()
]


def covered(draw: Draw, mean: float, n: int, within: Range) -> tuple[float, int]:
    """The share of intervals that hold the mean, and the number of draws that give none."""
    rng = np.random.default_rng(n)
    found = [intervals.mean(draw(rng, n).tolist(), within=within) for _ in range(1500)]
    whole = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    for low, high in whole:
        assert within.holds(low)
        assert within.holds(high)
    return sum(low <= mean <= high for low, high in whole) / len(whole), len(found) - len(whole)


@pytest.mark.parametrize(("draw", "mean", "within"), CASES)
@pytest.mark.parametrize("n", [3, 7])
def test_it_holds_the_mean_at_least_as_often_as_the_plain_interval(
    draw: Draw, mean: float, within: Range, n: int
) -> None:
    bounded, without = covered(draw, mean, n, within)
    plain, _ = covered(draw, mean, n, ANY)
    assert not without
    assert bounded >= plain - 0.01
    assert 0.84 <= bounded <= 0.95


@pytest.mark.parametrize(("draw", "mean", "within"), CASES)
def test_two_values_give_an_interval_inside_or_none(draw: Draw, mean: float, within: Range) -> None:
    covered(draw, mean, 2, within)


def test_two_seeds_far_apart_give_no_interval_and_say_so() -> None:
    for values, within in (([0.2, 0.9], SHARE), ([0.1, 4.0], NOT_NEGATIVE), ([-0.5, 0.9], CORRELATION)):
        found = intervals.mean(values, within=within)
        assert found.value == pytest.approx(sum(values) / 2)
        assert (found.low, found.high) == (None, None)
        assert "too few for an interval" in found.method
        assert intervals.mean([*values, sum(values) / 2], within=within).low is not None


def test_where_the_plain_interval_is_short_it_is_the_same() -> None:
    values = [0.500, 0.502, 0.499]
    plain, bounded = intervals.mean(values), intervals.mean(values, within=SHARE)
    assert (bounded.low, bounded.high) == pytest.approx((plain.low, plain.high), abs=1e-5)


def test_equal_values_have_no_spread_also_at_an_end() -> None:
    for value in (0.0, 0.4, 1.0):
        found = intervals.mean([value] * 3, within=SHARE)
        assert (found.value, found.low, found.high) == pytest.approx((value, value, value))


def test_a_value_outside_shows_that_the_range_is_none() -> None:
    values = [-0.1, 0.2, 0.3]
    assert intervals.mean(values, within=NOT_NEGATIVE) == intervals.mean(values)


def test_differences_of_shares_lie_between_minus_one_and_one() -> None:
    pairs = [(0.9, 0.1), (0.95, 0.05), (0.7, 0.3)]
    low, high = intervals.paired_difference(pairs).low, intervals.paired_difference(pairs).high
    assert high is not None
    assert high > 1.0
    found = intervals.paired_difference(pairs, within=SHARE)
    assert found.low is not None
    assert found.high is not None
    assert low is not None
    assert -1.0 < found.low < found.high < 1.0
    assert intervals.paired_difference(pairs, within=NOT_NEGATIVE) == intervals.paired_difference(pairs)


@pytest.mark.parametrize(
    ("name", "seen", "expected"),
    [
        ("final_val_accuracy", [0.4, 1.0], SHARE),
        ("best_train_accuracy_eval", [], SHARE),
        ("test_accuracy", [0.4, 96.0], PERCENT),
        ("test_accuracy", [-0.4, 0.3], ANY),
        ("train_loss", [0.1], NOT_NEGATIVE),
        ("final_train_loss_eval", [0.1, -0.2], ANY),
        ("best_epoch", [3.0], NOT_NEGATIVE),
        ("train_time_s", [3.0], NOT_NEGATIVE),
        ("ema_val_accuracy", [0.4], SHARE),
        ("val/accuracy", [0.4], SHARE),
        ("dev_f1", [0.4], SHARE),
        ("r2", [-3.0, 0.4], Range(high=1.0)),
        ("val_perplexity", [80.0], Range(low=1.0)),
        ("val_nll", [0.1], NOT_NEGATIVE),
        ("val_logprob", [0.1], ANY),
        ("accuracy_of_nothing_known", [0.1], ANY),
        ("score", [0.5], ANY),
    ],
)
def test_a_range_follows_from_an_exact_name_and_what_was_seen(name: str, seen: list[float], expected: Range) -> None:
    assert range_of(name, seen) == expected
