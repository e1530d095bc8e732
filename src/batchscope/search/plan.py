"""From the state of a search to a plan: recipe, status, message, alternatives. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..fits.posterior import low_median_high
from ..report.loading import waiting_in_words
from ..store.records import (
    Alternative,
    Bench,
    EasierTarget,
    Estimate,
    Measured,
    Plan,
    PlanStatus,
    Predicted,
    SearchCost,
    Target,
)
from .evaluation_spacing import dear_at, evaluations_at
from .follow import NAMES
from .reasons import evidence_of
from .recipe import (
    NORMAL_QUANTILES,
    NOT_MEASURED,
    curves_of,
    disagreement,
    lr_is_too_high,
    predicted_at,
    probability_within_5_percent,
    recipe_of,
    verified_by,
)
from .state import SearchState
from .strategies.space import Pair

__all__ = ["alternative", "build_plan", "clear_gain", "without_recipe"]

Array = NDArray[np.float64]

_CLEAR_GAIN = 1.05
_EXTRAPOLATED = 2.0
_LITTLE_COST = 1.5
_NEAR = 2.0
"""A batch size is taken to work up to this many times the largest that reached the target."""


def build_plan(state: SearchState) -> Plan:
    """The plan that follows from the state of a search, or of a table; a refusal is a plan without a recipe."""
    if state.target is None or not state.reached:
        return _refusal(state)
    decision = state.decision
    chosen, probability = (decision.batch_size, decision.lr), decision.probability_within_5_percent
    current = state.question.current
    status, message = _status(state, *chosen)
    if current is not None:
        gain = clear_gain(state)
        if gain[0] < _CLEAR_GAIN:
            same = (current.batch_size, current.lr) == chosen
            chosen, status = (current.batch_size, current.lr), PlanStatus.KEEP_CURRENT
            probability = probability_within_5_percent(state, *chosen)
            why = "nothing better was found" if same else f"{_gain_in_words(state, gain)}: no clear gain of 5 %"
            message = f"keep the current recipe: {why}"
        else:
            message = f"{message}; {_gain_in_words(state, gain)}"
    within, verified = state.question.within, verified_by(state, *chosen)
    if within is not None:
        value = verified.metric if verified else state.target.value
        message = f"{message}; {state.target.metric} {value:.4g} within {within}"
    elif state.question.target is None:
        message = f"{message}; no target was given, so {state.target} was chosen from what first runs could reach"
    if waiting := waiting_in_words(state.bench if state.recorded.step_times else None, chosen[0]):
        message = f"{waiting}; {message}"
    predicted = predicted_at(state, *chosen)
    recipe, seconds = recipe_of(state, *chosen), predicted.time_to_target_s.value
    if within is not None:
        seconds = recipe.steps * state.seconds_of(recipe.batch_size)
    return replace(
        without_recipe(state, status, message),
        recipe=recipe,
        probability_within_5_percent=probability if within is None else None,
        predicted=predicted,
        verified=verified,
        notes=(*_notes(state), *filter(None, [disagreement(state, *chosen), dear_at(state, *chosen)])),
        evaluations=evaluations_at(state, *chosen),
        alternatives=_alternatives(state, *chosen) if within is None and state.recorded.step_times else (),
        search=_cost(state, seconds),
        current=recipe_of(state, current.batch_size, current.lr) if current else None,
        current_predicted=_current_predicted(state),
        curves=curves_of(state),
        easier_targets=tuple(_easier(state, target) for target in state.question.easier_targets),
    )


def _easier(state: SearchState, target: Target) -> EasierTarget:
    """The recipe for a target that is passed on the way, at a constant learning rate; none where no run passed it."""
    milestone = state.milestone
    beyond = milestone is not None and target.met_by(milestone.value)
    at_constant_lr = tuple(run for run in state.runs if run.config.purpose != "horizon")
    seen = replace(
        state,
        target=target,
        milestone=None if beyond else milestone,
        runs=at_constant_lr,
        question=replace(state.question, schedule="constant"),
    )
    if not seen.reached:
        return EasierTarget(target=target, recipe=None, predicted=None)
    chosen = seen.decision.batch_size, seen.decision.lr
    return EasierTarget(target=target, recipe=recipe_of(seen, *chosen), predicted=predicted_at(seen, *chosen))


def _alternatives(state: SearchState, batch_size: int, lr: float) -> tuple[Alternative, ...]:
    """Other recipes that somebody may prefer, each with what it is better at; those equal to the recipe left out."""
    preferred = {pair: tolerance for pair, tolerance in state.preferred.items() if pair in state.reached}

    def best(batch_sizes: tuple[int, ...] | None = None, cost: Callable[[int], float] | None = None) -> Pair:
        decision = state.decide(batch_sizes=batch_sizes, cost=cost, preferred=preferred)
        return decision.batch_size, decision.lr

    offers: dict[str, Pair] = {}
    if state.question.objective == "time":
        offers["fewest examples"] = best(cost=float)
    else:
        offers["shortest training time"] = best(cost=state.seconds_of)
    if (small := _smallest_at_little_cost(state, batch_size)) is not None:
        offers[f"lowest memory at no more than {_LITTLE_COST:g} times the training time"] = best((small,))
    if (large := _largest_without_loss(state)) is not None and large > batch_size:
        offers["largest batch size that needs at most twice the fewest examples"] = best((large,))
    found: dict[Pair, Alternative] = {}
    for why, pair in offers.items():
        if pair not in found and pair != (batch_size, lr):
            why = why if pair in state.reached else f"{why} (predicted, not run)"
            found[pair] = alternative(state, why, *pair)
    return tuple(found.values())


def alternative(state: SearchState, why: str, batch_size: int, lr: float) -> Alternative:
    """A recipe with what it is better at, and what training at it is expected to take."""
    return Alternative(why=why, recipe=recipe_of(state, batch_size, lr), predicted=predicted_at(state, batch_size, lr))


def _smallest_at_little_cost(state: SearchState, batch_size: int) -> int | None:
    """The smallest batch size that takes little longer than the given one, which needs the lowest memory."""
    best = np.exp(np.median(state.posterior.log_best_steps(np.array(state.batch_sizes)), axis=0))
    times = [steps * state.seconds_of(size) for steps, size in zip(best, state.batch_sizes, strict=True)]
    own = times[state.batch_sizes.index(batch_size)] if batch_size in state.batch_sizes else min(times)
    smaller = [s for s, t in zip(state.batch_sizes, times, strict=True) if s < batch_size and t <= _LITTLE_COST * own]
    return min(smaller, default=None)


def _largest_without_loss(state: SearchState) -> int | None:
    """The largest batch at no loss: up to the critical size, and to twice the largest one that reached the target."""
    critical = state.posterior.critical_batch_size().value or 0.0
    limit = min(critical, _NEAR * max(b for b, _ in state.reached))
    return max((b for b in state.batch_sizes if b <= limit), default=None)


def clear_gain(state: SearchState) -> tuple[float, float, float]:
    """Cost of the current recipe ÷ cost of the decision: low end, median and high end of the 90 % credible interval.

    What the law misses is part of it, once: both recipes were run, and share what it misses in common.
    """
    current, decision = state.question.current, state.decision
    assert current is not None
    cost = state.choices().step_cost
    ratio = (
        state.posterior.log_steps(current.batch_size, current.lr)
        - state.posterior.log_steps(decision.batch_size, decision.lr)
        + math.log(cost(current.batch_size) / cost(decision.batch_size))
    )
    same = (current.batch_size, current.lr) == (decision.batch_size, decision.lr)
    spread = np.zeros(1) if same else state.law.misfit * NORMAL_QUANTILES
    low, value, high = np.exp(low_median_high(np.minimum(ratio[:, None] + spread, 10.0)))
    return float(low), float(value), float(high)


def _current_predicted(state: SearchState) -> Predicted | None:
    current = state.question.current
    if current is None or lr_is_too_high(state, current.batch_size, current.lr):
        return None
    return predicted_at(state, current.batch_size, current.lr)


def _gain_in_words(state: SearchState, gain: tuple[float, float, float]) -> str:
    low, value, high = gain
    current = state.question.current
    if current is not None and lr_is_too_high(state, current.batch_size, current.lr):
        return (
            f"the current learning rate {current.lr:.3g} is too high for batch size {current.batch_size} to reach the "
            "target"
        )
    unit = "as many examples" if state.question.counts_examples else "as long"
    so_far = " to get as far" if state.question.within is not None else ""
    interval = f"90 % credible interval {low:.2f} to {high:.2f}"
    return f"the current recipe takes {value:.2f} times {unit} as the best one found{so_far} ({interval})"


def _status(state: SearchState, batch_size: int, lr: float) -> tuple[PlanStatus, str]:
    largest_run = max(b for b, _ in state.tried)
    if batch_size > _EXTRAPOLATED * largest_run:
        return (
            PlanStatus.EXTRAPOLATED,
            f"batch size {batch_size} is {batch_size / largest_run:.1f} times the largest that was run: "
            "check it before you rely on it",
        )
    largest = state.bench.largest_micro_batch_size
    if state.bench.memory_bound and (free := _unbounded_best(state)) > largest >= batch_size:
        return (
            PlanStatus.MEMORY_BOUND,
            f"memory sets the batch size: {free} would be faster if more than {largest} fitted",
        )
    if state.question.within is not None:
        return PlanStatus.OK, "the best recipe found"
    fewest = state.question.counts_examples
    if state.question.search != "anchors":
        best = "the fewest examples" if fewest else "the fastest"
        return PlanStatus.OK, f"{best} of {len(state.finished)} runs chosen by {NAMES[state.question.search]}"
    return PlanStatus.OK, "the recipe with the fewest examples" if fewest else "the fastest recipe found"


def _unbounded_best(state: SearchState) -> int:
    """The batch size that would be chosen if every micro-batch fitted."""
    return state.decide(cost=state.step_time.seconds).batch_size


def _cost(state: SearchState, seconds: float | None) -> SearchCost:
    spent = state.device_seconds()
    return SearchCost(
        seconds=state.seconds,
        device_seconds=spent,
        evaluation_seconds=state.evaluation_seconds(),
        examples=state.examples_seen(),
        runs=len(state.runs),
        run_equivalents=spent / seconds if seconds else None,
    )


def _measured(state: SearchState) -> Measured:
    fitted = state.target is not None and bool(state.reached)
    in_examples = replace(NOT_MEASURED, unit="examples")
    return Measured(
        critical_batch_size=state.posterior.critical_batch_size() if fitted else in_examples,
        gradient_noise_scale=state.noise_scale,
        knee_exponent=state.posterior.knee_exponent() if fitted else NOT_MEASURED,
        hardware_knee=state.step_time.hardware_knee if state.recorded.step_times else in_examples,
        largest_micro_batch_size=_largest_micro_batch_size(state.bench) if state.recorded.memory else in_examples,
    )


def _largest_micro_batch_size(bench: Bench) -> Estimate:
    largest, run = bench.largest_micro_batch_size, bench.largest_verified
    return Estimate(
        value=largest,
        low=largest,
        high=largest if bench.memory_bound else None,
        n=len(bench.readings),
        unit="examples",
        method="one real step was run at this size" if run else "predicted from smaller steps, not run",
    )


def without_recipe(state: SearchState, status: PlanStatus, message: str) -> Plan:
    """A plan that says what was measured, and recommends nothing."""
    return Plan(
        task=state.task,
        objective=state.question.objective,
        target=state.target,
        status=status,
        message=message,
        recipe=None,
        probability_within_5_percent=None,
        predicted=None,
        measured=_measured(state),
        verified=None,
        alternatives=(),
        search=_cost(state, None),
        evidence=evidence_of(state),
        environment=state.environment,
        bench=state.bench if state.recorded.step_times else None,
        notes=_notes(state),
        examples_in_training_set=state.examples or 0,
        within=str(state.question.within) if state.question.within else None,
    )


def _notes(state: SearchState) -> tuple[str, ...]:
    """Notes on the task, and that the machine was busy while its steps were timed."""
    return (*state.notes, *filter(None, [state.bench.disturbance]))


def _refusal(state: SearchState) -> Plan:
    if state.target is None:
        runs = [r for r in state.finished if r.result]
        seen = (
            "; ".join(f"{r.id}: {r.result.message} after {r.result.steps} steps" for r in runs if r.result)
            or "no run was finished"
        )
        return without_recipe(
            state,
            PlanStatus.INSUFFICIENT_DATA,
            f"no target could be chosen: {seen}; give --target, or a longer --budget",
        )
    target, closest = state.target, state.closest
    seen = "no run was finished"
    if closest is not None:
        value, run = closest
        seen = (
            f"the closest was {target.metric} {value:.4g} with batch size {run.config.batch_size} "
            f"and learning rate {run.config.lr:.3g} after {run.result.best_step if run.result else 0} steps"
        )
    ends = sorted({r.result.message for r in state.finished if r.result})
    how = f" ({'; '.join(ends)})" if ends else ""
    return without_recipe(
        state,
        PlanStatus.TARGET_NOT_REACHED,
        f"no run reached {target} within the budget: {seen}{how}; set a target within reach, or a longer --budget",
    )
