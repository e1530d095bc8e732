"""From findings to a recommendation, with its reasons. Numbers only, no torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .belief import first_passage
from .evidence import evidence_of
from .findings import Findings
from .fits.memory import fit_memory
from .fits.step_time import accumulation
from .records import (
    Alternative,
    Curve,
    Curves,
    EarlyStop,
    Estimate,
    Measured,
    Plan,
    PlanStatus,
    Predicted,
    Recipe,
    RunStatus,
    SearchCost,
    Verified,
)
from .search.anchors import decide
from .store import StoredRun

__all__ = ["build_plan", "clear_gain"]

Array = NDArray[np.float64]

_CLEAR_GAIN = 1.05
_EXTRAPOLATED = 2.0
_90 = 1.645
_LAW = "joint law of steps against batch size and rate, fitted to the runs"
_OPEN = Estimate(value=None, low=None, high=None, n=0, unit="", method="not measured")


def build_plan(findings: Findings) -> Plan:
    """The answer that follows from the findings; a refusal is a plan without a recipe."""
    if findings.target is None or not findings.reached:
        return _refusal(findings)
    decision = findings.decision
    chosen, probability = (decision.batch_size, decision.lr), decision.probability_within_5_percent
    current = findings.question.current
    status, message = _status(findings, *chosen)
    if current is not None:
        low, value, high = clear_gain(findings)
        gain = f"{value:.2f} times ({low:.2f} to {high:.2f}, 90 %)"
        if low < _CLEAR_GAIN:
            chosen, status = (current.batch_size, current.lr), PlanStatus.KEEP_CURRENT
            probability = _probability_within(findings, *chosen)
            message = (
                f"keep the current recipe: the best alternative would be {gain} as fast, which is no clear gain of 5 %"
            )
        else:
            message = f"{message}; {gain} as fast as the current recipe"
    predicted = _predicted(findings, *chosen)
    verified = _verified(findings, *chosen)
    steps = verified.steps if verified else predicted.steps_to_target.value or 0.0
    seconds = predicted.time_to_target_s.value
    return replace(
        _frame(findings, status, message),
        recipe=_recipe(findings, *chosen, steps),
        probability_within_5_percent=probability,
        predicted=predicted,
        verified=verified,
        alternatives=_alternatives(findings, *chosen),
        search=_cost(findings, seconds),
        current=_recipe(findings, current.batch_size, current.lr, None) if current else None,
        current_predicted=_predicted(findings, current.batch_size, current.lr) if current else None,
        curves=_curves(findings),
    )


def clear_gain(findings: Findings) -> tuple[float, float, float]:
    """Cost of the current recipe ÷ cost of the decision: low end, median and high end of the 90 % interval."""
    current, decision = findings.question.current, findings.decision
    assert current is not None
    cost = findings.choices().step_cost
    ratio = (
        findings.belief.log_steps(current.batch_size, current.lr)
        - findings.belief.log_steps(decision.batch_size, decision.lr)
        + math.log(cost(current.batch_size) / cost(decision.batch_size))
    )
    low, value, high = np.exp(np.quantile(np.minimum(ratio, 10.0), (0.05, 0.5, 0.95)))
    return float(low), float(value), float(high)


def _status(findings: Findings, batch_size: int, lr: float) -> tuple[PlanStatus, str]:
    largest_run = max(b for b, _ in findings.tried)
    if batch_size > _EXTRAPOLATED * largest_run:
        return (
            PlanStatus.EXTRAPOLATED,
            f"batch size {batch_size} is {batch_size / largest_run:.1f} times the largest that was run: "
            "check it before you rely on it",
        )
    free = _unbounded_best(findings)
    if findings.bench.memory_bound and free > findings.bench.largest_micro_batch_size >= batch_size:
        return (
            PlanStatus.MEMORY_BOUND,
            f"memory sets the batch size: {free} would be faster if more than "
            f"{findings.bench.largest_micro_batch_size} fitted",
        )
    return (
        PlanStatus.OK,
        "the fastest recipe found" if findings.question.objective == "time" else "the recipe with the fewest examples",
    )


def _unbounded_best(findings: Findings) -> int:
    """The batch size that would be chosen if every micro-batch fitted."""
    return decide(findings.belief, findings.choices(cost=findings.step_time.seconds)).batch_size


def _probability_within(findings: Findings, batch_size: int, lr: float) -> float:
    cost = findings.choices().step_cost
    sizes = np.array(findings.batch_sizes)
    best = (findings.belief.log_best_steps(sizes) + np.log([cost(int(b)) for b in sizes])).min(axis=1)
    own = findings.belief.log_steps(batch_size, lr) + math.log(cost(batch_size))
    return float((own - best <= math.log(1.05)).mean())


def _recipe(findings: Findings, batch_size: int, lr: float, steps: float | None) -> Recipe:
    micro, parts = accumulation(batch_size, findings.bench.largest_micro_batch_size)
    if steps is None:
        steps = float(np.median(np.exp(findings.belief.log_steps(batch_size, lr))))
    runs = [r for r in findings.finished if r.config.batch_size == batch_size] or list(findings.finished)
    horizon = _horizon(findings)
    return Recipe(
        batch_size=batch_size,
        micro_batch_size=micro,
        grad_accum_steps=parts,
        world_size=1,
        lr=lr,
        schedule=findings.question.schedule,
        warmup_steps=0,
        optimizer_changes={},
        steps=math.ceil(horizon.config.max_steps if horizon else steps),
        steps_per_epoch=math.ceil(findings.examples / batch_size),
        epochs=steps * batch_size / findings.examples,
        early_stop=EarlyStop(best_epoch=steps * batch_size / findings.examples, patience=_patience(findings, runs)),
    )


def _patience(findings: Findings, runs: list[StoredRun]) -> float:
    """Twice the longest wait between two improvements before the target, in epochs of the run's own batch size."""
    assert findings.target is not None
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
    return max(2.0 * longest, 1.0)


def _horizon(findings: Findings) -> StoredRun | None:
    """The shortest decaying run that reached the target, where the schedule decays."""
    made = [
        r
        for r in findings.finished
        if r.config.purpose == "horizon" and r.result and r.result.status is RunStatus.REACHED
    ]
    return min(made, key=lambda r: r.result.steps_to_target or math.inf if r.result else math.inf, default=None)


def _verified(findings: Findings, batch_size: int, lr: float) -> Verified | None:
    assert findings.target is not None
    for run in reversed(findings.finished):
        same = (run.config.batch_size, run.config.lr, run.config.schedule) == (
            batch_size,
            lr,
            findings.question.schedule,
        )
        if not same or (batch_size, lr) not in findings.reached or run.result is None:
            continue
        steps = _passage(findings, run)
        if steps is not None:
            metric = run.result.last.get(findings.target.metric, findings.target.value)
            return Verified(steps=steps, time_s=steps * findings.seconds_of(batch_size), metric=metric)
    return None


def _passage(findings: Findings, run: StoredRun) -> float | None:
    assert findings.target is not None
    return first_passage(run.rows, findings.target)


def _predicted(findings: Findings, batch_size: int, lr: float) -> Predicted:
    rng = np.random.default_rng(findings.question.seed)
    belief, n = findings.belief, len(findings.observations)
    log_steps = belief.log_steps(batch_size, lr) + belief.spread(batch_size, lr) * rng.standard_normal(
        len(belief.draws)
    )
    steps = np.exp(np.minimum(log_steps, 50.0))
    step, spread = findings.seconds_of(batch_size), findings.step_time.relative_spread
    readings = len(findings.bench.profile.step_time_s)
    times = steps * step * np.exp(spread * rng.standard_normal(len(steps)))
    return Predicted(
        steps_to_target=_of_draws(steps, n, "steps", f"{_LAW}; the spread over seeds included"),
        step_time_s=Estimate(
            value=step,
            low=step * math.exp(-_90 * spread),
            high=step * math.exp(_90 * spread),
            n=readings,
            unit="s",
            method="interpolated between measured step times; interval from their spread about the fitted line",
        ),
        time_to_target_s=_of_draws(times, n, "s", f"steps to target times step time; {_LAW}"),
        examples_to_target=_of_draws(steps * batch_size, n, "examples", f"steps to target times batch size; {_LAW}"),
        peak_memory_bytes=_memory(findings, batch_size),
    )


def _memory(findings: Findings, batch_size: int) -> Estimate:
    points = findings.bench.profile.peak_memory_bytes
    if not points:
        return replace(_OPEN, unit="bytes", method="the profile has no memory table")
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
    low, value, high = np.quantile(values, (0.05, 0.5, 0.95))
    return Estimate(value=float(value), low=float(low), high=float(high), n=n, unit=unit, method=method)


def _alternatives(findings: Findings, batch_size: int, lr: float) -> tuple[Alternative, ...]:
    found: list[Alternative] = []

    def add(why: str, size: int, rate: float) -> None:
        known = {(batch_size, lr), *((a.recipe.batch_size, a.recipe.lr) for a in found)}
        if (size, rate) not in known:
            found.append(
                Alternative(
                    why=why, recipe=_recipe(findings, size, rate, None), predicted=_predicted(findings, size, rate)
                )
            )

    tried = list(findings.reached)
    if findings.question.objective == "time":
        few = decide(findings.belief, findings.choices(cost=float), tried)
        add("fewest examples, for when computing is paid by the example", few.batch_size, few.lr)
    else:
        fast = decide(findings.belief, findings.choices(cost=findings.seconds_of), tried)
        add("least time, whatever the number of examples", fast.batch_size, fast.lr)
    small = _least_memory(findings, batch_size)
    if small is not None:
        add(
            "least memory at no more than 1.5 times the time",
            small,
            decide(findings.belief, findings.choices((small,)), tried).lr,
        )
    large = _largest_without_loss(findings)
    if large is not None and large > batch_size:
        why = "largest batch that still reaches the same target at no more than twice the fewest examples"
        add(why, large, decide(findings.belief, findings.choices((large,)), tried).lr)
    return tuple(found)


def _least_memory(findings: Findings, batch_size: int) -> int | None:
    best = np.exp(np.median(findings.belief.log_best_steps(np.array(findings.batch_sizes)), axis=0))
    times = [steps * findings.seconds_of(size) for steps, size in zip(best, findings.batch_sizes, strict=True)]
    own = times[findings.batch_sizes.index(batch_size)] if batch_size in findings.batch_sizes else min(times)
    smaller = [s for s, t in zip(findings.batch_sizes, times, strict=True) if s < batch_size and t <= 1.5 * own]
    return min(smaller, default=None)


def _largest_without_loss(findings: Findings) -> int | None:
    """Up to the critical batch size and to twice the largest batch that reached the target."""
    critical = findings.belief.critical_batch_size().value or 0.0
    limit = min(critical, _EXTRAPOLATED * max(b for b, _ in findings.reached))
    return max((b for b in findings.batch_sizes if b <= limit), default=None)


def _curves(findings: Findings) -> Curves:
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


def _cost(findings: Findings, seconds: float | None) -> SearchCost:
    spent = findings.device_seconds()
    return SearchCost(
        seconds=findings.seconds,
        device_seconds=spent,
        examples=findings.examples_seen(),
        runs=len(findings.runs),
        run_equivalents=spent / seconds if seconds else None,
    )


def _measured(findings: Findings) -> Measured:
    fitted = findings.target is not None and bool(findings.reached)
    largest = findings.bench.largest_micro_batch_size
    return Measured(
        critical_batch_size=findings.belief.critical_batch_size() if fitted else replace(_OPEN, unit="examples"),
        gradient_noise_scale=findings.noise_scale,
        knee_exponent=findings.belief.knee_exponent() if fitted else _OPEN,
        hardware_knee=findings.step_time.hardware_knee,
        largest_micro_batch_size=Estimate(
            value=largest,
            low=largest,
            high=None if not findings.bench.memory_bound else largest,
            n=len(findings.bench.readings),
            unit="examples",
            method="one real step was run at this size"
            if findings.bench.largest_verified
            else "predicted from smaller steps, not run",
        ),
    )


def _frame(findings: Findings, status: PlanStatus, message: str) -> Plan:
    return Plan(
        task=findings.task,
        objective=findings.question.objective,
        target=findings.target,
        status=status,
        message=message,
        recipe=None,
        probability_within_5_percent=None,
        predicted=None,
        measured=_measured(findings),
        verified=None,
        alternatives=(),
        search=_cost(findings, None),
        evidence=evidence_of(findings),
        environment=findings.environment,
        bench=findings.bench,
        notes=(*findings.notes, *findings.bench.notes),
        examples_in_training_set=findings.examples,
    )


def _refusal(findings: Findings) -> Plan:
    if findings.target is None:
        runs = [r for r in findings.finished if r.result]
        seen = (
            "; ".join(f"{r.id}: {r.result.message} after {r.result.steps} steps" for r in runs if r.result)
            or "no run was finished"
        )
        return _frame(
            findings,
            PlanStatus.INSUFFICIENT_DATA,
            f"no target could be chosen: {seen}; give --target, or a longer --budget",
        )
    target, closest = findings.target, findings.closest
    seen = "no run was finished"
    if closest is not None:
        value, run = closest
        seen = (
            f"the closest was {target.metric} {value:.4g} with batch size {run.config.batch_size} "
            f"and rate {run.config.lr:.3g} after {run.result.best_step if run.result else 0} steps"
        )
    ends = sorted({r.result.message for r in findings.finished if r.result})
    how = f" ({'; '.join(ends)})" if ends else ""
    return _frame(
        findings,
        PlanStatus.TARGET_NOT_REACHED,
        f"no run reached {target} within the budget: {seen}{how}; set a target within reach, or a longer --budget",
    )
