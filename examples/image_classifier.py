"""Handwritten digits by a convolutional network: shifted images, batch normalisation, workers, momentum, cosine.

python examples/image_classifier.py --epochs 20
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

DIGITS = Path(__file__).resolve().parents[1] / "src" / "batchscope" / "tasks" / "builtin" / "digits.npz"
TRAINED = 1437
WORKERS = 2


class Digits(Dataset):
    """Images of 8 x 8 pixels; those to train on are moved by up to one pixel, drawn anew at every look."""

    def __init__(self, train):
        with np.load(DIGITS) as file:
            images, labels = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[:TRAINED] if train else order[TRAINED:]
        self.images, self.labels, self.train = images[chosen].float() / 16, labels[chosen].long(), train

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        x, y = torch.randint(3, (2,)).tolist() if self.train else (1, 1)
        return F.pad(self.images[index], (1, 1, 1, 1))[None, y : y + 8, x : x + 8], self.labels[index]


def load():
    return Digits(train=True), DataLoader(Digits(train=False), 500)


def convolution(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def make_model():
    return nn.Sequential(
        convolution(1, 16, 1), convolution(16, 32, 2), convolution(32, 64, 2), nn.Flatten(), nn.Linear(256, 10)
    )


def make_optimizer(params, lr):
    return torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)


@torch.no_grad()
def validate(model, loader):
    model.eval()
    device = next(model.parameters()).device
    loss, right = 0.0, 0
    for images, labels in loader:
        scores, labels = model(images.to(device)), labels.to(device)
        loss += F.cross_entropy(scores, labels, reduction="sum").item()
        right += (scores.argmax(1) == labels).sum().item()
    model.train()
    return {"val_loss": loss / len(loader.dataset), "val_accuracy": right / len(loader.dataset)}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("image_classifier.pt"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val_loader = load()
    loader = DataLoader(
        train,
        args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    torch.manual_seed(args.seed)
    model = make_model().to(device)
    optimizer = make_optimizer(model.parameters(), args.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs * len(loader))

    best = 0.0
    for epoch in range(args.epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        metrics = validate(model, val_loader)
        print(f"epoch {epoch + 1}: val_loss {metrics['val_loss']:.4f}, val_accuracy {metrics['val_accuracy']:.4f}")
        if metrics["val_accuracy"] > best:
            best = metrics["val_accuracy"]
            torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
