r"""Steps to target against batch size where each batch size was run at one learning rate: a law, its prior, and draws.

For the examples E = S·B that a run at batch size B reads until it reaches the target,

    log E(B) = log E_min + (1/α) log(1 + (B/B_c)^α) + w(B/B_hi) + w(B_lo/B) + δ(B)
    w(x)     = -log(1 - x²)  for x < 1; from there on the target is not reached

The first two terms are McCandlish et al. (2018), equation 2.11, with a knee exponent, as in `steps_to_target`. The
walls are what one learning rate for each batch size adds: beyond B_hi the batch is too large for the learning rate it
was given, below B_lo too small, and on the way there examples, and at last even steps, rise. How near the walls are
expected follows from how the learning rates follow the batch size: on tables whose best cells are known the square-root
rule keeps farthest from both, a constant learning rate is too high for small batches, and a proportional one for large
batches (docs/log.md). δ is a Gaussian process in log2 B: what such a law misses, alike for sizes that are near (Kennedy
& O'Hagan 2001, section 2). log E_min and δ are integrated out in closed form; the other four parameters are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtri

from ..store.records import Estimate
from .posterior import credible_interval, draw

__all__ = ["UntunedPosterior", "UntunedPrior", "fit_untuned"]

Array = NDArray[np.float64]

_LEVEL_SD = 10.0
"""Prior standard deviation of log E_min: none to speak of."""
_MISFIT_SD, _MISFIT_OCTAVES = 0.08, 1.5
_FREQUENCIES = 32
_SPREAD, _SPREAD_WEIGHT = 0.15, 4.0
"""Of log steps over repeats, before any were seen, and the number of repeats that this counts for."""
_PATIENCE = 3.0
"""A run that never got there is taken to have been given this many times the examples of the longest that did."""
_DEAD, _IMPOSSIBLE = 60.0, -1e4
_NEAREST = 1e-3
_LEAST_SHARE = -12.0


@dataclass(frozen=True, kw_only=True)
class UntunedPrior:
    """Independent normals on (log B_c, log α, log B_hi/B_c, log B_lo/smallest batch size)."""

    log_critical_batch_size: tuple[float, float] = (float(np.log(512.0)), float(np.log(300.0)))
    log_alpha: tuple[float, float] = (float(np.log(1.6)), 0.5)
    log_upper_wall: tuple[float, float] = (3.0, 2.0)
    log_lower_wall: tuple[float, float] = (-2.0, 2.0)

    @classmethod
    def for_rates(cls, slope: float | None) -> UntunedPrior:
        """Prior for learning rates that follow `lr ∝ B^slope`; `None`: the learning rates are not known.

        Example:
            >>> UntunedPrior.for_rates(0.5).log_upper_wall, UntunedPrior.for_rates(1.0).log_upper_wall
            ((4.0, 2.0), (1.25, 2.0))
        """
        if slope is None:
            return cls()
        along = min(max(slope, 0.0), 1.0)
        upper, lower = 4.0 - 2.75 * abs(2.0 * along - 1.0), -1.0 - 2.0 * min(1.0, 2.0 * along)
        return replace(cls(), log_upper_wall=(upper, 2.0), log_lower_wall=(lower, 2.0))

    def arrays(self) -> tuple[Array, Array]:
        """Means and standard deviations, each of shape (4,)."""
        pairs = np.array(
            [self.log_critical_batch_size, self.log_alpha, self.log_upper_wall, self.log_lower_wall], dtype=float
        )
        return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Runs of each batch size at which one reached the target, and the batch sizes at which one did not."""

    size: Array
    mean: Array
    """Of log examples over the runs that reached the target."""
    error: Array
    """Variance of that mean."""
    missed: Array
    """Batch sizes at which some run never reached it."""
    spread: float
    log_given: float
    """What a run that never reached it is taken to have read, log examples."""
    runs: int

    @classmethod
    def of(cls, steps: Mapping[int, Sequence[float | None]], grain: float) -> _Groups:
        known = {b: np.log([s * b for s in runs if s is not None]) for b, runs in sorted(steps.items())}
        known = {b: logs for b, logs in known.items() if len(logs)}
        squares = sum(float(((logs - logs.mean()) ** 2).sum()) for logs in known.values())
        freedom = sum(len(logs) - 1 for logs in known.values())
        variance = (_SPREAD_WEIGHT * _SPREAD**2 + squares) / (_SPREAD_WEIGHT + freedom)
        mean = np.array([logs.mean() for logs in known.values()])
        rounding = (grain / np.exp(mean)) ** 2 / 12.0
        return cls(
            size=np.array(list(known), dtype=float),
            mean=mean,
            error=variance / np.array([len(logs) for logs in known.values()]) + rounding,
            missed=np.array([b for b, runs in sorted(steps.items()) if None in runs], dtype=float),
            spread=float(np.sqrt(variance)),
            log_given=float(np.log(_PATIENCE)) + max(float(logs.max()) for logs in known.values()),
            runs=sum(map(len, steps.values())),
        )


@dataclass(frozen=True, kw_only=True)
class UntunedPosterior:
    """Draws of the law and of what it misses; every prediction is made for each draw.

    Attributes:
        draws: shape (n, 4), columns as in `UntunedPrior`.
        smallest: batch size that B_lo is relative to.
        seed_spread: standard deviation of log steps over repeats.
        observations: how many runs stand behind them.
    """

    draws: Array
    smallest: float
    seed_spread: float
    observations: int
    _groups: _Groups = field(repr=False)
    _weights: Array = field(repr=False)
    """Of the random waves that δ is made of, shape (n, 2 · frequencies); one column more for the level."""

    def log_steps(self, batch_size: ArrayLike) -> Array:
        """Logarithm of steps to target; shape (n, *batch_size.shape); about 60 where the target is never reached."""
        size = np.asarray(batch_size, dtype=float)
        flat = np.atleast_1d(size).ravel()
        law, dead = _law(self.draws, flat, self.smallest)
        groups = self._groups
        seen = _law(self.draws, groups.size, self.smallest)[0] + _waves(self._weights, groups.size)
        noise = np.sqrt(groups.error) * self._weights[:, -len(groups.size) :]
        gain = _covariance(flat, groups.size) @ np.linalg.inv(_noisy(groups))
        log_examples = law + _waves(self._weights, flat) + (groups.mean - seen - noise) @ gain.T
        return np.where(dead, _DEAD, log_examples - np.log(flat)).reshape(-1, *size.shape)

    def critical_batch_size(self) -> Estimate:
        """Critical batch size B_c, in examples."""
        return self._estimate(np.exp(self.draws[:, 0]), "examples")

    def knee_exponent(self) -> Estimate:
        """Knee exponent α."""
        return self._estimate(np.exp(self.draws[:, 1]), "")

    def _estimate(self, values: Array, unit: str) -> Estimate:
        method = "posterior of the law of steps, learning rates as they were: median, 90 % credible interval"
        return credible_interval(values, n=self.observations, unit=unit, method=method)


def fit_untuned(
    steps: Mapping[int, Sequence[float | None]],
    prior: UntunedPrior,
    *,
    grain: float = 0.0,
    particles: int = 512,
    seed: int = 0,
) -> UntunedPosterior:
    """Draws from the posterior of the law.

    Errors are normal in log E with one spread for all batch sizes. That a run never reached the target counts, once for
    its batch size, as: beyond a wall, or in need of more than 3 times the examples of the longest that did reach it.

    Args:
        steps: to target, of each run at each batch size; `None`: never reached. At least one run reached it.
        prior: of the four parameters, before the runs.
        grain: examples between two evaluations where steps are known to whole evaluations only; 0: exactly.
        particles: number of draws.
        seed: the result is a function of the arguments.

    Returns:
        The posterior.

    Raises:
        ValueError: no run reached the target.

    Cost: about 0.1 s. Valid within 8 times the measured sizes, and where all runs were given about the same patience.
    """
    if not any(s is not None for runs in steps.values() for s in runs):
        raise ValueError(f"no run at the batch sizes {sorted(steps)} reached the target: there is nothing to fit")
    groups, smallest = _Groups.of(steps, grain), float(min(steps))
    mean, sd = prior.arrays()
    draws = draw(mean, sd, _Likelihood(groups, smallest), particles=particles, seed=seed)
    normals = np.random.default_rng(seed).standard_normal((particles, 2 * _FREQUENCIES + 1 + len(groups.size)))
    return UntunedPosterior(
        draws=draws,
        smallest=smallest,
        seed_spread=groups.spread,
        observations=groups.runs,
        _groups=groups,
        _weights=normals,
    )


class _Likelihood:
    """Log likelihood of all groups, for points of shape (n, 4)."""

    def __init__(self, groups: _Groups, smallest: float) -> None:
        self._groups, self._smallest = groups, smallest
        self._inverse = np.linalg.inv(_noisy(groups))
        self._gain = _covariance(groups.missed, groups.size) @ self._inverse
        left = np.diag(_covariance(groups.missed, groups.missed) - self._gain @ _covariance(groups.size, groups.missed))
        self._missed_sd = np.sqrt(np.maximum(left, 0.0) + groups.spread**2)

    def __call__(self, points: Array) -> Array:
        groups = self._groups
        law, dead = _law(points, groups.size, self._smallest)
        residual = groups.mean - law
        total = -0.5 * np.einsum("ni,ij,nj->n", residual, self._inverse, residual)
        if len(groups.missed):
            there, beyond = _law(points, groups.missed, self._smallest)
            needed = there + residual @ self._gain.T
            slow = log_ndtr((needed - groups.log_given) / self._missed_sd)
            total += np.maximum(np.where(beyond, 0.0, slow), _LEAST_SHARE).sum(axis=1)
        return np.where(dead.any(axis=1), _IMPOSSIBLE, total)


def _law(draws: Array, size: Array, smallest: float) -> tuple[Array, Array]:
    """Log E - log E_min without δ, and whether a size is beyond a wall; both of shape (n, sizes)."""
    log_size = np.log(size)
    critical, alpha = draws[:, :1], np.exp(draws[:, 1:2])
    bend = np.logaddexp(0.0, alpha * (log_size - critical)) / alpha
    above = 2.0 * (log_size - critical - draws[:, 2:3])
    below = 2.0 * (np.log(smallest) + draws[:, 3:4] - log_size)
    return bend + _wall(above) + _wall(below), (above >= -_NEAREST) | (below >= -_NEAREST)


def _wall(twice_log: Array) -> Array:
    return -np.log1p(-np.exp(np.minimum(twice_log, -_NEAREST)))


def _covariance(one: Array, other: Array) -> Array:
    """Covariance of log E_min + δ between batch sizes."""
    octaves = np.log2(one)[:, None] - np.log2(other)[None, :]
    return _LEVEL_SD**2 + _MISFIT_SD**2 * np.exp(-0.5 * (octaves / _MISFIT_OCTAVES) ** 2)


def _noisy(groups: _Groups) -> Array:
    return _covariance(groups.size, groups.size) + np.diag(groups.error)


def _waves(weights: Array, size: Array) -> Array:
    """Log E_min + δ drawn before any run (Rahimi & Recht 2007, section 3; frequencies at the normal's quantiles)."""
    frequency = ndtri((np.arange(_FREQUENCIES) + 0.5) / _FREQUENCIES) / _MISFIT_OCTAVES
    phase = np.outer(frequency, np.log2(size))
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) * (_MISFIT_SD / np.sqrt(_FREQUENCIES))
    return weights[:, : 2 * _FREQUENCIES] @ waves + _LEVEL_SD * weights[:, 2 * _FREQUENCIES, None]
