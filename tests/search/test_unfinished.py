"""A search that its budget ends, at every point: which status, which recipe, and whether what is claimed is true."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from batchscope.cli.views import plan_view
from batchscope.report.summary import summary
from batchscope.search.forecast import seconds_in
from batchscope.search.plan import build_plan
from batchscope.search.question import CurrentRecipe, parse_seconds
from batchscope.search.remaining_time import budget_with, wall_seconds
from batchscope.search.state import SearchState
from batchscope.store.records import Plan, PlanStatus, RunStatus
from batchscope.store.runs import StoredRun

from .searches import TARGET, TRIED, run, search, true_steps

MILESTONE = replace(TARGET, value=TARGET.value * (1 + 0.1 * math.log(3)))
"""All made-up curves are one curve: it is passed after a third of the steps."""
_PAUSED_AFTER = 0.36


def paused(batch_size: int, lr: float) -> StoredRun:
    return run(batch_size, lr, most=math.ceil(_PAUSED_AFTER * true_steps(batch_size, lr)), status=RunStatus.PAUSED)


def cut(batch_size: int, lr: float, share: float) -> StoredRun:
    """A run that the budget ended after this share of its way."""
    return run(batch_size, lr, most=math.ceil(share * true_steps(batch_size, lr)), status=RunStatus.OUT_OF_TIME)


DIVERGED = run(64, 0.4, most=20, status=RunStatus.DIVERGED)
COURSE = [cut(64, 0.2, 0.1), DIVERGED, *(paused(b, lr) for b, lr in TRIED if (b, lr) != (64, 0.4)), run(64, 0.2)]
"""A whole search: runs that do not get far, then some that are paused at the milestone, then one to the target."""


def ended_after(number: int, **changes: object) -> SearchState:
    made = {(r.config.batch_size, r.config.lr): r for r in COURSE[:number]}
    return search(made.values(), milestone=MILESTONE, cut_off=True, **changes)


@pytest.mark.parametrize("number", range(len(COURSE) + 1))
def test_cut_anywhere_it_answers_what_is_known_and_claims_no_more(number: int) -> None:
    state = ended_after(number)
    plan = build_plan(state)
    passed = [pair for pair, _ in state.passed_after.items()]
    assert plan.status is (PlanStatus.UNFINISHED if passed else PlanStatus.TARGET_NOT_REACHED)
    assert plan.status.exit_status == 3
    assert plan.probability_within_5_percent is None
    assert plan.rests_on is not None
    if not passed:
        assert plan.recipe is None
        assert "within the budget" in plan.message
        return
    assert plan.recipe is not None
    pair = plan.recipe.batch_size, plan.recipe.lr
    assert plan.message.startswith("Not finished: best so far" if len(plan.rests_on.batch_sizes) > 1 else "Only batch")
    assert (plan.verified is not None) == (pair in state.reached)
    if pair in state.reached:
        assert f"which reached {TARGET}" in plan.message
    elif pair in state.passed_after:
        after = round(state.passed_after[pair])
        assert after == pytest.approx(true_steps(*pair) / 3, rel=0.02, abs=1)
        assert f"which passed {MILESTONE} on the way to {TARGET} after {after} steps" in plan.message
    else:
        assert "not run itself" in plan.message


def test_the_truth_lies_in_the_interval_of_the_best_bet() -> None:
    plan = build_plan(ended_after(len(COURSE) - 1))
    assert plan.recipe is not None
    assert plan.predicted is not None
    assert plan.recipe.lr is not None
    steps = plan.predicted.steps_to_target
    truth = true_steps(plan.recipe.batch_size, plan.recipe.lr)
    assert (steps.low or 0.0) < truth < (steps.high or math.inf)
    verified = build_plan(ended_after(len(COURSE))).predicted
    assert verified is not None
    assert _width(steps.low, steps.high) > _width(verified.steps_to_target.low, verified.steps_to_target.high)


def _width(low: float | None, high: float | None) -> float:
    assert low is not None
    return math.inf if high is None else high / low


def test_a_run_that_the_budget_ended_beyond_the_milestone_is_the_best_bet_not_a_failure() -> None:
    on_the_way = search([cut(64, 0.2, 0.8), DIVERGED, paused(16, 0.08)], milestone=MILESTONE, cut_off=True)
    assert on_the_way.paused == {(64, 0.2), (16, 0.08)}
    plan = build_plan(on_the_way)
    assert plan.recipe is not None
    assert (plan.recipe.batch_size, plan.recipe.lr, plan.verified) == (64, 0.2, None)


def test_runs_that_went_on_and_did_not_get_there_are_part_of_the_doubt() -> None:
    stalled = replace(paused(256, 0.32), result=replace(_result(paused(256, 0.32)), status=RunStatus.STALLED))
    plan = build_plan(search([paused(64, 0.2), paused(16, 0.08), stalled], milestone=MILESTONE, cut_off=True))
    assert f"and of the runs that went on beyond {MILESTONE} 1 stopped improving" in plan.message


def _result(made: StoredRun) -> object:
    assert made.result is not None
    return made.result


def test_a_search_that_came_to_its_own_end_without_the_target_has_no_recipe_and_blames_no_budget() -> None:
    state = search([paused(64, 0.2), run(16, 0.08, most=300), DIVERGED], milestone=MILESTONE)
    plan = build_plan(state)
    assert (plan.status, plan.recipe) == (PlanStatus.TARGET_NOT_REACHED, None)
    assert "the search came to its own end after 3 runs" in plan.message
    assert "budget" not in plan.message


def test_reasons_belong_to_one_run_each() -> None:
    runs = [run(64, 0.2, most=90), DIVERGED, run(128, 0.9, most=20, status=RunStatus.DIVERGED), run(16, 0.01, most=20)]
    message = build_plan(search(runs)).message
    assert "with batch size 64 and learning rate 0.2 after 90 steps, in a run that ran to the last step." in message
    assert "Of the other 3 runs 2 diverged and 1 ran to the last step" in message
    alone = build_plan(search([run(64, 0.01, most=20, status=RunStatus.STALLED)])).message
    assert "other" not in alone


def test_the_budget_that_is_named_holds_what_was_spent_and_one_more_training() -> None:
    state = ended_after(4)
    plan = build_plan(state)
    assert plan.predicted is not None
    told = plan.message.rpartition("--budget ")[2].rstrip(".")
    time = plan.predicted.time_to_target_s
    assert told == budget_with(state, time)
    assert time.value is not None
    assert time.high is not None
    assert parse_seconds(told) >= state.seconds + wall_seconds(state, min(time.high, 4 * time.value))


def test_time_by_the_clock_is_scaled_as_the_runs_so_far() -> None:
    """Whatever this question was charged with: runs of earlier ones tell as much."""
    state = ended_after(4)
    made = sum(r.result.steps * state.seconds_of(r.config.batch_size) for r in state.finished if r.result)
    here = sum(seconds_in(run, 0.0) for run in state.finished)
    assert wall_seconds(state, made) == pytest.approx(max(made, here))
    assert wall_seconds(replace(state, seconds=1e6), made) == wall_seconds(state, made)
    assert wall_seconds(replace(state, runs=()), 3.0) == 3.0


def test_a_current_recipe_is_not_kept_for_good_by_a_search_that_was_cut_off() -> None:
    plan = build_plan(ended_after(len(COURSE), current=CurrentRecipe(batch_size=64, lr=0.2)))
    assert plan.status is PlanStatus.UNFINISHED
    assert plan.current is not None


def test_terminal_and_sentences_say_first_that_it_is_not_finished() -> None:
    plan: Plan = build_plan(ended_after(len(COURSE) - 1))
    shown = [part for part in plan_view(plan) if isinstance(part, str) and part]  # pyright: ignore
    assert shown[0].startswith("Not finished: best so far")
    assert shown[1].startswith("Best bet so far: batch size")
    assert summary(plan)[0].startswith("Best bet so far: batch size")
    assert not plan.has_model
    assert build_plan(ended_after(len(COURSE))).has_model
