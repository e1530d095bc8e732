"""From stored runs to what a search believes: observations of steps to target, the prior, and the target itself.

Numbers only: the same runs give the same belief wherever they are read, and reports rebuild without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..fits.curves import curve_of, steps_to_target
from ..fits.noise_scale import estimate
from ..fits.steps_to_target import Observation, Prior, StepsPosterior, fit
from ..store.records import Estimate, RateRange, RunStatus, Target
from ..store.runs import StoredRun
from ..training.stopping import BehindRule, History

__all__ = [
    "best_on_clock",
    "curve_on_clock",
    "noise_scale_of",
    "observe",
    "prior_from",
    "update_belief",
]

_CEILING_ABOVE_BEST = 10.0
_CEILING_SD = math.log(4.0)
_NORMALISED_SLOPE, _PLAIN_SLOPE, _SLOPE_SD = 0.5, 0.9, 0.2
_NOISE_SCALES = 3.0
"""B_c ÷ gradient noise scale: 2 to 6 on the tasks of `benchmarks/`; McCandlish et al. (2018) put it near 1."""
_NOISE_SCALE_FACTOR = 6.0
"""One standard deviation of that ratio, as a factor."""
_LAG_BELIEVED = 1.1


def curve_on_clock(run: StoredRun, target: Target, step_time: float) -> list[tuple[float, float]]:
    """Time and metric of a run's evaluations, up to the first at the target."""
    curve: list[tuple[float, float]] = []
    for step, value in curve_of(run.rows, target):
        curve.append((step * step_time, value))
        if step > 0 and target.met_by(value):
            break
    return curve


def best_on_clock(
    runs: Sequence[StoredRun], target: Target, cost: Callable[[int], float]
) -> tuple[float, StoredRun] | None:
    """The run that reached the target at the least cost, and that cost."""
    best: tuple[float, StoredRun] | None = None
    for run in runs:
        steps = steps_to_target(run.rows, target)
        if steps is None or run.config.purpose == "horizon":
            continue
        spent = steps * cost(run.config.batch_size)
        if best is None or spent < best[0]:
            best = (spent, run)
    return best


def observe(
    runs: Sequence[StoredRun], target: Target, cost: Callable[[int], float], milestone: Target | None = None
) -> list[Observation]:
    """What each finished run says about steps to target.

    Args:
        runs: of the search.
        target: at the end of the way.
        cost: of a step of a batch size; the clock on which lags are measured.
        milestone: on the way, if there is one.

    Returns:
        One observation a run. One that was set aside at the milestone counts with its steps to there. One that was
        stopped because it lagged counts with the steps that it would have needed at its lag. One that stalled above the
        target shows, as one that diverged, that its rate is too high for its batch size. One that overfitted or ran out
        of steps counts as censored where it ended.
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
    if status is RunStatus.PAUSED and passed is not None:
        return replace(seen, kind="reached", steps=passed, to="milestone", milestone_steps=None)
    if milestone is not None and passed is None:
        seen, target = replace(seen, to="milestone"), milestone
    if status in (RunStatus.DIVERGED, RunStatus.STALLED, RunStatus.LEVELLED_OFF):
        return replace(seen, kind="diverged")
    if status is RunStatus.BEHIND:
        best = best_on_clock(runs, target, cost)
        expected = _steps_at_lag(run, best[1], target, cost) if best else None
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
    rule = BehindRule(reference=curve_on_clock(reference, target, other), step_time=own, factor=math.inf)
    lag = rule.lag(history)
    return lag * needed * other / own if lag > _LAG_BELIEVED else None


def prior_from(rate_range: RateRange | None, noise_scale: Estimate | None, typical_steps: float | None = None) -> Prior:
    """The prior of a search: a weak one, moved by the range test and by the noise scale.

    Args:
        rate_range: its ceiling lies above the best rate, by a factor of 10 give or take 4.
        noise_scale: of the pilot; three times it is a hint at the critical batch size, believed within a factor of 6.
        typical_steps: S_min to start from; default: e^6, within a factor of 20.
    """
    prior = Prior()
    if rate_range is not None:
        adaptive = rate_range.normalised
        prior = replace(
            prior,
            slope=(_NORMALISED_SLOPE if adaptive else _PLAIN_SLOPE, _SLOPE_SD),
            log_lr_max=(math.log(rate_range.ceiling_lr / _CEILING_ABOVE_BEST), _CEILING_SD),
        )
    if typical_steps is not None:
        prior = replace(prior, log_steps_min=(math.log(typical_steps), prior.log_steps_min[1]))
    if noise_scale is not None and noise_scale.value is not None and noise_scale.value >= 1.0:
        prior = prior.with_critical_batch_size(_NOISE_SCALES * noise_scale.value, _NOISE_SCALE_FACTOR)
    return prior


def update_belief(observations: Sequence[Observation], prior: Prior, *, seed: int = 0) -> StepsPosterior:
    """The belief after the observations; its randomness follows from `seed` and their number."""
    return fit(observations, prior, seed=1000 * seed + len(observations))


def noise_scale_of(runs: Sequence[StoredRun], examples: int) -> Estimate:
    """The gradient noise scale of the first run that measured it; open on both sides where none did."""
    for run in runs:
        rows = [row for row in run.rows if row["kind"] == "noise"]
        if rows:
            return estimate(rows, examples=examples)
    return estimate([], examples=examples)
