"""The product of two numbers, from examples that take 2 ms each to decode: loading is dearer than computing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Decoded(Dataset[tuple[Tensor, Tensor]]):
    """2000 examples, each waited for."""

    def __len__(self) -> int:
        return 2000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(0.002)
        x = torch.randn(8, generator=torch.Generator().manual_seed(index))
        return x, x[:1] * x[1:2]


class Product:
    """AdamW on the squared error."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))

    def train_data(self) -> Dataset[Any]:
        return Decoded()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        x = torch.randn(500, 8, generator=torch.Generator().manual_seed(9))
        return {"val_loss": nn.functional.mse_loss(model(x), x[:, :1] * x[:, 1:2]).item()}


def task() -> Product:
    return Product()
