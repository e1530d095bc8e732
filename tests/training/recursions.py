"""Tasks whose training can be written down, or repeated bit by bit, and runs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from batchscope.store.records import Row, RunConfig, RunResult, Target
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

CURVATURES = torch.tensor([0.5, 2.0], dtype=torch.float64)
START = torch.tensor([3.0, -1.0], dtype=torch.float64)


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(START.clone())


@dataclass
class Quadratic:
    """Loss ½ Σ h w², the same for every example: gradient descent is `w ← (1 - lr h) w`."""

    momentum: float = 0.0
    blow_up_at: int | None = None
    steps: int = 0

    def model(self) -> nn.Module:
        return Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.zeros(64, 2, dtype=torch.float64))

    def loss(self, model: Any, batch: Any) -> Tensor:
        self.steps += 1
        if self.blow_up_at == self.steps:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (0.5 * CURVATURES * (model.w - batch[0]) ** 2).sum(1).mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return SGD(params, lr=lr, momentum=self.momentum)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        value = (0.5 * CURVATURES * model.w**2).sum().item()
        return {"val_loss": value, "score": -value}


def config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {"task": "quadratic", "batch_size": 8, "micro_batch_size": 8, "lr": 0.1, "max_steps": 40}
    return RunConfig(**{**values, **changes})


def run(task: Any, **changes: Any) -> tuple[RunResult, list[Row]]:
    rows: list[Row] = []
    result = train(Workload(task), config(**changes), on_row=rows.append)
    return result, rows


def loss_at(factors: Iterable[float], lr: float = 0.1, decay: float = 0.0) -> float:
    """The loss after one step for each schedule factor."""
    w = START.numpy().copy()
    h = CURVATURES.numpy()
    for factor in factors:
        w *= 1.0 - lr * factor * (h + decay)
    return float((0.5 * h * w**2).sum())


def target(value: float, metric: str = "val_loss", mode: Any = "min") -> Target:
    return Target(metric=metric, value=value, mode=mode)


class Regression:
    """A small network on random data in float64, examples all different."""

    def __init__(self, dropout: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(96, 5, generator=generator, dtype=torch.float64)
        self.data = TensorDataset(x, torch.sin(x.sum(1, keepdim=True)))
        self.dropout = dropout

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(16, 1)).double()

    def train_data(self) -> TensorDataset:
        return self.data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.AdamW(params, lr=lr)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return {"val_loss": self.loss(model, self.data.tensors).item()}


def metrics_of(rows: Iterable[Row]) -> list[float]:
    return [row["metrics"]["val_loss"] for row in rows]


CLOCKS = ("device_seconds", "evaluation_seconds")


def without_time(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
