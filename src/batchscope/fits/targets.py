"""Targets that follow from runs: one within reach, the best value so far, and a milestone on the way, where runs pause.

Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..store.ranges import range_of
from ..store.records import Estimate, Metric, Row, Target
from ..store.runs import StoredRun
from .curves import curve_of, steps_to_target
from .evaluation_noise import best_level, end_value

__all__ = ["best_value", "choose_target", "gets_further", "level_at_end", "milestone_of", "passage_of"]

_SHARE_LEFT, _MOVED = 0.05, 0.01
"""Of a run's improvement that is left at the target, and by which rounding may move it."""
_SHARE = 0.3
"""Of the way from the target back to the start, in logarithms of what is left to zero loss."""
_PLAIN_SHARE = 0.1
"""The same in the metric itself, where it has no zero to measure from."""


def milestone_of(rows: Sequence[Row], target: Target, constant: float | None = None) -> Target | None:
    """Milestone of a target: an easier value of its metric, which takes about a third of the steps to the target.

    For a loss with target v and start v₀ it is v (v₀/v)^0.3, for a score below 1 the same of 1 - score; where neither
    makes sense, v + 0.1 (v₀ - v). On seven of the trainings of `benchmarks/search` the first takes 27 to 34 % of the
    steps in the median. One evaluation at it is enough: runs pause there, and none ends.

    Args:
        rows: of any run of the search; its evaluation before the first step is the start.
        target: at the end of the way.
        constant: value of the best constant prediction, which is the start where it is better; `None`: not known.

    Returns:
        The milestone; `None` where the start is not known, or meets the target.
    """
    start = next((r["metrics"].get(target.metric) for r in rows if r["kind"] == "evaluation" and r["step"] == 0), None)
    if start is None or not math.isfinite(start) or target.met_by(start):
        return None
    start = _better(start, constant, target.mode)
    if target.met_by(start):
        return None
    left, at_start = (target.value, start) if target.mode == "min" else (1.0 - target.value, 1.0 - start)
    if left > 0.0:
        easier = left * (at_start / left) ** _SHARE
        value = easier if target.mode == "min" else 1.0 - easier
    else:
        value = target.value + _PLAIN_SHARE * (start - target.value)
    return replace(target, value=value, confirm=1)


def passage_of(run: StoredRun, target: Target) -> float | None:
    """First passage of a target by a finished run, in steps; `None` where it did not reach the target.

    Its rows are read only where its result does not tell: where its best evaluation was at the target, and the run had
    another.
    """
    result, own = run.result, run.config.target
    if result is None:
        return None
    if own == target and result.steps_to_target is not None:
        return result.steps_to_target
    judged_by = own.judged_by if own is not None else run.config.metric
    best = result.best.get(target.metric, math.nan)
    if judged_by == target.judged_by and math.isfinite(best) and not target.met_by(best):
        return None
    return steps_to_target(run.rows, target)


def gets_further(rows: Sequence[Row], others: Sequence[Row], metric: Metric, *, towards: Target | None = None) -> bool:
    """Whether a run's best value of a metric is better by over 5 % of the other run's improvement.

    Args:
        rows: of the run.
        others: of the other run.
        metric: that is judged.
        towards: where both are to get; then it is better only by over 5 % of the way there from the start. On a plateau
            at the start, where neither has improved to speak of, neither gets further.
    """
    _, best = _improvement(rows, metric)
    first, known = _improvement(others, metric)
    gain = best - known if metric.mode == "max" else known - best
    way = abs(first - known) if towards is None else max(abs(first - known), abs(first - towards.value))
    return gain > _SHARE_LEFT * way and gain > 0


def best_value(runs: Sequence[StoredRun], metric: Metric) -> Target | None:
    """Best level at which any run ended, as a target; `None` where no run improved on its start.

    It is the level of the last evaluations (`evaluation_noise.end_value`), not the best of many noisy ones; but none
    beyond the best of them, so that a run has reached it.
    """
    best: Target | None = None
    for run in runs:
        steps, values = _curve(run.rows, metric)
        end = end_value(steps, values)
        if run.result is None or end is None:
            continue
        value = min(end.value, max(values)) if metric.mode == "max" else max(end.value, min(values))
        target = Target(metric=metric.name, value=value, mode=metric.mode)
        improved = target.value != values[0] and not target.met_by(values[0])
        if improved and (best is None or best.met_by(target.value)):
            best = target
    return best


def level_at_end(rows: Sequence[Row], metric: Metric) -> Estimate | None:
    """Level of a metric at the end of a run, with the 90 % interval of one evaluation there, inside what it can be.

    `None` where it was not evaluated after the first step.
    """
    steps, values = _curve(rows, metric)
    end = end_value(steps, values)
    return None if end is None else end.estimate(unit=metric.name, within=range_of(metric.name, values))


def choose_target(rows: Sequence[Row], metric: Metric, constant: float | None = None) -> Target:
    """Target when the user names none: where the pilot had 5 % of its whole improvement left.

    Its improvement is that up to its best level (`evaluation_noise.best_level`), not up to its best evaluation, and
    counts from the value of the best constant prediction where that is better than fresh weights: targets far from zero
    would else be reached by their mean alone.

    Args:
        rows: of the pilot.
        metric: that it is judged by.
        constant: value of the best constant prediction; `None`: not known.

    Raises:
        ValueError: the pilot did not improve the metric, or not on that of the best constant prediction.
    """
    first, best = _improvement(rows, metric)
    steps = max(row["step"] for row in rows if row["kind"] == "evaluation")
    if best == first:
        raise ValueError(f"{metric.name} did not improve on its first value {first:.4g} in {steps} steps")
    start = _better(first, constant, metric.mode)
    if _better(best, start, metric.mode) == start:
        raise ValueError(
            f"{metric.name} did not improve on the best constant prediction's {start:.4g} in {steps} steps"
        )
    at, values = _curve(rows, metric)
    level = best_level(at, values, rising=metric.mode == "max")
    best = best if level is None or _better(level, start, metric.mode) == start else level
    return Target(
        metric=metric.name, value=_rounded(best + _SHARE_LEFT * (start - best), start - best), mode=metric.mode
    )


def _better(value: float, other: float | None, mode: str) -> float:
    if other is None:
        return value
    return min(value, other) if mode == "min" else max(value, other)


def _rounded(value: float, improvement: float) -> float:
    """A value with three significant digits, with more where those would move it by over 1 % of an improvement.

    >>> _rounded(0.15432, 0.8), _rounded(10000.2461, -0.5)
    (0.154, 10000.25)
    """
    rounded = (float(f"{value:.{digits}g}") for digits in range(3, 18))
    return next(each for each in rounded if abs(each - value) <= _MOVED * abs(improvement) or each == value)


def _improvement(rows: Sequence[Row], metric: Metric) -> tuple[float, float]:
    """First and best value of a metric."""
    _, values = _curve(rows, metric)
    return values[0], max(values) if metric.mode == "max" else min(values)


def _curve(rows: Sequence[Row], metric: Metric) -> tuple[list[int], list[float]]:
    curve = curve_of(rows, metric.endless)
    return [step for step, _ in curve], [value for _, value in curve]
