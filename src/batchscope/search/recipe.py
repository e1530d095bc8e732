"""What a recipe is, in full, and what training at it is expected to take. Numbers only, no torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ..fits.curves import steps_to_target
from ..fits.memory import fit_memory
from ..fits.step_time import accumulation
from ..store.records import Curve, Curves, EarlyStop, Estimate, Predicted, Recipe, RunStatus, Verified
from ..store.runs import StoredRun
from .state import Findings

__all__ = [
    "NORMAL_QUANTILES",
    "NOT_MEASURED",
    "curves_of",
    "predicted_at",
    "probability_within_5_percent",
    "rate_is_too_high",
    "recipe_of",
    "run_at",
    "verified_by",
]

Array = NDArray[np.float64]

NOT_MEASURED = Estimate(value=None, low=None, high=None, n=0, unit="", method="not measured")

_90 = 1.645
NORMAL_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
_HOPELESS = 50.0
"""Times the steps at the best rate from which a rate above it is beyond what can work."""
_MOST_LOG_STEPS = 50.0
_NEVER = 1e15
"""Steps, seconds and examples from here on stand for a training that does not get there; such an end is left open."""


def recipe_of(findings: Findings, batch_size: int, lr: float) -> Recipe:
    """Everything to set in a training script, for as many steps as are expected."""
    micro, parts = accumulation(batch_size, findings.bench.largest_micro_batch_size)
    horizon = _horizon(findings, batch_size, lr)
    steps = horizon.config.max_steps if horizon else float(np.median(_steps(findings, batch_size, lr)))
    steps = findings.most_steps(batch_size) or steps
    epochs = steps * batch_size / findings.examples
    return Recipe(
        batch_size=batch_size,
        micro_batch_size=micro,
        grad_accum_steps=parts,
        world_size=1,
        lr=lr,
        schedule=findings.question.schedule,
        warmup_steps=0,
        optimizer_changes={},
        steps=math.ceil(steps),
        steps_per_epoch=math.ceil(findings.examples / batch_size),
        epochs=epochs,
        early_stop=EarlyStop(best_epoch=epochs, patience=min(_patience(findings, batch_size), epochs)),
    )


def _patience(findings: Findings, batch_size: int) -> float:
    """Twice the longest wait between two improvements before the target, in epochs, in runs at this batch size."""
    assert findings.target is not None
    runs = [r for r in findings.finished if r.config.batch_size == batch_size] or list(findings.finished)
    longest = 0.0
    for run in runs:
        best: float | None = None
        since = 0
        for row in run.rows:
            value = row["metrics"].get(findings.target.metric) if row["kind"] == "evaluation" else None
            if value is None:
                continue
            if best is None or (value < best if findings.target.mode == "min" else value > best):
                longest = max(longest, (row["step"] - since) * run.config.batch_size / findings.examples)
                best, since = value, row["step"]
            if findings.target.met_by(value):
                break
    return 2.0 * longest or 1.0


def _horizon(findings: Findings, batch_size: int, lr: float) -> StoredRun | None:
    """The run with a decaying rate that reached the target soonest, where the schedule decays."""
    made = [
        (run.result.steps_to_target, run)
        for run in findings.finished
        if run.config.purpose == "horizon"
        and (run.config.batch_size, run.config.lr) == (batch_size, lr)
        and run.result is not None
        and run.result.steps_to_target is not None
    ]
    return min(made, key=lambda pair: pair[0])[1] if made else None


def run_at(findings: Findings, batch_size: int, lr: float) -> StoredRun | None:
    """The last run made at exactly this recipe that reached the target; where a length is given, the last in full."""
    assert findings.target is not None
    recipe = (batch_size, lr, findings.question.schedule)
    for run in reversed(findings.finished):
        same = (run.config.batch_size, run.config.lr, run.config.schedule) == recipe
        if findings.question.within is not None:
            counts = run.result is not None and run.result.status is not RunStatus.PAUSED
        else:
            counts = (batch_size, lr) in findings.reached and steps_to_target(run.rows, findings.target) is not None
        if same and counts:
            return run
    return None


def verified_by(findings: Findings, batch_size: int, lr: float) -> Verified | None:
    """What the last run made at exactly this recipe showed, if one reached the target.

    Where a length is given, the best value of a run of that length, and the steps to it.
    """
    run = run_at(findings, batch_size, lr)
    if run is None or run.result is None or findings.target is None:
        return None
    steps, seen = steps_to_target(run.rows, findings.target), run.result.last
    if findings.question.within is not None:
        steps, seen = float(run.result.best_step), run.result.best
    assert steps is not None
    metric = seen.get(findings.target.metric, findings.target.value)
    return Verified(steps=steps, time_s=steps * findings.seconds_of(batch_size), metric=metric)


def predicted_at(findings: Findings, batch_size: int, lr: float) -> Predicted:
    """Steps, time, examples and memory of one training, each with the interval in which 90 % of trainings fall."""
    steps, n = _steps(findings, batch_size, lr), len(findings.observations)
    step, step_spread = findings.seconds_of(batch_size), findings.step_time_spread(batch_size)
    times = step * _steps(findings, batch_size, lr, further_spread=step_spread)
    readings = len(findings.bench.profile.step_time_s)
    return Predicted(
        steps_to_target=_of_draws(
            steps, n, "steps", f"{findings.law}; the spread over seeds and the law's misfit included"
        ),
        step_time_s=Estimate(
            value=step,
            low=step * math.exp(-_90 * step_spread),
            high=step * math.exp(_90 * step_spread),
            n=readings,
            unit="s",
            method="interpolated between measured step times; interval from their spread about the fitted line",
        ),
        time_to_target_s=_of_draws(times, n, "s", f"steps to target times step time; {findings.law}"),
        examples_to_target=_of_draws(
            steps * batch_size, n, "examples", f"steps to target times batch size; {findings.law}"
        ),
        peak_memory_bytes=_memory(findings, batch_size),
    )


def _steps(findings: Findings, batch_size: int, lr: float, further_spread: float = 0.0) -> Array:
    """Steps of one training: each draw of the belief at the quantiles of the spread over seeds and the misfit."""
    belief = findings.belief
    spread = np.sqrt(belief.spread(batch_size, lr) ** 2 + findings.misfit**2 + further_spread**2)
    log_steps = belief.log_steps(batch_size, lr)[:, None] + spread[:, None] * NORMAL_QUANTILES
    horizon = _horizon(findings, batch_size, lr)
    if horizon is not None and horizon.result is not None and horizon.result.steps_to_target is not None:
        log_steps += math.log(horizon.result.steps_to_target) - float(np.median(log_steps))
    return np.exp(np.minimum(log_steps, _MOST_LOG_STEPS)).ravel()


def _memory(findings: Findings, batch_size: int) -> Estimate:
    points = findings.bench.profile.peak_memory_bytes
    if not points:
        return replace(NOT_MEASURED, unit="bytes", method="the profile has no memory table")
    micro, _ = accumulation(batch_size, findings.bench.largest_micro_batch_size)
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
    low, value, high = (float(v) if v < _NEVER else None for v in np.quantile(values, (0.05, 0.5, 0.95)))
    return Estimate(value=value, low=low, high=high, n=n, unit=unit, method=method)


def probability_within_5_percent(findings: Findings, batch_size: int, lr: float) -> float:
    """Share of the belief's draws in which a recipe costs at most 5 % more than the best one."""
    cost = findings.choices().step_cost
    sizes = np.array(findings.batch_sizes)
    best = (findings.belief.log_best_steps(sizes) + np.log([cost(int(b)) for b in sizes])).min(axis=1)
    own = findings.belief.log_steps(batch_size, lr) + math.log(cost(batch_size))
    return float((own - best <= math.log(1.05)).mean())


def rate_is_too_high(findings: Findings, batch_size: int, lr: float) -> bool:
    """Whether a rate is more probably than not beyond what can work at its batch size."""
    belief = findings.belief
    beyond = belief.log_steps(batch_size, lr) - belief.log_best_steps(batch_size) >= math.log(_HOPELESS)
    return float((beyond & (math.log(lr) > belief.log_best_lr(batch_size))).mean()) > 0.5


def curves_of(findings: Findings) -> Curves:
    """Time, steps, examples and rate against batch size, each at the best rate, with 90 % bands."""
    sizes = np.array(findings.batch_sizes)
    steps = np.exp(findings.belief.log_best_steps(sizes))
    seconds = np.array([findings.seconds_of(int(b)) for b in sizes])

    def curve(values: Array) -> Curve:
        low, value, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
        return Curve(
            batch_size=tuple(int(b) for b in sizes),
            value=tuple(float(v) for v in value),
            low=tuple(float(v) for v in low),
            high=tuple(float(v) for v in high),
        )

    return Curves(
        time_to_target_s=curve(steps * seconds),
        steps_to_target=curve(steps),
        examples_to_target=curve(steps * sizes),
        lr=curve(np.exp(findings.belief.log_best_lr(sizes))),
    )
