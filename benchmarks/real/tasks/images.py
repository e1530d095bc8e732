"""Clothes by a small convolutional network with batch normalisation, on images that are turned, shifted and flipped.

The images are changed one by one when they are asked for, by two worker processes, as in most training scripts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "fashion_mnist" / "fashion_mnist.npz"


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images of 28 x 28 with values about 0, each drawn anew at every look: at most 10 degrees and 2 pixels off."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = torch.from_numpy(images)
        self.labels = labels.astype(int).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = normalised(self.images[index]).unsqueeze(0)
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        angle, x, y = (2 * torch.rand(3) - 1).tolist()
        cosine, sine = math.cos(math.radians(10) * angle), math.sin(math.radians(10) * angle)
        where = torch.tensor([[[cosine, -sine, x / 7], [sine, cosine, y / 7]]])
        grid = F.affine_grid(where, [1, 1, 28, 28], align_corners=False)
        return F.grid_sample(image.unsqueeze(0), grid, padding_mode="border", align_corners=False)[0], self.labels[
            index
        ]


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - 0.286) / 0.353


def convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Clothes:
    """SGD with momentum and weight decay."""

    loader_options = {"num_workers": 2, "persistent_workers": True}  # noqa: RUF012

    def __init__(self) -> None:
        with np.load(DATA) as file:
            self.train = Augmented(file["x_train"], file["y_train"])
            self.x_val = normalised(torch.from_numpy(file["x_val"])).unsqueeze(1)
            self.y_val = torch.from_numpy(file["y_val"].astype(np.int64))

    def model(self) -> nn.Module:
        return nn.Sequential(
            convolution(1, 16), convolution(16, 32), convolution(32, 64), nn.Flatten(), nn.Linear(64 * 16, 10)
        )

    def train_data(self) -> Dataset[Any]:
        return self.train

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=5e-4)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        scores = torch.cat([model(part) for part in self.x_val.split(500)])
        return {
            "val_loss": F.cross_entropy(scores, self.y_val).item(),
            "val_accuracy": (scores.argmax(1) == self.y_val).float().mean().item(),
        }


def task() -> Clothes:
    return Clothes()
