"""Letters from 16 numbers, where an evaluation takes as long as about 20 steps: it looks at training examples too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "letter" / "letter.npz"


class Letters(Dataset[tuple[Tensor, Tensor]]):
    """One letter an example, its numbers standardised."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


class Recognition:
    """SGD with momentum on the cross entropy."""

    def __init__(self) -> None:
        with np.load(DATA) as file:
            mean, spread = file["x_train"].mean(0), file["x_train"].std(0)
            self.train, self.val = (
                Letters((file[f"x_{part}"] - mean) / spread, file[f"y_{part}"]) for part in ("train", "val")
            )

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(16, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 26))

    def train_data(self) -> Dataset[Any]:
        return self.train

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        metrics = {}
        for part, data in (("train", self.train), ("val", self.val)):
            x, y = data.x[:3500], data.y[:3500]
            scores = torch.cat([model(some) for some in x.split(500)])
            metrics[f"{part}_loss"] = F.cross_entropy(scores, y).item()
            metrics[f"{part}_accuracy"] = (scores.argmax(1) == y).float().mean().item()
        return metrics


def task() -> Recognition:
    return Recognition()
