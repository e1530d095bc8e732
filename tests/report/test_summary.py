from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from batchscope.report import build
from batchscope.report.basis import rest_of_message
from batchscope.report.summary import (
    course_in_words,
    is_unsure,
    schedule_in_words,
    summary,
    tokens_to_target,
    what_it_rests_on,
)
from batchscope.store.records import TARGET_OF_TABLE, EarlyStop, Plan, PlanStatus, RestsOn, RunEvaluations, TaskProgram
from batchscope.wording import sentence

from . import plans


def text(plan: Plan) -> str:
    return " ".join(summary(plan))


def test_the_first_sentence_says_what_to_set() -> None:
    assert summary(plans.ok())[0] == "Train with batch size 128 and learning rate 0.276."
    assert summary(plans.keep_current())[0] == "Keep training with batch size 128 and learning rate 0.3."


def test_accumulation_schedule_and_optimizer_changes_are_said() -> None:
    recipe = dataclasses.replace(
        plans.recipe(128, micro=32), schedule="cosine", warmup_steps=10, optimizer_changes={"betas": [0.9, 0.98]}
    )
    first = summary(dataclasses.replace(plans.ok(), recipe=recipe))[0]
    assert "batch size 128 (4 accumulated micro-batches of 32 examples)" in first
    assert "falling to zero (cosine) after 10 steps of linear warm-up" in first
    assert "set betas = [0.9, 0.98] in the optimizer" in first


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "constant"),
        ({"warmup_steps": 1}, "constant after 1 step of linear warm-up"),
        ({"schedule": "linear"}, "falling to zero (linear)"),
        ({"schedule": "cosine", "final_lr": 0.1}, "falling to 10 % of it (cosine)"),
        ({"schedule": "cosine", "final_lr": 0.005}, "falling to 0.5 % of it (cosine)"),
        ({"schedule": "wsd"}, "constant for four fifths, then falling to zero (wsd)"),
        (
            {"schedule": "wsd", "warmup_steps": 9, "final_lr": 0.25},
            "constant for four fifths, then falling to 25 % of it (wsd) after 9 steps of linear warm-up",
        ),
        ({"schedule": "task"}, "times the task's own schedule(progress)"),
    ],
)
def test_every_schedule_in_words(members: dict[str, Any], said: str) -> None:
    recipe = dataclasses.replace(plans.recipe(128), steps=180, **members)
    assert schedule_in_words(recipe) == said
    over = "" if recipe.schedule == "constant" else ", over 180 steps in all"
    assert course_in_words(recipe) == said + over
    first = summary(dataclasses.replace(plans.ok(), recipe=recipe))[0]
    assert (f"learning rate 0.276, {said}{over}." in first) == bool(members)


def test_where_a_schedule_sets_the_length_the_target_is_expected_when_it_is_predicted() -> None:
    plan = plans.ok()
    assert plan.predicted is not None
    recipe = dataclasses.replace(plans.recipe(128), schedule="wsd", steps=400, epochs=40.0)
    predicted = dataclasses.replace(
        plan.predicted, steps_to_target=dataclasses.replace(plan.predicted.steps_to_target, value=299.3)
    )
    said = text(dataclasses.replace(plan, recipe=recipe, predicted=predicted))
    assert "over 400 steps in all." in said
    assert "expected after about 300 steps (26.7 epochs)" in said


def test_it_says_when_to_stop_what_to_expect_and_how_sure_it_is() -> None:
    said = text(plans.ok())
    assert "Stop at the first evaluation with val_loss<=0.12, expected after about 180 steps (16 epochs)" in said
    assert "nothing has improved for 45 steps (4.01 epochs)" in said
    assert "437 ms (380–503)" in said
    assert "The probability that no other recipe is more than 5 % better is 83 %." in said
    assert "Verified by a run at exactly this recipe: 187 steps, 460 ms, val_loss 0.119." in said
    assert (
        "It replaces batch size 16 with learning rate 0.02, which is predicted to take 1.52 s (1.32–1.75): 3.5 times"
        in said
    )


def test_within_a_length_the_metric_is_expected_and_training_goes_on_to_the_end() -> None:
    said = text(plans.within())
    assert "learning rate 0.276: expected to end best in val_loss after 20 epochs." in said
    assert "Train for about 224 steps (20 epochs)." in said
    assert "That takes 546 ms on a two-core CPU" in said
    assert "A run at exactly this recipe ended at val_loss 0.119 after 187 steps. Another is expected to end at" in said
    assert "0.12 (0.11–0.13) (90 % credible interval)" in said
    assert "It replaces batch size 16 with learning rate 0.02." in said
    assert "probability" not in said
    assert "Stop at" not in said


def test_a_recipe_that_is_probably_not_the_best_says_so() -> None:
    for probability, unsure in ((0.12, True), (0.49, True), (0.51, False), (None, False)):
        plan = dataclasses.replace(plans.ok(), probability_within_5_percent=probability)
        assert ("with a larger --trainings N: the search then goes on" in text(plan)) == unsure
        assert ("add the runs to runs.csv" in text(dataclasses.replace(plan, table="runs.csv"))) == unsure
        assert is_unsure(plan) == unsure


def test_the_target_of_a_table_that_nobody_named_has_no_name() -> None:
    plan = dataclasses.replace(plans.ok(), target=TARGET_OF_TABLE, table="runs.csv")
    said = text(plan)
    assert "Stop at the first evaluation at the target of the table, expected after" in said
    assert "Predicted time to the target of the table on" in said
    for shown in (said, build(plan, [])):
        assert "target_reached&gt;" not in shown
        assert "target_reached>" not in shown
    refused = dataclasses.replace(plan, recipe=None, predicted=None)
    assert "runs.csv holds" in text(refused)
    assert "The target was" not in text(refused)


def test_a_warning_is_said_once_also_of_the_message_of_an_earlier_version() -> None:
    rests_on = RestsOn(batch_sizes=(128,), lrs=(0.1,), runs=1, reached=1)
    warned = "only batch size 128 was run: how other batch sizes compare with it is assumed, not measured"
    for message in (f"{warned}; the fastest recipe found", f"{sentence(warned)} The fastest recipe found."):
        plan = dataclasses.replace(plans.ok(), rests_on=rests_on, message=message)
        assert rest_of_message(plan) == "The fastest recipe found."


def test_an_unverified_recipe_says_so() -> None:
    assert "No run at exactly this recipe has reached the target" in text(plans.keep_current())


def test_the_gain_in_examples_is_in_examples() -> None:
    said = text(dataclasses.replace(plans.ok(), objective="examples"))
    assert "0.97 times as many examples" in said


def with_lengths(**changes: Any) -> Plan:
    recipe = dataclasses.replace(plans.recipe(128), **changes)
    return dataclasses.replace(plans.ok(), recipe=recipe)


def test_below_an_epoch_lengths_are_told_in_steps_and_examples() -> None:
    early = EarlyStop(best_epoch=0.011, patience=0.00411)
    plan = with_lengths(steps=100, steps_per_epoch=10_000.0, epochs=0.01, early_stop=early)
    assert "about 100 steps (12,800 examples), or when nothing has improved for 42 steps (5,376 examples)." in text(
        plan
    )
    assert "epoch" not in text(plan)


def test_without_epochs_lengths_are_told_in_steps_and_examples() -> None:
    unknown = EarlyStop(best_epoch=None, patience=None)
    plan = with_lengths(steps=100, steps_per_epoch=None, epochs=None, early_stop=unknown)
    assert "expected after about 100 steps (12,800 examples)." in text(plan)


def test_tokens_are_told_where_the_loss_is_a_mean_over_them() -> None:
    program = TaskProgram(spec="gpt.py:task", members=("loss_weight",), tokens_per_example=255.5)
    plan = dataclasses.replace(with_lengths(steps=100, steps_per_epoch=50.0, epochs=2.0), program=program)
    assert "about 100 steps (2 epochs, 3,270,000 tokens), or when" in text(plan)
    assert plan.predicted is not None
    tokens = tokens_to_target(plan, plan.predicted)
    assert tokens is not None
    assert tokens.value == 255.5 * (plan.predicted.examples_to_target.value or 0)
    assert tokens_to_target(plans.ok(), plan.predicted) is None


def test_without_a_recipe_the_reason_comes_first() -> None:
    plan = plans.not_reached()
    assert summary(plan)[0] == plan.message
    assert summary(dataclasses.replace(plans.bare(), message=""))


def test_every_status_and_every_missing_part_has_words() -> None:
    for status in PlanStatus:
        for change in ({"predicted": None}, {"target": None}, {"current_predicted": None}, {"bench": None}):
            said = summary(dataclasses.replace(plans.ok(), status=status, **change))
            assert all(sentence.endswith(".") for sentence in said)


def test_noisy_evaluations_and_the_level_at_which_a_run_ends_are_told() -> None:
    plan = plans.ok()
    assert plan.target is not None
    assert plan.verified is not None
    noisy = dataclasses.replace(
        plan,
        target=dataclasses.replace(plan.target, confirm=3),
        verified=dataclasses.replace(plan.verified, ends_at=plans.about(0.13, unit="val_loss")),
        measured=dataclasses.replace(plan.measured, evaluation_spread=plans.about(0.02, unit="val_loss")),
        evaluations=RunEvaluations(number=40, every_steps=20, every_examples=2560),
    )
    said = " ".join([*summary(noisy), *what_it_rests_on(noisy)])
    assert f"Stop at the end of 3 evaluations in a row with {plan.target}, of which the first is expected after" in said
    assert "Its last evaluations are at 0.13 (0.113–0.149) on average." in said
    assert "with a standard deviation of 0.02 (0.0174–0.023)." in said
