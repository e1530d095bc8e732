"""Modules and data modules as people write them, tiny, and runs of their tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import lightning as L
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from batchscope.store.records import RunConfig, Target
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

STEPS, SIZE = 12, 16
QUIET = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings(r"ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings(r"ignore:.*`torch.jit.*"),
    pytest.mark.filterwarnings(r"ignore:.*max_epochs.*"),
    pytest.mark.filterwarnings(r"ignore:.*no `val_dataloader`.*"),
]
"""Marks that keep Lightning's own warnings from failing a test."""


def table(examples: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).long()


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 16, workers: int = 0) -> None:
        super().__init__()
        self.batch_size, self.workers, self.prepared = batch_size, workers, 0

    def prepare_data(self) -> None:
        self.prepared += 1

    def setup(self, stage: str) -> None:
        assert stage in ("fit", "validate")
        x, y = table()
        self.train, self.val = TensorDataset(x[:64], y[:64]), TensorDataset(x[64:], y[64:])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=12)


class Classifier(L.LightningModule):
    """Two groups of parameters with learning rates 0.1 and 0.02, batch normalisation, a metric object."""

    def __init__(self, hidden: int = 8, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(6, hidden), nn.BatchNorm1d(hidden), nn.Tanh())
        self.head = nn.Linear(hidden, 2)
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return {"loss": loss, "seen": len(y)}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        scores = self(x)
        self.accuracy(scores, y)
        self.log_dict({"val_loss": F.cross_entropy(scores, y), "val_accuracy": self.accuracy}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        lr = self.hparams["lr"]
        groups = [{"params": self.body.parameters()}, {"params": self.head.parameters(), "lr": lr / 5}]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_trainer(**more: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(**{**quiet, "enable_model_summary": False, "gradient_clip_val": 0.5, "max_steps": 12} | more)


class Plain(Classifier):
    """Without batch normalisation and scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


NEVER = Target(metric="val_loss", value=-1.0, mode="min")


class Unvalidated(Plain):
    validation_step = L.LightningModule.validation_step


class Kept(Workload):
    """A task on its device that keeps the batches which it hands out."""

    def __init__(self, made: Any) -> None:
        super().__init__(made)
        self.batches: list[Any] = []

    def micro_batches(self, *given: Any, **named: Any) -> Iterator[list[Any]]:
        for parts in super().micro_batches(*given, **named):
            self.batches += parts
            yield parts


def run(workload: Workload, *, lr: float = 0.1, micro: int = SIZE, steps: int = STEPS) -> Training:
    schedule = "constant" if workload.schedule is None else "task"
    config = {
        "batch_size": SIZE,
        "micro_batch_size": micro,
        "grad_accum_steps": SIZE // micro,
        "lr": lr,
        "seed": 3,
        "max_steps": steps,
        "target": NEVER,
    }
    training = Training(workload, RunConfig(task="task", schedule=schedule, **config))
    training.advance()
    return training


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0.0, atol=atol, msg=name)


class Whole(Dataset[Any]):
    """Batches in the order in which they came, the next ones in each epoch."""

    def __init__(self, batches: list[Any], epoch: int) -> None:
        self.batches, self.epoch, self.given = batches, epoch, 0

    def __len__(self) -> int:
        return self.epoch

    def __getitem__(self, index: int) -> Any:
        self.given += 1
        return self.batches[self.given - 1]


def as_they_came(batches: list[Any], epoch: int) -> DataLoader[Any]:
    return DataLoader(Whole(batches, epoch), batch_size=None)
