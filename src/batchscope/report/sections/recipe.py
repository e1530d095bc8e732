"""Recipe: status, the sentences to act on, and the numbers to set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...fits.curves import best_held
from ...store.records import TARGET_OF_TABLE, Plan, PlanStatus, Predicted, Recipe, Target
from ...wording import bytes_, count, duration, number, plural, sentence, whole, with_interval
from ..basis import rest_of_message
from ..blocks import Block, Facts, Section, Text
from ..outcomes import outcomes
from ..summary import (
    batches_in_words,
    changes_in_words,
    course_in_words,
    is_unsure,
    length_of,
    length_s,
    summary,
    threads_in_words,
    tokens_to_target,
)

if TYPE_CHECKING:
    from ...store.runs import StoredRun

STATUS_IN_WORDS = {
    PlanStatus.OK: "a recommendation",
    PlanStatus.KEEP_CURRENT: "keep the current recipe",
    PlanStatus.MEMORY_BOUND: "limited by memory",
    PlanStatus.EXTRAPOLATED: "extrapolated beyond the measurements",
    PlanStatus.TARGET_NOT_REACHED: "target not reached",
    PlanStatus.INSUFFICIENT_DATA: "not enough measurements",
    PlanStatus.UNFINISHED: "not finished",
}

_TITLES = {
    PlanStatus.KEEP_CURRENT: "Keep the current recipe",
    PlanStatus.UNFINISHED: "Not finished: the best bet so far",
}


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section that opens the page."""
    sentences = summary(plan)
    message = sentence(plan.message) if plan.recipe is None else rest_of_message(plan)
    status = Text((message,) if message else (), tone="status", badge=f"{plan.status.value}", doubtful=is_unsure(plan))
    if plan.recipe is None:
        rest = tuple(s for s in sentences if s != message)
        closest = () if plan.within is not None or plan.target == TARGET_OF_TABLE else (closest_approach(plan, runs),)
        blocks: tuple[Block, ...] = (status, Text((*closest, *rest)))
        return Section("recipe", f"No recommendation: {STATUS_IN_WORDS[plan.status]}", blocks)
    title = _TITLES.get(plan.status, "The recipe")
    lead, *rest = sentences
    return Section(
        "recipe",
        title,
        (Text((lead,), tone="lead"), status, Text(tuple(rest)), Facts(facts(plan, plan.recipe))),
    )


def facts(plan: Plan, recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """Facts to set and to expect, as names and values."""
    batches = batches_in_words(recipe)
    return (
        ("batch size", count(recipe.batch_size) + (f" = {batches}" if batches else "")),
        ("learning rate", f"{number(recipe.lr)}, {course_in_words(recipe)}" if recipe.lr is not None else "unknown"),
        *((("optimizer changes", changes),) if (changes := changes_in_words(recipe)) else ()),
        *((("threads", threads),) if (threads := threads_in_words(plan, recipe)) else ()),
        ("length", length_of(plan, recipe)),
        *(_expected(plan, recipe, plan.predicted) if plan.predicted is not None else ()),
    )


def _expected(plan: Plan, recipe: Recipe, predicted: Predicted) -> tuple[tuple[str, str], ...]:
    of_step = ("time of a step", with_interval(predicted.step_time_s, duration))
    peak = predicted.peak_memory_bytes
    memory = (("memory peak", with_interval(peak, bytes_)),) if peak.value is not None else ()
    if plan.within is not None:
        return (("time", duration(length_s(recipe, predicted))), of_step, *memory)
    return (
        ("time to target", with_interval(predicted.time_to_target_s, duration)),
        ("steps to target", with_interval(predicted.steps_to_target, whole)),
        ("examples to target", with_interval(predicted.examples_to_target)),
        *((("tokens to target", with_interval(tokens)),) if (tokens := tokens_to_target(plan, predicted)) else ()),
        of_step,
        *memory,
    )


def _closest(target: Target, runs: Sequence[StoredRun]) -> tuple[float, int, StoredRun] | None:
    """Hardest value that a run held, its step, and the run; rows are read of those that may be it."""
    sign = 1.0 if target.mode == "max" else -1.0

    def most(run: StoredRun) -> float:
        judged_by = run.config.target.judged_by if run.config.target else run.config.metric
        best = run.result.best.get(target.metric, math.nan) if run.result else math.nan
        return sign * best if judged_by == target.judged_by and math.isfinite(best) else math.inf

    closest: tuple[float, int, StoredRun] | None = None
    for run in sorted((run for run in runs if run.result is not None), key=most, reverse=True):
        if closest is not None and sign * closest[0] >= most(run):
            break
        held = best_held(run.rows, target)
        if held is not None and (closest is None or sign * held[0] > sign * closest[0]):
            closest = (*held, run)
    return closest


def closest_approach(plan: Plan, runs: Sequence[StoredRun]) -> str:
    """Run that came nearest to the target, in words."""
    target = plan.target
    if target is None:
        return "There was no target to reach."
    if reached := sum(o.reached for o in outcomes(plan, runs)):
        return f"{plural(reached, 'run')} reached {target}; that is too little to decide on."
    closest = _closest(target, runs)
    if closest is None:
        return f"No finished run has a value of {target.metric}."
    value, step, nearest = closest
    where = f"batch size {count(nearest.config.batch_size)} and learning rate {number(nearest.config.lr)}"
    return f"The closest approach to {target} was {number(value)}, at step {count(step)} of a run with {where}."
