r"""Where trainings of one length end, against batch size and learning rate: a law, its prior, draws from its posterior.

With `z` the logarithm of what a metric has left to its ideal (`Left`), batch size B, learning rate η and logarithms to
base 2 in octaves,

    z(B, η) = z* + A (κ(log η - log η*(B)) + r λ(log B - log B*))
    κ(d) = √(1 + d²) - 1                     below the best learning rate; 1.3 times that above it
    λ(e) = √(1 + (e/1.5)²) - 1               above B*; 0.15 times that below it
    log η*(B) = log η₀ + a (g(B) - g(B₀)),   g(B) = -log(1 + 2^2.5 B*/B)

At equal examples a larger batch takes fewer steps: up to some batch size that costs nothing, then more and more. Far
below it the smallest batches are a little worse again, at a constant learning rate. At equal steps it is the other way
round: smaller batches see fewer examples, and above some batch size nothing more is gained. η* grows as B^a while the
batch size is well below that at which larger ones cost steps, and levels off above, as in `fits.steps_to_target`.

Shapes and prior are read off the 15 tables of `benchmarks/search/tables` at a constant learning rate, at the length
after which the best cell has nearly reached its target. The law is rough: its error grows with the distance from the
best, by a quarter of it, so that runs near the best decide. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .posterior import draw

__all__ = ["End", "EndPosterior", "Left", "Start", "fit"]

Array = NDArray[np.float64]

_ABOVE, _SMALLER = 1.3, 0.15
_WIDTH, _LEVELS_OFF = 1.5, 2.5
_MISFIT, _LEAST_SD = 0.25, 0.002
_OUTLIERS, _OUTLIER_SD = 0.03, 0.5
_EDGE, _EDGE_SLOPE = 1.5, 3.0
"""A learning rate at which training diverges lies about so many octaves above the best or further."""
_SIZE_SD, _LR_SD = 1.1, 1.6
"""Of the prior, in octaves."""
_SPREAD = 0.35
"""Spread from seed to seed ÷ A, in the median of the prior; 0.1 to 1 in the tables."""
_PARTICLES = 512
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a metric has left to its ideal, in logarithms: a loss or an error itself, a score below 1 as 1 - score.

    Where neither makes sense, the metric in units of what a training gains, so that smaller is better there as well.

    Attributes:
        kind: of the metric.
        sign: 1 where smaller is better, else -1; of kind `plain` alone.
        span: what a training gains; of kind `plain` alone.
        floor: the least that is taken to be left, so that a value at its ideal has a logarithm; not of kind `plain`.
    """

    kind: Literal["error", "score", "plain"]
    sign: float = 1.0
    span: float = 1.0
    floor: float = 1e-12

    @classmethod
    def of(cls, values: Sequence[float], *, rising: bool) -> Left:
        """The kind that fits all values of a metric that were seen, the first of them with fresh weights.

        What is left is 1/1000 of that with fresh weights at least; of a loss or an error less, where less was seen.

        >>> Left.of([2.0, 0.5], rising=False).kind, Left.of([0.1, 0.9], rising=True).kind
        ('error', 'score')
        >>> [Left.of(values, rising=True).kind for values in ([9.0, 90.0], [-3.0, -0.2])]
        ['plain', 'plain']
        """
        if not rising and min(values) >= 0.0:
            positive = [value for value in (_FLOOR * values[0], *values) if value > 0.0]
            return cls(kind="error", floor=min(positive, default=_FLOOR))
        if rising and min(values) >= 0.0 and max(values) <= 1.0:
            return cls(kind="score", floor=_FLOOR * (1.0 - values[0]) or _FLOOR)
        best = max(values) if rising else min(values)
        return cls(kind="plain", sign=-1.0 if rising else 1.0, span=abs(best - values[0]) or 1.0)

    def log(self, value: float) -> float:
        """What is left at a value of the metric, in logarithms.

        >>> Left(kind="error").log(1.0), round(Left(kind="score").log(0.9), 2)
        (0.0, -2.3)
        """
        if self.kind == "plain":
            return self.sign * value / self.span
        return math.log(max(self._left(value), self.floor))

    def slope(self, value: float) -> float:
        """Change of `log` with the metric at a value, without its sign.

        >>> Left(kind="error").slope(0.5)
        2.0
        """
        return 1.0 / (self.span if self.kind == "plain" else max(self._left(value), self.floor))

    def _left(self, value: float) -> float:
        return value if self.kind == "error" else 1.0 - value

    def value(self, log: Array) -> Array:
        """Values of the metric at what is left."""
        if self.kind == "plain":
            return self.sign * self.span * log
        return np.exp(log) if self.kind == "error" else 1.0 - np.exp(log)

    def of_share(self, value: float, share: float) -> float:
        """Difference in `log` of a share of the metric's value; of a score no more than 5 times that share.

        >>> Left(kind="error").of_share(0.5, 0.01), round(Left(kind="score").of_share(0.5, 0.01), 3)
        (0.01, 0.01)
        """
        if self.kind == "error":
            return share
        if self.kind == "plain":
            return share * abs(value) / self.span
        return share * min(5.0, abs(value) / max(1.0 - value, self.floor))


@dataclass(frozen=True, kw_only=True)
class End:
    """End of one run, as the law takes it.

    Attributes:
        batch_size: of the run.
        lr: its learning rate.
        left: where it ended, or would have ended, by `Left.log`; `None`: it diverged.
        sd: standard deviation of that beside the spread from seed to seed.
    """

    batch_size: int
    lr: float
    left: float | None
    sd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is expected before the first run.

    Attributes:
        batch_size: B₀, also the middle of the prior of B*.
        lr: the middle of the prior of the best learning rate there.
        slope: mean of a.
        equal_steps: whether the runs have equal steps instead of equal examples or seconds.
    """

    batch_size: int
    lr: float
    slope: float
    equal_steps: bool = False


@dataclass(frozen=True)
class EndPosterior:
    """Draws of the law's parameters, shape (n, 7): z*, log A, log r, log2 B*, log2 η*(B₀), a, log of the spread ÷ A."""

    draws: Array
    start: Start

    def left(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """What is left at the end of a training, in logarithms, the spread over seeds apart; shape (n, pairs)."""
        return _law(self.draws, self.start, np.atleast_1d(batch_size), np.atleast_1d(lr))[0]

    @property
    def spread(self) -> Array:
        """Standard deviation of a run's end from seed to seed, in the same logarithms; shape (n,)."""
        return np.exp(self.draws[:, 1] + self.draws[:, 6])


def fit(ends: Sequence[End], start: Start, *, seed: int = 0) -> EndPosterior:
    """The posterior of the law after some runs, at least one of which did not diverge.

    Args:
        ends: one a run.
        start: what was expected before them.
        seed: the draws are a function of the arguments.

    Cost: 50 to 100 ms.
    """
    sizes, lrs = np.array([end.batch_size for end in ends]), np.array([end.lr for end in ends])
    left = np.array([math.nan if end.left is None else end.left for end in ends])
    further = np.array([end.sd for end in ends])
    diverged = np.isnan(left)
    seen = np.where(diverged, 0.0, left)
    best = float(left[~diverged].min())
    mean = np.array([best - 0.05, math.log(0.15), math.log(0.7), math.log2(start.batch_size)] + [0.0] * 3)
    mean[4:] = math.log2(start.lr), start.slope, math.log(_SPREAD)
    sd = np.array([0.3, 0.9, 0.5, _SIZE_SD, _LR_SD, 0.2, 0.7])

    def log_likelihood(points: Array) -> Array:
        law, above = _law(points, start, sizes, lrs)
        spread = np.exp(points[:, 1] + points[:, 6])[:, None]
        variance = spread**2 + (_MISFIT * (law - points[:, :1])) ** 2 + further**2 + _LEAST_SD**2
        like = np.logaddexp(
            math.log(1.0 - _OUTLIERS) + _log_normal(seen - law, variance),
            math.log(_OUTLIERS) + _log_normal(seen - law, variance + _OUTLIER_SD**2),
        )
        return np.where(diverged, -np.logaddexp(0.0, -_EDGE_SLOPE * (above - _EDGE)), like).sum(axis=1)

    return EndPosterior(draw(mean, sd, log_likelihood, particles=_PARTICLES, seed=seed), start)


def _law(points: Array, start: Start, batch_size: Array, lr: Array) -> tuple[Array, Array]:
    """What is left, and octaves of the learning rate above the best; shapes (n, pairs)."""
    best, amplitude, ratio, size, at_start, slope = (points[:, i : i + 1] for i in range(6))
    octaves = np.log2(batch_size)
    turn = size + _LEVELS_OFF
    growth = np.log2(1.0 + 2.0 ** (turn - math.log2(start.batch_size))) - np.log2(1.0 + 2.0 ** (turn - octaves))
    above = np.log2(lr) - at_start - slope * growth
    away = (octaves - size) * (-1.0 if start.equal_steps else 1.0) / _WIDTH
    of_lr = np.where(above > 0.0, _ABOVE, 1.0) * _bowl(above)
    of_size = np.where(away > 0.0, 1.0, 0.0 if start.equal_steps else _SMALLER) * _bowl(away)
    return best + np.exp(amplitude) * (of_lr + np.exp(ratio) * of_size), above


def _bowl(distance: Array) -> Array:
    return np.sqrt(1.0 + distance**2) - 1.0


def _log_normal(residual: Array, variance: Array) -> Array:
    return -0.5 * residual**2 / variance - 0.5 * np.log(variance)
