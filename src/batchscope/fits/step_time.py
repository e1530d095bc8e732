"""Time of a training step against micro-batch size: fixed cost, cost per example, and the knee between them.

```
t(m) = fixed + per_example · m        hardware_knee = fixed / per_example   (examples)
```

Below the knee a larger batch is almost free; above it, time grows with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression, least_squares
from scipy.stats import t as student_t

from ..records import Estimate

__all__ = ["StepTime", "accumulation", "fit_step_time"]

_LEAST_SPREAD = 0.02
"""Relative spread below which no set of readings is believed, however well it fits."""

_SPREAD_OF_TWO = 0.1
_KNEE_RANGE = 1e3
"""A knee this many times outside the measured sizes cannot be told from none, or from a constant time."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A step's time at any micro-batch size: through the measured points, and by the fit outside them.

    Example:
        >>> step_time = fit_step_time([(m, 1e-3 * (1 + m / 64)) for m in (1, 4, 16, 64, 256, 1024)])
        >>> round(step_time.seconds(128), 6), round(step_time.hardware_knee.value)
        (0.003, 64)
    """

    points: tuple[tuple[int, float], ...]
    """Measured sizes and seconds, made non-decreasing by pooling neighbours (isotonic regression of the logarithm)."""
    fixed_s: float
    per_example_s: float
    update_s: float
    """The optimizer's part, paid once however many micro-batches are accumulated."""
    relative_spread: float
    """Standard deviation of log(measured / fitted): how far from a straight line the hardware is."""
    hardware_knee: Estimate

    def fitted_seconds(self, micro_batch_size: float) -> float:
        """The straight line alone."""
        return self.fixed_s + self.per_example_s * micro_batch_size

    def seconds(self, micro_batch_size: float) -> float:
        """Seconds of one full training step of one micro-batch.

        Between two readings the ratio of measured to fitted time is interpolated in the logarithm of the size, so the
        curve runs through every reading and is exact where the line is; outside, the ratio of the last reading is kept.
        Never falls as the size grows.
        """
        sizes = [size for size, _ in self.points]
        log_ratio = [math.log(seconds / self.fitted_seconds(size)) for size, seconds in self.points]
        ratio = math.exp(float(np.interp(math.log(micro_batch_size), np.log(sizes), log_ratio)))
        value = ratio * self.fitted_seconds(micro_batch_size)
        below = [seconds for size, seconds in self.points if size <= micro_batch_size]
        above = [seconds for size, seconds in self.points if size >= micro_batch_size]
        return min(max(value, below[-1] if below else 0.0), above[0] if above else math.inf)

    def of_batch(self, batch_size: int, largest_micro_batch_size: int) -> float:
        """Seconds of one step of `batch_size` examples on one device, accumulated where they do not fit at once.

        `grad_accum_steps · (seconds(m) - update_s) + update_s`, with the fewest equal micro-batches `m` that fit.

        Raises:
            ValueError: a size is below 1.
        """
        micro_batch_size, parts = accumulation(batch_size, largest_micro_batch_size)
        update = min(self.update_s, self.seconds(micro_batch_size))
        return parts * (self.seconds(micro_batch_size) - update) + update


def accumulation(batch_size: int, largest_micro_batch_size: int) -> tuple[int, int]:
    """`(micro_batch_size, grad_accum_steps)`: the fewest equal micro-batches of at most the largest size.

    Raises:
        ValueError: a size is below 1.

    Example:
        >>> accumulation(96, 40)
        (32, 3)
    """
    if batch_size < 1 or largest_micro_batch_size < 1:
        raise ValueError(
            f"batch_size {batch_size} and largest micro-batch {largest_micro_batch_size} must be at least 1"
        )
    parts = -(-batch_size // largest_micro_batch_size)
    while batch_size % parts:
        parts += 1
    return batch_size // parts, parts


def fit_step_time(points: Sequence[tuple[int, float]], *, update_s: float = 0.0) -> StepTime:
    """Fit fixed and per-example cost to measured step times.

    Minimises the soft-L1 loss of `log(t_i) - log(fixed + per_example · m_i)` over both costs in logarithms, so neither
    can be negative, small and large steps weigh alike, and one disturbed reading has little pull. The knee's 90 %
    interval is its profile likelihood with Student's quantile; an end that the readings do not bound is `None`.

    Args:
        points: `(micro_batch_size, seconds)`, at least one, sizes different.
        update_s: the optimizer's part of a step, seconds.

    Returns:
        The fitted step time.

    Raises:
        ValueError: no points, a repeated size, or a number that is not positive and finite.
    """
    if not points:
        raise ValueError("no step time to fit")
    ordered = sorted(points)
    sizes = np.array([size for size, _ in ordered], dtype=float)
    seconds = np.array([value for _, value in ordered], dtype=float)
    if len(set(sizes)) < len(sizes) or not (np.isfinite(seconds).all() and (seconds > 0).all() and (sizes >= 1).all()):
        raise ValueError(f"step times {ordered} are not positive finite seconds at different positive sizes")
    fixed, per_example, weights = _robust_line(sizes, np.log(seconds))
    residuals = np.log(seconds) - np.log(fixed + per_example * sizes)
    freedom = len(sizes) - 2
    spread = math.sqrt(float((weights * residuals**2).sum()) / freedom) if freedom > 0 else _SPREAD_OF_TWO
    spread = max(spread, _LEAST_SPREAD)
    smooth = np.exp(isotonic_regression(np.log(seconds)).x)
    return StepTime(
        points=tuple((int(size), float(value)) for size, value in zip(sizes, smooth, strict=True)),
        fixed_s=fixed,
        per_example_s=per_example,
        update_s=max(0.0, update_s),
        relative_spread=spread,
        hardware_knee=_knee(sizes, np.log(seconds), weights, spread, fixed / per_example),
    )


def _robust_line(sizes: Any, log_seconds: Any) -> tuple[float, float, Any]:
    """Fixed cost, per-example cost, and each reading's weight in the fit."""
    first, last = math.exp(log_seconds[0]), math.exp(log_seconds[-1])
    reach = _KNEE_RANGE

    def residuals(parameters: Any) -> Any:
        fixed, per_example = np.exp(parameters)
        return np.log(fixed + per_example * sizes) - log_seconds

    floor = [math.log(first / reach / reach), math.log(last / sizes[-1] / reach)]
    ceiling = [math.log(last * reach), math.log(last / sizes[0] * reach)]
    starts = [(first / 2, last / sizes[-1] / 2), (first, last / sizes[-1] / 20), (first / 20, last / sizes[-1])]
    fits = [
        least_squares(residuals, np.log(start), bounds=(floor, ceiling), loss="soft_l1", f_scale=0.05)
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    weights = 1.0 / np.sqrt(1.0 + (best.fun / 0.05) ** 2)
    return math.exp(best.x[0]), math.exp(best.x[1]), weights


def _knee(sizes: Any, log_seconds: Any, weights: Any, spread: float, knee: float) -> Estimate:
    """The knee and its profile interval over a grid of knees."""
    least, most = sizes[0] / _KNEE_RANGE, sizes[-1] * _KNEE_RANGE
    method = "profile likelihood of step time = fixed + per-example cost, robust in logarithms"
    if len(sizes) < 2:
        return Estimate(value=None, low=None, high=None, n=1, unit="examples", method=method)
    knee = min(max(knee, least), most)
    grid = np.append(np.geomspace(least, most, 1200), knee)
    shape = np.log1p(sizes[None, :] / grid[:, None])
    offset = ((log_seconds - shape) * weights).sum(1, keepdims=True) / weights.sum()
    misfit = (weights * (log_seconds - shape - offset) ** 2).sum(1)
    quantile = float(student_t.ppf(0.95, max(1, len(sizes) - 2)))
    inside = grid[misfit <= misfit[-1] + (quantile * spread) ** 2]
    low, high = float(inside.min()), float(inside.max())
    return Estimate(
        value=float(knee),
        low=None if low <= least * 1.01 else low,
        high=None if high >= most * 0.99 else high,
        n=len(sizes),
        unit="examples",
        method=method,
    )
