"""Schedules in a search: which runs have which, and over how many steps one decays on the way to a target.

Where a length is given (`--within`), every run has the schedule and the warm-up that were asked for, over its whole
length. Where a target is given, nobody knows the length of a run before it is made. So batch sizes and learning rates
are compared at a constant learning rate, after a warm-up where it is given in steps or examples; then runs at the
recipe alone look for the *horizon*, the smallest number of steps at whose end its schedule has brought it to the
target. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import UsageError
from ..fits.schedules import schedule_of_task
from ..store.records import Evidence, RunStatus
from ..store.runs import StoredRun
from ..wording import count, joined, percent, plural
from .question import Question
from .state import SearchState
from .strategies.space import Pair

__all__ = [
    "TYPICAL_HORIZONS",
    "at_constant_lr",
    "compared_in_words",
    "evidence_of_schedule",
    "horizon_of",
    "require_room",
    "schedule_in_short",
    "schedule_members",
    "schedule_of_recipe",
    "shortest_horizon",
    "with_schedule",
]

_HORIZONS = 4
_SHORTER, _LONGER = 0.8, 1.3
TYPICAL_HORIZONS = 2.4
"""Expected price of these runs, in trainings at the recipe: 1.8 to 3.0 where they get shorter."""


def with_schedule(question: Question, task: object) -> Question:
    """The question with its schedule decided: the one asked for, else the task's own, else constant.

    Raises:
        UsageError: the task has a schedule, and another, a warm-up or an end of it was asked for.
    """
    own = getattr(task, "schedule", None)
    schedule = schedule_of_task(own, question.schedule, question.warmup, question.final_lr)
    return replace(question, schedule=schedule)


def at_constant_lr(question: Question) -> Question:
    """The question as its runs to a target answer it: at a constant learning rate."""
    warmup = question.warmup
    known = None if warmup is None or warmup.unit == "share" else warmup
    return replace(question, schedule="constant", warmup=known, final_lr=None)


def schedule_members(question: Question, batch_size: int, length: int | None) -> dict[str, Any]:
    """Members of a configuration, or of a recipe, that say how the learning rate goes.

    Args:
        question: with its schedule decided.
        batch_size: of the run.
        length: its steps; `None`: it goes on at a constant learning rate until it reaches its target.
    """
    if length is None:
        question, length = at_constant_lr(question), 0
    return {
        "schedule": question.schedule or "constant",
        "warmup_steps": question.warmup.steps(batch_size, length) if question.warmup is not None else 0,
        "final_lr": question.final_lr or 0.0,
    }


def require_room(state: SearchState) -> None:
    """Refuse a warm-up that is as long as a run of the given length, or longer.

    Raises:
        UsageError: so it is at every batch size, or at that of the current recipe.
    """
    question = state.question
    warmup, within, current = question.warmup, question.within, question.current
    if warmup is None or within is None or warmup.unit == "share":
        return
    for size in [*([current.batch_size] if current else []), state.batch_sizes[0]]:
        steps, most = warmup.steps(size, 0), state.most_steps(size)
        if most is not None and steps >= most:
            where = "the current batch size" if current and size == current.batch_size else "batch size"
            raise UsageError(
                f"--warmup {warmup} is {plural(steps, 'step')} at {where} {size}, and a run within {within} has "
                f"{plural(most, 'step')}: it would never train at its learning rate; give a shorter warm-up, for "
                "example --warmup 5%, or a longer --within"
            )


def shortest_horizon(
    state: SearchState, pair: Pair, run_over: Callable[[int], StoredRun | None], horizons: int = _HORIZONS
) -> None:
    """Make runs at a recipe whose schedule ends after so many steps, until the shortest that reaches the target is met.

    The first is as long as a run at a constant learning rate is expected to be; then each is 0.8 times as long while
    they reach the target, or 1.3 times while they do not. It is a walk in one direction: the first run that ends
    otherwise than those before ends it.

    Args:
        state: of the search, before these runs.
        pair: batch size and learning rate of the recipe.
        run_over: makes such a run of so many steps; `None`: there is no time for it.
        horizons: runs at most.
    """
    steps = math.ceil(math.exp(float(state.posterior.log_steps(*pair).mean())))
    least = max(2, schedule_members(state.question, pair[0], 1)["warmup_steps"] + 1)
    outcomes: set[bool] = set()
    tried: set[int] = set()
    for _ in range(horizons):
        steps = max(least, steps)
        run = None if steps in tried else run_over(steps)
        if run is None:
            return
        tried.add(steps)
        outcomes.add(run.result is not None and run.result.status is RunStatus.REACHED)
        if len(outcomes) == 2:
            return
        steps = math.ceil(steps * (_SHORTER if True in outcomes else _LONGER))


def horizon_of(state: SearchState, batch_size: int, lr: float) -> StoredRun | None:
    """The run at a recipe under the schedule asked for that reached the target soonest; `None` where none did."""
    made = [
        (run.result.steps_to_target, run)
        for run in _horizons(state, batch_size, lr)
        if run.result is not None and run.result.steps_to_target is not None
    ]
    return min(made, key=lambda pair: pair[0])[1] if made else None


def schedule_of_recipe(state: SearchState, batch_size: int, lr: float, steps: int) -> dict[str, Any]:
    """Members of a recipe of so many steps that say how its learning rate goes.

    A recipe has the schedule asked for where it was run with it: over the given length, or over a horizon at which it
    reached the target. Any other is known at a constant learning rate alone, and says so.
    """
    whole = state.question.within is not None or horizon_of(state, batch_size, lr) is not None
    return schedule_members(state.question, batch_size, steps if whole else None)


def compared_in_words(state: SearchState, pair: Pair | None) -> str:
    """What was compared at which learning rate, where a schedule was asked for; empty where the answer shows it.

    Args:
        state: of the search, with a target.
        pair: batch size and learning rate of the recipe; `None`: there is none.
    """
    if not state.question.decays_to_target:
        return ""
    warmup = at_constant_lr(state.question).warmup
    after = f", after a warm-up of {warmup.in_words}" if warmup else ""
    said = f"batch sizes and learning rates were compared at a constant learning rate{after}"
    made = sorted(run.config.max_steps for run in _horizons(state, *pair)) if pair else []
    if not made or pair is None:
        return f"{said}, and no run was made with {schedule_in_short(state.question)}"
    runs = f"{plural(len(made), 'run')} of {joined([count(steps) for steps in made])} steps"
    said = f"{said}, and {schedule_in_short(state.question)} was then run at the recipe alone: {runs}"
    found, constant = horizon_of(state, *pair), state.reached.get(pair)
    if found is None or found.result is None:
        return f"{said}, none of which reached the target, so that the recipe keeps the learning rate constant"
    steps = f"after {count(found.result.steps_to_target)} steps"
    beside = f", and after {count(min(constant))} at a constant learning rate" if constant else ""
    return f"{said}, of which the recipe has the one that reached the target soonest, {steps}{beside}"


def evidence_of_schedule(state: SearchState) -> list[Evidence]:
    """Statements on the schedule and the warm-up that were asked for."""
    question = state.question
    if question.decays_to_target:
        return [
            Evidence(
                statement="the batch size and the learning rate that are best at a constant learning rate were taken "
                f"to be best with {schedule_in_short(question)} as well",
                tag="assumption",
                source="runs with the schedule were made at the recipe alone, to find over how many steps it reaches "
                "the target",
            )
        ]
    parts = [] if question.schedule in (None, "constant") else [schedule_in_short(question)]
    parts += [f"a linear warm-up of {question.warmup.in_words}"] if question.warmup else []
    if not parts:
        return []
    length = f" over its length of {question.within}" if question.within else ""
    said = f"every run had {joined(parts)}{length}, and so has the recipe"
    return [Evidence(statement=said, tag="measured", source="the runs in the results folder")]


def schedule_in_short(question: Question) -> str:
    """The schedule asked for, as a noun.

    >>> schedule_in_short(Question(schedule="wsd", final_lr=0.1)), schedule_in_short(Question(schedule="task"))
    ('the schedule wsd down to 10 % of the learning rate', "the task's own schedule")
    """
    if question.schedule == "task":
        return "the task's own schedule"
    end = f" down to {percent(question.final_lr)} of the learning rate" if question.final_lr else ""
    return f"the schedule {question.schedule}{end}"


def _horizons(state: SearchState, batch_size: int, lr: float) -> Sequence[StoredRun]:
    """Runs of a recipe that only look for the length of its schedule."""
    pair = batch_size, lr
    return [r for r in state.finished if r.config.purpose == "horizon" and (r.config.batch_size, r.config.lr) == pair]
