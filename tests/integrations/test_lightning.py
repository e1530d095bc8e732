"""A task of a Lightning module: its runs make the steps of a hand-written task, and of Lightning's own Trainer."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import batchscope
from batchscope.integrations.lightning import task
from batchscope.tasks.workload import Workload

from .lightning_modules import (
    QUIET,
    STEPS,
    Classifier,
    Data,
    Kept,
    Plain,
    as_they_came,
    assert_equal,
    make_trainer,
    run,
    table,
    weights,
)

pytestmark = QUIET


def by_hand() -> Any:
    """The classifier's task as a person writes it without Lightning's help."""
    x, y = table()

    def model() -> nn.Module:
        made = Classifier()
        return nn.ModuleDict({"body": made.body, "head": made.head})

    def scores(model: Any, inputs: torch.Tensor) -> torch.Tensor:
        return model["head"](model["body"](inputs))

    def optimizer(model: Any, lr: float) -> torch.optim.Optimizer:
        groups = [{"params": model["body"].parameters()}, {"params": model["head"].parameters(), "lr": lr / 5}]
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)

    return batchscope.task(
        model=model,
        train=TensorDataset(x[:64], y[:64]),
        loss=lambda model, batch: F.cross_entropy(scores(model, batch[0]), batch[1]),
        optimizer=optimizer,
        evaluate=lambda model: {"val_loss": F.cross_entropy(scores(model, x[64:]), y[64:]).item()},
        before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.5),
        schedule=lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    )


def test_a_run_ends_in_the_weights_of_a_task_written_by_hand() -> None:
    workload = Workload(task(Classifier, Data, make_trainer))
    taken, own = run(workload), run(Workload(by_hand()))
    assert_equal(weights(taken.model), weights(own.model), atol=1e-7)  # the factors of a cosine are rounded otherwise
    assert taken.steps == STEPS
    constant = []
    for made in (task(Classifier, Data, make_trainer), by_hand()):
        vars(made).pop("schedule")
        constant.append(weights(run(Workload(made)).model))
    assert_equal(*constant)


@pytest.mark.parametrize(
    "more", [{}, {"gradient_clip_algorithm": "value", "gradient_clip_val": 0.01}, {"precision": "bf16-mixed"}]
)
def test_a_run_ends_in_the_weights_of_the_trainer(more: dict[str, Any]) -> None:
    workload = Kept(task(Classifier, Data, lambda: make_trainer(**more)))
    training = run(workload)
    torch.manual_seed(3)
    module = Classifier()
    make_trainer(**more).fit(module, train_dataloaders=as_they_came(workload.batches, STEPS))
    assert_equal(weights(training.model), weights(module), atol=1e-6)


def test_micro_batches_are_those_of_accumulation() -> None:
    workload = Kept(task(Plain, Data, make_trainer))
    training = run(workload, micro=4)
    torch.manual_seed(3)
    module = Plain()
    make_trainer(accumulate_grad_batches=4).fit(module, train_dataloaders=as_they_came(workload.batches, 4 * STEPS))
    assert_equal(weights(training.model), weights(module), atol=1e-6)


def test_the_metrics_are_those_of_the_trainer() -> None:
    made = task(Classifier, Data)
    workload = Workload(made)
    model = workload.model(0)
    found = [workload.evaluate(model) for _ in range(2)]
    own = Classifier()
    own.load_state_dict(model.state_dict())
    theirs = make_trainer().validate(own, Data(), verbose=False)[0]
    assert found[0] == found[1] == pytest.approx(theirs, abs=1e-7)
    assert found[0].keys() == {"val_loss", "val_accuracy"}


class Logs(Plain):
    """Logs in all ways, in several hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.score = torchmetrics.AUROC(task="binary")
        self.seen: list[float] = []

    def on_validation_epoch_start(self) -> None:
        self.seen.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        scores = self(x)
        loss = F.cross_entropy(scores, y)
        self.seen.append(loss.item())
        self.score.update(scores.softmax(1)[:, 1], y)
        self.log("both", loss, on_step=True, on_epoch=True)
        self.log("most", loss, reduce_fx="max")
        self.log("total", float(len(y)), reduce_fx="sum")
        self.log("weighed", loss, batch_size=1)
        self.log("step_only", loss, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        self.log("auroc", self.score.compute())
        self.score.reset()
        self.log("mean_of_batches", sum(self.seen) / len(self.seen))


class TwoSets(Data):
    def val_dataloader(self) -> Any:
        x, y = table()
        return [DataLoader(self.val, batch_size=5), DataLoader(TensorDataset(x[:7], y[:7]), batch_size=4)]


class LogsOfTwo(Plain):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))
        self.log(f"set_{dataloader_idx}", float(len(batch[1])), add_dataloader_idx=False, reduce_fx="sum")


@pytest.mark.parametrize(("module", "data"), [(Logs, Data), (LogsOfTwo, TwoSets)])
def test_everything_that_is_logged_for_the_epoch_is_a_metric(module: Any, data: Any) -> None:
    workload = Workload(task(module, data))
    model = workload.model(1)
    found = workload.evaluate(model)
    theirs: dict[str, float] = {}
    for each in make_trainer().validate(copy.deepcopy(model), data(), verbose=False):
        theirs |= {name.removesuffix("_epoch"): value for name, value in each.items()}
    assert found == pytest.approx(theirs, abs=1e-6)
    assert found == workload.evaluate(model)


def test_a_tenth_of_the_validation_batches() -> None:
    made = task(Plain, Data, lambda: make_trainer(limit_val_batches=1))
    model = Workload(made).model(0)
    x, y = table()
    with torch.no_grad():
        first = F.cross_entropy(model(x[64:76]), y[64:76]).item()
    assert Workload(made).evaluate(model)["val_loss"] == pytest.approx(first, abs=1e-6)


class Hooked(Plain):
    """Notes each hook; the number of steps stands in a buffer, so that it is part of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.register_buffer("average", torch.zeros(2, 8))

    def on_train_start(self) -> None:
        self.calls.append("start")

    def on_train_epoch_start(self) -> None:
        self.calls.append(("epoch", self.current_epoch))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.calls.append(("batch", batch_idx, self.global_step))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.calls.append(type(optimizer).__name__)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.calls.append(("end", outputs["seen"], self.global_step))
        self.average.lerp_(self.head.weight.detach(), 0.1)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="norm")


def test_hooks_are_called_in_lightnings_order() -> None:
    workload = Kept(task(Hooked, Data, lambda: make_trainer(gradient_clip_val=None)))
    training = run(workload, steps=8)
    torch.manual_seed(3)
    module = Hooked()
    trainer = make_trainer(gradient_clip_val=None, max_steps=8)
    trainer.fit(module, train_dataloaders=as_they_came(workload.batches, 4))
    assert_equal(weights(training.model), weights(module), atol=1e-6)
    assert training.model.calls == module.calls


def test_a_run_that_goes_on_knows_its_step(tmp_path: Path) -> None:
    workload = Workload(task(Hooked, Data))
    training = run(workload, steps=6)
    state = copy.deepcopy(training.state())
    model = workload.model(3)
    optimizer = workload.optimizer(model, 0.1)
    optimizer.load_state_dict(state["update"]["optimizer"])
    assert (model.global_step, model.current_epoch) == (6, 1)
    copied = copy.deepcopy(training.model)
    assert workload.evaluate(copied) == workload.evaluate(training.model)
    assert copied.trainer is not training.model.trainer


def test_what_a_module_logs_in_training_goes_nowhere_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    training = run(Workload(task(Classifier, Data)))
    assert capfd.readouterr() == ("", "")
    assert training.model.trainer.callback_metrics.keys() == {"val_loss", "val_accuracy"}
