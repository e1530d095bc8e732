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

**Confirmations.** A run that is one spread σ short of a target, and gains b a unit of x, makes that up over `σ / b` of
x; until then each evaluation is at the target by chance with probability p = Φ(-1) = 0.159. With h of x from one
evaluation to the next these are

```
m = min(σ / b, log 2) / h     evaluations, at most those of a doubling of the steps
K = the smallest number with P(K in a row of m at the target by chance) ≤ 5 %
```

and K = 1 where a chance does little harm: `σ / b` is at most one gap h, or at most log 1.2, so that the run would have
been there within a fifth of the steps. With evaluations 5 % apart K is 1 to 3. To ask for three of a run that is there
anyway costs it two evaluations; on `digits` it moved the steps to a target by a factor of 1.5 to 2.6 where `σ / b` was
above 2, and at most by 1.3 where it was below 1 (docs/log.md).

Numbers only; no NumPy, and SciPy only for the ends of intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..store.ranges import ANY, Range
from ..store.records import Estimate
from . import intervals

__all__ = ["EndValue", "best_level", "confirmations", "end_value", "evaluation_spread"]

_STRETCH, _FEWEST = 2.0, 5
"""Evaluations at the end of a run: those from its last step divided by this, and so many at least."""
_BY_CHANCE, _ACCEPTED = 0.5 * math.erfc(math.sqrt(0.5)), 0.05
_LONGEST, _LITTLE = math.log(2.0), math.log(1.2)
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

        The spread from seed to seed, of which one run says nothing, is not in it. It lies inside what the metric
        can be (`store.ranges`).
        """
        method = f"level of the last {self.n} evaluations; 90 % interval of a single evaluation, one run"
        value = within.clipped(self.value)
        if self.spread is None or self.standard_error is None:
            return Estimate(value=value, low=None, high=None, n=self.n, unit=unit, method=method)
        half = intervals.t_quantile(max(1.0, (self.n - 2) / _DEPENDENCE)) * math.hypot(self.spread, self.standard_error)
        low, high = within.clipped(self.value - half), within.clipped(self.value + half)
        return Estimate(value=value, low=low, high=high, n=self.n, unit=unit, method=method)


def end_value(steps: Sequence[float], values: Sequence[float]) -> EndValue | None:
    """Level at which a run ends: the line in log steps through its last evaluations, at the last step.

    It lies between the lowest and the highest of them.

    Args:
        steps: of the evaluations; from 0, increasing.
        values: of the metric there; what is not finite is passed over, and so is step 0.

    Returns:
        The level; `None` where there is no finite value after the first step. Of one or two evaluations the last.

    Example:
        >>> end = end_value([0, 8, 16, 32, 64, 128], [9.0, 3.2, 2.7, 2.3, 1.7, 1.3])
        >>> round(end.value, 2), round(end.spread, 2), end.n
        (1.3, 0.07, 5)
    """
    x, y = _at_the_end(steps, values)
    n = len(x)
    if n < 3:
        return EndValue(value=y[-1], standard_error=None, spread=None, n=n) if n else None
    line, spread = _Line.through(x, y), math.sqrt(_mean_square(_pseudo_residuals(x, y)))
    error = spread * math.sqrt(1.0 / n + (x[-1] - line.middle) ** 2 / line.about)
    level = min(max(line.at(x[-1]), min(y)), max(y))
    return EndValue(value=level, standard_error=error, spread=spread, n=n)


def best_level(steps: Sequence[float], values: Sequence[float], *, rising: bool) -> float | None:
    """Level of a run around its best evaluation, by the line in log steps through the evaluations about it.

    The best evaluation decides where to look and has the weight of one of them. They are those within a factor of √2 of
    its step; where they are fewer than five it stands alone.

    Args:
        steps: of the evaluations; from 0, increasing.
        values: of the metric there; what is not finite is passed over, and so is step 0.
        rising: whether the metric is better when larger.

    Returns:
        The level; `None` where there is no finite value after the first step.

    Example:
        >>> round(best_level([8, 9, 10, 11, 12, 13, 14], [0.5, 0.6, 0.5, 0.7, 0.5, 0.6, 0.5], rising=True), 2)
        0.56
    """
    pairs = [(float(s), float(v)) for s, v in zip(steps, values, strict=True) if s > 0 and math.isfinite(v)]
    if not pairs:
        return None
    step, value = max(pairs, key=lambda pair: pair[1] if rising else -pair[1])
    reach = math.sqrt(_STRETCH)
    around = [pair for pair in pairs if step <= reach * pair[0] and pair[0] <= reach * step]
    if len(around) < _FEWEST:
        return value
    return _Line.through([math.log(s) for s, _ in around], [v for _, v in around]).at(math.log(step))


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
        return Estimate.missing("no spread of fewer than three evaluations", n=len(x), unit=unit)
    value, freedom = math.sqrt(_mean_square(residuals)), max(1.0, len(residuals) / _DEPENDENCE)
    what = f"of one evaluation, from the last {len(x)} of a run"
    return intervals.standard_deviation_of_residuals(value, freedom, n=len(x), unit=unit, what=what)


def confirmations(steps: Sequence[float], values: Sequence[float], *, rising: bool) -> int:
    """Evaluations in a row that a target should take, by the noise and the gain near the end of a run.

    Args:
        steps: of the evaluations of a run that is near the target; from 0, increasing.
        values: of the metric there; what is not finite is passed over, and so is step 0.
        rising: whether the metric is better when larger.

    Returns:
        K of the module's text; 1 where the evaluations are too few to tell.

    Example:
        >>> steps = list(range(20, 40, 2))
        >>> falling, jumping = [30.0 / s for s in steps], [0.8 + 0.05 * (s % 3 == 0) for s in steps]
        >>> confirmations(steps, falling, rising=False), confirmations(steps, jumping, rising=True)
        (1, 3)
    """
    x, y = _at_the_end(steps, values)
    if len(x) < _FEWEST:
        return 1
    spread, slope = math.sqrt(_mean_square(_pseudo_residuals(x, y))), _Line.through(x, y).slope
    gain, gap = slope if rising else -slope, (x[-1] - x[0]) / (len(x) - 1)
    short = min(_LONGEST, spread / gain) if gain > 0 else _LONGEST
    if spread == 0 or short <= max(gap, _LITTLE):
        return 1
    confirm, evaluations = 1, math.ceil(short / gap)
    while _in_a_row_by_chance(confirm, evaluations) > _ACCEPTED:
        confirm += 1
    return confirm


def _in_a_row_by_chance(confirm: int, evaluations: int) -> float:
    """Probability that so many in a row of some evaluations are at a target that the run is one spread short of."""
    without_one = [1.0] * confirm
    for n in range(confirm, evaluations + 1):
        shares = (_BY_CHANCE**j * (1.0 - _BY_CHANCE) * without_one[n - 1 - j] for j in range(confirm))
        without_one.append(math.fsum(shares))
    return 1.0 - without_one[evaluations] if evaluations >= confirm else 0.0


class _Line(NamedTuple):
    """Least-squares line: the means of x and of y, its slope, and the sum of squares of x about its mean."""

    middle: float
    mean: float
    slope: float
    about: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> _Line:
        """The line of two points or more."""
        middle, mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
        about = math.fsum((a - middle) ** 2 for a in x)
        slope = math.fsum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / about
        return cls(middle, mean, slope, about)

    def at(self, x: float) -> float:
        """Its y."""
        return self.mean + self.slope * (x - self.middle)


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
