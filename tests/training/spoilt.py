"""A small task whose examples, loss or members are spoilt, and its runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import batchscope
from batchscope.errors import TaskError
from batchscope.store.records import RunConfig, RunResult
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

__all__ = ["BAD", "EXAMPLES", "NOT_THE_LR", "START_BIAS", "inputs", "mean_loss", "refused", "run", "sgd", "workload"]

EXAMPLES, BAD = 200, 137
START_BIAS = 0.25
NOT_THE_LR = "not the learning rate"


def inputs() -> tuple[Tensor, Tensor]:
    x = torch.randn(EXAMPLES, 4, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


def mean_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def workload(train_data: Any = None, loss: Any = mean_loss, **members: Any) -> Workload:
    def evaluate(model: nn.Module) -> dict[str, float]:
        x, y = inputs()
        return {"val_loss": float(F.cross_entropy(model(x), y))}

    members = {"evaluate": evaluate, "model": lambda: nn.Linear(4, 2), "optimizer": sgd, **members}
    data = TensorDataset(*inputs()) if train_data is None else train_data
    return Workload(batchscope.task(train=data, loss=loss, **members))


def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=lr)


def run(of: Workload, lr: float = 0.01, batch_size: int = 8, max_steps: int = 60, **more: Any) -> RunResult:
    split = {"micro_batch_size": batch_size, **more}
    return train(of, RunConfig(task="t", batch_size=batch_size, lr=lr, max_steps=max_steps, **split))


def refused(of: Workload, **more: Any) -> str:
    with pytest.raises(TaskError) as caught:
        run(of, **more)
    return str(caught.value)
