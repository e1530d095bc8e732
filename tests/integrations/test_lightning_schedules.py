"""Optimizer and scheduler of a Lightning module: all that `configure_optimizers` returns, and what runs make of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from batchscope.errors import TaskError
from batchscope.integrations.lightning import task
from batchscope.integrations.lightning.optimizers import configured, set_lr
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .lightning_modules import QUIET, Classifier, Data, make_trainer

pytestmark = QUIET


def made_with(make: Any, **trainer: Any) -> Any:
    """A task whose module returns what `make(module, optimizer)` does."""

    class Configured(Classifier):
        def configure_optimizers(self) -> Any:
            return make(self, torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9))

    return task(Configured, Data, make_trainer(**trainer) if trainer else None)


def by_step(scheduler: Any) -> Any:
    return {"scheduler": scheduler, "interval": "step"}


@pytest.mark.parametrize(
    "form",
    [
        lambda o, s: o,
        lambda o, s: [o],
        lambda o, s: (o,),
        lambda o, s: {"optimizer": o},
        lambda o, s: {"optimizer": o, "lr_scheduler": s},
        lambda o, s: {"optimizer": o, "lr_scheduler": {"scheduler": s, "interval": "step"}},
        lambda o, s: ([o], [s]),
        lambda o, s: ([o], [{"scheduler": s, "interval": "step"}]),
        lambda o, s: ([o], []),
        lambda o, s: [{"optimizer": o, "lr_scheduler": s}],
    ],
)
def test_each_form_holds_the_optimizer_and_is_left_without_a_trace_of_the_scheduler(form: Any) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 0.25)
    made = configured(form(optimizer, scheduler))
    assert made.optimizer is optimizer
    assert made.lr == 0.1
    set_lr(made, 0.3)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert "initial_lr" not in optimizer.param_groups[0]
    assert not hasattr(optimizer.step, "_wrapped_by_lr_sched")


def test_groups_keep_their_ratio_and_it_is_said() -> None:
    made = task(Classifier, Data, make_trainer)
    model = made.model()
    assert [group["lr"] for group in made.optimizer(model, 0.5).param_groups] == pytest.approx([0.5, 0.1])
    notes = " ".join(check(Workload(made)).notes)
    assert "0.2" in notes


def test_a_learning_rate_of_zero_is_refused() -> None:
    with pytest.raises(TaskError, match="with the learning rate 0"):
        made_with(lambda module, optimizer: torch.optim.SGD(module.parameters(), lr=0.0))


def cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def triangle(progress: float) -> float:
    return progress / 0.2 if progress < 0.2 else (1.0 - progress) / 0.8


def test_a_schedule_over_the_announced_steps_is_one_of_the_share() -> None:
    def total(module: Any) -> int:
        return int(module.trainer.estimated_stepping_batches)

    kinds = {
        cosine: lambda module, o: {"optimizer": o, "lr_scheduler": by_step(CosineAnnealingLR(o, total(module)))},
        triangle: lambda module, o: ([o], [by_step(LambdaLR(o, lambda step: triangle(step / total_of[0])))]),
    }
    total_of = [1]
    for expected, make in kinds.items():

        def remembering(module: Any, o: Any, make: Any = make) -> Any:
            total_of[0] = total(module)
            return make(module, o)

        for trainer in ({}, {"max_steps": 500}):
            made = made_with(remembering, **trainer)
            for share in (0.0, 0.1, 0.2, 0.333, 0.5, 0.9, 1.0):
                assert made.schedule(share) == pytest.approx(expected(share), abs=1e-4)
            assert "is taken over as the task's schedule" in " ".join(made.data_notes)


def test_a_schedule_by_epochs_is_one_of_the_trainers_epochs() -> None:
    made = made_with(lambda module, o: ([o], [MultiStepLR(o, [2, 3])]), max_epochs=4, max_steps=-1)
    assert [round(made.schedule(share), 6) for share in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]


def test_a_run_as_long_as_the_trainers_has_exactly_its_factors() -> None:
    made = made_with(lambda module, o: ([o], [by_step(ExponentialLR(o, 0.9))]), max_steps=40)
    assert [made.schedule(step / 40) for step in range(40)] == pytest.approx(
        [0.9**step for step in range(40)], abs=1e-12
    )


def test_the_learning_rate_of_one_cycle_is_its_largest() -> None:
    def make(module: Any, optimizer: Any) -> Any:
        steps = int(module.trainer.estimated_stepping_batches)
        return [optimizer], [by_step(OneCycleLR(optimizer, max_lr=0.4, total_steps=steps))]

    made = made_with(make)
    notes = " ".join(made.data_notes)
    assert max(made.schedule(step / 1000) for step in range(1001)) == pytest.approx(1.0, abs=1e-4)
    assert made.schedule(0.0) == pytest.approx(1 / 25, abs=1e-4)
    assert "the learning rate is the largest one of OneCycleLR" in notes
    assert "lr=0.4" in notes
    assert "momentum that OneCycleLR changes" in notes


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda module, o: {"optimizer": o, "lr_scheduler": ReduceLROnPlateau(o), "monitor": "val_loss"},
            "it follows a metric",
        ),
        (lambda module, o: ([o], [CosineAnnealingLR(o, 10)]), "counts epochs, and no Trainer says how many"),
        (lambda module, o: ([o], [by_step(CosineAnnealingLR(o, 70))]), "give trainer=... with max_steps or max_epochs"),
        (lambda module, o: ([o], [by_step(LambdaLR(o, lambda step: min(1.0, (step + 1) / 80)))]), "--warmup 79steps"),
        (lambda module, o: ([o], [ExponentialLR(o, 0.9), ExponentialLR(o, 0.8)]), "there are 2 schedulers"),
    ],
)
def test_what_is_no_factor_of_the_share_is_named(make: Any, reason: str) -> None:
    made = made_with(make)
    assert not hasattr(made, "schedule")
    notes = " ".join(made.data_notes)
    assert "is not taken over" in notes
    assert reason in notes
    assert made.optimizer(made.model(), 0.2).param_groups[0]["lr"] == 0.2


def test_the_advice_to_give_a_trainer_works() -> None:
    made = made_with(lambda module, o: ([o], [by_step(CosineAnnealingLR(o, 70))]), max_steps=70)
    assert made.schedule(0.5) == pytest.approx(0.5)


def test_groups_with_schedules_of_their_own_are_not_taken_over() -> None:
    def make(module: Any, optimizer: Any) -> Any:
        groups = [{"params": module.body.parameters()}, {"params": module.head.parameters()}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        return [optimizer], [by_step(LambdaLR(optimizer, [lambda step: 1.0, lambda step: 0.5]))]

    assert "parameter groups have schedules of their own" in " ".join(made_with(make).data_notes)


def test_the_other_import_name_is_taken(tmp_path: Any) -> None:
    pl = pytest.importorskip("pytorch_lightning", reason="the other name of lightning is not installed")

    class Other(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(6, 2)

        def training_step(self, batch: Any) -> Any:
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any) -> None:
            self.log("val_loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class OtherData(pl.LightningDataModule):
        setup, train_dataloader, val_dataloader = Data.setup, Data.train_dataloader, Data.val_dataloader
        batch_size, workers = 16, 0

    made = task(
        Other, OtherData, lambda: pl.Trainer(logger=False, gradient_clip_val=1.0, accelerator="cpu", max_steps=5)
    )
    found = check(Workload(made))
    assert found.metrics.keys() == {"val_loss"}
    assert made.before_update is not None


def test_epochs_of_a_trainer_that_names_its_steps_alone_are_counted() -> None:
    made = made_with(lambda module, o: ([o], [ExponentialLR(o, 0.5)]), max_epochs=4, max_steps=-1)
    batches = made._training.batches
    same = made_with(lambda module, o: ([o], [ExponentialLR(o, 0.5)]), max_steps=4 * batches, max_epochs=-1)
    shares = [share / 20 for share in range(20)]
    assert [same.schedule(share) for share in shares] == [made.schedule(share) for share in shares]
    assert "over the 4 epochs" in " ".join(same.data_notes)


def test_a_trainer_that_takes_a_part_of_each_epoch_has_fewer_steps() -> None:
    seen: list[int] = []

    def make(module: Any, optimizer: Any) -> Any:
        seen.append(int(module.trainer.estimated_stepping_batches))
        return [optimizer], [by_step(CosineAnnealingLR(optimizer, seen[-1]))]

    made = made_with(make, max_epochs=3, max_steps=-1, limit_train_batches=2)
    assert seen[0] == 6
    assert "over the 6 steps" in " ".join(made.data_notes)
    assert "limit_train_batches=2 is not taken over" in " ".join(made.data_notes)
