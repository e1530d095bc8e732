"""Bicycles rented in an hour, from numbers and categories: each example a dict, batches by the task's own collate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "bike_sharing" / "bike_sharing.npz"
CATEGORIES = ("season", "mnth", "hr", "weekday", "weathersit")


class Hours(Dataset[dict[str, Any]]):
    """One hour an example, as it came from the table."""

    def __init__(self, numbers: np.ndarray, categories: np.ndarray, rented: np.ndarray) -> None:
        self.numbers, self.categories, self.rented = numbers, categories, rented

    def __len__(self) -> int:
        return len(self.rented)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "numbers": self.numbers[index],
            "categories": dict(zip(CATEGORIES, self.categories[index].tolist(), strict=True)),
            "rented": float(self.rented[index]),
        }


def hidden(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.2))


class Network(nn.Module):
    """An embedding for each category, and two hidden layers with dropout."""

    def __init__(self, numbers: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({c: nn.Embedding(n, 8) for c, n in zip(CATEGORIES, levels, strict=True)})
        inputs = numbers + 8 * len(CATEGORIES)
        self.layers = nn.Sequential(hidden(inputs, 512), hidden(512, 512), nn.Linear(512, 1))

    def forward(self, batch: dict[str, Any]) -> Tensor:
        embedded = [self.embeddings[c](batch["categories"][c]) for c in CATEGORIES]
        return self.layers(torch.cat([batch["numbers"], *embedded], dim=1)).squeeze(1)


class Bicycles:
    """SGD with momentum on the squared error of the standardised count."""

    def __init__(self) -> None:
        with np.load(DATA) as file:
            names = file["feature_names"].tolist()
            chosen = [names.index(c) for c in CATEGORIES]
            others = [i for i in range(len(names)) if i not in chosen]
            x, y = file["x_train"], file["y_train"]
            mean, spread = x[:, others].mean(0), x[:, others].std(0)
            self.count_mean, self.count_spread = float(y.mean()), float(y.std())
            parts = {}
            for part in ("train", "val"):
                numbers = ((file[f"x_{part}"][:, others] - mean) / spread).astype(np.float32)
                rented = (file[f"y_{part}"] - self.count_mean) / self.count_spread
                parts[part] = Hours(numbers, file[f"x_{part}"][:, chosen].astype(np.int64), rented)
        self.train = parts["train"]
        self.val = self.collate([parts["val"][i] for i in range(len(parts["val"]))])
        self.levels = (parts["train"].categories.max(0) + 1).tolist()

    def model(self) -> nn.Module:
        return Network(self.train.numbers.shape[1], self.levels)

    def train_data(self) -> Dataset[Any]:
        return self.train

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "numbers": torch.from_numpy(np.stack([e["numbers"] for e in examples])),
            "categories": {c: torch.tensor([e["categories"][c] for e in examples]) for c in CATEGORIES},
            "rented": torch.tensor([e["rented"] for e in examples]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return F.mse_loss(model(batch), batch["rented"])

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=1e-4)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        loss = F.mse_loss(model(self.val), self.val["rented"]).item()
        return {"val_loss": loss, "val_rmse": self.count_spread * loss**0.5}


def task() -> Bicycles:
    return Bicycles()
