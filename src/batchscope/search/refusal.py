"""Why there is no answer, or none yet, in words that belong to one run each. Numbers only, no torch."""

from __future__ import annotations

from collections.abc import Sequence

from ..fits.curves import steps_to_target
from ..store.endings import ending_of, endings_of
from ..store.records import Predicted, RunStatus
from ..store.runs import StoredRun
from ..wording import about, joined, number, plural, sentence
from .observations import cut_at_first_steps, has_diverged
from .remaining_time import budget_with, training_in_words, wall_seconds
from .state import SearchState

_LONGER_OR_SHORTER = "Give a longer --budget, or a shorter --within"

__all__ = ["lost_afterwards", "no_target", "not_finished", "not_reached", "nothing_trained", "untrained"]


def no_target(state: SearchState) -> str:
    """Message of a search whose first runs showed no target within reach."""
    if _all_diverged(state.finished):
        return f"no target could be chosen: {_lost(state.finished)}"
    seen = ", ".join(
        f"the run at {_pair(r)} {_with_message(r)} after {plural(r.result.steps, 'step')}"
        for r in state.finished
        if r.result
    )
    if state.question.within is not None:
        return (
            f"no run of {state.question.within} came to its end: {seen or 'no run was finished'}. {_LONGER_OR_SHORTER}"
        )
    return f"no target could be chosen: {seen or 'no run was finished'}. Give --target, or a longer --budget"


def lost_afterwards(state: SearchState) -> str:
    """Message where every run that the answer would rest on diverged, or was cut at its first steps; else empty.

    Runs at the recipe reach its target before that, so only runs of a folder that were made for other questions, or
    evaluations that are numbers only now and then, come here.
    """
    if state.parts is not None or state.target is None or state.question.within is not None:
        return ""
    got_there = [run for run in state.finished if steps_to_target(run.rows, state.target) is not None]
    if not got_there or not all(has_diverged(run) or cut_at_first_steps(run) for run in got_there):
        return ""
    ended = _counted(endings_of(got_there))
    steps = max(run.result.steps for run in got_there if run.result)
    return (
        f"no answer can rest on the {plural(len(got_there), 'run')} that reached {state.target}: {ended} after "
        f"{plural(steps, 'step')} at most. Look whether evaluate(model) returns a number each time, at the data, and "
        "give a longer --budget or a lower learning rate in --current"
    )


def nothing_trained(state: SearchState) -> bool:
    """Whether runs of a given length were made, and none of them trained, though none lacked the time for it."""
    if state.question.within is None or not state.finished or _any_out_of_time(state.finished):
        return False
    return not state.lengths.trained


def untrained(state: SearchState) -> str:
    """Message of a search for a given length in which no run was clearly better than fresh weights."""
    lengths, finished = state.lengths, state.finished
    ended = _counted(endings_of(finished))
    lrs, sizes = [run.config.lr for run in finished], sorted({run.config.batch_size for run in finished})
    tried = f"learning rates from {number(min(lrs))} to {number(max(lrs))}" if len(lrs) > 1 else _lr(lrs[0])
    if _all_diverged(finished):
        look = "look at the loss at a learning rate below these: at not a number from the first step, at the data"
    else:
        look = "look whether the loss falls on one batch that is trained on repeatedly, and at labels and optimizer"
    fresh = "" if lengths.fresh_value is None else f" ({lengths.metric.name} {number(lengths.fresh_value)})"
    late = ", until the budget ended" if state.cut_off else ""
    where = f"{tried} were tried at batch size {joined([str(size) for size in sizes])}{late}"
    return (
        f"no run of {state.question.within} was clearly better than fresh weights{fresh}: of {_runs(finished)} "
        f"{ended}. {sentence(where)} {sentence(look)} Give a longer --within"
    )


def _all_diverged(runs: Sequence[StoredRun]) -> bool:
    return bool(runs) and all(map(has_diverged, runs))


def _lost(runs: Sequence[StoredRun]) -> str:
    """What runs that all diverged have in common, and what to look at: no learning rate is known to work."""
    lrs, steps = [run.config.lr for run in runs], [run.result.steps for run in runs if run.result]
    after = f"after {plural(max(steps), 'step')} at most"
    tried = f"learning rates from {number(min(lrs))} to {number(max(lrs))}" if len(runs) > 1 else _lr(lrs[0])
    all_ = {1: "the only run", 2: "both runs"}.get(len(runs), f"all {len(runs)} runs")
    lowest = "the lowest of them" if len(runs) > 1 else "it"
    return (
        f"{all_} diverged {after}, at {tried}, so it is not known that the learning rate is to blame. Train one model "
        f"at {lowest} and look at the first loss that is not a number, or far above the others: its batch, "
        "and log, exp or a division in loss(model, batch)"
    )


def _lr(lr: float) -> str:
    return f"learning rate {number(lr)} alone"


def not_reached(state: SearchState) -> str:
    """Message of a search in which no run reached the target: the closest run with its ending, then the others."""
    assert state.target is not None
    if _all_diverged(state.finished):
        return f"no run reached {state.target}: {_lost(state.finished)}"
    target, closest = state.target, state.closest
    short = state.cut_off or not state.finished or _any_out_of_time(state.finished)
    where = " within the budget" if short else f": the search came to its own end after {_runs(state.finished)}"
    seen = "no run was finished" if not state.finished else f"no run has a value of {target.metric}"
    if closest is not None:
        value, step, run = closest
        held = f" in {target.confirm} evaluations in a row" if target.confirm > 1 else ""
        seen = f"the closest was {target.metric} {value:.4g}{held} with {_pair(run)} after {plural(step, 'step')}, "
        seen += f"in a run that {_with_message(run)}"
        seen += _of_the_others([other for other in state.finished if other.id != run.id])
    elif state.finished:
        seen += _of_the_others(state.finished)
    change = "Set a target within reach, or a longer --budget" if short else "Set a target within reach"
    ended = f": {seen}." if short else f". {sentence(seen)}"
    return f"no run reached {target}{where}{ended} {change}"


def not_finished(state: SearchState, batch_size: int, lr: float, predicted: Predicted) -> str:
    """Message of a search that its budget ended first: the best bet so far, its doubt, and what more would cost."""
    recipe = _pair_in_words(batch_size, lr)
    if state.question.within is not None:
        most = state.most_steps(batch_size) or 0
        further = about(wall_seconds(state, most * state.seconds_of(batch_size)))
        doubt, cost = "further runs were worth their price", f"each takes about {further}"
    elif (batch_size, lr) in state.reached:
        doubt = "further runs were worth their price"
        cost = f"a training takes {training_in_words(state, predicted.time_to_target_s)}"
    else:
        doubt = "no run at it has reached the target" if state.reached else "no run has reached the target"
        doubt += _ended_beyond_the_milestone(state)
        cost = f"a run at it to the target takes {training_in_words(state, predicted.time_to_target_s)}"
    budget = budget_with(state, predicted.time_to_target_s)
    return (
        f"not finished: best so far {recipe}, {_how_far(state, batch_size, lr)}. When the budget ended, {doubt}. "
        f"{sentence(cost)} Repeat the command with --budget {budget}"
    )


def _how_far(state: SearchState, batch_size: int, lr: float) -> str:
    """How far runs came at a recipe, or that none was made at it."""
    target, milestone = state.target, state.milestone
    if state.question.within is not None:
        made = (batch_size, lr) in state.lengths.whole
        assert target is not None
        return f"whose run {'ended' if made else 'may end'} near {target.metric} {number(target.value)}"
    if (taken := state.reached.get((batch_size, lr))) is not None:
        return f"which reached {target} after {plural(round(min(taken)), 'step')}"
    passed = state.passed_after.get((batch_size, lr))
    if passed is not None:
        return f"which passed {milestone} on the way to {target} after {plural(round(passed), 'step')}"
    return "predicted from the other runs, not run itself"


def _ended_beyond_the_milestone(state: SearchState) -> str:
    """Clause on runs that passed the milestone, went on and ended before the target, counted by ending."""
    waiting = (RunStatus.PAUSED, RunStatus.OUT_OF_TIME, RunStatus.REACHED)
    ends = endings_of(
        run
        for run in state.finished
        if run.result is not None
        and run.result.status not in waiting
        and (run.config.batch_size, run.config.lr) in state.passed_after
    )
    return f", and of the runs that went on beyond {state.milestone} {_counted(ends)}" if ends else ""


def _of_the_others(runs: Sequence[StoredRun]) -> str:
    """How the other runs ended, counted by ending."""
    ends = endings_of(runs)
    if not runs:
        return ""
    if len(runs) == 1:
        return f". The other run {ends[0][0]}"
    if len(ends) == 1:
        return f". The other {len(runs)} runs {'both' if len(runs) == 2 else 'all'} {ends[0][0]}"
    return f". Of the other {len(runs)} runs {_counted(ends)}"


def _counted(ends: Sequence[tuple[str, int]]) -> str:
    return joined([f"{n} {ending}" for ending, n in ends])


def _any_out_of_time(runs: Sequence[StoredRun]) -> bool:
    return any(run.result is not None and run.result.status is RunStatus.OUT_OF_TIME for run in runs)


def _with_message(run: StoredRun) -> str:
    """The ending of a run, with what its message adds to that in brackets."""
    assert run.result is not None
    ending, message, own = ending_of(run), run.result.message, f"{run.result.status.ending}: "
    return f"{ending} ({message.removeprefix(own)})" if message.startswith(own) else ending


def _pair(run: StoredRun) -> str:
    return _pair_in_words(run.config.batch_size, run.config.lr)


def _pair_in_words(batch_size: int, lr: float) -> str:
    return f"batch size {batch_size} and learning rate {number(lr)}"


def _runs(runs: Sequence[StoredRun]) -> str:
    return plural(len(runs), "run")
