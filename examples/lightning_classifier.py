"""Handwritten digits in Lightning: convolutions with batch normalisation, clipping, cosine, and the noise scale logged.

python examples/lightning_classifier.py --epochs 20
python examples/lightning_classifier.py --find "val_accuracy>=0.97"

With `--find` a few lines find the batch size and the learning rate first; they stand in the place of
`Tuner.scale_batch_size` and `Tuner.lr_find`, of which the one looks for the largest batch that fits, and the other for
a learning rate at whatever batch size there is. The same from the command line, without a line in the script:

batchscope find batchscope.integrations.lightning:task --target "val_accuracy>=0.97"
    --set module=examples/lightning_classifier.py:Classifier --set data=examples/lightning_classifier.py:Digits
    --set trainer=examples/lightning_classifier.py:make_trainer
"""

import argparse
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import batchscope
from batchscope.integrations.lightning import NoiseCallback, task

DIGITS = Path(__file__).resolve().parents[1] / "src" / "batchscope" / "tasks" / "builtin" / "digits.npz"
TRAINED = 1437


class Digits(L.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        with np.load(DIGITS) as file:
            images, labels = torch.from_numpy(file["x"]).float()[:, None] / 16, torch.from_numpy(file["y"]).long()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        train, val = order[:TRAINED], order[TRAINED:]
        self.train = TensorDataset(images[train], labels[train])
        self.val = TensorDataset(images[val], labels[val])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 360)


class Classifier(L.LightningModule):
    def __init__(self, lr=0.02, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * width, 10),
        )

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        scores = self(images)
        right = (scores.argmax(1) == labels).float().mean()
        self.log_dict({"val_loss": F.cross_entropy(scores, labels), "val_accuracy": right}, prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_trainer(epochs=20, steps=-1, **more):
    return L.Trainer(max_epochs=epochs if steps < 0 else -1, max_steps=steps, gradient_clip_val=1.0, **more)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--find", metavar="TARGET")
    args = parser.parse_args(words)

    if args.find:
        question = batchscope.Question(target=batchscope.Target.parse(args.find))
        found = batchscope.find(task(Classifier, Digits, make_trainer), question, out="lightning_classifier")
        recipe = found.recipe or parser.exit(3, f"{found.message}\n")
        args.batch_size, args.lr, args.steps = recipe.batch_size, recipe.lr, recipe.steps

    L.seed_everything(args.seed)
    monitor = NoiseCallback(loss=lambda module, batch: F.cross_entropy(module(batch[0]), batch[1]))
    trainer = make_trainer(args.epochs, args.steps, callbacks=[monitor], logger=CSVLogger("."))
    trainer.fit(Classifier(args.lr), Digits(args.batch_size))
    print(", ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items()))
    reading = monitor.read()
    print(f"gradient noise scale: {reading.gradient_noise_scale.value or reading.reason}")


if __name__ == "__main__":
    main()
