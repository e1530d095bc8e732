"""Schedules inside runs: a plain loop with torch's LambdaLR comes to the same weights, and a run in parts as well."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from batchscope.errors import TaskError
from batchscope.fits.schedules import lr_factor
from batchscope.hardware.random_state import seed_everything
from batchscope.store.courses import course_of
from batchscope.store.records import RunConfig, RunStatus
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training, train
from batchscope.training.stopping import StepLimitRule

from .recursions import Quadratic, Regression, config, loss_at, run

STEPS = 30
DATA_SEED = 1_000_003


class WithSchedule(Regression):
    """Half a cosine with a warm-up of its own, and two groups whose learning rates differ."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def schedule(self, progress: float) -> float:
        self.asked.append(progress)
        return min(1.0, 10 * progress + 0.1) * (1 + math.cos(math.pi * progress)) / 2

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        first, *rest = list(params)
        return torch.optim.AdamW([{"params": [first], "lr": lr / 10}, {"params": rest}], lr=lr)


class WithItsOwn(Regression):
    """A parameter group whose learning rate does not follow the one asked for."""

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        first, *rest = list(params)
        return torch.optim.SGD([{"params": [first], "lr": 0.005}, {"params": rest}], lr=lr)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "constant after a warm-up": (Regression, {"warmup_steps": 6}),
    "linear to a tenth": (Regression, {"schedule": "linear", "final_lr": 0.1}),
    "cosine after a warm-up": (Regression, {"schedule": "cosine", "warmup_steps": 6}),
    "wsd after a warm-up": (Regression, {"schedule": "wsd", "warmup_steps": 6, "final_lr": 0.05}),
    "linear for a group with a learning rate of its own": (WithItsOwn, {"schedule": "linear"}),
    "the task's own": (WithSchedule, {"schedule": "task"}),
}


def asked(**changes: Any) -> RunConfig:
    return config(lr=0.02, max_steps=STEPS, **changes)


def by_hand(task: Any, of: RunConfig) -> nn.Module:
    """The model that a plain loop trains, with a LambdaLR that is stepped after each step."""
    seed_everything(of.seed)
    model = task.model()
    optimizer = task.optimizer(model.parameters(), of.lr)

    def factor(step: int) -> float:
        if of.schedule == "task":
            return task.schedule(step / of.max_steps)
        return lr_factor(of.schedule, step, of.max_steps, warmup=of.warmup_steps, final_lr=of.final_lr)

    schedule = LambdaLR(optimizer, factor)
    batches = Workload(task).micro_batches(of.batch_size, 1, of.seed + DATA_SEED)
    for _ in range(of.max_steps):
        (batch,) = next(batches)
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        schedule.step()
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_plain_loop_with_lambda_lr_comes_to_the_same_weights(case: str) -> None:
    make, members = CASES[case]
    training = Training(Workload(make()), asked(**members))
    assert training.advance().status is RunStatus.OUT_OF_STEPS
    for ours, plain in zip(training.model.parameters(), by_hand(make(), asked(**members)).parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_run_in_parts_has_the_schedule_of_the_whole(case: str) -> None:
    make, members = CASES[case]
    whole, parted = Training(Workload(make()), asked(**members)), Training(Workload(make()), asked(**members))
    whole.advance()
    for steps in (4, 7, 25):
        assert parted.advance([StepLimitRule(steps=steps)]).status is RunStatus.PAUSED
    parted.advance()
    for one, other in zip(whole.model.parameters(), parted.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_task_is_asked_for_the_share_of_the_run_before_each_step() -> None:
    task = WithSchedule()
    train(Workload(task), asked(schedule="task"))
    assert task.asked == pytest.approx([step / STEPS for step in range(STEPS)])


def test_the_tasks_own_schedule_is_followed_exactly() -> None:
    class Halving(Quadratic):
        def schedule(self, progress: float) -> float:
            return 0.5 ** int(4 * progress)

    result, _ = run(Halving(), schedule="task", max_steps=20)
    assert result.last["val_loss"] == pytest.approx(loss_at([0.5 ** (s // 5) for s in range(20)]), rel=1e-10)


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf])
def test_a_schedule_that_gives_no_factor_is_a_mistake_of_the_task(factor: float) -> None:
    class Broken(Quadratic):
        def schedule(self, progress: float) -> float:
            return factor

    with pytest.raises(TaskError, match=r"schedule\(0\) returned .*a finite number of at least 0"):
        run(Broken(), schedule="task")


def test_which_runs_are_of_one_course() -> None:
    """At a constant learning rate a longer run begins as a shorter one, with a warm-up too; under a schedule not."""

    def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return course_of(config(**one)) == course_of(config(**other))

    assert same({"warmup_steps": 5, "max_steps": 20}, {"warmup_steps": 5, "max_steps": 900, "purpose": "probe"})
    assert not same({"warmup_steps": 5}, {})
    for name in ("linear", "cosine", "wsd", "task"):
        assert not same({"schedule": name, "max_steps": 20}, {"schedule": name, "max_steps": 21})
        assert same({"schedule": name, "max_steps": 20}, {"schedule": name, "max_steps": 20, "purpose": "probe"})
    assert not same({"schedule": "wsd"}, {"schedule": "wsd", "final_lr": 0.1})


class Valley(Quadratic):
    """Loss (w^4) / 4 from far out: its curvature 3 w^2 falls by a factor of 100 and more on the way in."""

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        return (0.25 * (4.0 * model.w - batch[0]) ** 4).sum(1).mean()

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"val_loss": float((0.25 * (4.0 * model.w.detach()) ** 4).sum())}


def test_a_task_that_needs_a_warm_up_diverges_without() -> None:
    with_it, _ = run(Valley(), lr=0.02, warmup_steps=50, max_steps=400)
    without, _ = run(Valley(), lr=0.02, max_steps=400)
    assert without.status is RunStatus.DIVERGED
    assert with_it.status is RunStatus.OUT_OF_STEPS
    assert with_it.last["val_loss"] < 0.01
