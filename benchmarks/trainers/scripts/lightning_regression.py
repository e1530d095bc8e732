"""Bicycles rented in an hour, of a table, by a residual network in Lightning at a constant learning rate."""

import os
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

SHARED = Path(os.environ.get("BATCHSCOPE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
CODES = {0: 5, 2: 13, 3: 24, 5: 7, 7: 5}
"""Columns that are categories, and how many each has."""


class Hours(L.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        with np.load(SHARED / "data" / "bike_sharing" / "bike_sharing.npz") as arrays:
            self.train, self.val = (self.part(arrays[f"x_{k}"], arrays[f"y_{k}"]) for k in ("train", "val"))

    def part(self, x, y):
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        others = [column for column in range(x.shape[1]) if column not in CODES]
        hot = [F.one_hot(x[:, column].long(), many).float() for column, many in CODES.items()]
        return TensorDataset(torch.cat([x[:, others], *hot], dim=1), (y[:, None] - 191.5) / 182.3)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 1310)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU())
        self.out = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.out(self.layers(x))


class Regressor(L.LightningModule):
    def __init__(self, lr=1e-3, width=256):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.LazyLinear(width), *(Residual(width) for _ in range(3)), nn.Linear(width, 1))
        self.net(torch.zeros(2, 7 + sum(CODES.values())))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.01)


def make_trainer(**options):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


class Watched(L.Callback):
    def __init__(self, watch):
        self.watch = watch

    def on_train_start(self, trainer, module):
        self.watch.begins()

    def on_validation_start(self, trainer, module):
        self.watch.validates()

    def on_validation_end(self, trainer, module):
        trainer.should_stop = self.watch.validated(trainer.global_step, trainer.callback_metrics["val_loss"].item())


def train(*, batch_size=32, lr=1e-3, seed=0, steps=4000, every=50, watch):
    L.seed_everything(seed, verbose=False)
    trainer = make_trainer(
        max_steps=steps,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[Watched(watch)],
    )
    trainer.fit(Regressor(lr), Hours(batch_size))
