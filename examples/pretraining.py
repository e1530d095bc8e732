"""Weights for `fine_tuning.py` to start from: a network that tells the digits 0 to 4 apart.

python examples/pretraining.py --save pretrained.pt
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

DIGITS = Path(__file__).resolve().parents[1] / "src" / "batchscope" / "tasks" / "builtin" / "digits.npz"
WEIGHTS = Path("pretrained.pt")


def digits(first, last):
    """Images of the digits from `first` to `last`, numbered from 0: a fifth of them to validate on."""
    with np.load(DIGITS) as file:
        chosen = (file["y"] >= first) & (file["y"] <= last)
        images = torch.from_numpy(file["x"][chosen]).float()[:, None] / 16
        labels = torch.from_numpy(file["y"][chosen]).long() - first
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    cut = len(labels) // 5
    return (TensorDataset(images[part], labels[part]) for part in (order[cut:], order[:cut]))


class Network(nn.Module):
    """A body in three parts, and a head that scores five classes."""

    def __init__(self):
        super().__init__()
        self.edges = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.shapes = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten())
        self.features = nn.Sequential(nn.Linear(512, 64), nn.ReLU())
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        return self.head(self.features(self.shapes(self.edges(images))))


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--save", type=Path, default=WEIGHTS)
    args = parser.parse_args(words)
    torch.manual_seed(0)
    train, val = digits(0, 4)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(args.epochs):
        for images, labels in DataLoader(train, 32, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    with torch.no_grad():
        right = (model(val.tensors[0]).argmax(1) == val.tensors[1]).float().mean().item()
    print(f"val_accuracy {right:.3f}")
    torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
