"""From findings to a recommendation, with its reasons. Numbers only, no torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..store.records import EasierTarget, Estimate, Measured, Plan, PlanStatus, Predicted, SearchCost, Target
from .alternatives import alternatives_to
from .follow import NAMES
from .reasons import evidence_of
from .recipe import (
    NORMAL_QUANTILES,
    NOT_MEASURED,
    curves_of,
    predicted_at,
    probability_within_5_percent,
    rate_is_too_high,
    recipe_of,
    verified_by,
)
from .state import Findings

__all__ = ["build_plan", "clear_gain", "without_recipe"]

Array = NDArray[np.float64]

_CLEAR_GAIN = 1.05
_EXTRAPOLATED = 2.0


def build_plan(findings: Findings) -> Plan:
    """The answer that follows from the findings; a refusal is a plan without a recipe."""
    if findings.target is None or not findings.reached:
        return _refusal(findings)
    decision = findings.decision
    chosen, probability = (decision.batch_size, decision.lr), decision.probability_within_5_percent
    current = findings.question.current
    status, message = _status(findings, *chosen)
    if current is not None:
        gain = clear_gain(findings)
        if gain[0] < _CLEAR_GAIN:
            same = (current.batch_size, current.lr) == chosen
            chosen, status = (current.batch_size, current.lr), PlanStatus.KEEP_CURRENT
            probability = probability_within_5_percent(findings, *chosen)
            why = "nothing better was found" if same else f"{_gain_in_words(findings, gain)}: no clear gain of 5 %"
            message = f"keep the current recipe: {why}"
        else:
            message = f"{message}; {_gain_in_words(findings, gain)}"
    within, verified = findings.question.within, verified_by(findings, *chosen)
    if within is not None:
        value = verified.metric if verified else findings.target.value
        message = f"{message}; {findings.target.metric} {value:.4g} within {within}"
    elif findings.question.target is None:
        message = f"{message}; no target was given, so {findings.target} was chosen from what first runs could reach"
    predicted = predicted_at(findings, *chosen)
    recipe, seconds = recipe_of(findings, *chosen), predicted.time_to_target_s.value
    if within is not None:
        seconds = recipe.steps * findings.seconds_of(recipe.batch_size)
    return replace(
        without_recipe(findings, status, message),
        recipe=recipe,
        probability_within_5_percent=probability if within is None else None,
        predicted=predicted,
        verified=verified,
        alternatives=alternatives_to(findings, *chosen) if within is None else (),
        search=_cost(findings, seconds),
        current=recipe_of(findings, current.batch_size, current.lr) if current else None,
        current_predicted=_current_predicted(findings),
        curves=curves_of(findings),
        easier_targets=tuple(_easier(findings, target) for target in findings.question.easier_targets),
    )


def _easier(findings: Findings, target: Target) -> EasierTarget:
    """The recipe for a target that is passed on the way, at a constant rate; none where no run passed it."""
    milestone = findings.milestone
    beyond = milestone is not None and target.met_by(milestone.value)
    at_constant_rate = tuple(run for run in findings.runs if run.config.purpose != "horizon")
    seen = replace(
        findings,
        target=target,
        milestone=None if beyond else milestone,
        runs=at_constant_rate,
        question=replace(findings.question, schedule="constant"),
    )
    if not seen.reached:
        return EasierTarget(target=target, recipe=None, predicted=None)
    chosen = seen.decision.batch_size, seen.decision.lr
    return EasierTarget(target=target, recipe=recipe_of(seen, *chosen), predicted=predicted_at(seen, *chosen))


def clear_gain(findings: Findings) -> tuple[float, float, float]:
    """Cost of the current recipe ÷ cost of the decision: low end, median and high end of the 90 % interval.

    What the law misses is part of it, once: both recipes were run, and share what it misses in common.
    """
    current, decision = findings.question.current, findings.decision
    assert current is not None
    cost = findings.choices().step_cost
    ratio = (
        findings.belief.log_steps(current.batch_size, current.lr)
        - findings.belief.log_steps(decision.batch_size, decision.lr)
        + math.log(cost(current.batch_size) / cost(decision.batch_size))
    )
    same = (current.batch_size, current.lr) == (decision.batch_size, decision.lr)
    spread = np.zeros(1) if same else findings.misfit * NORMAL_QUANTILES
    low, value, high = np.exp(np.quantile(np.minimum(ratio[:, None] + spread, 10.0), (0.05, 0.5, 0.95)))
    return float(low), float(value), float(high)


def _current_predicted(findings: Findings) -> Predicted | None:
    current = findings.question.current
    if current is None or rate_is_too_high(findings, current.batch_size, current.lr):
        return None
    return predicted_at(findings, current.batch_size, current.lr)


def _gain_in_words(findings: Findings, gain: tuple[float, float, float]) -> str:
    low, value, high = gain
    current = findings.question.current
    if current is not None and rate_is_too_high(findings, current.batch_size, current.lr):
        return f"the current rate {current.lr:.3g} is too high for batch size {current.batch_size} to reach the target"
    unit = "as many examples" if findings.question.counts_examples else "as long"
    so_far = " to get as far" if findings.question.within is not None else ""
    times = f"{value:.2f} times ({low:.2f} to {high:.2f}, 90 %)"
    return f"the current recipe takes {times} {unit} as the best one found{so_far}"


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
    if findings.question.within is not None:
        return PlanStatus.OK, "the best recipe found"
    fewest = findings.question.counts_examples
    if findings.question.search != "anchors":
        least = "the fewest examples" if fewest else "the fastest"
        return PlanStatus.OK, f"{least} of {len(findings.finished)} runs chosen by {NAMES[findings.question.search]}"
    return PlanStatus.OK, "the recipe with the fewest examples" if fewest else "the fastest recipe found"


def _unbounded_best(findings: Findings) -> int:
    """The batch size that would be chosen if every micro-batch fitted."""
    return findings.decide(cost=findings.step_time.seconds).batch_size


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
        critical_batch_size=findings.belief.critical_batch_size() if fitted else replace(NOT_MEASURED, unit="examples"),
        gradient_noise_scale=findings.noise_scale,
        knee_exponent=findings.belief.knee_exponent() if fitted else NOT_MEASURED,
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


def without_recipe(findings: Findings, status: PlanStatus, message: str) -> Plan:
    """A plan that says what is known, and recommends nothing."""
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
        notes=findings.notes,
        examples_in_training_set=findings.examples,
        within=str(findings.question.within) if findings.question.within else None,
    )


def _refusal(findings: Findings) -> Plan:
    if findings.target is None:
        runs = [r for r in findings.finished if r.result]
        seen = (
            "; ".join(f"{r.id}: {r.result.message} after {r.result.steps} steps" for r in runs if r.result)
            or "no run was finished"
        )
        return without_recipe(
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
    return without_recipe(
        findings,
        PlanStatus.TARGET_NOT_REACHED,
        f"no run reached {target} within the budget: {seen}{how}; set a target within reach, or a longer --budget",
    )
