"""Answer in words: the sentences that open the page and end the command in the terminal."""

from __future__ import annotations

import math
from dataclasses import replace

from ..store.records import (
    TARGET_OF_TABLE,
    Estimate,
    Plan,
    PlanStatus,
    Predicted,
    Recipe,
    RunEvaluations,
    Target,
    Verified,
)
from ..wording import (
    bytes_,
    count,
    duration,
    joined,
    length_in_words,
    number,
    percent,
    plural,
    sentence,
    target_in_words,
    times,
    with_interval,
)
from .basis import doubts, rests_on_in_words

_LIKELY = 0.5

__all__ = [
    "batches_in_words",
    "changes_in_words",
    "course_in_words",
    "difference",
    "expected_time",
    "is_unsure",
    "length_of",
    "length_s",
    "patience_in_words",
    "schedule_in_words",
    "spacing_in_words",
    "summary",
    "threads_in_words",
    "tokens_to_target",
    "what_it_rests_on",
    "what_to_set",
]


def summary(plan: Plan) -> list[str]:
    """Sentences of an answer that a person can act on, the most important first; never empty.

    With a recipe: what to set, when to stop, what to expect, what that rests on, how sure it is, and what it gains.
    Where only one batch size was run, or the run at the recipe contradicts the law, the first says so before it says
    what to set.
    Without: why there is none, and what is known all the same.
    """
    if plan.recipe is None:
        return _without_recipe(plan)
    first = " ".join([*map(sentence, doubts(plan)), what_to_set(plan, plan.recipe)])
    stop = _when_to_stop(plan, _until_target(plan, plan.recipe))
    sentences = [first, stop, _what_to_expect(plan), *what_it_rests_on(plan)]
    return [s for s in sentences if s]


def what_it_rests_on(plan: Plan) -> list[str]:
    """Sentences on the runs behind a recipe, how sure it is, and what it gains over the current one."""
    rests = f"It {rests_on_in_words(plan.rests_on)}." if plan.rests_on is not None and plan.table is None else ""
    return [s for s in (rests, _how_sure(plan), _against_current(plan), _how_evaluated(plan)) if s]


def batches_in_words(recipe: Recipe) -> str:
    """Composition of a batch: micro-batches, accumulation, devices; empty if it is a single one."""
    if recipe.grad_accum_steps == 1 and recipe.world_size == 1:
        return ""
    micro = f"of {count(recipe.micro_batch_size)} examples"
    parts = [f"{plural(recipe.grad_accum_steps, 'accumulated micro-batch', 'accumulated micro-batches')} {micro}"]
    if recipe.grad_accum_steps == 1:
        parts = [f"one micro-batch {micro}"]
    if recipe.world_size > 1:
        parts.append(f"on each of {count(recipe.world_size)} devices")
    return " ".join(parts)


def schedule_in_words(recipe: Recipe) -> str:
    """Schedule of the learning rate in words, to stand after it.

    The course of `wsd` and of a task's own schedule is that of `fits.schedules`.
    """
    end = f"{number(100 * recipe.final_lr)} % of it" if recipe.final_lr else "zero"
    courses = {
        "constant": "constant",
        "wsd": f"constant for four fifths, then falling to {end} (wsd)",
        "task": "times the task's own schedule(progress)",
    }
    course = courses.get(recipe.schedule, f"falling to {end} ({recipe.schedule})")
    warm = f"after {plural(recipe.warmup_steps, 'step')} of linear warm-up" if recipe.warmup_steps else ""
    return f"{course} {warm}".strip()


def course_in_words(recipe: Recipe) -> str:
    """Schedule of the learning rate in words, with the steps that it goes over."""
    over = f", over {plural(recipe.steps, 'step')} in all" if recipe.schedule != "constant" else ""
    return f"{schedule_in_words(recipe)}{over}"


def changes_in_words(recipe: Recipe) -> str:
    """Changed settings of the optimizer besides the learning rate; empty if none changes."""
    changes = [f"{key} = {value}" for key, value in recipe.optimizer_changes.items()]
    return joined(changes) if changes else ""


def threads_in_words(plan: Plan, recipe: Recipe) -> str:
    """Threads of torch to set, where they are not those that it has by itself; else empty."""
    threads = recipe.num_threads
    if threads is None or threads == plan.environment.threads:
        return ""
    return f"{plural(threads, 'thread')} (torch.set_num_threads({threads}))"


def length_of(plan: Plan, recipe: Recipe, steps: float | None = None) -> str:
    """Length of a training with a recipe in words, or of so many of its steps: epochs, examples, tokens as they fit."""
    epochs = recipe.epochs is not None and recipe.steps_per_epoch is not None
    return length_in_words(
        recipe.steps if steps is None else steps,
        recipe.batch_size,
        examples=round(recipe.batch_size * recipe.steps_per_epoch) if epochs and recipe.steps_per_epoch else 0,
        tokens_per_example=plan.program.tokens_per_example if plan.program else None,
    )


def tokens_to_target(plan: Plan, predicted: Predicted) -> Estimate | None:
    """Predicted tokens of a training to the target; `None` where the task is not trained on tokens."""
    each, found = plan.program.tokens_per_example if plan.program else None, predicted.examples_to_target
    if each is None:
        return None
    value, low, high = (None if x is None else x * each for x in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high, unit="tokens")


def patience_in_words(plan: Plan, recipe: Recipe) -> str:
    """Patience of early stopping, as a length of training; empty if it is unknown."""
    patience, per_epoch = recipe.early_stop.patience, recipe.steps_per_epoch
    return "" if patience is None or per_epoch is None else length_of(plan, recipe, patience * per_epoch)


def spacing_in_words(found: RunEvaluations) -> str:
    """Distance between two evaluations in steps and examples.

    >>> spacing_in_words(RunEvaluations(number=9, every_steps=25, every_examples=1600))
    'every 25 steps (1,600 examples)'
    """
    steps = "step" if found.every_steps == 1 else f"{count(found.every_steps)} steps"
    return f"every {steps} ({plural(found.every_examples, 'example')})"


def expected_time(predicted: Predicted | None) -> str:
    """Predicted time to the target with its 90 % credible interval."""
    return with_interval(predicted.time_to_target_s, duration) if predicted else "not predicted"


def difference(plan: Plan) -> float | None:
    """Ratio of the time (or examples) of the current recipe to that of the recommended one."""
    if plan.current_predicted is None or plan.predicted is None:
        return None
    examples = plan.objective == "examples"
    pair = [p.examples_to_target if examples else p.time_to_target_s for p in (plan.current_predicted, plan.predicted)]
    before, after = (estimate.value for estimate in pair)
    return before / after if before and after else None


def what_to_set(plan: Plan, recipe: Recipe) -> str:
    """Sentence on what to set in the training script."""
    verb = "Keep training with" if plan.status is PlanStatus.KEEP_CURRENT else "Train with"
    if plan.status is PlanStatus.UNFINISHED:
        verb = "Best bet so far:"
    batches = batches_in_words(recipe)
    size = f"batch size {count(recipe.batch_size)}" + (f" ({batches})" if batches else "")
    lr = f"learning rate {number(recipe.lr)}" if recipe.lr is not None else "the learning rate in use there"
    course = "" if recipe.schedule == "constant" and not recipe.warmup_steps else f", {course_in_words(recipe)}"
    changes = changes_in_words(recipe)
    further = f", and set {changes} in the optimizer" if changes else ""
    if threads := threads_in_words(plan, recipe):
        further += f", on {threads}"
    best = ""
    if plan.within and plan.target and plan.status is not PlanStatus.KEEP_CURRENT:
        best = f": expected to end best in {plan.target.metric} after {plan.within}"
    return f"{verb} {size} and {lr}{course}{further}{best}."


def _when_to_stop(plan: Plan, recipe: Recipe) -> str:
    patience = patience_in_words(plan, recipe)
    wait = f", or when nothing has improved for {patience}" if patience else ""
    length = f"about {length_of(plan, recipe)}"
    if plan.within is not None:
        return f"Train for {length}."
    if plan.target is None:
        return f"Train for {length}{wait}."
    first = _first_at(plan.target)
    if plan.target.confirm > 1:
        return (
            f"Stop at the end of {plural(plan.target.confirm, 'evaluation')} in a row {first}, of which the first "
            f"is expected after {length}{wait}."
        )
    return f"Stop at the first evaluation {first}, expected after {length}{wait}."


def _first_at(target: Target) -> str:
    return f"at {target_in_words(target)}" if target == TARGET_OF_TABLE else f"with {replace(target, confirm=1)}"


def _until_target(plan: Plan, recipe: Recipe) -> Recipe:
    """The recipe with the length that is predicted, where its own is that of a schedule which goes on beyond."""
    predicted = plan.predicted.steps_to_target.value if plan.predicted else None
    if recipe.schedule == "constant" or plan.within is not None or predicted is None:
        return recipe
    steps = math.ceil(predicted)
    epochs = None if recipe.epochs is None else recipe.epochs * steps / recipe.steps
    return replace(recipe, steps=steps, epochs=epochs)


def _what_to_expect(plan: Plan) -> str:
    predicted, recipe = plan.predicted, plan.recipe
    if predicted is None:
        return ""
    if plan.within is not None and recipe is not None:
        return _what_to_expect_within(plan, recipe, predicted)
    goal = target_in_words(plan.target) if plan.target else "the end"
    where = f" on {plan.bench.profile.name}" if plan.bench and plan.bench.profile.name else ""
    memory = predicted.peak_memory_bytes
    needs = f", with a memory peak of {with_interval(memory, bytes_)}" if memory.value is not None else ""
    return f"Predicted time to {goal}{where}: {expected_time(predicted)}{needs}."


def _what_to_expect_within(plan: Plan, recipe: Recipe, predicted: Predicted) -> str:
    where = f" on {plan.bench.profile.name}" if plan.bench and plan.bench.profile.name else ""
    memory = predicted.peak_memory_bytes
    needs = f", with a memory peak of {with_interval(memory, bytes_)}" if memory.value is not None else ""
    return f"That takes {duration(length_s(recipe, predicted))}{where}{needs}."


def is_unsure(plan: Plan) -> bool:
    """Whether it is likely that another recipe is more than 5 % better than the recommended one."""
    return plan.probability_within_5_percent is not None and plan.probability_within_5_percent < _LIKELY


def length_s(recipe: Recipe, predicted: Predicted) -> float | None:
    """Seconds of all steps of a recipe."""
    return recipe.steps * predicted.step_time_s.value if predicted.step_time_s.value is not None else None


def _how_sure(plan: Plan) -> str:
    if plan.within is not None and plan.verified is not None and plan.target is not None:
        ended = f"{plan.target.metric} {number(plan.verified.metric)} after {plural(plan.verified.steps, 'step')}"
        said = f"A run at exactly this recipe ended at {ended}.{_of_equal_steps(plan)}"
        if plan.expected_end is None:
            return said
        if plan.expected_end.low is None:
            return f"{said} How near to that another ends is not known."
        return f"{said} Another is expected to end at {with_interval(plan.expected_end)} (90 % credible interval)."
    sure = ""
    if plan.probability_within_5_percent is not None:
        chance = percent(plan.probability_within_5_percent)
        sure = f"The probability that no other recipe is more than 5 % better is {chance}"
        sure += f". {_what_may_help(plan)} " if is_unsure(plan) else ". "
    if plan.verified is None:
        came = "was made" if plan.within is not None else "has reached the target"
        return f"{sure}No run at exactly this recipe {came}: the numbers are predictions.{_of_equal_steps(plan)}"
    if plan.table is not None:
        return f"{sure}Runs at it took {_taken(plan.verified)} on average."
    found = f"{plural(plan.verified.steps, 'step')}, {duration(plan.verified.time_s)}"
    metric = f", {plan.target.metric} {number(plan.verified.metric)}" if plan.target else ""
    return f"{sure}Verified by a run at exactly this recipe: {found}{metric}.{_level(plan.verified)}"


def _what_may_help(plan: Plan) -> str:
    """Sentence on what to do where another recipe is likely to be better; the search had come to its own end."""
    if plan.table is not None:
        return f"Measure at further batch sizes, and add the runs to {plan.table}: one of them may well be better."
    return "Repeat the command with a larger --trainings N: the search then goes on, and may well find a better one."


def _of_equal_steps(plan: Plan) -> str:
    """Sentence on what it means that trainings have equal steps, where they have."""
    if plan.within is None or not plan.within.endswith((" step", " steps")):
        return ""
    return " Trainings were compared at equal steps: a larger batch sees more examples, in more time."


def _level(verified: Verified) -> str:
    """Sentence on the mean of the last evaluations of a run, which the one that reached the target may lie beyond."""
    level = verified.ends_at
    return f" Its last evaluations are at {with_interval(level)} on average." if level and level.low is not None else ""


def _against_current(plan: Plan) -> str:
    current = plan.current
    if current is None:
        return ""
    ratio, recipe = difference(plan), plan.recipe
    same = recipe is not None and (current.batch_size, current.lr) == (recipe.batch_size, recipe.lr)
    if same:
        return "" if plan.status is PlanStatus.KEEP_CURRENT else "This is the current recipe."
    was = f"batch size {count(current.batch_size)} with learning rate {number(current.lr)}"
    if plan.within is not None:
        return f"It replaces {was}."
    if ratio is None:
        return f"It replaces {was}, for which nothing could be predicted."
    unit = "as many examples" if plan.objective == "examples" else "as long"
    before = plan.current_predicted
    took = expected_time(before)
    if plan.objective == "examples" and before is not None:
        took = f"{with_interval(before.examples_to_target)} examples"
    return f"It replaces {was}, which is predicted to take {took}: {times(ratio)} {unit}."


def _without_recipe(plan: Plan) -> list[str]:
    sentences = [sentence(plan.message) or "No recommendation can be given."]
    if plan.target is not None:
        made = plural(plan.search.runs, "run")
        if plan.rests_on is None or not plan.rests_on.runs or plan.table is not None:
            held = f"{plan.table} holds {made}" if plan.table else f"{made} {_were(plan.search.runs)} made"
            asked = "" if plan.target == TARGET_OF_TABLE else f"The target was {plan.target}, and "
            sentences.append(f"{asked}{held}.")
    if plan.rests_on is not None and plan.rests_on.runs and plan.table is None:
        sentences.append(f"This {rests_on_in_words(plan.rests_on)}.")
    largest = plan.measured.largest_micro_batch_size
    if largest.value is not None:
        limited = plan.bench is not None and plan.bench.memory_bound
        fits = f"Micro-batches of up to {plural(largest.value, 'example')} fit into memory"
        sentences.append(f"{fits}, and no larger ones." if limited else f"{fits}, so memory is not the reason.")
    return sentences


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _how_evaluated(plan: Plan) -> str:
    found = plan.evaluations
    if found is None:
        return ""
    spread = plan.measured.evaluation_spread
    varies = ""
    if plan.target is not None and spread.value:
        varies = f" Near the target, {plan.target.metric} varies from one evaluation to the next with a standard "
        varies += f"deviation of {with_interval(replace(spread, unit=''))}."
    return f"That run was evaluated {plural(found.number, 'time')}, in the end {spacing_in_words(found)}.{varies}"


def _taken(verified: Verified) -> str:
    time = f", {duration(verified.time_s)}" if verified.time_s is not None else ""
    return f"{plural(verified.steps, 'step')}{time}"
