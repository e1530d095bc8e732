from __future__ import annotations

import dataclasses

from batchscope.report.summary import summary, what_it_rests_on
from batchscope.store.records import EarlyStop, Plan, PlanStatus, RunEvaluations

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


def test_it_says_when_to_stop_what_to_expect_and_how_sure_it_is() -> None:
    said = text(plans.ok())
    assert "Stop at the first evaluation with val_loss<=0.12, expected after about 180 steps (16.4 epochs)" in said
    assert "nothing has improved for 4 epochs" in said
    assert "437 ms (380–503)" in said
    assert "probability of 83 %" in said
    assert "Verified by a run at exactly this recipe: 187 steps, 460 ms, val_loss 0.119." in said
    assert (
        "It replaces batch size 16 with learning rate 0.02, which is predicted to take 1.52 s (1.32–1.75): 3.5 times"
        in said
    )


def test_within_a_length_the_metric_is_expected_and_training_goes_on_to_the_end() -> None:
    said = text(plans.within())
    assert "learning rate 0.276: the best val_loss found within 20 epochs." in said
    assert "Train for about 224 steps (20 epochs), or when nothing has improved for 4 epochs." in said
    assert "That takes 546 ms on a two-core CPU" in said
    assert "A run at exactly this recipe came to val_loss 0.119 after 187 steps" in said
    assert "It replaces batch size 16 with learning rate 0.02." in said
    assert "probability" not in said
    assert "Stop at" not in said


def test_an_unverified_recipe_says_so() -> None:
    assert "No run at exactly this recipe has reached the target" in text(plans.keep_current())


def test_the_gain_in_examples_is_in_examples() -> None:
    said = text(dataclasses.replace(plans.ok(), objective="examples"))
    assert "0.97 times as many examples" in said


def test_one_epoch_is_singular() -> None:
    recipe = dataclasses.replace(plans.recipe(), early_stop=EarlyStop(best_epoch=1.0, patience=1.0))
    assert "for 1 epoch." in text(dataclasses.replace(plans.ok(), recipe=recipe))


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
    assert "; the level of its last evaluations is 0.13 (0.113–0.149)" in said
    assert "near the target one evaluation of val_loss has a standard deviation of 0.02 (0.0174–0.023)." in said
