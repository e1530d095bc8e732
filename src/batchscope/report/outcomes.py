"""What each run says about the plan's target: the points that the charts draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..belief import first_passage
from ..records import Bench, Curve, Plan, RunStatus
from ..wording import count, number
from .charts import safe

if TYPE_CHECKING:
    from ..store import StoredRun

__all__ = ["RunOutcome", "best_by_size", "curve_at", "first_passage", "hover", "interpolated", "outcomes", "step_time"]


class RunOutcome(NamedTuple):
    """One finished run, judged by the plan's target."""

    id: str
    batch_size: int
    lr: float
    status: RunStatus
    reached: bool
    steps: float
    """To the target if it was reached, else made."""

    @property
    def examples(self) -> float:
        """Steps times batch size."""
        return self.steps * self.batch_size


def outcomes(plan: Plan, runs: Sequence[StoredRun]) -> tuple[RunOutcome, ...]:
    """What each finished run says about the plan's target, whichever target it had itself: a pilot may have had none.

    Runs that only fix the length of a decaying schedule say nothing, nor do runs that never measured the metric.
    """
    found: list[RunOutcome] = []
    for run in runs:
        if run.result is None or plan.target is None or run.config.purpose == "horizon":
            continue
        if plan.target.metric not in run.result.best:
            continue
        passage = first_passage(run.rows, plan.target)
        if passage is None and run.config.target == plan.target:
            passage = run.result.steps_to_target
        steps = float(run.result.steps) if passage is None else passage
        config = run.config
        found.append(RunOutcome(run.id, config.batch_size, config.lr, run.result.status, passage is not None, steps))
    return tuple(found)


def best_by_size(found: Sequence[RunOutcome]) -> dict[int, RunOutcome]:
    """The run with the fewest steps to the target at each batch size where one reached it."""
    best: dict[int, RunOutcome] = {}
    for outcome in found:
        if outcome.reached and (outcome.batch_size not in best or outcome.steps < best[outcome.batch_size].steps):
            best[outcome.batch_size] = outcome
    return dict(sorted(best.items()))


def step_time(plan: Plan, batch_size: float) -> float | None:
    """Seconds of one optimizer step, from the bench's step times; else from the plan's own curves; else unknown.

    Above the largest micro-batch size, accumulation steps follow one another.
    """
    if plan.bench is not None and plan.bench.profile.step_time_s:
        return _bench_step_time(plan.bench, batch_size)
    if plan.curves is not None:
        time = curve_at(plan.curves.time_to_target_s, batch_size)
        steps = curve_at(plan.curves.steps_to_target, batch_size)
        return time / steps if time and steps else None
    return None


def _bench_step_time(bench: Bench, batch_size: float) -> float:
    table = sorted(bench.profile.step_time_s)
    sizes, seconds = [float(b) for b, _ in table], [s for _, s in table]
    largest = max(1, bench.largest_micro_batch_size)
    parts = max(1, math.ceil(batch_size / largest))
    micro = batch_size / parts
    step = interpolated(sizes, seconds, micro)
    gradients = sorted((float(r.micro_batch_size), r.gradient_time_s) for r in bench.readings if r.gradient_time_s)
    part = interpolated([b for b, _ in gradients], [s for _, s in gradients if s], micro) if gradients else step
    return step + (parts - 1) * part


def interpolated(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """Linear between the points; below them constant, above them along the last piece."""
    if at <= x[0] or len(x) == 1:
        return y[0]
    i = next((i for i in range(1, len(x)) if at <= x[i]), len(x) - 1)
    return y[i - 1] + (y[i] - y[i - 1]) * (at - x[i - 1]) / (x[i] - x[i - 1])


def curve_at(curve: Curve, batch_size: float) -> float | None:
    """A curve's value at a batch size, between its points on logarithmic scales; outside them unknown."""
    sizes = curve.batch_size
    if not sizes or not sizes[0] <= batch_size <= sizes[-1] or min(curve.value) <= 0:
        return None
    logs = interpolated([math.log(b) for b in sizes], [math.log(v) for v in curve.value], math.log(batch_size))
    return math.exp(logs)


def hover(outcome: RunOutcome, *lines: str) -> str:
    """What a point says when it is pointed at."""
    rate = f", rate {number(outcome.lr)}" if outcome.lr else ""
    head = f"{safe(outcome.id)}<br>batch size {count(outcome.batch_size)}{rate}"
    ended = "" if outcome.reached else f"{outcome.status.ending} after "
    end = f"{ended}{count(outcome.steps)} steps"
    return "<br>".join([head, end, *lines])
