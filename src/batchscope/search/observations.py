"""What stored runs say: observations of steps to target, curves on the clock, the gradient noise scale. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..fits.curves import curve_of, steps_to_target, up_to_target
from ..fits.noise_scale import estimate
from ..fits.steps_to_target import Observation
from ..store.records import Estimate, RunStatus, Target
from ..store.runs import StoredRun
from ..training.stopping import History, lag_behind

__all__ = [
    "FEWEST_STEPS",
    "best_on_clock",
    "curve_on_clock",
    "cut_at_first_steps",
    "evaluation_seconds",
    "has_diverged",
    "noise_scale_of",
    "observe",
]

_BEYOND = 1.5
"""Times the steps to the milestone from which on a paused run says something of the way to the target."""
_CLEAR_LAG = 1.1
"""A lag below this factor is not told from none."""
FEWEST_STEPS = 10
"""A run that the clock cut before so many steps shows no target that is within reach."""


def has_diverged(run: StoredRun) -> bool:
    """Whether a run ended because it diverged."""
    return run.result is not None and run.result.status is RunStatus.DIVERGED


def cut_at_first_steps(run: StoredRun) -> bool:
    """Whether the clock cut a run before it had made the steps from which a course can be told."""
    result = run.result
    return result is not None and result.status is RunStatus.OUT_OF_TIME and result.steps < FEWEST_STEPS


def curve_on_clock(run: StoredRun, target: Target, step_time: float) -> list[tuple[float, float]]:
    """Time and metric of a run's evaluations, up to the one at which it reached the target."""
    return [(step * step_time, value) for step, value in up_to_target(curve_of(run.rows, target), target)]


def best_on_clock(runs: Sequence[StoredRun], target: Target, cost: Callable[[int], float]) -> StoredRun | None:
    """The run that reached the target at the lowest cost."""
    at_constant_lr = [(steps_to_target(run.rows, target), run) for run in runs if run.config.purpose != "horizon"]
    reached = [(steps * cost(run.config.batch_size), run) for steps, run in at_constant_lr if steps is not None]
    return min(reached, key=lambda pair: pair[0])[1] if reached else None


def observe(
    runs: Sequence[StoredRun], target: Target, cost: Callable[[int], float], milestone: Target | None = None
) -> list[Observation]:
    """Observations of steps to target, one a finished run.

    Args:
        runs: of the search.
        target: at the end of the way.
        cost: of a step of a batch size; the clock on which lags are measured.
        milestone: on the way, if there is one.

    Returns:
        One observation a run. One that was paused at the milestone counts with its steps to there, one that was paused
        well beyond it also as censored on its way to the target. One that was stopped
        because it lagged counts with the steps that it would have needed at its lag. One that stalled above the target
        shows, as one that diverged, that its learning rate is too high for its batch size. One that overfitted or ran
        out of steps counts as censored where it ended.
    """
    ended = [run for run in runs if run.result is not None and run.config.purpose != "horizon"]
    return [_observed(run, ended, target, cost, milestone) for run in ended]


def _observed(
    run: StoredRun,
    runs: Sequence[StoredRun],
    target: Target,
    cost: Callable[[int], float],
    milestone: Target | None,
) -> Observation:
    assert run.result is not None
    passed = steps_to_target(run.rows, milestone) if milestone else None
    reached = steps_to_target(run.rows, target)
    seen = Observation(
        batch_size=run.config.batch_size,
        lr=run.config.lr,
        steps=float(max(run.result.steps, 1)),
        kind="censored",
        milestone_steps=passed,
    )
    if reached is not None:
        return replace(seen, kind="reached", steps=reached)
    status = run.result.status
    if status is RunStatus.PAUSED and passed is not None and run.result.steps <= _BEYOND * passed:
        return replace(seen, kind="reached", steps=passed, to="milestone", milestone_steps=None)
    if milestone is not None and passed is None:
        seen, target = replace(seen, to="milestone"), milestone
    if status in (RunStatus.DIVERGED, RunStatus.STALLED, RunStatus.LEVELLED_OFF):
        return replace(seen, kind="diverged")
    if status is RunStatus.BEHIND:
        best = best_on_clock(runs, target, cost)
        expected = _steps_at_lag(run, best, target, cost) if best else None
        if expected is not None:
            return replace(seen, kind="lagging", steps=max(seen.steps, expected))
    return seen


def _steps_at_lag(run: StoredRun, reference: StoredRun, target: Target, cost: Callable[[int], float]) -> float | None:
    own, other = (cost(r.config.batch_size) for r in (run, reference))
    needed = steps_to_target(reference.rows, target)
    if needed is None:
        return None
    history = History(target=target)
    for step, value in curve_of(run.rows, target):
        history.add(step, None, {target.metric: value})
    lag = lag_behind(curve_on_clock(reference, target, other), own, history)
    return lag * needed * other / own if lag > _CLEAR_LAG else None


def noise_scale_of(runs: Sequence[StoredRun], examples: int | None) -> Estimate:
    """The gradient noise scale of the first run that measured it; open on both sides where none did."""
    for run in runs:
        rows = [row for row in run.rows if row["kind"] == "noise"]
        if rows:
            return estimate(rows, examples=examples)
    return estimate([], examples=examples)


def evaluation_seconds(run: StoredRun) -> float:
    """Seconds that the evaluations of a run took; 0 where its rows do not tell."""
    return max(
        (float(row.get("evaluation_seconds", 0.0)) for row in run.rows if row["kind"] == "evaluation"), default=0.0
    )
