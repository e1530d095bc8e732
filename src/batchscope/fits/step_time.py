"""Time of a training step against batch size: fixed cost, cost per example, the knee between them, and accumulation.

```
t(m) = fixed + per_example · m        hardware_knee = fixed / per_example   (examples)
```

Below the knee a larger batch is almost free; above it, time grows with the batch. A batch that does not fit at once is
accumulated (`accumulation`). Search, plan, page, studies and claims ask this model for every step time that they do
not have as a reading; `step_time_of` builds it from a bench.

A step computes, and it needs its batch: loading has a fixed cost and a cost per example of its own. Workers load while
the device computes; without them the one comes after the other:

```
step = max(compute, loading)   with loader workers        step = compute + loading   without
```
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..store.records import Bench, Estimate
from . import intervals

__all__ = ["StepTime", "accumulation", "draw_log_seconds", "fit_step_time", "step_time_of"]

Array = npt.NDArray[np.float64]

_LEAST_SPREAD = 0.02
"""Relative spread below which no set of readings is believed, however well it fits."""

_SPREAD_OF_TWO = 0.1
_KNEE_RANGE = 1e3
"""A knee this many times outside the measured sizes cannot be told from none, or from a constant time."""

_MOST_OF_A_STEP = 0.9
_GRID = 1000
_REWEIGHTINGS = 6
_DISTURBED_FROM = 4.0
"""Typical residuals beyond which a reading counts as disturbed and loses weight."""

_BENT = 0.12
"""Standard deviation, in log seconds, by which real hardware is off a straight line (recorded cards, docs/log.md)."""
_DRIFT = 0.1
"""Standard deviation, in log seconds, that is added for each doubling outside the measured sizes."""

_WIDENING = 1.1
"""Brings the interval's coverage to nine in ten over simulated readings; without it, it was 0.88."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time of a step at any batch size: through the measured points, and by the fit outside them.

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
    largest_micro_batch_size: int | None = None
    """Largest batch that fits at once; `None`: any does."""
    loading: StepTime | None = None
    """The time to load a batch, fitted in the same way; `None`: too little to count, or not known."""
    loading_is: Literal["overlapped", "added", "included"] = "included"
    """Workers load while the device computes; or computing waits for loading; or `points` are whole steps already."""
    in_training: tuple[tuple[int, float], ...] = ()
    """Batch sizes, and the time of a step in a training over that which follows from `points` and `loading`."""

    def fitted_seconds(self, micro_batch_size: float) -> float:
        """Seconds of a step by the straight line alone."""
        return self.fixed_s + self.per_example_s * micro_batch_size

    def seconds(self, micro_batch_size: float) -> float:
        """Seconds of one full training step of one micro-batch, waiting for the batch included."""
        loading = self.loading.seconds(micro_batch_size) if self.loading else 0.0
        whole = self._joined(self.compute_seconds(micro_batch_size), loading)
        return whole * self.factor_in_training(micro_batch_size)

    def factor_in_training(self, batch_size: float) -> float:
        """Time of a step in a training over the measured one: straight in the logarithms, kept beyond the ends.

        >>> step_time = replace(fit_step_time([(16, 1e-3), (64, 1e-3)]), in_training=((16, 1.0), (64, 1.44)))
        >>> [round(step_time.factor_in_training(size), 3) for size in (8, 32, 64, 512)]
        [1.0, 1.2, 1.44, 1.44]
        """
        if not self.in_training:
            return 1.0
        sizes, factors = zip(*self.in_training, strict=True)
        return math.exp(float(np.interp(math.log(batch_size), np.log(sizes), np.log(factors))))

    def compute_seconds(self, micro_batch_size: float) -> float:
        """Seconds of one step of one micro-batch whose batch is there.

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

    def of_batch(self, batch_size: int, largest_micro_batch_size: int | None = None) -> float:
        """Seconds of one step of `batch_size` examples on one device, accumulated where they do not fit at once.

        Computing takes `grad_accum_steps · (compute_seconds(m) - update_s) + update_s`, with the fewest equal
        micro-batches `m` that fit, and loading takes `grad_accum_steps` times that of `m`. Both are timed apart; in a
        training the step takes `factor_in_training` times as long.

        Args:
            batch_size: examples of the step.
            largest_micro_batch_size: that fits at once; default: the model's own.

        Raises:
            ValueError: a size is below 1.

        Example:
            Without a part of the optimizer, two halves cost twice a half:

            >>> step_time = fit_step_time([(16, 2e-3), (64, 5e-3)], largest_micro_batch_size=64)
            >>> [round(step_time.of_batch(size), 6) for size in (64, 128)]
            [0.005, 0.01]
        """
        return self._joined(*self.parts_of_batch(batch_size, largest_micro_batch_size))

    def parts_of_batch(self, batch_size: int, largest_micro_batch_size: int | None = None) -> tuple[float, float]:
        """Seconds of computing and of loading in one step (`of_batch`), each by itself.

        Both take `factor_in_training` times as long as they were timed: a run's clock does not tell them apart.
        """
        own = batch_size if self.largest_micro_batch_size is None else self.largest_micro_batch_size
        largest = own if largest_micro_batch_size is None else largest_micro_batch_size
        micro_batch_size, parts = accumulation(batch_size, largest)
        of_one = self.compute_seconds(micro_batch_size)
        update = min(self.update_s, of_one)
        loading = parts * self.loading.seconds(micro_batch_size) if self.loading else 0.0
        factor = self.factor_in_training(batch_size)
        return factor * (parts * (of_one - update) + update), factor * loading

    def binds(self, batch_size: int) -> Literal["compute", "loading"]:
        """Which of the two sets the time of a step.

        Where only whole steps are known, loading does if it lasts nine tenths of them.

        Example:
            >>> loading = fit_step_time([(1, 2e-3), (100, 0.2)])
            >>> both = replace(fit_step_time([(1, 0.01), (100, 0.02)]), loading=loading, loading_is="overlapped")
            >>> both.binds(1), both.binds(100), round(both.of_batch(1), 6), round(both.of_batch(100), 6)
            ('compute', 'loading', 0.01, 0.2)
        """
        compute, loading = self.parts_of_batch(batch_size)
        enough = _MOST_OF_A_STEP if self.loading_is == "included" else 1.0
        return "loading" if loading > enough * compute else "compute"

    def spread_of_batch(self, batch_size: int) -> float:
        """Relative spread of what sets the time of a step."""
        if self.loading is None or self.loading_is == "included" or self.binds(batch_size) == "compute":
            return self.relative_spread
        return self.loading.relative_spread

    def _joined(self, compute: float, loading: float) -> float:
        if self.loading_is == "included":
            return compute
        return max(compute, loading) if self.loading_is == "overlapped" else compute + loading


def accumulation(batch_size: int, largest_micro_batch_size: int) -> tuple[int, int]:
    """Gradient accumulation `(micro_batch_size, grad_accum_steps)`: the fewest equal micro-batches that fit.

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
    small = [part for part in range(1, math.isqrt(batch_size) + 1) if batch_size % part == 0]
    divisors = [*small, *(batch_size // part for part in small)]
    micro = max(size for size in divisors if size <= largest_micro_batch_size)
    return micro, batch_size // micro


def step_time_of(bench: Bench) -> StepTime:
    """Step-time model of the hardware that was measured, or described by a profile.

    The optimizer's part is the median, over the sizes, of the computing minus the forward and backward part; 0 where
    that was not timed apart. Computing and loading are fitted apart where the bench timed both. A profile's step times
    are those of whole steps. What runs said of a step in a training is in it where the bench has that.

    Raises:
        ValueError: the bench has no step time.

    Example:
        >>> from batchscope.store.records import HardwareProfile, Reading
        >>> bench = Bench(
        ...     profile=HardwareProfile(name="A", step_time_s=((16, 0.006), (32, 0.010))),
        ...     readings=(Reading(micro_batch_size=32, step_time_s=0.010, gradient_time_s=0.008),),
        ...     split=None,
        ...     largest_micro_batch_size=32,
        ...     largest_verified=True,
        ... )
        >>> round(step_time_of(bench).of_batch(128), 6)  # 3 x 0.008 + 0.010
        0.034
    """
    computing = {r.micro_batch_size: r.compute_time_s or r.step_time_s for r in bench.readings}
    updates = [
        max(0.0, seconds - r.gradient_time_s)
        for r in bench.readings
        if (seconds := computing[r.micro_batch_size]) is not None and r.gradient_time_s is not None
    ]
    apart = [(r.micro_batch_size, r.compute_time_s) for r in bench.readings if r.compute_time_s is not None]
    loading = [(r.micro_batch_size, r.loading_time_s) for r in bench.readings if r.loading_time_s]
    fitted = fit_step_time(
        apart if loading and apart else bench.profile.step_time_s,
        update_s=sorted(updates)[len(updates) // 2] if updates else 0.0,
        largest_micro_batch_size=bench.largest_micro_batch_size,
    )
    fitted = replace(fitted, in_training=bench.in_training)
    if not loading:
        return fitted
    together = "overlapped" if bench.loader_workers else "added"
    return replace(fitted, loading=fit_step_time(loading), loading_is=together if apart else "included")


def fit_step_time(
    points: Sequence[tuple[int, float]], *, update_s: float = 0.0, largest_micro_batch_size: int | None = None
) -> StepTime:
    """Fit fixed and per-example cost to measured step times.

    Minimises the weighted squares of `log(t_i) - log(fixed · (1 + m_i / knee))` over a grid of knees, so neither cost
    can be negative and small and large steps weigh alike. The weights are Cauchy's, iterated from the knee of the
    smallest absolute residuals, so one disturbed reading has no pull. The knee's 90 % interval is its profile
    likelihood with Student's quantile; an end that the readings do not bound is `None`.

    Args:
        points: `(micro_batch_size, seconds)`, at least one, sizes different.
        update_s: the optimizer's part of a step, seconds.
        largest_micro_batch_size: that fits at once; `None`: any does.

    Returns:
        The fitted step time.

    Raises:
        ValueError: no points, a repeated size, or a number that is not positive and finite.

    Cost: about a millisecond.
    """
    if not points:
        raise ValueError("no step time to fit")
    ordered = sorted(points)
    sizes = np.array([size for size, _ in ordered], dtype=float)
    seconds = np.array([value for _, value in ordered], dtype=float)
    if len(set(sizes)) < len(sizes) or not (np.isfinite(seconds).all() and (seconds > 0).all() and (sizes >= 1).all()):
        raise ValueError(f"step times {ordered} are not positive finite seconds at different positive sizes")
    log_seconds = np.log(seconds)
    from scipy.optimize import isotonic_regression  # takes longer to import than the smallest commands take

    knee, weights, spread = _robust_knee(sizes, log_seconds)
    _, offset = _misfit(np.array([knee]), sizes, log_seconds, weights)
    fixed = math.exp(offset[0])
    smooth = np.exp(isotonic_regression(log_seconds).x)
    return StepTime(
        points=tuple((int(size), float(value)) for size, value in zip(sizes, smooth, strict=True)),
        fixed_s=fixed,
        per_example_s=fixed / knee,
        update_s=max(0.0, update_s),
        relative_spread=spread,
        hardware_knee=_knee_estimate(knee, sizes, log_seconds, weights, spread),
        largest_micro_batch_size=largest_micro_batch_size,
    )


def draw_log_seconds(points: Sequence[tuple[int, float]], sizes: Sequence[int], *, draws: int, seed: int = 0) -> Array:
    """Log seconds of a step at sizes that may not have been measured, as far as the measured ones tell.

    Each draw has a knee of its own, as likely as the points are off its line when real hardware bends by 12 %, runs
    through every point as `StepTime` does, and leaves its line by 10 % for each doubling outside the points.

    Args:
        points: `(micro_batch_size, seconds)`, at least one, sizes different.
        sizes: micro-batch sizes that are asked for.
        draws: number of draws.
        seed: the result is a function of the arguments.

    Returns:
        Shape (draws, len(sizes)).
    """
    rng, ordered = np.random.default_rng(seed), sorted(points)
    known, log_seconds = np.array([size for size, _ in ordered], float), np.log([value for _, value in ordered])
    log_known, log_sizes = np.log(known), np.log(np.array(sizes, float))
    misfit = _misfit(_knees(known), known, log_seconds, np.ones_like(known))[0]
    likely = np.exp(-0.5 * (misfit - misfit.min()) / _BENT**2)
    knee = rng.choice(_knees(known), size=draws, p=likely / likely.sum())[:, None]
    between = np.stack([np.interp(log_sizes, log_known, unit) for unit in np.eye(len(known))])
    line = np.log1p(np.exp(log_sizes) / knee)
    outside = np.maximum(0.0, np.maximum(log_sizes - log_known[-1], log_known[0] - log_sizes)) / math.log(2.0)
    drift = _DRIFT * outside * rng.standard_normal((draws, 1))
    return (log_seconds - np.log1p(known / knee)) @ between + line + drift


def _misfit(knees: Array, sizes: Array, log_seconds: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted squares and best log fixed cost for each knee: two arrays of the knees' length."""
    residuals = log_seconds - np.log1p(sizes / knees[:, None])
    offset = residuals @ weights / weights.sum()
    return ((residuals - offset[:, None]) ** 2) @ weights, offset


def _knees(sizes: Array) -> Array:
    return np.geomspace(sizes[0] / _KNEE_RANGE, sizes[-1] * _KNEE_RANGE, _GRID)


def _robust_knee(sizes: Array, log_seconds: Array) -> tuple[float, Array, float]:
    """Knee, each reading's weight, and the spread of the residuals (standard deviation in logarithms)."""
    grid = _knees(sizes)
    residuals = log_seconds - np.log1p(sizes / grid[:, None])
    residuals -= np.median(residuals, axis=1, keepdims=True)
    best = int(np.argmin(np.abs(residuals).sum(1)))
    of_best, weights = residuals[best], np.ones_like(sizes)
    few = math.sqrt(len(sizes) / max(1, len(sizes) - 2))
    for _ in range(_REWEIGHTINGS):
        typical = max(_LEAST_SPREAD, 1.4826 * few * float(np.median(np.abs(of_best))))
        weights = 1.0 / (1.0 + (of_best / (_DISTURBED_FROM * typical)) ** 2)
        best = int(np.argmin(_misfit(grid, sizes, log_seconds, weights)[0]))
        of_best = log_seconds - np.log1p(sizes / grid[best])
        of_best = of_best - of_best @ weights / weights.sum()
    near = np.geomspace(grid[max(0, best - 1)], grid[min(_GRID - 1, best + 1)], _GRID)
    misfit = _misfit(near, sizes, log_seconds, weights)[0]
    freedom = max(1.0, float(weights.sum()) - 2.0)
    spread = _WIDENING * math.sqrt(float(misfit.min()) / freedom) if len(sizes) > 2 else _SPREAD_OF_TWO
    return float(near[np.argmin(misfit)]), weights, max(_LEAST_SPREAD, spread)


def _knee_estimate(knee: float, sizes: Array, log_seconds: Array, weights: Array, spread: float) -> Estimate:
    """Knee with its 90 % profile interval."""
    method = "profile likelihood of step time = fixed + per-example cost, robust in logarithms"
    if len(sizes) < 2:
        return Estimate(value=None, low=None, high=None, n=1, unit="examples", method=method)
    grid = np.append(_knees(sizes), knee)
    misfit = _misfit(grid, sizes, log_seconds, weights)[0]
    quantile = intervals.t_quantile(max(1, len(sizes) - 2))
    inside = np.flatnonzero(misfit[:-1] <= misfit[-1] + (quantile * spread) ** 2)
    nearest = int(np.argmin(np.abs(np.log(grid[:-1] / knee))))
    first, last = min([nearest, *inside]), max([nearest, *inside])
    low, high = float(grid[max(0, first - 1)]), float(grid[min(_GRID - 1, last + 1)])
    return Estimate(
        value=knee,
        low=None if low <= grid[0] else low,
        high=None if high >= grid[-2] else high,
        n=len(sizes),
        unit="examples",
        method=method,
    )
