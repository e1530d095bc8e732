"""The sampler against posteriors that have a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import truncnorm

from batchscope.fits.posterior import draw

Array = NDArray[np.float64]

SEEDS = range(8)


def test_gaussian_times_gaussian_has_the_mean_and_covariance_of_the_closed_form() -> None:
    """y = A x + noise of sd s: the posterior's precision is AᵀA / s² + diag(1 / prior sd²)."""
    prior_mean, prior_sd, noise = np.array([1.0, -2.0, 0.5]), np.array([1.0, 3.0, 0.5]), 0.4
    design = np.array([[1.0, 0.9, 0.0], [0.0, 1.0, -1.0]])
    seen = np.array([2.0, 1.0])
    precision = design.T @ design / noise**2 + np.diag(prior_sd**-2)
    covariance = np.linalg.inv(precision)
    mean = covariance @ (design.T @ seen / noise**2 + prior_mean / prior_sd**2)

    def log_likelihood(x: Array) -> Array:
        return -0.5 * (((x @ design.T - seen) / noise) ** 2).sum(axis=1)

    draws = np.stack([draw(prior_mean, prior_sd, log_likelihood, seed=seed) for seed in SEEDS])
    sd = np.sqrt(np.diag(covariance))
    error = draws.mean(axis=1).std(axis=0, ddof=1) / math.sqrt(len(SEEDS))
    assert (error < 0.1 * sd).all()
    np.testing.assert_array_less(np.abs(draws.mean(axis=(0, 1)) - mean), 4 * error)
    np.testing.assert_allclose(draws.std(axis=1).mean(axis=0), sd, rtol=0.1)
    correlation = np.corrcoef(draws.reshape(-1, 3).T)
    np.testing.assert_allclose(correlation, covariance / np.outer(sd, sd), atol=0.1)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_two_modes_are_both_kept_in_their_proportion(share: float) -> None:
    def log_likelihood(x: Array) -> Array:
        left, right = -0.5 * ((x[:, 0] + 2) / 0.2) ** 2, -0.5 * ((x[:, 0] - 2) / 0.2) ** 2
        return np.logaddexp(math.log(share) + left, math.log(1 - share) + right)

    draws = np.stack([draw(np.zeros(2), np.full(2, 2.0), log_likelihood, seed=s)[:, 0] for s in SEEDS])
    shares = (draws < 0).mean(axis=1)
    assert shares.mean() == pytest.approx(share, abs=0.06)
    assert (np.abs(shares - share) < 0.25).all()
    assert (np.abs(np.abs(draws) - 2) < 1.2).all()


def test_a_likelihood_a_thousand_times_narrower_than_the_prior_is_found() -> None:
    def log_likelihood(x: Array) -> Array:
        return -0.5 * (((x - np.array([5.0, -7.0])) / 0.01) ** 2).sum(axis=1)

    draws = draw(np.zeros(2), np.full(2, 10.0), log_likelihood)
    np.testing.assert_allclose(draws.mean(axis=0), [5.0, -7.0], atol=0.005)
    np.testing.assert_allclose(draws.std(axis=0), 0.01, rtol=0.3)


def test_where_the_likelihood_is_zero_no_draw_lies() -> None:
    """A standard normal cut off below 1, of which the prior has a sixth."""

    def log_likelihood(x: Array) -> Array:
        return np.where(x[:, 0] > 1, 0.0, -np.inf)

    draws = np.stack([draw(np.zeros(1), np.ones(1), log_likelihood, seed=s)[:, 0] for s in SEEDS])
    assert (draws > 1).all()
    assert draws.mean() == pytest.approx(truncnorm.mean(1, np.inf), rel=0.03)
    assert draws.std(axis=1).mean() == pytest.approx(truncnorm.std(1, np.inf), rel=0.1)


def test_a_flat_likelihood_gives_the_prior_back() -> None:
    draws = draw(np.array([3.0, -1.0]), np.array([0.5, 2.0]), lambda x: np.zeros(len(x)), particles=1024)
    np.testing.assert_allclose(draws.mean(axis=0), [3.0, -1.0], atol=0.25)
    np.testing.assert_allclose(draws.std(axis=0), [0.5, 2.0], rtol=0.1)


def test_the_draws_are_a_function_of_the_seed() -> None:
    def log_likelihood(x: Array) -> Array:
        return -0.5 * (x[:, 0] / 0.1) ** 2

    first, again, other = (draw(np.zeros(2), np.ones(2), log_likelihood, particles=64, seed=s) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (64, 2)
