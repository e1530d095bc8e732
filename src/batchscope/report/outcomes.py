"""Outcomes of runs by the plan's target: the points that the charts draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..fits.curves import value_at
from ..fits.step_time import step_time_of
from ..fits.targets import passage_of
from ..store.records import Curve, Plan, RunStatus
from ..wording import count, number
from .charts import safe

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = ["RunOutcome", "best_by_size", "curve_at", "hover", "outcomes", "step_times"]


class RunOutcome(NamedTuple):
    """Outcome of one finished run, judged by the plan's target."""

    id: str
    batch_size: int
    lr: float
    status: RunStatus
    reached: bool
    steps: float
    """To the target if it was reached, else made."""

    @property
    def examples(self) -> float:
        """Examples read: steps times batch size."""
        return self.steps * self.batch_size


def outcomes(plan: Plan, runs: Sequence[StoredRun]) -> tuple[RunOutcome, ...]:
    """Outcome of each finished run by the plan's target, whichever target it had itself: a pilot may have had none.

    Runs that only fix the length of a decaying schedule are left out, and runs that never measured the metric.
    """
    found: list[RunOutcome] = []
    for run in runs:
        if run.result is None or plan.target is None or run.config.purpose == "horizon":
            continue
        if plan.target.metric not in run.result.best:
            continue
        passage = passage_of(run, plan.target)
        steps = float(run.result.steps) if passage is None else passage
        config = run.config
        found.append(RunOutcome(run.id, config.batch_size, config.lr, run.result.status, passage is not None, steps))
    return tuple(found)


def best_by_size(found: Sequence[RunOutcome]) -> dict[int, RunOutcome]:
    """Runs with the fewest steps to the target at each batch size where one reached it."""
    best: dict[int, RunOutcome] = {}
    for outcome in found:
        if outcome.reached and (outcome.batch_size not in best or outcome.steps < best[outcome.batch_size].steps):
            best[outcome.batch_size] = outcome
    return dict(sorted(best.items()))


def step_times(plan: Plan) -> Callable[[int], float | None]:
    """Seconds of one optimizer step at a batch size by the plan's own model (`fits.step_time`), which is fitted once.

    Where the plan has no bench, the ratio of its curves of time and of steps; `None` where nothing is known of it.
    """
    if plan.bench is not None and plan.bench.profile.step_time_s:
        return step_time_of(plan.bench).of_batch

    def by_curves(batch_size: int) -> float | None:
        if plan.curves is None:
            return None
        time = curve_at(plan.curves.time_to_target_s, batch_size)
        steps = curve_at(plan.curves.steps_to_target, batch_size)
        return time / steps if time and steps else None

    return by_curves


def curve_at(curve: Curve, batch_size: float) -> float | None:
    """Value of a fitted curve at a batch size, between its points on logarithmic scales; outside them `None`."""
    if not curve.batch_size or min(curve.value) <= 0:
        return None
    logs = value_at(curve.batch_size, [math.log(v) for v in curve.value], batch_size)
    return None if logs is None else math.exp(logs)


def hover(outcome: RunOutcome, *lines: str) -> str:
    """Text of a point when it is pointed at."""
    lr = f", learning rate {number(outcome.lr)}" if outcome.lr else ""
    head = f"{safe(outcome.id)}<br>batch size {count(outcome.batch_size)}{lr}"
    ended = "" if outcome.reached else f"{outcome.status.ending} after "
    end = f"{ended}{count(outcome.steps)} steps"
    return "<br>".join([head, end, *lines])
