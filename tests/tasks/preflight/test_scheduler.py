"""A scheduler, or several optimizers, made in `optimizer`: refused with what to do, which then works."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from batchscope.errors import TaskError
from batchscope.store.records import RunConfig
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

from .parts import Parts, run, sgd

SCHEDULERS: dict[str, Callable[[Optimizer, float], Any]] = {
    "LambdaLR, warm-up": lambda o, lr: lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / 50)),
    "OneCycleLR": lambda o, lr: lr_scheduler.OneCycleLR(o, max_lr=lr, total_steps=100),
    "CosineAnnealingLR": lambda o, lr: lr_scheduler.CosineAnnealingLR(o, 100),
    "CosineAnnealingWarmRestarts": lambda o, lr: lr_scheduler.CosineAnnealingWarmRestarts(o, 10),
    "StepLR": lambda o, lr: lr_scheduler.StepLR(o, 10),
    "LinearLR": lambda o, lr: lr_scheduler.LinearLR(o),
    "ConstantLR": lambda o, lr: lr_scheduler.ConstantLR(o),
    "ExponentialLR": lambda o, lr: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o, lr: lr_scheduler.PolynomialLR(o),
    "MultiplicativeLR": lambda o, lr: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "CyclicLR": lambda o, lr: lr_scheduler.CyclicLR(o, lr / 10, lr),
    "SequentialLR": lambda o, lr: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 90)], [10]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_that_is_made_and_dropped_is_recognised(name: str) -> None:
    def scheduled(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        optimizer = torch.optim.SGD(params, lr=lr, momentum=0.9)
        SCHEDULERS[name](optimizer, lr)
        return optimizer

    with pytest.raises(TaskError) as caught:
        run(make_optimizer=scheduled)
    message = str(caught.value)
    assert "optimizer(params, lr) made a scheduler for the optimizer" in message
    assert all(word in message for word in ("--warmup", "--schedule", "def schedule(self, progress: float) -> float"))


def test_the_learning_rate_that_it_left_is_said() -> None:
    def scheduled(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        optimizer = torch.optim.SGD(params, lr=lr)
        lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
        return optimizer

    with pytest.raises(TaskError, match=r"set its learning rate to 2e-05 from 0.001; nothing steps it"):
        run(make_optimizer=scheduled)


def test_a_scheduler_outside_torch_that_marks_the_groups_only() -> None:
    def scheduled(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        optimizer = torch.optim.SGD(params, lr=lr)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return optimizer

    with pytest.raises(TaskError, match="made a scheduler for the optimizer; nothing steps it"):
        run(make_optimizer=scheduled)


def test_the_advice_works_the_member_schedule_sets_the_learning_rate() -> None:
    class Scheduled(Parts):
        def schedule(self, progress: float) -> float:
            return 1.0 - progress

    lrs: list[float] = []

    class Told(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            lrs.append(self.param_groups[0]["lr"])
            super().step()

    workload = Workload(Scheduled(make_optimizer=lambda params, lr: Told(params, lr=lr)))
    assert check(workload).notes == ()
    lrs.clear()
    config = RunConfig(task="x", batch_size=8, micro_batch_size=8, lr=0.4, max_steps=4, schedule="task")
    Training(workload, config).advance()
    assert lrs == pytest.approx([0.4, 0.3, 0.2, 0.1])


def lightning(params: Iterable[nn.Parameter], lr: float) -> Any:
    optimizer = sgd(params, lr)
    return [optimizer], [lr_scheduler.StepLR(optimizer, 3)]


def as_dict(params: Iterable[nn.Parameter], lr: float) -> Any:
    optimizer = sgd(params, lr)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": lr_scheduler.StepLR(optimizer, 3), "interval": "step"},
    }


def plateau(params: Iterable[nn.Parameter], lr: float) -> Any:
    optimizer = sgd(params, lr)
    return optimizer, lr_scheduler.ReduceLROnPlateau(optimizer)


def scheduler_alone(params: Iterable[nn.Parameter], lr: float) -> Any:
    return lr_scheduler.StepLR(sgd(params, lr), 3)


def two(params: Iterable[nn.Parameter], lr: float) -> Any:
    weight, bias = params
    return [torch.optim.SGD([weight], lr=lr), torch.optim.Adam([bias], lr=lr)]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lightning, r"returned a tuple \(SGD, StepLR\), and a task's optimizer comes without a scheduler: .*--warmup"),
        (as_dict, r"returned a dict \(SGD, StepLR\), and a task's optimizer comes without a scheduler: .*--schedule"),
        (plateau, r"returned a tuple \(SGD, ReduceLROnPlateau\), .*def schedule\(self, progress"),
        (scheduler_alone, r"returned a StepLR, and a task's optimizer comes without a scheduler: return the optimizer"),
        (two, r"returned a list \(SGD, Adam\), and a task has one optimizer: .*parameter group.*step\(\) steps all"),
        (lambda p, lr: {"g": sgd(list(p)[:1], lr), "d": sgd(list(p)[1:], lr)}, r"returned a dict \(SGD, SGD\), and a"),
        (lambda params, lr: (sgd(params, lr),), r"returned a tuple \(SGD\): return the optimizer itself"),
        (lambda params, lr: [], r"returned list, which is no torch optimizer"),
    ],
)
def test_what_is_returned_beside_an_optimizer(optimizer: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(make_optimizer=optimizer)


class Several(Optimizer):
    """Several optimizers as one: their parameter groups are its own, its step steps them all."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for part in self.parts:
            part.step()


def groups(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    weight, bias = params
    return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": lr / 2}], lr=lr)


def several(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return Several(*two(params, lr))


@pytest.mark.parametrize("optimizer", [groups, several])
def test_both_ways_out_of_several_optimizers_work(optimizer: Callable[..., Any]) -> None:
    workload = Workload(Parts(make_optimizer=optimizer))
    check(workload)
    config = RunConfig(task="x", batch_size=8, micro_batch_size=8, lr=0.1, max_steps=4, schedule="linear")
    training = Training(workload, config)
    before = [p.detach().clone() for p in training.model.parameters()]
    training.advance()
    moved: list[Tensor] = [p.detach() - b for p, b in zip(training.model.parameters(), before, strict=True)]
    assert all(bool(each.any()) for each in moved)
