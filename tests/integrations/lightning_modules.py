"""Modules and data modules as people write them, tiny."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


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
