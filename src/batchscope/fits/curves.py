"""Curves: first passage of a level, and the value at a step, both straight in the logarithm of the step.

Between two evaluations at steps `x₀ < x₁`, a metric `y` is taken as straight in the logarithm of the step:

```
y(x) = y₀ + s (y₁ - y₀),   s = log(x / x₀) / log(x₁ / x₀),   so   x = x₀ (x₁ / x₀)^s
```

The first passage of a level is the smallest `x` at which the curve is at the level or beyond; where several evaluations
in a row have to confirm it, the first of the first so many in a row counts, and the passage lies between it and the one
before. What grows in proportion
to the steps of a run (epochs, examples, seconds of a constant step time) is on the same scale: a formula in ratios has
no unit. Measured seconds are not in proportion; they are read off at the step that was found (`clock`).

* Step 0 has no logarithm: from there to the next evaluation the curve is taken as straight in the step itself.
* A curve that begins at the level or beyond passes it at its first evaluation.
* Values that are not finite are gaps: the evaluations on both sides count as neighbours.

Numbers only; no NumPy, so that what imports this module stays quick to import.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from ..store.records import Row, Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "best_held",
    "between",
    "curve_of",
    "first_passage",
    "seconds_at",
    "spread_of_clock",
    "spread_of_paces",
    "steps_to_target",
    "up_to_target",
    "value_at",
]

_MINIMUM_SPREAD, _SPREAD_OF_ONE = 0.02, 0.1


@overload
def between(before: float, after: float, share: float) -> float: ...
@overload
def between(before: float, after: float, share: NDArray[np.float64]) -> NDArray[np.float64]: ...
def between(before: float, after: float, share: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Step at a share of the way in value from one evaluation to the next: `x₀ (x₁ / x₀)^s`; from step 0, `s x₁`.

    Args:
        before: step of the earlier evaluation, at least 0.
        after: step of the later one, above it.
        share: `s`, from 0 to 1; one number or an array of them.

    Returns:
        The step, in the shape of `share`.

    Example:
        >>> between(10.0, 1000.0, 0.5), between(0.0, 8.0, 0.5)
        (100.0, 4.0)
    """
    return before * (after / before) ** share if before > 0 else after * share


def first_passage(
    steps: Sequence[float],
    values: Sequence[float],
    level: float,
    *,
    rising: bool,
    clock: Sequence[float] | None = None,
    confirm: int = 1,
) -> float | None:
    """First passage of a level by a curve; `None` where the curve never is at the level or beyond.

    Args:
        steps: of the evaluations, or anything in proportion to them; from 0, increasing.
        values: of the metric there; what is not finite is passed over.
        level: to be reached.
        rising: whether the curve has to rise to the level or above; else it has to fall to it or below.
        clock: what else was read at the evaluations and is asked for in the place of the step, such as epochs or
            measured seconds; straight in steps between two evaluations.
        confirm: evaluations in a row that have to be at the level or beyond.

    Returns:
        The step, or what the clock shows then. Between the first evaluation at the level and the finite one before it.

    Example:
        >>> first_passage([0, 10, 1000], [9.0, 3.0, 1.0], 2.0, rising=False)
        100.0
        >>> first_passage([0, 10, 1000], [9.0, 3.0, 1.0], 2.0, rising=False, clock=[0.0, 1.0, 199.0])
        19.0
        >>> first_passage([0, 10, 1000], [9.0, 3.0, 1.0], 0.5, rising=False) is None
        True
        >>> first_passage([0, 10, 20, 80, 90], [9.0, 1.0, 3.0, 1.0, 1.0], 2.0, rising=False, confirm=2)
        40.0
    """
    sign = 1.0 if rising else -1.0
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    at = _first_in_a_row([sign * values[i] >= sign * level for i in finite], confirm)
    if at is None:
        return None
    i = finite[at]
    if at == 0:
        return float((clock or steps)[i])
    last = finite[at - 1]
    share = (level - values[last]) / (values[i] - values[last])
    step = min(max(between(steps[last], steps[i], share), steps[last]), steps[i])
    if clock is None:
        return step
    passed = (step - steps[last]) / (steps[i] - steps[last])
    return clock[last] + passed * (clock[i] - clock[last])


def _first_in_a_row(met: Sequence[bool], confirm: int) -> int | None:
    """Index of the first of the first so many in a row that are met."""
    in_a_row = 0
    for i, each in enumerate(met):
        in_a_row = in_a_row + 1 if each else 0
        if in_a_row == confirm:
            return i - confirm + 1
    return None


def value_at(steps: Sequence[float], values: Sequence[float], step: float) -> float | None:
    """Value of a curve at a step; `None` before its first and after its last finite value.

    The inverse of `first_passage` where the curve is monotone. The same for any curve on a logarithmic axis, such as
    one against batch size.

    Args:
        steps: of the evaluations, or anything in proportion to them; from 0, increasing.
        values: of the metric there; what is not finite is passed over.
        step: the moment.

    Returns:
        The value, in the metric's unit.

    Example:
        >>> value_at([0, 10, 1000], [9.0, 3.0, 1.0], 100), value_at([0, 10, 1000], [9.0, 3.0, 1.0], 5)
        (2.0, 6.0)
        >>> value_at([0, 10], [9.0, 3.0], 11) is None
        True
    """
    last: tuple[float, float] | None = None
    for x, y in zip(steps, values, strict=True):
        if not math.isfinite(y):
            continue
        if x == step:
            return float(y)
        if last is not None and last[0] < step < x:
            before, value = last
            share = math.log(step / before) / math.log(x / before) if before > 0 else step / x
            return value + share * (y - value)
        last = x, y
    return None


def curve_of(rows: Sequence[Row], target: Target) -> list[tuple[int, float]]:
    """Step and target metric of each evaluation among a run's rows; evaluations without the metric are passed over.

    Example:
        >>> row = {"kind": "evaluation", "step": 8, "metrics": {"val_loss": 0.5}}
        >>> curve_of([row, {"kind": "noise", "step": 9}], Target.parse("val_loss<=0.1"))
        [(8, 0.5)]
    """
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    pairs = [(int(row["step"]), row["metrics"].get(target.metric)) for row in evaluations]
    return [(step, float(value)) for step, value in pairs if value is not None]


def up_to_target(curve: Sequence[tuple[int, float]], target: Target) -> list[tuple[int, float]]:
    """The beginning of a curve with the evaluation at which the target is reached; all of it where it is not.

    Args:
        curve: of `curve_of`; what comes before the first step does not reach a target.
        target: the first evaluation of as many in a row as confirm it reaches it.

    Example:
        >>> up_to_target([(0, 3.0), (1, 1.0), (2, 2.0), (3, 1.0), (4, 0.5)], Target.parse("val_loss<=1"))
        [(0, 3.0), (1, 1.0)]
    """
    at = _first_in_a_row([step > 0 and target.met_by(value) for step, value in curve], target.confirm)
    return list(curve if at is None else curve[: at + 1])


def best_held(rows: Sequence[Row], target: Target) -> tuple[float, int] | None:
    """Hardest value that a run would have reached as a target, and the step; `None` where it has too few evaluations.

    It is the best that as many evaluations in a row as confirm the target were at or beyond: with one, the best. A
    single good evaluation among noisy ones is none.

    Example:
        >>> values = {0: 0.1, 1: 0.5, 2: 0.9, 3: 0.6, 4: 0.7}
        >>> rows = [{"kind": "evaluation", "step": s, "metrics": {"acc": v}} for s, v in values.items()]
        >>> twice = Target(metric="acc", value=0.8, mode="max", confirm=2)
        >>> best_held(rows, twice), best_held(rows, Target.parse("acc>=0.8"))
        ((0.6, 2), (0.9, 2))
    """
    curve = [point for point in curve_of(rows, target) if math.isfinite(point[1])]
    sign, confirm = (1.0 if target.mode == "max" else -1.0), target.confirm
    stretches = [curve[i : i + confirm] for i in range(len(curve) - confirm + 1)]
    held = [(min(sign * value for _, value in stretch), -stretch[0][0]) for stretch in stretches]
    if not held:
        return None
    value, step = max(held)
    return sign * value, -step


def steps_to_target(rows: Sequence[Row], target: Target) -> float | None:
    """First passage of a target in a run's rows, in steps; `None` where the run did not reach the target.

    A target is reached by training: the evaluation before the first step does not count, so that the first passage is
    at least 1. As many evaluations in a row as confirm the target have to be at it.

    Example:
        >>> values = {0: 0.05, 1: 3.0, 100: 1.0}
        >>> rows = [{"kind": "evaluation", "step": s, "metrics": {"val_loss": v}} for s, v in values.items()]
        >>> steps_to_target(rows, Target.parse("val_loss<=2"))
        10.0
    """
    curve = [point for point in curve_of(rows, target) if point[0] > 0]
    steps, values = [float(step) for step, _ in curve], [value for _, value in curve]
    return first_passage(steps, values, target.value, rising=target.mode == "max", confirm=target.confirm)


def seconds_at(rows: Sequence[Row], step: float) -> float | None:
    """Seconds that a run's own clock shows at a step, evaluations not counted; `None` after its last evaluation.

    Straight in steps between two evaluations. At the first passage of a target it is the run's time to the target.

    Example:
        >>> rows = [{"kind": "evaluation", "step": s, "device_seconds": t} for s, t in ((0, 0.0), (10, 2.0), (20, 3.0))]
        >>> seconds_at(rows, 15), seconds_at(rows, 21) is None
        (2.5, True)
    """
    readings = list(zip(*_clock_of(rows), strict=True))
    for (before, earlier), (after, later) in itertools.pairwise(readings):
        if before <= step <= after:
            return earlier + (later - earlier) * (step - before) / (after - before)
    return None


def spread_of_clock(rows: Sequence[Row], step: float) -> float:
    """Standard error of the logarithm of a run's mean step time up to a step, at least 0.02.

    `sd(log pace) / sqrt(n)` of its pace (seconds a step) in the n stretches between evaluations, each weighted by its
    steps; 0.1 where there is but one.

    Example:
        >>> rows = [{"kind": "evaluation", "step": s, "device_seconds": 0.1 * s} for s in (0, 10, 20)]
        >>> spread_of_clock(rows, 20)
        0.02
    """
    steps, clock = _clock_of(rows)
    paces = [
        (b - a, math.log((t - s) / (b - a)))
        for (a, s), (b, t) in itertools.pairwise(zip(steps, clock, strict=True))
        if a < step and b > a and t > s
    ]
    return spread_of_paces(paces)


def spread_of_paces(paces: Sequence[tuple[float, float]]) -> float:
    """Standard error of the weighted mean of log paces, given as `(weight, log pace)`: at least 0.02, and 0.1 of one.

    >>> spread_of_paces([(1.0, 0.0), (1.0, 0.2)]), spread_of_paces([(5.0, 0.3)])
    (0.1, 0.1)
    """
    if len(paces) < 2:
        return _SPREAD_OF_ONE
    total = sum(weight for weight, _ in paces)
    mean = sum(weight * pace for weight, pace in paces) / total
    variance = sum(weight * (pace - mean) ** 2 for weight, pace in paces) / total
    effective = total**2 / sum(weight**2 for weight, _ in paces)
    return max(_MINIMUM_SPREAD, math.sqrt(variance / max(1.0, effective - 1.0)))


def _clock_of(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    return [float(row["step"]) for row in evaluations], [float(row["device_seconds"]) for row in evaluations]
