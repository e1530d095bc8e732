"""From an arm and a seed to the configuration of a run, and to the rules that end it."""

from __future__ import annotations

from ..errors import UsageError
from ..fits.step_time import StepTime
from ..store.records import RunConfig, Target
from ..tasks.workload import Workload
from ..training.stopping import PatienceRule, RoseRule, StopRule
from .records import EXAMPLES_OF_RUN, Arm

__all__ = ["rules_of", "run_config"]

_EVALUATIONS = 30
"""Of a run whose length is given in steps or seconds, unless an epoch is shorter."""
_ENDLESS = 10**9


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
        UsageError: the batch is larger than the training set, or a decaying schedule has no end.
    """
    if arm.batch_size > (most := workload.largest_batch()):
        raise UsageError(
            f"a batch size of {arm.batch_size} is larger than the training set of {most} examples; give batch sizes of "
            f"at most {most}"
        )
    steps, length = arm.length.steps(workload.epoch, arm.batch_size), arm.length
    if arm.schedule != "constant" and length.unit in ("seconds", "until-stopped"):
        raise UsageError(f"a {arm.schedule} schedule decays over a known number of steps; give --epochs or --steps")
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
        warmup_steps=arm.warmup_steps,
        seed=seed,
        target=target,
        max_steps=steps or _ENDLESS,
        evaluation_epochs=_spacing(arm, workload.epoch, step_time),
        device=str(workload.device.torch_device),
        purpose="study",
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
