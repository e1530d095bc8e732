"""Reading of a monitor: the gradient noise scale of now, and what another batch size could gain at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..store.records import Estimate
from ..wording import percent, with_interval

__all__ = ["Reading", "StepSeconds"]


class StepSeconds(Protocol):
    """Step-time model, such as `fits.step_time.StepTime`."""

    def of_batch(self, batch_size: int) -> float:
        """Seconds of a step of `batch_size` examples."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a `NoiseMonitor` knows at one step; all intervals are 90 % intervals.

    It needs no torch: it can be stored, and asked elsewhere.
    """

    gradient_noise_scale: Estimate
    """`noise ÷ signal`, in examples, over the readings that count for the present (`fits.noise_scale.recent`)."""
    signal: Estimate
    """`|G|²`: squared norm of the gradient without noise; see `fits.noise_scale.estimate_parts`."""
    noise: Estimate
    """`tr(Σ)`: variance of one example's gradient, summed over the parameters."""
    source: str
    """What the numbers were read from; empty: nothing yet."""
    geometry: str = "euclidean"
    """Norm in which signal and noise are measured: squared Euclidean, or squared dual norms (`fits.dual_noise`)."""
    overhead: float
    """Measured share of the training's time that the monitor took."""
    step: int
    """Optimizer steps that the monitor has seen."""
    examples: int
    """Examples of these steps."""
    batch_size: int
    """Examples of a step: the most frequent number of the latest steps."""
    reason: str = ""
    """Why there is no number, or why the latest window that was measured gave none; empty: nothing stood against it."""
    passed_over: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sources that come before this one, and why they gave nothing."""
    notes: tuple[str, ...] = ()
    """What to bear in mind."""
    layers: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    """Gradient noise scale of each layer by itself; empty where it was not asked for, or the source has none."""

    def __str__(self) -> str:
        """Three lines: the noise scale with its interval and source, the gain of twice the batch, what it took."""
        if self.gradient_noise_scale.n == 0:
            return f"no gradient noise scale after {self.step:,} steps: {self.reason}"
        double = self.max_speedup(2 * self.batch_size)
        return (
            f"gradient noise scale {with_interval(self.gradient_noise_scale)} examples, from {self.source} "
            f"({self.gradient_noise_scale.n} readings, {self.step:,} steps)\n"
            f"batch size {2 * self.batch_size} instead of {self.batch_size}: at most {with_interval(double)} times "
            f"fewer steps\nthe monitor took {percent(self.overhead)} of the training's time"
        )

    def max_speedup(self, batch_size: int, step_time: Callable[[int], float] | StepSeconds | None = None) -> Estimate:
        """By what factor another batch size lowers the steps to the same loss, or the time, at most.

        Steps with a batch of `B` are proportional to `1 + B_noise ÷ B` at the best learning rate of each, so that from
        `B0` to `B` they fall by `(1 + B_noise/B0) ÷ (1 + B_noise/B)` (McCandlish et al. 2018, equation 2.11, with the
        noise scale in place of the critical batch size). It is a bound of the literature, not measured: under Adam, and
        where the learning rate cannot follow, the gain is smaller. Below 1: more steps.

        Args:
            batch_size: to compare with the present one.
            step_time: seconds of a step of a batch, as a function or a `StepTime`; with it the factor is one of time.

        Returns:
            The factor, rising with the noise scale for a larger batch and falling for a smaller one. Where the noise
            scale has no upper end the factor's is that of endless noise, `B ÷ B0`.

        Raises:
            ValueError: `batch_size` is below 1.

        Example:
            >>> scale = Estimate(value=96.0, low=32.0, high=None, n=9, unit="examples", method="")
            >>> none = Estimate.missing()
            >>> facts = {"source": "", "overhead": 0.0, "step": 1, "examples": 32, "batch_size": 32}
            >>> reading = Reading(gradient_noise_scale=scale, signal=none, noise=none, **facts)
            >>> e = reading.max_speedup(96)
            >>> e.value, e.low, e.high  # (1 + 96/32) / (1 + 96/96), (1 + 32/32) / (1 + 32/96), 96 / 32
            (2.0, 1.5, 3.0)
            >>> reading.max_speedup(96, lambda size: 1.0 + size / 32).value  # a step takes twice as long
            1.0
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        now, scale = self.batch_size, self.gradient_noise_scale
        per_step, what = 1.0, "steps"
        if step_time is not None:
            seconds = step_time if callable(step_time) else step_time.of_batch
            per_step, what = seconds(now) / seconds(batch_size), "time"

        def factor(noise: float) -> float:
            return (1 + noise / now) / (1 + noise / batch_size) * per_step

        method = f"times fewer {what} at most: McCandlish et al. 2018, eq. 2.11 (literature), with the noise scale"
        if scale.n == 0:
            return Estimate.missing(f"{method}; no readings", unit=f"times fewer {what}")
        ends = (
            factor(scale.low or 0.0),
            batch_size / now * per_step if scale.high is None else factor(scale.high),
        )
        return Estimate(
            value=None if scale.value is None else factor(scale.value),
            low=min(ends),
            high=max(ends),
            n=scale.n,
            unit=f"times fewer {what}",
            method=method,
        )
