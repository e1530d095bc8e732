"""Images of clothing by a convolutional network in Lightning: batch normalisation, clipping, one cosine."""

import os
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

SHARED = Path(os.environ.get("BATCHSCOPE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
TRAIN, VAL = 10_000, 500


class Images(L.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        with np.load(SHARED / "data" / "fashion_mnist" / "fashion_mnist.npz") as arrays:
            x, y = (np.concatenate([arrays[f"{k}_train"][:TRAIN], arrays[f"{k}_val"][:VAL]]) for k in "xy")
        x = (torch.from_numpy(x).float().unsqueeze(1) - 73) / 90
        y = torch.from_numpy(y).long()
        self.train, self.val = TensorDataset(x[:TRAIN], y[:TRAIN]), TensorDataset(x[TRAIN:], y[TRAIN:])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 500)


def layer(inputs, outputs):
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


class Classifier(L.LightningModule):
    def __init__(self, lr=1e-3):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(*layer(1, 16), *layer(16, 32), *layer(32, 64), nn.Flatten(), nn.Linear(576, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        scores = self.net(x)
        self.log("val_loss", F.cross_entropy(scores, y))
        self.log("val_accuracy", (scores.argmax(1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.01)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def make_trainer(**options):
    return L.Trainer(
        accelerator="cpu",
        gradient_clip_val=1.0,
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


def train(*, batch_size=32, lr=1e-3, seed=0, steps=1250, every=50, watch):
    L.seed_everything(seed, verbose=False)
    trainer = make_trainer(
        max_steps=steps,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[Watched(watch)],
    )
    trainer.fit(Classifier(lr), Images(batch_size))
