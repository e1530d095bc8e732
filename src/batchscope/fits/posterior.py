"""Draws from a posterior of a handful of parameters, and the credible interval of what follows from them.

Draws are tempered particles, moved by an affine-invariant ensemble.

Sources: tempering and resampling as in Del Moral, Doucet & Jasra (2006), section 3; the stretch move of Goodman & Weare
(2010), equations 7 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..store.records import Estimate

__all__ = ["credible_interval", "draw", "low_median_high"]

Array = NDArray[np.float64]

_EFFECTIVE_SHARE = 0.5
_STRETCH = 2.0
_MOVES, _FINAL_MOVES = 24, 60
"""Moves of the ensemble after each rise of the power, and at full power."""


def draw(
    prior_mean: Array,
    prior_sd: Array,
    log_likelihood: Callable[[Array], Array],
    *,
    particles: int = 256,
    seed: int = 0,
) -> Array:
    """Particles from `prior × likelihood`, the prior being independent normals.

    The likelihood is raised to a power that grows from 0 to 1, each time as far as half of the particles stay
    effective; after each rise the particles are resampled and moved.

    Args:
        prior_mean: shape (d,).
        prior_sd: shape (d,), positive.
        log_likelihood: maps (n, d) to (n,); may be -inf.
        particles: number of particles, even.
        seed: the draws are a function of the arguments.

    Returns:
        Shape (particles, d).

    Cost: about 10 rises, each of 24 moves of all particles, and 60 moves at full power.
    """
    rng = np.random.default_rng(seed)
    x = prior_mean + prior_sd * rng.standard_normal((particles, len(prior_mean)))

    def log_prior(points: Array) -> Array:
        return -0.5 * np.sum(((points - prior_mean) / prior_sd) ** 2, axis=1)

    log_like, log_priors, power = log_likelihood(x), log_prior(x), 0.0
    while power < 1.0:
        rise = _largest_rise(log_like, 1.0 - power)
        weights = np.exp(rise * (log_like - log_like.max()))
        chosen = _systematic(weights / weights.sum(), rng)
        x, log_like, log_priors, power = x[chosen], log_like[chosen], log_priors[chosen], power + rise
        for _ in range(_MOVES if power < 1.0 else _FINAL_MOVES):
            x, log_like, log_priors = _sweep((x, log_like, log_priors), power, log_prior, log_likelihood, rng)
    return x


def low_median_high(values: Array, *, axis: int | None = None, discrete: bool = False) -> Array:
    """The 5 %, 50 % and 95 % quantiles of draws, along the first axis of the result.

    Args:
        values: one a draw.
        axis: of the draws; default: all values are draws of one number.
        discrete: whether each quantile is one of the values, not a number between two of them.

    >>> low_median_high(np.arange(101.0)).tolist()
    [5.0, 50.0, 95.0]
    """
    return np.quantile(values, (0.05, 0.5, 0.95), axis=axis, method="nearest" if discrete else "linear")


def credible_interval(
    values: Array, *, n: int, unit: str, method: str, below: float = math.inf, discrete: bool = False
) -> Estimate:
    """The median of draws with its 90 % credible interval.

    Args:
        values: one a draw.
        n: observations behind the posterior.
        unit: of the values.
        method: how they come about.
        below: what lies at this value or beyond means "never", and is `None`.
        discrete: as for `low_median_high`.

    >>> credible_interval(np.arange(101.0), n=4, unit="steps", method="draws", below=60.0).high is None
    True
    """
    low, value, high = (float(v) if v < below else None for v in low_median_high(values, discrete=discrete))
    return Estimate(value=value, low=low, high=high, n=n, unit=unit, method=method)


def _largest_rise(log_like: Array, most: float) -> float:
    def effective(rise: float) -> float:
        weights = np.exp(rise * (log_like - log_like.max()))
        return float(weights.sum() ** 2 / (weights**2).sum())

    enough = _EFFECTIVE_SHARE * len(log_like)
    if effective(most) >= enough:
        return most
    low, high = 0.0, most
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= enough else (low, middle)
    return max(low, 1e-4 * most)


def _systematic(weights: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    positions = (rng.random() + np.arange(len(weights))) / len(weights)
    return np.minimum(np.searchsorted(np.cumsum(weights), positions), len(weights) - 1)


def _sweep(
    ensemble: tuple[Array, Array, Array],
    power: float,
    log_prior: Callable[[Array], Array],
    log_likelihood: Callable[[Array], Array],
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Move every particle once; an ensemble is its particles with their log likelihoods and log priors."""
    order = rng.permutation(len(ensemble[0]))
    x, log_like, log_priors = (part[order] for part in ensemble)
    half, d = len(x) // 2, x.shape[1]
    for own, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        count = len(x[own])
        z = ((_STRETCH - 1) * rng.random(count) + 1) ** 2 / _STRETCH
        anchor = x[other][rng.integers(len(x[other]), size=count)]
        proposal = anchor + z[:, None] * (x[own] - anchor)
        proposed, prior = log_likelihood(proposal), log_prior(proposal)
        ratio = (d - 1) * np.log(z) + power * (proposed - log_like[own]) + prior - log_priors[own]
        accepted = np.log(rng.random(count)) < ratio
        for part, new in ((x, proposal), (log_like, proposed), (log_priors, prior)):
            part[own][accepted] = new[accepted]
    return x, log_like, log_priors
