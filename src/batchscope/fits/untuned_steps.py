r"""Steps to target against batch size where each batch size was run at one learning rate: a law, its prior, and draws.

For the examples E = S·B that a run at batch size B reads until it reaches the target,

    log E(B) = log E_min + (1/α) log(1 + (B/B_c)^α) + w(B/B_hi) + w(B_lo/B) + δ(B)
    w(x)     = -log(1 - x²)  for x < 1; from there on the target is not reached

The first two terms are McCandlish et al. (2018), equation 2.11, with a knee exponent, as in `steps_to_target`. The
walls are what one learning rate for each batch size adds: beyond B_hi the batch is too large for the learning rate it
was given, below B_lo too small, and on the way there examples, and at last even steps, rise. How near the walls are
expected follows from how the learning rates follow the batch size: on tables whose best cells are known the square-root
rule keeps farthest from both, a constant learning rate is too high for small batches, and a proportional one for large
batches (docs/log.md). δ is what such a law misses: a Gaussian process in log2 B, alike for sizes that are near (Kennedy
& O'Hagan 2001, section 2), and a part of each size's own, for schedule, warm-up and learning rate are chosen size by
size. How much that is differs from table to table by orders of magnitude, so the standard deviation of both parts has a
common factor κ of unknown size: δ has heavy tails before the runs, and light ones where many sizes follow the law.
log E_min and δ are integrated out in closed form, κ over a few quantiles of its prior; the other four are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtri

from ..store.records import Estimate
from .posterior import credible_interval, draw

__all__ = ["SPREAD", "SPREAD_WEIGHT", "Repeats", "UntunedPosterior", "UntunedPrior", "fit_untuned"]

Array = NDArray[np.float64]

_LEVEL_SD = 10.0
"""Prior standard deviation of log E_min: none to speak of."""
_MISFIT_SD, _MISFIT_OCTAVES, _OWN_SD = 0.03, 1.5, 0.03
"""Standard deviations of the two parts of δ where κ is 1: of that which near sizes share, and of each size's own."""
_FREQUENCIES = 32
_SCALES = np.exp(1.6 * ndtri((np.arange(9) + 0.5) / 9))
"""Quantiles of the prior of κ: log-normal, one standard deviation being a factor of 5 (chosen on four industrial
trainings and checked on three others, `benchmarks/mlperf.py`)."""
SPREAD, SPREAD_WEIGHT = 0.15, 4.0
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
class Repeats:
    """Log examples to the target at the batch sizes at which a run reached it, ascending.

    Attributes:
        mean: of each batch size.
        error: variance of that mean.
        spread: standard deviation over repeats, one for all batch sizes, what evaluations add left out.
        grain: examples between two evaluations, where steps are known to whole evaluations only; 0: exactly.
    """

    mean: tuple[float, ...]
    error: tuple[float, ...]
    spread: float
    grain: float = 0.0

    @classmethod
    def exactly(cls, runs: Sequence[Sequence[float]]) -> Repeats:
        """Of the examples of the runs at each batch size, known exactly."""
        logs = [np.log(own) for own in runs]
        squares = sum(float(((own - own.mean()) ** 2).sum()) for own in logs)
        freedom = sum(len(own) - 1 for own in logs)
        variance = (SPREAD_WEIGHT * SPREAD**2 + squares) / (SPREAD_WEIGHT + freedom)
        return cls(
            mean=tuple(float(own.mean()) for own in logs),
            error=tuple(variance / len(own) for own in logs),
            spread=float(np.sqrt(variance)),
        )


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
    grain: float

    @classmethod
    def of(cls, steps: Mapping[int, Sequence[float | None]], repeats: Repeats | None) -> _Groups:
        known = {b: [s * b for s in runs if s is not None] for b, runs in sorted(steps.items())}
        known = {b: examples for b, examples in known.items() if examples}
        repeats = repeats or Repeats.exactly(list(known.values()))
        return cls(
            size=np.array(list(known), dtype=float),
            mean=np.array(repeats.mean),
            error=np.array(repeats.error),
            missed=np.array([b for b, runs in sorted(steps.items()) if None in runs], dtype=float),
            spread=repeats.spread,
            log_given=float(np.log(_PATIENCE * max(map(max, known.values())))),
            runs=sum(map(len, steps.values())),
            grain=repeats.grain,
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
    _scale: NDArray[np.intp] = field(repr=False)
    """Which of the scales of δ each draw has, shape (n,)."""
    _weights: Array = field(repr=False)
    """Standard normals, a row a draw: of the random waves that δ is made of, of the level, of the runs, of each size's
    own part of δ; shape (n, 2 · frequencies + 1 + 2 · groups)."""

    def log_steps(self, batch_size: ArrayLike) -> Array:
        """Logarithm of steps to target; shape (n, *batch_size.shape); about 60 where the target is never reached.

        Of a size that was not run it is without what its own recipe adds (`misfit`).
        """
        size = np.asarray(batch_size, dtype=float)
        flat = np.atleast_1d(size).ravel()
        law, dead = _law(self.draws, flat, self.smallest)
        groups, factor = self._groups, _SCALES[self._scale][:, None]
        same = (flat[:, None] == groups.size).astype(float)
        count = len(groups.size)
        noise = np.sqrt(groups.error) * self._weights[:, -2 * count : -count]
        own = _OWN_SD * factor * self._weights[:, -count:]
        seen = _law(self.draws, groups.size, self.smallest)[0] + _waves(self._weights, groups.size, factor) + own
        missing = groups.mean - seen - noise
        log_examples = law + _waves(self._weights, flat, factor) + own @ same.T
        for index in np.unique(self._scale):
            draws, scale = self._scale == index, float(_SCALES[index])
            shared = _covariance(flat, groups.size, scale) + (_OWN_SD * scale) ** 2 * same
            log_examples[draws] += missing[draws] @ (shared @ np.linalg.inv(_noisy(groups, scale))).T
        return np.where(dead, _DEAD, log_examples - np.log(flat)).reshape(-1, *size.shape)

    def misfit(self, batch_size: ArrayLike) -> Array:
        """Standard deviation of what the own recipe of a size that was not run adds; shape (n, *batch_size.shape)."""
        size = np.asarray(batch_size, dtype=float)
        factor = _SCALES[self._scale].reshape(-1, *[1] * size.ndim)
        return np.where(np.isin(size, self._groups.size), 0.0, _OWN_SD * factor)

    def spread(self, batch_size: ArrayLike) -> Array:
        """Standard deviation of log steps of a training: over seeds, evaluations and recipes; shape as of `misfit`."""
        size = np.asarray(batch_size, dtype=float)
        level = np.median(self.log_steps(size), axis=0) + np.log(size)
        rounding = self._groups.grain / np.sqrt(12.0) * np.exp(-level)
        return np.sqrt(self.misfit(size) ** 2 + self.seed_spread**2 + rounding**2)

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
    repeats: Repeats | None = None,
    particles: int = 512,
    seed: int = 0,
) -> UntunedPosterior:
    """Draws from the posterior of the law.

    Errors are normal in log E with one spread for all batch sizes. That a run never reached the target counts, once for
    its batch size, as: beyond a wall, or in need of more than 3 times the examples of the longest that did reach it.

    Args:
        steps: to target, of each run at each batch size; `None`: never reached. At least one run reached it.
        prior: of the four parameters, before the runs.
        repeats: what the runs that reached it say, where it is known to evaluations only (`evaluation_grid`); `None`:
            each is known exactly.
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
    groups, smallest = _Groups.of(steps, repeats), float(min(steps))
    mean, sd = prior.arrays()
    likelihood = _Likelihood(groups, smallest)
    draws = draw(mean, sd, likelihood, particles=particles, seed=seed)
    rng = np.random.default_rng(seed)
    normals = rng.standard_normal((particles, 2 * _FREQUENCIES + 1 + 2 * len(groups.size)))
    return UntunedPosterior(
        draws=draws,
        smallest=smallest,
        seed_spread=groups.spread,
        observations=groups.runs,
        _groups=groups,
        _scale=_drawn(likelihood.by_scale(draws), rng.random(particles)),
        _weights=normals,
    )


def _drawn(log_weights: Array, uniform: Array) -> NDArray[np.intp]:
    """Index of a column for each row, drawn with the given weights."""
    share = np.cumsum(np.exp(log_weights - np.logaddexp.reduce(log_weights, axis=1)[:, None]), axis=1)
    return np.minimum((share < uniform[:, None]).sum(axis=1), log_weights.shape[1] - 1)


class _Likelihood:
    """Log likelihood of all groups, for points of shape (n, 4)."""

    def __init__(self, groups: _Groups, smallest: float) -> None:
        self._groups, self._smallest = groups, smallest
        self._parts = [_AtScale.of(groups, float(scale)) for scale in _SCALES]

    def __call__(self, points: Array) -> Array:
        law, dead = _law(points, self._groups.size, self._smallest)
        total = np.logaddexp.reduce(self._by_scale(points, law), axis=1) - np.log(len(_SCALES))
        return np.where(dead.any(axis=1), _IMPOSSIBLE, total)

    def by_scale(self, points: Array) -> Array:
        """Log likelihood for each scale of δ, shape (n, scales), up to a constant; of points that are possible."""
        return self._by_scale(points, _law(points, self._groups.size, self._smallest)[0])

    def _by_scale(self, points: Array, law: Array) -> Array:
        groups = self._groups
        residual = groups.mean - law
        there, beyond = _law(points, groups.missed, self._smallest)
        total = np.empty((len(points), len(self._parts)))
        for column, part in enumerate(self._parts):
            total[:, column] = part.log_density(residual)
            if len(groups.missed):
                slow = log_ndtr((there + residual @ part.gain.T - groups.log_given) / part.missed_sd)
                total[:, column] += np.maximum(np.where(beyond, 0.0, slow), _LEAST_SHARE).sum(axis=1)
        return total


@dataclass(frozen=True, kw_only=True)
class _AtScale:
    """What follows from one scale of δ for the groups, and for the sizes at which some run missed the target."""

    inverse: Array
    log_determinant: float
    gain: Array
    missed_sd: Array

    @classmethod
    def of(cls, groups: _Groups, scale: float) -> _AtScale:
        noisy = _noisy(groups, scale)
        inverse: Array = np.linalg.inv(noisy).astype(np.float64)
        to_missed = _covariance(groups.missed, groups.size, scale)
        left = np.diag(_covariance(groups.missed, groups.missed, scale) - to_missed @ inverse @ to_missed.T)
        own = (_OWN_SD * scale) ** 2
        return cls(
            inverse=inverse,
            log_determinant=float(np.linalg.slogdet(noisy)[1]),
            gain=np.asarray(to_missed @ inverse, dtype=np.float64),
            missed_sd=np.sqrt(np.maximum(left, 0.0) + own + groups.spread**2),
        )

    def log_density(self, residual: Array) -> Array:
        """Of residuals, shape (n, groups), up to a constant."""
        return -0.5 * (np.einsum("ni,ij,nj->n", residual, self.inverse, residual) + self.log_determinant)


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


def _covariance(one: Array, other: Array, scale: float) -> Array:
    """Covariance of log E_min + δ between batch sizes, each size's own part of δ left out."""
    octaves = np.log2(one)[:, None] - np.log2(other)[None, :]
    return _LEVEL_SD**2 + (scale * _MISFIT_SD) ** 2 * np.exp(-0.5 * (octaves / _MISFIT_OCTAVES) ** 2)


def _noisy(groups: _Groups, scale: float) -> Array:
    """Covariance of the means of the groups."""
    return _covariance(groups.size, groups.size, scale) + np.diag(groups.error + (_OWN_SD * scale) ** 2)


def _waves(weights: Array, size: Array, factor: Array) -> Array:
    """Log E_min + the shared part of δ drawn before any run (Rahimi & Recht 2007, section 3).

    The frequencies are at the normal's quantiles.
    """
    frequency = ndtri((np.arange(_FREQUENCIES) + 0.5) / _FREQUENCIES) / _MISFIT_OCTAVES
    phase = np.outer(frequency, np.log2(size))
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) * (_MISFIT_SD / np.sqrt(_FREQUENCIES))
    level = _LEVEL_SD * weights[:, 2 * _FREQUENCIES, None]
    return factor * (weights[:, : 2 * _FREQUENCIES] @ waves) + level
