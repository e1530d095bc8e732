"""What a recipe is, in full, and what training at it is expected to take. Numbers only, no torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ..fits.curves import curve_of, seconds_at, spread_of_clock, steps_to_target, up_to_target
from ..fits.memory import fit_memory
from ..fits.posterior import credible_interval, low_median_high
from ..fits.step_time import accumulation
from ..fits.targets import level_at_end
from ..fits.threads import num_threads_at
from ..store.records import Curve, Curves, EarlyStop, Estimate, Predicted, Recipe, Verified
from ..store.runs import StoredRun
from ..wording import duration, plural
from .clock import NORMAL_90, clock_of_run
from .horizon import horizon_of, schedule_members, schedule_of_recipe
from .observations import has_diverged
from .state import SearchState

__all__ = [
    "NORMAL_QUANTILES",
    "NOT_MEASURED",
    "beyond_law",
    "curves_of",
    "disagreement",
    "lr_is_too_high",
    "misfit_at",
    "predicted_at",
    "recipe_of",
    "run_at",
    "verified_by",
]

Array = NDArray[np.float64]

NOT_MEASURED = Estimate.missing()

NORMAL_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
_LEAST_PATIENCE = 0.25
"""Share of a training that it may wait for an improvement at least: one with another seed may wait longer than runs."""
_HOPELESS = 50.0
"""Times the steps at the best learning rate from which one above it is beyond what can work."""
_MOST_LOG_STEPS = 50.0
_DRAWN_AROUND = 8.0
"""Times the largest batch size that was run, and below the smallest, up to which curves are drawn."""
_PATIENCE_SHARE = 0.5
_NEVER = 1e15
"""Steps, seconds and examples from here on stand for a training that does not get there; such an end is left open."""


def recipe_of(state: SearchState, batch_size: int, lr: float) -> Recipe:
    """Everything to set in a training script, for as many steps as `_length` says."""
    micro, parts = accumulation(batch_size, state.bench.largest_micro_batch_size)
    steps = math.ceil(_length(state, batch_size, lr))
    epochs = None if state.examples is None else steps * batch_size / state.examples
    return Recipe(
        batch_size=batch_size,
        micro_batch_size=micro,
        grad_accum_steps=parts,
        world_size=1,
        lr=lr if state.recorded.lrs else None,
        **schedule_of_recipe(state, batch_size, lr, math.ceil(steps)),
        num_threads=num_threads_at(state.bench, micro) if state.recorded.step_times else None,
        optimizer_changes={},
        steps=steps,
        steps_per_epoch=None if state.examples is None else state.examples / batch_size,
        epochs=epochs,
        early_stop=EarlyStop(best_epoch=epochs, patience=_patience(state, batch_size, lr, steps, epochs)),
    )


def _length(state: SearchState, batch_size: int, lr: float) -> float:
    """Steps of a training: as many as were asked for, or as the schedule's, or as are expected to be needed.

    Those are the median of the prediction, but no fewer than a run at exactly this recipe needed.
    """
    if (asked := state.most_steps(batch_size)) is not None:
        return asked
    horizon, verified = horizon_of(state, batch_size, lr), verified_by(state, batch_size, lr)
    if horizon is not None:
        return horizon.config.max_steps
    return max(float(np.median(_steps(state, batch_size, lr))), verified.steps if verified else 0.0)


def _patience(state: SearchState, batch_size: int, lr: float, steps: int, epochs: float | None) -> float | None:
    """Epochs without improvement after which to give up; `None` where the training set's size is not known.

    Where a length is given, half of it. Else twice the longest wait of the runs. Where their evaluations were not
    recorded: up to where nine of ten trainings would have ended.
    """
    if epochs is None or state.examples is None:
        return None
    if state.question.within is not None:
        return _PATIENCE_SHARE * epochs
    if state.recorded.evaluations:
        return min(max(2.0 * _longest_wait(state, batch_size) / state.examples, _LEAST_PATIENCE * epochs), epochs)
    high = None if lr_is_too_high(state, batch_size, lr) else _steps_to_target(state, batch_size, lr).high
    return max(1.0, epochs if high is None else max(high - steps, 0.0) * batch_size / state.examples)


def _longest_wait(state: SearchState, batch_size: int) -> float:
    """Examples between two improvements before the target, the most in runs at this batch size, or in any."""
    assert state.target is not None
    runs = [r for r in state.finished if r.config.batch_size == batch_size] or list(state.finished)
    longest = 0.0
    for run in runs:
        best: float | None = None
        since = 0
        for step, value in up_to_target(curve_of(run.rows, state.target), state.target):
            if best is None or (value < best if state.target.mode == "min" else value > best):
                longest = max(longest, float((step - since) * run.config.batch_size))
                best, since = value, step
    return longest


def run_at(state: SearchState, batch_size: int, lr: float) -> StoredRun | None:
    """The last run made at exactly this recipe that reached the target; where a length is given, the one of it."""
    assert state.target is not None
    if state.question.within is not None:
        whole = state.lengths.whole.get((batch_size, lr))
        return whole.run if whole else None
    if (found := horizon_of(state, batch_size, lr)) is not None:
        return found
    recipe = (batch_size, lr, schedule_members(state.question, batch_size, state.most_steps(batch_size))["schedule"])
    for run in reversed(state.finished):
        same = (run.config.batch_size, run.config.lr, run.config.schedule) == recipe
        counts = (batch_size, lr) in state.reached and steps_to_target(run.rows, state.target) is not None
        if same and counts and not has_diverged(run):
            return run
    return None


def verified_by(state: SearchState, batch_size: int, lr: float) -> Verified | None:
    """What the last run made at exactly this recipe showed, if one reached the target.

    Where a length is given, the value at which a run of that length ended, and its steps. Where the evaluations of the
    runs were not recorded, the mean over all runs at this recipe.
    """
    found = _made_at(state, batch_size, lr)
    if found is None or state.question.within is not None:
        return found
    return replace(found, times_the_law=_times_the_law(state, batch_size, lr, found.steps))


def _made_at(state: SearchState, batch_size: int, lr: float) -> Verified | None:
    if state.target is None:
        return None
    if not state.recorded.evaluations:
        taken = state.reached.get((batch_size, lr))
        return _verified(state, batch_size, sum(taken) / len(taken), state.target.value) if taken else None
    run = run_at(state, batch_size, lr)
    if run is None or run.result is None:
        return None
    if state.question.within is not None:
        whole = state.lengths.whole[batch_size, lr]
        steps, value = float(whole.steps), whole.last
    else:
        steps = steps_to_target(run.rows, state.target)
        _, value = up_to_target(curve_of(run.rows, state.target), state.target)[-1]
    assert steps is not None
    shown = replace(_verified(state, batch_size, steps, value), ends_at=level_at_end(run.rows, state.target.judged_by))
    return replace(shown, time_s=seconds_at(run.rows, steps)) if state.bench_counts else shown


def _verified(state: SearchState, batch_size: int, steps: float, metric: float) -> Verified:
    seconds = steps * state.seconds_of(batch_size) if state.recorded.step_times else None
    return Verified(steps=steps, time_s=seconds, metric=metric)


def disagreement(state: SearchState, batch_size: int, lr: float) -> str:
    """Remark on a run at exactly this recipe whose own clock and the measured step time do not go together, or empty.

    They do where their 90 % intervals meet: that of the measured step time, and that of the run's mean step from how
    much its pace varies from one evaluation to the next. It says which of the two the plan counts with.
    """
    verified, run = verified_by(state, batch_size, lr), None
    if state.target is not None and state.bench_counts and state.recorded.evaluations:
        run = run_at(state, batch_size, lr)
    if verified is None or run is None or not verified.time_s or not verified.steps:
        return ""
    step_time = state.measured_step_time
    told = verified.steps * step_time.of_batch(batch_size)
    spread = step_time.spread_of_batch(batch_size) + spread_of_clock(run.rows, verified.steps)
    if abs(math.log(verified.time_s / told)) <= NORMAL_90 * spread:
        return ""
    noise = " (the gradient noise was measured along it)" if any(row["kind"] == "noise" for row in run.rows) else ""
    return (
        f"the run at this recipe took {duration(verified.time_s)} for {plural(verified.steps, 'step')} by its own "
        f"clock{noise}. By the step times measured before, it takes {duration(told)}{_counted(state, run)}"
    )


def _counted(state: SearchState, run: StoredRun) -> str:
    """Sentence on what the plan counts with, where a run's own clock and the measured step time differ."""
    size, clock = run.config.batch_size, clock_of_run(run, state.measured_step_time)
    step, factor = f"{duration(state.seconds_of(size))} a step", state.step_time.factor_in_training(size)
    if clock is not None and clock.busy:
        had = "" if clock.processors is None else f" with {clock.processors:.2g} of a processor"
        seen = f"its steps took {clock.delay:.2g} times their 20th percentile on average{had}"
        return f". The machine was busy while it trained ({seen}), so the plan counts with the time before, {step}"
    if state.bench.disturbance and factor <= 1:
        return f". The machine was busy while steps were timed, so the plan counts with {step}"
    return f". The plan counts with the run's, {step}" if factor != 1 else ""


def predicted_at(state: SearchState, batch_size: int, lr: float) -> Predicted:
    """Steps, time, examples and memory of one training, each with the interval in which 90 % of trainings fall."""
    if state.question.within is not None:
        return _of_length(state, batch_size)
    steps, n, law = _steps(state, batch_size, lr), len(state.observations), state.law.name
    examples = _of_draws(steps * batch_size, n, "examples", f"steps to target times batch size; {law}")
    step_time, time_to_target = _times(state, batch_size, lr)
    return Predicted(
        steps_to_target=_steps_to_target(state, batch_size, lr),
        step_time_s=step_time,
        time_to_target_s=time_to_target,
        examples_to_target=examples,
        peak_memory_bytes=_memory(state, batch_size),
    )


def _of_length(state: SearchState, batch_size: int) -> Predicted:
    """What a training of the given length takes, whatever value it ends at."""
    steps, step_time = state.most_steps(batch_size) or 1, _step_time(state, batch_size)

    def scaled(factor: float, each: Estimate, unit: str, method: str) -> Estimate:
        value, low, high = (None if end is None else factor * end for end in (each.value, each.low, each.high))
        return replace(each, value=value, low=low, high=high, unit=unit, method=method)

    one = Estimate(value=1, low=1, high=1, n=len(state.finished), unit="", method="")
    return Predicted(
        steps_to_target=scaled(steps, one, "steps", "the length that was asked for"),
        step_time_s=step_time,
        time_to_target_s=scaled(steps, step_time, "s", "steps of the length that was asked for, times step time"),
        examples_to_target=scaled(steps * batch_size, one, "examples", "steps of the length, times batch size"),
        peak_memory_bytes=_memory(state, batch_size),
    )


def _steps_to_target(state: SearchState, batch_size: int, lr: float) -> Estimate:
    method = f"{state.law.name}; the spread over seeds and the law's misfit included"
    return _of_draws(_steps(state, batch_size, lr), len(state.observations), "steps", method)


def _times(state: SearchState, batch_size: int, lr: float) -> tuple[Estimate, Estimate]:
    """Step time and time to target, in seconds."""
    step_time = _step_time(state, batch_size)
    if not state.recorded.step_times:
        return step_time, step_time
    spread = state.step_time_spread(batch_size)
    seconds = state.seconds_of(batch_size) * _steps(state, batch_size, lr, further_spread=spread)
    method = f"steps to target times step time; {state.law.name}"
    return step_time, _of_draws(seconds, len(state.observations), "s", method)


def _step_time(state: SearchState, batch_size: int) -> Estimate:
    """Seconds of a step, not measured where a table has none."""
    if not state.recorded.step_times:
        return replace(NOT_MEASURED, unit="s", method="the table has no step times")
    step, spread = state.seconds_of(batch_size), state.step_time_spread(batch_size)
    return Estimate(
        value=step,
        low=step * math.exp(-NORMAL_90 * spread),
        high=step * math.exp(NORMAL_90 * spread),
        n=len(state.bench.profile.step_time_s),
        unit="s",
        method="interpolated between measured step times; 90 % interval from their spread about the fitted line"
        if not state.clock.factors
        else "measured step times, corrected by the runs' own clocks; 90 % interval from the spread of both",
    )


def _steps(state: SearchState, batch_size: int, lr: float, further_spread: float = 0.0) -> Array:
    """Steps of one training: each draw of the posterior at the quantiles of the spread over seeds and the misfit."""
    misfit = misfit_at(state, batch_size, lr)
    log_steps = _log_steps(state, batch_size, lr, math.hypot(misfit, further_spread))
    if steps := _steps_of_run(state, batch_size, lr):
        log_steps += math.log(steps) - float(np.median(log_steps))
    return np.exp(np.minimum(log_steps, _MOST_LOG_STEPS)).ravel()


def _steps_of_run(state: SearchState, batch_size: int, lr: float) -> float | None:
    """Steps of the run at a recipe that the prediction is moved to: of a whole schedule, or against the law."""
    horizon = horizon_of(state, batch_size, lr)
    if horizon is not None:
        return horizon.result.steps_to_target if horizon.result is not None else None
    verified = verified_by(state, batch_size, lr)
    return verified.steps if verified and verified.times_the_law else None


def _log_steps(state: SearchState, batch_size: int, lr: float, further_spread: float) -> Array:
    """What the law says of the logarithm of the steps, with its spread over seeds and a further one."""
    posterior = state.posterior
    spread = np.hypot(posterior.spread(batch_size, lr), further_spread)
    return posterior.log_steps(batch_size, lr)[:, None] + spread[:, None] * NORMAL_QUANTILES


def beyond_law(state: SearchState, batch_size: int, lr: float) -> float:
    """Logarithm of `Verified.times_the_law`; 0 where the run at exactly this recipe agrees with the law, or none is.

    What is predicted is then the run's, and what the law misses so much that its median is inside the interval.
    """
    verified = verified_by(state, batch_size, lr)
    return math.log(verified.times_the_law) if verified and verified.times_the_law else 0.0


def _times_the_law(state: SearchState, batch_size: int, lr: float, steps: float) -> float | None:
    """Steps of a run ÷ the median of the law, where they are outside of its 90 % interval."""
    if horizon_of(state, batch_size, lr) is not None or steps <= 0:
        return None
    low, median, high = low_median_high(_log_steps(state, batch_size, lr, state.law.misfit))
    return None if low <= math.log(steps) <= high else steps / math.exp(median)


def misfit_at(state: SearchState, batch_size: int, lr: float) -> float:
    """Standard deviation, in log steps, of what the law misses at a recipe: at least what the run at it shows."""
    return max(state.law.misfit, abs(beyond_law(state, batch_size, lr)) / NORMAL_90)


def _memory(state: SearchState, batch_size: int) -> Estimate:
    points = state.bench.profile.peak_memory_bytes
    if not points:
        return replace(NOT_MEASURED, unit="bytes", method="the profile has no memory table")
    micro, _ = accumulation(batch_size, state.bench.largest_micro_batch_size)
    model = fit_memory([(size, peak) for size, peak in points])
    peak = model.peak_bytes(micro)
    return Estimate(
        value=peak,
        low=0.95 * peak,
        high=max(1.05 * peak, model.cautious_bytes(micro)),
        n=len(points),
        unit="bytes",
        method="base + activations per example, fitted to measured peaks; at least 5 % either way",
    )


def _of_draws(values: Array, n: int, unit: str, method: str) -> Estimate:
    return credible_interval(values, n=n, unit=unit, method=method, below=_NEVER)


def lr_is_too_high(state: SearchState, batch_size: int, lr: float) -> bool:
    """Whether a learning rate is more probably than not beyond what can work at its batch size."""
    posterior = state.posterior
    beyond = posterior.log_steps(batch_size, lr) - posterior.log_best_steps(batch_size) >= math.log(_HOPELESS)
    return float((beyond & (math.log(lr) > posterior.log_best_lr(batch_size))).mean()) > 0.5


def curves_of(state: SearchState) -> Curves:
    """Time, steps, examples and learning rate against batch size, each at the best learning rate, with 90 % bands.

    A batch size is left out beyond a factor of 8 from those that were run, and where its steps are hardly known
    (`state.drawn_within`); a curve where what it would show was not measured.
    """
    sizes = np.array(state.batch_sizes)
    run = [size for size, _ in state.tried] or list(state.batch_sizes)
    steps = np.exp(state.posterior.log_best_steps(sizes))
    seconds = np.array([state.seconds_of(int(b)) for b in sizes])
    drawn = (sizes >= min(run) / _DRAWN_AROUND) & (sizes <= max(run) * _DRAWN_AROUND)
    if state.drawn_within is not None:
        typical, high = np.quantile(steps * sizes, (0.5, 0.95), axis=0)
        drawn &= (high < state.drawn_within * typical) & (state.drawn_within * typical < _NEVER)

    def curve(values: Array, shown: bool = True) -> Curve:
        keep = drawn if shown else np.zeros_like(drawn)
        low, value, high = low_median_high(values, axis=0)
        return Curve(
            batch_size=tuple(int(b) for b in sizes[keep]),
            value=tuple(float(v) for v in value[keep]),
            low=tuple(float(v) for v in low[keep]),
            high=tuple(float(v) for v in high[keep]),
        )

    return Curves(
        time_to_target_s=curve(steps * seconds, state.recorded.step_times),
        steps_to_target=curve(steps),
        examples_to_target=curve(steps * sizes),
        lr=curve(np.exp(state.posterior.log_best_lr(sizes)), state.recorded.lrs),
    )
