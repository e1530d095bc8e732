"""Repeats that are known to whole evaluations: the grid is found, and means and spread are those behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.fits.evaluation_grid import censored_means, grid_of

PRIOR = {"spread": 0.15, "weight": 4.0}


def test_the_grid_of_an_evaluation_every_so_often_is_found() -> None:
    rng = np.random.default_rng(0)
    assert grid_of((250.0 * rng.integers(8, 30, 40)).tolist()) == pytest.approx(250)
    assert grid_of((0.05 * rng.integers(13, 20, 40)).tolist()) == pytest.approx(0.05)
    nearly = [512_000.0 * k * (1 + 5e-4 * (k % 2)) for k in (3, 4, 5, 6, 8, 9)]
    assert grid_of(nearly) == pytest.approx(512_000, rel=1e-3)


def test_no_grid_is_seen_where_there_is_none() -> None:
    found = [grid_of(np.random.default_rng(seed).uniform(900, 2000, 5).tolist()) for seed in range(200)]
    assert sum(grid > 0 for grid in found) <= 4
    assert grid_of([4.0, 5.0, 6.0]) == 0  # too few to tell
    assert grid_of([1000.0, 1001.0, 1002.0, 1005.0]) == 0  # so fine that it does not matter
    assert grid_of([]) == 0


def test_without_evaluations_means_and_spread_are_the_plain_ones() -> None:
    rng = np.random.default_rng(1)
    logs = [math.log(1e5) + 0.1 * rng.standard_normal(5) for _ in range(3)]
    mean, error, spread = censored_means([np.exp(own).tolist() for own in logs], [0.0] * 3, **PRIOR)
    squares = sum(((own - own.mean()) ** 2).sum() for own in logs)
    variance = (4 * 0.15**2 + squares) / (4 + 12)
    assert mean == pytest.approx([own.mean() for own in logs], abs=1e-4)
    assert spread == pytest.approx(math.sqrt(variance), rel=1e-3)
    assert error == pytest.approx(variance * 16 / 14 / 5, rel=1e-2)  # the spread is not known for sure


@pytest.mark.parametrize("grain", [0.02, 0.1, 0.3])
def test_the_truth_behind_the_rounding_lies_in_its_interval(grain: float) -> None:
    """Nine in ten means, with five repeats at each of four sizes and a spread of a twentieth."""
    rng, inside, total = np.random.default_rng(2), 0, 0
    for _ in range(30):
        truth = rng.uniform(0.0, 1.0, 4)
        examples = np.exp(truth[:, None] + 0.05 * rng.standard_normal((4, 5)))
        seen = np.maximum(np.round(examples / grain), 1) * grain
        mean, error, _ = censored_means(seen.tolist(), [grain] * 4, spread=0.05, weight=4.0)
        inside += int((np.abs(mean - truth) < 1.645 * np.sqrt(error)).sum())
        total += 4
    assert 0.82 <= inside / total <= 0.99


def test_repeats_that_all_agree_are_not_known_exactly() -> None:
    """The evaluations hide how far they lie apart: twice as uncertain as the plain formula takes them to be."""
    runs = [[4.0] * 20, [8.0] * 20]
    _, error, spread = censored_means(runs, [1.0, 1.0], **PRIOR)
    _, plain, none = censored_means(runs, [0.0, 0.0], **PRIOR)
    assert math.sqrt(error[0]) > 2 * math.sqrt(plain[0])
    assert error[0] > error[1] > plain[1]  # an evaluation is a larger share of a shorter way
    assert none < spread < 0.12
