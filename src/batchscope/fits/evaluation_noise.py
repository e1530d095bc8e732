"""Noise of evaluations along one run: how much they vary, at which level a run ends, and how many confirm a target.

The metric `y` of the evaluations of a run is taken as a smooth curve and independent noise of standard deviation σ.
Over a short stretch the curve is straight in the logarithm of the step, `x = log step`.

**σ** comes from pseudo-residuals (Gasser, Sroka and Jennen-Steinmetz 1986), which need no fitted curve: of three
evaluations in a row, how far the middle one lies from the line through the other two, with weights for unequal gaps,

```
r = y₁ - (w₀ y₀ + w₂ y₂),   w₀ = (x₂ - x₁) / (x₂ - x₀),   w₂ = 1 - w₀,   σ̂² = mean of r² / (1 + w₀² + w₂²)
```

It is unbiased where the curve is straight; a curvature c over gaps of h in x adds about (c h²)² / 6 to σ̂². Neighbouring
residuals share evaluations, so that n of them are worth n / 1.94 independent ones (equal gaps: their correlations are
-2/3 and 1/6); the interval is that of chi-square with so many degrees of freedom.

**The level at the end** is that of the least-squares line in x through the last evaluations: those within a factor of
two of the last step, and five at least. No evaluation is chosen by its value, so that it is not flattered as the best
of many is: of m evaluations around one level the best lies about `σ √(2 log m)` beyond it.

Numbers only; no NumPy, and SciPy only for the ends of intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..store.ranges import ANY, Range
from ..store.records import Estimate
from .intervals.counts import chi_square_ends
from .intervals.means import t_quantile, without

__all__ = ["EndValue", "end_value", "evaluation_spread"]

_STRETCH, _FEWEST = 2.0, 5
"""Evaluations at the end of a run: those from its last step divided by this, and so many at least."""
_DEPENDENCE = 1.0 + 2.0 * (2.0 / 3.0) ** 2 + 2.0 * (1.0 / 6.0) ** 2


@dataclass(frozen=True, kw_only=True)
class EndValue:
    """Level of a metric at the end of a run, which is what to expect of another run of the same length.

    Attributes:
        value: of the line through the last evaluations at the last step.
        standard_error: of that level; `None`: too few evaluations to tell.
        spread: standard deviation of a single evaluation about its level; `None`: too few evaluations to tell.
        n: evaluations that it rests on.
    """

    value: float
    standard_error: float | None
    spread: float | None
    n: int

    def estimate(self, unit: str = "", within: Range = ANY) -> Estimate:
        """The level with the interval that holds one evaluation at the end of such a run in 90 % of runs.

        The spread from seed to seed, of which one run says nothing, is not in it. Its ends lie inside what the metric
        can be (`store.ranges`).
        """
        method = f"level of the last {self.n} evaluations; 90 % interval of a single evaluation, one run"
        if self.spread is None or self.standard_error is None:
            return Estimate(value=self.value, low=None, high=None, n=self.n, unit=unit, method=method)
        half = t_quantile(max(1.0, (self.n - 2) / _DEPENDENCE)) * math.hypot(self.spread, self.standard_error)
        low, high = within.clipped(self.value - half), within.clipped(self.value + half)
        return Estimate(value=self.value, low=low, high=high, n=self.n, unit=unit, method=method)


def end_value(steps: Sequence[float], values: Sequence[float]) -> EndValue | None:
    """Level at which a run ends: the line in log steps through its last evaluations, at the last step.

    Args:
        steps: of the evaluations; from 0, increasing.
        values: of the metric there; what is not finite is passed over, and so is step 0.

    Returns:
        The level; `None` where there is no finite value after the first step. Of one or two evaluations the last.

    Example:
        >>> end = end_value([0, 8, 16, 32, 64, 128], [9.0, 3.2, 2.7, 2.3, 1.7, 1.3])
        >>> round(end.value, 2), round(end.spread, 2), end.n
        (1.28, 0.07, 5)
    """
    x, y = _at_the_end(steps, values)
    n = len(x)
    if n < 3:
        return EndValue(value=y[-1], standard_error=None, spread=None, n=n) if n else None
    middle, mean = math.fsum(x) / n, math.fsum(y) / n
    about = math.fsum((a - middle) ** 2 for a in x)
    slope = math.fsum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / about
    ahead = x[-1] - middle
    spread = math.sqrt(_mean_square(_pseudo_residuals(x, y)))
    error = spread * math.sqrt(1.0 / n + ahead**2 / about)
    return EndValue(value=mean + slope * ahead, standard_error=error, spread=spread, n=n)


def evaluation_spread(steps: Sequence[float], values: Sequence[float], unit: str = "") -> Estimate:
    """Standard deviation of a single evaluation about the smooth curve, near the end of a run.

    Args:
        steps: of the evaluations; from 0, increasing.
        values: of the metric there; what is not finite is passed over, and so is step 0.
        unit: of the metric.

    Returns:
        σ̂ of the module's text with its 90 % chi-square interval; no value for fewer than three evaluations.

    Example:
        >>> e = evaluation_spread([8, 16, 32, 64, 128], [3.2, 2.7, 2.3, 1.7, 1.3])
        >>> round(e.value, 3), e.n
        (0.071, 5)
    """
    x, y = _at_the_end(steps, values)
    residuals = _pseudo_residuals(x, y)
    if not residuals:
        return without(len(x), unit, "no spread of fewer than three evaluations")
    value, freedom = math.sqrt(_mean_square(residuals)), max(1.0, len(residuals) / _DEPENDENCE)
    low, high = (value * math.sqrt(freedom / q) for q in reversed(chi_square_ends(freedom)))
    method = f"standard deviation of one evaluation, from the last {len(x)} of a run, 90 % chi-square interval"
    return Estimate(value=value, low=low, high=high, n=len(x), unit=unit, method=method)


def _at_the_end(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Logarithms of the steps, and values, of the evaluations near the end of a run."""
    pairs = [(s, float(v)) for s, v in zip(steps, values, strict=True) if s > 0 and math.isfinite(v)]
    late = sum(_STRETCH * step >= pairs[-1][0] for step, _ in pairs)
    pairs = pairs[-max(late, _FEWEST) :]
    return [math.log(step) for step, _ in pairs], [value for _, value in pairs]


def _pseudo_residuals(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Residuals of each evaluation between two others from the line through them, scaled to the variance of one."""
    found: list[float] = []
    for i in range(1, len(x) - 1):
        before = (x[i + 1] - x[i]) / (x[i + 1] - x[i - 1])
        after = 1.0 - before
        found.append((y[i] - before * y[i - 1] - after * y[i + 1]) / math.sqrt(1.0 + before**2 + after**2))
    return found


def _mean_square(residuals: Sequence[float]) -> float:
    return math.fsum(r * r for r in residuals) / len(residuals)
