"""Noise of evaluations: the spread and the level at the end, on curves whose noise and level are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.fits.evaluation_noise import end_value, evaluation_spread

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
