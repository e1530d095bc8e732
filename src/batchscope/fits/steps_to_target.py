r"""Steps to target against batch size and learning rate: one joint law, its prior, and draws from its posterior.

For a batch size B and a learning rate η,

    log S(B, η) = log S*(B) + ψ(log η - log η*(B))
    S*(B)       = S_min (1 + (B_c/B)^α)^(1/α)                    steps at the best learning rate
    η*(B)       = η_max (1 + (B_c/B)^α)^(-a/α)                   the best learning rate
    ψ(u)        = -log(x ((1 + 1/p) - x^p/p)),                   what a learning rate other than the best costs
                  log x = u - d tanh(u/d)

`S*` with α = 1 is McCandlish et al. (2018), equation 2.11; α is the knee exponent. `η*` with α = a = 1 is their
equation 2.6. `ψ` generalises their equation 2.5, the progress of one step of size x times the best: with p = 1 it is
1/(x(2 - x)). It has three properties seen on real networks: steps fall as 1/η far below the best learning rate,
whatever the batch size; the minimum is flat, over a plateau of about d on either side; and beyond x = (1 + p)^(1/p) no
number of steps suffices. For optimizers that normalise the gradient (Adam), a ≈ 1/2 (Malladi et al. 2022); the prior on
`a` says which, and the data correct it.

On the way to the target a run passes a *milestone*, an easier value of the same metric. Steps to it follow the same law
with a smaller S_min, a smaller B_c (critical batch sizes grow as the loss falls: Kaplan et al. 2020, section 5.1) and a
best learning rate that may lie elsewhere; what these three differ by is learnt with the rest. A run that was paused at
the milestone then says nearly as much about batch size and learning rate as one that was finished, for a third of its
price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

from ..store.records import Estimate
from .posterior import credible_interval, draw

__all__ = ["Observation", "Prior", "StepsPosterior", "fit", "slope_of"]

_NORMALISED_SLOPE, _PLAIN_SLOPE, _SLOPE_SD = 0.5, 0.9, 0.2

Array = NDArray[np.float64]
Columns = NDArray[np.intp]

_WORST = np.log(50.0)
"""log of what ψ reaches at the edge beyond which no number of steps suffices."""
_WALL_SLOPE = 10.0
_OUTLIERS, _OUTLIER_SD = 0.03, 1.5
_LOG_INLIERS, _LOG_OUTLIERS, _LOG_2 = np.log1p(-_OUTLIERS), np.log(_OUTLIERS), np.log(2)
_LOG_OUTLIER_SD = np.log(_OUTLIER_SD)
_MOST, _PARTS = 120, 3
"""Observations that are taken one by one; of more, those that are alike are counted together, in so many parts."""
_TELLING = 1000.0
"""Runs that more count as."""
_LAG_SD = 0.2
_FIRST_LEG_SPREAD, _SECOND_LEG_SPREAD = 0.65, 1.0
"""Spread over seeds of the way to the milestone, and from there to the target, in units of the whole way's."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Observation of steps to target that one run makes.

    `reached`: the run needed `steps`. `lagging`: it was stopped early and would have needed about `steps`. `censored`:
    it had not reached the target after `steps`. `diverged`: its learning rate is beyond what can work at this batch
    size, however it showed. All of these may be said of the milestone instead: `to`.
    """

    batch_size: int
    lr: float
    steps: float
    kind: Literal["reached", "lagging", "censored", "diverged"]
    to: Literal["target", "milestone"] = "target"
    milestone_steps: float | None = None
    """Steps at which the run passed the milestone on its way to the target; `None`: not known, or not passed."""


def slope_of(normalised: bool) -> tuple[float, float]:
    """Prior of the power of batch size with which the best learning rate grows where that is small.

    Args:
        normalised: whether the optimizer normalises the gradient (Malladi et al. 2022); else it is like SGD.

    Returns:
        Mean and standard deviation.
    """
    return (_NORMALISED_SLOPE if normalised else _PLAIN_SLOPE), _SLOPE_SD


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Independent normals on (log S_min, log B_c, log α, log η_max, a, log p, log σ), a milestone's changes, log d.

    σ is the spread of log S over seeds at the best learning rate. What a milestone changes are, target ÷ milestone in
    logarithms, the ratio of S_min, of B_c and of η_max.
    """

    log_steps_min: tuple[float, float] = (6.0, 3.0)
    log_critical_batch_size: tuple[float, float] = (float(np.log(128.0)), float(np.log(8.0)))
    log_alpha: tuple[float, float] = (float(np.log(1.25)), 0.35)
    log_lr_max: tuple[float, float] = (-2.0, 3.0)
    slope: tuple[float, float] = (0.8, 0.2)
    log_shape: tuple[float, float] = (float(np.log(0.4)), 0.6)
    log_spread: tuple[float, float] = (float(np.log(0.16)), 0.35)
    log_steps_growth: tuple[float, float] = (1.1, 0.4)
    log_critical_growth: tuple[float, float] = (0.65, 0.35)
    log_lr_growth: tuple[float, float] = (0.1, 0.2)
    log_plateau: tuple[float, float] = (float(np.log(0.4)), 0.7)

    def arrays(self) -> tuple[Array, Array]:
        """Means and standard deviations, each of shape (11,)."""
        pairs = np.array(
            [
                self.log_steps_min,
                self.log_critical_batch_size,
                self.log_alpha,
                self.log_lr_max,
                self.slope,
                self.log_shape,
                self.log_spread,
                self.log_steps_growth,
                self.log_critical_growth,
                self.log_lr_growth,
                self.log_plateau,
            ]
        )
        return pairs[:, 0], pairs[:, 1]

    def with_critical_batch_size(self, value: float, factor: float) -> Prior:
        """Prior after an independent hint `B_c ≈ value`, one standard deviation being the given factor."""
        mean, sd = self.log_critical_batch_size
        hint_sd = float(np.log(factor))
        precision = sd**-2 + hint_sd**-2
        updated = (mean * sd**-2 + float(np.log(value)) * hint_sd**-2) / precision
        return replace(self, log_critical_batch_size=(updated, precision**-0.5))


@dataclass(frozen=True)
class StepsPosterior:
    """Draws of the eleven parameters; every prediction is made for each draw.

    Attributes:
        draws: shape (n, 11), columns as in `Prior`.
        observations: how many runs stand behind them.
    """

    draws: Array
    observations: int

    def log_best_steps(self, batch_size: ArrayLike) -> Array:
        """Logarithm of S*(B); shape (n, *batch_size.shape)."""
        draws, size = self._against(batch_size)
        return draws[0] + _bend(draws, np.log(size))

    def log_best_lr(self, batch_size: ArrayLike) -> Array:
        """Logarithm of η*(B); shape (n, *batch_size.shape)."""
        draws, size = self._against(batch_size)
        return draws[3] - draws[4] * _bend(draws, np.log(size))

    def log_steps(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Logarithm of S(B, η); shape (n, *broadcast shape)."""
        size, lrs = np.broadcast_arrays(np.asarray(batch_size, float), np.asarray(lr, float))
        draws, _ = self._against(size)
        return _steps_and_lr(draws, np.log(size), np.log(lrs))[0]

    def spread(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Standard deviation of log S over seeds; shape (n, *broadcast shape)."""
        size, lrs = np.broadcast_arrays(np.asarray(batch_size, float), np.asarray(lr, float))
        draws, _ = self._against(size)
        return _spread(draws, np.log(lrs) - (draws[3] - draws[4] * _bend(draws, np.log(size))))

    def log_milestone_steps(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Logarithm of the steps to the milestone; shape (n, *broadcast shape)."""
        size, lrs = np.broadcast_arrays(np.asarray(batch_size, float), np.asarray(lr, float))
        draws, _ = self._against(size)
        return _steps_and_lr(_at_milestone(draws), np.log(size), np.log(lrs))[0]

    def milestone_spread(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Standard deviation over seeds of the logarithm of the steps to the milestone."""
        return _FIRST_LEG_SPREAD * self.spread(batch_size, lr)

    def critical_batch_size(self) -> Estimate:
        """Critical batch size B_c, in examples."""
        return self._estimate(np.exp(self.draws[:, 1]), "examples")

    def knee_exponent(self) -> Estimate:
        """Knee exponent α."""
        return self._estimate(np.exp(self.draws[:, 2]), "")

    def _estimate(self, values: Array, unit: str) -> Estimate:
        method = "posterior of the joint law of steps: median, 90 % credible interval"
        return credible_interval(values, n=self.observations, unit=unit, method=method)

    def _against(self, batch_size: ArrayLike) -> tuple[Array, Array]:
        size = np.asarray(batch_size, float)
        return self.draws.T.reshape(self.draws.shape[1], -1, *([1] * size.ndim)), size


def fit(observations: Sequence[Observation], prior: Prior, *, particles: int = 256, seed: int = 0) -> StepsPosterior:
    """Draws from the posterior of the joint law.

    Errors are normal in log S with a spread of σ at the best learning rate and of σ times the square root of learning
    rate ÷ best learning rate elsewhere, and 3 % of the runs are outliers; a censored run counts with the probability of
    needing more steps than it had. Where a run passed the milestone, the way to it and the way from there count apart,
    with three quarters of σ and nearly all of it: on real networks the two are hardly correlated.

    Args:
        observations: may be empty: the draws are then the prior's.
        prior: of the eleven parameters, before the runs.
        particles: number of draws.
        seed: the result is a function of the arguments.

    Returns:
        The posterior.

    Cost: about 0.1 s; of more than 120 observations, which are counted together where they are alike, at most a few
    seconds. Valid when the schedule is constant and the target lies above what the learning rates tried can reach.
    """
    mean, sd = prior.arrays()
    if not observations:
        rng = np.random.default_rng(seed)
        return StepsPosterior(mean + sd * rng.standard_normal((particles, len(mean))), 0)
    likelihood = _Likelihood.of(observations)
    return StepsPosterior(draw(mean, sd, likelihood, particles=particles, seed=seed), len(observations))


@dataclass(frozen=True)
class _Likelihood:
    """Log likelihood of all observations, for points of shape (n, 11).

    It is called some hundred times a fit, so each kind of observation is computed for its own columns alone.
    """

    log_size: Array
    log_lr: Array
    log_steps: Array
    log_milestone_steps: Array
    """NaN where it is not known."""
    to_milestone: NDArray[np.bool_]
    exact: Columns
    """Of observations that tell the steps; of those are `lagging`."""
    lagging: NDArray[np.bool_]
    censored: Columns
    diverged: Columns
    passed: Columns
    """Of observations that tell the steps to the milestone too."""
    weight: Array | None = None
    """Runs that each observation stands for; `None`: one."""

    @property
    def knows_milestones(self) -> bool:
        """Whether some observation is of the milestone, or of a run that passed it."""
        return bool(self.to_milestone.any()) or bool(self.passed.size)

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> _Likelihood:
        weight: Array | None = None
        if len(observations) > _MOST and all(o.milestone_steps is None for o in observations):
            observations, weight = _condensed(observations)
        kind = np.array([o.kind for o in observations])
        exact = np.flatnonzero((kind == "reached") | (kind == "lagging"))
        passed = np.array([o.milestone_steps is not None for o in observations])
        return cls(
            np.log([float(o.batch_size) for o in observations]),
            np.log([o.lr for o in observations]),
            np.log([max(o.steps, 0.5) for o in observations]),
            np.log([np.nan if o.milestone_steps is None else max(o.milestone_steps, 0.5) for o in observations]),
            np.array([o.to == "milestone" for o in observations]),
            exact=exact,
            lagging=kind[exact] == "lagging",
            censored=np.flatnonzero(kind == "censored"),
            diverged=np.flatnonzero(kind == "diverged"),
            passed=np.flatnonzero(passed),
            weight=weight,
        )

    def __call__(self, points: Array) -> Array:
        draws = points.T[:, :, None]
        whole, beyond = first, beyond_early = _steps_and_lr(draws, self.log_size, self.log_lr)
        if self.knows_milestones:
            first, beyond_early = _steps_and_lr(_at_milestone(draws), self.log_size, self.log_lr)
        spread, passed = _spread(draws, beyond), self.passed
        predicted = np.where(self.to_milestone, first, whole)
        own = np.where(self.to_milestone, _FIRST_LEG_SPREAD * spread, spread)
        if passed.size:
            rest = np.maximum(whole[:, passed] - first[:, passed], 0.02)
            predicted[:, passed] = self.log_milestone_steps[passed] + rest
            own[:, passed] = _SECOND_LEG_SPREAD * spread[:, passed]
        total = self._legs(predicted, own)
        if self.diverged.size:
            above = np.where(self.to_milestone, beyond_early, beyond)[:, self.diverged]
            total[:, self.diverged] = _too_high(draws, above)
        if passed.size:
            residual = self.log_milestone_steps[passed] - first[:, passed]
            total[:, passed] += _density(residual, _FIRST_LEG_SPREAD * spread[:, passed])
        return total.sum(axis=1) if self.weight is None else total @ self.weight

    def _legs(self, predicted: Array, spread: Array) -> Array:
        total = np.empty_like(predicted)
        if self.exact.size:
            own = spread[:, self.exact]
            if self.lagging.any():
                own = np.where(self.lagging, np.hypot(own, _LAG_SD), own)
            total[:, self.exact] = _density(self.log_steps[self.exact] - predicted[:, self.exact], own)
        if self.censored.size:
            lacking = predicted[:, self.censored] - self.log_steps[self.censored]
            total[:, self.censored] = _or_outlier(log_ndtr(lacking / spread[:, self.censored]))
        return total


def _too_high(draws: Array, beyond: Array) -> Array:
    """Log probability that a learning rate breaks training, so far beyond the best one."""
    edge = np.log1p(np.exp(draws[5])) / np.exp(draws[5])
    return _or_outlier(log_ndtr((_off_plateau(draws, beyond) - 0.8 * edge) / 0.3))


def _or_outlier(log_probability: Array) -> Array:
    """Log probability where of two outcomes an outlier has each as often."""
    return np.logaddexp(_LOG_INLIERS + log_probability, _LOG_OUTLIERS - _LOG_2)


def _condensed(observations: Sequence[Observation]) -> tuple[list[Observation], Array]:
    """Observations that are alike in all but their steps, counted together, and how many each stands for.

    Those of one kind whose batch sizes and learning rates lie in one cell, no wider than needed, are put in order of
    their steps and cut into parts of equal numbers; a part counts as often as it has runs, at the geometric
    means of its batch sizes, learning rates and steps. In all they count as no more runs than tell the law: its own
    misfit is as large as the spread over seeds.
    """
    logs = np.log([(o.batch_size, o.lr, max(o.steps, 0.5)) for o in observations])
    kinds, kind = np.unique([f"{o.kind} {o.to}" for o in observations], return_inverse=True)
    width, cell = 0.0, np.empty(0)
    while not len(cell) or cell.max() >= max(_MOST, len(kinds)):
        near = np.round(logs[:, :2] / width) if width else logs[:, :2]
        cell = np.unique(np.column_stack([near, kind]), axis=0, return_inverse=True)[1].ravel()
        width = 2.0 * width or 0.05
    parts = max(1, min(_PARTS, _MOST // int(cell.max() + 1)))
    found: list[Observation] = []
    weights: list[float] = []
    for number in range(int(cell.max()) + 1):
        own = np.flatnonzero(cell == number)
        own = own[np.argsort(logs[own, 2], kind="stable")]
        for part in np.array_split(own, min(parts, len(own))):
            size, lr, steps = np.exp(logs[part].mean(axis=0))
            found.append(
                replace(observations[part[0]], batch_size=max(1, round(size)), lr=float(lr), steps=float(steps))
            )
            weights.append(float(len(part)))
    return found, np.array(weights) * min(1.0, _TELLING / len(observations))


def _density(residual: Array, spread: Array) -> Array:
    """Logarithm of a normal density with outliers, up to a constant."""
    return np.logaddexp(
        _LOG_INLIERS - 0.5 * (residual / spread) ** 2 - np.log(spread),
        _LOG_OUTLIERS - 0.5 * (residual / _OUTLIER_SD) ** 2 - _LOG_OUTLIER_SD,
    )


def _at_milestone(draws: Array) -> Array:
    """Parameters of the law on the way to the milestone."""
    early = draws.copy()
    for parameter, growth in ((0, 7), (1, 8), (3, 9)):
        early[parameter] = draws[parameter] - draws[growth]
    return early


def _bend(draws: Array, log_size: Array) -> Array:
    """Excess of log S*(B) over log S_min: (1/α) log(1 + (B_c/B)^α), without overflow."""
    alpha = np.exp(draws[2])
    return np.logaddexp(0.0, alpha * (draws[1] - log_size)) / alpha


def _steps_and_lr(draws: Array, log_size: Array, log_lr: Array) -> tuple[Array, Array]:
    """Logarithms of S(B, η) and of η/η*(B)."""
    bend = _bend(draws, log_size)
    beyond = log_lr - (draws[3] - draws[4] * bend)
    return draws[0] + bend + _cost_of_lr(_off_plateau(draws, beyond), np.exp(draws[5])), beyond


def _off_plateau(draws: Array, u: Array) -> Array:
    """Distance of a learning rate beyond the plateau about the best one: u - d tanh(u/d)."""
    half_width = np.exp(draws[10])
    return u - half_width * np.tanh(u / half_width)


def _spread(draws: Array, u: Array) -> Array:
    """Standard deviation over seeds, which grows towards the edge: on real tables as the root of the learning rate."""
    return np.exp(draws[6] + np.clip(0.5 * u, -0.5, 1.0))


def _cost_of_lr(u: Array, p: Array) -> Array:
    """Cost ψ off the plateau; where the learning rate is too high, a steep wall that leads draws back."""
    remaining = (1.0 + 1.0 / p) - np.exp(np.minimum(p * u, 50.0)) / p
    wall = _WORST + _WALL_SLOPE * np.maximum(0.0, u - np.log1p(p) / p)
    return np.where(remaining > np.exp(-_WORST), -u - np.log(np.maximum(remaining, np.exp(-_WORST))), wall)
