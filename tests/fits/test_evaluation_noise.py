"""Noise of evaluations: the spread and the level at the end, on curves whose noise and level are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.fits.curves import first_passage
from batchscope.fits.evaluation_noise import best_level, confirmations, end_value, evaluation_spread
from batchscope.store.ranges import Range
from batchscope.store.records import Target

_RUNS, _SIGMA = 400, 0.02
_DENSE = np.unique(np.geomspace(1, 2000, 160).round())
_SPARSE = np.arange(150, 2001, 150.0)


def _curves(steps: np.ndarray, level: float = 0.8, reach: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A smooth rising curve, and noisy ones about it, one a row."""
    smooth = level - reach * (steps / 30.0) ** -0.5
    noise = np.random.default_rng(5).normal(0.0, _SIGMA, (_RUNS, len(steps)))
    return smooth, smooth + noise


@pytest.mark.parametrize("steps", [_DENSE, _SPARSE], ids=["dense", "sparse"])
def test_the_spread_is_that_of_the_noise(steps: np.ndarray) -> None:
    found = [evaluation_spread(steps, curve) for curve in _curves(steps)[1]]
    assert math.sqrt(np.mean([e.value**2 for e in found])) == pytest.approx(_SIGMA, rel=0.05)
    assert np.mean([e.low <= _SIGMA <= e.high for e in found]) == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("steps", [_DENSE, _SPARSE], ids=["dense", "sparse"])
def test_the_level_at_the_end_is_not_flattered(steps: np.ndarray) -> None:
    smooth, curves = _curves(steps)
    found = [end_value(steps, curve) for curve in curves]
    bias = np.mean([end.value for end in found if end]) - smooth[-1]
    assert abs(bias) < 0.15 * _SIGMA
    assert np.std([end.value for end in found if end]) < _SIGMA
    assert np.mean(curves.max(axis=1)) - smooth[-1] > 1.0 * _SIGMA  # what the best evaluation would promise


def test_the_interval_holds_one_evaluation_at_the_end_of_another_run() -> None:
    smooth, curves = _curves(_DENSE)
    again = smooth[-1] + np.random.default_rng(6).normal(0.0, _SIGMA, _RUNS)
    ends = [end.estimate() for curve in curves if (end := end_value(_DENSE, curve))]
    inside = np.mean([e.low <= value <= e.high for e, value in zip(ends, again, strict=True)])
    assert inside == pytest.approx(0.9, abs=0.05)


def test_a_smooth_curve_ends_where_it_ends() -> None:
    smooth, _ = _curves(_DENSE)
    end = end_value(_DENSE, smooth)
    assert end is not None
    assert end.value == pytest.approx(smooth[-1], abs=2e-3)
    assert end.spread == pytest.approx(0.0, abs=1e-3)


def test_too_few_evaluations() -> None:
    assert end_value([0], [3.0]) is None
    assert end_value([0, 5], [3.0, math.nan]) is None
    end = end_value([0, 5, 9], [3.0, 2.0, 1.5])
    assert end is not None
    assert (end.value, end.spread, end.n, end.estimate("1").low) == (1.5, None, 2, None)
    assert evaluation_spread([0, 5, 9], [3.0, 2.0, 1.5]).value is None


@pytest.mark.parametrize("growth", [1.05, 1.15, 1.3])
def test_a_run_that_is_one_spread_short_is_rarely_confirmed_by_chance(growth: float) -> None:
    """It stands there; within a doubling of its steps at most about one in twenty has K in a row at the target."""
    steps = 200.0 * growth ** np.arange(-30, 1)
    draws = np.random.default_rng(7).normal(0.0, _SIGMA, (_RUNS, len(steps)))
    found = [confirmations(steps, 0.8 + draw, rising=True) for draw in draws]
    confirm = int(np.median(found))
    assert {1.05: 3, 1.15: 3, 1.3: 2}[growth] == confirm

    ahead = round(math.log(2) / math.log(growth))
    later = np.random.default_rng(8).normal(0.0, _SIGMA, (20_000, ahead))
    target = Target(metric="m", value=_SIGMA, mode="max", confirm=confirm)
    curves = [[(i + 1, value) for i, value in enumerate(run)] for run in later]
    chance = np.mean([_confirmed(curve, target) for curve in curves])
    assert chance <= 0.06
    once = np.mean([_confirmed(curve, Target(metric="m", value=_SIGMA, mode="max")) for curve in curves])
    assert once > 0.3


def _confirmed(curve: list[tuple[int, float]], target: Target) -> bool:
    steps, values = [float(step) for step, _ in curve], [value for _, value in curve]
    return first_passage(steps, values, target.value, rising=True, confirm=target.confirm) is not None


def test_one_evaluation_is_enough_where_the_gain_outweighs_the_noise() -> None:
    steps = np.unique(np.geomspace(20, 400, 60).round())
    steep, flat = (np.log(steps) * gain for gain in (1.0, 0.01))
    noise = np.random.default_rng(9).normal(0.0, _SIGMA, len(steps))
    assert confirmations(steps, steep + noise, rising=True) == 1
    assert confirmations(steps, -(steep + noise), rising=False) == 1
    assert confirmations(steps, flat + noise, rising=True) == 3
    assert confirmations(steps, -(flat + noise), rising=False) == 3
    assert confirmations(steps, steep + noise, rising=False) == 3  # it gets worse
    assert confirmations(steps, flat, rising=True) == 1  # no noise at all
    assert confirmations([0, 1, 2, 3, 4], [0.0, 1.0, 0.0, 1.0, 0.0], rising=True) == 1  # too few to tell


def test_the_best_level_of_a_run_that_got_worse_again() -> None:
    steps = np.unique(np.geomspace(10, 2000, 150).round())
    smooth = 0.8 - 0.1 * np.log(steps / 300.0) ** 2
    noise = np.random.default_rng(10).normal(0.0, _SIGMA, (_RUNS, len(steps)))
    found = [best_level(steps, smooth + draw, rising=True) for draw in noise]
    assert abs(np.mean([level for level in found if level is not None]) - 0.8) < 0.5 * _SIGMA
    assert np.mean((smooth + noise).max(axis=1)) > 0.8 + 1.0 * _SIGMA
    assert best_level([0, 3, 9], [9.0, 2.0, 3.0], rising=False) == 2.0
    assert best_level([0], [9.0], rising=False) is None


def test_the_level_at_the_end_lies_between_the_last_evaluations_and_inside_what_the_metric_can_be() -> None:
    steps = [10, 11, 12, 13, 14]
    end = end_value(steps, [0.90, 0.94, 0.98, 1.0, 1.0])
    assert end is not None
    assert end.value == 1.0
    told = end.estimate(within=Range(0.0, 0.99))
    assert told.value == told.high == 0.99
