"""Targets that follow from runs: one within reach, the best value so far, and a milestone on the way, where runs pause.

Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..store.metrics import target_metric
from ..store.records import Row, Target
from ..store.runs import StoredRun

__all__ = ["best_value", "choose_target", "gets_further", "milestone_of"]

_SHARE_LEFT = 0.05
_SHARE = 0.3
"""Of the way from the target back to the start, in logarithms of what is left to zero loss."""
_PLAIN_SHARE = 0.1
"""The same in the metric itself, where it has no zero to measure from."""


def milestone_of(rows: Sequence[Row], target: Target) -> Target | None:
    """Milestone of a target: an easier value of its metric, which takes about a third of the steps to the target.

    For a loss with target v and start v₀ it is v (v₀/v)^0.3, for a score below 1 the same of 1 - score; where neither
    makes sense, v + 0.1 (v₀ - v). On seven of the trainings of `benchmarks/search` the first takes 27 to 34 % of the
    steps in the median.

    Args:
        rows: of any run of the search; its evaluation before the first step is the start.
        target: at the end of the way.

    Returns:
        The milestone; `None` where the start is not known, or meets the target.
    """
    start = next((r["metrics"].get(target.metric) for r in rows if r["kind"] == "evaluation" and r["step"] == 0), None)
    if start is None or not math.isfinite(start) or target.met_by(start):
        return None
    left, at_start = (target.value, start) if target.mode == "min" else (1.0 - target.value, 1.0 - start)
    if left > 0.0:
        easier = left * (at_start / left) ** _SHARE
        value = easier if target.mode == "min" else 1.0 - easier
    else:
        value = target.value + _PLAIN_SHARE * (start - target.value)
    return replace(target, value=value)


def gets_further(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether a run's best value of the metric to aim at is better by over 5 % of the other run's improvement."""
    (_, first, best, larger), (_, _, known, _) = _improvement(rows), _improvement(others)
    gain = best - known if larger else known - best
    return gain > _SHARE_LEFT * abs(first - known) and gain > 0


def best_value(runs: Sequence[StoredRun]) -> Target | None:
    """Best value that any run reached, as a target; `None` where no run improved on its start."""
    best: Target | None = None
    for run in runs:
        if run.result is None:
            continue
        metric, first, value, larger = _improvement(run.rows)
        target = Target(metric=metric, value=value, mode="max" if larger else "min")
        if value != first and (best is None or best.met_by(value)):
            best = target
    return best


def choose_target(rows: Sequence[Row]) -> Target:
    """Target when the user names none: where the pilot had 5 % of its whole improvement left.

    Raises:
        ValueError: the pilot improved no metric that can be a target.
    """
    metric, first, best, larger = _improvement(rows)
    if best == first:
        steps = max(row["step"] for row in rows if row["kind"] == "evaluation")
        raise ValueError(f"{metric} did not improve on its first value {first:.4g} in {steps} steps")
    value = float(f"{best + _SHARE_LEFT * (first - best):.3g}")
    return Target(metric=metric, value=value, mode="max" if larger else "min")


def _improvement(rows: Sequence[Row]) -> tuple[str, float, float, bool]:
    """Metric to aim at, its first and best value, and whether larger is better."""
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    metric, larger = target_metric(sorted(evaluations[0]["metrics"]))
    values = [float(row["metrics"][metric]) for row in evaluations if row["metrics"].get(metric) is not None]
    return metric, values[0], max(values) if larger else min(values), larger
