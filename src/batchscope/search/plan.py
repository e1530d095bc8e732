"""From the state of a search to a plan: recipe, status, message, alternatives. Numbers only, no torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..fits.posterior import low_median_high
from ..report.basis import beyond_law_in_words, in_sentences, one_batch_size
from ..report.loading import loader_in_words, waiting_in_words
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
    TaskProgram,
)
from ..wording import sentence
from .alternatives import alternatives_to, looks_better
from .calibration import probability_within_5_percent
from .confirmation import confirmation_in_words
from .constant import constant_in_words, nothing_learnt
from .evaluation_spacing import dear_at, evaluations_at
from .follow import NAMES
from .forecast import training_here
from .horizon import at_constant_lr, compared_in_words
from .reasons import evidence_of, rests_on
from .recipe import (
    NORMAL_QUANTILES,
    NOT_MEASURED,
    beyond_law,
    curves_of,
    disagreement,
    lr_is_too_high,
    misfit_at,
    predicted_at,
    recipe_of,
    verified_by,
)
from .refusal import lost_afterwards, no_target, not_finished, not_reached, nothing_trained, untrained
from .state import SearchState
from .strategies.space import Pair
from .what_if import what_if
from .whole_runs import better_than, end_in_words

__all__ = ["answered", "build_plan", "clear_gain", "with_program", "without_recipe"]

_WithRecipe = TypeVar("_WithRecipe", Plan, Alternative, EasierTarget)

Array = NDArray[np.float64]

_CLEAR_GAIN = 1.05
_EXTRAPOLATED = 2.0


def build_plan(state: SearchState) -> Plan:
    """The plan that follows from the state of a search, or of a table; a refusal is a plan without a recipe.

    Where the budget ended the search first, the recipe is the best bet so far, whatever its status would have been.
    """
    if state.target is None or not state.answerable or nothing_learnt(state):
        return _refusal(state)
    if lost := lost_afterwards(state):
        return without_recipe(state, PlanStatus.INSUFFICIENT_DATA, lost)
    decision = state.decision
    chosen = decision.batch_size, decision.lr
    current = state.question.current
    status, message = _status(state, *chosen)
    if current is not None:
        own = current.batch_size, current.lr
        clear, compared = _against_current(state, own)
        if clear:
            message = in_sentences([message, compared])
        else:
            why = "nothing better was found" if own == chosen else compared
            chosen, status, message = own, PlanStatus.KEEP_CURRENT, f"keep the current recipe: {why}"
    within, verified = state.question.within, verified_by(state, *chosen)
    predicted = predicted_at(state, *chosen)
    offered = within is None and state.recorded.step_times
    alternatives = alternatives_to(state, *chosen) if offered else ()
    if better := looks_better(state, alternatives, predicted):
        message = in_sentences([message, better])
    if state.cut_off:
        status, message = PlanStatus.UNFINISHED, not_finished(state, *chosen, predicted)
    recipe, seconds = recipe_of(state, *chosen), predicted.time_to_target_s.value
    if within is not None:
        seconds = recipe.steps * state.seconds_of(recipe.batch_size)
    clock = disagreement(state, *chosen) or state.clock.in_words()
    return replace(
        without_recipe(state, status, _in_full(state, message, *chosen)),
        recipe=recipe,
        expected_end=state.lengths.end(*chosen) if within is not None else None,
        probability_within_5_percent=probability_within_5_percent(state, *chosen),
        predicted=predicted,
        verified=verified,
        notes=(*_notes(state), *filter(None, [clock, dear_at(state, *chosen), compared_in_words(state, chosen)])),
        evaluations=evaluations_at(state, *chosen),
        alternatives=alternatives,
        search=_cost(state, seconds, recipe.batch_size),
        current=recipe_of(state, current.batch_size, current.lr) if current else None,
        current_predicted=_current_predicted(state),
        curves=curves_of(state) if within is None else None,
        easier_targets=tuple(_easier(state, target) for target in state.question.easier_targets),
    )


def answered(state: SearchState) -> Pair:
    """Batch size and learning rate of the answer: the current ones, where nothing found is clearly better."""
    current = state.question.current
    if current is not None:
        own = current.batch_size, current.lr
        if not _against_current(state, own)[0]:
            return own
    return state.decision.batch_size, state.decision.lr


def with_program(plan: Plan, program: TaskProgram) -> Plan:
    """A plan with a recipe that says what a program which trains the task must know, its precision in each recipe."""

    def told(of: _WithRecipe) -> _WithRecipe:
        return of if of.recipe is None else replace(of, recipe=replace(of.recipe, precision=program.precision))

    return replace(
        told(plan),
        current=replace(plan.current, precision=program.precision) if plan.current else None,
        alternatives=tuple(map(told, plan.alternatives)),
        easier_targets=tuple(map(told, plan.easier_targets)),
        program=program,
    )


def _in_full(state: SearchState, message: str, batch_size: int, lr: float) -> str:
    """The message with what was asked, and before it what limits the answer most."""
    assert state.target is not None
    within = state.question.within
    if within is not None:
        end = end_in_words(state, batch_size, lr)
        message = message if end in message else f"{sentence(message)} It is expected to end {end}"
    elif state.question.target is None:
        message = (
            f"{sentence(message)} No target was given: {state.target} was chosen from what the first runs could reach"
        )
    waiting = waiting_in_words(state.corrected_bench if state.recorded.step_times else None, batch_size)
    law = beyond_law_in_words(verified_by(state, batch_size, lr))
    reached = state.target.value if within is None else state.lengths.end(batch_size, lr).value
    constant = constant_in_words(state, reached)
    return in_sentences([one_batch_size(rests_on(state)), law, waiting, message, constant])


def _easier(state: SearchState, target: Target) -> EasierTarget:
    """The recipe for a target that is passed on the way, at a constant learning rate; none where no run passed it."""
    assert state.target is not None
    milestone, target = state.milestone, replace(target, confirm=state.target.confirm)
    beyond = milestone is not None and target.met_by(milestone.value)
    without_horizons = tuple(run for run in state.runs if run.config.purpose != "horizon")
    seen = replace(
        state,
        target=target,
        milestone=None if beyond else milestone,
        runs=without_horizons,
        question=at_constant_lr(state.question),
    )
    if not seen.reached:
        return EasierTarget(target=target, recipe=None, predicted=None)
    chosen = seen.decision.batch_size, seen.decision.lr
    return EasierTarget(target=target, recipe=recipe_of(seen, *chosen), predicted=predicted_at(seen, *chosen))


def clear_gain(state: SearchState) -> tuple[float, float, float]:
    """Cost of the current recipe ÷ cost of the decision: low end, median and high end of the 90 % credible interval.

    What the law misses is part of it, once: both recipes were run, and share what it misses in common. Where a run at
    one of them contradicts the law, that run counts.
    """
    current, decision = state.question.current, state.decision
    assert current is not None
    cost = state.choices().step_cost
    ratio = (
        state.posterior.log_steps(current.batch_size, current.lr)
        - state.posterior.log_steps(decision.batch_size, decision.lr)
        + math.log(cost(current.batch_size) / cost(decision.batch_size))
    )
    own, chosen = (current.batch_size, current.lr), (decision.batch_size, decision.lr)
    ratio += beyond_law(state, *own) - beyond_law(state, *chosen)
    misfit = 0.0 if own == chosen else max(misfit_at(state, *own), misfit_at(state, *chosen))
    spread = misfit * NORMAL_QUANTILES
    low, value, high = np.exp(low_median_high(np.minimum(ratio[:, None] + spread, 10.0)))
    return float(low), float(value), float(high)


def _against_current(state: SearchState, current: tuple[int, float]) -> tuple[bool, str]:
    """Whether the decision is clearly better than the current recipe, and by how much in words."""
    if state.question.within is not None:
        return better_than(state, current)
    gain = clear_gain(state)
    clear = gain[0] >= _CLEAR_GAIN
    return clear, _gain_in_words(state, gain) if clear else f"{_gain_in_words(state, gain)}: no clear gain of 5 %"


def _current_predicted(state: SearchState) -> Predicted | None:
    current = state.question.current
    if current is None:
        return None
    if state.question.within is None and lr_is_too_high(state, current.batch_size, current.lr):
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
    interval = f"90 % credible interval {low:.2f} to {high:.2f}"
    return f"the current recipe takes {value:.2f} times {unit} as the best one found ({interval})"


def _status(state: SearchState, batch_size: int, lr: float) -> tuple[PlanStatus, str]:
    if state.question.within is not None:
        return PlanStatus.OK, f"expected to end best, {end_in_words(state, batch_size, lr)}"
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
    fewest = state.question.counts_examples
    if state.question.search != "anchors":
        best = "the fewest examples" if fewest else "the fastest"
        return PlanStatus.OK, f"{best} of {len(state.finished)} runs chosen by {NAMES[state.question.search]}"
    return PlanStatus.OK, "the recipe with the fewest examples" if fewest else "the fastest recipe found"


def _unbounded_best(state: SearchState) -> int:
    """The batch size that would be chosen if every micro-batch fitted."""
    return state.decide(cost=state.step_time.seconds).batch_size


def _cost(state: SearchState, seconds: float | None = None, batch_size: int = 1) -> SearchCost:
    """Cost of the search; in trainings where the seconds of one at the recipe, of this batch size, are known."""
    spent, steps_here = state.device_seconds(), sum(run.result.device_seconds for run in state.finished if run.result)
    return SearchCost(
        seconds=state.seconds,
        device_seconds=spent,
        evaluation_seconds=state.evaluation_seconds(),
        examples=state.examples_seen(),
        runs=len(state.runs),
        run_equivalents=spent / seconds if seconds else None,
        training_seconds=min(steps_here, state.seconds),
        training_here_s=training_here(state, seconds, batch_size) if seconds and state.parts is None else None,
    )


def _measured(state: SearchState) -> Measured:
    fitted = state.answerable and state.question.within is None
    in_examples = replace(NOT_MEASURED, unit="examples")
    return Measured(
        critical_batch_size=state.posterior.critical_batch_size() if fitted else in_examples,
        gradient_noise_scale=state.noise_scale,
        knee_exponent=state.posterior.knee_exponent() if fitted else NOT_MEASURED,
        hardware_knee=state.step_time.hardware_knee if state.recorded.step_times else in_examples,
        largest_micro_batch_size=_largest_micro_batch_size(state.bench) if state.recorded.memory else in_examples,
        evaluation_spread=state.confirmation.spread if state.confirmation else NOT_MEASURED,
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
        search=_cost(state),
        evidence=evidence_of(state),
        environment=state.environment,
        bench=state.corrected_bench if state.recorded.step_times else None,
        notes=_notes(state),
        examples_in_training_set=state.examples or 0,
        within=str(state.question.within) if state.question.within else None,
        rests_on=rests_on(state),
        what_if=what_if(state),
    )


def _notes(state: SearchState) -> tuple[str, ...]:
    """Notes on the task, on the loader, and that the machine was busy while steps were timed."""
    bench = state.bench if state.recorded.step_times else None
    said = confirmation_in_words(state), state.bench.disturbance, loader_in_words(bench)
    return (*state.notes, *filter(None, said))


def _refusal(state: SearchState) -> Plan:
    if nothing_trained(state):
        return without_recipe(state, PlanStatus.TARGET_NOT_REACHED, untrained(state))
    if nothing := nothing_learnt(state):
        return without_recipe(replace(state, target=None), PlanStatus.INSUFFICIENT_DATA, nothing)
    if state.target is None:
        return without_recipe(state, PlanStatus.INSUFFICIENT_DATA, no_target(state))
    plan = without_recipe(state, PlanStatus.TARGET_NOT_REACHED, not_reached(state))
    return replace(plan, notes=(*plan.notes, *filter(None, [compared_in_words(state, None)])))
