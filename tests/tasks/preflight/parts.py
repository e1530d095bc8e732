"""A sound task, of which tests replace one part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from batchscope.store.records import Target
from batchscope.tasks.preflight.check import Preflight, check
from batchscope.tasks.workload import Workload

CLASSES = 3


def make_data(examples: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(examples, 4, generator=generator), torch.arange(examples) % CLASSES)


def mean_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def sgd(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.SGD(params, lr=lr)


def fixed_metrics(model: nn.Module) -> Mapping[str, Any]:
    return {"val_loss": next(model.parameters()).square().sum().item(), "val_accuracy": 0.25, "test_loss": 1.0}


@dataclass
class Parts:
    """A sound task; tests replace one part of it."""

    make_model: Callable[[], nn.Module] = lambda: nn.Linear(4, CLASSES)
    data: Any = field(default_factory=make_data)
    compute_loss: Callable[[nn.Module, Any], Any] = mean_loss
    make_optimizer: Callable[..., Any] = sgd
    metrics: Callable[[nn.Module], Any] = fixed_metrics

    def model(self) -> nn.Module:
        return self.make_model()

    def train_data(self) -> Any:
        return self.data

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return self.compute_loss(model, batch)

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Any:
        return self.make_optimizer(params, lr)

    def evaluate(self, model: nn.Module) -> Any:
        return self.metrics(model)


def run(target: str | None = None, max_batch_size: int | None = None, **parts: Any) -> Preflight:
    asked = Target.parse(target) if target else None
    return check(Workload(Parts(**parts)), target=asked, max_batch_size=max_batch_size)


def sum_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def stacked(*middle: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(4, 8), *map(copy.deepcopy, middle), nn.Linear(8, CLASSES))
