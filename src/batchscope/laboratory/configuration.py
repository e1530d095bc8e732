"""From an arm and a seed to the configuration of a run, and to the rules that end it."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UsageError
from ..fits.schedules import schedule_of_task
from ..fits.step_time import StepTime
from ..store.records import RunConfig, Target
from ..tasks.workload import Workload
from ..training.stopping import PatienceRule, RoseRule, StopRule
from ..wording import plural
from .records import EXAMPLES_OF_RUN, Arm, StudyQuestion

__all__ = ["check_schedule_of", "rules_of", "run_config", "with_schedule"]

_EVALUATIONS = 30
"""Of a run whose length is given in steps or seconds, unless an epoch is shorter."""
_ENDLESS = 10**9


def with_schedule(question: StudyQuestion, task: object) -> StudyQuestion:
    """The question with its schedule decided: the one asked for, else the task's own, else constant.

    Raises:
        UsageError: the task has a schedule, and another, a warm-up or an end of it was asked for; or an end of none.
    """
    own = getattr(task, "schedule", None)
    return replace(question, schedule=schedule_of_task(own, question.schedule, question.warmup, question.final_lr))


def run_config(
    arm: Arm, seed: int, workload: Workload, *, examples: int, target: Target, step_time: StepTime
) -> RunConfig:
    """Everything that decides the course of an arm's run.

    Args:
        arm: what is trained.
        seed: of the weights and of the order of the examples.
        workload: the task that the run is made on.
        examples: in the training set of the task as it came; a run on another number names its own.
        target: the metric that choices are made by.
        step_time: says how many steps a run of so many seconds has.

    Raises:
        UsageError: the batch is larger than the training set, or the schedule does not fit the run's length.
    """
    if arm.batch_size > (most := workload.largest_batch()):
        raise UsageError(
            f"a batch size of {arm.batch_size} is larger than the training set of {most} examples; give batch sizes of "
            f"at most {most}"
        )
    steps, length = arm.length.steps(workload.epoch, arm.batch_size), arm.length
    check_schedule_of(arm, workload)
    settings = {**workload.settings, **({"variant": arm.variant} if arm.variant else {})}
    if workload.epoch != examples:
        settings[EXAMPLES_OF_RUN] = workload.epoch
    if length.unit in ("seconds", "until-stopped"):
        settings["until"] = str(length)
    return RunConfig(
        task=workload.name,
        settings=settings,
        batch_size=arm.batch_size,
        micro_batch_size=arm.batch_size,
        lr=arm.lr,
        optimizer_changes=arm.optimizer_changes,
        schedule=arm.schedule,
        warmup_steps=0 if arm.warmup is None else arm.warmup.steps(arm.batch_size, steps or _ENDLESS),
        final_lr=arm.final_lr or 0.0,
        seed=seed,
        target=target,
        max_steps=steps or _ENDLESS,
        evaluation_epochs=_spacing(arm, workload.epoch, step_time),
        device=str(workload.device.torch_device),
        purpose="study",
    )


def check_schedule_of(arm: Arm, workload: Workload) -> None:
    """Refuse a schedule or a warm-up that does not fit the length of an arm's runs.

    Raises:
        UsageError: one that needs the number of steps is asked for where the clock or early stopping decides it, the
            warm-up is as long as the run, or the task has no schedule of its own.
    """
    known = arm.length.unit in ("epochs", "steps")
    if arm.schedule == "task":
        schedule_of_task(workload.schedule, arm.schedule, None, None)
    if arm.schedule != "constant" and not known:
        name = "the task's own schedule goes" if arm.schedule == "task" else f"a {arm.schedule} schedule decays"
        raise UsageError(f"{name} over a known number of steps; give --epochs or --steps")
    if arm.warmup is None:
        return
    if arm.warmup.unit == "share" and not known:
        raise UsageError(
            f"--warmup {arm.warmup} is a share of a known number of steps; give --epochs or --steps, or the warm-up in "
            "steps or examples, for example --warmup 100steps"
        )
    most = arm.length.steps(workload.epoch, arm.batch_size)
    if most is not None and (steps := arm.warmup.steps(arm.batch_size, most)) >= most:
        raise UsageError(
            f"--warmup {arm.warmup} is {plural(steps, 'step')} at batch size {arm.batch_size}, and a run of "
            f"{arm.length} has {plural(most, 'step')}: it would never train at its learning rate; give a shorter "
            "warm-up, for example --warmup 5%, longer runs or smaller batches"
        )


def rules_of(arm: Arm, examples: int) -> list[StopRule]:
    """What ends a run of an arm early, the clock apart: a loss that is lost, and its patience."""
    patience = arm.length.patience
    early = [PatienceRule(patience=patience, steps_per_epoch=examples / arm.batch_size)] if patience else []
    return [RoseRule(), *early]


def _spacing(arm: Arm, examples: int, step_time: StepTime) -> float:
    """Epochs from one evaluation to the next: one, or a thirtieth of a run that is shorter than thirty."""
    length = arm.length
    if length.unit in ("epochs", "until-stopped"):
        return 1.0
    steps = length.amount if length.unit == "steps" else length.amount / step_time.of_batch(arm.batch_size)
    return min(1.0, float(f"{max(1.0, steps / _EVALUATIONS) * arm.batch_size / examples:.3g}"))
