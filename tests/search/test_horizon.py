"""Schedules in a search: which runs have which, how their length is found, and what the answer says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.fits.schedules import WarmUp
from batchscope.search.horizon import (
    at_constant_lr,
    compared_in_words,
    evidence_of_schedule,
    horizon_of,
    require_room,
    schedule_in_short,
    schedule_members,
    schedule_of_recipe,
    shortest_horizon,
    with_schedule,
)
from batchscope.search.plan import answered, build_plan
from batchscope.search.question import CurrentRecipe, Question, Within
from batchscope.search.recipe import recipe_of, run_at
from batchscope.search.state import SearchState
from batchscope.store.records import Metric, PlanStatus, RunStatus
from batchscope.store.runs import StoredRun

from .searches import TARGET, TRIED, run, search

PAIR = (64, 0.2)
STEPS, EXAMPLES, SHARE = (WarmUp.parse(text) for text in ("50steps", "3200examples", "10%"))
FOUR_EPOCHS = Within(amount=4, unit="epochs")
"""62 steps of 64 examples, 15 of 256, 3 of 1000."""


def horizon(most: int, reached: bool = True, steps: float | None = None, **more: Any) -> StoredRun:
    needed = (steps or 0.95 * most) if reached else 2.0 * most
    return run(*PAIR, steps=needed, most=most, schedule="wsd", purpose="horizon", **more)


def constant_runs() -> list[StoredRun]:
    return [run(b, lr) for b, lr in TRIED]


def state(*horizons: StoredRun, **asked: Any) -> SearchState:
    return search([*constant_runs(), *horizons], **{"schedule": "wsd", **asked})


# --- what is asked ------------------------------------------------------------------------------------------------


def test_the_schedule_of_the_question_is_decided_before_the_search() -> None:
    plain, own = SimpleNamespace(schedule=None), SimpleNamespace(schedule=lambda progress: 1.0)
    assert with_schedule(Question(), object()) == Question(schedule="constant")
    assert with_schedule(Question(), plain) == Question(schedule="constant")
    assert with_schedule(Question(), own) == Question(schedule="task")
    assert with_schedule(Question(schedule="wsd"), plain) == Question(schedule="wsd")
    assert with_schedule(with_schedule(Question(), own), own) == Question(schedule="task")
    with pytest.raises(UsageError, match="take the member out of the task"):
        with_schedule(Question(warmup=STEPS), own)
    with pytest.raises(UsageError, match="add --schedule linear, cosine or wsd"):
        with_schedule(Question(final_lr=0.1), plain)


@pytest.mark.parametrize("more", [{}, {"target": TARGET}])
def test_a_share_of_a_run_to_a_target_at_a_constant_learning_rate_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        with_schedule(Question(warmup=SHARE, **more), object())
    assert "--warmup 100steps or 20000examples, or add --within or a --schedule that decays" in str(refused.value)
    for advice in (
        {"warmup": STEPS},
        {"warmup": EXAMPLES},
        {"warmup": SHARE, "schedule": "linear"},
    ):
        with_schedule(Question(**{**more, **advice}), object())
    with_schedule(Question(warmup=SHARE, within=FOUR_EPOCHS), object())


def test_members_of_a_run_whose_length_is_known() -> None:
    question = Question(schedule="cosine", warmup=SHARE, final_lr=0.1)
    assert schedule_members(question, 64, 200) == {"schedule": "cosine", "warmup_steps": 20, "final_lr": 0.1}
    by_examples = Question(schedule="linear", warmup=EXAMPLES)
    assert schedule_members(by_examples, 64, 200) == {"schedule": "linear", "warmup_steps": 50, "final_lr": 0.0}
    assert schedule_members(by_examples, 256, 200)["warmup_steps"] == 13


@pytest.mark.parametrize(("warmup", "steps"), [(None, 0), (SHARE, 0), (STEPS, 50), (EXAMPLES, 50)])
@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_a_run_to_a_target_is_at_a_constant_learning_rate(warmup: WarmUp | None, steps: int, schedule: Any) -> None:
    question = Question(schedule=schedule, warmup=warmup, final_lr=0.1)
    assert schedule_members(question, 64, None) == {"schedule": "constant", "warmup_steps": steps, "final_lr": 0.0}


def test_a_table_knows_no_schedule() -> None:
    assert schedule_members(Question(), 64, None) == {"schedule": "constant", "warmup_steps": 0, "final_lr": 0.0}


def test_at_a_constant_learning_rate_a_share_has_nothing_to_be_one_of() -> None:
    assert at_constant_lr(Question(schedule="cosine", warmup=SHARE, final_lr=0.1)) == Question(schedule="constant")
    assert at_constant_lr(Question(schedule="task")) == Question(schedule="constant")
    kept = at_constant_lr(Question(schedule="cosine", warmup=STEPS))
    assert kept == Question(schedule="constant", warmup=STEPS)


# --- a warm-up and a given length ---------------------------------------------------------------------------------


def test_batch_sizes_at_which_a_run_would_be_all_warm_up_are_left_out() -> None:
    sizes = search(question=Question(within=FOUR_EPOCHS)).batch_sizes
    left = search(question=Question(within=FOUR_EPOCHS, warmup=STEPS)).batch_sizes
    assert left == tuple(size for size in sizes if 4000 // size > 50)
    assert left[-1] < sizes[-1]
    assert search(question=Question(within=FOUR_EPOCHS, warmup=SHARE)).batch_sizes[-1] == sizes[-1]
    to_target = search(warmup=STEPS).batch_sizes
    assert to_target == search().batch_sizes


def test_seconds_leave_out_the_same_batch_sizes_whatever_the_clock_of_the_runs_says() -> None:
    question = Question(within=Within(amount=0.1, unit="seconds"), warmup=STEPS)
    first = search([], question=question).batch_sizes
    slow = search([run(b, lr, slower=1.6) for b, lr in TRIED], question=question)
    assert slow.batch_sizes == first
    assert first[-1] <= 100  # 0.1 s / 50 steps = 2 ms = 1 ms (1 + B / 100)


def test_a_warm_up_as_long_as_every_run_is_refused_before_the_first() -> None:
    state = search([], question=Question(within=FOUR_EPOCHS, warmup=WarmUp.parse("5000steps")))
    with pytest.raises(UsageError) as refused:
        require_room(state)
    said = str(refused.value)
    assert "--warmup 5000steps is 5,000 steps at batch size 1, and a run within 4 epochs has 4,000 steps" in said
    assert "give a shorter warm-up, for example --warmup 5%, or a longer --within" in said
    require_room(search([], question=Question(within=FOUR_EPOCHS, warmup=SHARE)))
    require_room(
        search([], question=Question(within=Within(amount=6, unit="epochs"), warmup=WarmUp.parse("5000steps")))
    )


def test_a_warm_up_as_long_as_the_run_at_the_current_recipe_is_refused() -> None:
    current = CurrentRecipe(batch_size=256, lr=0.1)
    with pytest.raises(UsageError, match=r"50 steps at the current batch size 256, and a run within 4 epochs has 15"):
        require_room(search([], question=Question(within=FOUR_EPOCHS, warmup=STEPS, current=current)))
    require_room(search([], question=Question(within=FOUR_EPOCHS, warmup=SHARE, current=current)))


# --- how long the schedule is -------------------------------------------------------------------------------------


def lengths(needed: int, **asked: Any) -> list[int]:
    """Lengths that are tried where a run needs so many steps under its schedule."""
    tried: list[int] = []

    def over(steps: int) -> StoredRun:
        tried.append(steps)
        return horizon(steps, reached=steps >= needed)

    shortest_horizon(state(**asked), PAIR, over)
    return tried


def test_lengths_are_tried_from_that_at_a_constant_learning_rate_in_one_direction() -> None:
    """A run at a constant learning rate takes about 200 steps."""
    shorter, longer = lengths(130), lengths(280)
    assert 150 < shorter[0] < 260
    assert longer[0] == shorter[0]
    assert shorter == sorted(shorter, reverse=True)
    assert [s >= 130 for s in shorter] == [True] * (len(shorter) - 1) + [False]
    assert [s >= 280 for s in longer] == [False] * (len(longer) - 1) + [True]
    assert len(lengths(1)) == len(lengths(10**6)) == 4


def test_no_length_is_as_short_as_the_warm_up() -> None:
    tried = lengths(1, warmup=WarmUp.parse("180steps"))
    assert tried[-1] == 181
    assert len(tried) == len(set(tried)) < 4


def test_without_time_no_run_is_made() -> None:
    shortest_horizon(state(), PAIR, lambda steps: None)


def test_of_several_runs_the_recipe_has_the_one_that_reached_the_target_soonest() -> None:
    short, long, missed = horizon(160, steps=158.0), horizon(200, steps=190.0), horizon(128, reached=False)
    found = state(long, short, missed, warmup=SHARE, final_lr=0.1)
    assert horizon_of(found, *PAIR) is short
    recipe = recipe_of(found, *PAIR)
    assert (recipe.steps, recipe.schedule, recipe.warmup_steps, recipe.final_lr) == (160, "wsd", 16, 0.1)
    assert run_at(found, *PAIR) is short
    plan = build_plan(found)
    assert plan.verified is not None
    assert plan.verified.steps == pytest.approx(158.0)


def test_a_recipe_says_constant_where_it_was_not_run_with_the_schedule() -> None:
    """Another batch size, a schedule that did not reach the target, or that was not run yet."""
    for found, pair in (
        (state(horizon(160)), (128, 0.27)),
        (state(horizon(160, reached=False)), PAIR),
        (state(), PAIR),
    ):
        recipe = recipe_of(found, *pair)
        assert (recipe.schedule, recipe.warmup_steps, recipe.final_lr) == ("constant", 0, 0.0)
        assert run_at(found, *pair) is not None


def test_with_a_given_length_every_recipe_has_the_schedule() -> None:
    metric = Metric(name="val_loss", mode="min")
    question = Question(within=FOUR_EPOCHS, metric=metric, schedule="wsd", warmup=SHARE, final_lr=0.1)
    runs = [run(b, lr, most=4000 // b, schedule="wsd", warmup_steps=400 // b, final_lr=0.1) for b, lr in TRIED]
    found = search(runs, question=question)
    assert schedule_of_recipe(found, 64, 0.2, 62) == {"schedule": "wsd", "warmup_steps": 6, "final_lr": 0.1}
    assert run_at(found, *PAIR) is found.runs[0]


def test_the_length_is_found_for_the_recipe_of_the_answer() -> None:
    """That is the current one where nothing is clearly better."""
    near = CurrentRecipe(batch_size=64, lr=0.19)
    found = search([*constant_runs(), run(64, 0.19)], schedule="wsd", current=near)
    assert answered(found) == (64, 0.19)
    plan = build_plan(found)
    assert plan.status is PlanStatus.KEEP_CURRENT
    assert plan.recipe is not None
    assert (plan.recipe.batch_size, plan.recipe.lr) == answered(found)
    far = search(constant_runs(), schedule="wsd", current=CurrentRecipe(batch_size=16, lr=0.01))
    assert answered(far) == (far.decision.batch_size, far.decision.lr)


# --- what is said -------------------------------------------------------------------------------------------------


def note(*horizons: StoredRun, **asked: Any) -> str:
    return compared_in_words(state(*horizons, **asked), PAIR)


def test_what_was_compared_how_is_a_note() -> None:
    reached = note(horizon(160), horizon(128, reached=False), final_lr=0.1)
    assert reached == (
        "batch sizes and learning rates were compared at a constant learning rate, and the schedule wsd down to 10 % "
        "of the learning rate was then run at the recipe alone: 2 runs of 128 and 160 steps, of which the recipe has "
        "the one that reached the target soonest, after 152 steps, and after 200 at a constant learning rate"
    )
    assert "learning rate, after a warm-up of 50 steps, and" in note(horizon(160), warmup=STEPS)
    assert "learning rate, and the schedule wsd was" in note(horizon(160), warmup=SHARE)
    missed = note(horizon(160, reached=False))
    assert missed.endswith("none of which reached the target, so that the recipe keeps the learning rate constant")
    assert note().endswith("at a constant learning rate, and no run was made with the schedule wsd")
    assert "the task's own schedule was then run" in note(horizon(160), schedule="task")
    for plan in (build_plan(state(horizon(160))), build_plan(search([run(64, 0.2, most=50)], schedule="wsd"))):
        assert any("compared at a constant learning rate" in said for said in plan.notes)


@pytest.mark.parametrize("asked", [{"schedule": "constant"}, {"schedule": "constant", "warmup": STEPS}])
def test_a_constant_learning_rate_needs_no_note(asked: dict[str, Any]) -> None:
    assert note(**asked) == ""
    assert compared_in_words(search(question=Question(within=FOUR_EPOCHS, schedule="wsd")), PAIR) == ""


def test_the_evidence_says_what_is_assumed_and_what_every_run_had() -> None:
    (assumed,) = evidence_of_schedule(state(schedule="cosine"))
    assert assumed.tag == "assumption"
    assert "taken to be best with the schedule cosine as well" in assumed.statement
    (within,) = evidence_of_schedule(search(question=Question(within=FOUR_EPOCHS, schedule="task")))
    assert (within.tag, within.statement) == (
        "measured",
        "every run had the task's own schedule over its length of 4 epochs, and so has the recipe",
    )
    (warm,) = evidence_of_schedule(state(schedule="constant", warmup=STEPS))
    assert warm.statement == "every run had a linear warm-up of 50 steps, and so has the recipe"
    assert evidence_of_schedule(state(schedule="constant")) == []
    assert schedule_in_short(Question(schedule="linear")) == "the schedule linear"


def test_easier_targets_are_answered_at_a_constant_learning_rate() -> None:
    easier = TARGET.__class__(metric=TARGET.metric, value=1.05 * TARGET.value, mode=TARGET.mode)
    found = state(horizon(160), warmup=SHARE, final_lr=0.1, easier_targets=(easier,))
    (answer,) = build_plan(found).easier_targets
    assert answer.recipe is not None
    assert (answer.recipe.schedule, answer.recipe.warmup_steps, answer.recipe.final_lr) == ("constant", 0, 0.0)


def test_a_horizon_that_diverged_is_none() -> None:
    lost = horizon(160, reached=False, status=RunStatus.DIVERGED)
    assert horizon_of(state(lost), *PAIR) is None
