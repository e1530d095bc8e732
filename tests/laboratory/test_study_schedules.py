"""Schedules in studies: every arm has the one that was asked for, or the study says why it cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.fits.schedules import WarmUp
from batchscope.laboratory.configuration import check_schedule_of, with_schedule
from batchscope.laboratory.records import Arm, Length, StudyQuestion
from batchscope.laboratory.studies import named_study, names
from batchscope.store.runs import read_runs
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.workload import Workload

from .quadratic import Quadratic, made, question

CONSTANT_ALONE = ("recovery", "trial_and_error")
WARM = WarmUp.parse("5steps")


@pytest.mark.parametrize("name", names())
def test_every_arm_of_a_named_study_has_the_schedule_asked_for(name: str) -> None:
    named = named_study(name)
    asked = replace(named.question, schedule="wsd", warmup=WARM, final_lr=0.1)
    if name in CONSTANT_ALONE:
        with pytest.raises(UsageError, match="leave --schedule and --warmup out"):
            named.arms(asked, 60_000)
        return
    arms = named.arms(asked, 60_000)
    assert arms
    assert {(arm.schedule, arm.warmup, arm.final_lr) for arm in arms} == {("wsd", WARM, 0.1)}


def arm(length: Length, **members: Any) -> Arm:
    return Arm(batch_size=64, lr=0.1, length=length, **members)


EPOCHS, SECONDS = Length(unit="epochs", amount=2), Length(unit="seconds", amount=5)
"""45 steps of 64 of the 1,437 training examples of `digits`, and nobody knows how many."""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            arm(EPOCHS, warmup=WarmUp.parse("45steps")),
            "45 steps at batch size 64, and a run of 2 epochs has 45",
        ),
        (
            arm(EPOCHS, warmup=WarmUp.parse("3000examples")),
            "47 steps at batch size 64, and a run of 2 epochs has 45",
        ),
        (arm(SECONDS, warmup=WarmUp.parse("5%")), "give --epochs or --steps, or the warm-up in steps or examples"),
        (arm(SECONDS, schedule="wsd"), "a wsd schedule decays over a known number of steps; give --epochs or --steps"),
        (arm(SECONDS, schedule="task"), "the task has no member schedule"),
    ],
)
def test_a_schedule_that_does_not_fit_the_length_is_refused(asked: Arm, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_schedule_of(asked, Workload(digits()))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "asked",
    [
        arm(EPOCHS, warmup=WarmUp.parse("44steps")),
        arm(EPOCHS, warmup=WarmUp.parse("5%"), schedule="wsd", final_lr=0.1),
        arm(SECONDS, warmup=WarmUp.parse("100steps")),
        arm(SECONDS),
    ],
)
def test_one_that_fits_passes(asked: Arm) -> None:
    check_schedule_of(asked, Workload(digits()))


def test_a_question_with_an_end_that_no_schedule_has_is_refused() -> None:
    with pytest.raises(UsageError, match="add --schedule linear, cosine or wsd"):
        StudyQuestion(batch_sizes=(8,), lrs=(0.1,), schedule="constant", final_lr=0.1)
    with pytest.raises(UsageError, match="add --schedule linear, cosine or wsd"):
        with_schedule(StudyQuestion(batch_sizes=(8,), lrs=(0.1,), final_lr=0.1), object())


class Falling(Quadratic):
    """A quadratic with a schedule of its own."""

    def schedule(self, progress: float) -> float:
        return 1.0 - progress


def test_a_study_in_python_trains_at_the_tasks_own_schedule(tmp_path: Path) -> None:
    found = made(tmp_path, question(seeds=(0,), lrs=(0.1,)), Falling())
    assert found.question.schedule == "task"
    assert {run.config.schedule for run in read_runs(tmp_path / "out")} == {"task"}
    with pytest.raises(UsageError, match="leave that out"):
        made(tmp_path / "other", question(schedule="wsd"), Falling())
    assert made(tmp_path / "plain", question(seeds=(0,), lrs=(0.1,))).question.schedule == "constant"


class Sampled(Quadratic):
    """An epoch of 10 of the 40 examples."""

    def sampler(self, seed: int) -> Iterable[int]:
        return range(10)


def test_a_warm_up_is_compared_with_the_epochs_of_the_sampler() -> None:
    """Two epochs of ten are 2 steps of 10, not the 8 of the whole training set."""
    asked = Arm(batch_size=10, lr=0.1, length=EPOCHS, warmup=WarmUp.parse("4steps"))
    with pytest.raises(UsageError, match="and a run of 2 epochs has 2 steps"):
        check_schedule_of(asked, Workload(Sampled()))
