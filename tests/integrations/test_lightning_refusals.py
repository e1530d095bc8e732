"""Lightning modules and data that cannot be trained by a search: each is refused with what to change."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import torch
from torch import nn

from batchscope.errors import TaskError
from batchscope.integrations.lightning import task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .lightning_modules import (
    QUIET,
    Data,
    Plain,
    as_they_came,
)

pytestmark = QUIET


class Manual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class TwoOptimizers(Plain):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.body.parameters(), 0.1), torch.optim.Adam(self.head.parameters(), 0.1)], []


class OwnStep(Plain):
    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)


class OwnBackward(Plain):
    def backward(self, loss: Any) -> None:
        loss.backward()


class Nothing(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)


class SilentValidation(Plain):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


class NoOptimizer(Plain):
    def configure_optimizers(self) -> None:
        return None


class AsksItsLength(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        share = self.global_step / self.trainer.estimated_stepping_batches
        return super().training_step(batch, batch_idx)["loss"] * (1.0 + share)


class AsksForMore(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trainer.save_checkpoint("here.ckpt")


class OwnBatches(Plain):
    def training_step(self, dataloader_iter: Any) -> Any:
        return next(dataloader_iter)


class FailsToPrepare(Data):
    def prepare_data(self) -> None:
        raise OSError("no network")


class Needy(Plain):
    def __init__(self, width: int) -> None:
        super().__init__()


class WholeBatches(Data):
    def train_dataloader(self) -> Any:
        return as_they_came([torch.zeros(16, 6)], 4)


class Two(Data):
    def train_dataloader(self) -> Any:
        return {"one": super().train_dataloader(), "other": super().train_dataloader()}


class LoaderOfItsOwn(Data):
    def train_dataloader(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        (Manual, Data, "Manual has automatic_optimization=False.*return one loss from training_step"),
        (TwoOptimizers, Data, r"2 optimizers \(SGD, Adam\).*a parameter group for each part"),
        (NoOptimizer, Data, r"configure_optimizers\(\) returned None.*return the optimizer"),
        (OwnStep, Data, r"optimizer_step\(\) of OwnStep makes the optimizer's step itself.*--warmup"),
        (OwnBackward, Data, r"backward\(\) of OwnBackward makes the backward pass itself"),
        (Nothing, Data, r"training_step\(\) returned None"),
        (SilentValidation, Data, r"logged no metric of an epoch: add self.log\('val_loss', loss\)"),
        (AsksItsLength, Data, "asks for trainer.estimated_stepping_batches, which a run does not know"),
        (AsksForMore, Data, "asks for trainer.save_checkpoint.*no Trainer of Lightning"),
        (OwnBatches, Data, r"training_step\(dataloader_iter\) of OwnBatches.*define training_step\(batch, batch_idx\)"),
        (
            Plain,
            FailsToPrepare,
            r"setup\('fit'\) of FailsToPrepare raised OSError: no network \(test_",
        ),
        ("train.Model", Data, "module=train.Model names no class or function; write package.module:NAME or file"),
        (Needy, Data, "Needy needs width.*def make_module"),
        (Plain, WholeBatches, "batch_size=None: its Whole yields whole batches"),
        (Plain, Two, "a dict of 2 loaders, each with a batch size of its own"),
        (Plain, LoaderOfItsOwn, "returned list_iterator, which alone holds the data"),
        (Plain, None, r"Plain makes no loader itself: give its LightningDataModule, --set data="),
        (nn.Linear(2, 2), Data, r"is one Linear, and every run begins with a fresh one: .*lambda: Linear"),
        (lambda: nn.Linear(2, 2), Data, "an object of type Linear, which is no LightningModule"),
        (Plain, dict, "an object of type dict, which has no train_dataloader"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_to_change(module: Any, data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(Workload(task(module, data)))
